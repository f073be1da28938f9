"""Which bytes of a file are tags, and are they small enough to be parsed?

mutagen never sees a source itself: it is given these bytes, measured first. So a disk that fails is not taken for a bad
tag, and a hostile tag can't ask for more memory or time than the limits here allow.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

ID3_LIMIT = 32 << 20
APE_LIMIT = 256 << 10
"""mutagen reads the keys of APEv2 byte by byte, in time that grows with the square of a broken key's length."""
ILST_LIMIT = 32 << 20
ITEM_LIMIT = 4096
"""Most frames or atoms of one tag: an honest book of 1,500 chapters stays below it."""
INFLATED_LIMIT = 16 << 20
_V1 = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The bytes of one tag as mutagen can read them, or why it doesn't get them; neither when there is no such tag."""

    data: bytes = b""
    warning: str = ""


def id3(descriptor: int) -> Region:
    """Return the ID3v2 tag at the file's start, cut tags filled up with zeros. Raises OSError."""
    head = os.pread(descriptor, 10, 0)
    if len(head) < 10 or head[:3] != b"ID3":
        return Region()
    size = _synchsafe(head[6:10])
    if size > ID3_LIMIT:
        return Region(warning=f"The ID3 tag is {size >> 20} MiB long and was not read.")
    body = os.pread(descriptor, size, 10)
    if reason := _excess(head[3], body):
        return Region(warning=f"The ID3 tag {reason} and was not read.")
    cut = "The ID3 tag is longer than the file." if len(body) < size else ""
    return Region(data=head + body.ljust(size, b"\0"), warning=cut)


def id3v1(descriptor: int) -> Region:
    """Return the 128 bytes of an ID3v1 tag at the file's end. Raises OSError."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _V1, max(0, size - _V1))
    return Region(data=tail) if len(tail) == _V1 and tail[:3] == b"TAG" else Region()


def ape(descriptor: int) -> Region:
    """Return the APEv2 tag at the file's end, before an ID3v1 tag too, up to its footer's end. Raises OSError."""
    size = os.fstat(descriptor).st_size
    for end in (size, size - _V1):
        footer = os.pread(descriptor, 32, end - 32) if end >= 32 else b""
        if footer[:8] == b"APETAGEX":
            length, items = struct.unpack("<II", footer[12:20])
            if length > APE_LIMIT or items > ITEM_LIMIT:
                return Region(warning=f"The APE tag is too large ({length >> 10} KiB, {items} items) and was not read.")
            start = max(0, end - length - 32)  # the header, if there is one, is not counted in the length
            return Region(data=os.pread(descriptor, end - start, start))
    return Region()


def ilst(descriptor: int) -> Region:
    """Return a tiny MP4 around the file's iTunes metadata list. Raises OSError."""
    start, end = 0, os.fstat(descriptor).st_size
    for name, skip in ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0)):
        for index, (kind, inside, after) in enumerate(_atoms(descriptor, start, end)):
            if index >= ITEM_LIMIT:
                return Region(warning="The file has too many atoms; its tags were not read.")
            if kind == name:
                start, end = inside + skip, after
                break
        else:
            return Region()
    if end - start > ILST_LIMIT:
        return Region(warning=f"The tags are {(end - start) >> 20} MiB long and were not read.")
    if sum(1 for _ in _atoms(descriptor, start, end)) > ITEM_LIMIT:
        return Region(warning="There are too many tags; they were not read.")
    data = _atom(b"ilst", os.pread(descriptor, end - start, start))
    return Region(data=_atom(b"moov", _atom(b"udta", _atom(b"meta", bytes(4) + data))))


def _atom(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, name) + data


def _atoms(descriptor: int, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, first byte inside, first byte after) of the atoms between two offsets; ends at the first bad one."""
    for _ in range(ITEM_LIMIT + 1):
        head = os.pread(descriptor, 16, start)
        if start + 8 > end or len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head[:8])
        inside = start + 8
        if length == 1 and len(head) == 16:
            length, inside = struct.unpack(">Q", head[8:])[0], start + 16
        elif length == 0:
            length = end - start
        if length < inside - start or start + length > end:
            return
        yield name, inside, start + length
        start += length


def _excess(version: int, body: bytes) -> str:
    """Return what is excessive in the frames of an ID3v2 tag, read both ways in which 2.4 writers give their sizes."""
    for synchsafe in (False, True) if version == 4 else (False,):
        inflated = 0
        for count, (flags, data) in enumerate(_frames(version, body, synchsafe=synchsafe), 1):
            if (version == 3 and flags & 0x80) or (version == 4 and flags & 0x08):
                inflated += _inflated(data)
            if count > ITEM_LIMIT:
                return f"has more than {ITEM_LIMIT} frames"
            if inflated > INFLATED_LIMIT:
                return f"unpacks to more than {INFLATED_LIMIT >> 20} MiB"
    return ""


def _frames(version: int, body: bytes, *, synchsafe: bool) -> Iterator[tuple[int, memoryview]]:
    head = 6 if version == 2 else 10
    view, at = memoryview(body), 0
    while at + head <= len(body) and any(view[at : at + head // 2]):
        if version == 2:
            size, flags = int.from_bytes(view[at + 3 : at + 6]), 0
        else:
            raw = bytes(view[at + 4 : at + 8])
            size, flags = _synchsafe(raw) if synchsafe else int.from_bytes(raw), view[at + 9]
        yield flags, view[at + head : at + head + size]
        at += head + size


def _inflated(data: memoryview) -> int:
    """Return to how many bytes a packed frame grows, not looking further than the limit."""
    for start in (4, 0):  # the length that comes first may be missing
        try:
            return len(zlib.decompressobj().decompress(data[start:], INFLATED_LIMIT + 1))
        except zlib.error:
            continue  # not packed after all: mutagen drops such a frame
    return 0


def _synchsafe(raw: bytes) -> int:
    value = 0
    for byte in raw:
        value = value << 7 | byte & 0x7F
    return value
