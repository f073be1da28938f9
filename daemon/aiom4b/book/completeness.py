"""Is everything there? What the names and the numbering say of a book's files, before anything is read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from aiom4b.book import numbers
from aiom4b.book.numbers import Words, vocabulary
from aiom4b.book.order import natural, positions
from aiom4b.models import Incomplete, Order, SourceFile

_LITTER = frozenset(
    {
        *vocabulary("@eadir #recycle #snapshot @tmp @recycle @recently-snapshot @sharebin $recycle.bin recycler"),
        *vocabulary("lost+found __macosx thumbs.db ehthumbs.db desktop.ini"),
        "system volume information",
        "icon\r",
    }
)
_WORTHLESS = frozenset(
    {
        *vocabulary("@eadir .@__thumb thumbs.db ehthumbs.db desktop.ini .directory"),
        *vocabulary(".ds_store .appledouble .localized __macosx"),
        "icon\r",
    }
)
_BEING_WRITTEN = (
    *(".part", ".partial", ".tmp", ".temp", ".tempfile", ".crdownload", ".download", ".opdownload", ".filepart"),
    *(".!qb", ".!ut", ".bc!", ".aria2"),
)
_UNPACKING = ("_unpack_", "_failed_")  # SABnzbd's names for a folder it hasn't finished, or could not
_RSYNC = re.compile(r"\..+\.[A-Za-z0-9]{2,4}\.[A-Za-z0-9]{6}")
_LONGEST_JINGLE_SECONDS = 60
_MOST = 5000  # no book has more tracks: a total beyond is a mistake

_WAIT_OR_CHOOSE = (
    "Add what is missing, or wait for it; if the book is whole as it is, say so with --order names or --order tags."
)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is none of ours: what a NAS, an operating system or a share leaves around.

    Hidden names are litter, but not those of an unfinished copy (see ``is_temporary``), nor a title like ``...and Justice``.
    """
    if is_temporary(name):
        return False
    folded = name.casefold()
    hidden = name.startswith(".") and not name.startswith("...")
    return hidden or folded.startswith("~$") or folded in _LITTER


