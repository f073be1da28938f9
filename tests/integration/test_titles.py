"""Does the database know where every title stands, whatever happens to the process?"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

import aiom4b
from aiom4b.errors import Fatal, NeedsAttention
from aiom4b.jobs import database as opening
from aiom4b.jobs.job import JobOptions, Kind, Problem, Status
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Cause, Holding, Pause, Profile, SyncState, TitleFacts, TitleStatus
from aiom4b.models import Fingerprint, Metadata, SeriesEntry

NOON = datetime(2026, 11, 21, 12, 0, 0, 123457, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MAIN, OTHER = Profile("main"), Profile("other")
ONE, TWO, THREE = Asin("B000000001"), Asin("B000000002"), Asin("B000000003")
REVOKED = Problem(code="title.revoked", message="It was returned.", remedy="Nothing.")
DENIED = Problem(code="audible.licence_denied", message="Audible said no.", remedy="Wait.")
TORN = Problem(code="source.damaged", message="It is torn.", remedy="Copy it again.")
FOLDER = os.fsdecode(b"/library/.aiom4b/downloads/\xff")
BOOK = os.fsdecode(b"/library/A/T\xff/T.m4b")
SYNCED = SyncState(state_token="1", last_sync=NOON, last_full_sync=NOON)


@asynccontextmanager
async def opened(folder):
    store = await Store.open(str(folder / "aiom4b.db"), clock=lambda: NOON + 7 * MINUTE)
    try:
        yield store
    finally:
        await store.close()


def played(scene):
    """Run an async test with an open store."""

    def test(tmp_path):
        async def run():
            async with opened(tmp_path) as store:
                await scene(store)

        anyio.run(run)

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


def facts(asin=ONE, **changes):
    number = int(asin[1:])
    known = {
        "asin": asin,
        "metadata": Metadata(title=f"Title {number}", authors=("Ann Author",)),
        "runtime_minutes": 600,
        "cover": "https://images.invalid/1.jpg",
        "purchased": NOON - number * DAY,
        "released": NOON - 90 * DAY,
        "item": {"asin": asin, "deep": {"list": [1, 2.5, None, "é\ud800"]}},
        "unavailable": None,
    }
    return TitleFacts(**(known | changes))


async def put(store, *told, profile=MAIN, now=NOON, whole=False, state=SYNCED):
    return await store.put_titles(profile, told, now, whole=whole, state=state)


async def job_of(store, asin=ONE, *, kind=Kind.CONVERT, **changes):
    """Queue a job of a title, and change it."""
    fingerprint = None if kind is Kind.DOWNLOAD else Fingerprint(f"{asin}")
    job, new = await store.add(
        kind=kind,
        name=asin,
        folders=(FOLDER,),
        entry=None,
        fingerprint=fingerprint,
        options=JobOptions(),
        now=NOON,
        asin=asin,
    )
    assert new
    return await store.update(job.id, NOON, **changes) if changes else job


async def status(store, asin=ONE):
    title = await store.title(asin)
    return title.status, title.reason


# --- what a library told ----------------------------------------------------------------------------------------------


@played
async def test_a_title_comes_back_as_its_library_told_it(store):
    told = facts(released=None, unavailable=DENIED)
    assert await put(store, told) == (1, 0, 0)
    title = await store.title(ONE)
    assert title.facts == told
    assert (title.profile, title.status, title.reason, title.job) == (MAIN, TitleStatus.UNAVAILABLE, DENIED, None)
    assert (title.files, title.book, title.first_seen, title.changed) == (None, None, NOON, NOON)
    assert await store.titles(limit=5, offset=0) == ([title], 1)
    assert await store.title(TWO) is None
    assert await store.title(ONE, OTHER) is None


@played
async def test_what_is_told_again_is_no_change(store):
    await put(store, facts(), facts(TWO))
    assert await put(store, facts(), facts(TWO, runtime_minutes=601), now=NOON + MINUTE) == (0, 1, 0)
    assert [(await store.title(asin)).changed for asin in (ONE, TWO)] == [NOON, NOON + MINUTE]
    assert (await store.title(TWO)).facts.runtime_minutes == 601
    assert (await store.title(TWO)).first_seen == NOON


@played
async def test_only_what_appears_after_the_first_whole_listing_came_later(store):
    await put(store, facts(), state=replace(SYNCED, last_full_sync=None))
    await put(store, facts(TWO), whole=False)
    await put(store, facts(TWO, runtime_minutes=5), facts(THREE))
    assert [(await store.title(asin)).came_later for asin in (ONE, TWO, THREE)] == [False, False, True]


@played
async def test_what_is_missing_in_a_whole_listing_is_gone_but_kept_and_may_come_back(store):
    await put(store, facts(), facts(TWO))
    await put(store, facts(ONE), profile=OTHER)
    assert await put(store, facts(TWO), now=NOON + MINUTE) == (0, 0, 0)
    assert await put(store, facts(TWO), now=NOON + MINUTE, whole=True) == (0, 0, 1)
    gone = await store.title(ONE, MAIN)
    assert (gone.status, gone.reason.code, gone.changed) == (TitleStatus.UNAVAILABLE, "title.revoked", NOON + MINUTE)
    assert replace(gone.facts, unavailable=None) == facts()
    assert (await store.title(ONE, OTHER)).status is TitleStatus.NEW
    assert await put(store, facts(TWO), now=NOON + 2 * MINUTE, whole=True) == (0, 0, 0)
    assert await put(store, facts(), facts(TWO), now=NOON + 2 * MINUTE, whole=True) == (0, 1, 0)
    assert (await store.title(ONE, MAIN)).status is TitleStatus.NEW


@played
async def test_what_says_that_it_was_revoked_keeps_all_that_was_told_before(store):
    await put(store, facts())
    bare = facts(metadata=Metadata(), runtime_minutes=0, cover="", item={"asin": ONE, "status": "Revoked"})
    revoked = replace(bare, unavailable=REVOKED)
    assert await put(store, revoked, replace(revoked, asin=TWO), now=NOON + MINUTE) == (0, 0, 1)
    title = await store.title(ONE)
    assert (title.status, title.reason) == (TitleStatus.UNAVAILABLE, REVOKED)
    assert replace(title.facts, unavailable=None) == facts()
    assert await put(store, revoked, now=NOON + 2 * MINUTE) == (0, 0, 0)
    assert await store.title(TWO) is None


@played
async def test_titles_and_how_far_they_are_known_are_recorded_together_or_not_at_all(store):
    assert await store.sync_state(MAIN) == SyncState()
    assert not SyncState().first_done
    await put(store, facts())
    assert await store.sync_state(MAIN) == SYNCED
    assert SYNCED.first_done
    broken = replace(SYNCED, state_token=None)
    with pytest.raises(Exception, match="NOT NULL"):
        await put(store, facts(TWO), state=broken)
    assert await store.title(TWO) is None
    assert await store.sync_state(MAIN) == SYNCED
    assert await store.sync_state(OTHER) == SyncState()


@played
async def test_titles_whose_day_has_come_are_found_to_be_looked_at_again(store):
    waits = Problem(code="title.not_released", message="Not yet.", remedy="Wait.")
    await put(
        store,
        facts(ONE, unavailable=waits, released=NOON),
        facts(TWO, unavailable=waits, released=NOON + DAY),
        facts(THREE, unavailable=DENIED, released=NOON),
    )
    assert await store.unreleased(MAIN, NOON - MINUTE) == []
    assert [item["asin"] for item in await store.unreleased(MAIN, NOON)] == [ONE]
    assert await store.unreleased(OTHER, NOON) == []


# --- where a title stands ---------------------------------------------------------------------------------------------


@played
async def test_a_title_follows_its_jobs_from_download_to_book(store):
    await put(store, facts())
    assert await store.here(ONE) is None
    assert await status(store) == (TitleStatus.NEW, None)
    download = await job_of(store, kind=Kind.DOWNLOAD)
    assert await status(store) == (TitleStatus.DOWNLOADING, None)
    assert await store.here(ONE) == Holding(job=download, files=None, book=None)
    await store.update(download.id, NOON, status=Status.WAITING, error=DENIED, not_before=NOON + DAY)
    assert await status(store) == (TitleStatus.DOWNLOADING, DENIED)
    convert = await job_of(store)
    assert await status(store) == (TitleStatus.DOWNLOADING, DENIED)
    await store.update(download.id, NOON, status=Status.COMPLETED, error=None, output=FOLDER)
    assert await status(store) == (TitleStatus.CONVERTING, None)
    await store.update(convert.id, NOON, status=Status.FAILED, error=TORN)
    assert await status(store) == (TitleStatus.DOWNLOADED, TORN)
    assert await store.here(ONE) == Holding(job=None, files=FOLDER, book=None)
    again = await job_of(store)
    await store.update(again.id, NOON + MINUTE, status=Status.COMPLETED, output=BOOK)
    title = await store.title(ONE)
    assert (title.status, title.reason, title.job) == (TitleStatus.COMPLETED, None, again.id)
    assert (title.files, title.book, title.changed) == (FOLDER, BOOK, NOON + MINUTE)
    assert [job.id for job in await store.jobs_of_title(ONE)] == [download.id, convert.id, again.id]
    assert await store.jobs_of_title(TWO) == []


@played
async def test_what_is_here_outlives_its_jobs(store):
    await put(store, facts(), facts(TWO))
    await job_of(store, status=Status.COMPLETED, output=BOOK, ended=NOON)
    await job_of(store, TWO, kind=Kind.DOWNLOAD, status=Status.COMPLETED, output=FOLDER, ended=NOON)
    assert await store.clear(statuses=list(Status), before=None) == 2
    assert await status(store) == (TitleStatus.COMPLETED, None)
    assert await status(store, TWO) == (TitleStatus.DOWNLOADED, None)
    assert await store.here(ONE) == Holding(job=None, files=None, book=BOOK)
    await store.drop_profile(MAIN)
    assert await store.here(TWO) == Holding(job=None, files=FOLDER, book=None)


@played
async def test_a_book_that_was_dropped_before_its_account_was_known_is_completed(store):
    await job_of(store, status=Status.COMPLETED, output=BOOK)
    await put(store, facts())
    assert await status(store) == (TitleStatus.COMPLETED, None)


@played
async def test_a_job_that_brought_nothing_takes_nothing_away(store):
    await store.title_downloaded(ONE, FOLDER)
    await job_of(store, kind=Kind.DOWNLOAD, status=Status.COMPLETED)
    assert (await store.here(ONE)).files == FOLDER


@played
async def test_what_went_is_here_no_more(store):
    await put(store, facts(), facts(TWO))
    await job_of(store, kind=Kind.DOWNLOAD, status=Status.COMPLETED, output=FOLDER)
    await store.title_downloaded(ONE, None)
    assert await status(store) == (TitleStatus.NEW, None)
    assert await store.here(ONE) is None
    await store.title_filed(TWO, BOOK)
    assert await status(store, TWO) == (TitleStatus.COMPLETED, None)
    await store.title_downloaded(TWO, FOLDER)
    await store.title_filed(TWO, None)
    title = await store.title(TWO)
    assert (title.status, title.files, title.changed) == (TitleStatus.DOWNLOADED, FOLDER, NOON + 7 * MINUTE)


@played
async def test_a_later_change_of_a_completed_job_does_not_bring_back_what_went(store):
    job = await job_of(store, status=Status.COMPLETED, output=BOOK)
    await store.title_filed(ONE, None)
    await store.update(job.id, NOON, priority=3)
    assert await store.here(ONE) is None


@played
async def test_what_its_owner_cancelled_stays_declined_when_its_job_is_forgotten(store):
    download = await job_of(store, kind=Kind.DOWNLOAD)
    assert not await store.title_declined(ONE)
    await store.update(download.id, NOON, status=Status.CANCELLED, ended=NOON)
    await job_of(store, TWO, status=Status.CANCELLED, error=TORN, ended=NOON)
    await store.title_downloaded(THREE, FOLDER)
    await store.clear(statuses=list(Status), before=None)
    assert [await store.title_declined(asin) for asin in (ONE, TWO, THREE)] == [True, False, False]
    assert [await store.here(asin) for asin in (ONE, TWO)] == [None, None]
    assert await store.titles_downloaded() == [THREE]


@played
async def test_what_could_not_be_had_stays_so_until_its_library_tells_news(store):
    await put(store, facts())
    await store.title_unavailable(ONE, DENIED)
    assert await status(store) == (TitleStatus.UNAVAILABLE, DENIED)
    assert (await store.title(ONE)).changed == NOON + 7 * MINUTE
    await put(store, facts(), whole=True)
    assert await status(store) == (TitleStatus.UNAVAILABLE, DENIED)
    await put(store, facts(runtime_minutes=9))
    assert await status(store) == (TitleStatus.NEW, None)
    await store.title_unavailable(ONE, DENIED)
    await store.title_unavailable(ONE, None)
    assert await status(store) == (TitleStatus.NEW, None)
    await put(store, facts(runtime_minutes=10), now=NOON + 9 * MINUTE)
    await store.title_unavailable(ONE, None)
    assert (await store.title(ONE)).changed == NOON + 9 * MINUTE


@played
async def test_what_is_here_counts_more_than_what_can_be_had(store):
    await put(store, facts(unavailable=REVOKED), state=SyncState())
    await put(store, facts())
    await job_of(store, status=Status.COMPLETED, output=BOOK)
    await put(store, now=NOON + MINUTE, whole=True)
    title = await store.title(ONE)
    assert (title.status, title.reason, title.facts.unavailable.code) == (TitleStatus.COMPLETED, None, "title.revoked")


@played
async def test_of_several_accounts_the_one_that_can_have_a_title_is_asked(store):
    await put(store, facts(unavailable=DENIED))
    await put(store, facts(), profile=OTHER)
    assert (await store.title(ONE)).profile == OTHER
    assert (await store.title(ONE, MAIN)).profile == MAIN
    await job_of(store, status=Status.COMPLETED, output=BOOK)
    assert (await store.title(ONE)).profile == OTHER


# --- lists ------------------------------------------------------------------------------------------------------------


@played
async def test_titles_are_listed_in_pages_the_latest_purchase_first(store):
    await put(store, facts(TWO), facts(ONE), facts(THREE, purchased=None))
    await put(store, facts(TWO), profile=OTHER)

    async def listed(**wanted):
        titles, total = await store.titles(**({"limit": 9, "offset": 0} | wanted))
        return [(title.profile, title.facts.asin) for title in titles], total

    whole = [(MAIN, ONE), (MAIN, TWO), (OTHER, TWO), (MAIN, THREE)]
    assert await listed() == (whole, 4)
    assert await listed(limit=2, offset=1) == (whole[1:3], 4)
    assert await listed(limit=0) == ([], 4)
    assert await listed(profile=OTHER) == ([(OTHER, TWO)], 1)
    await job_of(store, TWO, kind=Kind.DOWNLOAD)
    assert await listed(status=TitleStatus.DOWNLOADING) == (whole[1:3], 2)
    assert await listed(status=TitleStatus.NEW, limit=1) == ([(MAIN, ONE)], 2)


@played
async def test_a_search_finds_every_word_anywhere_whatever_its_case_and_accents(store):
    known = Metadata(
        title="Die Straße nach Ωmega",
        subtitle="Ein Fall für Åsa",
        authors=("Émile Zola", "Иван Бунин"),
        narrators=("Dr. Łukasz",),
        series=(SeriesEntry(name="Spät & Früh", part="2"),),
        description="nowhere",
    )
    await put(store, facts(metadata=known), facts(TWO))

    async def found(search):
        return {title.facts.asin for title in (await store.titles(search=search, limit=9, offset=0))[0]}

    everywhere = (
        "STRASSE",
        "ωMEGA",
        "asa",
        "ÅSA",
        "emile zola",
        "zola Émile",
        "иВАН",
        "łukasz",
        "spat",
        "frü",
        "b000000001",
        "%",
    )
    assert {word: await found(word) for word in everywhere[:-1]} == {word: {ONE} for word in everywhere[:-1]}
    assert await found("%") == set()
    assert await found("zola omega") == set()
    assert await found("nowhere") == set()
    assert await found("omegaein") == set()
    assert await found("  ") == {ONE, TWO}
    await put(store, facts(metadata=Metadata(title="Renamed")))
    assert await found("strasse") == set()


@played
async def test_what_changed_since_a_time_is_told_whatever_of_it_did(store):
    await put(store, facts(), facts(TWO), facts(THREE))

    async def since(time):
        return {title.facts.asin for title in (await store.titles(since=time, limit=9, offset=0))[0]}

    assert await since(NOON - MINUTE) == {ONE, TWO, THREE}
    assert await since(NOON) == set()
    job = await job_of(store, TWO)
    await store.update(job.id, NOON + 2 * MINUTE, status=Status.WAITING, error=DENIED)
    await put(store, facts(THREE, cover=""), now=NOON + MINUTE)
    assert await since(NOON) == {TWO, THREE}
    assert await since(NOON + MINUTE) == {TWO}
    await store.title_downloaded(ONE, FOLDER)
    assert await since(NOON + 3 * MINUTE) == {ONE}


# --- jobs of titles ---------------------------------------------------------------------------------------------------


@played
async def test_a_title_is_never_two_downloads_at_once(store):
    first = await job_of(store, kind=Kind.DOWNLOAD)
    asked = {"name": "x", "folders": (), "entry": None, "fingerprint": None, "options": JobOptions(), "now": NOON}
    for state in (Status.QUEUED, Status.RUNNING, Status.WAITING):
        await store.update(first.id, NOON, status=state)
        job, new = await store.add(kind=Kind.DOWNLOAD, asin=ONE, **asked)
        assert (job.id, new) == (first.id, False)
    assert (await store.add(kind=Kind.DOWNLOAD, asin=TWO, **asked))[1]
    assert (await store.add(kind=Kind.CONVERT, asin=ONE, **asked))[1]
    await store.update(first.id, NOON, status=Status.FAILED)
    second = await job_of(store, kind=Kind.DOWNLOAD)
    with pytest.raises(NeedsAttention) as caught:
        await store.update(first.id, NOON, status=Status.QUEUED)
    assert caught.value.code == "job.conflict"
    await store.update(second.id, NOON, status=Status.CANCELLED)
    assert (await store.update(first.id, NOON, status=Status.QUEUED)).asin == ONE


def test_the_file_itself_refuses_a_second_open_download_of_one_title(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await job_of(store, kind=Kind.DOWNLOAD)
            await job_of(store, TWO, kind=Kind.DOWNLOAD)

    anyio.run(run)
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain, pytest.raises(sqlite3.IntegrityError):
        plain.execute(f"UPDATE job SET asin = '{ONE}'")


@played
async def test_each_kind_of_job_has_its_own_turn(store):
    download = await job_of(store, kind=Kind.DOWNLOAD)
    convert = await job_of(store, TWO)
    assert (await store.claim(NOON, Kind.CONVERT)).id == convert.id
    assert await store.claim(NOON, Kind.CONVERT) is None
    assert (await store.claim(NOON)).id == download.id
    await store.update(download.id, NOON, status=Status.WAITING, not_before=NOON + MINUTE)
    await store.update(convert.id, NOON, status=Status.WAITING, not_before=NOON + 2 * MINUTE)
    assert await store.next_due() == NOON + MINUTE
    assert await store.next_due([Kind.CONVERT]) == NOON + 2 * MINUTE
    assert await store.next_due([]) is None


@played
async def test_a_clock_that_is_set_back_by_years_locks_no_job(store):
    job = await job_of(store, kind=Kind.DOWNLOAD, status=Status.WAITING, not_before=NOON + 31 * DAY)
    assert await store.claim(NOON) is None
    assert (await store.claim(NOON - 2 * DAY)).id == job.id


@played
async def test_a_look_at_its_files_tells_which_title_a_job_is_of(store):
    job, _ = await store.add(
        kind=Kind.CONVERT, name="x", folders=("/x",), entry=None, fingerprint=None, options=JobOptions(), now=NOON
    )
    assert job.asin == ""
    assert (await store.identify(job.id, Fingerprint("f"), "x", 1.0, 1, ONE)).asin == ONE
    assert (await store.identify(job.id, Fingerprint("f"), "x", 1.0, 1)).asin == ONE
    assert (await store.job(job.id)).asin == ONE


@played
async def test_audio_that_was_dropped_meanwhile_is_known_for_the_title_it_is(store):
    asked = {"kind": Kind.CONVERT, "name": "x", "folders": (), "entry": None, "options": JobOptions(), "now": NOON}
    dropped, _ = await store.add(fingerprint=Fingerprint("f"), **asked)
    job, new = await store.add(fingerprint=Fingerprint("f"), asin=ONE, **asked)
    assert (job.id, job.asin, new) == (dropped.id, ONE, False)
    assert [job.id for job in await store.jobs_of_title(ONE)] == [dropped.id]
    for asin in ("", TWO):
        assert (await store.add(fingerprint=Fingerprint("f"), asin=asin, **asked))[0].asin == ONE
    assert (await store.job(dropped.id)).asin == ONE


# --- accounts ---------------------------------------------------------------------------------------------------------


@played
async def test_licences_are_counted_by_account_and_by_title(store):
    await store.note_licence(MAIN, ONE, NOON, "asked")
    await store.note_licence(MAIN, ONE, NOON + MINUTE, "asked")
    await store.note_licence(MAIN, ONE, NOON + MINUTE, "granted")
    await store.note_licence(OTHER, ONE, NOON + 2 * MINUTE, "audible.no_asset")
    times = [NOON, NOON + MINUTE, NOON + 2 * MINUTE]
    assert await store.licences_since(NOON - MINUTE) == times
    assert await store.licences_since(NOON) == times[1:]
    assert await store.licences_since(NOON - MINUTE, MAIN) == times[:2]
    assert await store.licences_of(MAIN, ONE) == [(NOON + MINUTE, "granted"), (NOON, "asked")]
    assert await store.licences_of(MAIN, TWO) == []


@played
async def test_a_licence_that_audible_never_heard_of_is_not_counted_and_one_whose_answer_was_lost_is(store):
    for minute, outcome in enumerate(("audible.unreachable", "audible.clock", "audible.network", "asked")):
        await store.note_licence(MAIN, ONE, NOON + minute * MINUTE, outcome)
    assert await store.licences_since(NOON - MINUTE) == [NOON + 2 * MINUTE, NOON + 3 * MINUTE]
    assert len(await store.licences_of(MAIN, ONE)) == 4


@played
async def test_an_outcome_that_says_nothing_any_more_stays_counted(store):
    for profile in (MAIN, OTHER):
        for minute, outcome in enumerate(("audible.voucher_unreadable", "audible.no_asset")):
            await store.note_licence(profile, ONE, NOON + minute * MINUTE, outcome)
    await store.revise_licences(MAIN, "audible.voucher_unreadable", "asked")
    assert [outcome for _, outcome in await store.licences_of(MAIN, ONE)] == ["audible.no_asset", "asked"]
    assert [outcome for _, outcome in await store.licences_of(OTHER, ONE)][1] == "audible.voucher_unreadable"
    assert len(await store.licences_since(NOON - MINUTE)) == 4


@played
async def test_a_pause_is_remembered_with_its_failures_until_it_is_ended(store):
    throttled = Pause(cause=Cause.THROTTLED, until=NOON + DAY, failures=2, problem=DENIED)
    outage = Pause(cause=Cause.OUTAGE, until=NOON + 2 * DAY, failures=1, problem=DENIED)
    await store.pause_account(MAIN, replace(throttled, failures=1))
    await store.pause_account(MAIN, throttled)
    await store.pause_account(MAIN, outage)
    assert await store.pauses(MAIN) == (outage, throttled)
    assert await store.pauses(OTHER) == ()
    await store.end_pause(OTHER, Cause.OUTAGE)
    await store.end_pause(MAIN, Cause.OUTAGE)
    assert await store.pauses(MAIN) == (throttled,)


@played
async def test_an_account_that_is_dropped_leaves_the_others_and_its_licences_counted(store):
    for profile in (MAIN, OTHER):
        await put(store, facts(), profile=profile)
        await store.pause_account(profile, Pause(cause=Cause.RATE, until=NOON, failures=1, problem=DENIED))
        await store.note_licence(profile, ONE, NOON, "granted")
    await store.drop_profile(MAIN)
    assert await store.title(ONE, MAIN) is None
    assert await store.sync_state(MAIN) == SyncState()
    assert await store.pauses(MAIN) == ()
    assert (await store.title(ONE)).profile == OTHER
    assert await store.sync_state(OTHER) == SYNCED
    assert len(await store.pauses(OTHER)) == 1
    assert len(await store.licences_since(NOON - MINUTE)) == 2


# --- the process ------------------------------------------------------------------------------------------------------

_SYNCER = """
import sys, anyio
from datetime import UTC, datetime
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import SyncState, TitleFacts
from aiom4b.models import Metadata

