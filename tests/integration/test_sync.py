"""Is a library known after a sync with the real client, and with how many requests?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiom4b.account.sync import sync
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.session import Session
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Profile, TitleStatus
from aiom4b.models import now
from fake_audible import FakeAudible, Title, all_to

MAIN = Profile("main")
ASIN = Asin("B0OWNTEST1")


@pytest.fixture
def fake():
    with FakeAudible(Title(asin=ASIN)) as service, all_to(service.port):
        yield service


@pytest.fixture
def syncing(fake, tmp_path):
    """Return what runs a scene with a store and a function that syncs."""

    def run(scene):
        async def main():
            store = await Store.open(str(tmp_path / "aiom4b.db"))
            try:
                async with Session(Identity.of(fake.device().identity())) as session:

                    async def go(*, full=False, clock=now):
                        return await sync(session, store, MAIN, full=full, full_sync_days=7, clock=clock)

                    await scene(store, go)
            finally:
                await store.close()

        anyio.run(main)

    return run


def test_two_thousand_titles_take_four_requests_and_a_delta_without_a_change_one(fake, syncing):
    async def scene(store, go):
        fake.many(1999)
        report = await go()
        assert (report.titles, report.new, report.requests) == (2000, 2000, 4)
        assert fake.requests["library"] == 4
        report = await go()
        assert (report.full, report.new, report.changed, report.requests) == (False, 0, 0, 1)
        assert fake.requests["library"] == 5
        report = await go(full=True)
        assert (report.new, report.changed, report.gone, fake.requests["library"]) == (0, 0, 0, 9)
        fake.change("B100000007", title="Renamed")
        report = await go()
        assert (report.changed, fake.requests["library"]) == (1, 10)
        found, _ = await store.titles(search="renamed", limit=9, offset=0)
        assert [title.facts.asin for title in found] == ["B100000007"]
        assert fake.requests.total() == 10

    syncing(scene)


def test_what_the_library_tells_of_a_title_is_known(fake, syncing):
    async def scene(store, go):
        await go()
        title = await store.title(ASIN)
        known = title.facts.metadata
        assert (known.title, known.subtitle, known.authors) == (
            "The Lighthouse",
            "A Novel of the Sea",
            ("Ada Keeper", "Bo Writer"),
        )
        assert [(series.name, series.part) for series in known.series] == [("The Coast", "1")]
        assert (title.status, title.facts.item["asin"]) == (TitleStatus.NEW, ASIN)
        assert title.facts.cover.startswith("https://")
        assert title.facts.purchased == datetime(2024, 5, 1, 8, tzinfo=UTC)

    syncing(scene)


def test_what_is_bought_taken_back_and_given_again_follows_by_deltas(fake, syncing):
    async def scene(store, go):
        await go()
        fake.add(Title(asin="B0OWNTEST2", title="Bought"))
        fake.revoke(ASIN)
        report = await go()
        assert (report.full, report.new, report.gone) == (False, 1, 1)
        title = await store.title(ASIN)
        assert (title.status, title.reason.code, title.facts.metadata.title) == (
            TitleStatus.UNAVAILABLE,
            "title.revoked",
            "The Lighthouse",
        )
        assert (await store.title(Asin("B0OWNTEST2"))).came_later
        fake.change(ASIN, status="Active")
        assert (await go()).changed == 1
        assert (await store.title(ASIN)).status is TitleStatus.NEW

    syncing(scene)


def test_episodes_come_with_their_podcast_and_a_preorder_waits_for_its_day(fake, syncing):
    async def scene(store, go):
        day = now() + timedelta(days=3)
        fake.add(
            Title(asin="B0PODCAST1", title="The Show", delivery="PodcastParent"),
            *(Title(asin=f"B0EPISODE{n}", parent="B0PODCAST1", delivery="PodcastEpisode") for n in range(3)),
            Title(asin="B0PREORDER", released=day, consumable=False),
        )
        report = await go()
        assert (report.titles, report.requests, fake.requests["children"]) == (6, 2, 1)
        assert (await store.title(Asin("B0PODCAST1"))).reason.code == "title.podcast"
        assert (await store.title(Asin("B0EPISODE2"))).status is TitleStatus.NEW
        assert (await store.title(Asin("B0PREORDER"))).reason.code == "title.not_released"

    syncing(scene)


def test_trouble_of_every_kind_leaves_what_was_known(fake, syncing):
    async def scene(store, go):
        await go()
        before = await store.sync_state(MAIN)
        for number, (fault, code) in enumerate(
            (
                ({"status": 429, "retry_after": 30}, "audible.rate"),
                ({"status": 503}, "audible.server"),
                ({"html": True}, "audible.unreadable"),
                ({"drop": True}, "audible.network"),
                ({"status": 403}, "audible.unauthorized"),
            )
        ):
            fake.add(Title(asin=f"B0NEWONE0{number}"))
            fake.fault("library", **fault)
            with pytest.raises((Transient, NeedsAttention)) as caught:
                await go()
            assert caught.value.code == code
            assert await store.sync_state(MAIN) == before
        fake.fault("library", status=400)  # a token that it doesn't take
        report = await go()
        assert (report.full, report.new) == (True, 5)
        fake.deregister()
        with pytest.raises(NeedsAttention) as caught:
            await go()
        assert caught.value.code == "audible.unauthorized"

    syncing(scene)
