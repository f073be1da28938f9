"""Which jobs are there, and which one is next? The rows of jobs, inside a transaction of the store."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import peewee
from peewee import SQL, fn

from aiom4b.jobs import entries
from aiom4b.jobs.job import Job, JobId, Kind, Status
from aiom4b.jobs.rows import JobRow
from aiom4b.models import Fingerprint, Name

# In the words of the partial index: SQLite uses it only if it can tell from the text of the query that it may.
_OPEN = SQL("status IN ('queued', 'running', 'waiting')")
_OPEN_DOWNLOAD = SQL("asin != '' AND kind = 'download' AND status IN ('queued', 'running', 'waiting')")
_NEXT = JobRow.status.in_([Status.QUEUED, Status.WAITING])
_ENDED = JobRow.status.in_([status for status in Status if status.ended])
# Nothing waits that long for anything: a time further off was reckoned by a clock that has been set back since.
_LONGEST_WAIT = timedelta(days=32)


def add(database: peewee.SqliteDatabase, *, now: datetime, **columns: Any) -> Job:
    """Queue a new job with these columns."""
    sequence = JobRow.insert(
        id=str(uuid4()), status=Status.QUEUED, attempts=0, progress=0.0, created=now, updated=now, **columns
    ).execute(database)
    return _found(database, JobRow.sequence == sequence)[0]


def one(database: peewee.SqliteDatabase, id: JobId) -> Job | None:
    """Return a job."""
    return next(iter(_found(database, JobRow.id == id)), None)


def open_one(database: peewee.SqliteDatabase, fingerprint: Fingerprint | None) -> Job | None:
    """Return the job that has this fingerprint and has not ended; nobody has none."""
    if fingerprint is None:
        return None
    return next(iter(_found(database, (JobRow.fingerprint == fingerprint) & _OPEN)), None)


def same_work(database: peewee.SqliteDatabase, kind: Kind, fingerprint: Fingerprint | None, asin: str) -> Job | None:
    """Return the job that has not ended and makes what one of these facts would: the same content, the same download."""
    if kind is Kind.DOWNLOAD:
        return next(iter(_found(database, (JobRow.asin == asin) & _OPEN_DOWNLOAD)), None)
    return open_one(database, fingerprint)


def asked_for(database: peewee.SqliteDatabase, folder: Name) -> list[Job]:
    """Return the jobs that somebody asked for with this folder among others, the oldest first."""
    # Found as bytes first, so that only those rows are read as values: it is asked for each entry of the source.
    found = _found(database, JobRow.entry.is_null() & (fn.INSTR(JobRow.folders, os.fsencode(folder)) > 0))
    return [job for job in found if folder in job.folders]


def running(database: peewee.SqliteDatabase) -> list[Job]:
    """Return the jobs that are RUNNING, the oldest first."""
    return _found(database, JobRow.status == Status.RUNNING)


def page(
    database: peewee.SqliteDatabase,
    *,
    status: Collection[Status] | None,
    kind: Kind | None,
    beginning: str,
    limit: int,
    offset: int,
    oldest_first: bool,
) -> tuple[list[Job], int]:
    """Return some of the jobs of these statuses and this kind, their ids beginning so, and how many there are."""
    query = JobRow.select()
    if beginning:
        # A range, which the index of ids answers; ids hold nothing behind "f".
        query = query.where((JobRow.id >= beginning) & (JobRow.id < beginning + "g"))
    if status is not None:
        query = query.where(JobRow.status.in_(list(status)))
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    by_age = JobRow.sequence.asc() if oldest_first else JobRow.sequence.desc()
    rows = query.order_by(by_age).limit(limit).offset(offset).execute(database)
    return [row.value() for row in rows], query.count(database)


def counts(database: peewee.SqliteDatabase) -> dict[Status, int]:
    """Return how many jobs there are of each status."""
    query = JobRow.select(JobRow.status, fn.COUNT(JobRow.sequence)).group_by(JobRow.status)
    return dict.fromkeys(Status, 0) | dict(query.tuples().execute(database))


def next_one(database: peewee.SqliteDatabase, now: datetime, kinds: Collection[Kind]) -> Job | None:
    """Return the job of these kinds whose turn it is: by priority, the largest first, and then by age.

    A job that is WAITING without a time has to be helped first.
    """
    time = (JobRow.not_before <= now) | (JobRow.not_before > now + _LONGEST_WAIT)
    due = ((JobRow.status == Status.QUEUED) & JobRow.not_before.is_null()) | time
    query = JobRow.select().where(_NEXT & due & JobRow.kind.in_(list(kinds)))
    query = query.order_by(JobRow.priority.desc(), JobRow.sequence).limit(1)
    return next((row.value() for row in query.execute(database)), None)


def next_due(database: peewee.SqliteDatabase, kinds: Collection[Kind]) -> datetime | None:
    """Return the earliest time that a job of these kinds waits for."""
    query = JobRow.select(JobRow.not_before).where(_NEXT & JobRow.not_before.is_null(False))
    query = query.where(JobRow.kind.in_(list(kinds)))
    return min((time for (time,) in query.tuples().execute(database)), default=None)


def change(database: peewee.SqliteDatabase, job: Job, **columns: Any) -> Job:
    """Change a job that is there."""
    JobRow.update(**columns).where(JobRow.sequence == job.sequence).execute(database)
    return replace(job, **columns)


def remove(database: peewee.SqliteDatabase, id: JobId) -> int:
    """Remove a job if it has ended, and return how many that were."""
    return _remove(database, (JobRow.id == id) & _ENDED)


def clear(database: peewee.SqliteDatabase, statuses: Collection[Status], before: datetime | None) -> int:
    """Remove the jobs of these statuses that ended before a time, and return how many."""
    chosen = JobRow.status.in_(list(statuses)) & _ENDED
    return _remove(database, chosen if before is None else chosen & (JobRow.ended < before))


def _found(database: peewee.SqliteDatabase, chosen: Any) -> list[Job]:
    query = JobRow.select().where(chosen).order_by(JobRow.sequence)
    return [row.value() for row in query.execute(database)]


def _remove(database: peewee.SqliteDatabase, chosen: Any) -> int:
    concerned = entries.of_jobs(database, JobRow.select(JobRow.sequence).where(chosen))
    removed: int = JobRow.delete().where(chosen).execute(database)
    for entry in concerned:
        entries.keep_state(database, entry)
    return removed
