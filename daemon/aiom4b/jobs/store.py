"""What do we know durably of jobs, entries and titles? Every question and every change is one transaction, in one thread.

On return a change survives a power cut. What has begun is brought to its end even if the caller is cancelled meanwhile, so
that nobody is left in doubt whether a job was claimed. Any call may raise Transient ``space.full``, ``database.busy`` or
``database.io`` (then nothing was changed) and Fatal ``database.damaged`` or ``database.unusable``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypedDict, TypeVar, Unpack

import anyio
import peewee

from aiom4b import models
from aiom4b.adapters import files
from aiom4b.errors import Exit, Fatal, NeedsAttention
from aiom4b.jobs import entries, queue, titles
from aiom4b.jobs.database import open_database, translated
from aiom4b.jobs.job import Job, JobEvent, JobId, JobOptions, Kind, Metrics, Problem, SourceEntry, Status
from aiom4b.jobs.rows import CounterRow, FlagRow, ForgottenRow, JobRow, NoteRow, PauseRow, PublishedRow
from aiom4b.jobs.title import Asin, Cause, Holding, Pause, Profile, SyncState, Title, TitleFacts, TitleStatus
from aiom4b.models import BookId, Clock, Fingerprint, Name, Step

KEPT_NOTES = 200
"""How many lines of a job's log are kept."""

_EVENT_IDS = "event"

_P = ParamSpec("_P")
_T = TypeVar("_T")


class JobChanges(TypedDict, total=False):
    """What `Store.update` can change of a job."""

    name: Name
    status: Status
    options: JobOptions
    priority: int
    attempts: int
    not_before: datetime | None
    step: Step | None
    progress: float
    eta_seconds: float | None
    output: Name | None
    book: BookId | None
    backup: Name | None
    error: Problem | None
    ended: datetime | None
    metrics: Metrics


