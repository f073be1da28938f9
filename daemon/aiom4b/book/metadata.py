"""Who wrote it, who reads it, what is it called? Sidecars, then tags, then the folder's name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from aiom4b.book import numbers
from aiom4b.book.naming import clean_text, clean_title
from aiom4b.book.numbers import vocabulary
from aiom4b.models import FileTags, Metadata, Order, SeriesEntry, Source

SAME_SHARE = 0.8
"""A title that more than this share of the files carry is the book's, not a chapter's."""

_NOBODY = {
    *vocabulary("unknown various audible audiobook audiobooks hörbuch hörbücher diverse va n/a"),
    *(
        "unknown artist",
        "unknown author",
        "various artists",
        "various authors",
        "verschiedene interpreten",
        "<unknown>",
    ),
}
_NO_ALBUM = {"unknown album", "unknown", "audiobook", "audiobooks", "hörbuch"}
_ANY_BOOK = {
    *vocabulary(
        "audiobook audiobooks hörbuch hörbücher luisterboek lydbok ljudbok audiolibro audiolivre speech spoken"
    ),
    *(
        "audio book",
        "audio books",
        "spoken word",
        "spoken & audio",
        "books & spoken",
        "livre audio",
        "unknown",
        "other",
    ),
}
_SHORTEST_DESCRIPTION = 80

_YEAR = re.compile(r"(?<!\d)(1[0-9]{3}|20[0-9]{2})(?!\d)")
_SERIES_PLACE = re.compile(
    r"(?P<name>.*?)[\s,]*(?:#|\b(?:book|vol|volume|band|buch|tome|part|teil)\b\.?\s*|(?<=\s))#?(?P<part>\d{1,3}(?:\.\d+)?)",
    re.IGNORECASE,
)
_HASH_PLACE = re.compile(r"(?P<name>.+?)[\s,]*#\s*(?P<part>\d+(?:\.\d+)?)")
_BRACKETED = re.compile(r"\s*(?:\(([^()]*)\)|\[([^\[\]]*)\]|\{([^{}]*)\})")
_READ_BY = re.compile(r"(?:read|narrated|gelesen|lu|leído|letto) (?:by|von|par|por|da) (.+)", re.IGNORECASE)
_ASIN = re.compile(r"(?:asin[.: ]*)?(B0[A-Z0-9]{8}|\d{9}[\dX])")
_TECHNICAL = re.compile(
    r".*\b(?:\d+ ?k(?:bps|bit)?|mp3|m4b|aac|(?:un)?abridged|(?:un)?gekürzt|audio ?books?|hörbuch|retail)\b.*",
    re.IGNORECASE,
)

# What the name parser of the player server drops, swaps or splits at; with dots and case aside.
_TITLES = vocabulary(
    "dr miss mr mrs ms prof sir frau herr hr monsieur captain doctor judge officer professor ind misc mx"
)
_SUFFIXES = vocabulary("esq esquire jr jnr sr snr 2 ii iii iv md phd jd llm do dc pc")


def merge(source: Source, order: Order) -> tuple[Metadata, tuple[str, ...]]:
    """Return what is known of the book, and warnings where it is doubtful; the title is never empty.

    Field by field the strongest witness that says anything counts: the sidecars as they are sorted in the evidence, then
    the tags (what most files say; of equals the first in playing order), then the folder's name.

    Of the tags, album is the title, album artist or else artist the author, narrator or else a composer who isn't the author
    the narrator, a comment of some length that most files share the description. Genres lose the words that only
    say "audiobook": whoever writes the tags adds that. Several names in one value are split at ``;`` always, at ``&``
    only between two full names without commas ("Terry Pratchett & Neil Gaiman"; not "Simon & Schuster"), at a comma
    never: it may stand in "King, Jr." or "Doe, Jane".
    """
    tags = [source.files[index].tags for index in order.files]
    told, doubts = _from_tags(tags)
    named = _from_name(source.name, told)
    known = Metadata()
    for witness in [*(metadata for _, metadata in source.evidence.metadata), told, named]:
        known = _filled_up(known, _cleaned(witness))
    if not known.title:
        known = replace(known, title=clean_title(source.name) or "Unknown Title")
    if not known.authors:
        doubts.append("No author was found in sidecars, tags or the folder's name.")
    return known, tuple(doubts)


def needs_metadata_json(metadata: Metadata) -> bool:
    """Whether Audiobookshelf would make other people of the authors or narrators than they are.

    It drops titles and suffixes ("Dr. Seuss", "King Jr."), names in quotes or brackets, splits at ``,``, ``&`` and "and",
    turns "Doe, Jane" round, and rewrites names that are all upper or all lower case.
    """
    return any(_mangled(name) for name in (*metadata.authors, *metadata.narrators))


def people(value: str) -> tuple[str, ...]:
    """Split several names in one value, where that is safe (see ``merge``); no name twice, none that means nobody."""
    names: list[str] = []
    for group in value.split(";"):
        pair = group.split(" & ")
        full = "," not in group and all(len(name.split()) > 1 for name in pair)
        names += pair if full else [group]
    first: dict[str, str] = {}
    for name in map(clean_text, names):
        first.setdefault(name.casefold(), name)
    return tuple(name for folded, name in first.items() if name and folded not in _NOBODY)


def _from_tags(tags: Sequence[FileTags]) -> tuple[Metadata, list[str]]:
    doubts = []
    albums = [one.album for one in tags if one.album and one.album.casefold() not in _NO_ALBUM]
    if len({album.casefold() for album in albums}) > 1:
        albums = [_without_disc(album) for album in albums]
    title = _most(albums)
    if not title and (len(tags) == 1 or _share([one.title for one in tags]) > SAME_SHARE):
        title = _most(one.title for one in tags)
    others = len(albums) - Counter(map(str.casefold, albums))[title.casefold()] if albums else 0
    if others:
        doubts.append(f"{others} of {len(tags)} files name another album than {title!r}.")
    authors = people(_most(one.album_artist for one in tags)) or people(_most(one.artist for one in tags))
    narrators = people(_most(one.narrator for one in tags))
    if not narrators:
        composers = people(_most(one.composer for one in tags))
        wrote = {name.casefold() for name in authors}
        narrators = tuple(name for name in composers if name.casefold() not in wrote)
    comments = [one.comment for one in tags]
    comment = _most(comments)
    shared = len(comment) >= _SHORTEST_DESCRIPTION and comments.count(comment) * 2 > len(comments)
    told = Metadata(
        title=title,
        subtitle=_most(one.subtitle for one in tags),
        authors=authors,
        narrators=narrators,
        series=_series(_most(one.series for one in tags), _most(one.series_part for one in tags)),
        genres=_genres(_most(one.genre for one in tags)),
        year=_most(_year(one.date) for one in tags),
        description=_most(one.description for one in tags) or (comment if shared else ""),
        publisher=_most(one.publisher for one in tags),
        language=_most(one.language for one in tags),
        asin=_most(one.asin for one in tags),
        isbn=_most(one.isbn for one in tags),
        copyright=_most(one.copyright for one in tags),
    )
    return told, doubts


def _without_disc(album: str) -> str:
    """Return an album without what only says which disc it is: "Emma (Disc 2)" is "Emma"."""
    stem = numbers.without_disc(album)
    if stem == numbers.words(album):
        return album
    # Cut where the words kept come to their end; the words themselves have lost case and punctuation.
    for end in range(1, len(album)):
        if numbers.words(album[:end]) == stem and not album[end].isalnum():
            return album[:end].rstrip(" -–,:([{")
    return album


def _series(name: str, part: str) -> tuple[SeriesEntry, ...]:
    """Read "A; B" with "1; 2", and "A #1; B #2.5"."""
    names = [clean_text(one) for one in name.split(";") if clean_text(one)]
    parts = [clean_text(one) for one in part.split(";")]
    if len(parts) != len(names):
        parts = [clean_text(part) if len(names) == 1 else ""] * len(names)
    entries = []
    for one, place in zip(names, parts, strict=True):
        read = _HASH_PLACE.fullmatch(one)
        if read and not place:
            entries.append(SeriesEntry(name=read["name"], part=read["part"]))
        else:
            entries.append(SeriesEntry(name=one, part=place))
    return tuple(entries)


def _genres(value: str) -> tuple[str, ...]:
    genres = [clean_text(genre) for genre in value.split(";")]
    return tuple(dict.fromkeys(genre for genre in genres if genre and genre.casefold() not in _ANY_BOOK))


def _year(text: str) -> str:
    found = _YEAR.search(text)
    return found[1] if found else ""


def _most(values: Iterable[str]) -> str:
    """Return what most say, the first of equals; the silent don't vote."""
    counts = Counter(value for value in values if value)
    return max(counts, key=lambda value: counts[value], default="")


