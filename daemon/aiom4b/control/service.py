"""What may the routes ask of the service, and what does it tell of itself? Frozen values and one Protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from aiom4b.config import Settings
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import Job, JobId, JobOptions, Metrics, Status
from aiom4b.jobs.store import Store
from aiom4b.models import Clock, Fingerprint, Name, OrderChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """How the source is being watched. ``state`` is "up" or "degraded", ``last_scan`` how many seconds ago (None: never)."""

    mode: str
    state: str
    reason: str | None
    entries: int
    last_scan: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the service does what it is for, and if not, why: one sentence for each reason.

    ``workers`` is how many worker processes may run, ``worker_crashes`` how many had to be replaced since the start.
    """

    ok: bool
    reasons: tuple[str, ...]
    watcher: Watcher | None
    workers: int
    worker_crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What new settings changed, by dotted keys: what is in force now, and what only a restart can bring."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


class Scheduling(Protocol):
    """What the routes need of the scheduler. Commands raise our errors: ``job.missing``, ``job.conflict``, ``path.outside``."""

    @property
    def paused(self) -> bool:
        """Whether no new job is begun."""
        ...

    @property
    def running(self) -> int:
        """How many jobs are in progress."""
        ...

    @property
    def totals(self) -> Metrics:
        """What all jobs together cost that ended since the start; ``peak_memory`` is the largest of them."""
        ...

    def live(self, job: Job) -> Job:
        """Return the job with its newest progress, which the store learns only now and then."""
        ...

    async def submit(self, folders: Sequence[Name], options: JobOptions, priority: int = 0) -> list[Job]:
        """Queue folders: names relative to the source, or absolute inside it."""
        ...

    async def cancel(self, id: JobId, /) -> Job:
        """End a job that hasn't ended."""
        ...

    async def retry(self, id: JobId, /) -> Job:
        """Queue a failed, cancelled or waiting job again."""
        ...

    async def set_order(self, id: JobId, order: OrderChoice | tuple[Name, ...], /) -> Job:
        """Say in which order the files of a job play."""
        ...

    async def set_priority(self, id: JobId, priority: int, /) -> Job:
        """Say how urgent a job is: the larger, the sooner."""
        ...

    async def delete(self, id: JobId, /) -> None:
        """Remove an ended job from the history."""
        ...

    async def clear(self, statuses: Collection[Status], older_than: timedelta, /) -> int:
        """Remove all jobs of these statuses that ended so long ago; return how many."""
        ...

    async def forget(self, what: Fingerprint, /) -> object:
        """Let the same audio be converted again, although its book is in the library."""
        ...

    async def pause(self) -> None:
        """Begin no new job until `resume`, over restarts."""
        ...

    async def resume(self) -> None:
        """Begin jobs again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """All that the routes work with. ``reload`` raises InvalidSettings when the old settings stay in force."""

    store: Store
    scheduler: Scheduling
    events: Events
    settings: Callable[[], Settings]
    health: Callable[[], Awaitable[Health]]
    scan: Callable[[], None]
    reload: Callable[[], Awaitable[Reloaded]]
    started: datetime
    clock: Clock