async def main(path):
    store = await Store.open(path)
    for round in range(1, 1000):
        now = datetime.now(UTC)
        told = [TitleFacts(asin=f"B{n:09}", metadata=Metadata(title="T"), runtime_minutes=round, cover="", purchased=None,
                           released=None, item={"text": "x" * 2000}, unavailable=None) for n in range(100)]
        state = SyncState(state_token=str(round), last_sync=now, last_full_sync=now)
        await store.put_titles("main", told, now, whole=True, state=state)
        print(round, flush=True)

anyio.run(main, sys.argv[1])
"""


@pytest.mark.parametrize("enough", [1, 4, 9])
def test_a_sync_that_is_killed_was_whole_or_never_was(tmp_path, enough):
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(aiom4b.__file__))}
    words = (sys.executable, "-c", _SYNCER, str(tmp_path / "aiom4b.db"))
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = 0
            while told < enough:
                line = process.stdout.readline()
                told = int(line) if line.strip().isdigit() else told
        finally:
            process.send_signal(signal.SIGKILL)

    async def look():
        async with opened(tmp_path) as store:
            titles, total = await store.titles(limit=200, offset=0)
            return {title.facts.runtime_minutes for title in titles}, total, (await store.sync_state(MAIN)).state_token

    rounds, total, token = anyio.run(look)
    assert (rounds, total) == ({int(token)}, 100)
    assert int(token) >= told


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def first_schema(tmp_path, monkeypatch):
    """Return a folder with the migrations of the first release only."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(f"{opening.MIGRATIONS}/0001_first.py", folder)
    return str(folder)


