"""How far is a job as a whole? Steps weighted by the time they usually take, in per cent that never fall."""

from __future__ import annotations

from aiom4b.models import Progress, Step

# Where each step begins and ends, in per cent of its job: measured on two cores, encoding takes nine tenths of the time.
# Fetching a title is a job of its own.
_SPANS = {
    Step.DOWNLOAD: (0.0, 100.0),
    Step.EXAMINE: (0.0, 1.0),
    Step.BACKUP: (1.0, 4.0),
    Step.PLAN: (4.0, 4.0),
    Step.CONVERT: (4.0, 96.0),
    Step.VERIFY: (96.0, 99.5),
    Step.PUBLISH: (99.5, 100.0),
}


def overall(progress: Progress, before: float) -> float:
    """Return the per cent of the whole job, at least ``before``; 100 is said only by the one who saw it published."""
    begin, end = _SPANS[progress.step]
    share = progress.done / progress.total if progress.total else 0.0
    return max(before, min(begin + (end - begin) * min(share, 1.0), 99.9))


def eta_seconds(progress: Progress, elapsed: float, *, begun: int = 0) -> float | None:
    """Return how many seconds are left, None while there is nothing to reckon from.

    ``elapsed`` seconds were spent on what this step has done beyond ``begun``, which an earlier attempt had left. Only
    encoding and fetching take long enough to be worth a guess.
    """
    done = progress.done - begun
    if progress.step not in {Step.CONVERT, Step.DOWNLOAD} or done <= 0 or elapsed < 1:
        return None
    return elapsed * max(progress.total - progress.done, 0) / done
