"""Which titles do the owner's accounts have, and where does each stand? Their rows, inside a transaction of the store."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import peewee
from peewee import SQL, fn

from aiom4b.jobs.job import Job, JobId, Kind, Problem, Status
from aiom4b.jobs.rows import HoldingRow, JobRow, LicenceRow, PauseRow, SyncStateRow, TitleRow
from aiom4b.jobs.title import Asin, Holding, Pause, Profile, SyncState, Title, TitleFacts, TitleStatus
from aiom4b.models import Name

REVOKED = "title.revoked"
"""The code of what is no more in the library."""
UNRELEASED = "title.not_released"
"""The code of what can't be had before a day to come."""

# What came of licences that never got as far as to be given or refused: nobody counts these.
_UNHEARD = ("audible.unreachable", "audible.clock")
_FEW = 1000  # are looked for by name; more than 32766 could not be

_GONE = Problem(
    code=REVOKED,
    message="The title is no more in the Audible library: it was returned, or its subscription has ended.",
    remedy="Nothing needs to be done: what is here stays here. Bought or borrowed anew, it appears again.",
)
# In the words of the partial index: SQLite uses it only if it can tell from the text of the query that it may.
_OF_TITLES = SQL("asin != ''")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """As much of a job as its title's status depends on."""

    id: JobId
    kind: Kind
    status: Status
    error: Problem | None


def status_of(
    jobs: Sequence[Standing], *, files: Name | None, book: Name | None, unavailable: Problem | None
) -> tuple[TitleStatus, Problem | None, JobId | None]:
    """Return where a title stands, why it does not get further, and the job that works on it or did last.

    ``jobs`` are all that are left of it, the oldest first; ``files`` and ``book`` what is held of it, ``unavailable`` why it
    can't be had. What works on it counts first, then what is here. NEW with a reason: its last job failed.
    """
    for kind, status in ((Kind.DOWNLOAD, TitleStatus.DOWNLOADING), (Kind.CONVERT, TitleStatus.CONVERTING)):
        for job in reversed(jobs):
            if job.kind is kind and not job.status.ended:
                return status, job.error, job.id
    last = jobs[-1] if jobs else None
    job_id = None if last is None else last.id
    failure = None if last is None else last.error
    if book is not None:
        return TitleStatus.COMPLETED, failure, job_id
    if files is not None:
        return TitleStatus.DOWNLOADED, failure, job_id
    if unavailable is not None:
        return TitleStatus.UNAVAILABLE, unavailable, job_id
    return TitleStatus.NEW, failure, job_id


def folded(text: str) -> str:
    """Return ``text`` without case and accents, as it is looked for."""
    # Decomposed again afterwards: folding may compose anew what it touches.
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))


def _search(facts: TitleFacts) -> str:
    known = facts.metadata
    series = (entry.name for entry in known.series)
    # A line each, so that no word is found across two of them.
    return folded("\n".join([known.title, known.subtitle, *known.authors, *known.narrators, *series, facts.asin]))


# --- what a library told ----------------------------------------------------------------------------------------------


def put(
    database: peewee.SqliteDatabase,
    profile: Profile,
    facts: Iterable[TitleFacts],
    now: datetime,
    *,
    whole: bool,
) -> tuple[int, int, int]:
    """Record what a library told, and return how many titles are new, changed, and gone."""
    told = {one.asin: one for one in facts}
    chosen = TitleRow.profile == profile
    if not whole and len(told) < _FEW:
        chosen &= TitleRow.asin.in_(list(told))
    known = {row.asin: row for row in TitleRow.select().where(chosen).execute(database)}
    came_later = sync_state(database, profile).first_done
    new = changed = gone = 0
    for asin, one in told.items():
        row = known.get(asin)
        revoked = one.unavailable is not None and one.unavailable.code == REVOKED
        if row is None:
            if revoked:
                continue
            new += 1
            columns = _columns(one) | {"came_later": came_later, "first_seen": now, "changed": now}
            TitleRow.insert(profile=profile, asin=asin, **columns).execute(database)
        elif revoked:
            gone += _leave(database, row, one.unavailable, now)
        elif row.facts() != one:
            changed += 1
            # What changed may be what stood against it: it is worth asking again.
            _change(database, row, **_columns(one), refused=None, changed=now)
    if whole:
        gone += sum(_leave(database, row, _GONE, now) for asin, row in known.items() if asin not in told)
    return new, changed, gone


