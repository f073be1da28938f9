"""What does a job do, and what is put on record once that is done? One small object for each kind of job."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
import structlog

from aiom4b.adapters.files import displayable, translated
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.fetching import Fetcher
from aiom4b.jobs.job import Job, Metrics
from aiom4b.jobs.runner import Runner, asin_of
from aiom4b.jobs.store import Store
from aiom4b.models import BookId, Clock, Name, Progress, Source, Step
from aiom4b.pipeline import Finished

_DATABASE_SECONDS = 5.0

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a job says of what it has made, in the words of `Job`."""

    step: Step
    output: Name
    book: BookId | None = None
    backup: Name | None = None
    metrics: Metrics


Recording = Callable[[Job], Awaitable[Made]]
"""Puts on record what a job has made. Never gives up."""


class Work(Protocol):
    """What jobs of one kind do."""

    async def make(self, job: Job, known: Callable[[Job], None], report: Callable[[Progress], None]) -> Recording:
        """Do what the job asks for; once this returns, it can't be stopped any more. Safe to repeat after any stop.

        ``known`` is called with the job as soon as more is known of it, ``report`` may be called often. Raises errors of
        ours, and `Duplicate` when another job does the same.
        """
        ...


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns, as soon as the database takes it: its disk may be full for a while."""
    while True:
        try:
            return await call()
        except Transient as error:
            log.warning("database.waiting", code=error.code, reason=error.reason, remedy=error.remedy)
            await anyio.sleep(_DATABASE_SECONDS)


class Conversions:
    """Makes a book and publishes it."""

    def __init__(self, store: Store, runner: Runner, admission: Admission, *, clock: Clock) -> None:
        self._store = store
        self._runner = runner
        self._admission = admission
        self._clock = clock

    async def make(self, job: Job, known: Callable[[Job], None], report: Callable[[Progress], None]) -> Recording:
        """Do what `Work.make` says. Stopped between this and its record, the next start finds the book in the library."""

        async def found(source: Source) -> bool:
            now = await self._store.identify(
                job.id, source.fingerprint, source.name, source.seconds, source.size, asin_of(source)
            )
            if now is not None:
                known(now)
            return now is not None

        async def others(sources: Sequence[Source]) -> None:
            for source in sources:
                await self._admission.add(source, job.entry, job.options, job.priority, asin=asin_of(source))

        source = await self._runner.source(job, found, others)
        again = job.options.again or await self._store.forgotten(source.fingerprint)
        finished = await self._runner.make(job, source, report, again=again)
        return partial(self._record, source, finished)

    async def _record(self, source: Source, finished: Finished, job: Job) -> Made:
        now = self._clock()
        publication = finished.publication
        try:
            published = await anyio.to_thread.run_sync(_size, publication.book)
        except Aiom4bError as error:  # its owner has moved it at once, or the volume went: it is published all the same
            log.warning("book.not_measured", code=error.code, reason=error.reason)
            published = 0
        await insist(lambda: self._store.remember_published(source.fingerprint, publication.id, publication.book, now))
        await insist(lambda: self._store.unforget(source.fingerprint))
        for step, wall in finished.seconds.items():
            await self._note(job, "step.completed", step=step, seconds=round(wall, 3))
        for warning in finished.warnings:
            await self._note(job, "book.warning", warning=warning)
        log.info(
            "book.published",
            book=displayable(source.name),
            path=displayable(publication.book),
            already=publication.already,
            seconds=round(sum(finished.seconds.values()), 2),
        )
        return Made(
            step=Step.PUBLISH,
            output=publication.book,
            book=publication.id,
            backup=finished.receipt.root if finished.receipt.copied else None,
            metrics=Metrics(
                bytes_in=source.size,
                bytes_out=published,
                audio_seconds=finished.plan.timeline.seconds,
                wall_seconds=finished.seconds,
                cpu_seconds=finished.cpu_seconds,
                peak_memory=finished.peak_memory,
            ),
        )

    async def _note(self, job: Job, event: str, **data: object) -> None:
        await insist(lambda: self._store.note(job.id, self._clock(), event, **data))


class Downloads:
    """Brings a title of the owner's Audible library here."""

    def __init__(self, fetcher: Fetcher | None, *, monotonic: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._monotonic = monotonic

    async def make(self, job: Job, known: Callable[[Job], None], report: Callable[[Progress], None]) -> Recording:  # noqa: ARG002 - all is known
        """Do what `Work.make` says. Raises NeedsAttention ``audible.no_account`` where nobody fetches anything."""
        if self._fetcher is None:
            raise NeedsAttention(
                "audible.no_account",
                "Titles can only be fetched by the service that has the account.",
                remedy="Sign in with `aiom4b audible login --country CC`, then `aiom4b jobs retry` it.",
            )
        began = self._monotonic()
        folder = await self._fetcher.fetch(job, report)
        return partial(self._record, folder, self._monotonic() - began)

    async def _record(self, folder: Name, seconds: float, job: Job) -> Made:
        log.info("title.downloaded", title=displayable(job.name), asin=job.asin, seconds=round(seconds, 2))
        return Made(step=Step.DOWNLOAD, output=folder, metrics=Metrics(wall_seconds={Step.DOWNLOAD: seconds}))


def _size(path: str) -> int:
    with translated(path, "looking at"):
        return os.stat(path).st_size
