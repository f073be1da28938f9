"""Is there a verified copy of the source? One is made, or found, before anything else happens to a book."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from aiom4b.adapters import backups
from aiom4b.adapters.backup_format import MANIFEST, BackupSet, StoredFile, holds_key, stored_path
from aiom4b.adapters.copies import Copied, Copy, copy_all
from aiom4b.adapters.files import check_writable, hash_file, make_directories, make_heir, translated, write_durably
from aiom4b.adapters.space import SpaceLedger
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import BackupReceipt, CopiedFile, FileIdentity, Name, Progress, Sha256, Source, Step
from aiom4b.steps.context import TOOL, together

BATCH_FILES = 32
"""Files copied by one thread in one go, all of them open at once: few enough for 1024 descriptors and several books."""
BATCH_BYTES = 32 << 20
_NEWS_BYTES = 4 << 20  # between two reports of one thread
_BLOCK = 4096  # what a file system rounds up to
_OVERHEAD = 1 << 20  # bytes for manifest, sums and folders

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    path: Name
    expected: FileIdentity
    sha256: Sha256 | None  # known of audio, not of sidecars


async def backup(
    source: Source,
    directory: str,
    *,
    now: datetime,
    limiter: anyio.CapacityLimiter,
    ledger: SpaceLedger,
    report: Callable[[Progress], None],
    extras: Mapping[Name, bytes] = MappingProxyType({}),
) -> BackupReceipt:
    """Return a complete, verified backup of ``source`` in ``directory``: one that is there already, else a new set.

    ``extras`` are files that the set holds although the source doesn't: keys, without which a restored book stays locked.
    The receipt lists the audio in the order of ``source.files``, then the sidecars, then those. ``report`` is called in the event loop;
    every byte counts when it is written and once more when it is read back. ``limiter`` says how many threads copy at once.
    Safe to repeat: a set appears whole or not at all, cancelled or killed, and the next run removes what is left of the last.

    Raises Transient ``source.changed`` when a file is no longer the one that was examined, ``backup.readback``,
    ``backup.busy`` and ``space.full``; NeedsAttention ``directory.missing`` and ``directory.not_writable``, since a folder
    that is missing may be a volume that is not mounted; and what `files.translated` raises.
    """
    wanted = tuple(_wanted(source))
    work = _Work(limiter, report, total=sum(2 * one.expected.size for one in wanted))
    await work.in_thread(check_writable, directory)
    staged = backups.staging(directory, source.root, source.name)
    with ExitStack() as held:
        claim = await work.in_thread(backups.claimed, staged)
        await work.in_thread(held.enter_context, claim)
        await work.in_thread(backups.clear, staged)
        made = await work.in_thread(_same, source, wanted, extras, directory, work.heard)
        if made is None:
            await work.in_thread(held.enter_context, ledger.reserve(directory, _needed(wanted)))
            try:
                await work.in_thread(make_heir, staged, directory)
                files = await _copied(source, wanted, staged, work)
                files += await work.in_thread(_written, extras, staged, now)
                plan = BackupSet(
                    root=staged,
                    source=source.root,
                    fingerprint=source.fingerprint,
                    created=now,
                    tool=TOOL,
                    files=files,
                )
                made = await work.in_thread(backups.complete, staged, plan, directory, source.name)
            except BaseException:
                # What can't be removed now, the next run removes; the error on its way tells more.
                with anyio.CancelScope(shield=True), suppress(NeedsAttention, Transient):
                    await work.in_thread(backups.clear, staged)
                raise
    work.finished()
    return BackupReceipt(
        root=made.root,
        copied=True,
        files=tuple(CopiedFile(path=stored_path(one.path), size=one.size, sha256=one.sha256) for one in made.files),
    )


def is_still_good(receipt: BackupReceipt) -> bool:
    """Whether every file of a receipt is there in its size: a cheap look, for going on with a book after a pause."""
    if receipt.copied and not os.path.isfile(os.path.join(receipt.root, MANIFEST)):
        return False
    return all(_size(os.path.join(receipt.root, one.path)) == one.size for one in receipt.files)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # gone or out of reach: either way the backup is to be made again, which tells the reason
        return None


def _wanted(source: Source) -> Iterator[_Wanted]:
    for file in source.files:
        yield _Wanted(path=file.path, expected=file.identity, sha256=file.sha256)
    for sidecar in source.sidecars:
        yield _Wanted(path=sidecar.path, expected=sidecar.identity, sha256=None)


def _needed(wanted: Sequence[_Wanted]) -> int:
    return sum(-(-one.expected.size // _BLOCK) * _BLOCK for one in wanted) + _OVERHEAD


def _same(
    source: Source,
    wanted: Sequence[_Wanted],
    extras: Mapping[Name, bytes],
    directory: str,
    on_bytes: Callable[[int], None],
) -> BackupSet | None:
    """Return the newest set that holds exactly these files, every one of them proved by reading it."""
    for found in reversed(backups.list_sets(directory)):
        if (
            found.fingerprint == source.fingerprint
            and len(found.files) == len(wanted) + len(extras)
            and all(_agrees(source.root, one, stored) for one, stored in zip(wanted, found.files, strict=False))
            and all(
                (stored.path, stored.sha256) == (path, _sha256(data))
                for (path, data), stored in zip(extras.items(), found.files[len(wanted) :], strict=True)
            )
            and not backups.damage(found, on_bytes=on_bytes)
        ):
            return found
    return None


def _written(extras: Mapping[Name, bytes], staged: str, now: datetime) -> tuple[StoredFile, ...]:
    """Write what holds keys, readable by its owner only from the first byte on."""
    stored = []
    for path, data in extras.items():
        destination = os.path.join(staged, stored_path(path))
        make_directories(os.path.dirname(destination))
        write_durably(destination, data, mode=0o600)
        stamp = int(now.timestamp()) * 1_000_000_000
        with translated(destination, "writing"):
            os.utime(destination, ns=(stamp, stamp))
        stored.append(StoredFile(path=path, size=len(data), sha256=_sha256(data), mtime_ns=stamp))
    return tuple(stored)


def _sha256(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


def _agrees(root: str, one: _Wanted, stored: StoredFile) -> bool:
    if (one.path, one.expected.size) != (stored.path, stored.size):
        return False
    if one.sha256 is not None:
        return stored.sha256 == one.sha256
    try:
        return stored.sha256 == hash_file(os.path.join(root, one.path))
    except NeedsAttention:  # it went away, or is no file any more: copying it tells that as a change of the source
        return False


class _Work:
    """Runs one backup's calls in threads and tells how far they are; `heard` is called from those threads."""

    def __init__(self, limiter: anyio.CapacityLimiter, report: Callable[[Progress], None], *, total: int) -> None:
        self._limiter = limiter
        self._report = report
        self._total = total
        self._done = 0
        self._told = 0
        self._lock = threading.Lock()

    async def in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        """Return ``call(*arguments)`` from a thread. A cancelled call is waited for: `heard` ends it at its next block."""
        return await anyio.to_thread.run_sync(call, *arguments, limiter=self._limiter)

    def heard(self, size: int) -> None:
        """Count bytes, tell the event loop now and then, and end the thread's call when the backup is cancelled."""
        anyio.from_thread.check_cancelled()
        with self._lock:
            self._done = min(self._done + size, self._total)
            worth_telling = self._done - self._told >= _NEWS_BYTES
            if worth_telling:
                self._told = self._done
        if worth_telling:
            anyio.from_thread.run_sync(self._tell)

    def finished(self) -> None:
        """Tell that everything is done: a set that was found needed less reading than a new one."""
        self._done = self._total
        self._tell()

    def _tell(self) -> None:
        self._report(Progress(step=Step.BACKUP, done=self._done, total=self._total))


