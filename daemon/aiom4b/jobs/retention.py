"""Which backups may go? Only old ones whose every byte is proved to be somewhere else, and a few at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import anyio.from_thread
import anyio.to_thread

from aiom4b import pipeline
from aiom4b.adapters import backups, files, trees, volumes
from aiom4b.adapters.backup_format import MANIFEST, SUMS, BackupSet, stored_path
from aiom4b.adapters.files import displayable
from aiom4b.adapters.trees import EntryKind
from aiom4b.book.completeness import is_worthless
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs import archive as archives
from aiom4b.jobs import trash
from aiom4b.jobs.trash import CleanupLog
from aiom4b.models import Name

_SHARE = 4  # of all sets that may go in one run


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What becomes of one old set, and why; ``size`` is that of its files, in bytes."""

    root: Name
    size: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What one run did. Old sets that are left for a later run are neither removed nor kept."""

    removed: tuple[Judged, ...] = ()
    kept: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Who answers the questions of `judge`; each call looks at the disk as it is now.

    ``alien``: a file in the set's folder that is not of it. ``needed``: an unfinished book will read it. ``published``: its
    book is in the library. ``whole``: every file of it reads back right. ``origin``: where every file of it still is outside
    the backups, with its content.
    """

    alien: Callable[[BackupSet], str | None]
    needed: Callable[[BackupSet], bool]
    published: Callable[[BackupSet], bool]
    whole: Callable[[BackupSet], bool]
    origin: Callable[[BackupSet], str | None]


# --- the decision -----------------------------------------------------------------------------------------------------


def old(sets: Sequence[BackupSet], *, days: int, now: datetime) -> tuple[BackupSet, ...]:
    """Return the sets that are older than ``days``, the oldest first; the newest of all is never among them."""
    by_age = sorted(sets, key=lambda one: one.created)
    return tuple(one for one in by_age[:-1] if one.created < now - timedelta(days=days))


def at_most(count: int) -> int:
    """Return how many of ``count`` sets may go in one run: a quarter, at least one."""
    return max(1, count // _SHARE)


def judge(made: BackupSet, others: Sequence[BackupSet], evidence: Evidence) -> tuple[bool, str]:
    """Say whether an old set may go, and why; ``others`` are all sets that stand beside it.

    It may when another one holds everything in it and reads back right, or when its book is in the library and its source
    still holds everything in it. Everything: a cover or a booklet that is nowhere else keeps a set, too. Nothing is read
    before the cheap questions are answered, since a set that can't go is asked about each time.
    """
    if (name := evidence.alien(made)) is not None:
        return False, f"{displayable(name)} in it is no part of the backup"
    if evidence.needed(made):
        return False, "an unfinished book needs it"
    contents = _contents(made)
    for other in reversed(others):
        if contents <= _contents(other) and evidence.whole(other):
            return True, f"{displayable(os.path.basename(other.root))} was verified and holds the same"
    if not evidence.published(made):
        return False, "its book is not in the library"
    where = evidence.origin(made)
    if where is None:
        return False, "nothing else holds all that is in it"
    return True, f"its book is in the library, and all that is in it was verified in {displayable(where)}"


def _contents(made: BackupSet) -> frozenset[tuple[int, str]]:
    return frozenset((file.size, file.sha256) for file in made.files)


# --- the action -------------------------------------------------------------------------------------------------------


async def clean(
    directory: str,
    library: str,
    *,
    days: int,
    now: datetime,
    source: str | None = None,
    archive: str | None = None,
) -> Cleaned:
    """Remove the backup sets older than ``days`` (0: none) that `judge` lets go, and tell it in ``cleanup.log``.

    ``source`` and ``archive`` are ``paths.source`` and ``paths.archive``: what was archived counts as a source that is
    there. Safe to repeat after any stop; when cancelled it ends within a block.

    Raises Transient ``volume.missing`` when backups or library seem not to be mounted, ``cleanup.busy`` when another process
    cleans there; NeedsAttention ``cleanup.trash_taken``, and what `files.translated` raises.
    """
    await volumes.check((directory, library))
    evidence = Evidence(
        alien=_alien,
        needed=lambda made: os.path.lexists(pipeline.work_dir(library, made.fingerprint)),
        published=lambda made: pipeline.already_published(library, made.fingerprint) is not None,
        whole=lambda made: not backups.damage(made, on_bytes=_heard),
        origin=lambda made: next(
            (root for root in archives.origins(made.source, source, archive) if _holds(root, made)), None
        ),
    )
    return await anyio.to_thread.run_sync(partial(_clean, directory, evidence, days=days, now=now))


def _clean(directory: str, evidence: Evidence, *, days: int, now: datetime) -> Cleaned:
    story = CleanupLog(directory, now)
    with trash.alone(directory):
        trash.settle(directory, story)
        sets = list(backups.list_sets(directory))
        if days == 0 or not sets:
            return Cleaned()
        if max(one.created for one in sets) > now:
            story.tell_once("kept everything", "the clock stands before the time of the newest backup")
            return Cleaned()
        return _removed(sets, evidence, story, days=days, now=now)


def _removed(sets: list[BackupSet], evidence: Evidence, story: CleanupLog, *, days: int, now: datetime) -> Cleaned:
    removed: list[Judged] = []
    kept: list[Judged] = []
    most = at_most(len(sets))
    for made in old(sets, days=days, now=now):
        if len(removed) == most:
            break
        may_go, reason = judge(made, [one for one in sets if one is not made], evidence)
        judged = Judged(root=made.root, size=sum(file.size for file in made.files), reason=reason)
        if may_go:
            trash.remove(made.root, story, judged.size, f"older than {days} days; {reason}")
            sets.remove(made)  # nobody may rely on it any more
            removed.append(judged)
        else:
            story.tell_once(f"kept {displayable(os.path.basename(made.root))}, {judged.size} bytes", reason)
            kept.append(judged)
    return Cleaned(removed=tuple(removed), kept=tuple(kept))


def _heard(_: int) -> None:
    anyio.from_thread.check_cancelled()


def _alien(made: BackupSet) -> str | None:
    """Return a file that lies in a set and is not of it: somebody's, who would not expect it to vanish."""
    ours = {stored_path(file.path) for file in made.files} | {SUMS, MANIFEST}
    for entry in trees.walk(made.root):
        ignored = entry.kind is EntryKind.DIRECTORY or any(is_worthless(part) for part in entry.path.split("/"))
        if not ignored and entry.path not in ours:
            return entry.path
    return None


def _holds(root: str, made: BackupSet) -> bool:
    """Whether every file of a set is below ``root``, too, with its content, read from the disk."""
    own = {(entry.identity.device, entry.identity.inode) for entry in trees.walk(made.root)}
    wanted = [(os.path.join(root, file.path), file) for file in made.files]
    try:
        # All are looked at before the first is read: a source that is gone costs no reading.
        for path, file in wanted:
            status = os.lstat(path)
            # A link or a second mount may lead from the source to the very set in question.
            if status.st_size != file.size or (status.st_dev, status.st_ino) in own:
                return False
        return all(files.hash_file(path, from_disk=True, on_bytes=_heard) == file.sha256 for path, file in wanted)
    except (OSError, NeedsAttention, Transient):
        return False  # what can't be read now is no copy to rely on
