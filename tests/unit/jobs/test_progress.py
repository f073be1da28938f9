"""Does the per cent of a job only rise, through all its steps, and is 100 left to the book in the library?"""

from __future__ import annotations

import pytest

from aiom4b.jobs.progress import eta_seconds, overall
from aiom4b.models import Progress, Step


def at(step, done, total=100):
    return Progress(step=step, done=done, total=total)


def test_it_rises_from_step_to_step_and_ends_below_a_hundred():
    steps = [step for step in Step if step is not Step.DOWNLOAD]
    told = [overall(at(step, done), 0.0) for step in steps for done in (0, 50, 100)]
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] == 99.9


def test_encoding_is_nine_tenths_of_the_way():
    begin, half, end = (overall(at(Step.CONVERT, done), 0.0) for done in (0, 50, 100))
    assert (begin, half, end) == (4.0, 50.0, 96.0)


def test_a_download_is_a_job_of_its_own_from_nothing_to_all():
    told = [overall(at(Step.DOWNLOAD, done), 0.0) for done in (0, 50, 100)]
    assert told == [0.0, 50.0, 99.9]


def test_it_never_falls_below_what_was_told_before():
    assert overall(at(Step.BACKUP, 10), 62.5) == 62.5


def test_a_step_of_nothing_or_more_than_all_keeps_to_its_span():
    assert overall(at(Step.CONVERT, 0, 0), 0.0) == 4.0
    assert overall(at(Step.CONVERT, 300), 0.0) == 96.0


def test_what_is_left_is_reckoned_from_what_was_done():
    assert eta_seconds(at(Step.CONVERT, 25), 10.0) == 30.0
    assert eta_seconds(at(Step.CONVERT, 100), 10.0) == 0.0
    assert eta_seconds(at(Step.CONVERT, 130), 10.0) == 0.0


def test_what_an_earlier_attempt_left_says_nothing_of_how_fast_it_goes_now():
    assert eta_seconds(at(Step.DOWNLOAD, 80), 10.0, begun=70) == 20.0
    assert eta_seconds(at(Step.DOWNLOAD, 70), 10.0, begun=70) is None


@pytest.mark.parametrize(
    ("progress", "elapsed"),
    [
        (at(Step.CONVERT, 0), 10.0),
        (at(Step.CONVERT, 25), 0.9),
        (at(Step.BACKUP, 25), 10.0),
        (at(Step.VERIFY, 25), 10.0),
    ],
)
def test_no_time_is_told_before_there_is_anything_to_reckon_from(progress, elapsed):
    assert eta_seconds(progress, elapsed) is None
