"""What does Audible say of a title, in the documents that downloaders leave beside it? Its chapters, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiom4b.adapters import audible_items, text
from aiom4b.models import Mark, Metadata

_HEADING_MS = 10_000
"""A heading that is shorter is spoken as the beginning of its first chapter, and is no chapter by itself."""
_DEEPEST = 8
_MOST = 10_000
_LONGEST_MS = 10**12
"""Longer than anybody lives: beyond it numbers are nonsense, and floats end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudibleChapters:
    """The chapters of one title, and how long Audible thinks it is, in microseconds."""

    marks: tuple[Mark, ...]
    length_us: int


def chapters_of(data: bytes) -> AudibleChapters | None:
    """Return the chapters in an answer of Audible's (chapter data or a licence), None where there are none, or none accurate.

    Parents of several chapters are folded into the first of them when they are short, and give their title to all:
    ``Part One: Chapter 1``. Raises ValueError for what is no such document.
    """
    try:
        document: Any = json.loads(data)
        holder = document.get("content_license", document)
        info = (holder.get("content_metadata") or {}).get("chapter_info")
        if not info or not info.get("is_accurate", False):
            return None
        found = list(islice(_flat(info.get("chapters") or [], "", 0), _MOST + 1))
        length = _milliseconds(info["runtime_length_ms"])
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("not Audible's chapter data") from error
    if len(found) > _MOST:
        raise ValueError("it has too many chapters")
    return AudibleChapters(marks=tuple(sorted(found, key=lambda mark: mark.start_us)), length_us=1000 * length)


def item(data: bytes) -> Metadata:
    """Return what a title's document in the library says; raises ValueError or RecursionError for what is no such document."""
    document: Any = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the caller speaks of bad data, not of bad types
    inside = document.get("item") or document.get("product")
    return audible_items.metadata_of(inside if isinstance(inside, dict) else document)


def _flat(chapters: list[Any], parents: str, depth: int) -> Iterator[Mark]:
    if depth > _DEEPEST:
        raise ValueError("its chapters are nested too deeply")
    for chapter in chapters:
        own = chapter.get("title")
        title = text.line(": ".join(part for part in (parents, own if isinstance(own, str) else "") if part))
        start = _milliseconds(chapter["start_offset_ms"])
        below = chapter.get("chapters") or []
        if below and _milliseconds(chapter["length_ms"]) < _HEADING_MS:
            first = min(start, _milliseconds(below[0]["start_offset_ms"]))
            below = [{**below[0], "start_offset_ms": first}, *below[1:]]
        else:
            yield Mark(start_us=1000 * start, title=title)
        yield from _flat(below, title, depth + 1)


def _milliseconds(value: object) -> int:
    if not isinstance(value, int | float) or not -_LONGEST_MS < value < _LONGEST_MS:
        raise ValueError("it holds a time that is none")
    return int(value)
