"""Who brings a title here? What the scheduler asks for a job of kind download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiom4b.jobs.job import Job
from aiom4b.models import Name, Progress


class Fetcher(Protocol):
    """Fetches titles of the owner's Audible library."""

    async def fetch(self, job: Job, report: Callable[[Progress], None]) -> Name:
        """Bring the job's title here and queue its book; return the folder with its files. Safe to repeat after any stop.

        Raises errors of ours; one with ``later`` asks to be tried again after that time, as often as it takes.
        """
        ...
