"""How does one job become one book? Finds its source, then takes that through the pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio.to_thread

from aiom4b import pipeline
from aiom4b.adapters import files, volumes
from aiom4b.config import Settings
from aiom4b.engine.pool import Rank
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.jobs.job import Job
from aiom4b.models import Fingerprint, OrderChoice, Progress, Source
from aiom4b.pipeline import Finished, PipelineSettings
from aiom4b.steps.context import Resources
from aiom4b.steps.examine import ExamineSettings, Finding, examine, examine_as_one


class Duplicate(Exception):  # noqa: N818 - no failure: the book is in other hands
    """Another job that has not ended makes a book of the very same audio, called ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Runner:
    """Runs jobs one by one, any number at a time. ``settings`` returns those in force when a job begins."""

    def __init__(self, resources: Resources, settings: Callable[[], Settings], guard: volumes.Guard) -> None:
        self.resources = resources
        self._settings = settings
        self._guard = guard

    async def examine(
        self, folders: Sequence[str], *, order: OrderChoice, merge: bool, rank: Rank
    ) -> tuple[Finding, ...]:
        """Say what a folder or file holds, or with ``merge`` several as one book; see `steps.examine`."""
        settings = ExamineSettings.of(self._settings(), order)
        if merge:
            return await examine_as_one(folders, settings, self.resources.pool, rank)
        return await examine(folders[0], settings, self.resources.pool, rank)

    async def source(
        self,
        job: Job,
        found: Callable[[Source], Awaitable[bool]],
        others: Callable[[Sequence[Source]], Awaitable[None]],
    ) -> Source:
        """Return the source of a job: as it was accepted, else as it is now.

        A job that nobody has looked at yet takes the first book that is there; ``found`` is told which, and says whether
        no other job has it; ``others`` gets the remaining ones. Raises what keeps it from being a book (NeedsAttention),
        Transient ``source.changed`` when it isn't the one that was accepted any more, `Duplicate`, and what
        `volumes.Guard.check` raises.
        """
        await self._guard.check()
        library = self._settings().paths.library
        assert library is not None
        if job.fingerprint is not None:
            source = await anyio.to_thread.run_sync(pipeline.remembered, library, job.fingerprint)
            if source is not None:
                return source
        order = job.options.order if isinstance(job.options.order, OrderChoice) else OrderChoice.NAMES
        findings = await self.examine(job.folders, order=order, merge=job.options.merge, rank=rank_of(job))
        sources = [finding for finding in findings if isinstance(finding, Source)]
        if job.fingerprint is not None:
            return _the_same(sources, job.fingerprint, job.folders[0])
        if not sources:
            raise _refused(findings)
        first, *rest = sources
        await others(rest)
        if not await found(first):
            raise Duplicate(first.name)
        await anyio.to_thread.run_sync(pipeline.remember, library, first)
        return first

    async def make(self, job: Job, source: Source, report: Callable[[Progress], None], *, again: bool) -> Finished:
        """Make the book; safe to repeat after any stop. Raises what `pipeline.make` and `volumes.Guard.check` raise."""
        settings = self._settings()
        await self._guard.check()
        wanted = PipelineSettings.of(
            settings,
            job.options.order,
            again=again,
            template=job.options.naming_scheme,
            output=job.options.output,
        )
        try:
            return await pipeline.make(source, wanted, self.resources, rank=rank_of(job), report=report)
        except Aiom4bError:
            await self._guard.check()  # a volume that goes in the middle shows as a missing file first
            raise

    async def remember(self, source: Source) -> None:
        """Keep a source as it was accepted, unless a volume is missing: then its job looks at it once more."""
        library = self._settings().paths.library
        assert library is not None
        # What is made in an empty mount point would pass for the library from then on.
        if not await anyio.to_thread.run_sync(self._guard.missing):
            await anyio.to_thread.run_sync(pipeline.remember, library, source)

    async def sweep(self, fingerprint: Fingerprint) -> None:
        """Remove what a job that will not go on has left in the library's work directory."""
        library = self._settings().paths.library
        assert library is not None
        await pipeline.swept(library, fingerprint)

    async def backed_up(self, fingerprint: Fingerprint) -> bool:
        """Whether a verified copy of this source is recorded, so that its book can be made without it."""
        library = self._settings().paths.library
        assert library is not None
        return await anyio.to_thread.run_sync(pipeline.has_backup, library, fingerprint)


def rank_of(job: Job) -> Rank:
    """Return before whom a job's tasks go: the higher priority, then the older job."""
    return Rank(priority=-job.priority, age=job.sequence)


def _the_same(sources: Sequence[Source], fingerprint: Fingerprint, folder: str) -> Source:
    for source in sources:
        if source.fingerprint == fingerprint:
            return source
    raise Transient(
        "source.changed",
        f"{files.displayable(folder)} is not what it was when it was accepted.",
        remedy="Nothing needs to be done: it is looked at afresh once nobody writes there any more.",
        path=folder,
    )


def _refused(findings: Sequence[Finding]) -> NeedsAttention:
    """Return the reason of the first finding that is no book, which is what its owner will ask about."""
    finding = findings[0]
    assert not isinstance(finding, Source)
    return NeedsAttention(finding.code, finding.reason, remedy=finding.remedy, path=finding.path)