def _transaction(
    lock: str,
) -> Callable[[Callable[Concatenate[Store, _P], _T]], Callable[Concatenate[Store, _P], Coroutine[Any, Any, _T]]]:
    def decorate(
        method: Callable[Concatenate[Store, _P], _T],
    ) -> Callable[Concatenate[Store, _P], Coroutine[Any, Any, _T]]:
        @wraps(method)
        async def call(store: Store, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            return await store._run(lock, partial(method, store, *args, **kwargs))  # noqa: SLF001 - its own methods

        return call

    return decorate


_reads = _transaction("DEFERRED")  # one view of the database, even on a full disk
_writes = _transaction("IMMEDIATE")  # waits for its turn at once instead of failing in the middle


class Store:
    """Jobs, their logs, entries, titles, and what was published, as the database has them. Open it with `Store.open`.

    ``damaged_aside`` is where a damaged database was put when this one was opened, None in better times.
    """

    def __init__(
        self,
        database: peewee.SqliteDatabase,
        thread: ThreadPoolExecutor,
        *,
        path: str,
        damaged_aside: str | None,
        clock: Clock,
    ) -> None:
        self.damaged_aside = damaged_aside
        self._clock = clock
        self._database = database
        self._thread = thread
        self._path = path
        self._inode = os.stat(path).st_ino

    @classmethod
    async def open(cls, path: str, *, clock: Clock = models.now) -> Self:
        """Return the store at ``path``, whose folder exists; a damaged one is put aside and begun anew.

        Raises Fatal ``database.newer`` when a newer release wrote it.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="aiom4b-store")
        try:
            with anyio.CancelScope(shield=True):
                loop = asyncio.get_running_loop()
                database, aside = await loop.run_in_executor(thread, open_database, path, clock)
            return cls(database, thread, path=path, damaged_aside=aside, clock=clock)
        except BaseException:
            thread.shutdown()
            raise

    async def close(self) -> None:
        """Close the database, which leaves one file that holds everything. No other call may follow."""
        with anyio.CancelScope(shield=True):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    async def _run(self, lock: str, work: Callable[[], _T]) -> _T:
        begun = asyncio.get_running_loop().run_in_executor(self._thread, self._in_transaction, lock, work)
        with anyio.CancelScope(shield=True):
            await begun
        return begun.result()

    def _in_transaction(self, lock: str, work: Callable[[], _T]) -> _T:
        with translated(self._path), self._database.atomic(lock):
            return work()

    @_reads
    def check(self) -> None:
        """Make sure that the database answers and is still the one under its name; Fatal ``database.replaced`` if not."""
        self._database.execute_sql("SELECT count(*) FROM flag").fetchall()
        try:
            there = os.stat(self._path).st_ino
        except FileNotFoundError:
            there = None
        if there != self._inode:
            raise Fatal(
                "database.replaced",
                f"The database {files.displayable(self._path)} was removed or replaced while it was in use.",
                remedy="Start the service again, and leave its state folder alone while it runs.",
                path=self._path,
                exit=Exit.FAILED,
            )

    # --- jobs ---------------------------------------------------------------------------------------------------------

    @_writes
    def add(
        self,
        *,
        kind: Kind,
        name: Name,
        folders: Sequence[Name],
        entry: Name | None,
        fingerprint: Fingerprint | None,
        options: JobOptions,
        now: datetime,
        priority: int = 0,
        audio_seconds: float = 0.0,
        bytes_in: int = 0,
        asin: str = "",
    ) -> tuple[Job, bool]:
        """Queue a job and return it with True; or, with False, the one that does the same work and has not ended.

        That is one with this fingerprint, or for a download one with this ASIN. If it didn't know its ASIN, it does now.
        """
        known = queue.same_work(self._database, kind, fingerprint, asin)
        if known is not None:
            return (queue.change(self._database, known, asin=asin) if asin and not known.asin else known), False
        job = queue.add(
            self._database,
            now=now,
            kind=kind,
            name=name,
            folders=tuple(folders),
            entry=entry,
            fingerprint=fingerprint,
            options=options,
            priority=priority,
            metrics=Metrics(audio_seconds=audio_seconds, bytes_in=bytes_in),
            asin=asin,
        )
        return job, True

    @_reads
    def job(self, id: JobId) -> Job | None:
        """Return a job."""
        return queue.one(self._database, id)

    @_reads
    def open_job(self, fingerprint: Fingerprint) -> Job | None:
        """Return the job that has this fingerprint and has not ended."""
        return queue.open_one(self._database, fingerprint)

    @_reads
    def asked_for(self, folder: Name) -> list[Job]:
        """Return the jobs that somebody asked for, not the watch, with this folder (absolute) among others."""
        return queue.asked_for(self._database, folder)

    @_reads
    def jobs(
        self,
        *,
        limit: int,
        offset: int,
        status: Collection[Status] | None = None,
        kind: Kind | None = None,
        beginning: str = "",
        oldest_first: bool = False,
    ) -> tuple[list[Job], int]:
        """Return a page of the jobs with one of these statuses and of this kind, and how many of them there are.

        With ``beginning`` only those whose ids begin so.
        """
        return queue.page(
            self._database,
            status=status,
            kind=kind,
            beginning=beginning,
            limit=limit,
            offset=offset,
            oldest_first=oldest_first,
        )

    @_reads
    def counts(self) -> dict[Status, int]:
        """Return how many jobs there are of each status, zeros included."""
        return queue.counts(self._database)

    @_writes
    def claim(self, now: datetime, kind: Kind | None = None) -> Job | None:
        """Take the next job that may run, of this kind if one is given. It is RUNNING on return.

        By priority, the largest first, and then by age. This counts as an attempt before any work begins, so that work which
        kills the process isn't tried for ever.
        """
        job = queue.next_one(self._database, now, tuple(Kind) if kind is None else (kind,))
        if job is None:
            return None
        return queue.change(
            self._database,
            job,
            status=Status.RUNNING,
            attempts=job.attempts + 1,
            not_before=None,
            error=None,
            started=job.started or now,
            updated=now,
        )

    @_reads
    def next_due(self, kinds: Collection[Kind] = tuple(Kind)) -> datetime | None:
        """Return the earliest time at which a job of these kinds that waits for its time may run: past if one may now."""
        return queue.next_due(self._database, kinds)

    @_writes
    def identify(
        self, id: JobId, fingerprint: Fingerprint, name: Name, audio_seconds: float, bytes_in: int, asin: str = ""
    ) -> Job | None:
        """Record what a look at its files showed of a job; without an ``asin`` it keeps the one that it has.

        None, and nothing is changed, if another job with this fingerprint has not ended, or the job is gone.
        """
        job, same = queue.one(self._database, id), queue.open_one(self._database, fingerprint)
        if job is None or (same is not None and same.id != id):
            return None
        metrics = replace(job.metrics, audio_seconds=audio_seconds, bytes_in=bytes_in)
        known = asin or job.asin
        return queue.change(self._database, job, fingerprint=fingerprint, name=name, metrics=metrics, asin=known)

    @_writes
    def update(
        self,
        id: JobId,
        now: datetime,
        *,
        only_if: Collection[Status] | None = None,
        **changes: Unpack[JobChanges],
    ) -> Job | None:
        """Change a job and return it; None if there is none, or its status is not in ``only_if``.

        Raises NeedsAttention ``job.conflict`` if an ended job is opened while another one works on the same content.
        """
        unknown = changes.keys() - JobChanges.__annotations__.keys()
        if unknown:
            raise TypeError(f"no such part of a job: {', '.join(sorted(unknown))}")
        job = queue.one(self._database, id)
        if job is None or (only_if is not None and job.status not in only_if):
            return None
        if job.status.ended and not changes.get("status", job.status).ended:
            same = queue.same_work(self._database, job.kind, job.fingerprint, job.asin)
            if same is not None:
                raise NeedsAttention(
                    "job.conflict",
                    f"Job {same.id} works on the same content and has not ended.",
                    remedy="Wait for that job, or cancel it first.",
                )
        changed = queue.change(self._database, job, updated=now, **changes)
        if changed.status is Status.COMPLETED and job.status is not Status.COMPLETED:
            titles.completed(self._database, changed, now)
        if changed.status is Status.CANCELLED and job.status is not Status.CANCELLED:
            titles.cancelled(self._database, changed, now)
        return changed

    @_writes
    def delete(self, id: JobId) -> bool:
        """Remove a job that has ended, with its log; whether there was one. Its entry keeps the state that it gave it."""
        return queue.remove(self._database, id) > 0

    @_writes
    def clear(self, *, statuses: Collection[Status], before: datetime | None) -> int:
        """Remove the jobs with one of these statuses that ended before a time, and return how many. Open jobs stay."""
        return queue.clear(self._database, statuses, before)

    @_writes
    def recover(self, now: datetime) -> list[Job]:
        """Queue again what was running when the last process ended, and return it, the oldest first."""
        back = {"status": Status.QUEUED, "updated": now}
        return [queue.change(self._database, job, **back) for job in queue.running(self._database)]

    # --- the log of a job ---------------------------------------------------------------------------------------------

    @_writes
    def note(self, id: JobId, now: datetime, event: str, /, **data: object) -> None:
        """Write a line into a job's log, ``data`` being JSON values; the newest `KEPT_NOTES` stay.

        A job that is gone has no log: nothing is written.
        """
        job = queue.one(self._database, id)
        if job is None:
            return
        NoteRow.insert(job=job.sequence, at=now, event=event, data=data).execute(self._database)
        of_job = NoteRow.job == job.sequence
        oldest = NoteRow.select(NoteRow.id).where(of_job).order_by(NoteRow.id.desc()).limit(1).offset(KEPT_NOTES)
        NoteRow.delete().where(of_job & (NoteRow.id <= oldest)).execute(self._database)

    @_reads
    def log(self, id: JobId) -> list[JobEvent]:
        """Return a job's log, the oldest line first; empty when there is no such job."""
        job = JobRow.select(JobRow.sequence).where(JobRow.id == id)
        lines = NoteRow.select().where(NoteRow.job == job).order_by(NoteRow.id)
        return [line.value() for line in lines.execute(self._database)]

    # --- entries of the source ----------------------------------------------------------------------------------------

    @_reads
    def entries(self) -> list[SourceEntry]:
        """Return all entries in natural order of their names, each with the state that its jobs give it.

        Work to do or in progress is QUEUED. Otherwise a job that failed, or waits for a person, is NEEDS_ATTENTION with its
        error; a cancelled one is REJECTED; and DONE is what is left. Without jobs the state is the one that was put, and so
        it is when that was READY with a problem: then only some of its books are jobs yet.
        """
        return entries.every(self._database)

    @_reads
    def entry(self, name: Name) -> SourceEntry | None:
        """Return an entry, with its state as in `entries`."""
        return entries.one(self._database, name)

    @_writes
    def put_entry(self, entry: SourceEntry) -> None:
        """Record an entry in place of what was known of it. ``jobs`` are those of its present content, if there are any."""
        entries.put(self._database, entry)

    @_writes
    def drop_entry(self, name: Name) -> None:
        """Forget an entry; its jobs stay."""
        entries.drop(self._database, name)

    # --- what outlives the jobs ---------------------------------------------------------------------------------------

    @_writes
    def remember_published(self, fingerprint: Fingerprint, book_id: BookId, book_path: Name, now: datetime) -> None:
        """Record which book was made of this content; the last one counts."""
        PublishedRow.insert(
            fingerprint=fingerprint, book=book_id, path=book_path, at=now
        ).on_conflict_replace().execute(self._database)

    @_reads
    def published(self, fingerprint: Fingerprint) -> Name | None:
        """Return the path of the book that was last made of this content."""
        rows = PublishedRow.select().where(PublishedRow.fingerprint == fingerprint).execute(self._database)
        return next((row.path for row in rows), None)

    @_writes
    def forget(self, fingerprint: Fingerprint) -> None:
        """Let this content be converted again when it is accepted, until `unforget`."""
        ForgottenRow.insert(fingerprint=fingerprint).on_conflict_replace().execute(self._database)

    @_reads
    def forgotten(self, fingerprint: Fingerprint) -> bool:
        """Tell whether `forget` counts for this content."""
        return self._there(ForgottenRow.fingerprint == fingerprint)

    @_writes
    def unforget(self, fingerprint: Fingerprint) -> None:
        """Take `forget` back."""
        ForgottenRow.delete().where(ForgottenRow.fingerprint == fingerprint).execute(self._database)

    # --- titles of the owner's accounts -------------------------------------------------------------------------------

    @_writes
    def put_titles(
        self, profile: Profile, facts: Sequence[TitleFacts], now: datetime, *, whole: bool, state: SyncState
    ) -> tuple[int, int, int]:
        """Record what one sync of an account told, and how far it is known now: both or neither.

        Returns how many titles are new, changed, and gone. With ``whole`` these are all of them, and what is missing is gone:
        UNAVAILABLE with ``title.revoked``, as is what says so itself; nothing that was told of it before is lost. A title that
        was not known once the library had been listed whole came later.
        """
        counts = titles.put(self._database, profile, facts, now, whole=whole)
        titles.set_sync_state(self._database, profile, state)
        return counts

    @_reads
    def titles(
        self,
        *,
        limit: int,
        offset: int,
        profile: Profile | None = None,
        status: TitleStatus | None = None,
        search: str = "",
        since: datetime | None = None,
    ) -> tuple[list[Title], int]:
        """Return a page of the titles, the latest purchase first, and how many of them there are.

        Only those of this account, of this status, that changed after ``since``, and in whose title, subtitle, authors,
        narrators, series or ASIN every word of ``search`` is found, whatever its case and accents.
        """
        return titles.page(
            self._database,
            profile=profile,
            status=status,
            search=search,
            since=since,
            limit=limit,
            offset=offset,
        )

    @_reads
    def title_counts(self) -> dict[TitleStatus, int]:
        """Return how many titles there are of each status, zeros included."""
        return titles.counts(self._database)

    @_reads
    def title(self, asin: Asin, profile: Profile | None = None) -> Title | None:
        """Return a title of this account, or of any: then of one that can have it, if there is such a one."""
        return titles.one(self._database, asin, profile)

    @_reads
    def unreleased(self, profile: Profile, now: datetime) -> list[Mapping[str, object]]:
        """Return the documents of an account's titles that could not be had yet, and whose day of release has come."""
        return titles.unreleased(self._database, profile, now)

    @_reads
    def here(self, asin: Asin) -> Holding | None:
        """Return what there is of a title: work on it that has not ended, its downloaded files, its book. None: nothing.

        What completed jobs brought is remembered when they are cleared.
        """
        return titles.here(self._database, asin)

    @_reads
    def jobs_of_title(self, asin: Asin) -> list[Job]:
        """Return the jobs of a title, the oldest first."""
        return titles.jobs(self._database, asin)

    @_writes
    def title_downloaded(self, asin: Asin, files: Name | None) -> None:
        """Record the folder of a title's finished download, None when it went. A completed download has recorded its own."""
        titles.hold(self._database, asin, self._clock(), files=files)

    @_writes
    def title_filed(self, asin: Asin, book: Name | None) -> None:
        """Record where a title's book is, None when it is gone. A completed job has recorded its own."""
        titles.hold(self._database, asin, self._clock(), book=book)

    @_reads
    def titles_downloaded(self) -> list[Asin]:
        """Return the titles of which the folder of a finished download is recorded."""
        return titles.downloaded(self._database)

    @_reads
    def title_declined(self, asin: Asin) -> bool:
        """Tell whether its owner ever cancelled a job of a title: then it is left alone until it is asked for.

        Remembered when the job is cleared. A job that was cancelled for a reason of its own (a duplicate, say) doesn't count.
        """
        return titles.declined(self._database, asin)

    @_writes
    def title_unavailable(self, asin: Asin, problem: Problem | None) -> None:
        """Record why a title could not be had when it was asked for; None, or news of it in its library, takes that back."""
        titles.refuse(self._database, asin, problem, self._clock())

    # --- accounts -----------------------------------------------------------------------------------------------------

    @_reads
    def sync_state(self, profile: Profile) -> SyncState:
        """Return how far an account's library is known."""
        return titles.sync_state(self._database, profile)

    @_writes
    def note_licence(self, profile: Profile, asin: Asin, at: datetime, outcome: str) -> None:
        """Count a licence that is about to be asked for, before that; told again with the same time, what came of it."""
        titles.note_licence(self._database, profile, asin, at, outcome)

    @_writes
    def revise_licences(self, profile: Profile, before: str, outcome: str) -> None:
        """Record another outcome for those of an account's licences that came to ``before``: it says nothing any more."""
        titles.revise_licences(self._database, profile, before, outcome)

    @_reads
    def licences_since(self, at: datetime, profile: Profile | None = None) -> list[datetime]:
        """Return when licences were asked for after a time, by this account or by all, the earliest first.

        Without those that Audible did not hear of.
        """
        return titles.licences_since(self._database, at, profile)

    @_reads
    def licences_of(self, profile: Profile, asin: Asin) -> list[tuple[datetime, str]]:
        """Return when an account asked for a title's licence and what came of it, the latest first."""
        return titles.licences_of(self._database, profile, asin)

    @_writes
    def pause_account(self, profile: Profile, pause: Pause) -> None:
        """Record that an account is left alone, in place of what was recorded for the same cause."""
        titles.pause(self._database, profile, pause)

    @_reads
    def pauses(self, profile: Profile) -> tuple[Pause, ...]:
        """Return an account's pauses, over or not, the longest first: their failures count until `end_pause`."""
        return titles.pauses(self._database, profile)

    @_writes
    def end_pause(self, profile: Profile, cause: Cause) -> None:
        """Forget a pause and its failures: Audible has answered."""
        PauseRow.delete().where((PauseRow.profile == profile) & (PauseRow.cause == cause)).execute(self._database)

    @_writes
    def drop_profile(self, profile: Profile) -> None:
        """Forget an account's titles, pauses and state. Jobs, what is here, and the licences asked for stay known."""
        titles.drop(self._database, profile)

    # --- odds ---------------------------------------------------------------------------------------------------------

    @_writes
    def reserve_event_ids(self, count: int) -> int:
        """Return the first of ``count`` consecutive ids, all larger than any that was ever reserved before."""
        rows = CounterRow.select().where(CounterRow.name == _EVENT_IDS).execute(self._database)
        first: int = next((row.value for row in rows), 1)
        CounterRow.insert(name=_EVENT_IDS, value=first + count).on_conflict_replace().execute(self._database)
        return first

    @_reads
    def flag(self, name: str) -> bool:
        """Tell whether a flag is set."""
        return self._there(FlagRow.name == name)

    @_writes
    def set_flag(self, name: str, value: bool) -> None:
        """Set a flag, or take it back."""
        if value:
            FlagRow.insert(name=name).on_conflict_replace().execute(self._database)
        else:
            FlagRow.delete().where(FlagRow.name == name).execute(self._database)

    def _there(self, chosen: peewee.Expression) -> bool:
        found: bool = chosen.lhs.model.select().where(chosen).exists(self._database)
        return found
