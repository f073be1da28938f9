"""When is each library asked what changed? On a schedule, on request, and again after a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

import anyio
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.account import policy, sync
from aiom4b.account.keys import Keys
from aiom4b.account.licences import Licences, problem_of
from aiom4b.config import Settings
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import Problem
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Cause, Profile, SyncReport
from aiom4b.models import Clock

_LONGEST_SLEEP = 300.0  # the wall clock may be set, and signing in is seen at once anyway
_FIRST_RETRY, _LONGEST_RETRY = 300.0, 6 * 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why the last sync of an account failed, for the how many-th time in a row, and when it is tried again (monotonic)."""

    problem: Problem
    times: int
    again: float


class Rounds:
    """Syncs one account at a time. ``then`` is given each report, does what follows, and returns what is to be told."""

    def __init__(
        self,
        store: Store,
        events: Events,
        settings: Callable[[], Settings],
        *,
        keys: Keys,
        licences: Licences,
        then: Callable[[SyncReport], Awaitable[SyncReport]],
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._events = events
        self._settings = settings
        self._keys = keys
        self._licences = licences
        self._then = then
        self._clock = clock
        self._monotonic = monotonic
        self._one_at_a_time = anyio.Lock()
        self._wake = anyio.Event()
        self._requested: dict[Profile | None, bool] = {}
        self._failures: dict[Profile, _Failure] = {}

    @property
    def failures(self) -> dict[Profile, Problem]:
        """Why the last sync of some accounts failed."""
        return {profile: failure.problem for profile, failure in self._failures.items()}

    async def run(self) -> None:
        """Sync what is due until cancelled. What goes wrong is told, and tried again later."""
        while True:
            self._wake = anyio.Event()
            pause = _LONGEST_SLEEP
            try:
                pause = await self._round()
            except Exception as unforeseen:  # noqa: BLE001 - books go on, and the next round tries again
                error = pipeline.understood(unforeseen)
                log.warning("library.not_looked_at", code=error.code, reason=error.reason, remedy=error.remedy)
            with anyio.move_on_after(pause):
                await self._wake.wait()

    def request(self, profile: Profile | None, *, full: bool) -> None:
        """Have an account, or all of them, synced as soon as possible."""
        self._requested[profile] = full or self._requested.get(profile, False)
        self._wake.set()

    def afresh(self, profile: Profile) -> None:
        """Forget why an account could not be synced: somebody has signed in anew, or out."""
        self._failures.pop(profile, None)

    async def sync(self, profile: Profile, *, full: bool) -> SyncReport:
        """Sync an account now, and tell what was found. Raises what `sync.sync` and `Profiles.load` raise."""
        async with self._one_at_a_time:
            try:
                identity = await anyio.to_thread.run_sync(self._keys.profiles.load, profile)
                async with self._keys.sessions(identity) as session:
                    report = await sync.sync(
                        session,
                        self._store,
                        profile,
                        full=full,
                        full_sync_days=self._settings().audible.full_sync_days,
                        clock=self._clock,
                    )
                report = await self._then(report)
            except Exception as unforeseen:
                error = pipeline.understood(unforeseen)
                if error.code == "audible.unauthorized":
                    await self._licences.paused(profile, error)
                self._fail(profile, problem_of(error), full=full)
                raise error from unforeseen
            self._failures.pop(profile, None)
            await self._store.end_pause(profile, Cause.UNAUTHORIZED)
            sync.announce(report, self._events)
            return report

    async def _round(self) -> float:
        """Sync what was asked for and what is due, and return for how many seconds nothing is."""
        requested, self._requested = self._requested, {}
        pause = _LONGEST_SLEEP
        signed_in = await anyio.to_thread.run_sync(self._signed_in)
        names = await anyio.to_thread.run_sync(self._keys.profiles.names)
        for profile in dict.fromkeys([*names, *(profile for profile in requested if profile is not None)]):
            asked = profile in requested or None in requested
            if not asked and profile not in signed_in:
                continue  # it waits for its second step
            wait = 0.0 if asked else await self._wait(profile)
            if wait <= 0:
                full = requested.get(profile, False) or requested.get(None, False)
                try:
                    await self.sync(profile, full=full)
                except Exception:  # noqa: BLE001, S112 - it was told, and is tried again
                    continue
                wait = await self._wait(profile)
            pause = min(pause, wait)
        return max(pause, 1.0)

    def _signed_in(self) -> list[Profile]:
        profiles = self._keys.profiles
        return [profile for profile in profiles.names() if profiles.signed_in(profile)]

    async def _wait(self, profile: Profile) -> float:
        """Return for how many seconds an account isn't due. The service's own clock doesn't count where it was set back."""
        hours = self._settings().audible.sync_hours
        if hours == 0:
            return _LONGEST_SLEEP
        now = self._clock()
        failure = self._failures.get(profile)
        waits = [0.0 if failure is None else failure.again - self._monotonic()]
        waits += [
            policy.remaining(pause, now).total_seconds()
            for pause in await self._store.pauses(profile)
            if pause.cause is Cause.UNAUTHORIZED
        ]
        last = (await self._store.sync_state(profile)).last_sync
        if last is not None and last <= now:
            waits.append((last + timedelta(hours=hours) - now).total_seconds())
        return max(waits)

    def _fail(self, profile: Profile, problem: Problem, *, full: bool) -> None:
        before = self._failures.get(profile)
        times = 1 if before is None else before.times + 1
        pause = min(_FIRST_RETRY * 2 ** min(times - 1, 10), _LONGEST_RETRY)
        self._failures[profile] = _Failure(problem=problem, times=times, again=self._monotonic() + pause)
        if before is None or before.problem != problem:  # what lasts is told once
            log.warning("library.not_synced", profile=profile, **asdict(problem))
        self._events.publish("library.not_synced", profile=profile, full=full, problem=asdict(problem))
