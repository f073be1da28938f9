"""How are jobs and the entries of the source told? Their JSON shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from aiom4b.adapters.files import displayable
from aiom4b.control.schemas.names import Exact, all_exactly, all_readable, exactly, readable, shown
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
    asin: str | None
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
            asin=job.asin or None,
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
