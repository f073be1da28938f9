"""What is in an entry that has settled, and who takes it? Examines it and hands its books over, unless it changes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import anyio
import anyio.to_thread
import structlog

from aiom4b.adapters import leases
from aiom4b.adapters.files import displayable
from aiom4b.config import WatchSettings
from aiom4b.errors import Aiom4bError
from aiom4b.intake import settle, snapshot, verdict
from aiom4b.intake.entries import Entries, Jobs
from aiom4b.intake.snapshot import Snapshot
from aiom4b.jobs.job import EntryState, SourceEntry
from aiom4b.models import Clock, Name
from aiom4b.steps.examine import Finding

_AT_ONCE = 4  # entries examined at the same time; their files are read by the one pool of workers

log = structlog.get_logger()


class Handover:
    """Takes settled entries of one source, a few at a time. ``examine`` says what an absolute path holds."""

    def __init__(
        self,
        *,
        source: str,
        settings: Callable[[], WatchSettings],
        examine: Callable[[str], Awaitable[tuple[Finding, ...]]],
        jobs: Jobs,
        entries: Entries,
        clock: Clock,
    ) -> None:
        self._source = source
        self._settings = settings
        self._examine = examine
        self._jobs = jobs
        self._entries = entries
        self._clock = clock
        self._slots = anyio.Semaphore(_AT_ONCE)

    async def take(self, name: Name, found: Snapshot, beside: Sequence[Name]) -> bool:
        """Examine an entry that looks like ``found``, let its books become jobs, and record what became of it.

        Returns True if that must be tried again by itself: somebody has a file open, whose closing changes nothing.
        Nothing is taken or recorded of an entry that is not what was ``found`` any more. Safe to repeat. Raises what examining
        and handing over raise; the jobs that there are by then are recorded.
        """
        async with self._slots:
            findings = await self._findings(name, found, beside)
        record = self._entries.get(name)
        if findings is None or record is None:
            return False
        # A job that its entry doesn't know would never be withdrawn: handing over and recording belong together.
        with anyio.CancelScope(shield=True):
            concluded = await self._conclude(record, found, findings)
        return concluded.problem is not None and concluded.problem.code == verdict.HELD

    async def _findings(self, name: Name, found: Snapshot, beside: Sequence[Name]) -> tuple[Finding, ...] | None:
        path = os.path.join(self._source, name)
        if found.temporary is not None:
            return (verdict.arriving(path, found.temporary),)
        written = await anyio.to_thread.run_sync(_written_to, found.paths, abandon_on_cancel=True)
        if written is not None:
            return (verdict.held(path, written),)
        findings = await self._examine(path)
        after = await anyio.to_thread.run_sync(snapshot.take, self._source, name, beside, abandon_on_cancel=True)
        return findings if after is not None and after.digest == found.digest else None

    async def _conclude(self, record: SourceEntry, found: Snapshot, findings: Sequence[Finding]) -> SourceEntry:
        patient = settle.patience_left(record, self._clock(), self._settings().incomplete_hours) > 0
        state, problem = verdict.state(record.name, findings, patient=patient)
        concluded = replace(
            record,
            digest=found.digest,
            state=state,
            problem=problem,
            fingerprints=(),
            jobs=(),
            files=len(found.paths),
            size=found.size,
        )
        try:
            for source in verdict.accepted(findings, patient=patient):
                accepted = await self._jobs.accept(source, record.name)
                concluded = replace(concluded, fingerprints=(*concluded.fingerprints, source.fingerprint))
                if accepted.job is not None:
                    jobs = dict.fromkeys((*concluded.jobs, accepted.job.id))
                    concluded = replace(concluded, jobs=tuple(jobs), state=EntryState.QUEUED)
        except Aiom4bError:
            await self._entries.put(replace(concluded, state=EntryState.READY))
            raise
        await self._entries.withdraw([job for job in record.jobs if job not in concluded.jobs], verdict.CHANGED)
        await self._entries.put(concluded)
        why = {} if problem is None else {"code": problem.code, "reason": problem.message}
        log.info(
            "entry.examined", entry=displayable(record.name), state=concluded.state, jobs=len(concluded.jobs), **why
        )
        return concluded


def _written_to(paths: Sequence[str]) -> str | None:
    """Return the name of a file that somebody has open for writing."""
    for path in paths:
        try:
            if leases.open_for_writing(path):
                return os.path.basename(path)
        except Aiom4bError:
            continue  # whatever keeps us from opening it, the examination will say
    return None
