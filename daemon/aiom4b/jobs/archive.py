"""Where do finished sources go, and where is one found again?"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import count

from aiom4b.adapters import files
from aiom4b.adapters.files import displayable, translated
from aiom4b.errors import NeedsAttention
from aiom4b.models import Name


def move(entry: str, archive: str) -> Name:
    """Move a file or folder into the directory ``archive`` in one durable rename, and return its path there.

    Nothing is ever replaced: a name that is taken gives ``Name (2)``. Raises NeedsAttention ``archive.other_volume`` when
    they are not on one file system (nothing has happened then), ``directory.missing``, ``directory.not_writable``, and what
    `files.translated` raises.
    """
    files.check_writable(archive)
    with translated(entry, "looking at"):
        folder = stat.S_ISDIR(os.lstat(entry).st_mode)
    for name in _names(os.path.basename(entry), folder=folder):
        place = os.path.join(archive, name)
        try:
            files.publish(entry, place)
        except FileExistsError:
            continue
        except NeedsAttention as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EXDEV:
                raise _other_volume(entry, archive) from error
            raise
        return place
    raise AssertionError("names never end")


def origins(root: str, source: str | None, archive: str | None) -> Iterator[Name]:
    """Yield where the files of a source may be that was once in the folder ``root``: there, or in the archive.

    ``source`` and ``archive`` are the directories that finished sources are moved from and to, None where they are not.
    """
    yield root
    if source is None or archive is None:
        return
    if root == source:
        yield archive  # a single file, which lay in the source itself
        return
    if not root.startswith(f"{source}/"):
        return
    top, *below = root.removeprefix(f"{source}/").split("/")
    for name in _names(top, folder=True):
        place = os.path.join(archive, name)
        if not os.path.lexists(place):
            return
        yield os.path.join(place, *below)


def _names(name: str, *, folder: bool) -> Iterator[Name]:
    stem, suffix = (name, "") if folder else os.path.splitext(name)
    yield name
    for number in count(2):
        yield f"{stem} ({number}){suffix}"


def _other_volume(entry: str, archive: str) -> NeedsAttention:
    return NeedsAttention(
        "archive.other_volume",
        f"{displayable(entry)} can't be moved to {displayable(archive)} in one step: they are on different file systems.",
        remedy="Let paths.archive be on the file system, and the mount, of the source; or choose watch.after_success = "
        '"keep" or "remove".',
        path=entry,
    )
