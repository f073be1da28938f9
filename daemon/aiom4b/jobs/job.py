"""What is a job, and what does the service know of its source and each entry there? Frozen values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, NewType

from aiom4b.errors import Aiom4bError
from aiom4b.models import BookId, Fingerprint, Incomplete, Name, OrderChoice, Rejected, Step

JobId = NewType("JobId", str)
"""A random UUID in its usual text form."""


class Status(StrEnum):
    """Where a job stands. WAITING has a reason, and goes on by itself once that is gone or ``not_before`` is reached."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more unless somebody asks for it."""
        return self in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


class Kind(StrEnum):
    """What sort of work a job is."""

    CONVERT = "convert"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What its owner asked of this one job.

    ``order`` is a choice between witnesses, or all audio files of the source (``SourceFile.path``) in playing order.
    ``merge``: all folders are one book. ``naming_scheme`` stands in for ``library.template``; ``output`` is the book's path
    relative to the library and stands in for both. ``again``: even what is in the library already.
    """

    order: OrderChoice | tuple[Name, ...] = OrderChoice.AUTO
    merge: bool = False
    naming_scheme: str | None = None
    output: Name | None = None
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a job or an entry doesn't go on: code, message and remedy of an error."""

    code: str
    message: str
    remedy: str

    @classmethod
    def of(cls, said: Aiom4bError | Rejected | Incomplete, *, order: str) -> Problem:
        """Return what was said in the words of the service; ``order`` is the command that takes ``names`` or ``tags``.

        Rooms below know only the option of `aiom4b convert`.
        """
        remedy = re.sub("--order (names|tags)", lambda found: f"`{order} {found[1]}`", said.remedy)
        return cls(code=said.code, message=said.reason, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a job cost: bytes read and published, length of the audio, seconds of time and of CPU for each step.

    ``peak_memory`` is the largest resident size of a process that worked on it, in bytes.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    audio_seconds: float = 0.0
    wall_seconds: Mapping[Step, float] = field(default_factory=dict)
    cpu_seconds: Mapping[Step, float] = field(default_factory=dict)
    peak_memory: int = 0

    def plus(self, other: Metrics) -> Metrics:
        """Return what both cost together; of the peaks the higher one."""
        return Metrics(
            bytes_in=self.bytes_in + other.bytes_in,
            bytes_out=self.bytes_out + other.bytes_out,
            audio_seconds=self.audio_seconds + other.audio_seconds,
            wall_seconds=_sum(self.wall_seconds, other.wall_seconds),
            cpu_seconds=_sum(self.cpu_seconds, other.cpu_seconds),
            peak_memory=max(self.peak_memory, other.peak_memory),
        )


def _sum(some: Mapping[Step, float], more: Mapping[Step, float]) -> dict[Step, float]:
    return {step: some.get(step, 0.0) + more.get(step, 0.0) for step in {**some, **more}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One book to be made, or what became of it.

    ``folders`` are absolute: what is read, usually one folder or single file. ``entry`` is the top-level name in the source
    that it came from, None when it was asked for. ``fingerprint`` is None until somebody has looked. ``sequence`` rises
    from job to job: the smaller is the older. ``attempts`` are counted before work begins. ``progress`` is 0 to 100 over
    the whole job and never falls while it runs. ``output`` is the published file, absolute; of a download its folder.
    ``asin`` names the title at Audible, "" where there is none.
    """

    id: JobId
    kind: Kind
    status: Status
    name: Name
    folders: tuple[Name, ...]
    entry: Name | None
    fingerprint: Fingerprint | None
    options: JobOptions
    priority: int
    sequence: int
    attempts: int
    not_before: datetime | None
    step: Step | None
    progress: float
    eta_seconds: float | None
    output: Name | None
    book: BookId | None
    backup: Name | None
    error: Problem | None
    created: datetime
    started: datetime | None
    ended: datetime | None
    updated: datetime
    metrics: Metrics
    asin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's log: what happened (``job.started``), and its particulars as JSON values."""

    at: datetime
    event: str
    data: Mapping[str, object]


class EntryState(StrEnum):
    """Where an entry of the source stands, as ``aiom4b list`` shows it."""

    SETTLING = "settling"
    INCOMPLETE = "incomplete"
    READY = "ready"
    QUEUED = "queued"
    DONE = "done"
    REJECTED = "rejected"
    NEEDS_ATTENTION = "needs_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """A top-level entry of the source, and what we know of it.

    ``digest`` stands for names, sizes and times of everything in it: the same digest need not be looked at again.
    ``state`` follows the jobs once there are any. ``changed`` is when it was last seen to change.
    """

    name: Name
    digest: str
    state: EntryState
    problem: Problem | None
    fingerprints: tuple[Fingerprint, ...]
    jobs: tuple[JobId, ...]
    files: int
    size: int
    changed: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherHealth:
    """How well the source is watched: ``entries`` in it, ``last_scan`` in seconds ago (None: never yet).

    ``degraded`` has a ``reason``, as a sentence, and means that changes are noticed late or not at all; "" when ``up``.
    """

    mode: Literal["events", "poll"]
    state: Literal["up", "degraded"]
    reason: str
    entries: int
    last_scan: float | None
