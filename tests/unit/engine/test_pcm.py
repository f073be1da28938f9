"""Is the book one timeline, from whichever sample it is read? Joins, channels and sample rates."""

from __future__ import annotations

import functools
import itertools
import math

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import books
import sound
from aiom4b.book import timeline
from aiom4b.engine import pcm

RATES = [(44100, 48000), (48000, 44100), (22050, 44100), (32000, 44100), (8000, 22050), (48000, 8000), (11025, 48000)]
SECONDS = 2.2


def lay_out(files, rate, channels):
    return timeline.lay_out([file.audio for file in files], range(len(files)), rate, channels)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pcm")


@functools.cache
def recording(root, rate, channels=1, seconds=SECONDS, seed=1):
    data = sound.mp3(sound.speech(seconds, rate, channels=channels, seed=seed), rate, bit_rate=64000)
    return books.source_file(root, f"{rate}-{channels}-{seconds}-{seed}.mp3", data), sound.decoded(data)


def resampled(pcm, source_rate, rate):
    """Resample as a whole, with a second of silence on both sides: an independent way to the same samples."""
    layout = sound.LAYOUTS[len(pcm)]
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    padded = np.pad(pcm, ((0, 0), (source_rate, source_rate)))
    frame = av.AudioFrame.from_ndarray(padded, format="fltp", layout=layout)
    frame.sample_rate = source_rate
    whole = np.concatenate([one.to_ndarray() for one in resampler.resample(frame)], axis=1)
    return whole[:, rate : rate + math.ceil(pcm.shape[1] * rate / source_rate)]


@functools.cache
def whole_at(root, source_rate, rate):
    file, original = recording(root, source_rate)
    line = lay_out([file], rate, 1)
    return file, line, original, books.read(line, [file], root, 0, line.samples)[0]


@pytest.mark.parametrize(("source_rate", "rate"), RATES)
def test_a_resampled_file_is_the_resampled_whole_to_the_sample(root, source_rate, rate):
    file, line, original, whole = whole_at(root, source_rate, rate)
    assert line.samples == whole.shape[1] == math.ceil(file.audio.samples * rate / source_rate)
    np.testing.assert_array_equal(whole, resampled(original, source_rate, rate))