def _columns(facts: TitleFacts) -> dict[str, Any]:
    return {
        "search": _search(facts),
        "metadata": facts.metadata,
        "runtime_minutes": facts.runtime_minutes,
        "cover": facts.cover,
        "purchased": facts.purchased,
        "released": facts.released,
        "item": facts.item,
        "unavailable": facts.unavailable,
    }


def _leave(database: peewee.SqliteDatabase, row: TitleRow, problem: Problem | None, now: datetime) -> int:
    """Note that a title is no more to be had, and return how many that are. All that was told of it before is kept."""
    if row.unavailable is not None and row.unavailable.code == REVOKED:
        return 0
    _change(database, row, unavailable=problem, changed=now)
    return 1


def _change(database: peewee.SqliteDatabase, row: TitleRow, **columns: Any) -> None:
    TitleRow.update(**columns).where(TitleRow.id == row.id).execute(database)


def refuse(database: peewee.SqliteDatabase, asin: Asin, problem: Problem | None, now: datetime) -> None:
    """Note why a title could not be had when it was asked for; None takes that back."""
    chosen = TitleRow.asin == asin
    if problem is None:
        chosen &= TitleRow.refused.is_null(False)
    TitleRow.update(refused=problem, changed=now).where(chosen).execute(database)


def drop(database: peewee.SqliteDatabase, profile: Profile) -> None:
    """Forget an account's titles, pauses and state. The licences it asked for stay counted."""
    for row in (TitleRow, PauseRow, SyncStateRow):
        row.delete().where(row.profile == profile).execute(database)


# --- what is here -----------------------------------------------------------------------------------------------------


def hold(database: peewee.SqliteDatabase, asin: Asin, now: datetime, **held: Name | bool | None) -> None:
    """Record the ``files`` or the ``book`` of a title, None for what is here no more; or that it was ``declined``."""
    changes = HoldingRow.insert(asin=asin, changed=now, **held)
    changes.on_conflict(conflict_target=[HoldingRow.asin], update=held | {"changed": now}).execute(database)


def completed(database: peewee.SqliteDatabase, job: Job, now: datetime) -> None:
    """Record what a completed job brought here, if it is a title's."""
    if not job.asin or job.output is None:
        return
    part = "files" if job.kind is Kind.DOWNLOAD else "book"
    hold(database, Asin(job.asin), now, **{part: job.output})


def cancelled(database: peewee.SqliteDatabase, job: Job, now: datetime) -> None:
    """Record that its owner doesn't want a title, if a cancelled job is one's and nothing else was the reason."""
    if job.asin and job.error is None:
        hold(database, Asin(job.asin), now, declined=True)


def here(database: peewee.SqliteDatabase, asin: Asin) -> Holding | None:
    """Return what there is of a title: work that has not ended, or what it brought."""
    held = next(iter(HoldingRow.select().where(HoldingRow.asin == asin).execute(database)), None)
    job = next((job for job in reversed(jobs(database, asin)) if not job.status.ended), None)
    found = Holding(job=job, files=held and held.files, book=held and held.book)
    return None if found == Holding(job=None, files=None, book=None) else found


def jobs(database: peewee.SqliteDatabase, asin: Asin) -> list[Job]:
    """Return the jobs of a title, the oldest first."""
    query = JobRow.select().where((JobRow.asin == asin) & _OF_TITLES).order_by(JobRow.sequence)
    return [row.value() for row in query.execute(database)]


def declined(database: peewee.SqliteDatabase, asin: Asin) -> bool:
    """Return whether a job of the title was ever cancelled by its owner."""
    found: bool = HoldingRow.select().where((HoldingRow.asin == asin) & HoldingRow.declined).exists(database)
    return found


