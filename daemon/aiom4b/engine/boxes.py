"""Where in this MP4 is its sound, and which part of it is played? Its boxes, read by ourselves before FFmpeg sees the file.

The index of a long book is large, so nothing here copies it: boxes and tables are views of the bytes that were read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiom4b.engine.mpegtags import Sliceable
from aiom4b.errors import NeedsAttention
from aiom4b.models import Lock

_PACKETS_AT_ONCE = 1024
_MOST_INDEX = 1 << 28  # bytes; 20 hours take 13 MB
_TOP = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"udta", b"meta", b"uuid", b"pdin", b"mfra"})
_FRAGMENTS = frozenset({b"moof", b"sidx", b"styp"})
_PROTECTED = frozenset({b"enca", b"encv", b"drms", b"drmi", b"drmt"})
_AUDIBLE = b"aavd"
_DOLBY = frozenset({b"ec-3", b"ac-4", b"ac-3", b"dec3", b"dac4"})
_ENTRY_BYTES = {0: 28, 1: 44, 2: 64}  # of a sample entry, by its version, before the boxes in it
_PICTURES = frozenset({b"jpeg", b"png ", b"mjpa", b"mjpb"})  # covers and chapter pictures are tracks of "video"
_COPY_AGAIN = "Copy the file again from where it came from."

_INSIDE = {b"trak": (b"mdia", b"edts"), b"mdia": (b"minf",), b"minf": (b"stbl",)}  # no deeper, however often they nest

_Numbers = NDArray[np.unsignedinteger]
"""A table as it stands in the index: a view of its big-endian bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The sound of an MP4. ``start`` and ``stop`` bound what is presented, in ticks from the first packet (1/``timescale`` s).

    ``edited`` says that an edit list set them; ``length`` is the sum of all packets' durations in ticks. ``lock`` is set for
    an Audible file, whose packets are of no use without its key; all else in it is readable.
    """

    packets: int
    payload_bytes: int
    timescale: int
    length: int
    start: int
    stop: int
    edited: bool
    other_sound: int
    lock: Lock | None


@dataclass(slots=True, kw_only=True)
class _Trak:
    handler: bytes = b""
    timescale: int = 0
    entries: list[bytes] = field(default_factory=list)
    protected: bool = False
    adrm: bool = False
    packets: int = 0
    payload_bytes: int = 0
    # rows of (packets, ticks of each)
    durations: _Numbers = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    sizes: _Numbers = field(default_factory=lambda: np.zeros(0, np.uint32))
    chunks: _Numbers = field(default_factory=lambda: np.zeros(0, np.uint32))
    # rows of (first chunk, counted from 1; packets in each from there on; which entry)
    packets_in_chunks: _Numbers = field(default_factory=lambda: np.zeros((0, 3), np.uint32))
    edits: list[tuple[int, int]] = field(default_factory=list)


def sound_track(data: Sliceable) -> Track:
    """Read which part of which track a player presents.

    Raises NeedsAttention ``audio.truncated`` (a box reaches beyond the end, or the index is missing), ``audio.encrypted``,
    ``audio.video``, ``audio.no_sound``, ``audio.unsupported_codec``, ``audio.fragmented``, ``audio.edited`` (an edit list of
    several pieces) and ``audio.corrupt`` (boxes that contradict each other).
    """
    moov, brand = _top_level(data)
    try:
        movie_timescale, traks = _movie(moov)
    except (IndexError, ValueError) as error:
        raise _corrupt(str(error)) from error
    sound = [trak for trak in traks if trak.handler == b"soun"]
    if any(trak.protected for trak in traks):
        raise _protected()
    if any(trak.handler == b"vide" and not _PICTURES.issuperset(trak.entries) for trak in traks):
        raise NeedsAttention(
            "audio.video",
            "This MP4 is a video, not an audiobook.",
            remedy="Take the file out of the folder, or extract its sound.",
        )
    if not sound or not sound[0].packets:
        raise NeedsAttention("audio.no_sound", "This MP4 holds no sound.", remedy="Take the file out of the folder.")
    trak = sound[0]
    if _DOLBY.intersection(trak.entries):
        raise NeedsAttention(
            "audio.unsupported_codec",
            "The sound of this MP4 is Dolby Atmos, which can't be put into an audiobook.",
            remedy="Get the book in its ordinary form (AAC); Audible offers most titles in both.",
        )
    lock = _lock(trak, brand)
    if lock is None and trak.entries != [b"mp4a"]:
        coding = b", ".join(trak.entries).decode("ascii", "replace")
        raise NeedsAttention(
            "audio.unsupported_codec",
            f"The sound of this MP4 is coded as “{coding}”; only AAC is supported.",
            remedy="Convert it to MP3 or AAC first.",
        )
    if lock is not None and not trak.sizes.min(initial=1):
        raise _corrupt("one of its packets is empty")  # FFmpeg would leave it out, and all later ones count one less
    counts, ticks = trak.durations.T
    if not trak.timescale or not movie_timescale or counts.sum(dtype=np.uint64) != trak.packets:
        raise _corrupt("its tables of time don't agree")
    length = int(np.multiply(counts, ticks, dtype=np.uint64).sum())
    if trak.chunks.max(initial=0) >= len(data):
        raise _truncated("its sound lies beyond the end of the file")
    start, stop = _presented(trak, length, movie_timescale)
    return Track(
        packets=trak.packets,
        payload_bytes=trak.payload_bytes,
        timescale=trak.timescale,
        length=length,
        start=start,
        stop=stop,
        edited=bool(trak.edits),
        other_sound=len(sound) - 1,
        lock=lock,
    )


def _lock(trak: _Trak, brand: bytes) -> Lock | None:
    """Tell Audible's two kinds apart as FFmpeg does, which opens them: by brand, and by the box with the account's part of the key."""
    if trak.entries != [_AUDIBLE]:
        return None
    if brand == b"aaxc":
        return Lock.AAXC
    if trak.adrm:
        return Lock.AAX
    raise _corrupt("it is locked as an Audible book, but in neither of the known ways")


def packet_places(data: Sliceable, first: int, stop: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the sound's packets [first, stop), fewer at its end, in groups: (number of the first one, offsets, sizes).

    Raises NeedsAttention ``audio.truncated`` and ``audio.corrupt`` where the tables contradict each other.
    """
    moov, _ = _top_level(data)
    try:
        trak = next(trak for trak in _movie(moov)[1] if trak.handler == b"soun")
        starts = np.append(trak.packets_in_chunks[:, 0].astype(np.int64) - 1, len(trak.chunks))
        counts = np.repeat(trak.packets_in_chunks[:, 1].astype(np.int64), np.diff(starts))
    except (IndexError, ValueError, StopIteration) as error:
        raise _corrupt(str(error) or "it holds no sound") from error
    ends = np.cumsum(counts)
    if not len(ends) or ends[-1] < trak.packets or starts[0] != 0:
        raise _corrupt("its table of chunks does not hold all packets")
    stop = min(stop, trak.packets)
    if first >= stop:
        return
    chunk = np.searchsorted(ends, first, side="right")
    behind = int(trak.sizes[ends[chunk] - counts[chunk] : first].sum(dtype=np.int64))
    for low in range(first, stop, _PACKETS_AT_ONCE):
        high = min(low + _PACKETS_AT_ONCE, stop)
        sizes = trak.sizes[low:high].astype(np.int64)
        before = np.cumsum(sizes) - sizes
        chunks = np.searchsorted(ends, np.arange(low, high), side="right")
        heads = ends[chunks] - counts[chunks] - low  # of each packet's chunk; below 0 where it began before this group
        inside = np.where(heads < 0, behind + before, before - before[np.maximum(heads, 0)])
        offsets = trak.chunks[chunks].astype(np.int64) + inside
        if offsets.min() < 0 or (offsets + sizes).max() > len(data):
            raise _truncated("its sound lies beyond the end of the file")
        yield low, offsets, sizes
        behind = int(inside[-1] + sizes[-1])


