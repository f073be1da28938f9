"""How does one job become one book? Finds its source, then takes that through the pipeline."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import anyio.to_thread

from aiom4b import pipeline
from aiom4b.adapters import files, volumes
from aiom4b.config import Settings
from aiom4b.engine.pool import Rank
from aiom4b.errors import Aiom4bError, Transient
from aiom4b.jobs.job import Job
from aiom4b.models import Fingerprint, Metadata, OrderChoice, Progress, Source
from aiom4b.pipeline import Finished, PipelineSettings
from aiom4b.steps.context import Resources
from aiom4b.steps.examine import ExamineSettings, Finding, examine, examine_as_one, refusal, still_holds

EXAMINING = Rank(priority=-1_000_000)
"""Looking at what was dropped goes before all jobs: it is short, and whoever dropped it wants to see it accepted."""
_EARLIEST = Rank(priority=EXAMINING.priority + 1)


class Duplicate(Exception):  # noqa: N818 - no failure: the book is in other hands
    """Another job that has not ended makes a book of the very same audio, called ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Runner:
    """Runs jobs one by one, any number at a time. ``settings`` returns those in force when a job begins.

    ``known`` returns what the owner's Audible library says of a title, None where it hasn't it.
    """

    def __init__(
        self,
        resources: Resources,
        settings: Callable[[], Settings],
        *,
        known: Callable[[str], Awaitable[Metadata | None]] | None = None,
    ) -> None:
        self.resources = resources
        self._settings = settings
        self._known = known

    def hold(self, held: bool) -> None:
        """Let the tasks of all jobs wait, or go on; looking at what was dropped goes on in any case."""
        self.resources.pool.hold(_EARLIEST if held else None)

    async def examine(
        self, folders: Sequence[str], *, order: OrderChoice, merge: bool, rank: Rank
    ) -> tuple[Finding, ...]:
        """Say what a folder or file holds, or with ``merge`` several as one book; see `steps.examine`.

        What the Audible library says of a title stands behind its owner's sidecars, before the tags.
        """
        settings = ExamineSettings.of(self._settings(), order)
        if merge:
            found = await examine_as_one(folders, settings, self.resources.pool, rank)
        else:
            found = await examine(folders[0], settings, self.resources.pool, rank)
        return tuple([await self._completed(one) if isinstance(one, Source) else one for one in found])

    async def _completed(self, source: Source) -> Source:
        asin = asin_of(source)
        metadata = await self._known(asin) if self._known is not None and asin else None
        if metadata is None:
            return source
        evidence = source.evidence
        told = (*evidence.metadata, ("the Audible library", metadata))
        return replace(source, evidence=replace(evidence, metadata=told))

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
        `volumes.check` raises.
        """
        await volumes.check(volumes.written(self._settings()))
        library = self._settings().paths.library
        assert library is not None
        if job.fingerprint is not None:
            source = await anyio.to_thread.run_sync(pipeline.remembered, library, job.fingerprint)
            if source is not None:
                await self._check_unchanged(job, source)
                return source
        order = job.options.order if isinstance(job.options.order, OrderChoice) else OrderChoice.NAMES
        findings = await self.examine(job.folders, order=order, merge=job.options.merge, rank=rank_of(job))
        sources = [finding for finding in findings if isinstance(finding, Source)]
        if job.fingerprint is not None:
            return _the_same(sources, job.fingerprint, job.folders[0])
        if not sources:
            # The first reason is what its owner will ask about.
            raise next(refusal(finding) for finding in findings if not isinstance(finding, Source))
        first, *rest = sources
        await others(rest)
        if not await found(first):
            raise Duplicate(first.name)
        await anyio.to_thread.run_sync(pipeline.remember, library, first)
        return first

    async def _check_unchanged(self, job: Job, source: Source) -> None:
        """Raise Transient ``source.changed`` when files came or went since a folder was accepted.

        The watch sees that too, but not while the service is down. A folder that is gone is told by who needs it: it isn't
        missed any more once its verified copy is made.
        """
        whole = job.folders == (source.root,) and await anyio.to_thread.run_sync(os.path.isdir, source.root)
        if not whole or await self.backed_up(source.fingerprint):
            return
        settings = ExamineSettings.of(self._settings(), OrderChoice.AUTO)
        if not await still_holds(source.root, source, settings):
            raise _changed(source.root)

    async def make(self, job: Job, source: Source, report: Callable[[Progress], None], *, again: bool) -> Finished:
        """Make the book; safe to repeat after any stop. Raises what `pipeline.make` and `volumes.check` raise."""
        settings = self._settings()
        await volumes.check(volumes.written(self._settings()))
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
            await volumes.check(
                volumes.written(self._settings())
            )  # a volume that goes in the middle shows as a missing file first
            raise

    async def remember(self, source: Source) -> None:
        """Keep a source as it was accepted, unless a volume is missing: then its job looks at it once more."""
        library = self._settings().paths.library
        assert library is not None
        # What is made in an empty mount point would pass for the library from then on.
        if not await anyio.to_thread.run_sync(volumes.unmarked, volumes.written(self._settings())):
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


def asin_of(source: Source) -> str:
    """Return which title at Audible a source is, by the tags of its files, "" if they name none or several."""
    named = {file.tags.asin for file in source.files} - {""}
    return named.pop() if len(named) == 1 else ""


def rank_of(job: Job) -> Rank:
    """Return before whom a job's tasks go: the higher priority, then the older job."""
    return Rank(priority=-job.priority, age=job.sequence)


def _the_same(sources: Sequence[Source], fingerprint: Fingerprint, folder: str) -> Source:
    for source in sources:
        if source.fingerprint == fingerprint:
            return source
    raise _changed(folder)


def _changed(folder: str) -> Transient:
    return Transient(
        "source.changed",
        f"{files.displayable(folder)} is not what it was when it was accepted.",
        remedy="Nothing needs to be done: it is looked at afresh once nobody writes there any more.",
        path=folder,
    )