def downloaded(database: peewee.SqliteDatabase) -> list[Asin]:
    """Return the titles whose finished downloads are recorded."""
    query = HoldingRow.select(HoldingRow.asin).where(HoldingRow.files.is_null(False)).order_by(HoldingRow.asin)
    return [Asin(asin) for (asin,) in query.tuples().execute(database)]


# --- where each stands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A title without what its library told."""

    id: int
    status: TitleStatus
    reason: Problem | None
    files: Name | None
    book: Name | None
    job: JobId | None
    changed: datetime


def page(
    database: peewee.SqliteDatabase,
    *,
    profile: Profile | None,
    status: TitleStatus | None,
    search: str,
    since: datetime | None,
    limit: int,
    offset: int,
) -> tuple[list[Title], int]:
    """Return some of the titles, and how many there are: the latest purchase first."""
    chosen = [fn.INSTR(TitleRow.search, word) > 0 for word in folded(search).split()]
    if profile is not None:
        chosen.append(TitleRow.profile == profile)
    found = [
        seen
        for seen in _seen(database, *chosen)
        if status in {None, seen.status} and (since is None or seen.changed > since)
    ]
    return _values(database, found[offset : offset + limit]), len(found)


def counts(database: peewee.SqliteDatabase) -> dict[TitleStatus, int]:
    """Return how many titles there are of each status."""
    return dict.fromkeys(TitleStatus, 0) | Counter(seen.status for seen in _seen(database))


def one(database: peewee.SqliteDatabase, asin: Asin, profile: Profile | None) -> Title | None:
    """Return a title; of several accounts that have it, one that can have it, if there is such a one."""
    chosen = [TitleRow.asin == asin]
    if profile is not None:
        chosen.append(TitleRow.profile == profile)
    found = _values(database, _seen(database, *chosen))
    found.sort(key=lambda title: (title.status is TitleStatus.UNAVAILABLE, title.facts.unavailable is not None))
    return next(iter(found), None)


def unreleased(database: peewee.SqliteDatabase, profile: Profile, now: datetime) -> list[Mapping[str, object]]:
    """Return the documents of titles that were not released when they were told of, and are by now."""
    due = (TitleRow.profile == profile) & TitleRow.unavailable.is_null(False) & (TitleRow.released <= now)
    rows = TitleRow.select(TitleRow.item, TitleRow.unavailable).where(due).execute(database)
    return [row.item for row in rows if row.unavailable.code == UNRELEASED]


def _seen(database: peewee.SqliteDatabase, *chosen: Any) -> list[_Seen]:
    """Return where titles stand, the latest purchase first."""
    # Without the documents: to read those of a whole library takes a hundred times as long.
    query = (
        TitleRow.select(
            TitleRow.id,
            TitleRow.asin,
            TitleRow.unavailable,
            TitleRow.refused,
            TitleRow.changed,
            HoldingRow.files,
            HoldingRow.book,
            HoldingRow.changed,
        )
        .join(HoldingRow, peewee.JOIN.LEFT_OUTER, on=(HoldingRow.asin == TitleRow.asin))
        .order_by(TitleRow.purchased.desc(), TitleRow.asin, TitleRow.profile)
    )
    if chosen:
        query = query.where(*chosen)
    rows = list(query.tuples().execute(database))
    standings, updated = _standings(database, {asin for _, asin, *_ in rows})
    found = []
    for id, asin, unavailable, refused, changed, files, book, held in rows:
        status, reason, job = status_of(standings[asin], files=files, book=book, unavailable=unavailable or refused)
        times = (changed, held, updated.get(asin))
        latest = max(time for time in times if time is not None)
        found.append(_Seen(id=id, status=status, reason=reason, files=files, book=book, job=job, changed=latest))
    return found


def _standings(
    database: peewee.SqliteDatabase, asins: set[str]
) -> tuple[dict[str, list[Standing]], dict[str, datetime]]:
    """Return the jobs of titles, and when one of each title's last changed."""
    query = JobRow.select(JobRow.asin, JobRow.id, JobRow.kind, JobRow.status, JobRow.error, JobRow.updated)
    query = query.where(_OF_TITLES)
    if len(asins) == 1:  # else of all: there are about as many as titles
        query = query.where(JobRow.asin == next(iter(asins)))
    standings: dict[str, list[Standing]] = defaultdict(list)
    updated: dict[str, datetime] = {}
    for asin, id, kind, status, error, at in query.order_by(JobRow.asin, JobRow.sequence).tuples().execute(database):
        standings[asin].append(Standing(id=id, kind=kind, status=status, error=error))
        updated[asin] = max(at, updated.get(asin, at))
    return standings, updated


