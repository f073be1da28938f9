"""Does the inbox notice what really happens to a real directory? Real file events, real time, short settle times."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic

import anyio
import pytest

from aiom4b.config import WatchSettings
from aiom4b.intake import watch, watcher
from aiom4b.intake.inbox import Inbox
from aiom4b.jobs.job import EntryState
from intakes import FakeJobs, book, examined, put, track

SOON = 20.0  # seconds until a test gives up waiting for what must come


class House:
    """A running inbox over a source directory; rescans come too seldom to help."""

    def __init__(self, source, **watch):
        self.source = source
        self.jobs = FakeJobs()
        self.events = []
        self.settings = WatchSettings(**({"mode": "events", "settle_seconds": 0.3, "rescan_seconds": 3600} | watch))
        self.inbox = Inbox(
            source=os.fspath(source),
            settings=lambda: self.settings,
            examine=examined,
            jobs=self.jobs,
            publish=lambda event, **data: self.events.append(event),
            clock=lambda: datetime.now(UTC),
            monotonic=monotonic,
        )

    @property
    def health(self):
        return self.inbox.health()

    async def until(self, fact):
        with anyio.fail_after(SOON):
            while not fact():
                await self.inbox._moved.wait()

    async def taken(self, name):
        await self.until(lambda: self.jobs.records.get(name) and self.jobs.records[name].state is EntryState.QUEUED)

    async def heard(self):
        await self.until(lambda: self.inbox._watcher._listening and not self.inbox._fresh)


@asynccontextmanager
async def opened(house):
    async with anyio.create_task_group() as group:
        group.start_soon(house.inbox.run)
        yield house
        group.cancel_scope.cancel()


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "source"
    place.mkdir()
    return place


def played(scene, house, *, listening=True):
    async def run():
        async with opened(house):
            if listening:
                await house.heard()
            await scene(house)

    anyio.run(run)


def test_a_copied_folder_is_taken_within_the_settle_time_and_two_seconds(source):
    async def scene(house):
        put(source / "Emma", book())
        written = monotonic()
        await house.taken("Emma")
        assert 0.3 <= monotonic() - written < 0.3 + 2

    played(scene, House(source))


def test_a_folder_moved_in_is_taken_although_its_files_come_without_events(source, tmp_path):
    put(tmp_path / "Emma", book() | {"CD2/3.mp3": track(99)})

    async def scene(house):
        os.rename(tmp_path / "Emma", source / "Emma")
        await house.taken("Emma")
        assert house.jobs.records["Emma"].files == 3

    played(scene, House(source))


def test_a_replaced_source_is_watched_again(source, tmp_path):
    async def scene(house):
        put(source / "Emma", book(seed=1))
        await house.taken("Emma")
        os.rename(source, tmp_path / "old")
        source.mkdir()
        put(source / "Persuasion", book(seed=2))
        await house.taken("Persuasion")
        await house.until(lambda: "Emma" not in house.jobs.records)
        await house.heard()
        put(source / "Sanditon", book(seed=3))
        await house.taken("Sanditon")
        assert house.health.state == "up"

    played(scene, House(source))


def test_a_name_that_is_not_utf8_ends_the_events_again_and_again_and_is_shown_for_as_long(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(watcher, "_SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(watcher, "_LONGEST_PAUSE", 0.5)
    name = os.fsdecode(b"Caf\xe9")

    async def scene(house):
        put(source / name, book(seed=1))
        await house.until(lambda: "watcher.degraded" in house.events)
        assert "decode" in house.health.reason
        await house.taken(name)
        put(source / "Emma", book(seed=2))
        await house.taken("Emma")
        assert house.events.count("watcher.degraded") == 1
        os.rename(source / name, tmp_path / "elsewhere")
        await house.until(lambda: house.health.state == "up")
        put(source / "Persuasion", book(seed=3))
        await house.taken("Persuasion")

    played(scene, House(source, rescan_seconds=1))


def test_a_missing_source_that_appears_later_is_watched(source):
    source.rmdir()

    async def scene(house):
        await house.until(lambda: house.health.state == "degraded")
        source.mkdir()
        await house.heard()
        put(source / "Emma", book())
        await house.taken("Emma")
        assert (house.health.state, house.health.mode) == ("up", "events")

    played(scene, House(source), listening=False)


def test_a_source_that_comes_back_is_heard_at_once_however_long_the_events_had_failed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "_SHORTEST_PAUSE", 100.0)

    async def scene(house):
        os.rename(source, tmp_path / "away")
        house.inbox.scan()
        house.inbox._watcher.listen_anew()  # and fails: there is nothing to listen to
        await house.until(lambda: house.health.state == "degraded" and house.inbox._watcher.has("events"))
        os.rename(tmp_path / "away", source)
        await house.heard()
        put(source / "Emma", book())
        await house.taken("Emma")

    played(scene, House(source))


def test_without_events_the_rescan_finds_everything_and_says_that_it_is_deaf(source, monkeypatch):
    async def deaf(source, *, standing, touched):
        standing()
        await anyio.sleep_forever()

    monkeypatch.setattr(watcher, "listen", deaf)

    async def scene(house):
        put(source / "Emma", book())
        await house.taken("Emma")
        await house.until(lambda: "without a file event" in house.health.reason)

    monkeypatch.setattr("aiom4b.intake.inbox._EVENT_SECONDS", 0.5)
    played(scene, House(source, rescan_seconds=0.5))


def test_what_came_before_the_watch_stood_is_no_sign_of_deafness(source, monkeypatch):
    monkeypatch.setattr("aiom4b.intake.inbox._EVENT_SECONDS", 0.0)
    listen = watch.listen

    async def late(place, *, standing, touched):
        put(source / "Emma", book())
        await listen(place, standing=standing, touched=touched)

    monkeypatch.setattr(watcher, "listen", late)

    async def scene(house):
        await house.taken("Emma")
        assert "watcher.degraded" not in house.events

    played(scene, House(source))


def test_a_watch_that_the_system_refuses_is_shown_and_the_rescan_goes_on(source, monkeypatch):
    def refused(*_):
        raise OSError("OS file watch limit reached. about [...]")

    monkeypatch.setattr(watch, "RustNotify", refused)

    async def scene(house):
        await house.until(lambda: "no more file watches" in house.health.reason)
        put(source / "Emma", book())
        await house.taken("Emma")

    played(scene, House(source, rescan_seconds=0.5), listening=False)


def test_a_source_whose_path_is_not_utf8_is_polled(tmp_path):
    source = tmp_path / os.fsdecode(b"\xff")
    source.mkdir()

    async def scene(house):
        await house.until(lambda: "not UTF-8" in house.health.reason)
        put(source / "Emma", book())
        await house.taken("Emma")

    played(scene, House(source, rescan_seconds=0.5), listening=False)


def test_another_mode_is_taken_up_at_the_next_rescan(source):
    async def scene(house):
        house.inbox._watcher.deaf("x")
        house.settings = WatchSettings(mode="poll", settle_seconds=0.3, rescan_seconds=0.5)
        house.inbox.scan()
        await house.until(lambda: house.health.mode == "poll" and not house.inbox._watcher._listening)
        assert house.health.state == "up"
        put(source / "Emma", book(seed=1))
        await house.taken("Emma")
        house.settings = WatchSettings(mode="events", settle_seconds=0.3, rescan_seconds=3600)
        house.inbox.scan()
        await house.heard()
        put(source / "Persuasion", book(seed=2))
        await house.taken("Persuasion")
        assert house.health.state == "up"

    played(scene, House(source))


def test_it_stops_at_once_while_it_listens(source):
    async def scene(house):
        pass

    async def run():
        house = House(source)
        async with opened(house):
            await house.heard()
            began = monotonic()
        assert monotonic() - began < 2

    anyio.run(run)
