"""Is this the sound that it was made from? A measure that can fail.

An encoder changes every sample, so equality can't be asked for; and signal-to-noise over the whole band says little of hiss
and applause, which AAC replaces by noise of its own. What it never replaces is the waveform of the lowest kilohertz. There, in
every second and in every channel, the decoded sound must follow the source closely (``floor``), and in no loud block of
23 ms may it fall silent. Wrong order, a shift by one block, a lost channel, a muted stretch or noise from a wrong key all give
0 dB or less; the worst legitimate material that we found (sparse clicks like applause, 24 kbit/s) gives 2.8 dB, speech at
64 kbit/s 27 dB and more.

Where a second holds little below a kilohertz, its energy up to 4 kHz, by block and by band, must be where the source
has it: noise may stand for noise, but silence and noise don't stand for a voice.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aiom4b.engine.aac import FRAME_SAMPLES
from aiom4b.engine.encode import Pcm
from aiom4b.models import SoundCheck

Samples1 = NDArray[np.float32]
"""float32 samples of one channel."""

_SILENCE = 1e-7  # mean square, -70 dBFS
_AUDIBLE = 1e-5  # mean square, -50 dBFS: what must not appear where the source is silent
_LOW_SHARE = 0.01
_STRAY = 0.05
_DROPOUT = 0.03
_TOP = 4000.0  # Hz: what the encoder keeps at any bit rate; at 20 kbit/s it drops everything from 4.8 kHz on
_BANDS = 7
_OVERLAP = 0.3  # honest minima 0.7 (hiss at 20 kbit/s); noise in place of anything but hiss gives 0.25 at most
_SURE = 20.0  # dB: with so little error in a whole second no loud block (a 43rd of it, of average power) can be missing

STUMP = 0.5
"""The floor for pieces too short to be averaged."""

QUIET = math.nan
"""Stands for a second without sound on either side."""
BEYOND = math.inf
"""Stands for a second whose sound lies above the lowest kilohertz: there the encoder owes no waveform, only its energy."""


def floor(bit_rate: int, sample_rate: int, channels: int) -> float:
    """Return the least signal-to-noise ratio (dB, lowest kilohertz, one second) that is accepted.

    By bits for each sample b: 3 b - 0.5, from 1.5 to 6. Measured minima: clicks 2.8 dB at b = 0.54, 4.2 at 1.2, 5.6 at 1.45;
    white noise 5.4, 7.0, 10.8; square waves 6.1, 10.4, 13.3; speech 12, 28, 32.
    """
    bits = bit_rate / (sample_rate * channels)
    return min(6.0, max(1.5, 3.0 * bits - 0.5))


class Mismatch(Exception):  # noqa: N818 - it is a finding, not a fault
    """Decoded sound that is not its source's; ``second`` counts from where the comparison began."""

    def __init__(self, second: float, detail: str) -> None:
        super().__init__(detail)
        self.second = second
        self.detail = detail


def blocks_a_second(sample_rate: int) -> int:
    """Return how many whole blocks of 1024 samples make about a second: the unit of comparison."""
    return max(1, round(sample_rate / FRAME_SAMPLES))


def _low(pcm: Pcm, factor: int) -> Pcm:
    """Keep the lowest kilohertz: means of ``factor`` samples (a null at rate / factor), smoothed by 1-2-1."""
    means = pcm.reshape(pcm.shape[0], -1, factor) @ np.full(factor, 1 / factor, np.float32)
    smooth = means * np.float32(0.5)
    smooth[:, 1:] += means[:, :-1] * np.float32(0.25)
    smooth[:, :-1] += means[:, 1:] * np.float32(0.25)
    return np.asarray(smooth)


def _power(pcm: Pcm) -> list[float]:
    return [float(np.vdot(channel, channel)) / pcm.shape[1] for channel in pcm]


def compare(source: Pcm, decoded: Pcm, sample_rate: int, least: float) -> float:
    """Compare about a second (whole blocks, same shape) and return the ratio of its worst channel in dB, QUIET or BEYOND.

    Raises Mismatch (``second`` = 0) when it is not the same sound.
    """
    factor = 8 if sample_rate >= 32000 else 4
    total, heard = _power(source), _power(decoded)
    if not np.isfinite(heard).all():
        raise Mismatch(0.0, "the decoded sound is no sound")
    low, low_decoded = _low(source, factor), _low(decoded, factor)
    worst = QUIET
    for channel in range(source.shape[0]):
        ratio = _compare_channel(low[channel], low_decoded[channel], total[channel], heard[channel], factor, least)
        if ratio is BEYOND and not _alike_above(source[channel], decoded[channel], sample_rate):
            raise Mismatch(0.0, "the sound is not the source's")
        if ratio is not QUIET and (worst is QUIET or ratio < worst):
            worst = ratio
    return worst


