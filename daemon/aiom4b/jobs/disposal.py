"""What becomes of a source once its books are in the library? Kept, moved away whole, or removed file by file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import anyio.from_thread
import anyio.to_thread
import structlog

from aiom4b.adapters import backups, files, trees
from aiom4b.adapters.files import displayable, translated
from aiom4b.book.completeness import is_worthless
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs import archive as archives
from aiom4b.jobs import trash
from aiom4b.models import FileIdentity, Name, Sha256

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file or folder of the source that stays, and why, in a whole sentence."""

    path: Name
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposed:
    """What was done to an entry: where it was ``archived``, or which files and folders were removed and which stay."""

    archived: Name | None = None
    removed: tuple[Name, ...] = ()
    kept: tuple[Kept, ...] = ()


async def dispose(
    entry: str,
    after_success: Literal["keep", "archive", "remove"],
    *,
    books: Sequence[str],
    sets: Sequence[str],
    archive: str | None,
    beside: Sequence[str] = (),
) -> Disposed:
    """Do with an entry of the source what ``watch.after_success`` says, once all its jobs are completed.

    ``entry`` is its absolute path and ``beside`` are those of the files that belong to it (sidecars of a single file);
    ``books`` are the published files of all its jobs, ``sets`` their backup sets. The caller has seen that the entry holds
    nothing but what those jobs were made from. Safe to repeat after any stop; what is gone already is done.

    "archive" is one durable rename into ``archive`` for the entry and each file beside it. "remove" unlinks only regular
    files whose content, read now, is in one of the sets, every file of which was read just before; also thumbnails and the
    like; then folders that are empty. Links are never followed. All else stays and is told.

    Raises NeedsAttention ``book.missing`` when a book is not in the library, ``archive.unset``, ``archive.other_volume``;
    Transient ``cleanup.busy`` while backups are cleaned up; and what `files.check_writable` and `files.translated` raise.
    """
    if after_success == "keep":
        return Disposed()
    return await anyio.to_thread.run_sync(partial(_dispose, entry, after_success, books, sets, archive, beside))


def _dispose(
    entry: str,
    after_success: Literal["archive", "remove"],
    books: Sequence[str],
    sets: Sequence[str],
    archive: str | None,
    beside: Sequence[str],
) -> Disposed:
    # The entry last: as long as it is there, what its owner wants isn't done, and is taken up again after a stop.
    places = [path for path in (*beside, entry) if os.path.lexists(path)]
    if not places:
        return Disposed()
    _check_published(entry, books)
    if after_success == "archive":
        return _archived(entry, places, archive)
    with ExitStack() as held:
        for directory in sorted({os.path.dirname(root) for root in sets}):
            held.enter_context(trash.alone(directory))
        proof, doubts = _proof(sets)
        if not proof.contents:
            return Disposed(kept=doubts or (Kept(path=entry, reason="There is no verified backup of it."),))
        removal = _Removal(proof)
        for path in places:
            removal.begin(path)
    log.info("source.removed", entry=displayable(entry), removed=len(removal.removed), kept=len(removal.kept))
    return Disposed(removed=tuple(removal.removed), kept=(*doubts, *removal.kept))


def _check_published(entry: str, books: Sequence[str]) -> None:
    missing = [book for book in books if not os.path.isfile(book)]
    if missing or not books:
        raise NeedsAttention(
            "book.missing",
            f"{displayable(entry)} stays where it is: "
            + (f"{displayable(missing[0])} is not there." if missing else "no book was made of it."),
            remedy="Mount the library, or move the source yourself.",
            path=missing[0] if missing else entry,
        )


def _archived(entry: str, places: Sequence[str], archive: str | None) -> Disposed:
    if archive is None:
        raise NeedsAttention(
            "archive.unset",
            f"{displayable(entry)} stays where it is: it is not known where finished sources go.",
            remedy="Set paths.archive.",
            path=entry,
        )
    moved = [archives.move(path, archive) for path in places]
    log.info("source.archived", entry=displayable(entry), archived=displayable(moved[-1]))
    return Disposed(archived=moved[-1])


