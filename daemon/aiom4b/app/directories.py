"""Can we write where we shall? Looked at before the first second of work."""

from __future__ import annotations

import os
from collections.abc import Sequence

from aiom4b.adapters import files
from aiom4b.config import Settings, check_directories
from aiom4b.errors import Fatal


def prepare_directories(settings: Settings, sources: Sequence[str]) -> None:
    """Check where we shall write, before the first second of work.

    Raises Fatal ``config.directories`` when one lies inside another or inside a source, ``library.unset`` when there is no
    library, and what ``files.check_writable`` raises. Only the default backup directory is made when it is missing.
    """
    if settings.paths.library is None:
        raise Fatal(
            "library.unset",
            "It is not known where the library is.",
            remedy="Say it with --library DIR, or set paths.library.",
        )
    check_directories(settings, sources)
    files.check_writable(settings.paths.library)
    files.sweep(settings.paths.library)
    files.sweep(os.path.join(settings.paths.library, files.HIDDEN), below=True)
    if settings.backup.enabled:
        if settings.paths.backup.startswith(settings.paths.state + os.sep):
            with files.translated(settings.paths.backup, "making the backup directory"):
                files.make_directories(settings.paths.backup)
        files.check_writable(settings.paths.backup)
        files.sweep(settings.paths.backup)
