"""Which numbers do the names of files and folders carry, and what do they count?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

Words = tuple[str, ...]
"""A name cut into lower-case words; a run of digits is a word of its own."""

_SUFFIX = re.compile(r"\.(?:mp[a1234]|mpga|m4[abp]|aac|aaxc?)$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015.,;:()\[\]{}#+~&!'\"\u2018-\u201d\u00b7]+")
_DIGITS = re.compile(r"(\d+)")


def vocabulary(text: str) -> frozenset[str]:
    """Return the words of a list written with spaces."""
    return frozenset(text.split())


_DISC_WORDS = vocabulary("cd disc disk disque disco dvd mc tape cassette kassette side seite диск")
_PART_WORDS = vocabulary("part pt parte partie teil deel del część часть")
_VOLUME_WORDS = vocabulary("book buch livre libro vol volume band tome")
_COUNTING_WORDS = (
    _DISC_WORDS
    | _PART_WORDS
    | vocabulary("chapter chap ch kapitel kap chapitre capítulo capitolo hoofdstuk rozdział глава")
    | vocabulary("track titel episode folge act akt file section")
    | _VOLUME_WORDS
)
_OF = vocabulary("of von de di sur van av z из")

_UP_TO_NINETEEN = (
    "one/eins two/zwei three/drei four/vier five/fünf six/sechs seven/sieben eight/acht nine/neun ten/zehn eleven/elf "
    "twelve/zwölf thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_BY_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: value for value, names in enumerate(_UP_TO_NINETEEN.split(), start=1) for word in names.split("/")}
_TENS = {word: 10 * value for value, word in enumerate(_BY_TENS.split(), start=2)}
# Only letters that small numbers need: with D and M, "CD", "DC" or "MD" would be numerals.
_ROMAN = re.compile(r"(?=.)(?:x[cl]|l?x{0,3})(?:i[xv]|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


class Counts(StrEnum):
    """What the number of a folder counts: discs for certain, parts of something, or whatever a bare number means."""

    DISCS = "discs"
    PARTS = "parts"
    BARE = "bare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disc:
    """A folder's (or album's) name read as one of a set: ``stem`` is what comes before the word, "" for plain ``CD 2``."""

    stem: Words
    number: int
    total: int | None
    counts: Counts


def stem(path: str) -> str:
    """Return the last component of ``path`` without an audio file's suffix."""
    return _SUFFIX.sub("", path.rpartition("/")[2])


def words(name: str) -> Words:
    """Cut a name into words: any case, any width of digits, any separator."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return tuple(_DIGITS.sub(r" \1 ", _SEPARATORS.sub(" ", text)).split())


def number(word: str) -> int | None:
    """Return the value of a word of digits."""
    return int(word) if word.isdecimal() else None


def in_digits(names: Collection[str]) -> dict[str, Words]:
    """Cut sibling names into words, numbers that are written as numerals or words turned into digits.

    Siblings vouch for each other, since "Side C" is no hundred and "I" is mostly a pronoun: what follows a counting word is
    converted only if it is a number after that word in all of them (``Part I``, ``Part IV``; ``Chapter Twenty-One``), a bare
    Roman numeral only if the siblings differ there and together count 1, 2, … n (``I``, ``II``, ``III``).
    """
    cut = {name: words(name) for name in names}
    followers: dict[str, list[bool]] = {}
    for row in cut.values():
        for place, word in enumerate(row[:-1]):
            if word in _COUNTING_WORDS:
                followers.setdefault(word, []).append(_spelled(row, place + 1) is not None)
    vouched = {word for word, numeric in followers.items() if all(numeric)}
    cut = {name: _converted(row, vouched) for name, row in cut.items()}
    place = len(common_start(cut.values()))
    numerals = [_roman(row[place]) if place < len(row) else None for row in cut.values()]
    known = sorted(value for value in numerals if value is not None)
    if len(numerals) > 1 and known == list(range(1, len(numerals) + 1)):
        cut = {
            name: (*row[:place], str(value), *row[place + 1 :])
            for (name, row), value in zip(cut.items(), numerals, strict=True)
        }
    return cut


def common_start(rows: Iterable[Words]) -> Words:
    """Return the words that all rows begin with."""
    columns = zip(*rows, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def disc(row: Words) -> Disc | None:
    """Read a name as one of a set of discs or parts: ``CD1``, ``Title - Disc 2 of 3``, ``Teil 3``, ``07``."""
    for among, counts in ((_DISC_WORDS, Counts.DISCS), (_PART_WORDS, Counts.PARTS)):
        for place, word in enumerate(row[:-1]):
            value = number(row[place + 1])
            if word in among and value is not None:
                return Disc(stem=row[:place], number=value, total=_total(row[place + 2 :]), counts=counts)
    if row:
        value = number(row[0])
        total = _total(row[1:])
        if value is not None and value < 1000 and (len(row) == 1 or (total is not None and len(row) == 3)):
            return Disc(stem=(), number=value, total=total, counts=Counts.BARE)
    return None


def disc_folders(paths: Iterable[str]) -> dict[str, Disc]:
    """Return the folders of these files (by their whole path) whose own names count discs or parts."""
    by_parent: dict[str, set[str]] = {}
    for folder in {path.rpartition("/")[0] for path in paths} - {""}:
        parent, _, name = folder.rpartition("/")
        by_parent.setdefault(parent, set()).add(name)
    found = {}
    for parent, names in by_parent.items():
        for name, row in in_digits(names).items():
            read = disc(row)
            if read is not None:
                found[f"{parent}/{name}" if parent else name] = read
    return found


def part_of_total(row: Words) -> tuple[int, int] | None:
    """Return (3, 12) where a name says ``3 of 12``, and not of the volumes of a series."""
    for place, word in enumerate(row):
        value = number(word)
        total = _total(row[place + 1 :])
        volume = place > 0 and row[place - 1] in _VOLUME_WORDS
        if value is not None and total is not None and not volume:
            return value, total
    return None


def without_disc(name: str) -> Words:
    """Return an album's words without its disc or part: "Emma (Disc 2)" and "Emma, CD 3" are one album."""
    row = in_digits([name])[name]
    read = disc(row)
    return read.stem if read is not None and read.stem else row


def _total(after: Words) -> int | None:
    if len(after) > 1 and after[0] in _OF:
        return number(after[1])
    return None


def _converted(row: Words, vouched: Collection[str]) -> Words:
    out: list[str] = []
    place = 0
    while place < len(row):
        after_count = place > 0 and row[place - 1] in vouched
        after_of = len(out) > 1 and out[-1] in _OF and out[-2].isdecimal()
        spelled = _spelled(row, place) if after_count or after_of else None
        if spelled is None:
            out.append(row[place])
            place += 1
        else:
            out.append(str(spelled[0]))
            place += spelled[1]
    return tuple(out)


def _spelled(row: Sequence[str], place: int) -> tuple[int, int] | None:
    """Read a number in digits, numerals or words; return its value and how many words it took."""
    word = row[place]
    value = number(word)
    if value is not None:
        return value, 1
    if word in _TENS:
        unit = _UNITS.get(row[place + 1], 10) if place + 1 < len(row) else 10
        return (_TENS[word] + unit, 2) if unit < 10 else (_TENS[word], 1)
    value = _UNITS.get(word) or _roman(word)
    return None if value is None else (value, 1)


def _roman(word: str) -> int | None:
    if not _ROMAN.fullmatch(word):
        return None
    values = [_ROMAN_VALUES[letter] for letter in word]
    return sum(
        -value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True)
    )
