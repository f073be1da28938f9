"""Is a library known as Audible tells it, with as few questions as it takes, and all of it or nothing?"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from structlog.testing import capture_logs

from aiom4b.account.sync import announce, full_due, sync
from aiom4b.adapters import audible_items
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.events import Events
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Profile, SyncReport, SyncState, TitleStatus

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MAIN = Profile("main")
REFUSED = NeedsAttention("audible.refused", "Audible refused it.", remedy="Try later.")
UNAUTHORIZED = NeedsAttention("audible.unauthorized", "Who are you?", remedy="Sign in.")
LOST = Transient("audible.network", "The network is down.", remedy="Wait.")


def item(number=1, **changes):
    return {"asin": f"B{number:09}", "title": f"Title {number}", "purchase_date": "2024-05-01T08:00:00Z"} | changes


class Page:
    """What the session returns."""

    def __init__(self, items, total, state_token):
        self.items = tuple(item for item in items if item)
        self.left_out = len(items) - len(self.items)
        self.total, self.state_token = total, state_token


class Library:
    """Stands in for a session: answers from lists, as Audible does, and writes down what it was asked."""

    def __init__(self, *items, token="1000"):
        self.items = list(items)
        self.changes = []
        self.children = {}
        self.token = token
        self.asked = []
        self.fails = {}  # by what was asked: an error instead of the answer
        self.promised = None
        self.listings = []  # what the library is, each time that it is listed from its beginning

    async def library(self, *, page, page_size=3, state_token=None, parent=None):
        asked = (state_token or parent or "all", page)
        self.asked.append(asked)
        if (failure := self.fails.get(asked)) is not None:
            raise failure
        if self.listings and asked == ("all", 1):
            self.items = self.listings.pop(0)
        found = self.changes if state_token else self.children.get(parent, []) if parent else self.items
        total = len(found) if self.promised is None else self.promised
        return Page(found[(page - 1) * page_size : page * page_size], total, self.token)


@asynccontextmanager
async def opened(folder):
    store = await Store.open(str(folder / "aiom4b.db"))
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


async def synced(store, library, *, at=NOON, full=False):
    library.asked.clear()
    return await sync(library, store, MAIN, full=full, full_sync_days=7, clock=lambda: at)


async def statuses(store):
    titles, _ = await store.titles(limit=99, offset=0)
    return {int(title.facts.asin[1:]): title.status for title in titles}


@played
async def test_the_first_sync_lists_the_library_page_by_page(store):
    library = Library(*(item(number) for number in range(7)))
    report = await synced(store, library)
    assert report == SyncReport(profile=MAIN, full=True, titles=7, new=7, changed=0, gone=0, queued=0, requests=3)
    assert library.asked == [("all", 1), ("all", 2), ("all", 3)]
    assert await store.sync_state(MAIN) == SyncState(state_token="1000", last_sync=NOON, last_full_sync=NOON)
    title = await store.title(Asin("B000000001"))
    assert (title.facts.metadata.title, title.facts.item, title.status) == ("Title 1", item(1), TitleStatus.NEW)
    assert title.facts.purchased == datetime(2024, 5, 1, 8, tzinfo=UTC)


@played
async def test_a_delta_without_a_change_is_one_request(store):
    library = Library(item(1))
    await synced(store, library)
    report = await synced(store, library, at=NOON + DAY)
    assert (library.asked, report.requests) == ([("1000", 1)], 1)
    assert report == SyncReport(profile=MAIN, full=False, titles=1, new=0, changed=0, gone=0, queued=0, requests=1)
    state = await store.sync_state(MAIN)
    assert (state.last_sync, state.last_full_sync) == (NOON + DAY, NOON)


@played
async def test_a_delta_tells_what_is_new_what_changed_and_what_was_taken_back(store):
    library = Library(item(1), item(2), item(3))
    await synced(store, library)
    library.changes = [item(2, title="Renamed"), item(4), item(1, status="Revoked"), item(5, status="Revoked")]
    library.token = "2000"
    report = await synced(store, library)
    assert (report.new, report.changed, report.gone, report.titles, report.requests) == (1, 1, 1, 4, 2)
    assert library.asked == [("1000", 1), ("1000", 2)]
    assert await statuses(store) == {
        1: TitleStatus.UNAVAILABLE,
        2: TitleStatus.NEW,
        3: TitleStatus.NEW,
        4: TitleStatus.NEW,
    }
    assert [(await store.title(Asin(f"B00000000{number}"))).came_later for number in (2, 4)] == [False, True]
    library.changes = []
    await synced(store, library)
    assert library.asked == [("2000", 1)]


@played
async def test_a_full_listing_is_the_truth(store):
    library = Library(item(1), item(2))
    await synced(store, library)
    library.items.pop(0)
    assert (await synced(store, library)).gone == 0
    assert (await synced(store, library, full=True)).gone == 1
    gone = await store.title(Asin("B000000001"))
    assert (gone.status, gone.reason.code, gone.facts.metadata.title) == (
        TitleStatus.UNAVAILABLE,
        "title.revoked",
        "Title 1",
    )


@played
async def test_a_listing_that_breaks_its_promise_lets_nothing_go(store):
    library = Library(item(1), item(2))
    await synced(store, library)
    library.items.pop(0)
    library.promised = 2
    report = await synced(store, library, full=True)
    assert (report.gone, library.asked) == (0, [("all", 1), ("all", 2)])
    library.promised = None
    # One told twice, where another was missed.
    library.listings = [[item(2), item(2)], [item(1), item(1)]]
    assert (await synced(store, library, full=True)).gone == 0
    library.listings = [[item(2), item(2)], [item(1), item(2)]]
    assert (await synced(store, library, full=True)).gone == 0
    library.items = []
    assert (await synced(store, library, full=True)).gone == 0
    assert set((await statuses(store)).values()) == {TitleStatus.NEW}


@played
async def test_what_has_no_proper_asin_does_not_make_every_listing_half(store):
    library = Library(item(1), None, item(2), None, item(3))
    assert (await synced(store, library)).requests == 2
    assert (await store.sync_state(MAIN)).first_done
    library.items.pop()
    assert (await synced(store, library, full=True)).gone == 1
    library.items = [None, None, None, item(1), item(4)]  # a page of nothing else is not the end
    await synced(store, library, full=True)
    assert (await store.title(Asin("B000000004"))).came_later


@played
async def test_a_title_that_stands_twice_in_a_library_does_not_make_every_listing_half(store):
    library = Library(item(1), item(1), item(2))
    assert (await synced(store, library)).requests == 2
    assert (await store.sync_state(MAIN)).first_done
    library.items.pop()
    assert (await synced(store, library, full=True)).gone == 1
    assert not (await synced(store, library)).full


@played
async def test_half_a_library_is_told_in_the_log(store):
    library = Library(item(1))
    library.promised = 2
    with capture_logs() as logs:
        await synced(store, library)
    assert [line for line in logs if line["log_level"] == "warning"] == [
        {"event": "library.not_told_whole", "log_level": "warning", "profile": MAIN, "titles": 1}
    ]


@played
async def test_a_large_library_is_read_beside_the_loop(store):
    threads = set()
    facts_of = audible_items.facts_of

    def noted(item):
        threads.add(threading.current_thread())
        return facts_of(item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audible_items, "facts_of", noted)
        await synced(store, Library(item(1)))
    assert threads
    assert threading.main_thread() not in threads


@played
async def test_half_of_a_first_listing_is_no_beginning(store):
    library = Library(item(1))
    library.promised = 2
    await synced(store, library)
    assert not (await store.sync_state(MAIN)).first_done
    library.items.append(item(2))
    assert (await synced(store, library)).full
    assert not (await store.title(Asin("B000000002"))).came_later


@played
async def test_an_empty_library_is_known_too(store):
    library = Library()
    assert (await synced(store, library)).requests == 1
    assert (await store.sync_state(MAIN)).first_done
    library.changes = [item(1)]
    await synced(store, library)
    assert (await store.title(Asin("B000000001"))).came_later


@played
async def test_the_whole_library_is_listed_again_after_a_week(store):
    library = Library(item(1))
    await synced(store, library)
    assert not (await synced(store, library, at=NOON + 6.9 * DAY)).full
    assert (await synced(store, library, at=NOON + 7 * DAY)).full
    assert not (await synced(store, library, at=NOON + 8 * DAY)).full


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (SyncState(state_token="1", last_full_sync=NOON), False),
        (SyncState(state_token="1", last_full_sync=NOON - 6.9 * DAY), False),
        (SyncState(state_token="1", last_full_sync=NOON - 7 * DAY), True),
        (SyncState(state_token="1", last_full_sync=NOON + DAY), True),  # the clock was set back
        (SyncState(state_token="", last_full_sync=NOON), True),
        (SyncState(state_token="1"), True),
    ],
)
def test_a_full_listing_is_due_when_the_last_one_is_no_more_to_be_relied_on(state, due):
    assert full_due(state, NOON, 7) is due


@played
async def test_a_token_that_is_refused_leads_to_a_full_listing(store):
    library = Library(item(1))
    await synced(store, library)
    library.fails[("1000", 1)] = REFUSED
    library.token = "2000"
    report = await synced(store, library)
    assert (report.full, library.asked) == (True, [("1000", 1), ("all", 1)])
    assert (await store.sync_state(MAIN)).state_token == "2000"


@played
async def test_other_trouble_ends_a_sync_and_leaves_everything_as_it_was(store):
    library = Library(*(item(number) for number in range(4)))
    await synced(store, library)
    before = await store.sync_state(MAIN)
    library.changes, library.token = [item(number) for number in range(9, 14)], "2000"
    for fails in (("1000", 1), ("1000", 2)):
        for error in (LOST, UNAUTHORIZED):
            library.fails = {fails: error}
            with pytest.raises(type(error)):
                await synced(store, library)
    library.fails = {("all", 2): LOST}
    with pytest.raises(Transient):
        await synced(store, library, full=True)
    assert await store.sync_state(MAIN) == before
    assert len(await statuses(store)) == 4


@played
async def test_the_token_of_the_first_page_counts_so_that_nothing_between_pages_is_missed(store):
    library = Library(*(item(number) for number in range(4)))
    pages = library.library

    async def moving(**asked):
        page = await pages(**asked)
        page.state_token = f"{page.state_token}{asked['page']}"
        return page

    library.library = moving
    await synced(store, library)
    assert (await store.sync_state(MAIN)).state_token == "10001"


@played
async def test_episodes_are_asked_for_by_their_podcast(store):
    podcast = item(1, content_delivery_type="PodcastParent", has_children=True)
    library = Library(podcast, item(2))
    library.children = {"B000000001": [item(number, content_delivery_type="PodcastEpisode") for number in range(3, 8)]}
    report = await synced(store, library)
    assert library.asked == [("all", 1), ("B000000001", 1), ("B000000001", 2)]
    assert (report.titles, report.requests) == (7, 3)
    assert (await statuses(store))[1] is TitleStatus.UNAVAILABLE
    assert (await statuses(store))[7] is TitleStatus.NEW
    library.children["B000000001"].append(item(8))
    library.changes = [podcast | {"title": "With a new episode"}]
    report = await synced(store, library)
    assert (report.new, report.changed, report.requests) == (1, 1, 3)


@played
async def test_a_podcast_that_hides_its_episodes_does_not_make_them_go_nor_stop_the_rest(store):
    podcast = item(1, content_delivery_type="PodcastParent", has_children=True)
    library = Library(podcast, item(2))
    library.children = {"B000000001": [item(3)]}
    await synced(store, library)
    library.fails = {("B000000001", 1): REFUSED}
    library.items = [podcast, item(4)]
    with capture_logs() as logs:
        report = await synced(store, library, full=True)
    assert (report.new, report.gone) == (1, 0)
    assert [(line["event"], line["asin"]) for line in logs] == [("library.children_not_listed", "B000000001")]
    for error in (LOST, UNAUTHORIZED):
        library.fails = {("B000000001", 1): error}
        with pytest.raises(type(error)):
            await synced(store, library, full=True)


@played
async def test_a_title_that_is_not_released_waits_for_its_day_without_being_told_again(store):
    ordered = item(1, release_date="2026-11-23", customer_rights={"is_consumable_offline": False})
    library = Library(ordered, item(2, release_date="2026-11-23"))
    await synced(store, library)
    title = await store.title(Asin("B000000002"))
    assert (title.status, title.reason.code) == (TitleStatus.UNAVAILABLE, "title.not_released")
    assert "2026-11-23" in title.reason.message
    assert (await store.title(Asin("B000000001"))).reason.code == "title.not_released"
    assert (await synced(store, library, at=NOON + DAY)).changed == 0
    library.items.append(item(3, release_date="2026-11-23"))
    await synced(store, library, full=True)
    library.changes = [item(3, release_date="2026-11-23", status="Revoked")]
    assert (await synced(store, library)).gone == 1
    library.changes = []
    report = await synced(store, library, at=NOON + 2 * DAY)
    assert (report.changed, report.requests) == (2, 1)
    assert (await store.title(Asin("B000000002"))).status is TitleStatus.NEW
    assert (await store.title(Asin("B000000001"))).reason.code == "title.streaming_only"


def test_what_a_sync_found_is_told_once(tmp_path):
    report = SyncReport(profile=MAIN, full=True, titles=3, new=2, changed=1, gone=0, queued=0, requests=1)

    async def run():
        async def reserve(_count):
            return 1

        events = Events(lambda: NOON, reserve)
        await events.start()
        with capture_logs() as logs:
            announce(replace(report, queued=2), events)
        assert [(line["event"], line["log_level"], line["queued"]) for line in logs] == [("library.synced", "info", 2)]
        events.close()
        (event,) = [event async for event in events.since(0)]
        assert event.event == "library.synced"
        assert event.data == {
            "profile": "main",
            "full": True,
            "titles": 3,
            "new": 2,
            "changed": 1,
            "gone": 0,
            "queued": 2,
            "requests": 1,
        }

    anyio.run(run)
