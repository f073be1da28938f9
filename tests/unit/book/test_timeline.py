"""Does every file lie where it should on the timeline, to the sample?"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.timeline import common_rate, flows_into, lay_out, starts
from aiom4b.models import Codec, Samples
from factories import audio_facts

CUT = audio_facts(2.0, start_skip=0, end_discard=Samples(0), gapless=False)


def test_the_book_has_the_rate_that_most_of_its_sound_has():
    assert common_rate([audio_facts(10, sample_rate=22050), audio_facts(11, sample_rate=44100)]) == 44100
    assert common_rate([audio_facts(6, sample_rate=22050)] * 2 + [audio_facts(11, sample_rate=44100)]) == 22050


def test_of_equally_common_rates_the_higher_one_loses_nothing():
    assert common_rate([audio_facts(10, sample_rate=48000), audio_facts(10, sample_rate=22050)]) == 48000


@given(st.lists(st.tuples(st.sampled_from([8000, 22050, 44100, 48000]), st.integers(1, 10**7)), min_size=1, max_size=9))
def test_runs_cover_the_book_without_gap_and_lengths_are_exact(files):
    audio = [replace(audio_facts(1, sample_rate=rate), samples=Samples(length)) for rate, length in files]
    line = lay_out(audio, range(len(audio)), 44100, 1)
    position = 0
    for run in line.runs:
        assert run.start == position
        assert run.source_samples == sum(part.samples for part in run.parts)
        assert run.samples == math.ceil(run.source_samples * 44100 / run.sample_rate)
        position += run.samples
    assert line.samples == position
    assert [part.file for run in line.runs for part in run.parts] == list(range(len(audio)))
    for before, after in zip(line.runs, line.runs[1:], strict=False):
        assert before.sample_rate != after.sample_rate
    ideal = sum(length * 44100 / rate for rate, length in files)
    assert 0 <= line.samples - ideal < len(line.runs)  # a sample a run, not a file


def test_the_start_of_a_resampled_file_is_within_half_a_sample_of_the_truth():
    audio = [replace(audio_facts(1, sample_rate=22050), samples=Samples(length)) for length in (1001, 33333, 7)]
    line = lay_out(audio, (2, 0, 1), 48000, 1)
    assert starts(line) == (0, round(7 * 48000 / 22050), round(1008 * 48000 / 22050))


def test_pieces_without_padding_at_the_border_flow_into_each_other():
    assert flows_into(CUT, CUT)
    # the first piece may declare its delay, the last one its padding: only the border between them counts
    assert flows_into(replace(CUT, start_skip=Samples(1105)), replace(CUT, end_discard=Samples(300)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (replace(CUT, end_discard=Samples(1)), CUT),
        (CUT, replace(CUT, start_skip=Samples(1105))),
        (CUT, replace(CUT, sample_rate=48000)),
        (CUT, replace(CUT, channels=2)),
        (CUT, replace(CUT, mpeg_version=2)),
        (CUT, replace(CUT, codec=Codec.AAC)),
        (replace(CUT, codec=Codec.AAC), replace(CUT, codec=Codec.AAC)),
    ],
)
def test_anything_else_starts_afresh(before, after):
    assert not flows_into(before, after)
    line = lay_out([before, after], (0, 1), 44100, 1)
    assert not any(part.joined for run in line.runs for part in run.parts)


def test_what_flows_together_follows_the_playing_order_not_the_list():
    tagged = audio_facts(2.0)
    line = lay_out([CUT, tagged, CUT], (1, 0, 2), 44100, 1)
    assert [part.joined for part in line.runs[0].parts] == [False, False, True]
