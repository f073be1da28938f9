"""What is a title of the owner's Audible library, and how does an account stand? Frozen values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from aiom4b.jobs.job import Job, JobId, Problem
from aiom4b.models import Metadata, Name

Asin = NewType("Asin", str)
"""Ten characters that name a title at Audible."""
Profile = NewType("Profile", str)
"""The owner's name for one account in one marketplace; letters, digits, ``-`` and ``_``."""


class TitleStatus(StrEnum):
    """Where a title stands. All but NEW and UNAVAILABLE follow its jobs and the files that are here."""

    NEW = "new"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    CONVERTING = "converting"
    COMPLETED = "completed"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TitleFacts:
    """What one look at the library told of a title.

    ``item`` is Audible's own document, whole. ``cover`` is the address of the largest picture, "" without one. ``released``
    may lie in the future. ``unavailable`` is why it can't be had now (not released, part of another title, a podcast's parent,
    revoked), None when it can.
    """

    asin: Asin
    metadata: Metadata
    runtime_minutes: int
    cover: str
    purchased: datetime | None
    released: datetime | None
    item: Mapping[str, object]
    unavailable: Problem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """A title as the service knows it. ``first_seen`` is when it first stood in the library, ``changed`` when any of this last did.

    ``files`` is the folder of its finished download while that is here, ``book`` the published file; both absolute.
    ``job`` is the one that works on it, or did last. ``came_later``: it was not there when the account was first synced, which
    is what ``audible.auto_download = "new"`` asks.
    """

    profile: Profile
    facts: TitleFacts
    status: TitleStatus
    reason: Problem | None
    files: Name | None
    book: Name | None
    job: JobId | None
    came_later: bool
    first_seen: datetime
    changed: datetime


class Cause(StrEnum):
    """Why Audible is not asked for licences for a while."""

    THROTTLED = "throttled"
    BUDGET = "budget"
    RATE = "rate"
    OUTAGE = "outage"
    NETWORK = "network"
    UNAUTHORIZED = "unauthorized"
    VOUCHERS = "vouchers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Until when an account is left alone, and why; ``failures`` in a row made it so long. ``problem`` tells the owner."""

    cause: Cause
    until: datetime
    failures: int
    problem: Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStatus:
    """How an account stands, without any secret. ``registered`` is when this device was, None where that isn't known.

    ``token_expires`` concerns the short-lived token only, which is renewed when it is needed. ``licences_today`` were asked
    for in the last 24 hours, of at most ``licences_allowed``. ``pending`` is a sign-in that waits for its second step.
    """

    profile: Profile
    pending: bool
    country: str
    owner: str
    device: str
    registered: datetime | None
    token_expires: datetime | None
    encrypted: bool
    titles: int
    last_sync: datetime | None
    last_full_sync: datetime | None
    licences_today: int
    licences_allowed: int
    pauses: tuple[Pause, ...]
    problem: Problem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync of one account found. ``requests`` is how often the library was asked."""

    profile: Profile
    full: bool
    titles: int
    new: int
    changed: int
    gone: int
    queued: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """How far an account's library is known: Audible's token asks for what changed since ("" has to list it whole)."""

    state_token: str = ""
    last_sync: datetime | None = None
    last_full_sync: datetime | None = None

    @property
    def first_done(self) -> bool:
        """Whether the library was listed whole once: what is not known by now came later."""
        return self.last_full_sync is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What there is of a title here: a ``job`` that has not ended, the folder of its download, its published book."""

    job: Job | None
    files: Name | None
    book: Name | None
