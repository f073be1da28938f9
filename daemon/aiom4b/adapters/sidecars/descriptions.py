"""What is known of the book, by Audiobookshelf's metadata.json, an NFO, or a list of readers?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from aiom4b.adapters import text
from aiom4b.models import Mark, Metadata, SeriesEntry

_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)")
_SERIES = re.compile(r"(.+?)\s+#([^#\s]+)")
_LABEL = re.compile(r"\s*([A-Za-z][A-Za-z ]{1,30}?)[\s.]*:\s*(.*\S)\s*")
_NFO: Mapping[str, str] = {
    "title": "title", "book title": "title", "subtitle": "subtitle",
    "author": "authors", "authors": "authors", "written by": "authors",
    "read by": "narrators", "reader": "narrators", "narrator": "narrators", "narrators": "narrators", "narrated by": "narrators",
    "series": "series", "series name": "series", "position in series": "part", "series position": "part",
    "genre": "genres", "genres": "genres", "publisher": "publisher", "language": "language",
    "year": "year", "release date": "year", "published": "year", "publication date": "year",
    "asin": "asin", "isbn": "isbn", "copyright": "copyright",
}  # fmt: skip


def year_of(date: str) -> str:
    """Return the four digits of the year in ``date``, "" when there are none."""
    found = _YEAR.search(date)
    return found[1] if found else ""


def names(written: str) -> tuple[str, ...]:
    """Return the people in a text of one name a line, or between ``;``.

    A comma divides them only when each side has two words at least: ``Doe, Jane`` is one person.
    """
    people: list[str] = []
    for piece in re.split(r"[\n\r;]", written):
        apart = [name for part in piece.split(",") if (name := text.line(part))]
        people += apart if all(" " in name for name in apart) else [text.line(piece)]
    return tuple(dict.fromkeys(person for person in people if person))


def from_json(data: bytes) -> Metadata:
    """Return what a metadata.json of Audiobookshelf says; a value of another type than it writes counts as absent.

    Raises ValueError or RecursionError for what is no such JSON.
    """
    book = _book_of_json(data)
    entries = [_series(entry) for entry in _list(book, "series")]
    return Metadata(
        title=_line(book, "title"),
        subtitle=_line(book, "subtitle"),
        authors=_lines(book, "authors"),
        narrators=_lines(book, "narrators"),
        series=tuple(entry for entry in entries if entry is not None),
        genres=_lines(book, "genres"),
        year=year_of(_line(book, "publishedYear")) or year_of(_line(book, "publishedDate")),
        description=text.prose(_scalar(book, "description")),
        publisher=_line(book, "publisher"),
        language=_line(book, "language"),
        asin=_line(book, "asin"),
        isbn=_line(book, "isbn"),
    )


def chapters_of_json(data: bytes) -> list[Mark] | None:
    """Return the chapters in a metadata.json, [] when one of them is nonsense, None without any. Raises as `from_json`."""
    marks: list[Mark] = []
    for chapter in _list(_book_of_json(data), "chapters"):
        start = chapter.get("start") if isinstance(chapter, dict) else None
        if isinstance(start, bool) or not isinstance(start, int | float) or not math.isfinite(start) or start < 0:
            return []
        marks.append(Mark(start_us=round(start * 1_000_000), title=_line(chapter, "title")))
    return marks or None


def _book_of_json(data: bytes) -> dict[str, Any]:
    document = json.loads(text.decode(data))
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the caller speaks of bad data, not of bad types
    older = document.get("metadata")  # where Audiobookshelf kept the fields before 2.3
    return {**document, **older} if isinstance(older, dict) else document


def _scalar(book: dict[str, Any], key: str) -> str:
    value = book.get(key)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _line(book: dict[str, Any], key: str) -> str:
    return text.line(_scalar(book, key))


def _list(book: dict[str, Any], key: str) -> list[Any]:
    value = book.get(key)
    return value if isinstance(value, list) else []


def _lines(book: dict[str, Any], key: str) -> tuple[str, ...]:
    values = (text.line(value) for value in _list(book, key) if isinstance(value, str))
    return tuple(dict.fromkeys(value for value in values if value))


def _series(entry: object) -> SeriesEntry | None:
    if not isinstance(entry, str) or not (name := text.line(entry)):
        return None
    found = _SERIES.fullmatch(name)
    return SeriesEntry(name=found[1], part=found[2]) if found else SeriesEntry(name=name)


def from_nfo(written: str) -> Metadata:
    """Return what the ``label: value`` lines of an NFO say, and the text below a "Book Description" heading.

    Nothing unless a title or an author is among at least two labels that we know: most NFOs are about something else.
    """
    fields: dict[str, str] = {}
    head, description = _divided(written)
    for line in head.splitlines():
        found = _LABEL.fullmatch(line[: text.LINE_LIMIT])
        if found and (name := _NFO.get(" ".join(found[1].lower().split()))):
            fields.setdefault(name, text.line(found[2]))
    if len(fields) < 2 or not fields.keys() & {"title", "authors"}:
        return Metadata()
    series = fields.get("series", "")
    named = SeriesEntry(name=series, part=fields.get("part", "")) if "part" in fields else _series(series)
    return Metadata(
        title=fields.get("title", ""),
        subtitle=fields.get("subtitle", ""),
        authors=names(fields.get("authors", "")),
        narrators=names(fields.get("narrators", "")),
        series=(named,) if named and named.name else (),
        genres=tuple(genre for part in re.split(r"[;,/]", fields.get("genres", "")) if (genre := text.line(part))),
        year=year_of(fields.get("year", "")),
        description=description,
        publisher=fields.get("publisher", ""),
        language=fields.get("language", ""),
        asin=fields.get("asin", ""),
        isbn=fields.get("isbn", ""),
        copyright=fields.get("copyright", ""),
    )


def _divided(written: str) -> tuple[str, str]:
    head, *below = re.split(
        r"^[ \t]*(?:Book )?Description:?[ \t]*\r?\n[ \t]*[=~*-]{3,}[ \t]*$",
        written,
        maxsplit=1,
        flags=re.MULTILINE | re.IGNORECASE,
    )
    return head, text.prose(below[0]) if below else ""
