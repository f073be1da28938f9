"""What may the routes ask of the service, and what does it tell of itself? Frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiom4b.config import Settings
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import Job, JobOptions, WatcherHealth
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import AccountStatus, Asin, Profile
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


class AudibleAccount(Protocol):
    """The owner's Audible accounts, by profile. All raise errors of ours, and none of their values holds a secret."""

    async def begin_sign_in(self, profile: Profile, country: str, /, *, with_username: bool) -> str:
        """Begin a sign-in at the market of ``country``; return the address to open in a browser."""
        ...

    async def finish_sign_in(self, profile: Profile, pasted: str, /) -> AccountStatus:
        """Register this device with the address that the browser ended at."""
        ...

    async def import_identity(
        self, profile: Profile, document: bytes, password: str | None, country: str | None, /
    ) -> AccountStatus:
        """Take over the sign-in of another program: the content of its file, and the password of that if it is encrypted."""
        ...

    async def status(self) -> tuple[AccountStatus, ...]:
        """Return how each account stands."""
        ...

    async def sign_out(self, profile: Profile, /, *, forced: bool) -> None:
        """Deregister this device, and forget the account; ``forced``: even where Audible can't be told."""
        ...

    def request_sync(self, profile: Profile | None, /, *, full: bool) -> None:
        """Have an account, or all of them, synced soon.

        The event ``library.synced`` tells what was found, one for each account: profile, full, titles, new, changed, gone,
        queued; ``library.not_synced`` why that failed: profile, full, and problem with code, message and remedy.
        """
        ...

    async def download(self, asins: Sequence[Asin] | None, /) -> tuple[Job, ...]:
        """Queue titles for download, all that are NEW for None; return the jobs that stand for them."""
        ...

    async def convert(self, asin: Asin, options: JobOptions, priority: int, /) -> Job:
        """Queue the book of a title, or its download where it is not here yet; ``title.here`` if there is one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """All that the routes work with. ``reload`` raises InvalidSettings when the old settings stay in force."""

    store: Store
    scheduler: Scheduler
    admission: Admission
    desk: Desk
    events: Events
    account: AudibleAccount
    settings: Callable[[], Settings]
    health: Callable[[], Awaitable[Health]]
    scan: Callable[[], None]
    reload: Callable[[], Awaitable[Reloaded]]
    started: datetime
    clock: Clock
