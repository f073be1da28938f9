"""Which sidecars are there, and what evidence do they give together?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiom4b.adapters import text
from aiom4b.adapters.backup_format import holds_key
from aiom4b.adapters.files import displayable, open_regular, translated
from aiom4b.adapters.sidecars import audible, chapters, cue, descriptions, opf, playlists
from aiom4b.adapters.sidecars.listening import AudioNames
from aiom4b.errors import NeedsAttention
from aiom4b.models import ChapterList, Evidence, Mark, Metadata, Name, Sidecar, SidecarKind

TEXT_LIMIT = 1 << 20
JSON_LIMIT = 16 << 20
MARK_LIMIT = 10_000

_PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_NO_COVER = re.compile(r"back|inlay|inside|booklet|spine|disc|cd\s*\d*|label|albumart(small|.*_small)", re.IGNORECASE)
_CHAPTERS = re.compile(
    r"(.*[\s._-])?(chapters?|ffmetadata|labels)\.txt|.*\.(ffmeta|ffmetadata|chapters)", re.IGNORECASE
)
_TELLING = frozenset(
    {SidecarKind.CUE, SidecarKind.CHAPTERS, SidecarKind.PLAYLIST, SidecarKind.METADATA, SidecarKind.KEY}
)
_TEXTS = ("desc.txt", "description.txt", "reader.txt")


def kind_of(name: str) -> SidecarKind:
    """Return what a file beside the audio is for, by its name (or path) alone; hidden files are for nothing.

    Every picture is COVER, except those whose names say that they show something else; which of several is the cover is
    for the plan to choose.
    """
    base = os.path.basename(name).lower()
    stem, suffix = os.path.splitext(base)
    if base.startswith("."):
        return SidecarKind.OTHER
    if suffix in _PICTURES:
        return SidecarKind.OTHER if _NO_COVER.fullmatch(stem) else SidecarKind.COVER
    if suffix == ".cue":
        return SidecarKind.CUE
    if holds_key(base):
        return SidecarKind.KEY
    if suffix == ".pdf":
        return SidecarKind.DOCUMENT
    if base.endswith("-annotations.json"):
        return SidecarKind.ANNOTATIONS
    if base.endswith("-chapters.json"):
        return SidecarKind.CHAPTERS
    if base.endswith((".metadata.json", "-item.json")):
        return SidecarKind.METADATA
    if _CHAPTERS.fullmatch(base):
        return SidecarKind.CHAPTERS
    if suffix in {".m3u", ".m3u8", ".pls"}:
        return SidecarKind.PLAYLIST
    if base == "metadata.json" or base in _TEXTS or suffix in {".opf", ".nfo"}:
        return SidecarKind.METADATA
    return SidecarKind.OTHER


@dataclass(slots=True)
class _Gathered:
    metadata: list[tuple[int, str, Metadata]] = field(default_factory=list)
    chapters: list[ChapterList] = field(default_factory=list)
    playlists: list[tuple[str, tuple[Name, ...]]] = field(default_factory=list)
    audible: dict[Name, ChapterList] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_evidence(root: str, sidecars: tuple[Sidecar, ...], audio: tuple[str, ...]) -> Evidence:
    """Return what ``sidecars`` say of the book in ``root``, whose audio files are ``audio`` (relative to it, with ``/``).

    Metadata stands strongest first: metadata.json, OPF, desc.txt and reader.txt, NFO; of one kind, the file nearest to
    the root. What can't be read or understood is a warning. Raises only Transient, from opening and reading.
    """
    gathered = _Gathered()
    names = AudioNames(audio)
    for sidecar in sorted(
        sidecars, key=lambda sidecar: (sidecar.path.count("/"), sidecar.kind is SidecarKind.KEY, sidecar.path)
    ):
        if sidecar.kind not in _TELLING:
            continue
        origin = displayable(sidecar.path)
        try:
            written = _read(os.path.join(root, sidecar.path), origin)
            _take(gathered, sidecar, origin, written, names)
        except NeedsAttention as error:
            gathered.warnings.append(f"{origin} was not used: {error.reason}")
        except (ValueError, RecursionError, OverflowError) as error:
            gathered.warnings.append(f"{origin} was not used: it can't be understood ({type(error).__name__}).")
    gathered.metadata.sort(key=lambda entry: entry[0])  # stable: the nearest to the root stays first of its kind
    return Evidence(
        metadata=tuple((origin, metadata) for _, origin, metadata in gathered.metadata),
        chapters=(*gathered.chapters, *gathered.audible.values()),
        playlists=tuple(gathered.playlists),
        warnings=tuple(gathered.warnings),
    )


def _read(path: str, origin: str) -> bytes:
    limit = JSON_LIMIT if path.lower().endswith(".json") else TEXT_LIMIT
    descriptor = open_regular(path)
    with translated(path, "reading"), os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NeedsAttention(
            "sidecar.too_large", f"it is larger than {limit >> 20} MiB.", remedy="Take it away.", path=origin
        )
    return data


def _take(gathered: _Gathered, sidecar: Sidecar, origin: str, data: bytes, names: AudioNames) -> None:
    match sidecar.kind:
        case SidecarKind.CUE:
            for written, marks in cue.read(text.decode(data)):
                file = names.find(written, sidecar.path)
                if file is None:
                    gathered.warnings.append(f"{origin} names {text.line(written)!r}, which is not here.")
                else:
                    _add_chapters(gathered, origin, file, marks)
        case SidecarKind.KEY:
            _take_audible_chapters(gathered, sidecar, origin, data, names)
        case SidecarKind.CHAPTERS if sidecar.path.lower().endswith(".json"):
            if why := _take_audible_chapters(gathered, sidecar, origin, data, names):
                gathered.warnings.append(f"The chapters of {origin} were not used: {why}.")
        case SidecarKind.CHAPTERS:
            file, is_clear = names.described_by(sidecar.path)
            if is_clear:
                _add_chapters(gathered, origin, file, chapters.read(text.decode(data)))
            else:
                gathered.warnings.append(f"{origin} was not used: it is not clear which of the files it describes.")
        case SidecarKind.PLAYLIST:
            entries = playlists.read(text.decode(data))
            found = [file for entry in entries if (file := names.find(entry, sidecar.path)) is not None]
            if len(found) < len(entries):
                gathered.warnings.append(
                    f"{origin}: {len(entries) - len(found)} of {len(entries)} entries are not here."
                )
            if found:
                gathered.playlists.append((origin, tuple(found)))
        case _:
            _take_metadata(gathered, origin, os.path.basename(sidecar.path).lower(), data)


def _add_chapters(gathered: _Gathered, origin: str, file: str | None, marks: Iterable[Mark]) -> None:
    listed = tuple(marks)
    if not listed:
        gathered.warnings.append(f"{origin} holds no chapters that can be read.")
    elif len(listed) > MARK_LIMIT:
        gathered.warnings.append(f"{origin} was not used: it has {len(listed)} chapters.")
    else:
        gathered.chapters.append(ChapterList(origin=origin, file=file, marks=listed))


def _take_audible_chapters(gathered: _Gathered, sidecar: Sidecar, origin: str, data: bytes, names: AudioNames) -> str:
    """Take Audible's chapters, which a voucher may hold too; return why not, "" when they were taken."""
    try:
        found = audible.chapters_of(data)
    except ValueError:
        if sidecar.kind is SidecarKind.KEY:
            return "there are none"  # Libation's key file is no JSON at all
        raise
    if found is None or not found.marks:
        return "there are none, or Audible calls them inaccurate"
    file = names.companion_of(sidecar.path)
    if file is None:
        return "it is not clear which of the files they describe"
    # The data asked for by itself is right more often than the licence's.
    gathered.audible.setdefault(
        file, ChapterList(origin=origin, file=file, marks=found.marks, length_us=found.length_us)
    )
    return ""


def _take_metadata(gathered: _Gathered, origin: str, base: str, data: bytes) -> None:
    if base.endswith(("-item.json", ".metadata.json")):
        strength, metadata = 4, audible.item(data)
    elif base == "metadata.json":
        strength, metadata = 0, descriptions.from_json(data)
        if (marks := descriptions.chapters_of_json(data)) is not None:
            _add_chapters(gathered, origin, None, marks)
    elif base.endswith(".opf"):
        strength, metadata = 1, opf.read(data)
    elif base == "reader.txt":
        strength, metadata = 2, Metadata(narrators=descriptions.names(text.decode(data)))
    elif base.endswith(".txt"):
        strength, metadata = 2, Metadata(description=text.prose(text.decode(data)))
    else:
        strength, metadata = 3, descriptions.from_nfo(text.decode(data))
    if metadata == Metadata():
        gathered.warnings.append(f"{origin} says nothing of the book that can be read.")
    else:
        gathered.metadata.append((strength, origin, metadata))
