"""What can go wrong, and who has to act? The exception tree, its verdicts and its stable codes."""

from __future__ import annotations

from datetime import timedelta
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line, after sysexits where one fits."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_FOUND = 4
    TRY_LATER = 75
    NOT_PERMITTED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


class Aiom4bError(Exception):
    """A failure that we understand: a stable code, a reason in plain words, and a remedy.

    ``code`` is dotted, lower case and never changes its meaning (``source.missing``): logs, the API and scripts rely on it.
    ``reason`` and ``remedy`` are whole sentences for a person; neither ever holds a secret. ``path`` names what it is about.
    ``later`` is after what time it is worth trying again, where that is known: whoever tells it says how long to wait.
    """

    exit: Exit = Exit.FAILED

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        remedy: str,
        path: str | None = None,
        exit: Exit | None = None,
        later: timedelta | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy
        self.path = path
        self.later = later
        if exit is not None:
            self.exit = exit

    def __str__(self) -> str:
        """Return the plain reason: what a person reads first."""
        return self.reason


class Transient(Aiom4bError):
    """It may well work later without anybody's help: full disk, a source still changing, a worker that crashed."""

    exit = Exit.TRY_LATER


class NeedsAttention(Aiom4bError):
    """A person has to act, as the remedy says; trying again changes nothing."""


class Fatal(Aiom4bError):
    """The program can't go on at all: broken settings, unusable directories."""

    exit = Exit.CONFIGURATION
