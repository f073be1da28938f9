"""What does the finished file really hold? Opened afresh, with nothing believed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from aiom4b.adapters import files
from aiom4b.engine import aac, copying, likeness, media, pcm, prove, segment
from aiom4b.engine.encode import Pcm, tame
from aiom4b.engine.pcm import PcmRequest
from aiom4b.errors import NeedsAttention
from aiom4b.models import FRAME_SAMPLES, Chapter, Name, Samples

_CONTROL_BLOCKS = 9  # far enough from a join to be free of it, near enough to hold the same kind of sound

_REMEDY = "Nothing was published. Convert the book again; if it happens again, please report it with this message."


@dataclass(frozen=True, slots=True, kw_only=True)
class BookFacts:
    """What a player would see: ``samples`` presented after ``priming`` hidden ones, at ``sample_rate``."""

    sample_rate: int
    channels: int
    packets: int
    priming: Samples
    samples: Samples
    decoder_config: bytes
    chapters: tuple[Chapter, ...]


def facts(path: str) -> BookFacts:
    """Read the head of a finished book; runs in a worker. Raises NeedsAttention ``proof.unreadable``."""
    try:
        with media.open_mp4(path, as_played=True) as container:
            stream = container.streams.audio[0]
            first = next(container.demux(stream))
            rate = stream.rate or 0
            chapters = tuple(
                Chapter(
                    title=str(chapter["metadata"].get("title", "")),
                    start=Samples(round(chapter["start"] * (chapter["time_base"] or Fraction(0)) * rate)),
                )
                for chapter in container.chapters()
            )
            return BookFacts(
                sample_rate=rate,
                channels=stream.channels,
                packets=stream.frames,
                priming=Samples(-(first.pts or 0)),
                samples=Samples(round((stream.duration or 0) * (stream.time_base or Fraction(0)) * rate)),
                decoder_config=bytes(stream.codec_context.extradata or b""),
                chapters=chapters,
            )
    except (av.error.FFmpegError, IndexError, StopIteration) as error:
        why = "it holds no sound"
        if isinstance(error, av.error.FFmpegError):
            if error.errno is not None and error.errno in errno.errorcode:  # FFmpeg's own are far above
                with files.translated(path, "reading"):
                    raise OSError(error.errno, os.strerror(error.errno)) from error
            why = error.strerror or why
        raise NeedsAttention(
            "proof.unreadable",
            f"{files.displayable(path)} can't be read as a book: {why}.",
            remedy=_REMEDY,
            path=path,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Packets ``first`` up to ``first + packets`` and the SHA-256 of their bytes laid end to end, "" if that is unknown."""

    first: int
    packets: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Blocks of the book to be decoded and compared with their source; ``joins`` are the blocks in it that hold a join."""

    first_block: int
    blocks: int
    pcm: PcmRequest
    joins: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRequest:
    """A stretch of the finished book to be checked by one worker.

    ``least`` (dB, see ``likeness.floor``) is for the windows, and None where packets were copied. The first ``decode``
    packets of each piece are decoded, without any error and each to ``block`` samples of all channels (None: to whatever it may
    be): their hashes say nothing of where one ends and the next begins.
    """

    path: Name
    sample_rate: int
    channels: int
    block: int | None
    expected: tuple[Expected, ...]
    windows: tuple[Window, ...]
    least: float | None
    decode: int
    decoder_config: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReport:
    """``ratios`` of the windows' seconds; of the ``joins`` themselves, and as many places ``elsewhere`` for comparison.

    All packed float32 dB, see ``prove``.
    """

    ratios: bytes
    joins: bytes
    elsewhere: bytes


def check_range(request: RangeRequest) -> RangeReport:
    """Compare packets with their hashes, and sound with its source; runs in a worker and streams.

    ``expected`` and ``windows`` must be in order, and neither may overlap. Raises NeedsAttention ``proof.packets``,
    ``proof.sound``, ``proof.windows`` or ``proof.decode``.
    """
    check = _Check(request)
    low = min([request.expected[0].first, *(window.first_block for window in request.windows)])
    for number, data in media.packets(request.path, low):
        if not check.take(number, data):
            break
    return check.finish()


def _packed(values: list[float]) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


class _Check:
    """Takes the packets of a range one by one."""

    def __init__(self, request: RangeRequest) -> None:
        self._request = request
        self._expected = deque(request.expected)
        self._windows = deque(request.windows)
        self._digest = hashlib.sha256()
        self._collected: list[bytes] = []
        self._sequence: int | None = None
        self._decoder: av.AudioCodecContext | None = None
        block = request.block
        self._shapes = copying.shapes(block, request.channels, request.sample_rate) if block is not None else set()
        if request.decode:
            self._decoder = segment.decoder(request.decoder_config)
        self._ratios = bytearray()
        self._joins: list[float] = []
        self._elsewhere: list[float] = []

    def take(self, number: int, data: bytes) -> bool:
        """Look at a packet; False when nothing more is wanted."""
        if self._request.least is not None:
            self._fits(number, data)
        if self._expected and number >= self._expected[0].first:
            self._hash(number, data)
        while self._windows and number >= self._windows[0].first_block:
            window = self._windows[0]
            self._collected.append(data)
            if number < window.first_block + window.blocks:
                break
            self._compare(window)
            # Windows that touch share a packet: it completes one and warms up the next.
            self._collected.clear()
        return bool(self._expected or self._windows)

    def finish(self) -> RangeReport:
        """Return what was measured; what was not reached is missing from the file."""
        if self._expected or self._windows:
            raise NeedsAttention(
                "proof.packets",
                "The finished file ends before its last packets.",
                remedy=_REMEDY,
                path=self._request.path,
            )
        return RangeReport(ratios=bytes(self._ratios), joins=_packed(self._joins), elsewhere=_packed(self._elsewhere))

    def _hash(self, number: int, data: bytes) -> None:
        piece = self._expected[0]
        self._digest.update(data)
        if self._decoder is not None and number < piece.first + self._request.decode:
            self._decodes(number, data)
        if number + 1 < piece.first + piece.packets:
            return
        if piece.sha256 and self._digest.hexdigest() != piece.sha256:
            raise NeedsAttention(
                "proof.packets",
                f"The finished file does not hold what was made for it: the piece at second {self._second(piece.first)} is"
                " another.",
                remedy=_REMEDY,
                path=self._request.path,
            )
        self._expected.popleft()
        self._digest = hashlib.sha256()

    def _fits(self, number: int, data: bytes) -> None:
        """Codecs decode a broken sequence of windows without a word, and crackle."""
        now = aac.window_sequence(data)
        if not aac.may_follow(self._sequence, now):
            raise NeedsAttention(
                "proof.windows",
                f"The pieces do not fit together at second {self._second(number)}.",
                remedy=_REMEDY,
                path=self._request.path,
            )
        self._sequence = now

    def _decodes(self, number: int, data: bytes) -> None:
        assert self._decoder is not None
        why = copying.undecodable(self._decoder, av.Packet(data), self._shapes)
        if why:
            raise NeedsAttention(
                "proof.decode",
                f"Packet {number} (second {self._second(number)}) does not decode: {why}.",
                remedy="The source is damaged there. Get the file again, then convert it again.",
                path=self._request.path,
            )

    def _compare(self, window: Window) -> None:
        self._windows.popleft()
        try:
            heard = _listen(self._request, window, self._collected)
        except likeness.Mismatch as mismatch:
            start = window.first_block * FRAME_SAMPLES / self._request.sample_rate
            raise NeedsAttention(
                "proof.sound",
                f"The finished file does not sound like its source: at second {start + mismatch.second:.0f} {mismatch.detail}.",
                remedy=_REMEDY,
                path=self._request.path,
            ) from mismatch
        self._ratios += heard.ratios
        self._joins += heard.joins
        self._elsewhere += heard.elsewhere

    def _second(self, number: int) -> int:
        return number * (self._request.block or FRAME_SAMPLES) // self._request.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    ratios: bytes
    joins: list[float]
    elsewhere: list[float]


def _listen(request: RangeRequest, window: Window, packets: list[bytes]) -> _Heard:
    """Decode the window's packets (one more than blocks: the first only warms up) and compare with the source."""
    assert request.least is not None
    comparison = prove.Comparison(request.sample_rate, request.channels, request.least)
    hearing = segment.decoder(request.decoder_config)
    segment.decoded(hearing, packets[:1], request.channels)
    step = prove.blocks_a_second(request.sample_rate)
    if not window.joins:
        position = 1
        for wanted in pcm.Reader().chunks(window.pcm, step * FRAME_SAMPLES):
            comparison.expect(_whole_blocks(wanted))
            comparison.hear(segment.decoded(hearing, packets[position : position + step], request.channels))
            position += step
        return _Heard(ratios=comparison.finish(), joins=[], elsewhere=[])
    source = _whole_blocks(np.concatenate(list(pcm.Reader().read(window.pcm)), axis=1))
    sound = segment.decoded(hearing, packets[1:], request.channels)
    comparison.expect(source)
    comparison.hear(sound)
    ratios = comparison.finish()
    at_joins, elsewhere = [], []
    for join in window.joins:
        here = join - window.first_block
        at_joins.append(_error_near(request, source, sound, here))
        control = here + _CONTROL_BLOCKS if here + _CONTROL_BLOCKS < window.blocks else here - _CONTROL_BLOCKS
        if control >= 0 and all(abs(control + window.first_block - other) > 3 for other in window.joins):
            elsewhere.append(_error_near(request, source, sound, control))
    return _Heard(ratios=ratios, joins=at_joins, elsewhere=elsewhere)


def _error_near(request: RangeRequest, source: Pcm, sound: Pcm, block: int) -> float:
    """Measure a block and its neighbours, within the second round it: a broken overlap damages these three and nothing else."""
    half = prove.blocks_a_second(request.sample_rate) // 2
    begin = max(0, block - half) * FRAME_SAMPLES
    around = slice(begin, (block + half + 1) * FRAME_SAMPLES)
    first = max(0, block - 1) * FRAME_SAMPLES - begin
    near = slice(first, first + 3 * FRAME_SAMPLES)
    return likeness.at_join(source[:, around], sound[:, around], near, request.sample_rate)


def _whole_blocks(source: Pcm) -> Pcm:
    rest = -source.shape[1] % FRAME_SAMPLES
    whole = np.pad(source, ((0, 0), (0, rest)))
    tame(whole)
    return whole
