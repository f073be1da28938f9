"""How is a licence asked for? One at a time over all accounts, counted before it is asked for, and stored before it is used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog

from aiom4b.account import policy
from aiom4b.account.vouchers import Voucher, Vouchers
from aiom4b.adapters.audible_api.licences import expiry
from aiom4b.adapters.audible_api.session import Session
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.jobs.job import Problem
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Cause, Profile
from aiom4b.models import Clock

_GRACE_SECONDS = 20.0
"""How long a stop waits for the answer to a request that is out: one whose answer is lost was asked for in vain."""
_BUDGET = "audible.budget"
_LONGEST_LINE = timedelta(days=7)
_ANSWERED = (Cause.THROTTLED, Cause.RATE, Cause.OUTAGE, Cause.NETWORK, Cause.UNAUTHORIZED, Cause.VOUCHERS)
# No patience helps here: what Audible offers is nothing that we can open.
_HOPELESS = ("audible.protected_streaming", "audible.other_codec", "audible.not_found")

T = TypeVar("T")

log = structlog.get_logger()


class Here(Exception):  # noqa: N818 - no failure: nothing has to be asked for
    """A title came here by another way while its turn was waited for."""


class Licences:
    """The only one who asks Audible for licences. ``jitter`` returns a number from 0 to 1, ``sleep`` takes seconds."""

    def __init__(
        self,
        store: Store,
        vouchers: Vouchers,
        settings: Callable[[], Settings],
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._store = store
        self._vouchers = vouchers
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._one_at_a_time = anyio.Lock()
        self._line: dict[Profile, datetime] = {}  # the last turn that was given away
        self._unstored: dict[Asin, Voucher] = {}

    async def voucher(
        self,
        profile: Profile,
        asin: Asin,
        codecs: tuple[str, ...],
        session: Session,
        *,
        here: Callable[[], Awaitable[bool]],
    ) -> Voucher:
        """Return a title's voucher with an address that serves: the stored one, or a new one, which is stored by then.

        ``codecs`` are those that the older way of delivering has the title in, the wanted one first, for when the present way has
        no audio of it. ``here`` tells whether the title has come here by now: then `Here` is raised, and nothing asked for.
        Raises what says why there is none, with ``later`` where it is worth waiting; and what `files.translated` raises.
        """
        async with self._one_at_a_time:
            if (unstored := self._unstored.get(asin)) is not None:
                await self._keep(unstored)
            known = await anyio.to_thread.run_sync(self._vouchers.of, asin)
            # An AAX file is opened by the key of the account that it was made for, and its address may have no end.
            others = known is not None and known.kind == "aax" and known.profile != profile
            if known is not None and not others and known.serves(self._clock()):
                return known
            if known is not None:
                log.info("voucher.expired", asin=asin, profile=profile)
            if known is not None and known.kind == "aax":
                codec = known.format
                await self._wait_for_turn(profile, [], here)
                return await _finished(lambda: self._older(profile, asin, codec, session))
            await self._wait_for_turn(profile, await self._store.licences_of(profile, asin), here)
            return await _finished(lambda: self._ask(profile, asin, codecs, session))

    async def paused(self, profile: Profile, error: Aiom4bError) -> Aiom4bError:
        """Return an error of Audible's with the time after which to try again; the account pauses where it is concerned."""
        cause = policy.cause_of(error.code)
        if cause is None:
            return error
        now = self._clock()
        before = next((pause for pause in await self._store.pauses(profile) if pause.cause is cause), None)
        pause = policy.pause_after(
            cause, before, problem_of(error), now, jitter=self._jitter(), retry_after=error.later
        )
        await self._store.pause_account(profile, pause)
        left = policy.remaining(pause, now)
        log.warning(
            "account.paused",
            profile=profile,
            cause=cause,
            code=error.code,
            reason=error.reason,
            remedy=error.remedy,
            minutes=round(left.total_seconds() / 60),
        )
        return later(error, left)

    async def _wait_for_turn(
        self, profile: Profile, outcomes: Sequence[tuple[datetime, str]], here: Callable[[], Awaitable[bool]]
    ) -> None:
        now = self._clock()
        daily = self._settings().audible.daily_licences
        hindrance = policy.hindrance(
            pauses=await self._store.pauses(profile),
            asked=await self._store.licences_since(now - policy.DAY, profile),
            outcomes=outcomes,
            now=now,
            daily=daily,
        )
        if hindrance is not None:
            problem = hindrance.problem
            wait = self._place_in_line(profile, hindrance, daily)
            raise Transient(problem.code, problem.message, remedy=problem.remedy, later=wait)
        last = await self._store.licences_since(now - policy.DAY)
        await self._sleep(policy.gap(last[-1] if last else None, now, self._jitter()).total_seconds())
        if await here():  # those before it in the line took their time
            raise Here

    def _place_in_line(self, profile: Profile, hindrance: policy.Wait, daily: int) -> timedelta:
        """Return how long a title waits: those that wait for the budget take turns, or all would come back for each place."""
        if hindrance.problem.code != _BUDGET:
            return hindrance.time
        now = self._clock()
        first, last = now + hindrance.time, self._line.get(profile)
        turn = first if last is None else min(max(first, last + policy.DAY / daily), now + _LONGEST_LINE)
        self._line[profile] = turn
        return turn - now

    async def _ask(self, profile: Profile, asin: Asin, codecs: tuple[str, ...], session: Session) -> Voucher:
        await anyio.to_thread.run_sync(self._vouchers.prove)
        at = self._clock()
        # Counted before it goes out: one whose answer is lost with us was asked for all the same.
        await self._store.note_licence(profile, asin, at, policy.ASKED)
        log.info("licence.asked", asin=asin, profile=profile)
        try:
            licence = await session.licence(asin, self._settings().audible.quality)
        except Aiom4bError as error:
            await self._store.note_licence(profile, asin, at, error.code)
            if error.code != "audible.no_asset" or not codecs:
                raise await self._refused(profile, asin, error) from error
            try:
                voucher = await self._older(profile, asin, codecs[0], session)
            except NeedsAttention as other:
                raise await self._refused(profile, asin, error) from other
            await self._store.note_licence(profile, asin, at, policy.GRANTED)
            return voucher
        voucher = Voucher(
            asin=asin,
            profile=profile,
            kind=licence.kind,
            format=licence.content_format.upper() or ("MPEG" if licence.kind == "mp3" else "AAX"),
            address=licence.address,
            expires=licence.expires,
            asked=at,
            size=licence.size,
            pdf=licence.pdf,
            chapters=licence.chapter_info,
            document=licence.voucher,
        )
        await self._keep(voucher)
        await self._store.note_licence(profile, asin, at, policy.GRANTED)
        for cause in _ANSWERED:
            await self._store.end_pause(profile, cause)
        return voucher

    async def _older(self, profile: Profile, asin: Asin, codec: str, session: Session) -> Voucher:
        """Return a voucher for the file that the account's activation bytes open, which takes no licence."""
        address = await session.aax_address(asin, codec)
        voucher = Voucher(
            asin=asin,
            profile=profile,
            kind="aax",
            format=codec,
            address=address,
            expires=expiry(address),
            asked=self._clock(),
            size=None,
            pdf="",
            chapters=None,
            document={},
        )
        await self._keep(voucher)
        return voucher

    async def _keep(self, voucher: Voucher) -> None:
        """Store a voucher, or have it stored by the next try: its licence was taken, whatever the disk says."""
        self._unstored[voucher.asin] = voucher
        await anyio.to_thread.run_sync(self._vouchers.store, voucher)
        del self._unstored[voucher.asin]

    async def _refused(self, profile: Profile, asin: Asin, error: Aiom4bError) -> Aiom4bError:
        if error.code in _HOPELESS:
            await self._store.title_unavailable(asin, problem_of(error))
            return error
        again = await self.paused(profile, error)
        if policy.refusal_of(error.code) is None:
            return again
        left = policy.title_wait(await self._store.licences_of(profile, asin), self._clock())
        return later(error, left) if left else again


async def _finished(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns, or raise its error of ours; cancelled meanwhile, it still has some seconds to end."""
    shield = anyio.CancelScope(shield=True)
    failure: Aiom4bError | None = None

    async def hurry() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = anyio.current_time() + _GRACE_SECONDS

    async with anyio.create_task_group() as group:
        group.start_soon(hurry)
        with shield:
            try:
                result = await call()
            except Aiom4bError as error:  # outside the group, which would wrap it
                failure = error
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # what was cancelled ends here
    if failure is not None:
        raise failure
    return result


def later(error: Aiom4bError, wait: timedelta) -> Aiom4bError:
    """Return the same error with the time after which it is worth trying again."""
    again = type(error)(error.code, error.reason, remedy=error.remedy, path=error.path, later=wait)
    again.__cause__ = error
    return again


def problem_of(error: Aiom4bError) -> Problem:
    """Return what an error says."""
    return Problem(code=error.code, message=error.reason, remedy=error.remedy)