def _share(values: Sequence[str]) -> float:
    common = _most(values)
    return sum(value == common for value in values) / len(values) if common else 0.0


def _from_name(name: str, told: Metadata) -> Metadata:
    """Read ``Author - Series 02 - 1999 - Title (1999) {Narrator} [ASIN]``, any part missing.

    What the tags told shows which part is which: without that, the first of several parts is the author.
    """
    text, found = _without_brackets(clean_title(numbers.stem(name)))
    parts = [part for part in (piece.strip() for piece in re.split(r"\s+[-–—]\s+", text)) if part]
    authors: tuple[str, ...] = ()
    series: list[SeriesEntry] = []
    year = found.year
    if len(parts) > 1:
        writers = {author.casefold() for author in told.authors}
        ends = [parts[0].casefold() in writers, parts[-1].casefold() in writers]
        reversed_order = ends == [False, True] or (not any(ends) and parts[0].casefold() == told.title.casefold() != "")
        if reversed_order:
            authors, parts = people(parts[-1]), parts[:-1]
        elif not (parts[0].isdecimal() or _SERIES_PLACE.fullmatch(parts[0]) or numbers.disc(numbers.words(parts[1]))):
            authors, parts = people(parts[0]), parts[1:]
    while len(parts) > 1:
        place = _SERIES_PLACE.fullmatch(parts[0])
        if _YEAR.fullmatch(parts[0]):
            year = year or parts[0]
        elif parts[0].isdecimal():
            pass  # a place in a series that isn't named
        elif place:
            if place["name"]:
                series.append(SeriesEntry(name=place["name"].strip(" ,-"), part=place["part"].lstrip("0") or "0"))
        else:
            break
        parts = parts[1:]
    return replace(found, title=" - ".join(parts), authors=authors, series=tuple(series[:1]), year=year)


