"""When may Audible be asked for a licence, and how long is it left alone after a refusal? Values in, values out.

Audible says nowhere how many licences it allows. What its users report is that dozens a day bring a block of a day or two,
and that asking on makes it longer; so licences are few, one at a time, and each refusal doubles the wait, up to a bound.

Nothing waits for ever. Times in the database may lie in the future because the clock was set back since: whatever waits is
told a wait that no clock can make longer than its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aiom4b.jobs.job import Problem
from aiom4b.jobs.title import Cause, Pause

DAY = timedelta(days=1)
ASKED, GRANTED = "asked", "granted"
"""Outcomes in the ledger of licences beside the codes of errors: on its way (or its process died), and well."""
VOUCHER_UNREADABLE = "audible.voucher_unreadable"
"""The code of a licence that was given to another device than this one, or damaged."""

_ZERO = timedelta(0)
_SHORTEST_GAP, _LONGEST_GAP = timedelta(seconds=2), timedelta(seconds=8)
_SHARE = 0.1  # of a wait, by which jitter may make it longer


class Refusal(StrEnum):
    """Why one title's licence was not given."""

    ELIGIBILITY = "eligibility"
    NO_ASSET = "no_asset"
    UNEXPLAINED = "unexplained"
    VOUCHER = "voucher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long the first refusal of its kind lasts; each further one in a row twice as long, up to ``most``."""

    first: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """For how long from now no licence may be asked for, and why."""

    time: timedelta
    problem: Problem


_BOUNDS: dict[Cause | Refusal, Bounds] = {
    Refusal.ELIGIBILITY: Bounds(first=DAY, most=30 * DAY),
    Refusal.NO_ASSET: Bounds(first=timedelta(hours=6), most=7 * DAY),
    Refusal.UNEXPLAINED: Bounds(first=timedelta(hours=1), most=timedelta(hours=12)),
    # Longer than its account waits: if it is this title's fault alone, the others go first, and end the pause.
    Refusal.VOUCHER: Bounds(first=DAY, most=30 * DAY),
    Cause.THROTTLED: Bounds(first=DAY, most=7 * DAY),
    Cause.BUDGET: Bounds(first=DAY, most=DAY),
    Cause.RATE: Bounds(first=timedelta(minutes=1), most=2 * DAY),
    Cause.OUTAGE: Bounds(first=timedelta(hours=1), most=timedelta(hours=12)),
    Cause.NETWORK: Bounds(first=timedelta(minutes=1), most=timedelta(hours=1)),
    Cause.UNAUTHORIZED: Bounds(first=timedelta(hours=6), most=DAY),
    Cause.VOUCHERS: Bounds(first=timedelta(hours=6), most=DAY),
}
_CAUSES = {
    "audible.customer_throttled": Cause.THROTTLED,
    "audible.rate": Cause.RATE,
    "audible.server": Cause.OUTAGE,
    "audible.unreadable": Cause.OUTAGE,
    "audible.network": Cause.NETWORK,
    "audible.unreachable": Cause.NETWORK,
    "audible.unauthorized": Cause.UNAUTHORIZED,
    # Each was a licence, and the next one would be lost as well where the registration is what doesn't fit.
    VOUCHER_UNREADABLE: Cause.VOUCHERS,
}
_REFUSALS = {
    "audible.licence_denied": Refusal.ELIGIBILITY,
    "audible.no_asset": Refusal.NO_ASSET,
    "audible.protected_streaming": Refusal.NO_ASSET,
    "audible.other_codec": Refusal.NO_ASSET,
    "audible.not_found": Refusal.NO_ASSET,
    "audible.refused": Refusal.UNEXPLAINED,
    VOUCHER_UNREADABLE: Refusal.VOUCHER,
}


def cause_of(code: str) -> Cause | None:
    """Return why an error with this code concerns the whole account, None where it doesn't (or says nothing of Audible)."""
    return _CAUSES.get(code)


def refusal_of(code: str) -> Refusal | None:
    """Return why an error with this code holds up the one title, None where it doesn't."""
    return _REFUSALS.get(code)


def waits_alone(code: str) -> bool:
    """Whether what waits with this code waits for its own title, for weeks maybe, and others need not wait behind it."""
    return code == _REFUSED.code or refusal_of(code) is not None


def most(cause: Cause | Refusal) -> timedelta:
    """Return the longest wait for a cause."""
    return _BOUNDS[cause].most


