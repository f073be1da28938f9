"""Which PCM lies in this range of the book? From files to one timeline: joins, channels, sample rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np

from aiom4b.engine import decode, media
from aiom4b.engine.decode import Decoder, Stretch
from aiom4b.engine.encode import Pcm, layout_name
from aiom4b.models import Flaw, Part, Run, SourceFile, Timeline

_FILTER_REACH = 256
"""Input samples that a resampled range is warmed up with, times input rate ÷ output rate where that is above one.

The filter itself reaches 32; 48 → 8 kHz needed 66; 256 covered every pair of rates that was tried.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A range of one run: the stretches to decode, and how to resample them.

    ``silence_before`` and ``silence_after`` pad the input where it ends; of the output ``drop`` samples are thrown away and
    ``take`` are kept.
    """

    sample_rate: int
    stretches: tuple[Stretch, ...]
    silence_before: int
    silence_after: int
    drop: int
    take: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PcmRequest:
    """A range of the book, ready to be read by a worker."""

    sample_rate: int
    channels: int
    samples: int
    runs: tuple[RunRequest, ...]


def request(timeline: Timeline, source_files: Sequence[SourceFile], root: str, start: int, stop: int) -> PcmRequest:
    """Say what must be read for the book's samples [start, stop); ``root`` is where the files lie."""
    runs = []
    for run in timeline.runs:
        first, last = max(start, run.start), min(stop, run.start + run.samples)
        if first < last:
            wanted = (first - run.start, last - run.start)
            runs.append(_run_request(run, timeline.sample_rate, source_files, root, *wanted))
    return PcmRequest(
        sample_rate=timeline.sample_rate, channels=timeline.channels, samples=stop - start, runs=tuple(runs)
    )


def _run_request(
    run: Run, rate: int, source_files: Sequence[SourceFile], root: str, start: int, stop: int
) -> RunRequest:
    if run.sample_rate == rate:
        first, last, drop = start, stop, 0
    else:
        # Out = ceil(n * up / down). A range comes out identical to the whole only when it starts at a multiple of `down`
        # input samples, where the filter's phase is zero (an unaligned start never matches).
        common = math.gcd(run.sample_rate, rate)
        up, down = rate // common, run.sample_rate // common
        reach = math.ceil(_FILTER_REACH * max(1.0, run.sample_rate / rate) / down) * down
        aligned = start // up
        first = aligned * down - reach
        last = math.ceil(stop * down / up) + reach
        drop = start - aligned * up + reach // down * up
    stretches = []
    for position, part in enumerate(run.parts):
        begin, end = max(first, part.start), min(last, part.start + part.samples)
        if begin < end:
            stretches.append(_stretch(run.parts, position, source_files, root, begin - part.start, end - part.start))
    return RunRequest(
        sample_rate=run.sample_rate,
        stretches=tuple(stretches),
        silence_before=max(0, -first),
        silence_after=max(0, last - run.source_samples),
        drop=drop,
        take=stop - start,
    )


def _stretch(
    parts: Sequence[Part], position: int, source_files: Sequence[SourceFile], root: str, start: int, stop: int
) -> Stretch:
    whole = position
    while parts[whole].joined:
        whole -= 1
    before = [source_files[part.file] for part in parts[whole:position]]
    return decode.stretch(root, source_files[parts[position].file], start, stop, before)


class Reader:
    """Reads requests; ``flaws`` are the frames that could not be decoded and became silence."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    @property
    def flaws(self) -> tuple[Flaw, ...]:
        """Return the frames that became silence so far."""
        return tuple(self._decoder.flaws)

    def read(self, wanted: PcmRequest) -> Iterator[Pcm]:
        """Yield the PCM of the request in pieces of any length; together exactly ``wanted.samples`` samples."""
        for run in wanted.runs:
            pieces = self._input(run, wanted.channels)
            if run.sample_rate != wanted.sample_rate:
                pieces = _resampled(pieces, run.sample_rate, wanted.sample_rate, wanted.channels)
            yield from _cut(pieces, run.drop, run.take)

    def chunks(self, wanted: PcmRequest, size: int) -> Iterator[Pcm]:
        """Yield the same in new arrays of ``size`` samples, the last one shorter."""
        chunk = np.empty((wanted.channels, size), np.float32)
        filled = 0
        for piece in self.read(wanted):
            position = 0
            while position < piece.shape[1]:
                step = min(size - filled, piece.shape[1] - position)
                chunk[:, filled : filled + step] = piece[:, position : position + step]
                filled += step
                position += step
                if filled == size:
                    yield chunk
                    chunk = np.empty((wanted.channels, size), np.float32)
                    filled = 0
        if filled:
            yield chunk[:, :filled]

    def _input(self, run: RunRequest, channels: int) -> Iterator[Pcm]:
        if run.silence_before:
            yield np.zeros((channels, run.silence_before), np.float32)
        for wanted in run.stretches:
            for piece in self._decoder.read(wanted):
                yield _with_channels(piece, channels)
        if run.silence_after:
            yield np.zeros((channels, run.silence_after), np.float32)


def _with_channels(pcm: Pcm, channels: int) -> Pcm:
    """Change mono to stereo or back. Not by swresample: in float it makes mono 3 dB quieter and stereo 3 dB louder."""
    if pcm.shape[0] == channels:
        return pcm
    if channels == 1:
        return np.asarray(pcm.mean(axis=0, dtype=np.float32, keepdims=True))
    return np.repeat(pcm, channels, axis=0)


def _resampled(pieces: Iterator[Pcm], source_rate: int, rate: int, channels: int) -> Iterator[Pcm]:
    layout = layout_name(channels)
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    position = 0
    for piece in pieces:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=layout)
        frame.sample_rate = source_rate
        frame.pts = position
        position += piece.shape[1]
        for out in resampler.resample(frame):
            yield media.pcm_of([out], channels)
    for out in resampler.resample(None):
        yield media.pcm_of([out], channels)


def _cut(pieces: Iterator[Pcm], drop: int, take: int) -> Iterator[Pcm]:
    for piece in pieces:
        kept = piece[:, drop : drop + take]
        drop = max(0, drop - piece.shape[1])
        take -= kept.shape[1]
        if kept.shape[1]:
            yield kept
        if not take:
            return
    assert not take, f"{take} samples are missing"
