"""Where are the frames of this MP3? A scanner of our own, so that nothing but MP3 is ever taken for MP3."""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Iterator

from aiom4b.engine import mpegtags
from aiom4b.engine.mpegtags import Sliceable
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudioFacts, Codec, Damage, Samples

ANCHOR_FRAMES = 256
"""Every so many audio frames the index remembers a byte offset."""

_WINDOW = 1 << 22
_CHAIN = 4  # frames in a row before we believe that a stranger's bytes are MP3
_MOST_DAMAGE = 100  # entries; a file may hold a million scars, its facts may not
_LEADING = 1 << 14  # bytes in which free format is looked for: ten of its frames at least
_LEAST_AUDIO = 0.9  # share of the bytes that has to be frames

_DECODER_DELAY = 528 + 1  # of every layer III decoder, which LAME's numbers leave out

# ISO/IEC 11172-3 and 13818-3, layer III, kbit/s by index; MPEG-2.5 is the usual extension of 13818-3
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_VERSIONS = {0xFA: (1, (44100, 48000, 32000)), 0xF2: (2, (22050, 24000, 16000)), 0xE2: (25, (11025, 12000, 8000))}


def _sizes_by_header() -> dict[tuple[int, int], int]:
    sizes = {}
    for second, (version, rates) in _VERSIONS.items():
        kbits, factor = (_KBITS_1, 144000) if version == 1 else (_KBITS_2, 72000)
        for third in range(256):
            if 0 < third >> 4 < 15 and third >> 2 & 3 < 3:
                sizes[second, third] = factor * kbits[third >> 4] // rates[third >> 2 & 3] + (third >> 1 & 1)
    return sizes


_SIZES = _sizes_by_header()


def _any_of(values: Iterable[int]) -> bytes:
    return b"[%b]" % b"".join(b"\\x%02x" % value for value in sorted(set(values)))


_FREE = range(16)  # third bytes without a bit rate: free format
_ANY_HEADER = re.compile(
    b"\xff" + _any_of(s | crc for s in _VERSIONS for crc in (0, 1)) + _any_of([*_FREE, *(third for _, third in _SIZES)])
)


def _kind(header: bytes) -> tuple[int, int]:
    """Return what never changes inside a file: version and sampling rate, as bits."""
    return header[1] & 0xFE, header[2] >> 2 & 3


def _size(header: bytes) -> int:
    """Return the size of the frame with this header of four bytes, 0 when it is none of layer III or of free format."""
    if len(header) < 4 or header[0] != 0xFF:
        return 0
    return _SIZES.get((header[1] & 0xFE, header[2]), 0)


class _Sizes(dict[bytes, int]):
    """Frame sizes by header for one kind of frame: a look-up is all that a frame costs. KeyError for anything else."""

    def __init__(self, kind: tuple[int, int]) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, header: bytes) -> int:
        size = _size(header)
        if not size or _kind(header) != self._kind:
            raise KeyError(header)
        self[header] = size
        return size


