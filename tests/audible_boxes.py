"""How is an MP4 written anew? Its boxes, another brand, the movie box first or last, and where that puts every sample."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

# How many bytes stand before the boxes inside.
_CONTAINERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8, b"mp4a": 28}


@dataclass
class Box:
    """One box: its content, or what stands before the boxes in it."""

    kind: bytes
    data: bytes
    kids: list[Box] | None = None

    def written(self) -> bytes:
        return box(self.kind, self.data + b"".join(kid.written() for kid in self.kids or ()))

    def at(self, *path: bytes) -> Box:
        found = self
        for kind in path:
            found = next(kid for kid in found.kids or () if kid.kind == kind)
        return found

    def has(self, kind: bytes) -> bool:
        return any(kid.kind == kind for kid in self.kids or ())


@dataclass
class _Place:
    """Where a box of a file stands, and what it is."""

    kind: bytes
    start: int
    size: int
    header: int


def box(kind: bytes, content: bytes, *, wide: bool = False) -> bytes:
    """Return a box as it stands in a file; ``wide`` with a size of 64 bits."""
    return _head(kind, len(content), wide=wide) + content


def _head(kind: bytes, length: int, *, wide: bool = False) -> bytes:
    if wide or length + 8 > 0xFFFFFFFF:
        return struct.pack(">I4sQ", 1, kind, length + 16)
    return struct.pack(">I4s", length + 8, kind)


def top_boxes(path: str | Path) -> list[tuple[bytes, int, int]]:
    """Return kind, offset and size of the boxes of a whole file."""
    return [(place.kind, place.start, place.size) for place in _places(Path(path))]


def _places(path: Path) -> list[_Place]:
    found, position, end = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while position < end:
            file.seek(position)
            size, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            header = 16 if size == 1 else 8
            size = large if size == 1 else size or end - position
            assert header <= size <= end - position, f"{kind!r} at {position} of {path} runs past its end"
            found.append(_Place(kind, position, size, header))
            position += size
    return found


def tree(kind: bytes, content: bytes) -> Box:
    """Return a box with all boxes in it, as far as the description of its sound."""
    if kind not in _CONTAINERS:
        return Box(kind, content)
    before = _CONTAINERS[kind]
    made, position = Box(kind, content[:before], []), before
    assert made.kids is not None
    while position < len(content):
        size, inner = struct.unpack_from(">I4s", content, position)
        made.kids.append(tree(inner, content[position + 8 : position + size]))
        position += size
    return made


def rewrite(
    source: Path,
    target: Path,
    brand: bytes,
    minor: int = 512,
    edit: Callable[[Box], None] = lambda _: None,
    *,
    moov_last: bool,
    wide: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write a file anew with another brand, its movie box first or last; returns where its audio samples are, and their sizes."""
    places = _places(source)
    media = next(place for place in places if place.kind == b"mdat")
    movie = next(place for place in places if place.kind == b"moov")
    with source.open("rb") as file, target.open("wb") as out:
        file.seek(movie.start + movie.header)
        moov = tree(b"moov", file.read(movie.size - movie.header))
        tables = [track.at(b"mdia", b"minf", b"stbl") for track in moov.kids or () if track.kind == b"trak"]
        audio = next(table for table in tables if table.at(b"stsd").has(b"mp4a"))
        edit(audio.at(b"stsd", b"mp4a"))
        length = media.size - media.header
        ftyp = box(b"ftyp", brand + struct.pack(">I", minor) + brand + b"M4B mp42isom")
        _move(tables, 0, wide=wide)  # so that the movie box has its final size
        head = _head(b"mdat", length, wide=wide)
        start = len(ftyp) + (0 if moov_last else len(moov.written())) + len(head)
        _move(tables, start - (media.start + media.header), wide=wide)
        out.write(ftyp)
        if not moov_last:
            out.write(moov.written())
        out.write(head)
        file.seek(media.start + media.header)
        _copy(file, out, length)
        if moov_last:
            out.write(moov.written())
    return _samples(audio)


def _copy(file: IO[bytes], out: IO[bytes], length: int) -> None:
    while length:
        piece = file.read(min(length, 1 << 22))
        assert piece
        out.write(piece)
        length -= len(piece)


def _move(tables: Sequence[Box], by: int, *, wide: bool) -> None:
    for table in tables:
        offsets = next(kid for kid in table.kids or () if kid.kind in {b"stco", b"co64"})
        moved = _chunks(table) + by
        offsets.kind = b"co64" if wide or int(moved.max(initial=0)) > 0xFFFFFFFF else b"stco"
        offsets.data = offsets.data[:8] + moved.astype(">u8" if offsets.kind == b"co64" else ">u4").tobytes()


def _chunks(table: Box) -> NDArray[np.int64]:
    narrow = table.has(b"stco")
    offsets = table.at(b"stco" if narrow else b"co64")
    return np.frombuffer(offsets.data, ">u4" if narrow else ">u8", offset=8).astype(np.int64)


def _samples(table: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    chunks = _chunks(table)
    same, count = struct.unpack_from(">II", table.at(b"stsz").data, 4)
    sizes = np.full(count, same) if same else np.frombuffer(table.at(b"stsz").data, ">u4", offset=12)
    sizes = sizes.astype(np.int64)
    runs = np.frombuffer(table.at(b"stsc").data, ">u4", offset=8).reshape(-1, 3).astype(np.int64)
    each = np.repeat(runs[:, 1], np.diff(np.append(runs[:, 0] - 1, len(chunks))))  # samples in each chunk
    assert each.sum() == count
    first = np.cumsum(each) - each
    before = np.cumsum(sizes) - sizes
    return np.repeat(chunks - before[first], each) + before, sizes
