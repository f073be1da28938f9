"""What does the service tell of itself and of its backups? JSON shapes; those of jobs and entries are in `work`."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Literal, Self

from aiom4b.adapters.backup_format import BackupSet
from aiom4b.adapters.files import displayable
from aiom4b.control.schemas.names import Exact, exactly, readable
from aiom4b.control.schemas.work import Document, JobDocument
from aiom4b.control.service import Health
from aiom4b.jobs.job import EntryState, Status, WatcherHealth


class WatcherDocument(Document):
    """How the source directory is being watched. ``last_scan`` is how many seconds ago all of it was looked through."""

    mode: str
    state: str
    reason: str | None
    entries: int
    last_scan: float | None

    @classmethod
    def of(cls, watcher: WatcherHealth | None) -> Self | None:
        """Return the watcher as it is told."""
        if watcher is None:
            return None
        return cls(
            mode=watcher.mode,
            state=watcher.state,
            reason=readable(watcher.reason) or None,
            entries=watcher.entries,
            last_scan=None if watcher.last_scan is None else round(watcher.last_scan, 1),
        )


class HealthDocument(Document):
    """Whether the service does what it is for, and if not, why."""

    status: Literal["ok", "degraded"]
    reasons: list[str]
    watcher: WatcherDocument | None

    @classmethod
    def of(cls, health: Health) -> Self:
        """Return the service's health as it is told."""
        return cls(
            status="ok" if health.ok else "degraded",
            reasons=[readable(reason) for reason in health.reasons],
            watcher=WatcherDocument.of(health.watcher),
        )


class DiskDocument(Document):
    """The file system under one of our directories, in bytes; ``place`` is "source", "library", "backup" or "state"."""

    place: str
    path: str
    path_b64: Exact
    available: int | None
    size: int | None


class StatusDocument(Document):
    """What the service is doing. ``queue_age_seconds`` is how long the oldest queued job has been waiting."""

    version: str
    pid: int
    started: datetime
    uptime_seconds: float
    health: HealthDocument
    paused: bool
    jobs: dict[Status, int]
    entries: dict[EntryState, int]
    current: list[JobDocument]
    queue_age_seconds: float | None
    workers: int
    worker_crashes: int
    disks: list[DiskDocument]
    last_event_id: int


class PausedDocument(Document):
    """Whether no new job is begun."""

    paused: bool


class ScanDocument(Document):
    """The source directory is being looked through."""

    scanning: Literal[True] = True


class ReloadedDocument(Document):
    """Which settings changed, by dotted keys."""

    changed: list[str]
    needs_restart: list[str]


class ForgottenDocument(Document):
    """How many sources will be converted again."""

    forgotten: int


class ClearedDocument(Document):
    """How many jobs left the history."""

    cleared: int


class TicketDocument(Document):
    """Good for opening one stream of events, as ``?ticket=``."""

    ticket: str
    expires_seconds: float


class BackupDocument(Document):
    """A complete backup of one source. ``id`` is its folder's name."""

    id: str
    path: str
    path_b64: Exact
    source: str
    source_b64: Exact
    created: datetime
    fingerprint: str
    files: int
    bytes: int

    @classmethod
    def of(cls, made: BackupSet) -> Self:
        """Return a backup as it is told."""
        return cls(
            id=displayable(os.path.basename(made.root)),
            path=displayable(made.root),
            path_b64=exactly(made.root),
            source=displayable(made.source),
            source_b64=exactly(made.source),
            created=made.created,
            fingerprint=made.fingerprint,
            files=len(made.files),
            bytes=sum(file.size for file in made.files),
        )


class BackupsDocument(Document):
    """Backups, the oldest first."""

    items: list[BackupDocument]
    total: int
    limit: int
    offset: int


class VerifiedDocument(Document):
    """Whether every file of a backup still is what was copied; one sentence for each that isn't."""

    id: str
    ok: bool
    findings: list[str]


class NameDocument(Document):
    """A name."""

    name: str
    name_b64: Exact


class RestoredDocument(Document):
    """The files that a backup was brought back to."""

    files: list[NameDocument]
    total: int
