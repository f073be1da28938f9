"""Are two streams compared to their ends, wherever they are cut, and is what that gives summed up rightly?"""

from __future__ import annotations

import math

import numpy as np
import pytest

import sound
from aiom4b.engine import prove
from aiom4b.engine.likeness import Mismatch

RATE = 44100
LEAST = 3.0


def spoken():
    """Return (source, decoded): six seconds of a voice, and the same with a little noise."""
    source = sound.speech(6, RATE)[:, : 258 * 1024]
    return source, source + sound.noise(6, RATE, level=0.003)[:, : source.shape[1]]


def compared(source, heard):
    comparison = prove.Comparison(RATE, len(source), LEAST)
    comparison.expect(np.ascontiguousarray(source))
    comparison.hear(np.ascontiguousarray(heard))
    return np.frombuffer(comparison.finish(), "<f4")


def test_a_mismatch_says_where():
    source, heard = spoken()
    broken = heard.copy()
    broken[:, 3 * 44032 :] = 0
    with pytest.raises(Mismatch) as caught:
        compared(source, broken)
    assert caught.value.second == pytest.approx(3, abs=0.1)


def test_pieces_of_any_length_give_the_same_ratios():
    source, heard = spoken()
    expected = compared(source, heard)
    comparison = prove.Comparison(RATE, 1, LEAST)
    random = np.random.default_rng(1)
    places = [0, 0]
    while min(places) < source.shape[1]:
        for number, (pcm, take) in enumerate([(source, comparison.expect), (heard, comparison.hear)]):
            step = int(random.integers(1, 60000))
            take(pcm[:, places[number] : places[number] + step])
            places[number] = min(places[number] + step, pcm.shape[1])
    np.testing.assert_allclose(np.frombuffer(comparison.finish(), "<f4"), expected, rtol=1e-4)


@pytest.mark.parametrize("missing", [1, 1024, 50000])
def test_streams_of_different_length_are_refused(missing):
    source, heard = spoken()
    with pytest.raises(Mismatch, match="samples"):
        compared(source, heard[:, :-missing])
    with pytest.raises(Mismatch, match="samples"):
        compared(source[:, :-missing], heard)


def test_where_a_stream_ends_early_is_told_in_seconds_not_in_pieces():
    """At 8 kHz the unit of comparison is 1.024 s."""
    source = sound.speech(42, 8000)[:, : 40 * 8192]
    comparison = prove.Comparison(8000, 1, LEAST)
    comparison.expect(source)
    comparison.hear(source[:, :-1])
    with pytest.raises(Mismatch) as caught:
        comparison.finish()
    assert caught.value.second == pytest.approx(39 * 1.024)


def test_another_number_of_channels_is_refused():
    comparison = prove.Comparison(RATE, 2, LEAST)
    with pytest.raises(Mismatch, match="channels"):
        comparison.hear(np.zeros((1, 1024), np.float32))


def test_a_piece_too_short_for_an_average_is_not_held_to_one():
    source = sound.tone(2, RATE, frequency=440, level=0.4)
    heard = source + sound.tone(2, RATE, frequency=150, level=0.32)  # 2 dB below it
    with pytest.raises(Mismatch, match="likeness"):
        compared(source[:, : 43 * 1024], heard[:, : 43 * 1024])
    assert 0.5 < compared(source[:, : 9 * 1024], heard[:, : 9 * 1024])[0] < LEAST


def test_a_stump_is_judged_with_the_second_before_it():
    source, heard = spoken()
    lengths = [len(compared(source[:, : n * 1024], heard[:, : n * 1024])) for n in (43, 43 + 20, 43 + 30, 86 + 20)]
    assert lengths == [1, 1, 2, 2]


def test_a_muted_stump_at_the_end_is_refused():
    source, heard = spoken()
    stop = 2 * 44032 + 9 * 1024
    cut, broken = source[:, :stop], heard[:, :stop].copy()
    compared(cut, broken)
    broken[:, 2 * 44032 :] = 0
    with pytest.raises(Mismatch):
        compared(cut, broken)


def test_the_summary_tells_sound_silence_and_high_tones_apart():
    ratios = np.array([30, 20, math.nan, math.inf, 10, 25], "<f4").tobytes()
    check = prove.summary(ratios, 0.5)
    assert (check.seconds, check.quiet, check.beyond) == (4, 1, 1)
    assert (check.snr_min, check.snr_median, check.worst) == (10.0, 22.5, 2.0)


def test_the_summary_of_a_silent_book_invents_nothing():
    check = prove.summary(np.array([math.nan] * 3, "<f4").tobytes(), 1.0)
    assert (check.seconds, check.quiet, check.snr_min, check.worst) == (0, 3, 0.0, 0.0)
    assert prove.summary(b"", 1.0).seconds == 0
