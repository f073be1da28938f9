"""What does an account own? Its library, listed whole or as far as it changed, and put into the store at one stroke.

Nothing is recorded before everything is heard: a sync that breaks off anywhere leaves the old titles and the old token, and
the next one asks the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import anyio.to_thread
import structlog

from aiom4b.adapters import audible_items
from aiom4b.adapters.audible_api.session import Session
from aiom4b.errors import NeedsAttention
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import Problem
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Profile, SyncReport, SyncState, TitleFacts
from aiom4b.jobs.titles import REVOKED, UNRELEASED
from aiom4b.models import Clock

log = structlog.get_logger()

_MOST_PAGES = 200
# What Audible says to a token that it doesn't know (any more), or to a parent whose children it doesn't show.
_REFUSED = frozenset({"audible.refused", "audible.not_found"})


async def sync(
    session: Session, store: Store, profile: Profile, *, full: bool, full_sync_days: float, clock: Clock
) -> SyncReport:
    """Ask what an account owns, record it, and return what was found; ``queued`` is for the caller to fill in.

    Without ``full`` only for what changed, in one request when nothing did; but whole when that has not been done for
    ``full_sync_days``, or Audible refuses the token. A whole listing is the truth: what is not in it is gone. One at a time
    for each profile. Raises what the session and the store raise; then nothing was recorded.
    """
    now = clock()
    state = await store.sync_state(profile)
    whole = full or full_due(state, now, full_sync_days)
    heard = None if whole else await _changes(session, state.state_token)
    if heard is None:
        whole, heard = True, await _listed(session)
    if whole and not heard.complete:
        log.warning("library.not_told_whole", profile=profile, titles=len(heard.items))
    heard = await _with_children(session, heard)
    released = {Asin(str(item["asin"])): item for item in await store.unreleased(profile, now)}
    told = {**released, **heard.items}.values()
    # In a thread: thousands take half a second.
    titles = await anyio.to_thread.run_sync(lambda: [_title(item, now) for item in told])
    new, changed, gone = await store.put_titles(
        profile,
        titles,
        now,
        # A library that is suddenly empty is an outage more likely than the truth.
        whole=whole and heard.complete and heard.children and (bool(heard.items) or not state.first_done),
        state=SyncState(
            state_token=heard.state_token,
            last_sync=now,
            # Half of a library is no beginning: the other half would seem to have come later.
            last_full_sync=now if whole and (heard.complete or state.first_done) else state.last_full_sync,
        ),
    )
    _, total = await store.titles(profile=profile, limit=0, offset=0)
    return SyncReport(
        profile=profile,
        full=whole,
        titles=total,
        new=new,
        changed=changed,
        gone=gone,
        queued=0,
        requests=heard.requests,
    )


def announce(report: SyncReport, events: Events) -> None:
    """Tell the log and whoever watches what a sync found."""
    log.info("library.synced", **asdict(report))
    events.publish("library.synced", **asdict(report))


def full_due(state: SyncState, now: datetime, full_sync_days: float) -> bool:
    """Whether the library has to be listed whole: it never was, long ago, or at a time that is yet to come."""
    if not state.state_token or state.last_full_sync is None:
        return True
    return not timedelta(0) <= now - state.last_full_sync < timedelta(days=full_sync_days)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a listing told. ``complete``: as many titles as it promised; ``children``: those of each parent too.

    ``repeated``: as many entries, but some of them for the same title. ``state_token`` is that of the first page: what changes
    while we listen is told again next time.
    """

    state_token: str
    items: Mapping[Asin, Mapping[str, object]]
    complete: bool
    requests: int
    repeated: bool = False
    children: bool = True


async def _changes(session: Session, state_token: str) -> _Heard | None:
    """Return what changed, or None where Audible doesn't take the token."""
    try:
        return await _listed(session, state_token=state_token)
    except NeedsAttention as error:
        if error.code not in _REFUSED:
            raise
        log.info("library.token_refused", code=error.code, reason=error.reason)
        return None


async def _listed(session: Session, *, state_token: str | None = None, parent: str | None = None) -> _Heard:
    """Return all pages of one listing."""
    heard = await _paged(session, state_token, parent)
    if not heard.repeated or state_token is not None:
        return heard
    # Where a library changes between two pages, one title is told twice and another one not at all. Not so if it is told
    # the same way once more: then that title stands in it twice.
    again = await _paged(session, state_token, parent)
    same = again.items.keys() == heard.items.keys()
    return replace(
        again, complete=again.complete or (again.repeated and same), requests=heard.requests + again.requests
    )


async def _paged(session: Session, state_token: str | None, parent: str | None) -> _Heard:
    items: dict[Asin, Mapping[str, object]] = {}
    token, told, left_out = "", 0, 0
    for number in range(1, _MOST_PAGES + 1):
        page = await session.library(page=number, state_token=state_token, parent=parent)
        token = token or page.state_token
        told += len(page.items)
        left_out += page.left_out
        items.update((Asin(item["asin"]), item) for item in page.items)
        if told + left_out >= page.total or not (page.items or page.left_out):
            complete = len(items) + left_out >= page.total
            repeated = told + left_out >= page.total and not complete
            return _Heard(state_token=token, items=items, complete=complete, repeated=repeated, requests=number)
    return _Heard(state_token=token, items=items, complete=False, requests=_MOST_PAGES)


async def _with_children(session: Session, heard: _Heard) -> _Heard:
    """Add what a listing has only the parents of, such as the episodes of podcasts."""
    parents = await anyio.to_thread.run_sync(_parents, heard.items)
    for asin in parents:
        try:
            below = await _listed(session, parent=asin)
        except NeedsAttention as error:
            if error.code not in _REFUSED:
                raise
            log.warning("library.children_not_listed", asin=asin, code=error.code, reason=error.reason)
            below = _Heard(state_token="", items={}, complete=False, requests=1)
        heard = replace(
            heard,
            items={**below.items, **heard.items},
            children=heard.children and below.complete,
            requests=heard.requests + below.requests,
        )
    return heard


def _parents(items: Mapping[Asin, Mapping[str, object]]) -> list[Asin]:
    return [asin for asin, item in items.items() if audible_items.facts_of(item).children]


def _title(item: Mapping[str, object], now: datetime) -> TitleFacts:
    facts = audible_items.facts_of(item)
    unavailable = None
    if facts.unavailable is not None:
        code, reason, remedy = facts.unavailable
        unavailable = Problem(code=code, message=reason, remedy=remedy)
    if facts.released is not None and facts.released > now and (unavailable is None or unavailable.code != REVOKED):
        unavailable = Problem(
            code=UNRELEASED,
            message=f"The title will be released on {facts.released:%Y-%m-%d}.",
            remedy="Nothing needs to be done: it can be downloaded once it is released.",
        )
    return TitleFacts(
        asin=Asin(facts.asin),
        metadata=facts.metadata,
        runtime_minutes=facts.runtime_minutes,
        cover=facts.cover,
        purchased=facts.purchased,
        released=facts.released,
        item=item,
        unavailable=unavailable,
    )
