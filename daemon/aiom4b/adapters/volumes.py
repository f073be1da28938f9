"""Is this still the directory that we know, or the empty place where its volume isn't mounted?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import anyio.to_thread

from aiom4b.adapters import files
from aiom4b.config import Settings
from aiom4b.errors import Transient


def is_marked(directory: str) -> bool:
    """Whether our own hidden folder is in it: an empty mount point lacks it."""
    return os.path.isdir(os.path.join(directory, files.HIDDEN))


def mark(directory: str) -> None:
    """Make our hidden folder in a directory, durably. Raises what `files.translated` raises."""
    place = os.path.join(directory, files.HIDDEN)
    with files.translated(place, "making the folder"):
        files.make_directories(place)


def written(settings: Settings) -> list[str]:
    """Return the directories that books and backups are written to; ``paths.library`` must be set."""
    assert settings.paths.library is not None
    return [settings.paths.library, *([settings.paths.backup] if settings.backup.enabled else [])]


async def check(directories: Sequence[str]) -> None:
    """Raise Transient ``volume.missing`` unless every directory is there and known.

    Device numbers don't serve: a volume may come back under another.
    """
    missing = await anyio.to_thread.run_sync(unmarked, directories)
    if missing:
        raise Transient(
            "volume.missing",
            f"{files.displayable(missing[0])} is not there, or is empty: its volume seems not to be mounted.",
            remedy=f"Mount it; the work then goes on by itself. If it was emptied on purpose, make the folder {files.HIDDEN} in it.",
            path=missing[0],
        )


def unmarked(directories: Sequence[str]) -> list[str]:
    """Return the directories that are not as we know them."""
    return [directory for directory in directories if not is_marked(directory)]
