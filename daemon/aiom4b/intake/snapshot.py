"""What does the source look like from outside? Which entries it has, and names, sizes and times of all that is in them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiom4b.adapters import files, sidecars, trees
from aiom4b.adapters.files import HIDDEN, translated
from aiom4b.adapters.trees import Entry, EntryKind
from aiom4b.book.completeness import is_litter, is_temporary
from aiom4b.errors import Aiom4bError
from aiom4b.models import Name, SidecarKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The top level of the source at one moment.

    ``device`` and ``inode`` are those of the source itself. ``entries`` maps each entry to the names beside it that belong to
    it: a single file's sidecars, and unfinished copies that will replace it.
    """

    device: int
    inode: int
    entries: Mapping[Name, tuple[Name, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that can be seen of an entry without opening it; litter is left out.

    ``digest`` is the same as long as names, sizes, mtimes and ctimes are; of two digests `same_shape` tells whether at
    least names, sizes and mtimes are. ``paths`` are those of the regular files, absolute, and ``size`` their bytes.
    ``temporary`` is the name of one that is still being written.
    """

    digest: str
    paths: tuple[Name, ...]
    size: int
    temporary: Name | None


def same_shape(one: str, other: str) -> bool:
    """Whether two digests differ in ctimes at most: owner, mode, links or attributes changed, and hardly the content."""
    return one.partition("-")[0] == other.partition("-")[0]


def survey(source: str) -> Survey:
    """List the source. Raises what `translated` raises when it is missing or can't be read."""
    with translated(source, "reading the source"):
        descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            with os.scandir(descriptor) as listing:
                plain = {found.name: found.is_file(follow_symlinks=False) for found in listing}
        finally:
            os.close(descriptor)
    return Survey(device=status.st_dev, inode=status.st_ino, entries=_entries(plain))


def _entries(plain: Mapping[Name, bool]) -> dict[Name, tuple[Name, ...]]:
    """Sort names at the top level (True: a regular file) into entries and what belongs to them."""
    names = sorted((name for name in plain if not name.startswith(HIDDEN) and not is_litter(name)), key=os.fsencode)
    unfinished = [name for name in names if is_temporary(name)]
    beside: dict[str, list[Name]] = {}
    audio: dict[str, list[Name]] = {}
    for name in names:
        if plain[name] and not is_temporary(name):
            described = sidecars.kind_of(name) is not SidecarKind.OTHER
            (beside if described else audio).setdefault(sidecars.stem_of(name), []).append(name)
    entries: dict[Name, tuple[Name, ...]] = {}
    for name in names:
        stem = sidecars.stem_of(name)
        if not plain[name] or is_temporary(name):
            entries[name] = ()
        elif name not in beside.get(stem, ()):
            # Downloaders set a file of the final name, empty or of full size, beside the one they write to.
            arriving = [other for other in unfinished if name in other]
            entries[name] = (*beside.get(stem, ()), *arriving)
        elif stem not in audio:
            entries[name] = ()
    return entries


def look(source: str, names: Mapping[Name, Sequence[Name]]) -> dict[Name, Snapshot | Aiom4bError | None]:
    """Take a snapshot of each entry; None where there is none any more, an error where it can't be read or is too large."""
    found: dict[Name, Snapshot | Aiom4bError | None] = {}
    for name, beside in names.items():
        try:
            found[name] = take(source, name, beside)
        except Aiom4bError as error:
            found[name] = error
    return found


def take(source: str, name: Name, beside: Sequence[Name] = ()) -> Snapshot | None:
    """Take a snapshot of one entry and the files ``beside`` it, or return None if it is gone.

    Raises what `trees.walk` and `translated` raise.
    """
    top = _status(source, name)
    if top is None:
        return None
    seen = [top, *(found for found in (_status(source, other) for other in beside) if found is not None)]
    if top.kind is EntryKind.DIRECTORY:
        tree = trees.walk(os.path.join(source, name))
        seen += [replace(one, path=f"{name}/{one.path}") for one in tree if not _within_litter(one.path)]
    return _summed(source, seen)


def _status(source: str, name: Name) -> Entry | None:
    path = os.path.join(source, name)
    with translated(path, "looking at"):
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    plain = EntryKind.REGULAR if stat.S_ISREG(status.st_mode) else EntryKind.OTHER
    kind = EntryKind.DIRECTORY if stat.S_ISDIR(status.st_mode) else plain
    return Entry(path=name, identity=files.identity(status), kind=kind)


def _within_litter(path: str) -> bool:
    return any(is_litter(part) for part in path.split("/"))


def _summed(source: str, seen: Sequence[Entry]) -> Snapshot:
    # Device and inode are left out: both may be others after a restart or a remount, and on some FUSE mounts at any time.
    shape, times = hashlib.sha256(), hashlib.sha256()
    paths = []
    size = 0
    temporary = None
    for one in seen:
        shape.update(b"%s\0%s" % (os.fsencode(one.path), one.kind.encode()))
        if temporary is None and is_temporary(os.path.basename(one.path)):
            temporary = one.path
        if one.kind is not EntryKind.DIRECTORY:  # a folder's own times change with every piece of litter in it
            facts = one.identity
            shape.update(b" %d %d" % (facts.size, facts.mtime_ns))
            times.update(b"%d " % facts.ctime_ns)
        shape.update(b"\0")
        if one.kind is EntryKind.REGULAR:
            paths.append(os.path.join(source, one.path))
            size += one.identity.size
    digest = f"{shape.hexdigest()}-{times.hexdigest()}"
    return Snapshot(digest=digest, paths=tuple(paths), size=size, temporary=temporary)
