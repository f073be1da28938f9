"""Which state do the jobs of an entry give it?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiom4b.jobs.entries import Standing, state_of
from aiom4b.jobs.job import EntryState, JobId, Problem, Status

LATER = datetime(2026, 11, 22, tzinfo=UTC)
TORN = Problem(code="source.damaged", message="A file is torn.", remedy="Copy it again.")
FULL = Problem(code="space.full", message="The disk is full.", remedy="Free some space.")


def job(status, *, not_before=None, error=None):
    return Standing(id=JobId(str(status)), status=status, not_before=not_before, error=error)


COMPLETED = job(Status.COMPLETED)
FAILED = job(Status.FAILED, error=TORN)
CANCELLED = job(Status.CANCELLED, error=TORN)
PARKED = job(Status.WAITING, error=FULL)
DELAYED = job(Status.WAITING, not_before=LATER, error=FULL)


@pytest.mark.parametrize(
    ("jobs", "state", "problem"),
    [
        ([COMPLETED], EntryState.DONE, None),
        ([COMPLETED, COMPLETED], EntryState.DONE, None),
        ([FAILED, job(Status.QUEUED)], EntryState.QUEUED, None),
        ([FAILED, job(Status.RUNNING)], EntryState.QUEUED, None),
        ([PARKED, DELAYED], EntryState.QUEUED, FULL),
        ([COMPLETED, FAILED], EntryState.NEEDS_ATTENTION, TORN),
        ([CANCELLED, PARKED], EntryState.NEEDS_ATTENTION, FULL),
        ([COMPLETED, CANCELLED], EntryState.REJECTED, TORN),
    ],
)
def test_the_least_finished_job_speaks_for_the_entry(jobs, state, problem):
    assert state_of(jobs) == (state, problem)
    if all(one.error != other.error for one in jobs for other in jobs if one is not other):
        assert state_of(jobs[::-1]) == (state, problem)


def test_what_could_not_be_taken_beside_the_books_stays_told_once_they_are_done():
    assert state_of([COMPLETED], TORN) == (EntryState.DONE, TORN)
    assert state_of([COMPLETED, DELAYED], TORN) == (EntryState.QUEUED, FULL)