@pytest.mark.parametrize(("source_rate", "rate"), RATES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_range_of_a_resampled_file_is_that_range_of_the_whole(root, source_rate, rate, data):
    file, line, _, whole = whole_at(root, source_rate, rate)
    start = data.draw(st.integers(0, line.samples))
    stop = data.draw(st.integers(start, min(line.samples, start + 8000)))
    np.testing.assert_array_equal(books.read(line, [file], root, start, stop)[0], whole[:, start:stop])


def test_without_enough_before_it_a_range_comes_out_different(root, monkeypatch):
    """Guards the test above."""
    file, line, _, whole = whole_at(root, 48000, 8000)
    monkeypatch.setattr(pcm, "_FILTER_REACH", 8)
    assert not np.array_equal(books.read(line, [file], root, 5000, 6000)[0], whole[:, 5000:6000])


def test_files_of_one_foreign_rate_are_resampled_as_one_stream(root):
    """Resampled one by one they would click at the border and grow by a sample each."""
    one, first = recording(root, 22050, seconds=1.0)
    two, second = recording(root, 22050, seconds=1.1, seed=2)
    line = lay_out([one, two], 48000, 1)
    mine, _ = books.read(line, [one, two], root, 0, line.samples)
    np.testing.assert_array_equal(mine, resampled(np.concatenate([first, second], axis=1), 22050, 48000))


def test_tagged_files_join_exactly_and_in_the_order_given(root):
    one, first = recording(root, 44100, seconds=1.0)
    two, second = recording(root, 44100, seconds=1.1, seed=2)
    files = [one, two]
    line = timeline.lay_out([file.audio for file in files], (1, 0), 44100, 1)
    mine, flaws = books.read(line, files, root, 0, line.samples)
    assert flaws == 0
    np.testing.assert_array_equal(mine, np.concatenate([second, first], axis=1))
    assert timeline.starts(line) == (0, second.shape[1])


def test_untagged_pieces_of_one_recording_are_the_recording_again(tmp_path):
    voice = sound.speech(4, 32000)
    data = sound.mp3(voice, 32000, lame_tag=False)
    places = [0, *(books.frame_places(data)[at][0] for at in (30, 31, 75)), len(data)]
    parts = [data[at:to] for at, to in itertools.pairwise(places)]
    files = [books.source_file(tmp_path, f"{number}.mp3", part) for number, part in enumerate(parts)]
    line = lay_out(files, 32000, 1)
    assert [part.joined for part in line.runs[0].parts] == [False, True, True, True]
    whole = sound.decoded(data)
    mine, flaws = books.read(line, files, tmp_path, 0, line.samples)
    assert (mine.shape, flaws) == (whole.shape, 0)
    np.testing.assert_array_equal(mine, whole)
    for start in (30 * 1152 - 7, 30 * 1152, 31 * 1152, 76 * 1152 + 1):
        mine, _ = books.read(line, files, tmp_path, start, start + 5000)
        np.testing.assert_array_equal(mine, whole[:, start : start + 5000])


def test_mono_in_a_stereo_book_keeps_its_level_on_both_sides(root):
    file, mono = recording(root, 44100)
    line = lay_out([file], 44100, 2)
    mine, _ = books.read(line, [file], root, 0, line.samples)
    np.testing.assert_array_equal(mine, np.repeat(mono, 2, axis=0))  # swresample would take 3 dB off


def test_stereo_in_a_mono_book_is_the_mean_of_both_sides(root):
    file, stereo = recording(root, 44100, channels=2)
    line = lay_out([file], 44100, 1)
    mine, _ = books.read(line, [file], root, 0, line.samples)
    np.testing.assert_allclose(mine[0], (stereo[0] + stereo[1]) / 2, atol=1e-6)


def test_mixed_rates_and_channels_lie_one_after_the_other(root):
    files, wholes = zip(recording(root, 44100), recording(root, 22050), recording(root, 48000, channels=2), strict=True)
    line = lay_out(files, 44100, 2)
    assert [run.sample_rate for run in line.runs] == [44100, 22050, 48000]
    expected = [
        np.repeat(wholes[0], 2, axis=0),
        resampled(np.repeat(wholes[1], 2, axis=0), 22050, 44100),
        resampled(wholes[2], 48000, 44100),
    ]
    mine, _ = books.read(line, files, root, 0, line.samples)
    np.testing.assert_array_equal(mine, np.concatenate(expected, axis=1))
    for border in timeline.starts(line)[1:]:
        again, _ = books.read(line, files, root, border - 3000, border + 3000)
        np.testing.assert_array_equal(again, mine[:, border - 3000 : border + 3000])


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_chunks_are_the_same_samples_in_arrays_of_one_size(root, size):
    file, whole = recording(root, 44100)
    line = lay_out([file], 44100, 1)
    start, stop = (100, 400) if size == 1 else (100, line.samples)
    chunks = list(pcm.Reader().chunks(pcm.request(line, [file], str(root), start, stop), size))
    assert {chunk.shape[1] for chunk in chunks[:-1]} <= {size}
    assert all(chunk.flags.writeable for chunk in chunks)  # they are tamed in place
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), whole[:, start:stop])


def test_a_request_names_only_the_files_it_needs(root):
    one, _ = recording(root, 44100, seconds=1.0)
    two, _ = recording(root, 44100, seconds=1.1, seed=2)
    line = lay_out([one, two], 44100, 1)
    wanted = pcm.request(line, [one, two], str(root), 0, 1000)
    assert [stretch.recording.path for stretch in wanted.runs[0].stretches] == [str(root / one.path)]
