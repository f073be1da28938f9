"""Does a directory of ours lie where it does harm? In a source it would be taken for input, in another for output."""

from __future__ import annotations

import os
from collections.abc import Sequence

from aiom4b.config.tree import Settings
from aiom4b.errors import Fatal


def directory_problems(library: str | None, backup: str | None, sources: Sequence[str]) -> list[str]:
    """Return a sentence for each directory that lies inside one where it must not lie; [] when all is well.

    Pure; takes resolved absolute paths, a source being a folder or a single file; None stands for a directory that is
    not used. A source inside the library or the backup is allowed, since a source is only read.
    """
    pairs = [("library", library, "backup", backup), ("backup", backup, "library", library)]
    for source in sources:
        pairs += [("library", library, "source", source), ("backup", backup, "source", source)]
    found = []
    for name, inner, other, outer in pairs:
        if inner is None or outer is None or os.path.commonpath([inner, outer]) != outer:
            continue
        if inner != outer:
            found.append(f"The {name} {inner!r} lies inside the {other} {outer!r}.")
        elif (name, other) != ("backup", "library"):  # said already, the other way round
            found.append(f"The {name} and the {other} are the same directory, {inner!r}.")
    return found


def check_directories(settings: Settings, sources: Sequence[str]) -> None:
    """Follow links, then refuse a library or backup that would feed on the sources or on one another.

    Raises Fatal ``config.directories``, naming every such pair.
    """
    library, backup = settings.paths.library, settings.paths.backup
    found = directory_problems(
        None if library is None else os.path.realpath(library),
        os.path.realpath(backup) if settings.backup.enabled else None,
        [os.path.realpath(source) for source in (*filter(None, [settings.paths.source]), *sources)],
    )
    if found:
        raise Fatal(
            "config.directories",
            "\n".join(found),
            remedy="Let the source, the library (paths.library) and the backup (paths.backup) stand beside each other.",
        )
