"""What lies below a folder? A look from outside: nothing is opened but folders, and no link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from aiom4b.adapters.files import displayable, identity, translated
from aiom4b.errors import NeedsAttention
from aiom4b.models import FileIdentity, Name

# What open says of a folder that was removed, or replaced by something else, after we had seen its name.
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


class EntryKind(StrEnum):
    """What a name stands for."""

    REGULAR = "regular"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name below a folder: its path relative to that folder, with ``/``."""

    path: Name
    identity: FileIdentity
    kind: EntryKind


def walk(root: str, *, max_entries: int = 100_000, max_depth: int = 32) -> tuple[Entry, ...]:
    """Return everything below the folder ``root``, sorted by the bytes of the paths.

    What vanishes meanwhile is left out. Descends by folder descriptors, so that a folder swapped for a link leads nowhere.
    Raises NeedsAttention ``source.too_large`` beyond the limits, and what `translated` raises when a folder can't be read.
    """
    entries: list[Entry] = []
    with translated(root, "reading the folder"):
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in _below(descriptor, root, "", max_depth):
            entries.append(entry)
            if len(entries) > max_entries:
                raise _too_large(root, f"more than {max_entries} files and folders")
    finally:
        os.close(descriptor)
    return tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path)))


def _below(descriptor: int, root: str, prefix: str, depth: int) -> Iterator[Entry]:
    folder = os.path.join(root, prefix)
    with translated(folder, "reading the folder"):
        listing = os.scandir(descriptor)
    with listing:
        while True:
            with translated(folder, "reading the folder"):
                found = next(listing, None)
            if found is None:
                return
            path = prefix + found.name
            with translated(os.path.join(root, path), "looking at"):
                try:
                    status = os.lstat(found.name, dir_fd=descriptor)
                except FileNotFoundError:
                    continue  # it was there a moment ago: somebody is at work here, which the next look will tell
            kind = _kind(status.st_mode)
            yield Entry(path=path, identity=identity(status), kind=kind)
            if kind is EntryKind.DIRECTORY:
                if depth == 1:
                    raise _too_large(root, "folders nested too deeply")
                yield from _inside(descriptor, root, path, depth)


def _inside(parent: int, root: str, path: str, depth: int) -> Iterator[Entry]:
    with translated(os.path.join(root, path), "reading the folder"):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(os.path.basename(path), flags, dir_fd=parent)
        except OSError as error:
            if error.errno in _VANISHED:
                return
            raise
    try:
        yield from _below(descriptor, root, path + "/", depth - 1)
    finally:
        os.close(descriptor)


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return EntryKind.REGULAR
    if stat.S_ISDIR(mode):
        return EntryKind.DIRECTORY
    if stat.S_ISLNK(mode):
        return EntryKind.SYMLINK
    return EntryKind.OTHER


def _too_large(root: str, what: str) -> NeedsAttention:
    return NeedsAttention(
        "source.too_large",
        f"{displayable(root)} holds {what}, which is no audiobook.",
        remedy="Put each book into a folder of its own, and keep other data elsewhere.",
        path=root,
    )
