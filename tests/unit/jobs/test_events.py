"""Do watchers hear everything once, in order, over restarts, and never hold anybody up?"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

import anyio
import pytest

from aiom4b.errors import Transient
from aiom4b.jobs import events as module
from aiom4b.jobs.events import Event, Events, Reset

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Ids:
    """Stands for the database: ids over restarts, and none while it is ``broken`` or before ``open`` is set."""

    def __init__(self):
        self.next = 1
        self.asked = []
        self.broken = False
        self.open = None

    async def __call__(self, number):
        self.asked.append(number)
        if self.open is not None:
            await self.open.wait()
        if self.broken:
            raise Transient("space.full", "The disk is full.", remedy="Free some space.")
        first, self.next = self.next, self.next + number
        return first


async def started(ids=None, keep=1000):
    events = Events(lambda: NOON, ids or Ids(), keep)
    await events.start()
    return events


async def heard(watcher, number):
    """Return the next events of a watcher, which must be there by now or come without a cause from outside."""
    with anyio.fail_after(10):
        return [await anext(watcher) for _ in range(number)]


async def rest(watcher):
    with anyio.fail_after(10):
        return [event async for event in watcher]


async def settled():
    """Let every task that can go on do so."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


def ids_of(found):
    return [event.id for event in found]


def played(scene):
    """Run an async test."""

    def test(*args, **facts):
        anyio.run(lambda: scene(*args, **facts))

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


@played
async def test_a_watcher_hears_what_is_published_after_it_asked_even_before_it_listens():
    events = await started()
    events.publish("job.created", job_id="a")
    watcher = events.since(None)
    events.publish("job.started", job_id="a", progress=0.0)
    assert await heard(watcher, 1) == [Event(id=2, event="job.started", at=NOON, data={"job_id": "a", "progress": 0.0})]


@played
async def test_data_may_have_any_name():
    events = await started()
    watcher = events.since(None)
    events.publish("entry.changed", event="x", id=7, self="me")
    assert (await heard(watcher, 1))[0].data == {"event": "x", "id": 7, "self": "me"}


@played
async def test_a_watcher_waits_for_news():
    events = await started()
    watcher, got = events.since(None), []

    async def watch():
        got.append(await anext(watcher))
        got.append(await anext(watcher))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await settled()
        assert got == []
        events.publish("service.paused")
        await settled()
        assert ids_of(got) == [1]
        events.publish("service.resumed")
    assert ids_of(got) == [1, 2]


@played
async def test_a_watcher_goes_on_after_the_last_event_it_heard():
    events = await started()
    for _ in range(5):
        events.publish("job.progress")
    assert ids_of(await heard(events.since(3), 2)) == [4, 5]
    watcher = events.since(5)
    events.publish("job.completed")
    assert ids_of(await heard(watcher, 1)) == [6]


@played
async def test_an_id_that_left_the_ring_gets_a_reset_and_what_comes_next():
    events = await started(keep=3)
    for _ in range(5):
        events.publish("job.progress")
    assert ids_of(await heard(events.since(2), 3)) == [3, 4, 5]
    watcher = events.since(1)
    assert await heard(watcher, 1) == [Reset(id=5)]
    events.publish("job.completed")
    assert ids_of(await heard(watcher, 1)) == [6]


@played
async def test_an_id_that_was_never_given_out_gets_a_reset():
    events = await started()
    events.publish("job.created")
    watcher = events.since(77)
    assert await heard(watcher, 1) == [Reset(id=1)]
    events.publish("job.started")
    assert ids_of(await heard(watcher, 1)) == [2]


@played
async def test_a_slow_watcher_gets_a_reset_and_costs_no_memory():
    events = await started(keep=10)
    slow = events.since(None)
    events.publish("job.created")
    assert ids_of(await heard(slow, 1)) == [1]
    for _ in range(11):
        events.publish("job.progress")
    assert await heard(slow, 1) == [Reset(id=12)]
    events.publish("job.completed")
    assert ids_of(await heard(slow, 1)) == [13]
    assert len(events._ring) == 10


@played
async def test_a_watcher_as_far_behind_as_the_ring_is_long_loses_nothing():
    events = await started(keep=10)
    slow = events.since(None)
    for _ in range(10):
        events.publish("job.progress")
    assert ids_of(await heard(slow, 10)) == list(range(1, 11))


@played
async def test_watchers_are_independent():
    events = await started()
    one, other = events.since(None), events.since(None)
    events.publish("job.created")
    events.publish("job.started")
    assert ids_of(await heard(one, 2)) == [1, 2]
    assert ids_of(await heard(other, 1)) == [1]