def _presented(trak: _Trak, length: int, movie_timescale: int) -> tuple[int, int]:
    pieces = [(duration, start) for duration, start in trak.edits if start >= 0]  # -1 is a pause before the sound
    if len(pieces) > 1:
        raise NeedsAttention(
            "audio.edited",
            "This MP4 is a cut of several pieces of its recording.",
            remedy="Export it again from the program in which it was cut.",
        )
    if not pieces:
        return 0, length
    duration, start = pieces[0]
    stop = start + round(duration * trak.timescale / movie_timescale)
    # the edit list counts in ticks of the movie, often milliseconds: within one tick it means the end of the track
    if not duration or abs(stop - length) <= trak.timescale / movie_timescale:
        stop = length
    return min(start, length), max(min(start, length), min(stop, length))


def _top_level(data: Sliceable) -> tuple[bytes, bytes]:
    """Return the content of ``moov`` and the major brand."""
    moov, brand, at, end = b"", b"", 0, len(data)
    while at + 8 <= end:
        size, kind, body = _head(data[at : min(at + 16, end)], at)
        stop = at + size if size else end
        if kind in _FRAGMENTS:
            if moov and _holds_protected(moov):
                raise _protected()
            raise NeedsAttention(
                "audio.fragmented",
                "This MP4 is cut into fragments for streaming.",
                remedy="Copy it into an ordinary .m4b with another program, without encoding it again.",
            )
        if kind not in _TOP and moov:
            break  # whatever follows a complete file is none of it
        if stop > end or stop < body:
            raise _truncated(f"its part “{kind.decode('ascii', 'replace')}” is not whole")
        if kind == b"ftyp":
            brand = data[body : min(body + 4, stop)]
        elif kind == b"moov":
            if stop - body > _MOST_INDEX:
                raise _corrupt("its index is too large to be true")
            moov = data[body:stop]
        at = stop
    if not moov:
        raise _truncated("its index is missing")
    return moov, brand


