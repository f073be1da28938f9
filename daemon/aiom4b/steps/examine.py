"""What is this entry? One book or several, by content and never by extension; or not ours, or not complete."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio.to_thread

from aiom4b.adapters import files, sidecars, tags, trees
from aiom4b.adapters.files import displayable
from aiom4b.adapters.trees import Entry, EntryKind
from aiom4b.book import completeness, grouping, order
from aiom4b.config import Settings
from aiom4b.engine import probe
from aiom4b.engine.pool import Rank, WorkerPool
from aiom4b.engine.probe import ProbeLimits
from aiom4b.errors import Aiom4bError, Exit, NeedsAttention, Transient
from aiom4b.models import (
    Evidence,
    Fingerprint,
    Incomplete,
    OrderChoice,
    Rejected,
    Sidecar,
    SidecarKind,
    Source,
    SourceFile,
)
from aiom4b.steps.context import together

Finding = Source | Rejected | Incomplete

_AUDIO_SUFFIXES = (
    ".mp3",
    ".mpga",
    ".mp2",
    ".m4a",
    ".m4b",
    ".mp4",
    ".aac",
    ".aax",
    ".aaxc",
    ".flac",
    ".ogg",
    ".opus",
    ".wav",
    ".wma",
)
_SLOWEST_BYTES_A_SECOND = 1_000_000  # a disk that is slower than that is broken
_MEGABYTE = 1_000_000
_LARGE = 300 * _MEGABYTE  # opening an M4B of 20 hours leaves 210 MB in a process
_NOT_AUDIO = ("audio.not_audio", "file.empty")


def refusal(finding: Rejected | Incomplete) -> NeedsAttention:
    """Return the error of whoever asked for a book of what is none."""
    return NeedsAttention(finding.code, finding.reason, remedy=finding.remedy, path=finding.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamineSettings:
    """Limits, and what counts as complete.

    With an ``order`` that its owner chose, gaps in the numbering are his too: they are reported and don't stop the book.
    """

    limits: ProbeLimits
    max_files: int
    order: OrderChoice = OrderChoice.AUTO

    @classmethod
    def of(cls, settings: Settings, order: OrderChoice) -> ExamineSettings:
        """Return what the owner's settings say."""
        return cls(limits=probe_limits(settings), max_files=settings.limits.max_files, order=order)


def probe_limits(settings: Settings) -> ProbeLimits:
    """Return what a single file may be."""
    return ProbeLimits(max_file_size=settings.limits.max_file_size_mb * _MEGABYTE)


async def examine(entry: str, settings: ExamineSettings, pool: WorkerPool, rank: Rank) -> tuple[Finding, ...]:
    """Say what an entry holds; opens regular files only and changes nothing.

    Raises NeedsAttention ``source.missing`` when there is no such entry, ``file.not_permitted``, and Transient ``worker.*`` or ``source.changed``
    when it could not be looked at; all that is wrong with the files themselves is a Finding.
    """
    tools = _Tools(settings=settings, pool=pool, rank=rank)
    root, name, entries = await anyio.to_thread.run_sync(_entries, entry, settings.max_files)
    if isinstance(entries, Rejected | Incomplete):
        return (entries,)
    seen = await _seen(root, entry, entries, tools)
    if not isinstance(seen, _Seen):
        return (seen,)
    groups = [[seen.audio[index] for index in group] for group in grouping.books(seen.audio)]
    books = [(root, name, seen.audio, seen.beside)]
    if len(groups) > 1:
        books = [_part(root, group, seen.beside) for group in groups]
    return tuple([await _book(*book, seen.warnings, tools) for book in books])


async def examine_as_one(
    entries: Sequence[str], settings: ExamineSettings, pool: WorkerPool, rank: Rank
) -> tuple[Finding, ...]:
    """Take several entries for the parts of one book, called like the first of them by name; else as `examine`."""
    tools = _Tools(settings=settings, pool=pool, rank=rank)
    whole = os.path.commonpath([os.path.dirname(os.path.abspath(entry)) for entry in entries])
    members: dict[str, Entry] = {}
    names = []
    for entry in entries:
        root, name, found = await anyio.to_thread.run_sync(_entries, entry, settings.max_files)
        if isinstance(found, Rejected | Incomplete):
            return (found,)
        names.append(name)
        members |= {
            path: replace(one, path=path)
            for one in found
            for path in [os.path.relpath(os.path.join(root, one.path), whole)]
        }
    if len(members) > settings.max_files:
        raise NeedsAttention(
            "source.too_large",
            f"The {len(entries)} parts hold more than {settings.max_files} files, which is no audiobook.",
            remedy="Name only the parts of one book.",
            path=whole,
        )
    seen = await _seen(whole, entries[0], list(members.values()), tools)
    if not isinstance(seen, _Seen):
        return (seen,)
    return (await _book(whole, order.natural(names)[0], seen.audio, seen.beside, seen.warnings, tools),)


