"""Is the sound coded as its sources deserve?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiom4b.book.encoding import EncodeWishes, encoder, method, segment_frames
from aiom4b.errors import NeedsAttention
from aiom4b.models import Codec, Method
from factories import audio_facts

AUTO = EncodeWishes()
CLASSIC = EncodeWishes(bit_rate=128_000, channels=2, sample_rate=44100)
AAC = audio_facts(codec=Codec.AAC)


def facts(**known):
    return audio_facts(known.pop("seconds", 300.0), **known)


def test_one_aac_file_is_copied_whatever_is_wished_for_joins():
    assert method([AAC], AUTO) is Method.COPY
    assert method([AAC], EncodeWishes(copy_aac=False)) is Method.COPY


def test_several_alike_are_copied_unless_the_owner_wants_seamless_joins():
    assert method([AAC, AAC], AUTO) is Method.COPY
    assert method([AAC, AAC], EncodeWishes(copy_aac=False)) is Method.ENCODE


@pytest.mark.parametrize(
    "other",
    [
        facts(),
        replace(AAC, decoder_config=b"\x12\x10"),
        replace(AAC, sample_rate=48000),
        replace(AAC, samples_per_frame=960),
    ],
)
def test_what_is_not_alike_is_encoded(other):
    assert method([AAC, other], AUTO) is Method.ENCODE


@pytest.mark.parametrize(
    ("channels", "own", "made"),
    [
        (1, 320_000, 64_000),
        (1, 64_000, 64_000),
        (1, 48_000, 48_000),
        (1, 8_000, 24_000),
        (2, 320_000, 128_000),
        (2, 96_000, 96_000),
        (2, 16_000, 48_000),
    ],
)
def test_the_rate_is_the_sources_own_within_reason(channels, own, made):
    assert encoder([facts(channels=channels, bit_rate=own)], AUTO).bit_rate == made


def test_rates_are_weighted_by_length():
    mixed = [facts(seconds=900, bit_rate=32_000), facts(seconds=100, bit_rate=64_000)]
    assert encoder(mixed, AUTO).bit_rate == pytest.approx(35_200, abs=10)


def test_in_mono_less_is_asked_because_the_fast_coder_overshoots():
    assert encoder([facts()], AUTO).asked == 54_400
    assert encoder([facts(channels=2, bit_rate=128_000)], AUTO).asked == 128_000


def test_the_wider_of_mono_and_stereo_counts():
    assert encoder([facts(), facts(channels=2)], AUTO).channels == 2
    assert encoder([facts(), facts()], AUTO).channels == 1


@pytest.mark.parametrize(
    ("rate", "made"),
    [(8000, 22050), (11025, 22050), (12000, 22050), (16000, 16000), (22050, 22050), (44100, 44100), (48000, 48000)],
)
def test_the_sample_rate_is_the_sources_but_lifted_where_speech_would_suffer(rate, made):
    assert encoder([facts(sample_rate=rate)], AUTO).sample_rate == made


def test_a_rate_unknown_to_players_falls_back():
    assert encoder([facts(sample_rate=96000)], AUTO).sample_rate == 44100


def test_what_the_owner_fixed_is_obeyed():
    made = encoder([facts(sample_rate=22050)], CLASSIC)
    assert (made.bit_rate, made.channels, made.sample_rate, made.asked) == (128_000, 2, 44100, 128_000)


def test_folding_stereo_to_mono_halves_the_rate():
    assert encoder([facts(channels=2, bit_rate=96_000)], EncodeWishes(channels=1)).bit_rate == 48_000


def test_no_more_is_asked_than_the_standard_lets_a_packet_hold():
    made = encoder([facts(sample_rate=8000)], EncodeWishes(bit_rate=320_000, sample_rate=8000))
    assert made.bit_rate == 48_000


def test_surround_is_refused_with_a_remedy():
    with pytest.raises(NeedsAttention) as caught:
        encoder([facts(channels=6, codec=Codec.AAC)], AUTO)
    assert caught.value.code == "audio.channels"


def test_a_short_book_is_cut_finer_so_that_all_cores_get_some():
    assert segment_frames(20 * 3600 * 44100, 44100) == round(120 * 44100 / 1024)
    assert segment_frames(60 * 44100, 44100) == round(15 * 44100 / 1024)
    assert segment_frames(3200 * 44100, 44100) == round(50 * 44100 / 1024)
    assert segment_frames(1, 8000) >= 1