class _Walk:
    """Walks from frame to frame, over tags and junk. Where it goes from a frame depends on nothing before that frame.

    ``position`` is the start of the next frame that counts, unless ``ended``. ``gaps`` are (frames before, start, end)
    of what was neither frame nor tag; ``cut`` says that the last frame was not whole (it is not counted).
    """

    def __init__(self, data: Sliceable, end: int, position: int, kind: tuple[int, int]) -> None:
        self.position = position
        self.ended = False
        self.cut = False
        self.frames = 0
        self.audio_bytes = 0
        self.gap_bytes = 0
        self.gap_count = 0
        self.gaps: list[tuple[int, int, int]] = []
        self.sizes = _Sizes(kind)
        self._kind = kind
        self._data = data
        self._end = end
        self._window = b""
        self._base = position
        self._last = 0
        second, rate = kind
        thirds = _any_of(third for version, third in _SIZES if version == second and third >> 2 & 3 == rate)
        self._start = re.compile(b"\xff" + _any_of((second, second | 1)) + thirds + b"|ID3[\x02-\x04]")
        self._settle()

    def skip(self, count: int) -> None:
        """Go ``count`` frames on, or to the end."""
        while count and not self.ended:
            window, sizes, at = self._window, self.sizes, self.position - self._base
            step = done = 0
            try:
                for done in range(count):  # noqa: B007 - how far it came when something else was in the way
                    step = sizes[window[at : at + 4]]
                    at += step
                done = count
            except KeyError:
                pass  # junk, a tag, the window's end or the file's: _settle finds out
            self._went(done, at, step)
            count -= done
            self._settle()

    def collect(self, count: int) -> list[tuple[int, int]]:
        """Go ``count`` frames on, or to the end, and return their (offset, size)."""
        found: list[tuple[int, int]] = []
        while len(found) < count and not self.ended:
            window, sizes, base, at = self._window, self.sizes, self._base, self.position - self._base
            step, before = 0, len(found)
            try:
                for _ in range(count - before):
                    step = sizes[window[at : at + 4]]
                    found.append((base + at, step))
                    at += step
            except KeyError:
                pass  # as above
            self._went(len(found) - before, at, step)
            self._settle()
        return found[: self.frames]

    def _went(self, frames: int, at: int, last: int) -> None:
        self.frames += frames
        self.audio_bytes += self._base + at - self.position
        self.position = self._base + at
        self._last = last or self._last

    def _settle(self) -> None:
        """Make ``position`` the start of a frame that counts, or the end."""
        if self.position > self._end:
            self.ended = self.cut = True
            self.frames -= 1
            self.audio_bytes -= self._last
            return
        if self.position + 4 > self._base + len(self._window):
            self._base = self.position
            self._window = self._data[self._base : min(self._base + _WINDOW, self._end)]
        at = self.position - self._base
        if self._window[at : at + 4] in self.sizes or self._fits(self._window[at : at + 4]):
            return
        start = mpegtags.after(self._data, self.position, self._end)
        while start < self._end:
            found = self._next_start(start)
            if found == start:
                break
            if found == self._end and found - start < 4 and self._data[start] == 0xFF:
                self.cut = True  # not even the header is whole
                start = found
                break
            self.gap_bytes += found - start
            self.gap_count += 1
            if len(self.gaps) < _MOST_DAMAGE:
                self.gaps.append((self.frames, start, found))
            start = mpegtags.after(self._data, found, self._end)
        self.position = self._base = start
        self._window = self._data[start : min(start + _WINDOW, self._end)]
        self.ended = start == self._end

    def _fits(self, header: bytes) -> bool:
        return bool(_size(header)) and _kind(header) == self._kind

    def _next_start(self, position: int) -> int:
        """Return where junk ends: at a header followed by another one or by the end of the audio, at a tag, or at the end."""
        while position < self._end:
            block = self._data[position : min(position + _WINDOW, self._end)]
            for match in self._start.finditer(block):
                at = position + match.start()
                if match.group().startswith(b"ID3"):
                    if mpegtags.after(self._data, at, self._end) > at:
                        return at
                elif self._followed(at):
                    return at
            if position + len(block) == self._end:
                break
            position += len(block) - 3  # a pattern may lie across two blocks
        return self._end

    def _followed(self, at: int) -> bool:
        header = self._data[at : min(at + 4, self._end)]
        follower = at + _size(header)
        return follower > at and (
            follower == self._end or self._fits(self._data[follower : min(follower + 4, self._end)])
        )


def frames(data: Sliceable, offset: int, count: int) -> list[tuple[int, int]]:
    """Return (offset, size) of the ``count`` audio frames from the one at ``offset`` on; fewer at the file's end.

    ``offset`` has to be a frame that ``scan`` counted, such as an anchor; then these are exactly the frames that it counted.
    """
    walk = _Walk(data, mpegtags.audio_end(data), offset, _kind(data[offset : offset + 4]))
    return walk.collect(count)


