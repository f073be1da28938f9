"""What does an audio file say of itself? Tags of strangers become `FileTags`, whatever they hold."""

from __future__ import annotations

import hashlib
import html
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from mutagen.apev2 import APETextValue, APEv2
from mutagen.id3 import ID3, ParseID3v1
from mutagen.mp4 import MP4

from aiom4b.adapters import text
from aiom4b.adapters.files import open_regular, translated
from aiom4b.adapters.tags import markers, regions
from aiom4b.models import Codec, FileTags, Mark

COVER_LIMIT = 20 << 20
_FRONT = 3  # ID3v2.3 §4.15, picture type "Cover (front)"
_LATIN_1 = 0  # ID3v2 text encoding

# Where each field of FileTags is found, strongest first: ID3 frame ids, MP4 atoms, and under "X:" the free-form names
# of TXXX frames, "----" atoms and APE items, upper case with "-" between words.
_LINES: Mapping[str, tuple[str, ...]] = {
    "title": ("TIT2", "©nam", "X:TITLE"),
    "album": ("TALB", "©alb", "X:ALBUM"),
    "artist": ("TPE1", "©ART", "X:ARTIST"),
    "album_artist": ("TPE2", "aART", "X:ALBUM-ARTIST", "X:ALBUMARTIST"),
    "composer": ("TCOM", "©wrt", "X:COMPOSER"),
    "narrator": ("X:NARRATOR", "X:NARRATORS", "X:NARRATED-BY", "X:NARRATEDBY", "X:READ-BY", "X:READER", "©nrt"),
    "subtitle": ("TIT3", "X:SUBTITLE", "©st3"),
    "series": ("X:SERIES", "X:SERIES-NAME", "MVNM", "©mvn", "tvsh"),
    "series_part": ("X:SERIES-PART", "X:SERIES-INDEX", "X:SERIES-SEQUENCE", "MVIN", "©mvi", "tven"),
    "genre": ("TCON", "©gen", "X:GENRE"),
    "date": ("TDRC", "TDRL", "©day", "rldt", "X:YEAR", "X:DATE", "TDOR"),
    "publisher": ("TPUB", "X:PUBLISHER", "©pub"),
    "language": ("X:LANGUAGE", "TLAN"),
    "isbn": ("X:ISBN",),
    "asin": ("X:ASIN", "X:AUDIBLE-ASIN", "CDEK"),
    "copyright": ("TCOP", "cprt", "X:COPYRIGHT"),
}
_PROSE: Mapping[str, tuple[str, ...]] = {
    "description": ("TDES", "ldes", "©des", "desc", "X:DESCRIPTION", "X:SYNOPSIS"),
    "comment": ("COMM", "©cmt", "X:COMMENT"),
}
_GROUPING = ("TIT1", "GRP1", "©grp", "X:GROUPING")
_TRACK = (("TRCK", "trkn", "X:TRACK"), ("X:TRACKTOTAL", "X:TOTALTRACKS"))
_DISC = (("TPOS", "disk", "X:DISC"), ("X:DISCTOTAL", "X:TOTALDISCS"))
_MARKERS = "X:OVERDRIVE-MEDIAMARKERS"
_TECHNICAL_COMMENT = re.compile(r"iTun|Songs-DB|MusicMatch|ID3v1", re.IGNORECASE)
_SERIES = re.compile(r"(.+?) #([^#\s]+)")
_PEOPLE = frozenset({"©ART", "aART", "©wrt", "©nrt"})
_BETWEEN_PEOPLE = re.compile(r",\s+(?!(?:jr|sr|ph\.?\s?d|m\.?d|esq|ii|iii|iv)\b)", re.IGNORECASE)
_TITLES = frozenset({"©nam", "©alb", "@sti"})
_UNABRIDGED = re.compile(
    r"\s*\((?:unabridged|ungekürzt|version intégrale|texte intégral|edizione integrale)\)\s*$", re.IGNORECASE
)
_NUMBER = re.compile(r"0*([0-9]{1,5})(?:\s*(?:/|of)\s*0*([0-9]{1,5}))?")