async def still_holds(folder: str, source: Source, settings: ExamineSettings) -> bool:
    """Whether a folder holds the files of a source and no others, by names, sizes and times; False too if it is gone.

    Raises what `examine` raises.
    """
    if not await anyio.to_thread.run_sync(os.path.isdir, folder):
        return False
    _, _, found = await anyio.to_thread.run_sync(_entries, folder, settings.max_files)
    if isinstance(found, Rejected | Incomplete):
        return False
    known = {one.path: one.identity for one in source.files} | {one.path: one.identity for one in source.sidecars}
    there = {one.path: one.identity for one in found if one.kind is EntryKind.REGULAR}
    return known.keys() == there.keys() and all(
        (known[path].size, known[path].mtime_ns) == (there[path].size, there[path].mtime_ns) for path in known
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the files of an entry are: audio in natural order, what lies beside it, and what was left out."""

    audio: list[SourceFile]
    beside: list[Sidecar]
    warnings: tuple[str, ...]


async def _seen(root: str, entry: str, entries: Sequence[Entry], tools: _Tools) -> _Seen | Rejected | Incomplete:
    regular = [one for one in entries if one.kind is EntryKind.REGULAR]
    looked = await together([partial(_look_at, root, one, tools) for one in regular])
    for kind in (Rejected, Incomplete):  # what can't be mended by waiting is told first
        for one in looked:
            if isinstance(one, kind):
                return one
    by_path = {one.path: one for one in looked if isinstance(one, SourceFile)}
    warnings = tuple(
        f"{displayable(one.path)} was left out: it is no regular file." for one in entries if one not in regular
    )
    if not by_path:
        reason = f"There is no audio in {displayable(os.path.basename(os.path.normpath(entry)))}."
        return Rejected(
            path=entry,
            code="source.no_audio",
            reason=" ".join([reason, *warnings[:3]]),
            remedy="Drop MP3 or AAC files, or a folder of them: the files themselves, since links and devices are never opened.",
        )
    return _Seen(
        audio=[by_path[path] for path in order.natural(by_path)],
        beside=[one for one in looked if isinstance(one, Sidecar)],
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tools:
    settings: ExamineSettings
    pool: WorkerPool
    rank: Rank


def _entries(entry: str, max_files: int) -> tuple[str, str, list[Entry] | Rejected | Incomplete]:
    """Return root, name, and the entries worth looking at: of a folder all, of a single file those that share its stem."""
    path = os.path.abspath(entry)
    with files.translated(path, "looking at"):
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NeedsAttention(
                "source.missing",
                f"There is no {displayable(path)}.",
                remedy="Check the path.",
                path=path,
                exit=Exit.NOT_FOUND,
            ) from error
    root, name = os.path.split(path)
    if stat.S_ISREG(status.st_mode):
        return root, sidecars.stem_of(name), _of_one_stem(root, name)
    if not stat.S_ISDIR(status.st_mode):
        refused = Rejected(
            path=path,
            code="source.not_regular",
            reason=f"{displayable(path)} is neither a folder nor a regular file; links and devices are never opened.",
            remedy="Give the folder or file itself.",
        )
        return root, name, refused
    everything = trees.walk(path, max_entries=max_files)
    for one in everything:
        if any(completeness.is_temporary(part) for part in one.path.split("/")):
            arriving = Incomplete(
                path=path,
                code="source.arriving",
                reason=f"{displayable(one.path)} looks like a file that is still being written.",
                remedy="Wait until it is complete, or remove it if it is left over from an interrupted copy.",
            )
            return path, name, arriving
    kept = [
        one
        for one in everything
        if one.kind is not EntryKind.DIRECTORY and not any(completeness.is_litter(part) for part in one.path.split("/"))
    ]
    return path, name, kept


def _of_one_stem(root: str, file: str) -> list[Entry]:
    """Return a single file and the sidecars that are named like it, as people and downloaders do."""
    found = []
    with files.translated(root, "reading the folder"):
        for name in sorted(os.listdir(root)):
            namesake = sidecars.is_companion(name, file) and sidecars.kind_of(name) is not SidecarKind.OTHER
            if name == file or namesake:
                status = os.lstat(os.path.join(root, name))
                if stat.S_ISREG(status.st_mode):
                    found.append(Entry(path=name, identity=files.identity(status), kind=EntryKind.REGULAR))
    return found


async def _look_at(root: str, entry: Entry, tools: _Tools) -> SourceFile | Sidecar | Rejected | Incomplete:
    kind = sidecars.kind_of(entry.path)
    path = os.path.join(root, entry.path)
    if kind is SidecarKind.COVER:
        content = await anyio.to_thread.run_sync(files.hash_file, path)
        return Sidecar(path=entry.path, identity=entry.identity, kind=kind, sha256=content)
    if kind is not SidecarKind.OTHER:
        return Sidecar(path=entry.path, identity=entry.identity, kind=kind)
    try:
        found = await tools.pool.run(
            look,
            path,
            entry.path,
            tools.settings.limits,
            rank=tools.rank,
            audio_seconds=entry.identity.size / _SLOWEST_BYTES_A_SECOND,
            single_use=entry.identity.size > _LARGE,
        )
    except Aiom4bError as error:
        if isinstance(error, Transient) or error.exit is Exit.NOT_PERMITTED:
            raise  # that says nothing of the file
        claims = entry.path.lower().endswith(_AUDIO_SUFFIXES)
        if error.code in _NOT_AUDIO and not claims:
            return Sidecar(path=entry.path, identity=entry.identity, kind=SidecarKind.OTHER)
        shown = displayable(entry.path)
        # What a worker says of "this file" is read beside the folder's name: only here it is known which one it is.
        reason = error.reason if os.path.basename(shown) in error.reason else f"{shown}: {error.reason}"
        kind_of_refusal = Incomplete if error.code == "audio.truncated" else Rejected
        return kind_of_refusal(path=path, code=error.code, reason=reason, remedy=error.remedy)
    return found


def look(path: str, relative: str, limits: ProbeLimits) -> SourceFile:
    """Examine one audio file, tags included; runs in a worker."""
    seen = probe.examine(path, limits)
    known = tags.read_tags(path, seen.audio.codec)
    if seen.chapters:
        known = replace(known, chapters=seen.chapters)
    return SourceFile(path=relative, identity=seen.identity, sha256=seen.sha256, audio=seen.audio, tags=known)


async def _book(
    root: str,
    name: str,
    members: Sequence[SourceFile],
    beside: Sequence[Sidecar],
    warnings: tuple[str, ...],
    tools: _Tools,
) -> Source | Incomplete:
    evidence = Evidence()
    if any(sidecar.kind is not SidecarKind.OTHER for sidecar in beside):
        evidence = await tools.pool.run(
            sidecars.read_evidence, root, tuple(beside), tuple(file.path for file in members), rank=tools.rank
        )
    gap = _cut_short(members) or completeness.check(members, None, name)
    if gap is not None:
        if tools.settings.order is OrderChoice.AUTO:
            return replace(gap, path=root)
        warnings += (f"It may be incomplete: {gap.reason}",)
    damage = tuple(f"{displayable(file.path)}: {flaw.detail}" for file in members for flaw in file.audio.damage)
    doubts = tuple(f"{displayable(file.path)}: {doubt}" for file in members for doubt in file.tags.warnings)
    return Source(
        root=root,
        name=name,
        files=tuple(members),
        sidecars=tuple(beside),
        evidence=evidence,
        fingerprint=fingerprint(members),
        warnings=warnings + damage + doubts,
    )


def _cut_short(members: Sequence[SourceFile]) -> Incomplete | None:
    """Say which file ends in the middle of a frame: the only sign of a half-copied MP3 that declares no length."""
    for file in members:
        for flaw in file.audio.damage:
            if flaw.code == "mp3.truncated":
                return Incomplete(
                    path=file.path,
                    code="source.truncated",
                    reason=f"{displayable(file.path)} ends in the middle of a frame, at second {flaw.second:.1f}.",
                    remedy="Copy the file again. If no better one exists, --order names converts the book as it is.",
                )
    return None


def fingerprint(members: Sequence[SourceFile]) -> Fingerprint:
    """Return the identity of a book's audio; names don't matter."""
    digest = hashlib.sha256()
    for size, content in sorted((file.identity.size, file.sha256) for file in members):
        digest.update(f"{size} {content}\n".encode("ascii"))
    return Fingerprint(digest.hexdigest())


def _part(
    root: str, members: Sequence[SourceFile], beside: Sequence[Sidecar]
) -> tuple[str, str, list[SourceFile], list[Sidecar]]:
    """Cut one of several books out of a folder: its own sub-folder, or the files that share its stem."""
    folder = os.path.commonpath([os.path.dirname(file.path) or "." for file in members])
    if folder in {"", "."}:
        stems = {sidecars.stem_of(file.path) for file in members}
        own = [sidecar for sidecar in beside if sidecars.stem_of(sidecar.path) in stems]
        return root, os.path.splitext(os.path.basename(members[0].path))[0], list(members), own
    prefix = folder + "/"
    return (
        os.path.join(root, folder),
        os.path.basename(folder),
        [replace(file, path=file.path.removeprefix(prefix)) for file in members],
        [replace(one, path=one.path.removeprefix(prefix)) for one in beside if one.path.startswith(prefix)],
    )