def _without_brackets(text: str) -> tuple[str, Metadata]:
    found = Metadata()
    kept = text
    for match in _BRACKETED.finditer(text):
        inner = (match[1] or match[2] or match[3] or "").strip()
        reader, asin = _READ_BY.fullmatch(inner), _ASIN.fullmatch(inner)
        if match[3] is not None:
            found = replace(found, narrators=people(inner))
        elif reader:
            found = replace(found, narrators=people(reader[1]))
        elif asin and match[2] is not None:
            found = replace(found, asin=asin[1])
        elif _YEAR.fullmatch(inner):
            found = replace(found, year=inner)
        elif inner and not _TECHNICAL.fullmatch(inner):
            continue
        kept = kept.replace(match[0], " ", 1)
    return " ".join(kept.split()), found


def _cleaned(metadata: Metadata) -> Metadata:
    return replace(
        metadata,
        title=clean_text(metadata.title),
        authors=tuple(name for author in metadata.authors if (name := clean_text(author))),
        narrators=tuple(name for narrator in metadata.narrators if (name := clean_text(narrator))),
        year=_year(metadata.year),
    )


def _filled_up(known: Metadata, weaker: Metadata) -> Metadata:
    return Metadata(
        **{field.name: getattr(known, field.name) or getattr(weaker, field.name) for field in fields(Metadata)}
    )


def _mangled(name: str) -> bool:
    bare = [word.replace(".", "").casefold() for word in name.split()]
    return (
        any(sign in name for sign in ',&"“”[]()')
        or "and" in bare
        or any(word in _TITLES for word in bare)
        or any(word in _SUFFIXES for word in bare[1:])
        or any(word[:1] in "'‘’" and word[-1:] in "'‘’" for word in name.split())
        or (len(name) > 1 and name in {name.upper(), name.lower()} and name.upper() != name.lower())
    )
