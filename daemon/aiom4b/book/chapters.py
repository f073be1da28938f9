"""Where do the chapters begin, and what are they called?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from aiom4b.book import metadata, numbers
from aiom4b.book.naming import clean_text, clean_title
from aiom4b.models import Chapter, ChapterList, Order, Samples, Source, SourceFile

MAX_TITLE = 300
"""Characters of a title that players were seen to read whole."""
_FORGIVEN_SECONDS = 1
"""Lists round; a mark so far beyond the end still describes this book."""
_LENGTH_US = 2_000_000
"""Microseconds by which a list that tells the recording's length may miss it; another edition differs by more."""
_PULLED_SECONDS = 5
"""A first chapter that begins later leaves something before it that is heard as a chapter of its own."""

_CONTINUED = re.compile(r"\s*(?:\(\d{1,3}:\d\d(?::\d\d)?(?:\.\d+)?\)|[-–(]\s*continued\)?)\s*$", re.IGNORECASE)
_AROUND = " -–—_.,:"
_GENERIC = re.compile(r"(?:audio ?)?(?:track|titel|piste|spur|pista|file)?[\s_#.-]*\d+", re.IGNORECASE)
_LEADING_NUMBER = re.compile(r"(?:track\s*)?\d{1,4}(?=[\s._)\]-]|$)[\s._)\]-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    """The files in playing order, where each begins, and what their chapters would be called."""

    files: tuple[SourceFile, ...]
    starts: tuple[Samples, ...]
    total: Samples
    sample_rate: int
    titles: tuple[str, ...]

    def at(self, start_us: int, after: int = 0) -> int:
        """Return the position of a mark, rounded once and exactly."""
        return after + round(Fraction(start_us * self.sample_rate, 1_000_000))

    def end(self, place: int) -> int:
        return self.starts[place + 1] if place + 1 < len(self.starts) else self.total


def decide(
    source: Source, order: Order, starts: Sequence[Samples], total: Samples, sample_rate: int
) -> tuple[tuple[Chapter, ...], str, tuple[str, ...]]:
    """Return the chapters, where they come from in words, and warnings.

    ``starts[i]`` is where the i-th file in playing order begins, ``total`` the book's length, both at ``sample_rate``.
    The best witness counts: a list beside the audio that fits the book's length, chapters inside the files, OverDrive markers,
    else every file is a chapter. The first chapter begins at 0, each later than the one before, none is shorter than 0.1 s
    (what would be is heard with the chapter before) or beyond the end, and every title is one clean line.
    """
    files = tuple(source.files[index] for index in order.files)
    known, _ = metadata.merge(source, order)
    names = (known.title, known.subtitle, *known.authors, *known.narrators, *(entry.name for entry in known.series))
    book = _Book(
        files=files,
        starts=tuple(starts),
        total=total,
        sample_rate=sample_rate,
        titles=_titles(files, [clean_title(name) for name in (*names, source.name) if name]),
    )
    warnings: list[str] = []
    for origin, lists in _by_origin(source.evidence.chapters).items():
        marks, objection = _listed(book, lists)
        if objection:
            warnings.append(f"The chapters of {origin} were not used: {objection}.")
        elif marks:
            return _finished(book, marks), origin, tuple(warnings)
    if _has_own_chapters(files):
        marks = _embedded(book, warnings)
        return _finished(book, marks), "chapters inside the files", tuple(warnings)
    marks = _overdrive(book)
    if marks and 2 * sum(bool(file.tags.markers) for file in files) >= len(files):
        return _finished(book, marks), "OverDrive markers", tuple(warnings)
    marks = list(zip(book.starts, book.titles, strict=True))
    return _finished(book, marks), "one chapter per file", tuple(warnings)


_Marks = list[tuple[int, str]]


def _by_origin(lists: Sequence[ChapterList]) -> dict[str, list[ChapterList]]:
    """A cue over several files comes as one list per file."""
    found: dict[str, list[ChapterList]] = {}
    for one in lists:
        if one.marks:
            found.setdefault(one.origin, []).append(one)
    return found


def _listed(book: _Book, lists: Sequence[ChapterList]) -> tuple[_Marks, str]:
    """Lay a list on the book's timeline; return the marks, or the reason why it can't be about this book."""
    places = {file.path: place for place, file in enumerate(book.files)}
    marks: _Marks = []
    named: set[int] = set()
    if len(book.files) > 1 and sum(len(one.marks) for one in lists) == 1:
        return [], "there is only one"
    for one in lists:
        place = places.get(one.file) if one.file is not None else 0
        if place is None:
            return [], f"it describes {clean_title(one.file or '')}, which is not there"
        after, end = (book.starts[place], book.end(place)) if one.file is not None else (0, book.total)
        told = one.length_us
        if (
            told is not None
            and abs(told * book.sample_rate - (end - after) * 1_000_000) > _LENGTH_US * book.sample_rate
        ):
            return [], f"it is for a recording of {told / 60e6:.1f} minutes"
        last = book.at(max(mark.start_us for mark in one.marks), after)
        if last > end + _FORGIVEN_SECONDS * book.sample_rate:
            return [], "it is longer than the audio"
        if one.file is None and len(one.marks) > 3 and 2 * last < end:
            return [], "it ends before half of the audio is over"
        named.update({place} if one.file is not None else places.values())
        positions = [(book.at(mark.start_us, after), mark.title) for mark in one.marks]
        marks += [mark for mark in positions if mark[0] < end]
    if len(named) < len(book.files):
        # The files that a cue leaves out are chapters as they are.
        marks += [(book.starts[place], book.titles[place]) for place in places.values() if place not in named]
    return marks, ""


def _has_own_chapters(files: Sequence[SourceFile]) -> bool:
    counts = [len(file.tags.chapters) for file in files]
    return max(counts) > 1 or (min(counts) == 1 and len(files) > 1)


def _embedded(book: _Book, warnings: list[str]) -> _Marks:
    marks: _Marks = []
    for place, file in enumerate(book.files):
        own = [(book.at(mark.start_us, book.starts[place]), mark.title) for mark in file.tags.chapters]
        inside = [mark for mark in own if mark[0] < book.end(place)]
        if len(inside) < len(own):
            warnings.append(
                f"{clean_title(file.path)}: {len(own) - len(inside)} chapters beyond its end were left out."
            )
        if len(inside) == 1 and not inside[0][1]:
            inside = [(inside[0][0], book.titles[place])]
        marks += inside or [(book.starts[place], book.titles[place])]
    return marks


def _overdrive(book: _Book) -> _Marks:
    """Leave out the markers that only say that a chapter goes on: "Chapter 3 (05:12)", or the last title once more."""
    marks: _Marks = []
    previous = ""
    for place, file in enumerate(book.files):
        for mark in file.tags.markers:
            title = clean_text(_CONTINUED.sub("", mark.title)) or clean_text(mark.title)
            position = book.at(mark.start_us, book.starts[place])
            if title.casefold() != previous and position < book.end(place):
                marks.append((position, title))
                previous = title.casefold()
    return marks


def _finished(book: _Book, marks: _Marks) -> tuple[Chapter, ...]:
    """Keep the promises of ``decide``, whatever the marks are."""
    ordered = sorted(((max(0, position), title) for position, title in marks), key=lambda mark: mark[0])
    if ordered[0][0] > _PULLED_SECONDS * book.sample_rate:
        ordered.insert(0, (0, "Opening"))
    ordered[0] = (0, ordered[0][1])
    kept: _Marks = []
    for position, title in ordered:
        if position < book.total and (not kept or 10 * (position - kept[-1][0]) >= book.sample_rate):
            kept.append((position, title))
    while len(kept) > 1 and 10 * (book.total - kept[-1][0]) < book.sample_rate:
        kept.pop()
    return tuple(
        Chapter(title=clean_text(title)[:MAX_TITLE].rstrip() or f"Chapter {place}", start=Samples(position))
        for place, (position, title) in enumerate(kept, start=1)
    )


def _titles(files: Sequence[SourceFile], names: Sequence[str]) -> tuple[str, ...]:
    """Name one chapter for each file: by its title tag, else its name, else its number.

    Titles that more than ``metadata.SAME_SHARE`` of the files share name the book; those that only count ("Track 07") name
    nothing. A single file keeps whatever it has: there is nothing to tell apart.
    """
    tagged = [clean_text(file.tags.title) for file in files]
    if len(files) == 1:
        return (tagged[0] or (names[0] if names else "Chapter 1"),)
    stems = [clean_title(numbers.stem(file.path)) for file in files]
    from_tags = _telling(tagged, _without(tagged, names))
    from_names = _telling(stems, _unnumbered(_without(stems, names), names))
    return tuple(
        tag or name or f"Chapter {place}"
        for place, (tag, name) in enumerate(zip(from_tags, from_names, strict=True), start=1)
    )


def _telling(titles: Sequence[str], stripped: Sequence[str]) -> list[str]:
    """Return the stripped titles, "" for those that name nothing; all "" if too few of them do."""
    useful = ["" if not text or _GENERIC.fullmatch(text) else text for text in stripped]
    common = max(*Counter(map(str.casefold, titles)).values(), *Counter(map(str.casefold, useful)).values(), 0)
    return useful if common <= metadata.SAME_SHARE * len(titles) else [""] * len(titles)


def _unnumbered(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Strip leading numbers, as many as most of the names have, and what they stood before."""
    stripped = list(texts)
    while 2 * sum(bool(_LEADING_NUMBER.match(text)) for text in stripped) > len(stripped):
        stripped = _without([_LEADING_NUMBER.sub("", text, count=1) for text in stripped], names)
    return stripped


def _without(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Remove the book's title and people from either end, where more than half of the texts have them there.

    In a single title they may well belong: "Emma Meets Mr Knightley".
    """
    stripped = list(texts)
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        for place in (rf"^{re.escape(name)}(?!\w)", rf"(?<!\w){re.escape(name)}$"):
            pattern = re.compile(place, re.IGNORECASE)
            if 2 * sum(bool(pattern.search(text)) for text in stripped) > len(stripped):
                stripped = [pattern.sub("", text).strip(_AROUND) if pattern.search(text) else text for text in stripped]
    return stripped
