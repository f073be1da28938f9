"""What do we know of the source's entries? Their rows, and the state that follows from their jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import peewee

from aiom4b.book import order
from aiom4b.jobs.job import EntryState, JobId, Problem, SourceEntry, Status
from aiom4b.jobs.rows import EntryJobRow, EntryRow, JobRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """As much of a job as its entry's state depends on."""

    id: JobId
    status: Status
    not_before: datetime | None
    error: Problem | None

    @property
    def goes_on(self) -> bool:
        """Whether it is being worked on, or will be without anybody's help."""
        return not self.status.ended and (self.status is not Status.WAITING or self.not_before is not None)


def state_of(jobs: Sequence[Standing], left: Problem | None = None) -> tuple[EntryState, Problem | None]:
    """Return the state of an entry whose content became these jobs, at least one, and why it is not done.

    ``left`` is what kept something beside those jobs from becoming one: it stays told when they are completed.
    """
    for job in jobs:
        if job.goes_on:
            return EntryState.QUEUED, next((one.error for one in jobs if one.goes_on and one.error is not None), None)
    for job in jobs:
        if job.status in {Status.FAILED, Status.WAITING}:
            return EntryState.NEEDS_ATTENTION, job.error
    for job in jobs:
        if job.status is Status.CANCELLED:
            return EntryState.REJECTED, job.error
    return EntryState.DONE, left


def every(database: peewee.SqliteDatabase) -> list[SourceEntry]:
    """Return all entries in natural order of their names."""
    known = {entry.name: entry for entry in _values(database)}
    return [known[name] for name in order.natural(known)]


def one(database: peewee.SqliteDatabase, name: str) -> SourceEntry | None:
    """Return the entry of this name."""
    return next(iter(_values(database, names=[name])), None)


def put(database: peewee.SqliteDatabase, entry: SourceEntry) -> None:
    """Record an entry in place of what was known of it. Jobs that are gone are left out."""
    drop(database, entry.name)
    EntryRow.insert(
        name=entry.name,
        digest=entry.digest,
        state=entry.state,
        problem=entry.problem,
        fingerprints=entry.fingerprints,
        files=entry.files,
        size=entry.size,
        changed=entry.changed,
    ).execute(database)
    for place, job in enumerate(entry.jobs):
        found = JobRow.select(JobRow.sequence).where(JobRow.id == job).tuples().execute(database)
        for (sequence,) in found:
            EntryJobRow.insert(entry=entry.name, place=place, job=sequence).execute(database)


def drop(database: peewee.SqliteDatabase, name: str) -> None:
    """Forget an entry."""
    EntryRow.delete().where(EntryRow.name == name).execute(database)


def of_jobs(database: peewee.SqliteDatabase, sequences: Any) -> list[SourceEntry]:
    """Return the entries that these jobs (a query of sequences) came of."""
    names = EntryJobRow.select(EntryJobRow.entry).where(EntryJobRow.job.in_(sequences))
    return _values(database, names=names)


def keep_state(database: peewee.SqliteDatabase, entry: SourceEntry) -> None:
    """Record the state that an entry had from its jobs, if none of them is left; until then they speak for it."""
    if EntryJobRow.select().where(EntryJobRow.entry == entry.name).exists(database):
        return
    changes = EntryRow.update(state=entry.state, problem=entry.problem)
    changes.where(EntryRow.name == entry.name).execute(database)


def _values(database: peewee.SqliteDatabase, *, names: Any = None) -> list[SourceEntry]:
    standings: dict[str, list[Standing]] = defaultdict(list)
    query = (
        EntryJobRow.select(EntryJobRow.entry, JobRow.id, JobRow.status, JobRow.not_before, JobRow.error)
        .join(JobRow, on=(JobRow.sequence == EntryJobRow.job))
        .order_by(EntryJobRow.entry, EntryJobRow.place)
    )
    rows = EntryRow.select()
    if names is not None:
        query, rows = query.where(EntryJobRow.entry.in_(names)), rows.where(EntryRow.name.in_(names))
    for entry, job, status, not_before, error in query.tuples().execute(database):
        standings[entry].append(Standing(id=job, status=status, not_before=not_before, error=error))
    found = []
    for row in rows.execute(database):
        jobs = standings[row.name]
        # Only some of its books could be handed over, and the rest is tried again: it must not pass for dealt with.
        halfway = row.state is EntryState.READY and row.problem is not None
        state, problem = state_of(jobs, row.problem) if jobs and not halfway else (row.state, row.problem)
        found.append(
            SourceEntry(
                name=row.name,
                digest=row.digest,
                state=state,
                problem=problem,
                fingerprints=row.fingerprints,
                jobs=tuple(job.id for job in jobs),
                files=row.files,
                size=row.size,
                changed=row.changed,
            )
        )
    return found
