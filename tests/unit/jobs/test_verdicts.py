"""Does a job go on by itself where it can, wait where somebody must choose, and fail only when nothing else is left?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from aiom4b.errors import Fatal, NeedsAttention, Transient
from aiom4b.jobs.verdicts import Course, Verdict, verdict


def judged(kind, code, attempts=1, most=5):
    return verdict(kind(code, "It went wrong.", remedy="Mend it."), attempts, most)


def test_passing_failures_are_tried_again_after_pauses_that_double_and_then_fail():
    pauses = [judged(Transient, "worker.crashed", attempts).pause.total_seconds() for attempts in (1, 2, 3, 4)]
    assert pauses == [30, 60, 120, 240]
    assert judged(Transient, "worker.crashed", 4) == Verdict(course=Course.AGAIN, pause=timedelta(seconds=240))
    assert judged(Transient, "worker.crashed", 5) == Verdict(course=Course.FAIL)
    assert judged(Transient, "worker.crashed", 1, most=1).course is Course.FAIL


@pytest.mark.parametrize("kind", [Transient, NeedsAttention])
def test_an_error_that_says_when_is_believed_as_often_as_it_takes(kind):
    error = kind("audible.rate", "It went wrong.", remedy="Mend it.", later=timedelta(days=3))
    assert verdict(error, 1000, 5) == Verdict(course=Course.AGAIN, pause=timedelta(days=3), counts=False)


def test_no_pause_is_longer_than_an_hour():
    assert judged(Transient, "file.io", 90, most=100).pause == judged(Transient, "file.io", 9, 100).pause
    assert judged(Transient, "file.io", 8, most=100).pause == timedelta(hours=1)


@pytest.mark.parametrize("code", ["book.busy", "backup.busy", "space.full", "volume.missing"])
def test_what_says_nothing_of_the_book_uses_up_no_attempt_however_often(code):
    wait = judged(Transient, code, attempts=1000)
    assert (wait.course, wait.counts) == (Course.AGAIN, False)
    assert timedelta(0) < wait.pause <= timedelta(minutes=1)


@pytest.mark.parametrize(
    "code", ["directory.missing", "directory.not_writable", "file.not_permitted", "file.missing", "config.template"]
)
def test_what_its_owner_mends_without_a_word_is_looked_at_again(code):
    kind = Fatal if code.startswith("config.") else NeedsAttention
    wait = judged(kind, code, attempts=1000)
    assert (wait.course, wait.counts) == (Course.AGAIN, False)
    assert timedelta(0) < wait.pause <= timedelta(minutes=1)


@pytest.mark.parametrize("code", ["order.contradiction", "order.unclear", "order.tags_unusable", "order.not_these"])
def test_a_choice_is_waited_for(code):
    assert judged(NeedsAttention, code, attempts=9) == Verdict(course=Course.CHOICE, counts=False)


def test_a_source_that_changed_goes_back_to_the_watch():
    assert judged(Transient, "source.changed", attempts=9) == Verdict(course=Course.SETTLE, counts=False)


@pytest.mark.parametrize("code", ["proof.sound", "program.error", "source.truncated", "output.unusable"])
def test_what_only_another_source_or_wish_can_mend_fails_at_once(code):
    assert judged(NeedsAttention, code) == Verdict(course=Course.FAIL)


@pytest.mark.parametrize("code", ["audible.key_missing", "audible.key_wrong"])
def test_hundreds_of_locked_books_once_kept_the_service_busy_for_ever(code):
    assert judged(NeedsAttention, code, 1000) == Verdict(course=Course.AGAIN, pause=timedelta(minutes=10), counts=False)
