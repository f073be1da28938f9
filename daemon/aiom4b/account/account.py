"""What do the owner's Audible accounts do here? Signed in, kept in sync, and fetched from, by request and by themselves."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import anyio
import anyio.to_thread
import structlog

from aiom4b import models, pipeline
from aiom4b.account import policy
from aiom4b.account.downloads import Downloads
from aiom4b.account.keys import Keys
from aiom4b.account.licences import Licences
from aiom4b.account.orders import Orders
from aiom4b.account.profiles import checked
from aiom4b.account.registration import Registration
from aiom4b.account.rounds import Rounds
from aiom4b.account.shelf import Shelf
from aiom4b.account.standing import standing
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError, NeedsAttention
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.events import Event, Events, Reset
from aiom4b.jobs.fetching import Fetcher
from aiom4b.jobs.job import Job, JobId, JobOptions, Kind, Status
from aiom4b.jobs.runner import Runner
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import AccountStatus, Asin, Cause, Profile, SyncReport
from aiom4b.models import Clock

_MANY = 10_000
_AGAIN_SECONDS = 60.0
_LOOKING_SECONDS = 1.0  # for which a sync waits before it leaves its orders for later
_TIDIED_AFTER = ("job.completed", "job.cancelled", "job.deleted")
# A new sign-in is the remedy of them all.
_ENDED_BY_SIGN_IN = (Cause.UNAUTHORIZED, Cause.THROTTLED, Cause.VOUCHERS)

log = structlog.get_logger()


class Account:
    """All accounts of the owner; one for the service. ``fetcher`` is for the scheduler, which is made after this.

    ``requeue`` queues a waiting job at once. ``looked`` returns once all that lies in the source now has been looked at: a
    title may be among it, and then no licence is to be asked for by ourselves. ``monotonic`` is seconds on a clock that nobody sets, ``sleep`` takes seconds,
    ``jitter`` returns a number from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        admission: Admission,
        runner: Runner,
        settings: Callable[[], Settings],
        *,
        keys: Keys,
        requeue: Callable[[JobId], Awaitable[Job]],
        looked: Callable[[], Awaitable[None]],
        clock: Clock = models.now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._events = events
        self._settings = settings
        self._keys = keys
        self._requeue = requeue
        self._looked = looked
        self._clock = clock
        self._registration = Registration(keys.profiles, clock=clock)
        self._shelf = Shelf(store, settings)
        self._licences = Licences(store, keys.vouchers, settings, clock=clock, sleep=sleep, jitter=jitter)
        downloads = Downloads(
            store,
            events,
            admission,
            runner,
            settings,
            keys=keys,
            licences=self._licences,
            shelf=self._shelf,
            clock=clock,
            monotonic=monotonic,
        )
        self.fetcher: Fetcher = downloads
        self._orders = Orders(
            store, admission, settings, downloads=downloads, shelf=self._shelf, vouchers=keys.vouchers
        )
        self._rounds = Rounds(
            store,
            events,
            settings,
            keys=keys,
            licences=self._licences,
            then=self._synced,
            clock=clock,
            monotonic=monotonic,
        )
        self._newly_signed_in: set[Profile] = set()
        self._late: set[Profile] = set()
        self._late_news = anyio.Event()

    async def run(self) -> None:
        """Work until cancelled: sync what is due, fetch what the settings say, tidy up. Errors are told and tried again."""
        events = self._events.since(None)
        await self._seal()
        async with anyio.create_task_group() as group:
            group.start_soon(self._tidy, events, name="tidying of downloads")
            group.start_soon(self._rounds.run, name="syncs")
            group.start_soon(self._catch_up, name="late orders")

    async def _seal(self) -> None:
        try:
            sealed = await anyio.to_thread.run_sync(self._keys.profiles.seal)
        except Aiom4bError as error:  # it stays as it is, and `status` shows that
            log.warning("account.not_encrypted", code=error.code, reason=error.reason, remedy=error.remedy)
        else:
            for profile in sealed:
                log.info("account.encrypted", profile=profile)

    # --- the library ---------------------------------------------------------------------------------------------------

    def request_sync(self, profile: Profile | None, *, full: bool) -> None:
        """Have an account, or all of them, synced soon; ``library.synced`` or ``library.not_synced`` tells of each."""
        self._rounds.request(profile, full=full)

    async def sync(self, profile: Profile, *, full: bool) -> SyncReport:
        """Sync an account now. Raises what `sync.sync` and `Profiles.load` raise."""
        return await self._rounds.sync(profile, full=full)

    async def download(self, asins: Sequence[Asin] | None) -> tuple[Job, ...]:
        """Queue titles, all that are NEW for None; see `Orders.download`."""
        return await self._orders.download(asins)

    async def convert(self, asin: Asin, options: JobOptions, priority: int) -> Job:
        """Queue the book of a title; see `Orders.convert`."""
        return await self._orders.convert(asin, options, priority)

    # --- accounts ------------------------------------------------------------------------------------------------------

    async def begin_sign_in(self, profile: Profile, country: str, *, with_username: bool) -> str:
        """Begin a sign-in, and return the address to open; see `Registration.begin`."""
        return await self._registration.begin(checked(profile), country, with_username=with_username)

    async def finish_sign_in(self, profile: Profile, pasted: str) -> AccountStatus:
        """Register this device; see `Registration.finish`."""
        await self._registration.finish(checked(profile), pasted)
        return await self._welcome(profile)

    async def import_identity(
        self, profile: Profile, document: bytes, password: str | None, country: str | None
    ) -> AccountStatus:
        """Take over another program's sign-in; see `Registration.take_over`."""
        await self._registration.take_over(checked(profile), document, password, country)
        return await self._welcome(profile)

    async def status(self) -> tuple[AccountStatus, ...]:
        """Return how each account stands, without any secret."""
        daily = self._settings().audible.daily_licences
        return await standing(self._store, self._keys.profiles, daily, self._rounds.failures, clock=self._clock)

    async def sign_out(self, profile: Profile, *, forced: bool = False) -> None:
        """Deregister this device and forget the account; see `Registration.sign_out`. What is here stays."""
        await self._registration.sign_out(checked(profile), forced=forced)
        self._rounds.afresh(profile)
        await self._store.drop_profile(profile)

    async def _welcome(self, profile: Profile) -> AccountStatus:
        for cause in _ENDED_BY_SIGN_IN:
            await self._store.end_pause(profile, cause)
        # What another registration could not open, this one may.
        await self._store.revise_licences(profile, policy.VOUCHER_UNREADABLE, policy.ASKED)
        self._rounds.afresh(profile)
        self._events.publish("account.signed_in", profile=profile)
        self._newly_signed_in.add(profile)
        self._rounds.request(profile, full=False)
        return next(account for account in await self.status() if account.profile == profile)

    # --- what follows from what ----------------------------------------------------------------------------------------

    async def _synced(self, report: SyncReport) -> SyncReport:
        """Fetch what the settings say; after a new sign-in, what waited for it goes on."""
        if report.profile in self._newly_signed_in:
            await self._go_on(report.profile)
            self._newly_signed_in.discard(report.profile)
        if self._settings().audible.auto_download != "off":
            with anyio.move_on_after(_LOOKING_SECONDS) as looking:
                await self._looked()
            if looking.cancelled_caught:  # somebody is copying, or the source isn't mounted: that may take days
                self._late.add(report.profile)
                self._late_news.set()
                return report
        return replace(report, queued=await self._orders.automatic(report.profile))

    async def _catch_up(self) -> None:
        """Fetch what the settings say as soon as the source has been looked at, where a sync could not wait for that."""
        while True:
            await self._late_news.wait()
            self._late_news = anyio.Event()
            await self._looked()
            while self._late:
                await self._done(partial(self._orders.automatic, self._late.pop()), "downloads.not_queued")

    async def _go_on(self, profile: Profile) -> None:
        jobs, _ = await self._store.jobs(limit=_MANY, offset=0, status=[Status.WAITING], kind=Kind.DOWNLOAD)
        for job in jobs:
            if await self._store.title(Asin(job.asin), profile) is not None:
                try:
                    await self._requeue(job.id)
                except NeedsAttention as error:  # it goes on by itself this very moment
                    log.debug("job.not_queued", job=job.id, code=error.code)

    async def _tidy(self, events: AsyncIterator[Event | Reset]) -> None:
        """Remove downloads that nobody needs any more, whenever a job of theirs ends; and what was left before the start."""
        while True:
            if await self._done(self._shelf.reconciled, "downloads.not_tidied"):
                break
            await anyio.sleep(_AGAIN_SECONDS)
        await self._done(self._orders.resume, "downloads.not_resumed")
        async for event in events:
            if isinstance(event, Reset):  # who knows whose job has ended meanwhile
                await self._done(self._shelf.tidy_all, "downloads.not_tidied")
            elif event.event in _TIDIED_AFTER and event.data.get("asin"):
                await self._done(partial(self._shelf.tidy, Asin(str(event.data["asin"]))), "downloads.not_tidied")

    async def _done(self, call: Callable[[], Awaitable[object]], otherwise: str) -> bool:
        try:
            await call()
        except Exception as unforeseen:  # noqa: BLE001 - books go on, and the next start tries again
            error = pipeline.understood(unforeseen)
            log.warning(otherwise, code=error.code, reason=error.reason, remedy=error.remedy)
            return False
        return True
