"""Does the measure accept what an honest encoder makes of any sound, and refuse everything else?"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import sound
from aiom4b.engine import encode, likeness, prove, segment
from aiom4b.engine.likeness import Mismatch
from aiom4b.models import Encoder

SECONDS = 6
RATE = 44100


def claps(rate, channels):
    """Return thousands of dull clicks at random places: the hardest honest material."""
    random = np.random.default_rng(3)
    pcm = np.zeros(SECONDS * rate, np.float32)
    clap = np.exp(-np.arange(200) / 30) * np.sin(np.arange(200) / 12)
    for at in random.integers(0, len(pcm) - 200, SECONDS * 40):
        pcm[at : at + 200] += random.uniform(0.05, 0.4) * clap
    return np.stack([pcm * (1 - 0.3 * side) for side in range(channels)])


SOUNDS = {
    "speech": lambda rate, channels: sound.speech(SECONDS, rate, channels=channels),
    "tone": lambda rate, channels: sound.tone(SECONDS, rate, channels=channels),
    "low tone": lambda rate, channels: sound.tone(SECONDS, rate, frequency=60, channels=channels),
    "noise": lambda rate, channels: sound.noise(SECONDS, rate, channels=channels, level=0.3),
    "applause": claps,
    "clicks": lambda rate, channels: sound.clicks(SECONDS, rate, channels=channels),
    "music": lambda rate, channels: (
        0.5 * sound.tone(SECONDS, rate, frequency=220, channels=channels)
        + 0.3 * sound.tone(SECONDS, rate, frequency=330.7, channels=channels)
        + 0.3 * sound.speech(SECONDS, rate, channels=channels, seed=9)
        + 0.2 * sound.clicks(SECONDS, rate, every=0.41, channels=channels)
    ),
    "silence": lambda rate, channels: sound.silence(SECONDS, rate, channels=channels),
    "almost silence": lambda rate, channels: sound.noise(SECONDS, rate, channels=channels, level=0.0003),
    "high tone": lambda rate, channels: sound.tone(SECONDS, rate, frequency=3000, channels=channels, level=0.2),
    "speech and pauses": lambda rate, channels: (
        sound.speech(SECONDS, rate, channels=channels) * (np.arange(SECONDS * rate) // rate % 2)
    ),
}
# channels, sample rate, bit rate asked
SETTINGS = [(1, 22050, 24000), (1, 44100, 32000), (1, 44100, 54400), (2, 44100, 64000), (2, 44100, 128000)]


def whole(pcm):
    pcm = np.array(pcm, np.float32)
    pcm = pcm[:, : pcm.shape[1] // 1024 * 1024]
    encode.tame(pcm)
    return pcm


@functools.cache
def coded(kind, channels, rate, bit_rate):
    """Return (source, decoded, least) of a sound really encoded and decoded."""
    pcm = whole(SOUNDS[kind](rate, channels))
    settings = Encoder(bit_rate=bit_rate, asked=bit_rate, sample_rate=rate, channels=channels, aac_coder="fast")
    packets = [packet for group in encode.packets([pcm], settings) for packet in group]
    heard = segment.decoded(segment.decoder(encode.decoder_config(settings)), packets, channels)[:, 1024:]
    return pcm, heard, likeness.floor(bit_rate, rate, channels)


def compared(source, heard, rate, least):
    comparison = prove.Comparison(rate, len(source), least)
    comparison.expect(np.ascontiguousarray(source))
    comparison.hear(np.ascontiguousarray(heard))
    return np.frombuffer(comparison.finish(), "<f4")


@pytest.mark.parametrize(("channels", "rate", "bit_rate"), SETTINGS)
@pytest.mark.parametrize("kind", SOUNDS)
def test_what_an_honest_encoder_makes_is_accepted(kind, channels, rate, bit_rate):
    source, heard, least = coded(kind, channels, rate, bit_rate)
    ratios = compared(source, heard, rate, least)
    assert len(ratios) == math.ceil(source.shape[1] / 1024 / prove.blocks_a_second(rate))
    if kind in {"speech", "music"}:
        assert np.median(ratios) > 12  # not merely tolerated


def test_speech_at_64k_is_measured_as_good_as_it_is():
    source, heard, least = coded("speech", 1, 44100, 54400)
    assert np.median(compared(source, heard, 44100, least)) > 20


# --- good books that were refused once --------------------------------------------------------------------------------


def gated(seconds, pause_level):
    """Return a voice that starts at once after each pause of room tone."""
    voice = sound.speech(seconds, RATE, seed=3)
    hiss = sound.noise(seconds, RATE, level=1, seed=4)
    talks = np.arange(voice.shape[1]) // 1024 % 215 < 85  # five seconds, two of them with the voice
    return (voice * talks + pause_level * hiss).astype(np.float32)


def honest(pcm, bit_rate, aac_coder="fast"):
    pcm = whole(pcm)
    settings = Encoder(bit_rate=bit_rate, asked=bit_rate, sample_rate=RATE, channels=len(pcm), aac_coder=aac_coder)
    packets = [packet for group in encode.packets([pcm], settings) for packet in group]
    heard = segment.decoded(segment.decoder(encode.decoder_config(settings)), packets, len(pcm))[:, 1024:]
    return pcm, heard, likeness.floor(bit_rate, RATE, len(pcm))


@pytest.mark.parametrize("pause_level", [0.0, 0.0006, 0.002])
@pytest.mark.parametrize("bit_rate", [24000, 54400])
@pytest.mark.parametrize("aac_coder", ["fast", "twoloop"])
def test_the_echo_before_a_word_does_not_condemn_the_pause_that_ends_there(pause_level, bit_rate, aac_coder):
    """Room tone at -60 dBFS and a gated voice at the default bit rate: such a book could never be converted."""
    source, heard, least = honest(gated(14, pause_level), bit_rate, aac_coder)
    compared(source, heard, RATE, least)


def test_a_pause_that_lost_its_room_tone_and_one_with_strange_noise_are_refused():
    source, heard, least = honest(gated(14, 0.002), 54400)
    pause = slice(3 * 44032, 4 * 44032)
    for instead in (0.0, 0.01 * np.random.default_rng(1).standard_normal((1, 44032))):
        broken = heard.copy()
        broken[:, pause] = instead
        with pytest.raises(Mismatch):
            compared(source, broken, RATE, least)


def test_a_faint_side_that_drowns_in_the_loud_one_is_accepted_and_a_lost_one_is_not():
    """Joint coding at 32 kbit/s leaves a side 35 dB below the other with more error than sound."""
    voice = sound.speech(SECONDS, RATE)
    source = whole(np.concatenate([voice, 0.018 * np.roll(voice, 221, axis=1)]))
    drowned = source.copy()
    signs = np.random.default_rng(1).choice(
        [-1.1, 1.1], source.shape[1] // 1024
    )  # error: each block, at random turned over
    drowned[1] += np.repeat(signs, 1024).astype(np.float32) * source[1]
    compared(source, drowned, RATE, 1.5)
    for lost in (0 * source[1], -source[1], drowned[1] - source[1]):
        with pytest.raises(Mismatch):
            compared(source, np.stack([source[0], lost]), RATE, 1.5)


def test_a_whistle_that_climbs_out_of_the_band_is_accepted():
    """What folds from 5 kHz into the lowest kilohertz is none of it; at 24 kbit/s the encoder leaves it out."""
    time = np.arange(SECONDS * RATE) / RATE
    whistle = 0.4 * np.sin(2 * np.pi * (2500 * time + 500 * np.square(time) / 2))[np.newaxis]
    source, heard, least = honest(whistle, 24000)
    compared(source, heard, RATE, least)


@pytest.mark.parametrize("kind", ["speech", "noise", "music", "applause"])
def test_a_book_at_half_its_loudness_is_refused(kind):
    """It has 6 dB of likeness, which no floor can refuse."""
    source, heard, least = coded(kind, 1, 44100, 54400)
    with pytest.raises(Mismatch, match="quieter"):
        compared(source, heard / 2, 44100, least)


def test_noise_in_place_of_hiss_that_lies_above_the_voice_is_refused():
    time = np.arange(SECONDS * RATE) / RATE
    source = whole(0.2 * np.sin(2 * np.pi * 6000 * time)[np.newaxis])
    compared(source, source, RATE, 3.0)
    with pytest.raises(Mismatch):
        compared(source, sound.noise(SECONDS, RATE, level=0.3)[:, : source.shape[1]], RATE, 3.0)


# --- mutants ----------------------------------------------------------------------------------------------------------


def late(heard):
    """One block late: what a lost or doubled packet does to all that follows."""
    return np.concatenate([np.zeros_like(heard[:, :1024]), heard[:, :-1024]], axis=1)


def early(heard):
    return np.concatenate([heard[:, 1024:], np.zeros_like(heard[:, :1024])], axis=1)


def swapped(heard):
    half = heard.shape[1] // 2048 * 1024
    return np.concatenate([heard[:, half : 2 * half], heard[:, :half], heard[:, 2 * half :]], axis=1)


def muted(heard):
    heard = heard.copy()
    heard[:, 2 * RATE : 4 * RATE] = 0
    return heard


def wrong_key(heard):
    level = float(np.sqrt(np.mean(np.square(heard)))) or 0.1
    return np.random.default_rng(5).normal(0, level, heard.shape).astype(np.float32)


def other_sound(heard):
    rate = RATE if heard.shape[1] > 5 * RATE else 22050
    return np.resize(sound.speech(7, rate, channels=len(heard), seed=77), heard.shape)


def shifted_a_little(heard):
    """5 ms late: a decoder's delay, an encoder's priming counted twice …"""
    return np.concatenate([np.zeros_like(heard[:, :221]), heard[:, :-221]], axis=1)


MUTANTS = (late, early, swapped, muted, wrong_key, other_sound)
# A steady tone is the same a block later as the phase allows, clicks on a grid are the same a period later, silence is the same
# everywhere: those mutants are no mutants there.
SAME_ANYHOW = {
    *((kind, mutant) for kind in ("silence", "almost silence") for mutant in (late, early, swapped, muted)),
    ("almost silence", wrong_key),  # made as quiet as the source: below -70 dBFS
    *(("high tone", mutant) for mutant in (late, early, swapped)),
    *((kind, swapped) for kind in ("tone", "low tone", "clicks")),
}


@pytest.mark.parametrize(("channels", "rate", "bit_rate"), SETTINGS)
@pytest.mark.parametrize(
    ("kind", "mutant"),
    [
        pytest.param(kind, mutant, id=f"{kind}-{mutant.__name__}")
        for kind in SOUNDS
        for mutant in MUTANTS
        if (kind, mutant) not in SAME_ANYHOW
    ],
)
def test_every_mutant_is_refused(kind, mutant, channels, rate, bit_rate):
    source, heard, least = coded(kind, channels, rate, bit_rate)
    with pytest.raises(Mismatch):
        compared(source, mutant(heard), rate, least)


@pytest.mark.parametrize("kind", ["speech", "music", "noise"])
def test_even_a_shift_of_five_milliseconds_is_refused(kind):
    source, heard, least = coded(kind, 1, 44100, 54400)
    with pytest.raises(Mismatch):
        compared(source, shifted_a_little(heard), 44100, least)


@pytest.mark.parametrize(
    ("kind", "lost", "instead"),
    [
        (kind, lost, instead)
        for kind in ("speech", "tone", "noise", "music", "speech and pauses")
        for lost in (0, 1)
        for instead in ("silence", "the other", "inverted")
        # The same voice 4.4 dB quieter has 8 dB of likeness: that is no loss that we can tell.
        if not ("speech" in kind and instead == "the other" and lost == 0)
    ],
)
def test_a_lost_channel_is_refused(kind, lost, instead):
    source, heard, least = coded(kind, 2, 44100, 128000)
    broken = heard.copy()
    broken[lost] = {"silence": 0 * heard[lost], "the other": heard[1 - lost], "inverted": -heard[lost]}[instead]
    with pytest.raises(Mismatch):
        compared(source, broken, 44100, least)


@pytest.mark.parametrize("kind", ["speech", "noise", "music"])
def test_swapped_sides_are_refused(kind):
    source, heard, least = coded(kind, 2, 44100, 128000)
    with pytest.raises(Mismatch):
        compared(source, heard[::-1], 44100, least)


@pytest.mark.parametrize("kind", ["speech", "tone", "noise", "music", "low tone"])
@pytest.mark.parametrize("blocks", [2, 5])
def test_a_dropout_of_some_blocks_is_refused(kind, blocks):
    source, heard, least = coded(kind, 1, 44100, 54400)
    power = np.square(source[0]).reshape(-1, 1024).sum(axis=1)
    loudest = int(np.argmax(np.convolve(power, np.ones(blocks), "valid")))
    broken = heard.copy()
    broken[:, loudest * 1024 : (loudest + blocks) * 1024] = 0
    with pytest.raises(Mismatch):
        compared(source, broken, 44100, least)


def test_sound_where_the_source_is_silent_is_refused():
    source = np.zeros((1, 44032), np.float32)
    with pytest.raises(Mismatch, match="silent"):
        likeness.compare(source, sound.tone(2, 44100)[:, :44032], 44100, 1.5)


def test_a_decoder_that_gives_no_numbers_is_refused():
    source = sound.speech(2, 44100)[:, :44032]
    heard = source.copy()
    heard[0, 5] = np.nan
    with pytest.raises(Mismatch, match="no sound"):
        likeness.compare(source, heard, 44100, 1.5)


def test_low_rumble_where_the_source_has_high_tones_only_is_refused():
    source, heard, least = coded("high tone", 1, 44100, 54400)
    rumble = sound.tone(SECONDS, 44100, frequency=100, level=0.2)[:, : heard.shape[1]]
    assert np.isinf(compared(source, heard, 44100, least)).any()
    with pytest.raises(Mismatch):
        compared(source, heard + rumble, 44100, least)


def test_a_high_tone_that_is_gone_is_refused():
    """Where the lowest kilohertz holds nothing, silence would pass as likeness."""
    source, heard, least = coded("high tone", 1, 44100, 54400)
    with pytest.raises(Mismatch):
        compared(source, np.zeros_like(heard), 44100, least)


def test_the_floor_rises_with_the_bits_a_sample_gets():
    floors = [likeness.floor(bit_rate, 44100, 1) for bit_rate in (8000, 24000, 48000, 64000, 96000, 320000)]
    assert floors == sorted(floors)
    assert (floors[0], floors[-1]) == (1.5, 6.0)
    assert likeness.floor(128000, 44100, 2) == likeness.floor(64000, 44100, 1)
