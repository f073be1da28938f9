"""Which backups may go? Only old ones whose every byte is proved to be somewhere else, a few at a time, and told in a log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio.from_thread
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters import backups, files, trees, volumes
from aiom4b.adapters.backup_format import MANIFEST, SUMS, BackupSet, stored_path
from aiom4b.adapters.files import displayable, translated
from aiom4b.adapters.trees import EntryKind
from aiom4b.book.completeness import is_litter
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.models import Name

LOG = "cleanup.log"
"""In the backup directory: a line for each set that was removed, and for each one that is old and was kept."""

_TRASH = ".trash-"
_SHARE = 4  # of all sets may go in one run
_LOG_LIMIT = 4 << 20  # bytes of the log's end that are looked through for what was told before

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What becomes of one old set, and why; ``size`` in bytes of its files."""

    root: Name
    size: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What one run did. Old sets that a later run will look at are neither removed nor kept."""

    removed: tuple[Judged, ...] = ()
    kept: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """How the files are asked; each call looks at the disk as it is now.

    ``alien`` names a file in a set that is not of it, ``at_work`` whether a book is being made from the same audio,
    ``is_published`` whether its book is in the library, ``is_whole`` whether every file of a set reads back right, and
    ``origin`` where the source still holds every file of a set.
    """

    alien: Callable[[BackupSet], str | None]
    at_work: Callable[[BackupSet], bool]
    is_published: Callable[[BackupSet], bool]
    is_whole: Callable[[BackupSet], bool]
    origin: Callable[[BackupSet], str | None]


# --- the decision ------------------------------------------------------------------------------------------------------


def old(sets: Sequence[BackupSet], *, days: int, now: datetime) -> tuple[BackupSet, ...]:
    """Return which sets are older than ``days``, oldest first; the newest of all is never among them."""
    by_age = sorted(sets, key=lambda one: one.created)
    return tuple(one for one in by_age[:-1] if one.created < now - timedelta(days=days))


def at_most(count: int) -> int:
    """Return how many of ``count`` sets may go in one run: a quarter, at least one."""
    return max(1, count // _SHARE)


def runs_back(sets: Sequence[BackupSet], now: datetime) -> bool:
    """Whether the clock stands before the newest set was made: then no age can be trusted."""
    return any(one.created > now for one in sets)


def judge(made: BackupSet, others: Sequence[BackupSet], proofs: Proofs) -> tuple[bool, str]:
    """Say whether an old set may go, and why; ``others`` are all sets that are there beside it.

    It may when another set holds everything in it and reads back right, or when its book is in the library and its source
    holds everything in it. Cheap questions come first: hourly runs must not read the same disks for nothing.
    """
    if (name := proofs.alien(made)) is not None:
        return False, f"{displayable(name)} in it is no part of the backup"
    if proofs.at_work(made):
        return False, "a book is being made from it"
    contents = _contents(made)
    for other in reversed(others):
        if contents <= _contents(other) and proofs.is_whole(other):
            return True, f"{displayable(os.path.basename(other.root))} holds the same and was verified"
    if not proofs.is_published(made):
        return False, "its book is not in the library"
    where = proofs.origin(made)
    if where is None:
        return False, "it is the last verified copy of what is in it"
    return True, f"its book is in the library and its source is unchanged in {displayable(where)}"


def _contents(made: BackupSet) -> frozenset[tuple[int, str]]:
    return frozenset((file.size, file.sha256) for file in made.files)


# --- the action --------------------------------------------------------------------------------------------------------


async def clean(
    directory: str,
    library: str,
    *,
    days: int,
    now: datetime,
    source: str | None = None,
    archive: str | None = None,
) -> Cleaned:
    """Remove backup sets older than ``days`` (0: none) that `judge` lets go, and tell each in ``cleanup.log``.

    ``source`` and ``archive`` are the directories that finished sources are moved from and to, if they are. A set vanishes
    from the list in one durable rename before anything in it is deleted; one that a killed run had only renamed comes back
    and is judged anew, since the copy that stood in for it may have rotted meanwhile. Safe to repeat after any stop; when
    cancelled it ends within a block.

    Raises Transient ``volume.missing`` when backups or library seem not to be mounted, ``cleanup.busy`` when another process
    cleans there, and what `files.translated` raises.
    """
    await volumes.Guard((directory, library)).check()
    run = partial(_Cleaner(directory, library, source, archive).run, days, now)
    return await anyio.to_thread.run_sync(run)


class _Cleaner:
    """One run over one backup directory, in a thread."""

    def __init__(self, directory: str, library: str, source: str | None, archive: str | None) -> None:
        self._directory = directory
        self._hidden = os.path.join(directory, files.HIDDEN)
        self._library = library
        self._moved = (source, archive)
        self._proofs = Proofs(
            alien=_alien,
            at_work=lambda made: os.path.lexists(pipeline.work_dir(library, made.fingerprint)),
            is_published=lambda made: pipeline.already_published(library, made.fingerprint) is not None,
            is_whole=lambda made: not backups.damage(made, on_bytes=_heard),
            origin=lambda made: next((root for root in self._origins(made) if _holds(root, made)), None),
        )

    def run(self, days: int, now: datetime) -> Cleaned:
        busy = Transient(
            "cleanup.busy",
            f"Another process cleans up in {displayable(self._directory)}.",
            remedy="Wait for it to finish; it is tried again later.",
            path=self._directory,
        )
        # Two at a time could each rely on the very copy that the other one removes.
        with files.locked(os.path.join(self._hidden, "cleanup.lock"), busy):
            self._empty_trash(now)
            return self._clean(days, now) if days else Cleaned()

    def _clean(self, days: int, now: datetime) -> Cleaned:
        sets = list(backups.list_sets(self._directory))
        candidates = old(sets, days=days, now=now)
        if runs_back(sets, now):
            self._tell_once(now, "kept everything", "the clock stands before the time of the newest backup")
            return Cleaned()
        removed: list[Judged] = []
        kept: list[Judged] = []
        most = at_most(len(sets))
        for made in candidates:
            if len(removed) == most:
                break
            may_go, reason = judge(made, [one for one in sets if one is not made], self._proofs)
            judged = Judged(root=made.root, size=sum(file.size for file in made.files), reason=reason)
            if may_go:
                self._remove(judged, days, now)
                sets.remove(made)
                removed.append(judged)
            else:
                self._tell_once(now, f"kept {_shown(made.root)}", reason)
                kept.append(judged)
        return Cleaned(removed=tuple(removed), kept=tuple(kept))

    # --- removing --------------------------------------------------------------------------------------------------------

    def _remove(self, judged: Judged, days: int, now: datetime) -> None:
        name = os.path.basename(judged.root)
        trash = os.path.join(self._hidden, _TRASH + name)
        try:
            files.publish(judged.root, trash)
        except FileExistsError as error:
            raise NeedsAttention(
                "cleanup.trash_taken",
                f"{displayable(trash)} is in the way of removing a backup of that name.",
                remedy="Look what is in it, and move it away.",
                path=trash,
            ) from error
        line = (f"removed {_shown(name)}, {judged.size} bytes", f"older than {days} days, and {judged.reason}")
        told = self._tell(now, *line)
        self._delete(trash)
        if not told:
            self._tell(now, *line)  # the disk was full, which is when it matters most that something goes
        log.info("backup.removed", backup=displayable(judged.root), bytes=judged.size, reason=judged.reason)

    def _empty_trash(self, now: datetime) -> None:
        """Finish what a killed run began: give back what is whole, delete what isn't any more."""
        with translated(self._hidden, "reading the folder"):
            names = sorted(name for name in os.listdir(self._hidden) if name.startswith(_TRASH))
        for name in names:
            trash = os.path.join(self._hidden, name)
            if not os.path.lexists(os.path.join(trash, MANIFEST)):
                self._delete(trash)
                continue
            with suppress(FileExistsError):  # it waits there, whole, until the name is free
                files.publish(trash, os.path.join(self._directory, name.removeprefix(_TRASH)))
                self._tell(now, f"returned {_shown(name.removeprefix(_TRASH))}", "a run was stopped while removing it")

    def _delete(self, trash: str) -> None:
        """Delete a set. Its manifest goes first, durably: from then on nobody takes what is left for a set."""
        with translated(trash, "removing"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(trash, MANIFEST))
            files.fsync_directory(trash)
            shutil.rmtree(trash)

    # --- looking ---------------------------------------------------------------------------------------------------------

    def _origins(self, made: BackupSet) -> Iterator[str]:
        """Yield where the source of a set may be: where it was, or where it was archived."""
        yield made.source
        source, archive = self._moved
        if source is None or archive is None:
            return
        relative = os.path.relpath(made.source, source)
        if relative == os.curdir or relative.split(os.sep)[0] == os.pardir:
            if relative == os.curdir:
                yield archive  # single files lie in the source itself
            return
        top, *below = relative.split(os.sep)
        for place in archived_as(os.path.join(archive, top)):
            if not os.path.lexists(place):
                return
            yield os.path.join(place, *below)

    # --- telling ---------------------------------------------------------------------------------------------------------

    def _tell(self, now: datetime, what: str, why: str) -> bool:
        """Append a line to the log, durably; whether that was possible. Losing the line is better than stopping here."""
        line = f"{_stamp(now)} {what}: {why}\n"
        path = os.path.join(self._directory, LOG)
        try:
            with translated(path, "writing"):
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
                try:
                    files.write_all(descriptor, line.encode())
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except Aiom4bError as error:
            log.warning("cleanup.log_failed", line=line.rstrip(), code=error.code, reason=error.reason)
            return False
        return True

    def _tell_once(self, now: datetime, what: str, why: str) -> None:
        """Append a line unless the last one on the same matter says the same: a refusal stands for months."""
        if self._last_said(what) != why:
            self._tell(now, what, why)

    def _last_said(self, what: str) -> str | None:
        path = os.path.join(self._directory, LOG)
        try:
            with open(path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOG_LIMIT))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return None  # not there yet; if it can't be read, writing to it will tell
        for line in reversed(lines):
            _, _, said = line.partition(" ")
            if said.startswith(f"{what}: "):
                return said.removeprefix(f"{what}: ")
        return None