# --- removing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    """What whole backups hold, as (size, sha256), and which files they are, as (device, inode)."""

    contents: frozenset[tuple[int, Sha256]]
    copies: frozenset[tuple[int, int]]


def _proof(sets: Sequence[str]) -> tuple[_Proof, tuple[Kept, ...]]:
    """Read every file of the sets; return what is safe in those that are whole, and which ones are not."""
    contents: set[tuple[int, Sha256]] = set()
    copies: set[tuple[int, int]] = set()
    doubts = []
    for root in dict.fromkeys(sets):
        try:
            made = backups.read_set(root)
            findings = backups.damage(made, on_bytes=_heard)
            copies |= {(one.identity.device, one.identity.inode) for one in trees.walk(root)}
        except (NeedsAttention, Transient) as error:
            findings = (error.reason,)
        if findings:
            doubts.append(Kept(path=root, reason=f"The backup {displayable(root)} is damaged. {findings[0]}"))
        else:
            contents |= {(file.size, file.sha256) for file in made.files}
    return _Proof(contents=frozenset(contents), copies=frozenset(copies)), tuple(doubts)


class _Removal:
    """Removes what is proved to be elsewhere, by folder descriptors, so that a folder swapped for a link leads nowhere."""

    def __init__(self, proof: _Proof) -> None:
        self._proof = proof
        self.removed: list[Name] = []
        self.kept: list[Kept] = []

    def begin(self, path: str) -> None:
        """Remove a file, or a folder with what is in it, as far as may be. Raises what `translated` raises."""
        parent, name = os.path.split(path)
        with translated(parent, "reading the folder"):
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._remove(descriptor, name, path, worthless=False)
        finally:
            os.close(descriptor)

    def _remove(self, parent: int, name: str, path: str, *, worthless: bool) -> None:
        worthless = worthless or is_worthless(name)
        with translated(path, "looking at"):
            try:
                status = os.lstat(name, dir_fd=parent)
            except FileNotFoundError:
                return
        if stat.S_ISDIR(status.st_mode):
            self._folder(parent, name, path, worthless=worthless)
            return
        if not stat.S_ISREG(status.st_mode):
            self._keep(path, "is a link or a device, and those are never touched")
            return
        doubt = None if worthless else self._doubt(parent, name, path, files.identity(status))
        if doubt is not None:
            self._keep(path, doubt)
            return
        with translated(path, "removing"):
            os.unlink(name, dir_fd=parent)
        self.removed.append(path)

    def _folder(self, parent: int, name: str, path: str, *, worthless: bool) -> None:
        with translated(path, "reading the folder"):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                for below in sorted(os.listdir(descriptor)):
                    self._remove(descriptor, below, os.path.join(path, below), worthless=worthless)
            finally:
                os.close(descriptor)
        with translated(path, "removing"):
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                return  # what is still in it was told by itself, or came this moment
        self.removed.append(path)

    def _doubt(self, parent: int, name: str, path: str, seen: FileIdentity) -> str | None:
        """Say why a file may not go, None if its content is safe and the name still stands for the bytes we have read."""
        if (seen.device, seen.inode) in self._proof.copies:
            return "is itself the copy that the backup holds"
        try:
            descriptor = files.open_regular(path)
            try:
                with translated(path, "reading"):
                    opened = files.identity(os.fstat(descriptor))
                    content = files.hash_open(descriptor, bytearray(files.BLOCK), from_disk=False, on_bytes=_heard)
                    now = files.identity(os.lstat(name, dir_fd=parent))
            finally:
                os.close(descriptor)
        except (NeedsAttention, Transient) as error:
            return f"could not be compared: {error.reason}"
        if not seen == opened == now:
            return "changed this moment"
        if (seen.size, content) not in self._proof.contents:
            return "is in no verified backup of its books"
        return None

    def _keep(self, path: str, why: str) -> None:
        self.kept.append(Kept(path=path, reason=f"{displayable(path)} {why}."))


def _heard(_: int) -> None:
    anyio.from_thread.check_cancelled()