def at_join(source: Pcm, decoded: Pcm, near: slice, sample_rate: int) -> float:
    """Return how little the samples ``near`` a join err, in dB below the sound round it; the worst channel, or QUIET.

    Both are about a second with the join in it. A join in a pause is as loud as a pause, but its flaw would be heard as loud
    as the sound beside it: so the error is measured against the whole second, and comparable with the ratios of others.
    """
    factor = 8 if sample_rate >= 32000 else 4
    low, low_decoded = _low(source, factor), _low(decoded, factor)
    worst = QUIET
    for channel, total in enumerate(_power(source)):
        around = float(np.vdot(low[channel], low[channel])) / low.shape[1]
        if total < _SILENCE or around < _LOW_SHARE * total:
            continue
        error = (low[channel] - low_decoded[channel])[near.start // factor : near.stop // factor]
        ratio = 10.0 * math.log10(around / max(float(np.vdot(error, error)) / error.size, 1e-12))
        worst = ratio if worst is QUIET else min(worst, ratio)
    return worst


def _alike_above(source: Samples1, decoded: Samples1, sample_rate: int) -> bool:
    """Whether the energy up to 4 kHz lies in the same blocks and bands."""
    (wanted, share), (heard, _) = (_energies(one, sample_rate) for one in (source, decoded))
    most = max(float(wanted.sum()), float(heard.sum()))
    return share < _LOW_SHARE or float(np.minimum(wanted, heard).sum()) >= _OVERLAP * most


def _energies(pcm: Samples1, sample_rate: int) -> tuple[Samples1, float]:
    """Return the energy up to 4 kHz as [blocks, bands], and its share of the whole."""
    spectrum = np.fft.rfft(pcm.reshape(-1, FRAME_SAMPLES) * np.hanning(FRAME_SAMPLES).astype(np.float32), axis=1)
    energy = np.square(np.abs(spectrum))
    top = min(energy.shape[1], int(_TOP * FRAME_SAMPLES / sample_rate))
    edges = np.linspace(0, top, _BANDS, endpoint=False).astype(int)
    bands = np.add.reduceat(energy[:, :top], edges, axis=1)
    return bands.astype(np.float32), float(bands.sum() / max(float(energy.sum()), 1e-12))


def _compare_channel(low: Samples1, decoded: Samples1, total: float, heard: float, factor: int, least: float) -> float:
    if total < _SILENCE:
        if heard > _AUDIBLE:
            raise Mismatch(0.0, "there is sound where the source is silent")
        return QUIET
    error = low - decoded
    wanted, wrong = float(np.vdot(low, low)) / low.size, float(np.vdot(error, error)) / low.size
    if wanted < _LOW_SHARE * total:
        if wrong > _STRAY * total:
            raise Mismatch(0.0, "there is sound that the source does not have")
        return BEYOND
    ratio = 10.0 * math.log10(wanted / max(wrong, 1e-12))
    if ratio < least:
        if wrong <= _STRAY * total:  # hiss with a little below it, which the encoder rightly leaves out
            return BEYOND
        raise Mismatch(0.0, f"only {ratio:.1f} dB of likeness, at least {least:.1f} dB are due")
    if ratio < _SURE:
        block = (-1, FRAME_SAMPLES // factor)
        blocks, wrongs, heards = (np.square(one.reshape(block)).sum(axis=1) for one in (low, error, decoded))
        loud = blocks >= max(wanted, _SILENCE) * block[1]
        if loud.any() and (np.maximum(1 - wrongs[loud] / blocks[loud], heards[loud] / blocks[loud]) < _DROPOUT).any():
            raise Mismatch(0.0, "the sound drops out")
    return ratio


class Comparison:
    """Compares two streams of PCM that arrive in pieces of any length, a second at a time.

    ``finish`` compares the rest (padded with silence on both sides) and returns the ratios as packed float32, one a second.
    """

    def __init__(self, sample_rate: int, channels: int, least: float) -> None:
        self._rate = sample_rate
        self._least = least
        self._unit = blocks_a_second(sample_rate) * FRAME_SAMPLES
        self._source: list[Pcm] = []
        self._decoded: list[Pcm] = []
        self._have = [0, 0]
        self._channels = channels
        self.ratios: list[float] = []

    def expect(self, pcm: Pcm) -> None:
        """Take the next piece of the source. It must not be changed afterwards."""
        self._source.append(pcm)
        self._have[0] += pcm.shape[1]
        self._advance()

    def hear(self, pcm: Pcm) -> None:
        """Take the next piece of what was decoded."""
        if pcm.shape[0] != self._channels:
            raise Mismatch(float(len(self.ratios)), f"{pcm.shape[0]} channels instead of {self._channels}")
        self._decoded.append(pcm)
        self._have[1] += pcm.shape[1]
        self._advance()

    def finish(self) -> bytes:
        """Compare what is left; the two streams must be equally long."""
        if self._have[0] != self._have[1]:
            raise Mismatch(
                float(len(self.ratios)), f"{self._have[1]} samples are left where the source has {self._have[0]}"
            )
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
        least = self._least if samples * 2 >= self._unit else min(self._least, STUMP)
        try:
            self.ratios.append(compare(source, decoded, self._rate, least))
        except Mismatch as mismatch:
            second = len(self.ratios) * self._unit / self._rate
            raise Mismatch(second, mismatch.detail) from None


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
