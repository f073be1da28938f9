"""Which of the files in one dropped folder belong to one book?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiom4b.book import numbers
from aiom4b.book.numbers import Counts, Disc, Words
from aiom4b.book.order import natural
from aiom4b.models import Codec, SourceFile

_NO_ALBUMS: frozenset[Words] = frozenset(
    {(), ("unknown", "album"), ("unknown",), ("audiobook",), ("audiobooks",), ("hörbuch",)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What counts of one file here: its album without disc numbers, () if it names none, and whether it is a finished book."""

    album: Words
    finished: bool


_Files = Mapping[str, _Look]
_Label = tuple[bool, Words | str]


def books(files: Sequence[SourceFile]) -> tuple[tuple[int, ...], ...]:
    """Return the books as indexes into ``files``, books and their files in natural order; every file is in exactly one.

    - A folder without sub-folders is one book. Only finished books in it (AAC named ``.m4b``) stand for themselves: they
      never join MP3s beside them, which they may well have been made of, and are told apart by their albums if all have one.
    - What Audible locked is a book by itself, each file: two parts of a play may be two works, and as AAX and as AAXC one
      title would play twice. Whoever knows better merges them.
    - Sub-folders are one book if their albums are the same (disc numbers aside), or if their names count discs or parts of
      the same thing: ``CD1``, ``Emma - Disc 2``, ``Teil 3``, ``04``. Discs stay together whatever their albums say (each
      was looked up for itself); parts and bare numbers don't if every one has an album of its own.
    - Other sub-folders are looked at one by one, each a book or a folder of books.
    - Beside such discs or parts, loose files and sub-folders (``Epilogue``) without any album belong to them: half a book
      would be worse than a question about its order. With an album they belong to the book of that album,
      otherwise they are a book of their own.
    """
    index = {file.path: place for place, file in enumerate(files)}
    albums = {album: numbers.without_disc(album) for album in {file.tags.album for file in files}}
    looks = {
        file.path: _Look(
            album=() if albums[file.tags.album] in _NO_ALBUMS else albums[file.tags.album],
            finished=file.audio.codec is Codec.AAC and file.path.casefold().endswith(".m4b"),
        )
        if file.audio.lock is None
        else _Look(album=(file.path,), finished=True)
        for file in files
    }
    groups = [natural(group) for group in _books_in("", natural(looks), looks)]
    by_first = {group[0]: group for group in groups}
    return tuple(tuple(index[path] for path in by_first[first]) for first in natural(by_first))


def _books_in(prefix: str, paths: Sequence[str], files: _Files) -> list[list[str]]:
    loose: list[str] = []
    inside: dict[str, list[str]] = {}
    for path in paths:
        name, slash, _ = path.removeprefix(prefix).partition("/")
        if slash:
            inside.setdefault(name, []).append(path)
        else:
            loose.append(path)
    beside = _flat(loose, files)
    groups: list[list[str]] = []
    for label, names in _sets(inside, files).items():
        members = [path for name in names for path in inside[name]]
        guests = [group for group in beside if _joins(group, members, files, counted=label == (True, ()))]
        beside = [group for group in beside if group not in guests]
        if guests or len(names) > 1:
            groups.append([*members, *(path for group in guests for path in group)])
        else:
            groups += _books_in(f"{prefix}{names[0]}/", members, files)
    return groups + beside


def _flat(paths: Sequence[str], files: _Files) -> list[list[str]]:
    finished = [path for path in paths if files[path].finished]
    raw = [path for path in paths if not files[path].finished]
    albums: dict[Words, list[str]] = {}
    for path in finished:
        albums.setdefault(files[path].album, []).append(path)
    told_apart = [finished] if () in albums else list(albums.values())
    return [group for group in [raw, *told_apart] if group]


def _sets(inside: Mapping[str, Sequence[str]], files: _Files) -> dict[_Label, list[str]]:
    """Sort sub-folders into sets that are one book each. A label is (True, what they count parts of) or (False, name)."""
    labels = _labels(inside, files)
    by_album: dict[Words, _Label] = {}
    same: dict[_Label, _Label] = {}
    for label in sorted(
        dict.fromkeys(labels.values()), key=lambda label: not label[0]
    ):  # an album's discs name its set
        album = _album([path for name in inside if labels[name] == label for path in inside[name]], files)
        if album:
            same[label] = by_album.setdefault(album, label)
        else:
            same[label] = label
    discs = same.get((True, ()))
    found: dict[_Label, list[str]] = {}
    for name, label in labels.items():
        silent = not any(files[path].album for path in inside[name])
        home = discs if silent and discs is not None and not label[0] else same[label]
        found.setdefault(home, []).append(name)
    return found


def _labels(inside: Mapping[str, Sequence[str]], files: _Files) -> dict[str, _Label]:
    labels: dict[str, _Label] = {name: (False, name) for name in inside}
    peers: dict[Words, dict[str, Disc]] = {}
    for name, row in numbers.in_digits(inside).items():
        disc = numbers.disc(row)
        if disc is not None:
            peers.setdefault(disc.stem, {})[name] = disc
    for stem, discs in peers.items():
        certain = any(disc.counts is Counts.DISCS for disc in discs.values())
        albums = [_album(inside[name], files) for name in discs]
        own_albums = len(discs) > 1 and () not in albums and len(set(albums)) == len(albums)
        if certain or not own_albums:
            labels.update(dict.fromkeys(discs, (True, stem)))
    return labels


def _joins(group: Sequence[str], members: Sequence[str], files: _Files, *, counted: bool) -> bool:
    if files[group[0]].finished != files[members[0]].finished:
        return False
    if any(files[path].album for path in group):
        album = _album(group, files)
        return bool(album) and album == _album(members, files)
    return counted


def _album(paths: Sequence[str], files: _Files) -> Words:
    """Return the one album that these files name (some may be silent), or () if there is none or several."""
    albums = {files[path].album for path in paths} - {()}
    return albums.pop() if len(albums) == 1 else ()