def test_a_database_of_the_first_release_is_brought_up_to_date_with_its_jobs(tmp_path, first_schema, monkeypatch):
    async def nothing():
        async with opened(tmp_path):
            pass

    async def look():
        async with opened(tmp_path) as store:
            (job,), _ = await store.jobs(limit=9, offset=0)
            assert (job.name, job.status, job.asin) == ("Old", Status.QUEUED, "")
            assert [line.event for line in await store.log(job.id)] == ["job.created"]
            assert (await store.claim(NOON)).id == job.id
            await store.update(job.id, NOON, status=Status.COMPLETED, output=BOOK)
            await put(store, facts())
            await job_of(store, kind=Kind.DOWNLOAD)
            assert await store.here(Asin("")) is None

    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", first_schema)
        anyio.run(nothing)
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain, plain:
        plain.execute(
            "INSERT INTO job (id, kind, status, name, folders, fingerprint, options, priority, attempts, progress,"
            " created, updated, metrics) VALUES ('a', 'convert', 'queued', CAST('Old' AS BLOB), CAST('/x' AS BLOB), 'f', '{}', 0, 0, 0, 1, 1, '{}')"
        )
        plain.execute("INSERT INTO note (job, at, event, data) VALUES (1, 1, 'job.created', '{}')")
    anyio.run(look)
    monkeypatch.setattr(opening, "MIGRATIONS", first_schema)
    with pytest.raises(Fatal) as caught:
        anyio.run(nothing)
    assert caught.value.code == "database.newer"