async def _copied(source: Source, wanted: Sequence[_Wanted], staged: str, work: _Work) -> tuple[StoredFile, ...]:
    """Copy everything into ``staged``, in batches that run in as many threads as may."""
    folders = sorted({os.path.dirname(stored_path(one.path)) for one in wanted} | {""})
    for folder in folders:
        await work.in_thread(make_directories, os.path.join(staged, folder).rstrip("/"))
    copies = [
        Copy(
            source=os.path.join(source.root, one.path),
            destination=os.path.join(staged, stored_path(one.path)),
            expected=one.expected,
            sha256=one.sha256,
            private=holds_key(one.path),
        )
        for one in wanted
    ]
    batches = [partial(work.in_thread, partial(copy_all, batch, on_bytes=work.heard)) for batch in _batches(copies)]
    done: list[Copied] = [copied for batch in await together(batches) for copied in batch]
    return tuple(
        StoredFile(path=one.path, size=copied.size, sha256=copied.sha256, mtime_ns=copied.mtime_ns)
        for one, copied in zip(wanted, done, strict=True)
    )


def _batches(copies: Sequence[Copy]) -> Iterator[list[Copy]]:
    batch: list[Copy] = []
    size = 0
    for copy in copies:
        more = copy.expected.size if copy.expected else 0
        if batch and (len(batch) == BATCH_FILES or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(copy)
        size += more
    if batch:
        yield batch