def _head(head: bytes, at: int) -> tuple[int, bytes, int]:
    size, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if size == 1:
        return int.from_bytes(head[8:16], "big"), kind, at + 16
    return size, kind, at + 8


def _boxes(data: memoryview, at: int = 0) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, content) of the boxes inside another one."""
    while at + 8 <= len(data):
        size, kind, body = _head(bytes(data[at : at + 16]), at)
        stop = at + size if size else len(data)
        if not body <= stop <= len(data):
            raise ValueError("a part is larger than what it is in")
        yield kind, data[body:stop]
        at = stop


def _number(data: memoryview, at: int, size: int = 4) -> int:
    if at + size > len(data):
        raise ValueError("a table is too short")
    return int.from_bytes(data[at : at + size], "big")


def _movie(moov: bytes) -> tuple[int, list[_Trak]]:
    timescale, traks = 0, []
    for kind, body in _boxes(memoryview(moov)):
        if kind == b"mvhd":
            timescale = _number(body, 20 if body[0] == 1 else 12)
        elif kind == b"trak":
            trak = _Trak()
            _read(body, kind, trak)
            traks.append(trak)
    return timescale, traks


def _read(content: memoryview, within: bytes, trak: _Trak) -> None:
    for kind, body in _boxes(content):
        if kind in _INSIDE.get(within, ()):
            _read(body, kind, trak)
            continue
        match kind:
            case b"mdhd":
                trak.timescale = _number(body, 20 if body[0] == 1 else 12)
            case b"hdlr" if not trak.handler:  # QuickTime has a second one, for the data
                trak.handler = bytes(body[8:12])
            case b"stsd":
                for entry, inside in _boxes(body, 8):
                    trak.entries.append(entry)
                    trak.protected |= entry in _PROTECTED or b"sinf" in bytes(inside[:512])
                    if entry == _AUDIBLE:
                        trak.adrm = any(kind == b"adrm" for kind, _ in _boxes(inside, _entry_bytes(inside)))
            case b"stsz":
                each, trak.packets = _number(body, 4), _number(body, 8)
                if each:
                    trak.sizes = np.broadcast_to(np.uint32(each), trak.packets)
                    trak.payload_bytes = each * trak.packets
                else:
                    trak.sizes = _table(body, 12, trak.packets)
                    trak.payload_bytes = int(trak.sizes.sum(dtype=np.uint64))
            case b"stts":
                trak.durations = _table(body, 8, 2 * _number(body, 4)).reshape(-1, 2)
            case b"stco":
                trak.chunks = _table(body, 8, _number(body, 4))
            case b"co64":
                trak.chunks = _table(body, 8, _number(body, 4), ">u8")
            case b"stsc":
                trak.packets_in_chunks = _table(body, 8, 3 * _number(body, 4)).reshape(-1, 3)
            case b"elst":
                width = 8 if body[0] == 1 else 4
                for at in range(8, 8 + _number(body, 4) * (2 * width + 4), 2 * width + 4):
                    start = _number(body, at + width, width)
                    trak.edits.append((_number(body, at, width), start if start < 1 << 8 * width - 1 else -1))


def _entry_bytes(entry: memoryview) -> int:
    version = _number(entry, 8, 2)
    if version not in _ENTRY_BYTES:
        raise ValueError("the description of its sound is of an unknown kind")
    return _ENTRY_BYTES[version]


def _table(body: memoryview, at: int, count: int, kind: str = ">u4") -> _Numbers:
    content = body[at : at + count * np.dtype(kind).itemsize]
    if len(content) != count * np.dtype(kind).itemsize:
        raise ValueError("a table is too short")
    return np.frombuffer(content, kind)


def _holds_protected(moov: bytes) -> bool:
    try:
        return any(trak.protected for trak in _movie(moov)[1])
    except (IndexError, ValueError):
        return False  # then it is told by what else is wrong with it


def _protected() -> NeedsAttention:
    return NeedsAttention(
        "audio.encrypted",
        "This file is a protected stream (Widevine, FairPlay or the like), which plays only in its own app.",
        remedy="Take it out of the folder. An Audible book has to be there as .aax, or as .aaxc with its voucher.",
    )


def _corrupt(why: str) -> NeedsAttention:
    return NeedsAttention("audio.corrupt", f"This MP4 is damaged: {why}.", remedy=_COPY_AGAIN)


def _truncated(why: str) -> NeedsAttention:
    return NeedsAttention("audio.truncated", f"This MP4 is not complete: {why}.", remedy=_COPY_AGAIN)
