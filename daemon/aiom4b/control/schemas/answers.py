"""What is answered? The JSON shapes of everything that the service tells."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from aiom4b.adapters.backup_format import BackupSet
from aiom4b.adapters.files import displayable
from aiom4b.control.schemas.names import Exact, all_exactly, all_readable, exactly, readable, shown
from aiom4b.control.service import Health, Watcher
from aiom4b.jobs import job as jobs
from aiom4b.jobs.job import EntryState, Job, JobEvent, Kind, SourceEntry, Status
from aiom4b.models import OrderChoice, Step


class Document(BaseModel):
    """What we answer."""

    model_config = ConfigDict(frozen=True)


class ErrorDocument(Document):
    """Why something doesn't go on."""

    code: str
    message: str
    remedy: str

    @classmethod
    def of(cls, problem: jobs.Problem | None) -> Self | None:
        """Return the problem as it is told."""
        if problem is None:
            return None
        return cls(
            code=problem.code,
            message=readable(problem.message),
            remedy=readable(problem.remedy),
        )


class OptionsDocument(Document):
    """What was asked of a job."""

    order: OrderChoice | list[str]
    merge: bool
    naming_scheme: str | None
    output: str | None
    again: bool


class MetricsDocument(Document):
    """What a job cost: bytes read and published, seconds of audio, seconds of time and CPU by step, peak bytes of memory."""

    bytes_in: int
    bytes_out: int
    audio_seconds: float
    wall_seconds: dict[Step, float]
    cpu_seconds: dict[Step, float]
    peak_memory: int


class JobDocument(Document):
    """A book to be made, or what became of it. ``progress`` is 0 to 100 over the whole job; times are UTC."""

    id: str
    kind: Kind
    status: Status
    name: str
    name_b64: Exact
    folders: list[str]
    folders_b64: Annotated[
        list[str] | None,
        Field(default=None, exclude_if=lambda value: value is None, description="The exact bytes of all, if needed."),
    ]
    entry: str | None
    entry_b64: Exact
    fingerprint: str | None
    options: OptionsDocument
    priority: int
    attempts: int
    not_before: datetime | None
    step: Step | None
    progress: float
    eta_seconds: float | None
    output: str | None
    output_b64: Exact
    book: str | None
    backup: str | None
    backup_b64: Exact
    error: ErrorDocument | None
    created: datetime
    started: datetime | None
    ended: datetime | None
    updated: datetime
    metrics: MetricsDocument

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return a job as it is told."""
        order = job.options.order
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            name=displayable(job.name),
            name_b64=exactly(job.name),
            folders=[displayable(folder) for folder in job.folders],
            folders_b64=all_exactly(job.folders),
            entry=shown(job.entry),
            entry_b64=exactly(job.entry),
            fingerprint=job.fingerprint,
            options=OptionsDocument(
                order=order if isinstance(order, OrderChoice) else [displayable(file) for file in order],
                merge=job.options.merge,
                naming_scheme=shown(job.options.naming_scheme),
                output=shown(job.options.output),
                again=job.options.again,
            ),
            priority=job.priority,
            attempts=job.attempts,
            not_before=job.not_before,
            step=job.step,
            progress=round(job.progress, 2),
            eta_seconds=None if job.eta_seconds is None else round(job.eta_seconds, 1),
            output=shown(job.output),
            output_b64=exactly(job.output),
            book=job.book,
            backup=shown(job.backup),
            backup_b64=exactly(job.backup),
            error=ErrorDocument.of(job.error),
            created=job.created,
            started=job.started,
            ended=job.ended,
            updated=job.updated,
            metrics=MetricsDocument(
                bytes_in=job.metrics.bytes_in,
                bytes_out=job.metrics.bytes_out,
                audio_seconds=job.metrics.audio_seconds,
                wall_seconds=dict(job.metrics.wall_seconds),
                cpu_seconds=dict(job.metrics.cpu_seconds),
                peak_memory=job.metrics.peak_memory,
            ),
        )


class JobsDocument(Document):
    """Jobs, the newest first."""

    items: list[JobDocument]
    total: int
    limit: int
    offset: int


class AcceptedDocument(Document):
    """The jobs that now stand for what was asked."""

    jobs: list[JobDocument]


class LogLineDocument(Document):
    """One thing that happened to a job."""

    at: datetime
    event: str
    data: dict[str, Any]

    @classmethod
    def of(cls, line: JobEvent) -> Self:
        """Return a line of a job's log as it is told."""
        return cls(at=line.at, event=line.event, data=all_readable(dict(line.data)))


class LogDocument(Document):
    """What happened to a job, the oldest first."""

    items: list[LogLineDocument]
    total: int


class EntryDocument(Document):
    """A file or folder in the source directory, and where it stands. ``changed`` is when it was last seen to change."""

    name: str
    name_b64: Exact
    state: EntryState
    error: ErrorDocument | None
    jobs: list[str]
    fingerprints: list[str]
    files: int
    size: int
    changed: datetime

    @classmethod
    def of(cls, entry: SourceEntry) -> Self:
        """Return an entry as it is told."""
        return cls(
            name=displayable(entry.name),
            name_b64=exactly(entry.name),
            state=entry.state,
            error=ErrorDocument.of(entry.problem),
            jobs=list(entry.jobs),
            fingerprints=list(entry.fingerprints),
            files=entry.files,
            size=entry.size,
            changed=entry.changed,
        )


class EntriesDocument(Document):
    """Entries of the source directory, in natural order of their names."""

    items: list[EntryDocument]
    total: int
    limit: int
    offset: int


class WatcherDocument(Document):
    """How the source directory is being watched. ``last_scan`` is how many seconds ago all of it was looked through."""

    mode: str
    state: str
    reason: str | None
    entries: int
    last_scan: float | None

    @classmethod
    def of(cls, watcher: Watcher | None) -> Self | None:
        """Return the watcher as it is told."""
        if watcher is None:
            return None
        return cls(
            mode=watcher.mode,
            state=watcher.state,
            reason=None if watcher.reason is None else readable(watcher.reason),
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