def back_off(cause: Cause | Refusal, failures: int, jitter: float) -> timedelta:
    """Return how long to wait after so many failures (at least one) in a row; ``jitter`` from 0 to 1 makes it longer."""
    bounds = _BOUNDS[cause]
    # A number of days, since a timedelta can't be doubled without end; the bound is a matter of ten doublings.
    length = bounds.first * (1 << min(max(failures, 1) - 1, 16))
    return min(length * (1 + _SHARE * jitter), bounds.most)


def pause_after(
    cause: Cause,
    before: Pause | None,
    problem: Problem,
    now: datetime,
    *,
    jitter: float,
    retry_after: timedelta | None = None,
) -> Pause:
    """Return how long an account is left alone after a failure; ``before`` is the pause that its last one of this cause made.

    What fails while that lasts was under way already: it counts no further. ``retry_after`` is what Audible said itself.
    """
    failures = 1 if before is None else before.failures + (remaining(before, now) == _ZERO)
    length = back_off(cause, failures, jitter)
    if retry_after is not None:
        length = min(max(retry_after, _ZERO) + _LONGEST_GAP * jitter, most(cause))
    until = now + length
    if before is not None and remaining(before, now) > length:
        until = before.until
    return Pause(cause=cause, until=until, failures=failures, problem=problem)


def remaining(pause: Pause, now: datetime) -> timedelta:
    """Return how long a pause still lasts, zero when it is over. One that lies too far ahead is over: the clock was set back."""
    left = pause.until - now
    return left if _ZERO < left <= most(pause.cause) else _ZERO


def budget_wait(asked: Sequence[datetime], now: datetime, daily: int) -> timedelta:
    """Return for how long the licences of any 24 hours are used up; zero if one more may be asked for.

    ``asked`` are the times of those that were. Times ahead of now count too, as long as they end by themselves.
    """
    counted = sorted(time for time in asked if now - DAY < time <= now + DAY)
    if len(counted) < daily:
        return _ZERO
    return min(counted[len(counted) - daily] + DAY - now, DAY)


def title_wait(outcomes: Sequence[tuple[datetime, str]], now: datetime) -> timedelta:
    """Return for how long a title is left alone after what its licences came to, the latest first; zero if it may be asked for.

    Refusals of one kind in a row make it longer. Trouble of the whole account says nothing about the title.
    """
    kind, latest, failures = None, now, 0
    for at, outcome in outcomes:
        refusal = refusal_of(outcome)
        if refusal is None and outcome != GRANTED:
            continue
        if refusal is None or refusal is not (kind or refusal):
            break
        if kind is None:
            kind, latest = refusal, at
        failures += 1
    if kind is None:
        return _ZERO
    left = latest + back_off(kind, failures, 0.0) - now
    return left if _ZERO < left <= most(kind) else _ZERO


def gap(last: datetime | None, now: datetime, jitter: float) -> timedelta:
    """Return for how many seconds to wait between two licences, so that they don't come like clockwork; at most 8."""
    if last is None:
        return _ZERO
    wanted = _SHORTEST_GAP + (_LONGEST_GAP - _SHORTEST_GAP) * jitter
    return min(max(last + wanted - now, _ZERO), wanted)


def hindrance(
    *,
    pauses: Sequence[Pause],
    asked: Sequence[datetime],
    outcomes: Sequence[tuple[datetime, str]],
    now: datetime,
    daily: int,
) -> Wait | None:
    """Return what forbids to ask for a title's licence now, of several the one that lasts longest; None: it may be asked for.

    ``pauses`` and ``asked`` are those of the account, ``outcomes`` those of the title, the latest first.
    """
    found = [Wait(time=remaining(pause, now), problem=pause.problem) for pause in pauses]
    found.append(Wait(time=budget_wait(asked, now, daily), problem=_used_up(daily)))
    found.append(Wait(time=title_wait(outcomes, now), problem=_REFUSED))
    longest = max(found, key=lambda wait: wait.time)
    return longest if longest.time > _ZERO else None


_REFUSED = Problem(
    code="audible.refused_before",
    message="Audible refused the licence of this title when it was asked last.",
    remedy="Nothing needs to be done: it is asked again later, after a longer time with each refusal.",
)


def _used_up(daily: int) -> Problem:
    return Problem(
        code="audible.budget",
        message=f"Audible was asked for {daily} licences in the last 24 hours, and no more are asked for in such a time.",
        remedy="Nothing needs to be done: it goes on by itself. `audible.daily_licences` is the limit; with a higher one "
        "Audible may block the account for days.",
    )