def is_worthless(name: str) -> bool:
    """Whether litter of this name may go with the folder that it lies in: thumbnails, indexes and views, made by systems.

    Other litter may be somebody's after all: a recycle bin, a snapshot, a hidden file of his own.
    """
    folded = name.casefold()
    return is_litter(name) and (folded in _WORTHLESS or folded.startswith("._"))


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is still being written, so that the whole entry must wait."""
    folded = name.casefold()
    return folded.endswith(_BEING_WRITTEN) or folded.startswith(_UNPACKING) or _RSYNC.fullmatch(name) is not None


def check(files: Sequence[SourceFile], order: Order | None, name: str) -> Incomplete | None:
    """Look for signs that files are missing or there twice; return the first found, the surest kinds first.

    Sure signs are a number skipped by track tags, disc tags, disc folders or numbered names, a total not reached, the same
    audio twice. A series may begin with any number (0, or 13 in the second half), and numbers that skip more than
    they count are no series. ``order`` (natural order where None) tells whether the names' numbers
    follow the book at all: if the tags put the files otherwise, they count something else.
    """
    found = _twice(files) or _discs(files) or _totals(files) or _tracks(files) or _numbered_names(files, order)
    if found is None:
        return None
    code, reason, remedy = found
    return Incomplete(path=name, code=code, reason=reason, remedy=remedy)


_Sign = tuple[str, str, str]


def _twice(files: Sequence[SourceFile]) -> _Sign | None:
    for file in files:
        if ".sync-conflict-" in file.path:
            return (
                "source.sync_conflict",
                f"{_shown(file.path)} is the copy of a conflict between two synchronised folders.",
                "Keep the right one of the two files and remove the other.",
            )
    by_content: dict[str, SourceFile] = {}
    by_name: dict[str, SourceFile] = {}
    for file in files:
        folder = file.path.rpartition("/")[0]
        key = f"{folder}/{numbers.stem(file.path)}".casefold()
        # One jingle may well open every disc.
        same = by_content.get(file.sha256) if file.audio.seconds > _LONGEST_JINGLE_SECONDS else None
        same = same or by_name.get(key)
        if same is not None:
            return (
                "source.duplicate_file",
                f"{_shown(same.path)} and {_shown(file.path)} are the same track twice.",
                "Remove one of them, or move it elsewhere.",
            )
        by_content[file.sha256] = by_name[key] = file
    return None


def _discs(files: Sequence[SourceFile]) -> _Sign | None:
    tags = [file.tags.disc for file in files]
    if None not in tags:
        totals = {file.tags.disc_total for file in files}
        missing = _absent({disc for disc in tags if disc is not None}, totals.pop() if len(totals) == 1 else None)
        if missing:
            return _missing_discs(missing, sorted({disc for disc in tags if disc is not None}), "disc tags")
    sets: dict[tuple[str, Words], dict[int, int | None]] = {}
    for folder, disc in numbers.disc_folders(file.path for file in files).items():
        sets.setdefault((folder.rpartition("/")[0], disc.stem), {})[disc.number] = disc.total
    for found in sets.values():
        totals = set(found.values())
        missing = _absent(set(found), totals.pop() if len(totals) == 1 else None)
        if missing:
            return _missing_discs(missing, sorted(found), "folders")
    return None


def _missing_discs(missing: Sequence[int], present: Sequence[int], witness: str) -> _Sign:
    return (
        "source.disc_missing",
        f"{_counted('disc', missing)} missing: by the {witness} there {_are(present)}.",
        _WAIT_OR_CHOOSE,
    )


def _absent(present: set[int], total: int | None) -> list[int]:
    """Return the numbers of a series that are not there; a total below the highest number is no total."""
    low, high = min(present), max(present)
    promised = total is not None and high <= total <= _MOST
    if promised and total is not None:
        low, high = min(low, 1), total
    elif high - low >= 2 * len(present):
        return []
    return [number for number in range(low, high + 1) if number not in present]


def _totals(files: Sequence[SourceFile]) -> _Sign | None:
    """A total counts the tracks of a disc, or of the book if it is the number of all files there are."""
    folders = numbers.disc_folders(file.path for file in files)
    by_disc: dict[tuple[int | None, str], list[SourceFile]] = {}
    for file in files:
        folder = file.path.rpartition("/")[0]
        by_disc.setdefault((file.tags.disc, folder if folder in folders else ""), []).append(file)
    for (disc, folder), members in by_disc.items():
        total = _agreed(file.tags.track_total for file in members)
        tracks = [file.tags.track or 0 for file in members]
        if total is not None and len(members) < total != len(files) and max(tracks) <= total <= _MOST:
            where = f"Disc {disc}" if disc is not None else _shown(folder)
            return _fewer(where if len(by_disc) > 1 else "The book", total, tracks)
    read = [numbers.part_of_total(numbers.words(numbers.stem(file.path))) for file in files]
    named = [pair for pair in read if pair is not None]
    parts = {part for part, _ in named}
    total = _agreed(pair and pair[1] for pair in read)
    if total is not None and len(parts) == len(files) < total and max(parts) <= total <= _MOST:
        return _fewer("By the file names the book", total, sorted(parts))
    return None


def _fewer(where: str, total: int, tracks: Sequence[int]) -> _Sign:
    missing = [number for number in range(1, total + 1) if number not in tracks]
    # Otherwise the tracks are not numbered well enough to say which ones.
    which = f"; {_counted('track', missing).lower()} missing" if len(tracks) + len(missing) == total else ""
    return (
        "source.tracks_fewer_than_total",
        f"{where} should have {total} tracks, but there {'is' if len(tracks) == 1 else 'are'} {len(tracks)}{which}.",
        _WAIT_OR_CHOOSE,
    )


def _agreed(totals: Iterable[int | None]) -> int | None:
    found = set(totals)
    return found.pop() if len(found) == 1 else None


def _tracks(files: Sequence[SourceFile]) -> _Sign | None:
    tagged = positions(files)
    if tagged is None:
        return None
    discs: dict[int, set[int]] = {}
    for disc, track in tagged:
        discs.setdefault(disc, set()).add(track)
    for disc, tracks in sorted(discs.items()):
        missing = _skipped(tracks)
        if missing:
            where = f" of disc {disc}" if len(discs) > 1 or disc > 1 else ""
            return (
                "source.track_missing",
                f"{_counted('track', missing, where)} missing: there {_are(sorted(tracks))}.",
                _WAIT_OR_CHOOSE,
            )
    ordered = [track for _, track in sorted(tagged)]
    if len(discs) > 1 and ordered == sorted(set(ordered)):
        missing = _skipped(set(ordered))
        if missing:
            return (
                "source.track_missing",
                f"{_counted('track', missing)} missing between two discs whose tracks are counted through.",
                _WAIT_OR_CHOOSE,
            )
    return None


def _skipped(present: set[int]) -> list[int]:
    """Return the numbers left out between the lowest and the highest; a jump to 201 or 1001 only begins a new disc."""
    missing: list[int] = []
    ordered = sorted(present)
    for before, after in pairwise(ordered):
        if after % 100 != 1:
            missing.extend(range(before + 1, min(after, before + 1 + _MOST)))
    return missing if len(missing) <= len(present) else []


def _numbered_names(files: Sequence[SourceFile], order: Order | None) -> _Sign | None:
    if _met(files):
        return None
    playing = [files[index].path for index in order.files] if order else natural([file.path for file in files])
    folders: dict[str, list[str]] = {}
    for path in playing:
        folders.setdefault(path.rpartition("/")[0], []).append(numbers.stem(path))
    for folder, stems in folders.items():
        rows = numbers.in_digits(stems)
        # A prologue without a number doesn't make the others less of a series.
        missing = _series_gap([rows[stem] for stem in stems if any(map(str.isdecimal, rows[stem]))])
        if missing:
            where = f" in {_shown(folder)}" if folder else ""
            return (
                "source.track_missing",
                f"{_counted('number', missing, where)} missing from the file names, which count the rest.",
                _WAIT_OR_CHOOSE,
            )
    return None


def _met(files: Sequence[SourceFile]) -> bool:
    """Whether the tags count 1 to their own total: then names that skip a number have another reason to."""
    tagged = positions(files)
    if tagged is None or len({disc for disc, _ in tagged}) > 1:
        return False
    total = _agreed(file.tags.track_total for file in files)
    return total == len(files) and sorted(track for _, track in tagged) == list(range(1, len(files) + 1))


def _series_gap(rows: Sequence[Words]) -> list[int]:
    """Find the first number in which sibling names differ, and what it leaves out; then look within equal numbers.

    ``01-02 Title`` covers both its numbers. Years and other numbers over 999 are no numbering, nor is one
    that doesn't rise with the book.
    """
    place = len(numbers.common_start(rows))
    counted: dict[int, list[Words]] = {}
    sequence = []
    for row in rows:
        value = numbers.number(row[place]) if place < len(row) else None
        if value is None or value > 999:
            return []
        counted.setdefault(value, []).append(row)
        sequence.append(value)
    if len(counted) < 2 or sequence != sorted(sequence):
        return []
    covered = set(counted) | {extra for value, members in counted.items() for extra in _range(value, members, place)}
    missing = _skipped(covered)
    if missing:
        return missing
    for members in counted.values():
        inner = _series_gap(members) if len(members) > 2 else []
        if inner:
            return inner
    return []


def _range(value: int, members: Sequence[Words], place: int) -> Iterable[int]:
    for row in members:
        end = numbers.number(row[place + 1]) if place + 1 < len(row) else None
        if end is not None and value < end <= value + 3:
            yield from range(value, end + 1)


def _counted(noun: str, missing: Sequence[int], where: str = "") -> str:
    plural = len(missing) > 1
    return f"{noun.capitalize()}{'s' if plural else ''} {_listed(missing)}{where} {'are' if plural else 'is'}"


def _are(present: Sequence[int]) -> str:
    return f"{'are' if len(present) > 1 else 'is'} {_listed(present)}"


def _listed(values: Sequence[int]) -> str:
    """Write numbers as a person would: "1, 2 and 4", long rows as "1 to 40"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    shown = [
        text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 3 else [str(value) for value in run])
    ]
    if len(shown) > 10:
        shown = [*shown[:9], f"{len(shown) - 9} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _shown(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
