"""How do watchers hear what happens? One ring of numbered events, and a place in it for every watcher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import anyio
import structlog

from aiom4b.adapters.files import displayable
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.job import Job, SourceEntry
from aiom4b.models import Clock

log = structlog.get_logger()

BLOCK = 1000
"""How many ids are reserved at a time; a restart skips what is left of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened: ``job.started``, and its particulars as JSON values. Ids rise, over restarts too."""

    id: int
    event: str
    at: datetime
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The watcher has missed events: it must look at everything anew, and goes on after ``id``."""

    id: int


class Events:
    """The newest ``keep`` events, for any number of watchers; none of them can hold anybody up.

    ``reserve`` gives the first of as many ids as it is asked for, which were never given out before.
    """

    def __init__(self, clock: Clock, reserve: Callable[[int], Awaitable[int]], keep: int = 1000) -> None:
        self._clock = clock
        self._reserve = reserve
        self._keep = keep
        self._ring: deque[Event] = deque(maxlen=keep)
        self._unnumbered: deque[tuple[str, datetime, Mapping[str, object]]] = deque(maxlen=keep)
        self._lost = False  # whether events fell out of there before they had an id
        self._numbered = 0  # how many events have ever been in the ring: watchers count their places by it
        self._before_ring = 0  # the id of the last event that is no more in the ring
        self._last_id = 0
        self._ids = range(0)
        self._next_ids = range(0)
        self._reserving: asyncio.Task[None] | None = None
        self._news = anyio.Event()
        self._closed = False

    @property
    def last_id(self) -> int:
        """The id of the newest event; before the first one, the id after which it will come."""
        return self._last_id

    async def start(self) -> None:
        """Reserve the first ids; raises what ``reserve`` raises. Nothing is published or watched before."""
        first = await self._reserve(BLOCK)
        self._ids = range(first, first + BLOCK)
        self._last_id = self._before_ring = first - 1

    def publish(self, event: str, /, **data: object) -> None:
        """Tell all watchers. Never waits: if ids run out, events get theirs as soon as there are new ones.

        ``data`` are JSON values. To be called in the event loop only.
        """
        if self._closed:
            return
        self._lost = self._lost or len(self._unnumbered) == self._keep
        self._unnumbered.append((event, self._clock(), data))
        self._number()

    def since(self, id: int | None) -> AsyncIterator[Event | Reset]:
        """Return all events after the one with this id, or from this moment on, as they come, until `close`.

        A Reset comes first if some of them are no more to be had or the id was never given out, and whenever the watcher
        has fallen behind by more than the ring holds.
        """
        if id is None:
            return self._follow(self._numbered)
        if id < self._before_ring or id > self._last_id:
            return self._follow(None)
        return self._follow(self._numbered - sum(event.id > id for event in self._ring))

    def close(self) -> None:
        """Let every watcher come to its end, after what has been published; what comes later is dropped."""
        self._closed = True
        if self._reserving is not None:
            self._reserving.cancel()
        self._wake()

    async def _follow(self, place: int | None) -> AsyncIterator[Event | Reset]:
        while True:
            if place is None or self._numbered - place > len(self._ring):
                place = self._numbered
                yield Reset(id=self._last_id)
            elif place < self._numbered:
                event = self._ring[place - self._numbered]
                place += 1
                yield event
            elif self._closed:
                return
            else:
                await self._news.wait()

    def _number(self) -> None:
        while self._unnumbered:
            if not self._ids:
                self._ids, self._next_ids = self._next_ids, range(0)
            if not self._ids:
                break
            self._last_id, self._ids = self._ids[0], self._ids[1:]
            self._numbered += 1
            if self._lost:  # one id stands for all that were lost: whoever is not past it gets a Reset
                self._lost, self._before_ring = False, self._last_id
                self._ring.clear()
                continue
            if len(self._ring) == self._keep:
                self._before_ring = self._ring[0].id
            event, at, data = self._unnumbered.popleft()
            self._ring.append(Event(id=self._last_id, event=event, at=at, data=data))
        self._wake()
        if len(self._ids) < BLOCK // 2 and not self._next_ids and self._reserving is None:
            self._reserving = asyncio.get_running_loop().create_task(self._reserve_more(), name="events.reserve")

    async def _reserve_more(self) -> None:
        try:
            first = await self._reserve(BLOCK)
        except Aiom4bError as error:
            # The next event tries again; until then events wait for their ids, as many as the ring would hold.
            log.warning("events.ids_not_reserved", code=error.code, reason=error.reason)
            self._reserving = None
            return
        self._next_ids = range(first, first + BLOCK)
        self._reserving = None
        self._number()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()


def of_job(job: Job) -> dict[str, object]:
    """Return what events say of a job, as JSON values; ``asin`` only where it has one."""
    title = {"asin": job.asin} if job.asin else {}
    return {
        "job_id": job.id,
        **title,
        "name": displayable(job.name),
        "status": str(job.status),
        "step": None if job.step is None else str(job.step),
        "progress": round(job.progress, 1),
        "eta_seconds": None if job.eta_seconds is None else round(job.eta_seconds),
    }


def of_entry(entry: SourceEntry) -> dict[str, object]:
    """Return what events say of an entry, as JSON values."""
    problem = entry.problem
    reason = None if problem is None else {"code": problem.code, "message": problem.message, "remedy": problem.remedy}
    return {"name": displayable(entry.name), "state": str(entry.state), "problem": reason}
