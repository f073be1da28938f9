"""How shall the sound be coded? Copy or encode, rate, channels, bit rate, and the grid of segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiom4b.book import timeline
from aiom4b.errors import NeedsAttention
from aiom4b.models import FRAME_SAMPLES, SAMPLE_RATES, AudioFacts, Codec, Encoder, Method

_MOST = {1: 64_000, 2: 128_000}
_LEAST = {1: 24_000, 2: 48_000}
_LOW_RATE = 16_000
_LIFTED_RATE = 22_050
_HIGHEST_RATE = 48_000
_FALLBACK_RATE = 44_100
_SHARE_ASKED_IN_MONO = 0.85

_SEGMENT_SECONDS = (15.0, 120.0)
_SEGMENTS_WANTED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeWishes:
    """What the owner fixed; None = decided by the sources."""

    bit_rate: int | None = None
    channels: int | None = None
    sample_rate: int | None = None
    aac_coder: str = "fast"
    copy_aac: bool = True


def method(audio: Sequence[AudioFacts], wishes: EncodeWishes) -> Method:
    """Copy AAC that needs no joining, or that can be joined as it is; encode everything else.

    What Audible locked is only ever copied: raises NeedsAttention ``audible.not_joinable`` where that can't be.
    """
    locked = any(facts.lock is not None for facts in audio)
    if locked and len({(one.codec, one.decoder_config, one.sample_rate, one.samples_per_frame) for one in audio}) > 1:
        raise NeedsAttention(
            "audible.not_joinable",
            "The files are coded differently, and files that Audible locked are never encoded again.",
            remedy="Drop each of them in a folder of its own, or download all parts in the same quality.",
        )
    if any(facts.codec is not Codec.AAC for facts in audio):
        return Method.ENCODE
    if len(audio) == 1:
        return Method.COPY
    alike = len({(facts.decoder_config, facts.sample_rate, facts.samples_per_frame) for facts in audio}) == 1
    return Method.COPY if alike and (wishes.copy_aac or locked) else Method.ENCODE


def encoder(audio: Sequence[AudioFacts], wishes: EncodeWishes) -> Encoder:
    """Decide the encoder's settings for these sources.

    Mono stays mono; with both, the wider one counts. The bit rate is the sources' own (weighted by length), at most 64 kbit/s
    mono and 128 kbit/s stereo. Speech under 16 kHz sounds better coded at 22.05 kHz (PESQ-NB 3.77 against 3.50 at 8 kHz).
    """
    for facts in audio:
        if facts.channels > 2:
            raise NeedsAttention(
                "audio.channels",
                f"The source has {facts.channels} channels; a book that is encoded has one or two.",
                remedy="Convert that file to stereo first. A single AAC file is copied as it is.",
            )
    channels = wishes.channels or max(facts.channels for facts in audio)
    rate = wishes.sample_rate or _sample_rate(timeline.common_rate(audio))
    if wishes.bit_rate is not None:
        bit_rate = wishes.bit_rate
    else:
        seconds = sum(facts.seconds for facts in audio)
        own = sum(facts.bit_rate * facts.seconds for facts in audio) / seconds if seconds else _MOST[channels]
        widest = max(facts.channels for facts in audio)
        own = own * channels / widest if channels < widest else own
        bit_rate = max(_LEAST[channels], min(_MOST[channels], int(own)))
    bit_rate = min(bit_rate, 6 * rate * channels)  # the standard's bound: 6144 bits a block and channel
    # The fast coder overshoots on speech in mono: asked for 64k it gives 76k, asked for 0.85 of it 65k.
    asked = int(bit_rate * _SHARE_ASKED_IN_MONO) if channels == 1 else bit_rate
    return Encoder(bit_rate=bit_rate, asked=asked, sample_rate=rate, channels=channels, aac_coder=wishes.aac_coder)


def _sample_rate(rate: int) -> int:
    if rate < _LOW_RATE:
        return _LIFTED_RATE
    return rate if rate in SAMPLE_RATES and rate <= _HIGHEST_RATE else _FALLBACK_RATE


def segment_frames(samples: int, sample_rate: int) -> int:
    """Return the length of a segment in blocks of 1024 samples: two minutes, less in a short book so that all cores get some.

    It depends on the book alone, never on the machine: otherwise one and the same book would differ between machines.
    """
    shortest, longest = _SEGMENT_SECONDS
    seconds = min(longest, max(shortest, samples / sample_rate / _SEGMENTS_WANTED))
    return max(1, round(seconds * sample_rate / FRAME_SAMPLES))
