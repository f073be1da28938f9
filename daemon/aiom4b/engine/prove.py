"""Do two streams of sound agree from end to end? Second by second, and what that gives for a book."""

from __future__ import annotations

import numpy as np

from aiom4b.engine.encode import Pcm
from aiom4b.engine.likeness import Mismatch, compare
from aiom4b.models import FRAME_SAMPLES, SoundCheck

_STUMP = 0.5  # dB


def blocks_a_second(sample_rate: int) -> int:
    """Return how many whole blocks of 1024 samples make about a second: the unit of comparison."""
    return max(1, round(sample_rate / FRAME_SAMPLES))


class Comparison:
    """Compares two streams of PCM that arrive in pieces of any length, a second at a time.

    ``finish`` compares the rest (padded with silence on both sides) and returns the ratios as packed little-endian float32,
    one a second, ``likeness.QUIET`` and ``BEYOND`` among them. Every method raises Mismatch where the streams part.
    """

    def __init__(self, sample_rate: int, channels: int, least: float) -> None:
        self._rate = sample_rate
        self._least = least
        self._unit = blocks_a_second(sample_rate) * FRAME_SAMPLES
        self._source: list[Pcm] = []
        self._decoded: list[Pcm] = []
        self._have = [0, 0]
        self._channels = channels
        self._before: Pcm | None = None
        self.ratios: list[float] = []

    def expect(self, pcm: Pcm) -> None:
        """Take the next piece of the source. It must not be changed afterwards."""
        self._source.append(pcm)
        self._have[0] += pcm.shape[1]
        self._advance()

    def hear(self, pcm: Pcm) -> None:
        """Take the next piece of what was decoded."""
        if pcm.shape[0] != self._channels:
            raise Mismatch(self._second(), f"{pcm.shape[0]} channels instead of {self._channels}")
        self._decoded.append(pcm)
        self._have[1] += pcm.shape[1]
        self._advance()

    def finish(self) -> bytes:
        """Compare what is left; the two streams must be equally long."""
        if self._have[0] != self._have[1]:
            raise Mismatch(self._second(), f"{self._have[1]} samples are left where the source has {self._have[0]}")
        if self._have[0]:
            rest = -self._have[0] % FRAME_SAMPLES
            if rest:
                self.expect(np.zeros((self._channels, rest), np.float32))
                self.hear(np.zeros((self._channels, rest), np.float32))
            if self._have[0]:
                self._step(self._have[0])
        return np.array(self.ratios, dtype="<f4").tobytes()

    def _advance(self) -> None:
        # Half a second is held back, so that the last comparison is never a stump: a few blocks of a pause, judged alone,
        # would be refused for errors that nobody hears beside what is around them.
        while min(self._have) >= self._unit + self._unit // 2:
            self._step(self._unit)

    def _step(self, samples: int) -> None:
        source = _take(self._source, samples)
        decoded = _take(self._decoded, samples)
        self._have[0] -= samples
        self._have[1] -= samples
        # A piece that is all there is, and short, has too few blocks for an average; wrong sound still falls below half a dB.
        least = self._least if samples * 2 >= self._unit else min(self._least, _STUMP)
        after = _take(self._source, FRAME_SAMPLES) if self._have[0] else None
        if after is not None:
            self._source.insert(0, after)
        beside = (self._before, after)
        self._before = source[:, -FRAME_SAMPLES:]
        try:
            self.ratios.append(compare(source, decoded, self._rate, least, beside))
        except Mismatch as mismatch:
            raise Mismatch(self._second(), mismatch.detail) from None

    def _second(self) -> float:
        return len(self.ratios) * self._unit / self._rate


def _take(pieces: list[Pcm], samples: int) -> Pcm:
    taken: list[Pcm] = []
    missing = samples
    while missing:
        piece = pieces.pop(0)
        if piece.shape[1] > missing:
            pieces.insert(0, piece[:, missing:])
            piece = piece[:, :missing]
        taken.append(piece)
        missing -= piece.shape[1]
    return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)


def summary(ratios: bytes, unit_seconds: float) -> SoundCheck:
    """Sum up packed ratios in the order of the book; ``unit_seconds`` is the length of one."""
    values = np.frombuffer(ratios, dtype="<f4")
    sound = values[np.isfinite(values)]
    worst = int(np.nanargmin(np.where(np.isfinite(values), values, np.inf))) if sound.size else 0
    return SoundCheck(
        seconds=int(sound.size),
        quiet=int(np.isnan(values).sum()),
        beyond=int(np.isinf(values).sum()),
        snr_min=round(float(sound.min()), 2) if sound.size else 0.0,
        snr_median=round(float(np.median(sound)), 2) if sound.size else 0.0,
        worst=round(worst * unit_seconds, 1),
    )