def test_thousands_of_titles_are_asked_through_indexes(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await put(store, *(facts(Asin(f"B{number:09}")) for number in range(2000)))
            await job_of(store, kind=Kind.DOWNLOAD)
            asked = []
            await store._run("DEFERRED", lambda: store._database.connection().set_trace_callback(asked.append))
            await store.title(ONE)
            await store.title(ONE, MAIN)
            await store.here(ONE)
            await store.jobs_of_title(ONE)
            await store.title_filed(ONE, BOOK)
            await store.title_unavailable(ONE, DENIED)
            await store.note_licence(MAIN, ONE, NOON, "asked")
            await store.licences_since(NOON - DAY, MAIN)
            await store.licences_of(MAIN, ONE)
            await store.pauses(MAIN)
            await store.sync_state(MAIN)
            await store.unreleased(MAIN, NOON)
            await job_of(store, TWO, kind=Kind.DOWNLOAD)
            await store.titles(limit=50, offset=100, profile=MAIN)
            return asked

    asked = anyio.run(run)
    queries = {text for text in asked if text.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(queries) > 12
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain:
        plans = {query: [row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {query}")] for query in queries}
    walked = {
        query: plan
        for query, plan in plans.items()
        if any(step.startswith("SCAN") and "INDEX" not in step for step in plan)
    }
    assert walked == {}