def _values(database: peewee.SqliteDatabase, found: Sequence[_Seen]) -> list[Title]:
    rows = TitleRow.select().where(TitleRow.id.in_([seen.id for seen in found])).execute(database)
    known = {row.id: row for row in rows}
    return [
        Title(
            profile=Profile(known[seen.id].profile),
            facts=known[seen.id].facts(),
            status=seen.status,
            reason=seen.reason,
            files=seen.files,
            book=seen.book,
            job=seen.job,
            came_later=known[seen.id].came_later,
            first_seen=known[seen.id].first_seen,
            changed=seen.changed,
        )
        for seen in found
    ]


# --- how an account stands --------------------------------------------------------------------------------------------


def sync_state(database: peewee.SqliteDatabase, profile: Profile) -> SyncState:
    """Return how far an account's library is known."""
    rows = SyncStateRow.select().where(SyncStateRow.profile == profile).execute(database)
    return next((row.value() for row in rows), SyncState())


def set_sync_state(database: peewee.SqliteDatabase, profile: Profile, state: SyncState) -> None:
    """Record how far an account's library is known."""
    SyncStateRow.insert(
        profile=profile,
        state_token=state.state_token,
        last_sync=state.last_sync,
        last_full_sync=state.last_full_sync,
    ).on_conflict_replace().execute(database)


def note_licence(database: peewee.SqliteDatabase, profile: Profile, asin: Asin, at: datetime, outcome: str) -> None:
    """Record a licence that was asked for; told again with the same time, what came of it."""
    LicenceRow.insert(profile=profile, asin=asin, at=at, outcome=outcome).on_conflict_replace().execute(database)


def revise_licences(database: peewee.SqliteDatabase, profile: Profile, before: str, outcome: str) -> None:
    """Record another outcome for those of an account's licences that came to ``before``."""
    chosen = (LicenceRow.profile == profile) & (LicenceRow.outcome == before)
    LicenceRow.update(outcome=outcome).where(chosen).execute(database)


def licences_since(database: peewee.SqliteDatabase, at: datetime, profile: Profile | None) -> list[datetime]:
    """Return when licences were asked for after a time, the earliest first; of what Audible did not hear nothing."""
    counted = (LicenceRow.at > at) & LicenceRow.outcome.not_in(_UNHEARD)
    query = LicenceRow.select(LicenceRow.at).where(counted).order_by(LicenceRow.at)
    if profile is not None:
        query = query.where(LicenceRow.profile == profile)
    return [time for (time,) in query.tuples().execute(database)]


def licences_of(database: peewee.SqliteDatabase, profile: Profile, asin: Asin) -> list[tuple[datetime, str]]:
    """Return when an account asked for a title's licence and what came of it, the latest first."""
    of_title = (LicenceRow.profile == profile) & (LicenceRow.asin == asin)
    query = LicenceRow.select(LicenceRow.at, LicenceRow.outcome).where(of_title)
    return list(query.order_by(LicenceRow.at.desc()).tuples().execute(database))


def pause(database: peewee.SqliteDatabase, profile: Profile, wanted: Pause) -> None:
    """Record a pause in place of the one for the same cause."""
    PauseRow.insert(
        profile=profile,
        cause=wanted.cause,
        until=wanted.until,
        failures=wanted.failures,
        problem=wanted.problem,
    ).on_conflict_replace().execute(database)


def pauses(database: peewee.SqliteDatabase, profile: Profile) -> tuple[Pause, ...]:
    """Return an account's pauses, the longest first."""
    query = PauseRow.select().where(PauseRow.profile == profile).order_by(PauseRow.until.desc())
    return tuple(row.value() for row in query.execute(database))