@played
async def test_ids_rise_over_a_restart_and_an_id_from_before_gets_a_reset():
    ids = Ids()
    before = await started(ids)
    before.publish("job.created")
    after = await started(ids)
    assert after.last_id == module.BLOCK
    watcher = after.since(before.last_id)
    after.publish("job.started")
    assert await heard(watcher, 1) == [Reset(id=module.BLOCK + 1)]
    assert ids_of(await heard(after.since(module.BLOCK), 1)) == [module.BLOCK + 1]


@played
async def test_the_next_ids_are_reserved_before_the_present_ones_run_out():
    ids = Ids()
    events = await started(ids)
    for number in range(3 * module.BLOCK):
        events.publish("job.progress", number=number)
        if number % 100 == 0:
            await settled()
        assert not events._unnumbered
    assert events.last_id == 3 * module.BLOCK
    assert len(ids.asked) == 4


@played
async def test_a_burst_beyond_the_reserved_ids_waits_for_its_ids_and_keeps_its_order():
    ids = Ids()
    events = await started(ids)
    ids.open = anyio.Event()
    watcher = events.since(None)
    for number in range(module.BLOCK + 500):
        events.publish("job.progress", number=number)
    await settled()
    assert events.last_id == module.BLOCK
    ids.open.set()
    await settled()
    events.publish("job.completed", number=module.BLOCK + 500)
    found = await heard(watcher, 1)
    assert found == [Reset(id=module.BLOCK + 501)]  # the ring holds a thousand
    found = await heard(events.since(501), module.BLOCK)
    assert [(event.id, event.data["number"]) for event in found] == list(
        zip(range(502, 1502), range(501, 1501), strict=True)
    )


@played
async def test_ids_that_can_not_be_reserved_are_asked_for_again():
    ids = Ids()
    events = await started(ids)
    ids.broken = True
    for _ in range(module.BLOCK):
        events.publish("job.progress")
        await anyio.lowlevel.checkpoint()
    events.publish("job.completed")
    await settled()
    assert events.last_id == module.BLOCK
    ids.broken = False
    watcher = events.since(module.BLOCK)
    events.publish("job.failed")
    assert [(event.id, event.event) for event in await heard(watcher, 2)] == [
        (module.BLOCK + 1, "job.completed"),
        (module.BLOCK + 2, "job.failed"),
    ]


@played
async def test_events_lost_for_want_of_ids_are_owned_up_to():
    ids = Ids()
    events = await started(ids, keep=5)
    ids.open = anyio.Event()
    watcher = events.since(None)
    for _ in range(module.BLOCK):
        events.publish("job.progress")
    assert await heard(watcher, 1) == [Reset(id=module.BLOCK)]
    for number in range(6):
        events.publish("job.progress", number=number)
    ids.open.set()
    await settled()
    found = await heard(events.since(module.BLOCK), 1)
    assert found == [Reset(id=module.BLOCK + 6)]
    assert isinstance((await heard(watcher, 1))[0], Reset)
    left = await heard(events.since(module.BLOCK + 1), 5)
    assert [event.data["number"] for event in left] == [1, 2, 3, 4, 5]


@played
async def test_closing_ends_every_watcher_after_what_was_published():
    events = await started()
    idle, late = events.since(None), events.since(None)
    async with anyio.create_task_group() as group:
        group.start_soon(rest, idle)
        await settled()
        events.publish("job.cancelled")
        events.close()
        events.publish("job.created")
    assert [event.event for event in await rest(late)] == ["job.cancelled"]
    assert await rest(events.since(None)) == []


@played
async def test_closing_does_not_leave_a_reservation_behind():
    ids = Ids()
    events = await started(ids)
    ids.open = anyio.Event()
    for _ in range(module.BLOCK):
        events.publish("job.progress")
    await settled()
    task = events._reserving
    events.close()
    await settled()
    assert task.cancelled()


@played
async def test_starting_without_a_database_fails_as_the_database_does():
    ids = Ids()
    ids.broken = True
    with pytest.raises(Transient, match="full"):
        await started(ids)


@played
async def test_each_event_has_the_time_of_its_publication():
    ticks = count()
    events = Events(lambda: NOON.replace(second=next(ticks)), Ids())
    await events.start()
    watcher = events.since(None)
    events.publish("job.created")
    events.publish("job.started")
    assert [event.at.second for event in await heard(watcher, 2)] == [0, 1]
