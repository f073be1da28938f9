"""Does what was found in an entry decide where it stands?"""

from __future__ import annotations

import pytest

import factories
from aiom4b.intake import verdict
from aiom4b.jobs.job import EntryState
from aiom4b.models import Incomplete, Rejected

BOOK = factories.source("1.mp3")
REJECTED = Rejected(path="/drop/x", code="source.no_audio", reason="No audio.", remedy="Add some.")
INCOMPLETE = Incomplete(path="/drop/x", code="source.track_missing", reason="Track 2 is missing.", remedy="Wait.")


@pytest.mark.parametrize(
    ("findings", "patient", "taken", "state", "code"),
    [
        ((BOOK,), True, 1, EntryState.DONE, None),
        ((BOOK, REJECTED), True, 1, EntryState.DONE, "source.no_audio"),
        ((REJECTED,), True, 0, EntryState.REJECTED, "source.no_audio"),
        ((INCOMPLETE,), True, 0, EntryState.INCOMPLETE, "source.track_missing"),
        ((BOOK, INCOMPLETE), True, 0, EntryState.INCOMPLETE, "source.track_missing"),
        ((REJECTED, INCOMPLETE, BOOK), False, 1, EntryState.NEEDS_ATTENTION, "source.track_missing"),
    ],
)
def test_findings_decide(findings, patient, taken, state, code):
    assert len(verdict.accepted(findings, patient=patient)) == taken
    found, problem = verdict.state("Emma", findings, patient=patient)
    assert (found, problem and problem.code) == (state, code)
