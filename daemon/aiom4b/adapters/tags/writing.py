"""Which tags does a finished book carry, how do they get into the file, and what does it really hold?"""

from __future__ import annotations

import hashlib
import os
import re
from io import BytesIO
from typing import Any

from mutagen import MutagenError
from mutagen.mp4 import MP4, AtomDataType, MP4Cover, MP4FreeForm

from aiom4b.adapters.files import open_regular, translated
from aiom4b.adapters.tags import regions
from aiom4b.errors import NeedsAttention
from aiom4b.models import BookId, Metadata, SeriesEntry

BookTags = dict[str, str | int | bool]
"""The metadata atoms of a book: mutagen's key of each, and its one value. ``covr`` holds the cover's SHA-256."""

BOOK_ID = "----:com.aiom4b:BOOK_ID"
_FREE = "----:com.apple.iTunes:"
_AUDIOBOOK = 2  # iTunes' media kinds


def book_tags(metadata: Metadata, *, book_id: BookId, tool: str) -> BookTags:
    """Return the atoms of a book, without its cover; what is unknown is absent.

    One value for each atom, since Audiobookshelf reads the first only: names are joined by ``"; "``. The full text goes
    into ``desc`` (it reads no other), the narrators are the composers, and a series is free-form, because ffprobe hides
    the movement atoms. It splits genres at ``/`` if there is one anywhere, so we do that before joining them.
    ``tool`` names the program, never a date: the same book made again has the same bytes.
    """
    genres = (part.strip() for genre in metadata.genres for part in genre.split("/"))
    year = re.search(r"(?<!\d)\d{4}(?!\d)", metadata.year)
    authors = "; ".join(metadata.authors)
    tags: BookTags = {
        "©nam": metadata.title,
        "©alb": metadata.title,
        "©ART": authors,
        "aART": authors,
        "©wrt": "; ".join(metadata.narrators),
        "©gen": "; ".join(dict.fromkeys(genre for genre in genres if genre)),
        "©day": year[0] if year else "",
        "desc": metadata.description,
        "ldes": metadata.description,
        "cprt": metadata.copyright,
        "©too": tool,
        _FREE + "SUBTITLE": metadata.subtitle,
        _FREE + "PUBLISHER": metadata.publisher,
        _FREE + "LANGUAGE": metadata.language,
        _FREE + "ASIN": metadata.asin,
        _FREE + "ISBN": metadata.isbn,
        BOOK_ID: book_id,
        **_series(metadata.series),
    }
    return {key: value for key, value in tags.items() if value} | {"stik": _AUDIOBOOK, "pgap": True}


def _series(series: tuple[SeriesEntry, ...]) -> dict[str, str]:
    if any(entry.part for entry in series) and not all(entry.part for entry in series):
        # Two lists of unequal length would number the wrong series; the grouping carries name and number together.
        return {"©grp": "; ".join(f"{entry.name} #{entry.part}" if entry.part else entry.name for entry in series)}
    return {
        _FREE + "SERIES": "; ".join(entry.name for entry in series),
        _FREE + "SERIES-PART": "; ".join(entry.part for entry in series),
    }


def write_tags(path: str, tags: BookTags, cover: bytes | None) -> None:
    """Make ``tags`` (as of `book_tags`) and a JPEG or PNG ``cover`` the only metadata of the MP4 file at ``path``.

    The same file, tags and cover give the same bytes; safe to repeat. The file is changed in place and not synced: it
    must be a draft that nobody else sees, and a half-written one must be muxed again. Raises NeedsAttention
    ``tags.not_written`` when it is no MP4 file, and what `aiom4b.adapters.files.translated` raises.
    """
    with translated(path, "tagging"), os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as file:
        try:
            book: Any = MP4(file)
            if book.tags is None:
                book.add_tags()
            book.tags.clear()
            for key, value in tags.items():
                book.tags[key] = _stored(key, value)
            if cover is not None:
                kind = MP4Cover.FORMAT_PNG if cover.startswith(b"\x89PNG") else MP4Cover.FORMAT_JPEG
                book.tags["covr"] = [MP4Cover(cover, kind)]
            file.seek(0)
            book.save(file, padding=lambda _: 0)
        except MutagenError as error:
            if isinstance(error.__context__, OSError):  # a full disk, which mutagen wraps
                raise error.__context__ from None
            raise NeedsAttention(
                "tags.not_written",
                f"The tags could not be written into the finished book: {error}.",
                remedy="Run the job again; if it happens again, report it as a bug of aiom4b.",
                path=path,
            ) from error


def _stored(key: str, value: str | int | bool) -> object:
    if key.startswith("----:"):
        return [MP4FreeForm(str(value).encode(), dataformat=AtomDataType.UTF8)]
    return value if isinstance(value, bool) else [value]


def read_back(path: str) -> BookTags:
    """Return the metadata that the book at ``path`` holds, in the shape of `book_tags` and with ``covr`` if there is one.

    An atom with several values, which no book of ours has, shows them joined by NUL. {} when there is none at all.
    Raises NeedsAttention ``tags.unreadable`` when they can't be parsed, and what `open_regular` and `translated` raise.
    """
    descriptor = open_regular(path)
    try:
        with translated(path, "reading"):
            region = regions.ilst(descriptor)
    finally:
        os.close(descriptor)
    if region.warning:
        raise _unreadable(path, region.warning)
    if not region.data:
        return {}
    try:
        book: Any = MP4(BytesIO(region.data))
        return {key: _shown(key, value) for key, value in book.tags.items()}
    except Exception as error:
        raise _unreadable(path, f"{type(error).__name__} {error}") from error


def _unreadable(path: str, why: str) -> NeedsAttention:
    return NeedsAttention(
        "tags.unreadable",
        f"The tags of the book could not be read: {why.rstrip('.')}.",
        remedy="Check the file with another program; convert the book again if it is one of ours.",
        path=path,
    )


def _shown(key: str, value: Any) -> str | int | bool:
    if isinstance(value, bool):
        return value
    if key == "covr":
        return "\0".join(hashlib.sha256(bytes(picture)).hexdigest() for picture in value)
    if key.startswith("----:"):
        return "\0".join(bytes(one).decode("utf-8", "surrogateescape") for one in value)
    if len(value) == 1 and isinstance(value[0], int):
        return value[0]
    return "\0".join(str(one) for one in value)


def book_id_of(path: str) -> BookId | None:
    """Return the id of a book that aiom4b made, None for every other file, tags that can't be parsed included.

    Raises what `open_regular` and `translated` raise.
    """
    try:
        found = read_back(path).get(BOOK_ID, "")
    except NeedsAttention as error:
        if error.code != "tags.unreadable":
            raise
        return None
    return BookId(found) if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{16}", found) else None
