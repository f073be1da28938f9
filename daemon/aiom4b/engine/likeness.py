"""Is this second of sound the one that it was made from? A measure that can fail.

An encoder changes every sample, so equality can't be asked for; and signal-to-noise over the whole band says little of hiss
and applause, which AAC replaces by noise of its own. What it never replaces is the waveform of the lowest band, up to 2.7 kHz or so. There, in
every second and in every channel, the decoded sound must follow the source closely (``floor``), and in no loud block of
23 ms may it fall silent. Wrong order, a shift by one block, a lost channel, a muted stretch or noise from a wrong key all give
0 dB or less; the worst legitimate material that we found (sparse clicks like applause, 24 kbit/s) gives 2.8 dB, speech at
64 kbit/s 27 dB and more.

Where a second holds little in that band, its energy up to 4 kHz, by block and by band, must be where the source
has it: noise may stand for noise, but silence and noise don't stand for a voice.

The transform's window covers two blocks, so a loud block's error is heard in the quiet one beside it too: the last 23 ms of
a pause hold an echo of the word to come. That is the word's error, and is forgiven as far as the word itself may err.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aiom4b.engine.encode import Pcm
from aiom4b.models import FRAME_SAMPLES

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

_LOUDER = 10.0
"""A block so much louder (power) than its neighbour spills into it. Measured at 64 kbit/s: an echo at -51 dBFS in a pause at
-74 before a word at -20; that one block brought the whole second to -7 dB, and the book was refused."""

_FAINT = -3.0  # dB; honest minimum -1.2, noise at -40 dBFS added gives -5
_DROWNED = 0.3
"""The least correlation of a faint side. Honest minimum 0.46 (stereo at 32 kbit/s, one side 35 dB below the other); other
sound gives 0.1."""

_PLAIN = 12.0  # dB; above it nothing can be quieter than three quarters
_TURNED_DOWN = 1.3
"""The gain that brings the decoded sound nearest to its source. An encoder's noise makes it less than 1, what it leaves out does
not change it; a book at half its loudness has 6 dB of likeness, which is as much as the floor asks for."""

QUIET = math.nan
"""The verdict on a second without sound on either side."""
BEYOND = math.inf
"""The verdict on a second whose sound lies above the lowest band, and has its energy in the right places there."""


def floor(bit_rate: int, sample_rate: int, channels: int) -> float:
    """Return the least signal-to-noise ratio (dB, lowest band, one second) that is accepted.

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


def _low(pcm: Pcm, factor: int) -> Pcm:
    """Keep the lowest band: means of ``factor`` samples (a null at rate / factor), smoothed by 1-2-1."""
    means = pcm.reshape(pcm.shape[0], -1, factor) @ np.full(factor, 1 / factor, np.float32)
    smooth = means * np.float32(0.5)
    smooth[:, 1:] += means[:, :-1] * np.float32(0.25)
    smooth[:, :-1] += means[:, 1:] * np.float32(0.25)
    return np.asarray(smooth)


def _power(pcm: Pcm) -> list[float]:
    return [float(np.vdot(channel, channel)) / pcm.shape[1] for channel in pcm]


