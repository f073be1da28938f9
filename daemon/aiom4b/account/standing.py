"""How do the accounts stand? Who is signed in, what is known of the library, and what Audible is not asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio.to_thread

from aiom4b.account import policy
from aiom4b.account.licences import problem_of
from aiom4b.account.profiles import Profiles
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.job import Problem
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import AccountStatus, Cause, Pause, Profile
from aiom4b.models import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignIn:
    """What the files of a profile tell; ``problem`` is why its sign-in can't be used."""

    pending: bool
    encrypted: bool
    identity: Identity | None
    problem: Problem | None


async def standing(
    store: Store, profiles: Profiles, daily: int, failures: Mapping[Profile, Problem], *, clock: Clock
) -> tuple[AccountStatus, ...]:
    """Return how each account stands, without any secret. ``failures`` are why the last sync of some failed."""
    names = await anyio.to_thread.run_sync(profiles.names)
    return tuple([await _one(store, profiles, name, daily, failures.get(name), clock=clock) for name in names])


async def _one(
    store: Store, profiles: Profiles, profile: Profile, daily: int, failure: Problem | None, *, clock: Clock
) -> AccountStatus:
    now = clock()
    found = await anyio.to_thread.run_sync(_signed_in, profiles, profile)
    known = await store.sync_state(profile)
    _, titles = await store.titles(profile=profile, limit=0, offset=0)
    asked = await store.licences_since(now - policy.DAY, profile)
    pauses = [pause for pause in await store.pauses(profile) if policy.remaining(pause, now)]
    used_up = policy.hindrance(pauses=(), asked=asked, outcomes=(), now=now, daily=daily)
    if used_up is not None:
        pauses.append(Pause(cause=Cause.BUDGET, until=now + used_up.time, failures=0, problem=used_up.problem))
    unauthorized = next((pause.problem for pause in pauses if pause.cause is Cause.UNAUTHORIZED), None)
    identity = found.identity
    return AccountStatus(
        profile=profile,
        pending=found.pending,
        country="" if identity is None else identity.country,
        owner="" if identity is None else identity.owner,
        device="" if identity is None else identity.device,
        registered=None if identity is None else identity.registered,
        token_expires=None if identity is None else identity.token_expires,
        encrypted=found.encrypted,
        titles=titles,
        last_sync=known.last_sync,
        last_full_sync=known.last_full_sync,
        licences_today=len(asked),
        licences_allowed=daily,
        pauses=tuple(pauses),
        problem=found.problem or unauthorized or failure,
    )


def _signed_in(profiles: Profiles, profile: Profile) -> _SignIn:
    pending = profiles.waits(profile)
    if not profiles.signed_in(profile):
        return _SignIn(pending=pending, encrypted=False, identity=None, problem=None)
    try:
        encrypted, identity = profiles.encrypted(profile), profiles.load(profile)
    except Aiom4bError as error:
        sealed = error.code in {"authfile.encrypted", "authfile.wrong_password"}
        return _SignIn(pending=pending, encrypted=sealed, identity=None, problem=problem_of(error))
    return _SignIn(pending=pending, encrypted=encrypted, identity=identity, problem=None)
