"""Has an entry been quiet for long enough? Pure: what was seen of it and when, on a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from aiom4b.jobs.job import EntryState, SourceEntry

_SAME_COPY = 10  # settle times: after a longer lull it is somebody who adds something later, not a slow copy
_TO_BE_LOOKED_AT = frozenset({EntryState.SETTLING, EntryState.READY})
# A job ended because its source was another than the one that was accepted: that must be looked at, whatever it seems.
_TAKEN_UP_AFRESH = frozenset({"source.changed", "source.vanished"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """What we saw of one entry, in monotonic seconds: ``digest`` first at ``since`` and last at ``seen``.

    ``lull`` is the longest time for which this copy seemed to be over, and went on.
    """

    digest: str
    since: float
    seen: float
    lull: float = 0.0

    def quiet_from(self, settle_seconds: float) -> float:
        """Return from when on it counts as quiet, if it is then seen unchanged: a copy that pauses is given twice its pauses."""
        return self.since + max(settle_seconds, 2 * self.lull)

    def is_quiet(self, settle_seconds: float) -> bool:
        """Whether it was seen unchanged for long enough."""
        return self.seen >= self.quiet_from(settle_seconds)


def seen(before: Settling | None, digest: str, began: float, ended: float, settle_seconds: float) -> Settling:
    """Return what we know after one more look, which took from ``began`` to ``ended``.

    On a slow disk that may be long: what is new is new since the end at the latest, what is the same was so at the beginning.
    """
    if before is None:
        return Settling(digest=digest, since=ended, seen=ended)
    if before.digest == digest:
        return Settling(digest=digest, since=before.since, seen=max(began, before.seen), lull=before.lull)
    lull = before.seen - before.since
    same_copy = lull <= _SAME_COPY * settle_seconds
    return Settling(digest=digest, since=ended, seen=ended, lull=max(before.lull, lull) if same_copy else 0.0)


def is_known(entry: SourceEntry | None, digest: str) -> bool:
    """Whether an entry that looks like this has been dealt with, in this life of the service or an earlier one."""
    return (
        entry is not None
        and entry.digest == digest
        and entry.state not in _TO_BE_LOOKED_AT
        and (entry.problem is None or entry.problem.code not in _TAKEN_UP_AFRESH)
    )


def patience_left(entry: SourceEntry, now: datetime, incomplete_hours: float) -> float:
    """Return for how many seconds more an incomplete entry is waited for; 0 when that is over."""
    return max(0.0, (entry.changed + timedelta(hours=incomplete_hours) - now).total_seconds())
