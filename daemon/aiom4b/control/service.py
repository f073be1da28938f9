"""What may the routes ask of the service, and what does it tell of itself? Frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from aiom4b.config import Settings
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import WatcherHealth
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.models import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the service does what it is for, and if not, why: one sentence for each reason.

    ``workers`` is how many worker processes may run, ``worker_crashes`` how many had to be replaced since the start.
    """

    ok: bool
    reasons: tuple[str, ...]
    watcher: WatcherHealth | None
    workers: int
    worker_crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What new settings changed, by dotted keys: what is in force now, and what only a restart can bring."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """All that the routes work with. ``reload`` raises InvalidSettings when the old settings stay in force."""

    store: Store
    scheduler: Scheduler
    admission: Admission
    desk: Desk
    events: Events
    settings: Callable[[], Settings]
    health: Callable[[], Awaitable[Health]]
    scan: Callable[[], None]
    reload: Callable[[], Awaitable[Reloaded]]
    started: datetime
    clock: Clock
