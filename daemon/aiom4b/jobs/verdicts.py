"""What follows for a job from an error? Tried again, waiting, given back to the watch, or failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(hours=1)
_LOOK_AGAIN = timedelta(seconds=15)

# Somebody else has the book, or the disk is full: that says nothing of the book, however often it is tried.
_NOT_ITS_FAULT = ("book.busy", "backup.busy", "space.full", "volume.missing")
# What its owner mends where it lies, without a word to us; so we look again by ourselves.
_MENDED_IN_PLACE = (
    "directory.missing",
    "directory.not_writable",
    "file.not_permitted",
    "file.missing",
    "config.template",
)
# A key that is put beside the book changes it, and a sign-in or new settings wake what waits (`Desk.look_for_keys`). The rest
# is patience: an old collection of hundreds of locked books must not keep the service busy.
LOCKED = ("audible.key_missing", "audible.key_wrong")
_LOOK_FOR_KEYS = timedelta(minutes=10)
# Only a choice of its owner helps.
_CHOICES = ("order.contradiction", "order.unclear", "order.tags_unusable", "order.not_these")


class Course(StrEnum):
    """How a job goes on after an error."""

    AGAIN = "again"  # at a time, by itself
    CHOICE = "choice"  # once its owner has chosen
    SETTLE = "settle"  # its source isn't what it was: the watch takes it up afresh
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a job; ``pause`` before it is tried again, with AGAIN only. ``counts``: as one of its attempts."""

    course: Course
    pause: timedelta = timedelta()
    counts: bool = True


def verdict(error: Aiom4bError, attempts: int, max_attempts: int) -> Verdict:
    """Judge. ``attempts`` counts the one that just failed.

    An error that says when it is worth trying again is believed. Else pauses double from half a minute to an hour, so that
    five attempts span seven minutes. What waits for somebody's hand or for free space is looked at four times a minute, as
    often as it takes.
    """
    if error.later is not None:
        return Verdict(course=Course.AGAIN, pause=error.later, counts=False)
    if error.code == "source.changed":
        return Verdict(course=Course.SETTLE, counts=False)
    if error.code in _NOT_ITS_FAULT:
        return Verdict(course=Course.AGAIN, pause=_LOOK_AGAIN, counts=False)
    if isinstance(error, Transient):
        if attempts >= max_attempts:
            return Verdict(course=Course.FAIL)
        return Verdict(course=Course.AGAIN, pause=min(_FIRST_PAUSE * 2 ** min(attempts - 1, 10), _LONGEST_PAUSE))
    if isinstance(error, NeedsAttention) and error.code in _CHOICES:
        return Verdict(course=Course.CHOICE, counts=False)
    if error.code in LOCKED:
        return Verdict(course=Course.AGAIN, pause=_LOOK_FOR_KEYS, counts=False)
    if error.code in _MENDED_IN_PLACE:
        return Verdict(course=Course.AGAIN, pause=_LOOK_AGAIN, counts=False)
    return Verdict(course=Course.FAIL)
