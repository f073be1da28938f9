"""What becomes a job? Sources that were dropped, folders and titles that somebody asks for; nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters.files import displayable, lies_in
from aiom4b.config import Settings
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.events import Events, of_job
from aiom4b.jobs.job import EntryState, Job, JobOptions, Kind, Status
from aiom4b.jobs.runner import Runner, asin_of
from aiom4b.jobs.store import Store
from aiom4b.models import Clock, Fingerprint, Name, Source

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a source that was offered: a job, or the book that is there ``already``."""

    job: Job | None
    already: str | None


class Admission:
    """Lets in. ``admitted`` is called after each new job: the scheduler puts itself there."""

    def __init__(
        self, store: Store, events: Events, runner: Runner, settings: Callable[[], Settings], *, clock: Clock
    ) -> None:
        self._store = store
        self._events = events
        self._runner = runner
        self._settings = settings
        self._clock = clock
        self._one_at_a_time = anyio.Lock()
        self.admitted: Callable[[], None] = lambda: None

    async def accept(self, source: Source, entry: Name) -> Accepted:
        """Take a complete source: the same audio is never two jobs, and never two books unless somebody asked for it."""
        if not await self._store.forgotten(source.fingerprint):
            known = await self._published(source.fingerprint)
            if known is not None:
                await self._runner.sweep(source.fingerprint)
                return Accepted(job=None, already=known)
            if (merged := await self._merged(source, entry)) is not None:
                return Accepted(job=None if merged.status.ended else merged, already=merged.output)
        job = await self.add(source, entry, JobOptions(), 0, asin=asin_of(source))
        return Accepted(job=job, already=None)

    async def _merged(self, source: Source, entry: Name) -> Job | None:
        """Return the job that was asked to make one book of this entry and others, if it has all of this audio."""
        settings = self._settings().paths
        assert settings.source is not None
        assert settings.library is not None
        place = os.path.join(settings.source, entry)
        for job in await self._store.asked_for(place):
            if job.options.merge and job.status not in {Status.FAILED, Status.CANCELLED}:
                if job.fingerprint is None:
                    return job
                known = await anyio.to_thread.run_sync(pipeline.contents, settings.library, job.fingerprint)
                if all(file.sha256 in known for file in source.files):
                    return job
        return None

    async def _published(self, fingerprint: Fingerprint) -> str | None:
        """Return where the book of this source is. The library's own records count most; the table helps where they are lost."""
        library = self._settings().paths.library
        assert library is not None
        record = await anyio.to_thread.run_sync(pipeline.already_published, library, fingerprint)
        if record is not None:
            return os.path.join(library, record.book)
        path = await self._store.published(fingerprint)
        return path if path is not None and await anyio.to_thread.run_sync(os.path.isfile, path) else None

    async def add(
        self,
        source: Source,
        entry: Name | None,
        options: JobOptions,
        priority: int,
        *,
        asin: str = "",
        folder: Name | None = None,
    ) -> Job:
        """Queue a book of this source, or return the job that makes one already.

        ``asin`` names its title at Audible. ``folder`` is given where the source has a folder of its own that isn't named
        after it.
        """
        async with self._one_at_a_time:
            await self._runner.remember(source)
            job, new = await self._store.add(
                kind=Kind.CONVERT,
                name=source.name,
                folders=(folder or _place(source),),
                entry=entry,
                fingerprint=source.fingerprint,
                options=options,
                priority=priority,
                now=self._clock(),
                audio_seconds=source.seconds,
                bytes_in=source.size,
                asin=asin,
            )
        if new:
            await self._created(job)
        return job

    async def fetch(self, asin: str, name: Name, folder: Name, options: JobOptions, priority: int) -> Job:
        """Queue the download of a title into ``folder`` (absolute), or return the job that does it; the caller has seen that the title isn't here.

        ``options`` and ``priority`` count for its book as well.
        """
        job, new = await self._store.add(
            kind=Kind.DOWNLOAD,
            name=name,
            folders=(folder,),
            entry=None,
            fingerprint=None,
            options=options,
            priority=priority,
            now=self._clock(),
            asin=asin,
        )
        if new:
            await self._created(job)
        return job

    async def _created(self, job: Job) -> None:
        if job.kind is Kind.DOWNLOAD:
            log.info("title.wanted", job=job.id, title=displayable(job.name), asin=job.asin)
        else:
            hours = round(job.metrics.audio_seconds / 3600, 2)
            log.info("book.found", job=job.id, book=displayable(job.name), hours=hours)
        self._events.publish("job.created", **of_job(job))
        self.admitted()
        await self._store.note(job.id, self._clock(), "job.created", name=displayable(job.name))

    async def submit(self, folders: Sequence[Name], options: JobOptions, priority: int = 0) -> list[Job]:
        """Queue what somebody asked for: a job for each folder, or one for all with ``options.merge``.

        Raises NeedsAttention ``path.outside`` for what is not in the source, ``source.missing`` for what is not there.
        """
        source = self._settings().paths.source
        places = [await anyio.to_thread.run_sync(_inside, folder, source) for folder in folders]
        jobs = []
        for group in [tuple(places)] if options.merge else [(place,) for place in dict.fromkeys(places)]:
            job, _ = await self._store.add(
                kind=Kind.CONVERT,
                name=os.path.basename(group[0]),
                folders=group,
                entry=None,
                fingerprint=None,
                options=options,
                priority=priority,
                now=self._clock(),
            )
            await self._created(job)
            for place in group:
                await self._join_entry(place, job)
            jobs.append(job)
        return jobs

    async def _join_entry(self, place: str, job: Job) -> None:
        """Let an entry of the source that was asked for as a whole follow its job, if it isn't just being looked at."""
        folder, name = os.path.split(place)
        entry = await self._store.entry(name) if folder == self._settings().paths.source else None
        if entry is not None and entry.state not in {EntryState.SETTLING, EntryState.READY}:
            await self._store.put_entry(replace(entry, jobs=(*entry.jobs, job.id), problem=None))


def _place(source: Source) -> str:
    """Return what to examine to find this source again: its folder, or its only file if it lies among others."""
    if len(source.files) == 1 and os.path.basename(source.root) != source.name:
        return os.path.join(source.root, source.files[0].path)
    return source.root


def _inside(folder: str, source: str | None) -> str:
    path = os.path.abspath(os.path.join(source or "/", folder))
    if source is not None and not lies_in(path, source):
        raise NeedsAttention(
            "path.outside",
            f"{displayable(folder)} is not in the source directory {displayable(source)}.",
            remedy="Give names inside the source directory; `aiom4b convert` takes folders from anywhere.",
            path=folder,
        )
    if not os.path.lexists(path):
        raise NeedsAttention(
            "source.missing",
            f"There is no {displayable(path)}.",
            remedy="Check the path.",
            path=path,
            exit=Exit.NOT_FOUND,
        )
    return path
