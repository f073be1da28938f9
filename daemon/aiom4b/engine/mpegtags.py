"""What stands in an MP3 that is not sound? Tags at either end and in between, and the header frame of Xing, LAME and VBRI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, overload

_INFO_OFFSET = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}  # by (MPEG-1, mono)
_LAME = frozenset({b"LAME", b"Lavf", b"Lavc"})  # whose delays FFmpeg believes


class Sliceable(Protocol):
    """What can be scanned: ``bytes``, an ``mmap``, or anything else whose slices are ``bytes``, short at its end."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoFrame:
    """What a Xing, Info or VBRI frame says. ``delay`` and ``padding`` are LAME's raw numbers; delay is None without them."""

    frames: int | None
    delay: int | None
    padding: int


def after(data: Sliceable, position: int, end: int) -> int:
    """Return the offset behind all whole tags that stand at ``position``: ID3v2 (with padding), ID3v1, APEv2."""
    while True:
        length = _length(data[position : min(position + 32, end)])
        if not length or position + length > end:
            return position
        position += length


def _length(head: bytes) -> int:
    if head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0xFF and max(head[6:10]) < 0x80:
        return _syncsafe(head[6:10]) + (20 if head[5] & 0x10 else 10)  # bit 4 of the flags: a footer follows
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return int.from_bytes(head[12:16], "little") + 32
    if head[:3] == b"TAG":
        return 227 if head[3:4] == b"+" else 128
    return 0


def _syncsafe(four: bytes) -> int:
    return four[0] << 21 | four[1] << 14 | four[2] << 7 | four[3]


def audio_end(data: Sliceable) -> int:
    """Return the offset where the tags at the end begin: ID3v1, enhanced ID3v1, APEv2, Lyrics3, ID3v2 with a footer."""
    end = len(data)
    while True:
        length = _length_before(data, end)
        if not length or length > end:
            return end
        end -= length


def _length_before(data: Sliceable, end: int) -> int:
    if data[max(0, end - 128) : end][:3] == b"TAG" and end >= 128:
        return 128
    if data[max(0, end - 227) : end][:4] == b"TAG+" and end >= 227:
        return 227
    tail = data[max(0, end - 32) : end]
    if tail[:8] == b"APETAGEX" and len(tail) == 32:
        has_header = tail[23] & 0x80  # bit 31 of the flags
        return int.from_bytes(tail[12:16], "little") + (32 if has_header else 0)
    if tail[-10:-7] == b"3DI" and max(tail[-4:]) < 0x80:
        return _syncsafe(tail[-4:]) + 20
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        length = int(tail[-15:-9]) + 15
        return length if data[max(0, end - length) : end][:11] == b"LYRICSBEGIN" else 0
    if tail[-9:] == b"LYRICSEND":
        lyrics = data[max(0, end - 5100) : end]  # the format allows 5100 bytes
        begin = lyrics.rfind(b"LYRICSBEGIN")
        return len(lyrics) - begin if begin >= 0 else 0
    return 0


def info_frame(frame: bytes, version: int) -> InfoFrame | None:
    """Return what the frame says if it is a Xing, Info or VBRI frame, None if it is sound.

    The tag stands behind the side information, at the same place with a CRC and without (so LAME writes it).
    """
    mono = frame[3] >> 6 == 3
    at = 4 + _INFO_OFFSET[version == 1, mono]
    if frame[at : at + 4] in {b"Xing", b"Info"} and len(frame) >= at + 8:
        flags = int.from_bytes(frame[at + 4 : at + 8], "big")
        frames = int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else 0
        lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
        gaps = frame[
            lame + 21 : lame + 24
        ]  # 9 version, 1 method, 1 lowpass, 8 gain, 1 flags, 1 bit rate: then 12 + 12 bits
        if frame[lame : lame + 4] in _LAME and len(gaps) == 3:
            both = int.from_bytes(gaps, "big")
            return InfoFrame(frames=frames or None, delay=both >> 12, padding=both & 0xFFF)
        return InfoFrame(frames=frames or None, delay=None, padding=0)
    if frame[36:42] == b"VBRI\0\1":
        return InfoFrame(frames=int.from_bytes(frame[50:54], "big") or None, delay=None, padding=0)
    return None


def leans_back(head: bytes, version: int) -> bool:
    """Whether the frame that begins with these 8 bytes needs data of frames before it (``main_data_begin`` above 0)."""
    side = head[4:6] if head[1] & 1 else head[6:8]  # a CRC of two bytes comes first
    bits = int.from_bytes(side, "big")
    return bool(bits >> 7 if version == 1 else bits >> 8)
