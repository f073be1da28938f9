"""What has been recorded of each entry? The records as they are in the database, at hand without asking it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import anyio
import structlog

from aiom4b.adapters.files import displayable
from aiom4b.errors import Transient
from aiom4b.intake.watcher import Publish
from aiom4b.jobs.events import of_entry
from aiom4b.jobs.job import Job, JobId, Problem, SourceEntry
from aiom4b.models import Name, Source

log = structlog.get_logger()


class Accepted(Protocol):
    """What became of a source that was handed over: an open job, or the path of the book that is there ``already``."""

    @property
    def job(self) -> Job | None:
        """The job that makes it a book."""
        ...

    @property
    def already(self) -> str | None:
        """The book that exists."""
        ...


class Jobs(Protocol):
    """What the inbox needs of those who do the work and keep the records."""

    async def accept(self, source: Source, entry: Name, /) -> Accepted:
        """Take a complete source as a job, unless there is one for the same content, or the book itself."""
        ...

    async def withdraw(self, job_id: JobId, problem: Problem, /, *, vanished: bool) -> bool:
        """End a job whose source is not what it was, unless it has ended; whether it was ended by this."""
        ...

    async def entries(self) -> Sequence[SourceEntry]:
        """Return all records, their states following their jobs."""
        ...

    async def put_entry(self, entry: SourceEntry, /) -> None:
        """Record an entry."""
        ...

    async def drop_entry(self, name: Name, /) -> None:
        """Forget an entry."""
        ...


class Entries:
    """The records of all entries. Another may change them in the database; `refresh` tells."""

    def __init__(self, jobs: Jobs, publish: Publish) -> None:
        self._jobs = jobs
        self._publish = publish
        self._known: dict[Name, SourceEntry] = {}
        self._recorded: dict[Name, SourceEntry] = {}
        self._one_at_a_time = anyio.Lock()  # a refresh must not bring back what was just replaced

    def get(self, name: Name) -> SourceEntry | None:
        """Return what is known of an entry."""
        return self._known.get(name)

    def names(self) -> set[Name]:
        """Return the names of all entries that something is known of."""
        return set(self._known)

    async def refresh(self) -> None:
        """Read all records: states follow jobs, and a record that somebody removed is to be made anew."""
        async with self._one_at_a_time:
            unrecorded = {name: entry for name, entry in self._known.items() if entry != self._recorded.get(name)}
            self._recorded = {entry.name: entry for entry in await self._jobs.entries()}
            self._known = self._recorded | unrecorded
            for entry in unrecorded.values():
                await self._record(entry)

    async def put(self, entry: SourceEntry) -> None:
        """Record an entry and tell of it, if anything is new."""
        async with self._one_at_a_time:
            before = self._recorded.get(entry.name)
            self._known[entry.name] = entry
            if entry == before:
                return
            await self._record(entry)
        if before is None or (before.state, before.problem) != (entry.state, entry.problem):
            self._publish("entry.changed", **of_entry(entry))

    def note(self, entry: SourceEntry) -> None:
        """Keep what is known of an entry without recording it: it changes every second while it is copied."""
        self._known[entry.name] = entry

    async def drop(self, name: Name) -> None:
        """Forget an entry that is gone."""
        async with self._one_at_a_time:
            self._known.pop(name, None)
            if self._recorded.pop(name, None) is not None:
                with _put_off(name):  # the next refresh finds it again, and that it is gone
                    await self._jobs.drop_entry(name)
        self._publish("entry.changed", name=displayable(name), state=None, problem=None)

    async def _record(self, entry: SourceEntry) -> None:
        """Record an entry, or leave that to the next refresh if the database can't take it: its disk may be full."""
        with _put_off(entry.name):
            await self._jobs.put_entry(entry)
            self._recorded[entry.name] = entry

    async def withdraw(self, jobs: Iterable[JobId], problem: Problem, *, vanished: bool = False) -> None:
        """End what was begun with an entry that is no more what it was."""
        for job in jobs:
            with _put_off(job):  # a job whose source is another one ends by itself when it looks there
                await self._jobs.withdraw(job, problem, vanished=vanished)


@contextmanager
def _put_off(what: Name | JobId) -> Iterator[None]:
    """Go on although the database can't take a change: a full disk must not end the watch, and a later look tries again."""
    try:
        yield
    except Transient as error:
        log.warning("entry.not_recorded", entry=displayable(what), code=error.code, reason=error.reason)