def scan(data: Sliceable) -> AudioFacts:
    """Find all frames of an MP3 without decoding: one pass, well under a microsecond a frame.

    A Xing, Info or VBRI frame is not audio. Encoder delay and padding from a LAME tag count as in FFmpeg's MP3 demuxer:
    delay + 529 samples are skipped, padding less 529 dropped, where the tag is LAME's or Lavf's. More frames than the tag
    promises are all kept, and then nothing is dropped at the end.

    Flaws end up in ``damage``: ``mp3.junk`` (bytes that are no frames), ``mp3.truncated`` (the last frame is not whole and
    not counted), ``mp3.last_frame_cut`` (the same where tags follow: no copy was cut short there), ``mp3.cut_from_another`` (the first frame leans on data before the file), ``mp3.more_than_declared``.
    Raises NeedsAttention ``audio.not_audio`` (no frames), ``audio.free_format``, ``audio.mixed_rates`` (frames of another
    rate or version that would be lost), ``audio.corrupt`` (under 90 % of the bytes are frames).
    """
    end = mpegtags.audio_end(data)
    begin = mpegtags.after(data, 0, end)
    first = _first_frame(data, begin, end)
    header = data[first : first + 4]
    kind = _kind(header)
    version, rates = _VERSIONS[kind[0]]
    rate = rates[kind[1]]
    per_frame = 1152 if version == 1 else 576
    info = mpegtags.info_frame(data[first : first + _size(header)], version)
    walk = _Walk(data, end, first + (_size(header) if info else 0), kind)
    front = walk.position

    anchors = array("Q")
    while not walk.ended:
        anchors.append(walk.position)
        walk.skip(ANCHOR_FRAMES)
    if not walk.frames:
        raise _not_audio()
    del anchors[-(-walk.frames // ANCHOR_FRAMES) :]
    if sys.byteorder == "big":
        anchors.byteswap()

    leading = 0 if _all_zeros(data, begin, first) else first - begin
    _refuse_other_kinds(data, [(begin, first), *((start, stop) for _, start, stop in walk.gaps)], kind)
    if walk.audio_bytes < _LEAST_AUDIO * (walk.audio_bytes + walk.gap_bytes + leading):
        raise NeedsAttention(
            "audio.corrupt",
            "Less than nine tenths of this MP3 are sound; the rest can't be read.",
            remedy="Copy the file again from where it came from.",
        )
    declared = info.frames if info else None
    total = walk.frames * per_frame
    skip = drop = 0
    if info and info.delay is not None:
        skip = min(total, info.delay + _DECODER_DELAY)
        if declared is not None and walk.frames <= declared:
            missing = (declared - walk.frames) * per_frame
            drop = min(total - skip, max(0, info.padding - _DECODER_DELAY - missing))
    damage = _damage(
        walk,
        data[front : front + 8],
        version,
        declared=declared,
        frame_seconds=per_frame / rate,
        tagged=end < len(data),
    )
    if leading:
        damage.insert(0, Damage(code="mp3.junk", second=0.0, detail=f"{leading} bytes before the first frame"))
    return AudioFacts(
        codec=Codec.MP3,
        sample_rate=rate,
        channels=2 if any(known[3] >> 6 != 3 for known in walk.sizes) else 1,
        frames=walk.frames,
        samples_per_frame=per_frame,
        start_skip=Samples(skip),
        end_discard=Samples(drop),
        samples=Samples(total - skip - drop),
        bit_rate=round(walk.audio_bytes * 8 * rate / total),
        declared_frames=declared,
        gapless=bool(info and info.delay is not None),
        mpeg_version=version,
        decoder_config=b"",
        anchors=anchors.tobytes(),
        damage=tuple(damage),
    )


def _damage(
    walk: _Walk, first: bytes, version: int, *, declared: int | None, frame_seconds: float, tagged: bool
) -> list[Damage]:
    damage = []
    if mpegtags.leans_back(first, version):
        damage.append(
            Damage(code="mp3.cut_from_another", second=0.0, detail="the first frame needs data from before the file")
        )
    for before, start, stop in walk.gaps:
        detail = f"{stop - start} bytes at byte {start} are no frames"
        damage.append(Damage(code="mp3.junk", second=before * frame_seconds, detail=detail))
    if walk.gap_count > len(walk.gaps):
        detail = f"and {walk.gap_count - len(walk.gaps)} more places"
        damage.append(Damage(code="mp3.junk", second=walk.gaps[-1][0] * frame_seconds, detail=detail))
    if walk.cut:
        # Tags come last: where some follow, the file was once written to its end.
        code = "mp3.last_frame_cut" if tagged else "mp3.truncated"
        detail = "the last frame is not whole and was left out"
        damage.append(Damage(code=code, second=walk.frames * frame_seconds, detail=detail))
    if declared is not None and walk.frames > declared + 1:
        detail = f"{walk.frames} frames where the header promises {declared}; all are kept"
        damage.append(Damage(code="mp3.more_than_declared", second=declared * frame_seconds, detail=detail))
    return damage


def _first_frame(data: Sliceable, position: int, end: int) -> int:
    """Return the offset of the first frame that several like it follow, or of a header frame: that one is unmistakable."""
    for at in _headers(data, position, end):
        header = data[at : min(at + 4, end)]
        if size := _size(header):
            if _chain(data, at, end) or _is_info(data[at : min(at + size, end)], header):
                return at
        elif at < position + _LEADING and _free_format(data[at : min(at + _LEADING, end)]):
            raise NeedsAttention(
                "audio.free_format",
                "This MP3 has a free-format bit rate, which hardly any program can play.",
                remedy="Convert it to an ordinary MP3 with the program that made it, for example with LAME.",
            )
    raise _not_audio()


def _is_info(frame: bytes, header: bytes) -> bool:
    return mpegtags.info_frame(frame, _VERSIONS[_kind(header)[0]][0]) is not None


def _all_zeros(data: Sliceable, begin: int, end: int) -> bool:
    """Whether nothing but padding lies between; in windows, since it may be most of a large file."""
    return not any(data[at : min(at + _WINDOW, end)].strip(b"\0") for at in range(begin, end, _WINDOW))


def _headers(data: Sliceable, position: int, end: int) -> Iterator[int]:
    """Yield where anything stands that looks like a layer III header of whatever kind."""
    while position < end:
        block = data[position : min(position + _WINDOW, end)]
        for match in _ANY_HEADER.finditer(block):
            yield position + match.start()
        if position + len(block) == end:
            return
        position += len(block) - 2


def _chain(data: Sliceable, at: int, end: int) -> bool:
    """Whether a row of frames of one kind begins here; a shorter row will do when the audio ends with it."""
    kind = _kind(data[at : at + 4])
    for done in range(_CHAIN):
        header = data[at : min(at + 4, end)]
        size = _size(header)
        if not size or _kind(header) != kind:
            return False
        at += size
        if at == end:
            return True
        if at > end:
            return done > 1
    return True


def _free_format(block: bytes) -> bool:
    """Whether the header without a bit rate at the block's start comes again and again at one distance (± padding)."""
    second, third = block[1], block[2] & ~2
    same = re.compile(rb"\xff\x%02x[\x%02x\x%02x]" % (second, third, third | 2))
    places = [match.start() for match in same.finditer(block, 1)]
    known = set(places)
    return any(
        known.intersection(range(2 * distance - 1, 2 * distance + 2))
        and known.intersection(range(3 * distance - 2, 3 * distance + 3))
        for distance in places
        if distance > 24
    )


def _refuse_other_kinds(data: Sliceable, stretches: list[tuple[int, int]], kind: tuple[int, int]) -> None:
    for begin, end in stretches:
        for at in _headers(data, begin, end):
            header = data[at : min(at + 4, end)]
            if _size(header) and _kind(header) != kind and _chain(data, at, end):
                raise NeedsAttention(
                    "audio.mixed_rates",
                    f"From byte {at} on this MP3 goes on with another sampling rate, as if two files had been joined.",
                    remedy="Split the file at that place, or make it again with one sampling rate.",
                )


def _not_audio() -> NeedsAttention:
    return NeedsAttention(
        "audio.not_audio",
        "No sound was found in this file: it holds no MP3 frames.",
        remedy="Copy the file again from where it came from, or take it out of the folder.",
    )
