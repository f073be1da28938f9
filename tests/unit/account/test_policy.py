"""Is Audible left alone as long as it takes, and never for ever?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.account import policy
from aiom4b.account.policy import ASKED, DAY, GRANTED, Refusal
from aiom4b.jobs.job import Problem
from aiom4b.jobs.title import Cause, Pause

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR, ZERO = timedelta(hours=1), timedelta(0)
TOLD = Problem(code="audible.rate", message="Too often.", remedy="Wait.")

times = st.timedeltas(min_value=-4000 * DAY, max_value=4000 * DAY).map(lambda away: NOON + away)
near = st.timedeltas(min_value=-2 * DAY, max_value=2 * DAY).map(lambda away: NOON + away)
jitters = st.floats(min_value=0, max_value=1)
causes = st.sampled_from([*Cause, *Refusal])
codes = st.sampled_from(
    [ASKED, GRANTED, "audible.licence_denied", "audible.no_asset", "audible.refused", "audible.rate", "audible.network"]
)


def pause(cause=Cause.THROTTLED, *, until=NOON + HOUR, failures=1):
    return Pause(cause=cause, until=until, failures=failures, problem=TOLD)


# --- back-off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "first", "most"),
    [
        (Refusal.ELIGIBILITY, DAY, 30 * DAY),
        (Refusal.NO_ASSET, 6 * HOUR, 7 * DAY),
        (Refusal.UNEXPLAINED, HOUR, 12 * HOUR),
        (Cause.OUTAGE, HOUR, 12 * HOUR),
        (Cause.THROTTLED, DAY, 7 * DAY),
        (Cause.NETWORK, HOUR / 60, HOUR),
    ],
)
def test_each_refusal_doubles_the_wait_up_to_its_bound(cause, first, most):
    waits = [policy.back_off(cause, failures, 0.0) for failures in range(1, 12)]
    assert waits[:3] == [first, 2 * first, 4 * first]
    assert waits[-1] == most == policy.most(cause)
    assert all(later == min(2 * earlier, most) for earlier, later in pairwise(waits))


@given(causes, st.integers(min_value=0, max_value=10**9), jitters)
def test_no_number_of_failures_and_no_jitter_makes_a_wait_endless(cause, failures, jitter):
    plain, wait = policy.back_off(cause, failures, 0.0), policy.back_off(cause, failures, jitter)
    assert ZERO < plain <= wait <= min(plain * 1.1001, policy.most(cause))


def test_jitter_spreads_what_waits():
    assert policy.back_off(Cause.RATE, 3, 0.0) < policy.back_off(Cause.RATE, 3, 0.5) < policy.back_off(Cause.RATE, 3, 1)


def test_every_error_concerns_the_account_or_the_title_or_neither():
    assert policy.cause_of("audible.customer_throttled") is Cause.THROTTLED
    assert policy.cause_of("audible.unauthorized") is Cause.UNAUTHORIZED
    assert policy.refusal_of("audible.licence_denied") is Refusal.ELIGIBILITY
    assert policy.refusal_of("audible.no_asset") is Refusal.NO_ASSET
    assert policy.cause_of("audible.network") is policy.cause_of("audible.unreachable") is Cause.NETWORK
    for code in ("audible.cut_download", "space.full", GRANTED, ASKED):
        assert policy.cause_of(code) is None
        assert policy.refusal_of(code) is None


def test_a_voucher_that_can_not_be_opened_holds_up_its_title_for_longer_than_the_account():
    code = policy.VOUCHER_UNREADABLE
    pause = policy.pause_after(policy.cause_of(code), None, TOLD, NOON, jitter=1)
    assert ZERO < policy.remaining(pause, NOON) < policy.title_wait([(NOON, code)], NOON)


def test_what_waits_for_its_own_title_is_told_from_what_waits_for_the_account():
    known = {"pauses": (), "asked": (), "now": NOON, "daily": 2}
    before = policy.hindrance(outcomes=[(NOON, "audible.no_asset")], **known).problem.code
    for code in (before, "audible.licence_denied", "audible.no_asset", "audible.refused"):
        assert policy.waits_alone(code)
    for code in ("audible.budget", "audible.rate", "audible.customer_throttled", "space.full", "audible.network"):
        assert not policy.waits_alone(code)


# --- pauses of an account ---------------------------------------------------------------------------------------------


def test_the_first_failure_pauses_an_account_and_the_next_one_longer():
    first = policy.pause_after(Cause.OUTAGE, None, TOLD, NOON, jitter=0)
    assert first == pause(Cause.OUTAGE, until=NOON + HOUR)
    second = policy.pause_after(Cause.OUTAGE, first, TOLD, NOON + HOUR, jitter=0)
    assert second == pause(Cause.OUTAGE, until=NOON + 3 * HOUR, failures=2)


def test_what_was_under_way_when_the_pause_began_counts_no_further():
    first = policy.pause_after(Cause.OUTAGE, None, TOLD, NOON, jitter=0)
    again = policy.pause_after(Cause.OUTAGE, first, TOLD, NOON + HOUR / 2, jitter=0)
    assert (again.failures, again.until) == (1, NOON + 1.5 * HOUR)


def test_what_audible_itself_says_counts_within_the_bounds():
    def until(retry_after, before=None):
        return policy.pause_after(Cause.RATE, before, TOLD, NOON, jitter=0, retry_after=retry_after).until

    assert until(17 * HOUR) == NOON + 17 * HOUR
    assert until(timedelta(seconds=5)) == NOON + timedelta(seconds=5)
    assert until(-HOUR) == NOON
    assert until(400 * DAY) == NOON + policy.most(Cause.RATE)
    assert until(timedelta(seconds=5), pause(Cause.RATE, until=NOON + HOUR)) == NOON + HOUR


@given(st.sampled_from(Cause), times, times, st.integers(min_value=1, max_value=100), jitters)
def test_a_pause_never_lasts_longer_than_its_bound_wherever_the_clock_was_set(cause, until, now, failures, jitter):
    before = pause(cause, until=until, failures=failures)
    assert ZERO <= policy.remaining(before, now) <= policy.most(cause)
    after = policy.pause_after(cause, before, TOLD, now, jitter=jitter)
    assert now < after.until <= now + policy.most(cause)
    assert after.failures in {failures, failures + 1}
    assert policy.remaining(after, now) == after.until - now


def test_a_pause_that_is_over_or_lies_too_far_ahead_holds_nothing_up():
    assert policy.remaining(pause(until=NOON + HOUR), NOON) == HOUR
    assert policy.remaining(pause(until=NOON), NOON) == ZERO
    assert policy.remaining(pause(until=NOON + 7 * DAY), NOON) == 7 * DAY
    assert policy.remaining(pause(until=NOON + 8 * DAY), NOON) == ZERO


# --- the budget -------------------------------------------------------------------------------------------------------


def test_licences_are_counted_over_24_hours_that_roll():
    asked = [NOON - 23 * HOUR, NOON - 2 * HOUR, NOON - HOUR]
    assert policy.budget_wait(asked, NOON, 4) == ZERO
    assert policy.budget_wait(asked, NOON, 3) == HOUR
    assert policy.budget_wait(asked, NOON + HOUR, 3) == ZERO
    assert policy.budget_wait(asked, NOON, 2) == 22 * HOUR
    assert policy.budget_wait([], NOON, 1) == ZERO


@given(st.lists(near), st.integers(min_value=1, max_value=10), near)
def test_no_24_hours_hold_more_licences_than_allowed(wishes, daily, start):
    now, asked = start, []
    for wish in sorted(wishes):
        now = max(now, wish)
        while (wait := policy.budget_wait(asked, now, daily)) > ZERO:
            now += wait
        asked.append(now)
    for time in asked:
        assert sum(time - DAY < other <= time for other in asked) <= daily


@given(st.lists(times, max_size=60), st.integers(min_value=1, max_value=5), times)
def test_no_clock_locks_the_budget_for_ever(asked, daily, now):
    end = now + 2 * DAY
    wait = policy.budget_wait(asked, now, daily)
    assert ZERO <= wait <= DAY
    while wait > ZERO:
        now += wait
        assert now <= end
        wait = policy.budget_wait(asked, now, daily)


# --- what titles came to ----------------------------------------------------------------------------------------------


def test_a_title_that_was_refused_is_left_alone_longer_each_time():
    refused = [(NOON - DAY, "audible.no_asset"), (NOON - 2 * DAY, "audible.no_asset"), (NOON - 3 * DAY, GRANTED)]
    assert policy.title_wait(refused[:1], NOON - DAY) == 6 * HOUR
    assert policy.title_wait(refused, NOON - DAY) == 12 * HOUR
    assert policy.title_wait(refused, NOON - DAY / 2) == ZERO
    assert policy.title_wait([(NOON, GRANTED), *refused], NOON) == ZERO
    assert policy.title_wait([], NOON) == ZERO


def test_only_refusals_of_one_kind_in_a_row_count_and_the_accounts_trouble_does_not():
    outcomes = [
        (NOON, "audible.network"),
        (NOON, ASKED),
        (NOON, "audible.no_asset"),
        (NOON - HOUR, "audible.customer_throttled"),
        (NOON - DAY, "audible.no_asset"),
        (NOON - 2 * DAY, "audible.licence_denied"),
        (NOON - 3 * DAY, "audible.no_asset"),
    ]
    assert policy.title_wait(outcomes, NOON) == 12 * HOUR


@given(st.lists(st.tuples(times, codes), max_size=20), times)
def test_no_clock_and_no_history_locks_a_title_for_ever(outcomes, now):
    outcomes.sort(key=lambda one: one[0], reverse=True)
    wait = policy.title_wait(outcomes, now)
    assert ZERO <= wait <= 30 * DAY
    if wait > ZERO:
        assert policy.title_wait(outcomes, now + wait) == ZERO


# --- one after the other ----------------------------------------------------------------------------------------------


@given(times, times, jitters)
def test_two_licences_are_some_seconds_apart_and_no_clock_makes_them_more(last, now, jitter):
    gap = policy.gap(last, now, jitter)
    assert ZERO <= gap <= timedelta(seconds=8)
    if now <= last:
        assert gap >= timedelta(seconds=2)
    if now >= last:
        assert now + gap >= last + timedelta(seconds=2)


def test_the_first_licence_need_not_wait():
    assert policy.gap(None, NOON, 1.0) == ZERO
    assert policy.gap(NOON - HOUR, NOON, 1.0) == ZERO
    assert policy.gap(NOON, NOON, 0.0) < policy.gap(NOON, NOON, 1.0)


def test_what_lasts_longest_is_what_the_owner_is_told():
    def told(**facts):
        known = {"pauses": (), "asked": (), "outcomes": (), "now": NOON, "daily": 2}
        wait = policy.hindrance(**(known | facts))
        return wait and (wait.time, wait.problem.code)

    assert told() is None
    assert told(asked=[NOON], outcomes=[(NOON, GRANTED)], pauses=[pause(until=NOON)]) is None
    asked, refused = [NOON - HOUR, NOON], [(NOON, "audible.no_asset")]
    assert told(asked=asked) == (23 * HOUR, "audible.budget")
    assert told(outcomes=refused) == (6 * HOUR, "audible.refused_before")
    assert told(pauses=[pause()]) == (HOUR, "audible.rate")
    assert told(asked=asked, outcomes=refused, pauses=[pause()]) == (23 * HOUR, "audible.budget")
    assert told(outcomes=refused, pauses=[pause(), pause(until=NOON + 7 * HOUR)]) == (7 * HOUR, "audible.rate")
