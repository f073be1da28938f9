"""In which order do the files of a book play, and what says so?"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from natsort import natsort_keygen

from aiom4b.book import numbers
from aiom4b.book.numbers import Words, vocabulary
from aiom4b.errors import NeedsAttention
from aiom4b.models import Order, OrderChoice, SourceFile

_natural_key = natsort_keygen()

_OPENINGS = vocabulary("prologue prolog intro introduction foreword preface vorwort einleitung opening")
_CLOSINGS = vocabulary("epilogue epilog outro afterword nachwort closing")


def natural(paths: Iterable[str]) -> list[str]:
    """Sort relative paths as a person would: folder by folder, then name by name, numbers by their value.

    ``CD 10`` comes after ``cd2``, full-width digits count, and so do ``Part IV`` and ``Chapter Twelve`` where all siblings
    are counted like that (see ``numbers.in_digits``). The order is total: what remains equal is sorted by code points.
    """
    wanted = list(paths)
    rows = _rows(wanted)
    return sorted(wanted, key=lambda path: (tuple(_natural_key(" ".join(row)) for row in rows[path]), path))


def positions(files: Sequence[SourceFile]) -> tuple[tuple[int, int], ...] | None:
    """Return each file's (disc, track) by the tags, or None if they are missing or say the same of two files.

    Where tracks restart on each disc without disc tags to tell them apart, the disc sub-folder's number takes their place;
    disc 0 stands for "no discs at all".
    """
    tracks = [file.tags.track for file in files]
    discs = [file.tags.disc for file in files]
    tagged = _unique(discs if None not in discs else [0] * len(files), tracks)
    if tagged is not None:
        return tagged
    folders = numbers.disc_folders(file.path for file in files)
    counted = [folders.get(file.path.rpartition("/")[0]) for file in files]
    return _unique([None if disc is None else disc.number for disc in counted], tracks)


def decide_order(
    files: Sequence[SourceFile], playlists: Sequence[tuple[str, tuple[str, ...]]], choice: OrderChoice | tuple[str, ...]
) -> Order:
    """Hear the witnesses: track tags, playlists, names. Those that are usable must agree.

    Tags are usable when every file has a (disc, track) of its own, a playlist when it names every file exactly once, names
    when neighbours differ first in a number. Names without numbers decide only where nobody else speaks.

    Raises NeedsAttention ``order.contradiction`` (two usable witnesses disagree), ``order.unclear`` (folders or loose files
    beside folders that nothing puts in order), ``order.tags_unusable`` (``choice`` is TAGS and they can't decide), and
    ``order.not_these`` (``choice`` is a list that doesn't name every file exactly once).
    """
    if isinstance(choice, tuple):
        return _as_listed(files, choice)
    tags = positions(files)
    names = _by_names(files)
    if choice is OrderChoice.NAMES:
        return Order(files=names.sequence, evidence="names, as asked for")
    if choice is OrderChoice.TAGS:
        if tags is None:
            raise NeedsAttention(
                "order.tags_unusable",
                "The track tags can't tell the order: a file has none, or two files have the same.",
                remedy="Use --order names, or mend the track tags.",
            )
        return Order(files=_by_tags(tags), evidence="track tags, as asked for")
    if len(files) == 1:
        return Order(files=(0,), evidence="a single file")
    witnesses = [_Witness(name="track tags", sequence=_by_tags(tags))] if tags is not None else []
    witnesses += [
        _Witness(name=origin, sequence=sequence)
        for origin, listed in playlists
        if (sequence := _by_playlist(files, listed)) is not None
    ]
    if names.numbered:
        witnesses.append(_Witness(name="names", sequence=names.sequence))
    if not witnesses:
        if names.unclear:
            raise _unclear(files, names.sequence)
        return Order(files=names.sequence, evidence=names.evidence)
    for other in witnesses[1:]:
        if other.sequence != witnesses[0].sequence:
            raise _contradiction(files, witnesses[0], other, tags_usable=tags is not None)
    agreed = [witness.name for witness in witnesses]
    if not names.numbered and names.sequence == witnesses[0].sequence:
        agreed.append("names")
    if len(agreed) == 1:
        return Order(files=witnesses[0].sequence, evidence=f"{agreed[0]} alone")
    return Order(files=witnesses[0].sequence, evidence=f"{', '.join(agreed[:-1])} and {agreed[-1]} agree")


def _as_listed(files: Sequence[SourceFile], listed: tuple[str, ...]) -> Order:
    places = {file.path: index for index, file in enumerate(files)}
    if sorted(listed) != sorted(places):
        odd = sorted(set(listed) ^ set(places)) or sorted({path for path in listed if listed.count(path) > 1})
        raise NeedsAttention(
            "order.not_these",
            f"The order that was given doesn't name each of the {len(files)} files once; the first that is missing, unknown or"
            f" there twice is {_shown(odd[0])}.",
            remedy="Name every audio file of the book once, relative to its folder, in playing order.",
        )
    return Order(files=tuple(places[path] for path in listed), evidence="as listed by its owner")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Witness:
    name: str
    sequence: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """What the names say. ``unclear``: whole folders would be put in order by the alphabet alone."""

    sequence: tuple[int, ...]
    numbered: bool
    unclear: bool
    evidence: str


def _rows(paths: Collection[str]) -> dict[str, tuple[Words, ...]]:
    """Cut each path into the words of its components; the files and the folders of one folder are siblings."""
    siblings: dict[tuple[str, bool], set[str]] = {}
    for path in paths:
        for parent, name, is_file in _components(path):
            siblings.setdefault((parent, is_file), set()).add(name)
    cut = {key: numbers.in_digits(names) for key, names in siblings.items()}
    return {
        path: tuple(cut[parent, is_file][name] for parent, name, is_file in _components(path)) for path in set(paths)
    }


def _components(path: str) -> list[tuple[str, str, bool]]:
    names = path.split("/")
    inner = [("/".join(names[:depth]), name, False) for depth, name in enumerate(names[:-1])]
    return [*inner, ("/".join(names[:-1]), numbers.stem(path), True)]


def _unique(discs: Sequence[int | None], tracks: Sequence[int | None]) -> tuple[tuple[int, int], ...] | None:
    pairs = [(disc, track) for disc, track in zip(discs, tracks, strict=True) if disc is not None and track is not None]
    return tuple(pairs) if len(set(pairs)) == len(tracks) else None


def _by_tags(tags: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted(range(len(tags)), key=lambda index: tags[index]))


def _by_playlist(files: Sequence[SourceFile], listed: Sequence[str]) -> tuple[int, ...] | None:
    """Match by path, whatever case and normal form the playlist is written in; None unless it is one to one."""
    places: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        places.setdefault(_folded(file.path), []).append(index)
    found = [places.get(_folded(name), []) for name in listed]
    if any(len(matches) != 1 for matches in found):
        return None
    sequence = tuple(matches[0] for matches in found)
    return sequence if len(sequence) == len(set(sequence)) == len(files) else None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.removeprefix("./")).casefold()


def _by_names(files: Sequence[SourceFile]) -> _Names:
    index = {file.path: place for place, file in enumerate(files)}
    rows = _rows([file.path for file in files])
    paths = natural(index)
    if all(_differ_in_a_number(rows[one], rows[other]) for one, other in pairwise(paths)):
        return _Names(sequence=tuple(index[path] for path in paths), numbered=True, unclear=False, evidence="names")
    start = len(numbers.common_start([rows[path][-1] for path in paths if "/" not in path]))
    loose = {path: rows[path][-1][start:] for path in paths if "/" not in path}
    first = [path for path, row in loose.items() if len(row) == 1 and row[0] in _OPENINGS]
    last = [path for path, row in loose.items() if len(row) == 1 and row[0] in _CLOSINGS]
    middle = [path for path in paths if path not in {*first, *last}]
    # Two openings ("Foreword", "Prologue") would need a guess between them.
    framed = len(first) <= 1 and len(last) <= 1 and len(middle) < len(paths)
    if framed and all(_differ_in_a_number(rows[one], rows[other]) for one, other in pairwise(middle)):
        return _Names(
            sequence=tuple(index[path] for path in [*first, *middle, *last]),
            numbered=False,
            unclear=False,
            evidence="names alone, the opening first and the closing last",
        )
    return _Names(
        sequence=tuple(index[path] for path in paths),
        numbered=False,
        unclear=any(_folders_by_alphabet(rows[one], rows[other]) for one, other in pairwise(paths)),
        evidence="names alone, by the alphabet where they hold no numbers",
    )


def _first_difference(one: tuple[Words, ...], other: tuple[Words, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _differ_in_a_number(one: tuple[Words, ...], other: tuple[Words, ...]) -> bool:
    place = _first_difference(one, other)
    if place >= min(len(one), len(other)) or (place == len(one) - 1) != (place == len(other) - 1):
        return False
    for left, right in zip(one[place], other[place], strict=False):
        if left != right:
            values = numbers.number(left), numbers.number(right)
            if None in values:
                return False
            if values[0] != values[1]:
                return True
    return False


def _folders_by_alphabet(one: tuple[Words, ...], other: tuple[Words, ...]) -> bool:
    place = _first_difference(one, other)
    inside_one_folder = place >= len(one) - 1 and place >= len(other) - 1
    return not inside_one_folder and not _differ_in_a_number(one, other)


def _unclear(files: Sequence[SourceFile], sequence: Sequence[int]) -> NeedsAttention:
    shown = ", ".join(dict.fromkeys(_shown(files[index].path.partition("/")[0]) for index in sequence))
    return NeedsAttention(
        "order.unclear",
        f"Nothing but the alphabet puts these in order: {_cut(shown, 400)}.",
        remedy="Use --order names if this order is right; otherwise number the names, or add a playlist.",
    )


def _contradiction(files: Sequence[SourceFile], one: _Witness, other: _Witness, *, tags_usable: bool) -> NeedsAttention:
    """Show where two orders part, in a few lines."""
    places = [place for place, pair in enumerate(zip(one.sequence, other.sequence, strict=True)) if pair[0] != pair[1]]
    lines = [
        f"  place {place + 1}: {_shown(files[one.sequence[place]].path)} | {_shown(files[other.sequence[place]].path)}"
        for place in places[:4]
    ]
    if len(places) > len(lines):
        lines.append(f"  and {len(places) - len(lines)} more places")
    tags = "--order tags to follow the track tags" if tags_usable else "--order tags (after mending the track tags)"
    return NeedsAttention(
        "order.contradiction",
        "\n".join([f"{one.name} | {other.name} put the files in different orders:", *lines]),
        remedy=f"Use --order names to follow the names, or {tags}.",
    )


def _shown(path: str) -> str:
    return _cut(path.encode("utf-8", "replace").decode(), 120)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
