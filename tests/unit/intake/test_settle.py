"""Is an entry called quiet only when it was, for long enough, and then always?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aiom4b.intake.settle import Settling, is_known, patience_left, seen
from aiom4b.jobs.job import EntryState, Problem, SourceEntry

SETTLE = 30.0
ENTRY = SourceEntry(
    name="Emma",
    digest="a",
    state=EntryState.DONE,
    problem=None,
    fingerprints=(),
    jobs=(),
    files=1,
    size=1,
    changed=datetime(2024, 2, 29, tzinfo=UTC),
)


def looked(*looks, settle=SETTLE):
    known = None
    for now, digest in looks:
        known = seen(known, digest, now, now, settle)
    return known


def test_unchanged_for_the_settle_time_is_quiet():
    assert looked((0, "a"), (30, "a")).is_quiet(SETTLE)
    assert not looked((0, "a"), (29.9, "a")).is_quiet(SETTLE)


def test_only_a_look_makes_quiet_and_no_clock():
    known = looked((0, "a"))
    assert known.quiet_from(SETTLE) == 30
    assert not known.is_quiet(SETTLE)


def test_a_change_begins_the_time_anew():
    assert not looked((0, "a"), (29, "b"), (58, "b")).is_quiet(SETTLE)
    assert looked((0, "a"), (29, "b"), (59, "b")).is_quiet(SETTLE)


def test_a_copy_that_paused_is_waited_for_twice_as_long():
    assert not looked((0, "a"), (25, "a"), (26, "b"), (75, "b")).is_quiet(SETTLE)
    assert looked((0, "a"), (25, "a"), (26, "b"), (76, "b")).is_quiet(SETTLE)


def test_the_longest_pause_counts_over_the_whole_copy():
    assert looked((0, "a"), (100, "a"), (101, "b"), (102, "c"), (103, "c")).quiet_from(SETTLE) == 302


def test_a_look_that_took_long_counts_against_quiet():
    first = seen(None, "a", 0, 20, SETTLE)
    assert not seen(first, "a", 49, 80, SETTLE).is_quiet(SETTLE)
    assert seen(first, "a", 50, 80, SETTLE).is_quiet(SETTLE)
    changed = seen(first, "b", 50, 80, SETTLE)
    assert not seen(changed, "b", 109, 140, SETTLE).is_quiet(SETTLE)
    assert seen(changed, "b", 110, 140, SETTLE).is_quiet(SETTLE)


def test_something_added_long_after_is_no_slow_copy():
    known = looked((0, "a"), (25, "a"), (26, "b"), (400, "b"), (401, "c"))
    assert known.quiet_from(SETTLE) == 401 + SETTLE


class SlowCopy(RuleBasedStateMachine):
    """A world in which an entry changes whenever it likes, and somebody looks whenever he likes."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.version = 0
        self.changed = 0.0
        self.known: Settling | None = None
        self.first_seen = 0.0
        self.lulls = [0.0]

    @rule(seconds=strategies.floats(0, 4 * SETTLE), split=strategies.integers(1, 4))
    def time_passes(self, seconds, split):
        for _ in range(split):
            self.now += seconds / split
            self.look()

    @rule(seconds=strategies.floats(0, 2 * SETTLE))
    def nobody_looks(self, seconds):
        self.now += seconds

    @rule()
    def it_changes(self):
        self.version += 1
        self.changed = self.now

    @rule()
    def look(self):
        before = self.known
        self.known = seen(before, str(self.version), self.now, self.now, SETTLE)
        if before is None or before.digest != str(self.version):
            if before is not None:
                lull = before.seen - before.since
                self.lulls = [*self.lulls, lull] if lull <= 10 * SETTLE else [0.0]
            self.first_seen = self.now

    @invariant()
    def what_changed_within_the_settle_time_is_not_quiet_when_seen(self):
        if self.known is not None and self.known.seen == self.now and self.changed > self.now - SETTLE:
            up_to_date = self.known.digest == str(self.version)
            assert not (up_to_date and self.known.is_quiet(SETTLE) and self.changed > self.first_seen)
            assert not (self.known.is_quiet(SETTLE) and self.now - self.first_seen < SETTLE)

    @invariant()
    def quiet_means_twice_the_longest_pause_and_no_more(self):
        if self.known is not None:
            needed = max(SETTLE, 2 * max(self.lulls))
            unchanged = self.known.seen - self.first_seen
            assert self.known.is_quiet(SETTLE) == (unchanged >= needed) or abs(unchanged - needed) < 1e-6


SlowCopy.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestSlowCopy = SlowCopy.TestCase


@pytest.mark.parametrize("state", [EntryState.SETTLING, EntryState.READY])
def test_what_was_cut_off_in_the_middle_is_not_known(state):
    assert is_known(ENTRY, "a")
    assert not is_known(replace(ENTRY, state=state), "a")


def test_what_looks_different_is_not_known():
    assert not is_known(ENTRY, "b")
    assert not is_known(None, "a")


def test_an_entry_whose_job_found_another_source_is_not_known():
    other = Problem(code="source.changed", message="", remedy="")
    assert not is_known(replace(ENTRY, state=EntryState.REJECTED, problem=other), "a")
    assert is_known(replace(ENTRY, state=EntryState.REJECTED, problem=replace(other, code="source.no_audio")), "a")


def test_patience_counts_from_the_last_change():
    assert patience_left(ENTRY, ENTRY.changed + timedelta(hours=5), 6) == 3600
    assert patience_left(ENTRY, ENTRY.changed + timedelta(hours=7), 6) == 0
