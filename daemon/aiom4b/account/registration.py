"""How does this service become a device of the owner's account, and cease to be one? In two steps, or with a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog

from aiom4b.account.profiles import Profiles
from aiom4b.adapters.audible_api import signin, storage
from aiom4b.adapters.audible_api.identity import Identity, marketplace
from aiom4b.errors import Aiom4bError, NeedsAttention
from aiom4b.jobs.title import Profile
from aiom4b.models import Clock

T = TypeVar("T")

log = structlog.get_logger()


class Registration:
    """Signs in and out, one at a time. What has begun in a thread is brought to its end even if the caller is cancelled."""

    def __init__(self, profiles: Profiles, *, clock: Clock) -> None:
        self._profiles = profiles
        self._clock = clock
        self._one_at_a_time = anyio.Lock()

    async def begin(self, profile: Profile, country: str, *, with_username: bool) -> str:
        """Begin a sign-in, and return the address to open.

        Raises NeedsAttention ``profile.other_account`` where that name has a sign-in of another marketplace, and what
        `signin.begin` and `Profiles` raise.
        """

        def begun() -> str:
            known = self._known(profile)
            if known is not None and known.country != marketplace(country).country_code:
                raise _other_account(profile)
            pending = signin.begin(country, with_username=with_username, now=self._clock())
            self._profiles.save_pending(profile, pending)
            return pending.url

        return await self._alone(begun)

    async def finish(self, profile: Profile, pasted: str) -> None:
        """Register this device with the address that the browser ended at.

        Raises NeedsAttention ``signin.not_begun``, ``profile.other_account`` where that name has a sign-in of another
        account, and what `signin.finish` and `Profiles` raise.
        """

        def finished() -> None:
            pending = self._profiles.pending(profile)
            identity = signin.finish(pending, pasted, self._clock())
            try:
                self._check_account(profile, identity)
            except NeedsAttention:
                self._deregister_new(profile, identity)
                raise
            self._profiles.save(profile, identity)

        await self._alone(finished)
        log.info("account.signed_in", profile=profile)

    async def take_over(self, profile: Profile, document: bytes, password: str | None, country: str | None) -> None:
        """Take over another program's sign-in.

        Raises NeedsAttention ``profile.other_account`` where that name has a sign-in of another account, and what
        `storage.imported` and `Profiles` raise.
        """

        def taken() -> None:
            identity = storage.imported(document, password, country=country)
            self._check_account(profile, identity)
            self._profiles.save(profile, identity)

        await self._alone(taken)
        log.info("account.imported", profile=profile)

    async def sign_out(self, profile: Profile, *, forced: bool) -> None:
        """Deregister this device, and no other, and forget its sign-in.

        Where Audible can't be told, the sign-in is kept, and what `signin.deregister` and `Profiles.load` raise says why;
        ``forced`` forgets it all the same, and the device stays in Amazon's list. Raises NeedsAttention ``profile.missing``.
        """

        def done() -> None:
            if self._profiles.signed_in(profile) or not self._profiles.waits(profile):
                try:
                    signin.deregister(self._profiles.load(profile))
                except Aiom4bError as error:
                    gone = error.code == "audible.unauthorized"
                    if error.code == "profile.missing":
                        raise
                    if not (gone or forced):
                        error.remedy = (
                            "Sign out again later; or forget the account here with `aiom4b audible logout --force`, and remove "
                            "the device in Amazon's list of devices."
                        )
                        raise
                    log.warning("account.not_deregistered", profile=profile, code=error.code, reason=error.reason)
            self._profiles.remove(profile)

        await self._alone(done)
        log.info("account.signed_out", profile=profile)

    def _known(self, profile: Profile) -> Identity | None:
        """Return who is signed in, None where that can't be read: then a new sign-in is its remedy."""
        if not self._profiles.signed_in(profile):
            return None
        try:
            return self._profiles.load(profile)
        except NeedsAttention as error:
            log.warning("account.not_compared", profile=profile, code=error.code, reason=error.reason)
            return None

    def _check_account(self, profile: Profile, identity: Identity) -> None:
        known = self._known(profile)
        if known is not None and not known.same_account(identity):
            raise _other_account(profile)

    def _deregister_new(self, profile: Profile, identity: Identity) -> None:
        try:
            signin.deregister(identity)
        except Aiom4bError as error:
            log.warning("account.not_deregistered", profile=profile, code=error.code, reason=error.reason)

    async def _alone(self, call: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            return await anyio.to_thread.run_sync(call)


def _other_account(profile: Profile) -> NeedsAttention:
    # Its library and its sync would pass for those of the account that was here before.
    return NeedsAttention(
        "profile.other_account",
        f"Another account, or one of another marketplace, is signed in under the name {profile}.",
        remedy="Give this one a name of its own with `--profile`, or first sign out the other one: "
        f"`aiom4b audible logout --profile {profile}`.",
    )