def compare(
    source: Pcm, decoded: Pcm, sample_rate: int, least: float, beside: tuple[Pcm | None, Pcm | None] = (None, None)
) -> float:
    """Compare about a second (whole blocks, same shape) and return the ratio of its worst channel in dB, QUIET or BEYOND.

    ``beside``: the source's blocks before and after, None where they are not known. Raises Mismatch (``second`` = 0) when it
    is not the same sound.
    """
    factor = 8 if sample_rate >= 32000 else 4
    total, heard = _power(source), _power(decoded)
    if not np.isfinite(heard).all():
        raise Mismatch(0.0, "the decoded sound is no sound")
    low, low_decoded = _low(source, factor), _low(decoded, factor)
    worst = QUIET
    for channel in range(source.shape[0]):
        one = _Channel(
            source=source[channel],
            decoded=decoded[channel],
            low=low[channel],
            low_decoded=low_decoded[channel],
            beside=tuple(None if block is None else block[channel : channel + 1] for block in beside),
            factor=factor,
            least=least,
            total=total[channel],
            heard=heard[channel],
            loudest=max(total),
        )
        try:
            ratio = _verdict(one, sample_rate)
        except Mismatch:
            # The quick filter folds a little of what lies above 4 kHz (-16 dB at 4.5, -20 at 5) into the lowest band, and
            # at 24 kbit/s the encoder rightly drops that. So nothing is refused before a sharp filter has said so too.
            sharp = [_sharp(pcm, factor, sample_rate) for pcm in (one.source, one.decoded)]
            ratio = _verdict(replace(one, low=sharp[0], low_decoded=sharp[1]), sample_rate)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """One channel of the second that is compared. What a hard second costs is worked out only there."""

    source: Samples1
    decoded: Samples1
    low: Samples1
    low_decoded: Samples1
    beside: tuple[Pcm | None, ...]
    factor: int
    least: float
    total: float
    heard: float
    loudest: float

    def error(self, wrong: Samples1) -> float:
        """Return the mean of the blocks' errors (mean squares) less what louder neighbours answer for."""
        return self._unforgiven(wrong, _by_block(self.source, FRAME_SAMPLES), [_mean(block) for block in self.beside])

    def error_low(self, wrong: Samples1) -> float:
        """Return the same for the lowest band."""
        beside = [None if block is None else _mean(_low(block, self.factor)) for block in self.beside]
        return self._unforgiven(wrong, _by_block(self.low, FRAME_SAMPLES // self.factor), beside)

    def spilt(self) -> NDArray[np.bool_]:
        """Return which blocks have a much louder neighbour, or one that is not known."""
        own = _by_block(self.source, FRAME_SAMPLES)
        before, after = (_mean(block) for block in self.beside)
        return _loudest_beside(own, math.inf if before is None else before, math.inf if after is None else after) > (
            _LOUDER * own
        )

    def _unforgiven(self, wrong: Samples1, own: Samples1, beside: Sequence[float | None]) -> float:
        loudest = _loudest_beside(own, beside[0] or 0.0, beside[1] or 0.0)
        owed = np.where(loudest > _LOUDER * own, loudest * 10.0 ** (-self.least / 10.0), 0.0)
        left = np.maximum(wrong - owed, 0.0)
        for place, known in zip((0, -1), beside, strict=True):
            if known is None:  # it may be loud; yet silence and noise must count for something: for 0 dB
                left[place] = min(left[place], own[place])
        return float(left.mean())


def _loudest_beside(own: Samples1, before: float, after: float) -> Samples1:
    """Return the power of the louder neighbour of each block; ``before`` and ``after`` are those of the first and the last."""
    return np.asarray(np.maximum(np.concatenate([[before], own[:-1]]), np.concatenate([own[1:], [after]])))


def _correlation(one: Samples1, other: Samples1) -> float:
    """Return the correlation, 1 for the same waveform at any loudness, 0 for silence and noise."""
    return float(np.vdot(one, other)) / math.sqrt(max(float(np.vdot(one, one) * np.vdot(other, other)), 1e-24))


def _sharp(samples: Samples1, factor: int, sample_rate: int) -> Samples1:
    """Keep the lowest band exactly, in as many samples as ``_low`` gives; slow."""
    spectrum = np.fft.rfft(samples)[: samples.size // factor // 2 + 1]
    spectrum[int(1000 * samples.size / sample_rate) + 1 :] = 0
    return np.asarray(np.fft.irfft(spectrum, samples.size // factor) / factor, np.float32)


def _mean(pcm: Pcm | None) -> float | None:
    return None if pcm is None else float(np.vdot(pcm, pcm)) / pcm.size


def _by_block(samples: Samples1, size: int) -> Samples1:
    """Return the mean square of each ``size`` samples."""
    return np.asarray(np.square(samples.reshape(-1, size)).mean(axis=1))


def _alike_above(one: _Channel, sample_rate: int) -> bool:
    """Whether the energy up to 4 kHz lies in the same blocks and bands."""
    (wanted, share), (heard, _) = (_energies(pcm, sample_rate) for pcm in (one.source, one.decoded))
    spilt = one.spilt()
    heard[spilt] = np.minimum(heard[spilt], wanted[spilt])
    if share < _LOW_SHARE:  # whistles and hisses above 4 kHz: they may be gone, but nothing may stand in their place
        return share * float(heard.sum()) <= _STRAY * float(wanted.sum())
    wanteds, heards = wanted.sum(axis=1), heard.sum(axis=1)
    if (heards < _DROPOUT * wanteds)[wanteds >= wanteds.mean()].any():
        return False
    most = max(float(wanteds.sum()), float(heards.sum()))
    return float(np.minimum(wanted, heard).sum()) >= _OVERLAP * most


def _energies(pcm: Samples1, sample_rate: int) -> tuple[Samples1, float]:
    """Return the energy up to 4 kHz as [blocks, bands], and its share of the whole."""
    spectrum = np.fft.rfft(pcm.reshape(-1, FRAME_SAMPLES) * np.hanning(FRAME_SAMPLES).astype(np.float32), axis=1)
    energy = np.square(np.abs(spectrum))
    top = min(energy.shape[1], int(_TOP * FRAME_SAMPLES / sample_rate))
    edges = np.linspace(0, top, _BANDS, endpoint=False).astype(int)
    bands = np.add.reduceat(energy[:, :top], edges, axis=1)
    return bands.astype(np.float32), float(bands.sum() / max(float(energy.sum()), 1e-12))


def _verdict(one: _Channel, sample_rate: int) -> float:
    ratio = _ratio(one)
    if ratio is not None:
        return ratio
    if not _alike_above(one, sample_rate):
        raise Mismatch(0.0, "the sound is not the source's")
    return BEYOND


def _ratio(one: _Channel) -> float | None:
    """Return the ratio in the lowest band, QUIET, or None where that band can't tell: there no waveform is owed."""
    total, heard = one.total, one.heard
    if total < _SILENCE:
        if heard > _AUDIBLE and one.error(_by_block(one.decoded, FRAME_SAMPLES)) > _AUDIBLE:
            raise Mismatch(0.0, "there is sound where the source is silent")
        return QUIET
    low, error, size = one.low, one.low - one.low_decoded, FRAME_SAMPLES // one.factor
    wanted, wrong = float(np.vdot(low, low)) / low.size, float(np.vdot(error, error)) / low.size
    above = wanted < _LOW_SHARE * total
    if above and wrong <= _STRAY * total:
        return None
    ratio = 10.0 * math.log10(max(wanted, 1e-12) / max(wrong, 1e-12))
    if above or ratio < one.least:
        wrong = one.error_low(_by_block(error, size))
        ratio = 10.0 * math.log10(max(wanted, 1e-12) / max(wrong, 1e-12))
    if above or ratio < one.least:
        if wrong <= _STRAY * total:  # hiss with a little below it, which the encoder rightly leaves out
            return None
        if above:
            raise Mismatch(0.0, "there is sound that the source does not have")
        # Joint coding shares the error out to both sides: a faint side may drown in the other's, but is still to be heard.
        if one.loudest > _LOUDER * total and ratio > _FAINT and _correlation(low, one.low_decoded) >= _DROWNED:
            return ratio
        raise Mismatch(0.0, f"only {ratio:.1f} dB of likeness, at least {one.least:.1f} dB are due")
    if ratio < _PLAIN and np.vdot(low, one.low_decoded) > _TURNED_DOWN * np.vdot(one.low_decoded, one.low_decoded):
        raise Mismatch(0.0, "it is quieter than the source")
    if ratio < _SURE:
        blocks, wrongs, heards = (_by_block(samples, size) for samples in (low, error, one.low_decoded))
        loud = blocks >= max(wanted, _SILENCE)
        if loud.any() and (np.maximum(1 - wrongs[loud] / blocks[loud], heards[loud] / blocks[loud]) < _DROPOUT).any():
            raise Mismatch(0.0, "the sound drops out")
    return ratio