def archived_as(place: str) -> Iterator[str]:
    """Yield the names that an archived entry may have got: as it was called, then ``Name (2)`` or ``name (2).mp3``."""
    yield place
    stem, suffix = os.path.splitext(place)
    for number in range(2, 1000):
        yield f"{place} ({number})" if os.path.isdir(place) else f"{stem} ({number}){suffix}"


def _heard(_: int) -> None:
    anyio.from_thread.check_cancelled()


def _alien(made: BackupSet) -> str | None:
    """Return a file that lies in a set and is not of it: somebody's, unless a system left it there."""
    ours = {stored_path(file.path) for file in made.files} | {SUMS, MANIFEST}
    for entry in trees.walk(made.root):
        if entry.kind is not EntryKind.DIRECTORY and entry.path not in ours:
            if not any(is_litter(part) for part in entry.path.split("/")):
                return entry.path
    return None


def _holds(root: str, made: BackupSet) -> bool:
    """Whether every file of a set is below ``root`` with its content, read from the disk, and is not the set's own file."""
    pairs = [(os.path.join(root, file.path), os.path.join(made.root, stored_path(file.path))) for file in made.files]
    try:
        # All looked at before the first is read: most sources that are gone, are gone as a whole.
        for (path, copy), file in zip(pairs, made.files, strict=True):
            status = os.lstat(path)
            if status.st_size != file.size or os.path.samestat(status, os.lstat(copy)):
                return False  # a link or a second mount leads from the source into the backup
        return all(
            files.hash_file(path, from_disk=True, on_bytes=_heard) == file.sha256
            for (path, _), file in zip(pairs, made.files, strict=True)
        )
    except (OSError, NeedsAttention, Transient):
        return False  # what can't be read now is no copy to rely on


def _shown(path: str) -> str:
    return displayable(os.path.basename(path))


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