@dataclass(slots=True, kw_only=True)
class _Found:
    """What the tags of one file hold, as it stands in them."""

    values: dict[str, list[str]] = field(default_factory=dict)
    chapters: tuple[Mark, ...] = ()
    pictures: list[tuple[bool, bytes]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def first(self, keys: Iterable[str]) -> list[str]:
        """Return the values of the first of ``keys`` that has any text."""
        return next((values for key in keys if any(map(str.strip, values := self.values.get(key, [])))), [])


def read_tags(path: str, codec: Codec) -> FileTags:
    """Return what the file at ``path`` says of itself.

    Bad tags never raise: what can be read is returned, the rest is named in ``warnings``. ``chapters`` stays empty for
    AAC, since the list that mutagen sees ends at 255; the engine reads those. ``description`` and ``comment`` keep their
    line breaks. Raises what `aiom4b.adapters.files.open_regular` and `translated` raise.
    """
    found = _found(path, codec)
    fields: dict[str, Any] = {name: _joined(found.first(keys), text.line) for name, keys in _LINES.items()}
    fields |= {name: _joined(found.first(keys), text.prose) for name, keys in _PROSE.items()}
    if not fields["series"]:
        fields |= _grouped(_joined(found.first(_GROUPING), text.line))
    fields["asin"] = fields["asin"].upper()  # as Audible writes it, and whatever is here is looked for
    fields["series_part"] = fields["series_part"].partition("/")[0].strip()  # MVIN may be "2/5"
    fields["track"], fields["track_total"] = _numbered(found, *_TRACK)
    fields["disc"], fields["disc_total"] = _numbered(found, *_DISC)
    cover = _cover(found)
    return FileTags(
        **fields,
        chapters=found.chapters,
        markers=markers.overdrive("".join(found.first([_MARKERS]))),
        cover=hashlib.sha256(cover).hexdigest() if cover else "",
        warnings=tuple(found.warnings),
    )


def embedded_cover(path: str, codec: Codec) -> bytes | None:
    """Return the picture whose hash `read_tags` gives: the front cover, else the largest. Raises what that raises."""
    return _cover(_found(path, codec))


def _found(path: str, codec: Codec) -> _Found:
    descriptor = open_regular(path)
    try:
        with translated(path, "reading"):
            found = _Found()
            if codec is Codec.AAC:
                _attempt(found, "MP4", regions.ilst(descriptor), _take_mp4)
            else:
                _attempt(found, "ID3", regions.id3(descriptor), _take_id3)
                _attempt(found, "ID3v1", regions.id3v1(descriptor), _take_id3v1)
                _attempt(found, "APE", regions.ape(descriptor), _take_ape)
            return found
    finally:
        os.close(descriptor)


def _attempt(found: _Found, name: str, region: regions.Region, take: Callable[[_Found, bytes], None]) -> None:
    if region.warning:
        found.warnings.append(region.warning)
    if region.data:
        try:
            take(found, region.data)
        except Exception as error:  # noqa: BLE001 - mutagen has raised struct, zlib, key and recursion errors; only bytes in memory are read
            found.warnings.append(
                f"The {name} tag is damaged and was read in part or not at all ({type(error).__name__})."
            )


def _take_id3(found: _Found, data: bytes) -> None:
    tags: Any = ID3(BytesIO(data), load_v1=False)
    _take_frames(found, list(tags.values()))


def _take_id3v1(found: _Found, data: bytes) -> None:
    frames: Any = ParseID3v1(data) or {}
    _take_frames(found, list(frames.values()))


def _take_frames(found: _Found, frames: list[Any]) -> None:
    """Add what ID3 frames say; what is there already stays."""
    chapters = [frame for frame in frames if frame.FrameID == "CHAP"]
    titles = {id(chapter): list(chapter.sub_frames.getall("TIT2")) for chapter in chapters}
    texts = [frame for frame in [*frames, *(title for some in titles.values() for title in some)] if _has_text(frame)]
    page = text.code_page(str(value) for frame in texts if frame.encoding == _LATIN_1 for value in frame.text)

    def readable(frame: Any) -> list[str]:
        values = frame.genres if frame.FrameID == "TCON" else map(str, frame.text)
        return [text.repaired(value, page) if frame.encoding == _LATIN_1 else value for value in values]

    added: dict[str, list[str]] = {}
    for frame in sorted(frames, key=lambda frame: str(getattr(frame, "desc", ""))):  # a comment without a name is first
        if not _has_text(frame) or (frame.FrameID == "COMM" and _TECHNICAL_COMMENT.match(frame.desc)):
            continue
        key = _free_form(frame.desc) if frame.FrameID == "TXXX" else frame.FrameID
        added.setdefault(key, readable(frame))
    for key, values in added.items():
        found.values.setdefault(key, values)

    listed = [
        element
        for contents in frames
        if contents.FrameID == "CTOC" and contents.flags & 1  # its "ordered" flag
        for element in contents.child_element_ids
    ]
    found.chapters = found.chapters or markers.embedded(
        (
            (
                chapter.element_id,
                chapter.start_time,
                _joined([v for t in titles[id(chapter)] for v in readable(t)], text.line),
            )
            for chapter in chapters
        ),
        listed,
    )
    for frame in frames:
        if frame.FrameID == "APIC" and frame.mime != "-->":  # that one is a link
            _take_picture(found, bytes(frame.data), front=frame.type == _FRONT)


def _has_text(frame: Any) -> bool:
    return hasattr(frame, "text") and isinstance(frame.text, list) and hasattr(frame, "encoding")


def _take_ape(found: _Found, data: bytes) -> None:
    items: Any = APEv2(BytesIO(data))
    for key, value in items.items():
        if isinstance(value, APETextValue):
            found.values.setdefault(_free_form(key), list(value))


def _take_mp4(found: _Found, data: bytes) -> None:
    book: Any = MP4(BytesIO(data))
    for key, values in book.tags.items():
        if key == "covr":
            for index, picture in enumerate(values):
                _take_picture(found, bytes(picture), front=index == 0)
        elif key.startswith("----:"):
            name = _free_form(key.split(":", 2)[2])
            found.values.setdefault(name, [bytes(value).decode("utf-8", "replace") for value in values])
        elif key in {"trkn", "disk"}:
            found.values[key] = [f"{number}/{total}" for number, total in values[:1]]
        elif isinstance(values, list):
            found.values[key] = [str(value) for value in values]
    if "CDEK" in found.values:
        found.values = {key: [_as_audible(key, value) for value in values] for key, values in found.values.items()}


def _as_audible(key: str, value: str) -> str:
    """Return what Audible means: it writes "&#169;" for ©, people in one line, and the edition into the title."""
    value = html.unescape(value)
    if key in _PEOPLE:
        return "; ".join(_BETWEEN_PEOPLE.split(value))
    return _UNABRIDGED.sub("", value) if key in _TITLES else value


def _take_picture(found: _Found, data: bytes, *, front: bool) -> None:
    if len(data) > COVER_LIMIT:
        found.warnings.append(f"An embedded picture of {len(data) >> 20} MiB was left out.")
    elif data:
        found.pictures.append((front, data))


def _cover(found: _Found) -> bytes | None:
    fronts = [data for front, data in found.pictures if front]
    return fronts[0] if fronts else max((data for _, data in found.pictures), key=len, default=None)


def _free_form(name: str) -> str:
    return "X:" + re.sub(r"[\s_-]+", "-", name.strip()).upper()


def _joined(values: Iterable[str], clean: Callable[[str], str]) -> str:
    pieces = (clean(piece) for value in values for piece in value.split("\0"))
    return clean("; ".join(dict.fromkeys(piece for piece in pieces if piece)))


def _grouped(grouping: str) -> dict[str, str]:
    """Return series and parts of a grouping like ``Name #2; Other #3.5``; anything else there is no series."""
    entries = [_SERIES.fullmatch(piece.strip()) for piece in grouping.split(";")]
    matched = [entry for entry in entries if entry]
    if len(matched) != len(entries):
        return {}
    return {"series": "; ".join(entry[1] for entry in matched), "series_part": "; ".join(entry[2] for entry in matched)}


def _numbered(found: _Found, number: Iterable[str], total: Iterable[str]) -> tuple[int | None, int | None]:
    written = _NUMBER.match("".join(found.first(number)[:1]).strip())
    apart = _NUMBER.match("".join(found.first(total)[:1]).strip())
    # 0 stands for "unknown" in every format.
    of = int((written and written[2]) or (apart and apart[1]) or 0)
    return (int(written[1]) or None if written else None), of or None
