"""What does it mean for an entry, what was found in it? Pure: its state, and the reason if it isn't taken."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from aiom4b.adapters.files import displayable
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.job import EntryState, Problem
from aiom4b.models import Incomplete, Name, Rejected, Source
from aiom4b.steps.examine import Finding

HELD = "source.held"
"""The code of an entry that is complete to all appearance, but that somebody may still write to."""


def accepted(findings: Sequence[Finding], *, patient: bool) -> list[Source]:
    """Return the books to take now. While we wait for something missing, none: the rest of the entry may belong to it."""
    if patient and any(isinstance(finding, Incomplete) for finding in findings):
        return []
    return [finding for finding in findings if isinstance(finding, Source)]


def state(name: Name, findings: Sequence[Finding], *, patient: bool) -> tuple[EntryState, Problem | None]:
    """Return where an entry stands if none of its books becomes a job, and what kept something in it from being taken.

    DONE stands for books that are all in the library already.
    """
    for finding in findings:
        if isinstance(finding, Incomplete):
            return EntryState.INCOMPLETE if patient else EntryState.NEEDS_ATTENTION, problem_of(name, finding)
    problem = next((problem_of(name, finding) for finding in findings if isinstance(finding, Rejected)), None)
    any_book = any(isinstance(finding, Source) for finding in findings)
    return EntryState.DONE if any_book else EntryState.REJECTED, problem


def problem_of(name: Name, said: Aiom4bError | Rejected | Incomplete) -> Problem:
    """Return what keeps an entry from being taken."""
    return Problem.of(said, order=f"aiom4b submit {shlex.quote(displayable(name))} --order")


def arriving(path: str, temporary: str) -> Incomplete:
    """Say that a file in the entry bears the name of an unfinished copy."""
    return Incomplete(
        path=path,
        code="source.arriving",
        reason=f"{displayable(temporary)} looks like a file that is still being written.",
        remedy="Wait until it is complete, or remove it if it is left over from an interrupted copy.",
    )


def held(path: str, file: str) -> Incomplete:
    """Say that a file in the entry is open for writing."""
    return Incomplete(
        path=path,
        code=HELD,
        reason=f"Another program has {displayable(file)} open for writing.",
        remedy="Wait until that program has closed it, or end it.",
    )


CHANGED = Problem(
    code="source.changed",
    message="The source changed while its book was waiting or being made.",
    remedy="Nothing needs to be done: it is looked at afresh once it has settled.",
)
VANISHED = Problem(
    code="source.vanished",
    message="The source is gone from where it was.",
    remedy="Put it back if the book is still wanted.",
)
