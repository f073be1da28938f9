"""Which of the owner's keys may open a locked file? Those of stored vouchers, of the accounts, and the one in the settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import anyio
import anyio.to_thread
import structlog

from aiom4b.account.profiles import Profiles
from aiom4b.account.vouchers import Vouchers
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.session import Session
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.title import Profile
from aiom4b.models import AudibleKey, Lock

_AGAIN_SECONDS = 900.0
_UNAUTHORIZED_SECONDS = 6 * 3600.0  # a device that is off the account stays off until somebody signs in anew

log = structlog.get_logger()


class Keys:
    """A `models.KeyRing`: the sign-ins in ``profiles`` and the stored ``vouchers``. ``sessions`` begins one for an identity.

    ``monotonic`` is seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        sessions: Callable[[Identity], Session] = Session,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        known = settings()
        folder = os.path.join(known.paths.state, "audible")
        password = known.audible.password
        self.profiles = Profiles(folder, None if password is None else password.get_secret_value())
        self.vouchers = Vouchers(os.path.join(folder, "vouchers"))
        self.sessions = sessions
        self._settings = settings
        self._monotonic = monotonic
        self._one_at_a_time = anyio.Lock()
        self._failed: dict[Profile, tuple[Identity | None, float]] = {}  # who, None: unknown; and when to ask again

    async def keys(self, lock: Lock, asin: str) -> tuple[tuple[str, AudibleKey], ...]:
        """Return the keys that may open a file of this lock and ASIN ("" if unknown), each with its origin in words.

        An account that can't tell its activation bytes is left out, told in the log, and asked again after a while:
        locked files that wait look here four times a minute.
        """
        if lock is Lock.AAXC:
            voucher = await anyio.to_thread.run_sync(self.vouchers.of, asin)
            key = None if voucher is None else voucher.key
            return () if key is None else (("the stored voucher", key),)
        found: dict[str, str] = {}
        given = self._settings().audible.activation_bytes
        if given is not None:
            found[given.get_secret_value().lower()] = "audible.activation_bytes"
        for profile in await anyio.to_thread.run_sync(self.profiles.names):
            if (value := await self._bytes_of(profile)) is not None:
                found.setdefault(value, f"the account {profile}")
        return tuple((origin, AudibleKey(activation_bytes=value)) for value, origin in found.items())

    async def _bytes_of(self, profile: Profile) -> str | None:
        try:
            identity = await anyio.to_thread.run_sync(self.profiles.load, profile)
        except Aiom4bError as error:
            pending = error.code == "profile.missing"  # it waits for its second step
            if not pending and not self._failed_lately(profile, None):
                self._fail(profile, None, error)
            return None
        if self._failed_lately(profile, identity):
            return None
        try:
            return await self.activation_bytes(profile)
        except Aiom4bError as error:
            self._fail(profile, identity, error)
            return None

    def _failed_lately(self, profile: Profile, identity: Identity | None) -> bool:
        device, again = self._failed.get(profile, (None, 0.0))
        return profile in self._failed and device == identity and self._monotonic() < again

    def _fail(self, profile: Profile, identity: Identity | None, error: Aiom4bError) -> None:
        pause = _UNAUTHORIZED_SECONDS if error.code == "audible.unauthorized" else _AGAIN_SECONDS
        self._failed[profile] = (identity, self._monotonic() + pause)
        log.warning("account.no_activation_bytes", profile=profile, code=error.code, reason=error.reason)

    async def activation_bytes(self, profile: Profile, session: Session | None = None) -> str:
        """Return an account's activation bytes: asked for once, then kept with its sign-in.

        ``session`` is one of that account's, if there is one. Raises what `Profiles.load` and `Session.activation_bytes`
        raise.
        """
        async with self._one_at_a_time:
            identity = await anyio.to_thread.run_sync(self.profiles.load, profile)
            if identity.activation_bytes:
                return identity.activation_bytes
            if session is not None:
                value = await session.activation_bytes()
            else:
                async with self.sessions(identity) as fresh:
                    value = await fresh.activation_bytes()
            await anyio.to_thread.run_sync(self._remember, profile, identity, value)
            return value

    def _remember(self, profile: Profile, identity: Identity, value: str) -> None:
        # Somebody may have signed out or in anew while Audible was asked.
        if self.profiles.signed_in(profile) and self.profiles.load(profile) == identity:
            self.profiles.save(profile, identity.with_activation_bytes(value))
