"""How do people, and the watch, change what happens to a job? Cancelled, tried again, put in order, forgotten."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from aiom4b.adapters.files import displayable
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.events import Events, of_job
from aiom4b.jobs.job import Job, JobId, JobOptions, Kind, Problem, Status
from aiom4b.jobs.runner import Runner
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.jobs.verdicts import LOCKED
from aiom4b.models import Clock, Fingerprint, Name, OrderChoice

_MANY = 10_000
_OPEN = [status for status in Status if not status.ended]


class Desk:
    """Takes wishes about jobs that are there."""

    def __init__(self, store: Store, events: Events, runner: Runner, scheduler: Scheduler, *, clock: Clock) -> None:
        self._store = store
        self._events = events
        self._runner = runner
        self._scheduler = scheduler
        self._clock = clock

    async def cancel(self, job_id: JobId) -> Job:
        """End a job, also in the middle of a segment. Raises NeedsAttention ``job.missing``, ``job.conflict``."""
        cancelled = await self._scheduler.stop(job_id, None)
        if cancelled is None:
            raise _conflict(await self.known(job_id), "cancelled")
        return cancelled

    async def withdraw(self, job_id: JobId, problem: Problem, *, vanished: bool) -> bool:
        """End a job whose source changed or vanished, with that reason; whether it was ended.

        A source that merely vanished is no loss once its verified copy is made: such a job goes on.
        """
        job = await self._store.job(job_id)
        if job is None or job.status.ended:
            return False
        if vanished and job.fingerprint is not None and await self._runner.backed_up(job.fingerprint):
            return False
        return await self._scheduler.stop(job_id, problem) is not None

    async def retry(self, job_id: JobId) -> Job:
        """Queue a failed, cancelled or waiting job once more, with all its attempts. Raises as `cancel` does."""
        known = await self.known(job_id)
        if (
            known.fingerprint is not None
            and known.status.ended
            and await self._store.open_job(known.fingerprint) is not None
        ):
            raise _conflict(known, "tried again while another job has the same audio")
        return await self._requeue(known, "tried again")

    async def look_for_keys(self) -> None:
        """Queue at once what waits for a key: somebody has signed in, or changed the settings."""
        waiting, _ = await self._store.jobs(limit=_MANY, offset=0, status=[Status.WAITING], kind=Kind.CONVERT)
        for job in waiting:
            if job.error is not None and job.error.code in LOCKED:
                with suppress(NeedsAttention):  # it goes on by itself this very moment
                    await self.retry(job.id)

    async def set_order(self, job_id: JobId, order: OrderChoice | tuple[Name, ...]) -> Job:
        """Say in which order a job's files are played; it is queued again. Raises as `cancel` does."""
        known = await self.known(job_id)
        return await self._requeue(known, "given another order", options=replace(known.options, order=order))

    async def _requeue(self, known: Job, what: str, options: JobOptions | None = None) -> Job:
        changed = await self._store.update(
            known.id,
            self._clock(),
            only_if=(Status.QUEUED, Status.WAITING, Status.FAILED, Status.CANCELLED),
            status=Status.QUEUED,
            attempts=0,
            not_before=None,
            error=None,
            ended=None,
            progress=0.0,
            options=known.options if options is None else options,
        )
        if changed is None:
            raise _conflict(await self.known(known.id), what)
        await self._store.note(known.id, self._clock(), "job.queued")
        self._events.publish("job.changed", **of_job(changed))
        self._scheduler.queued_again(known.id)
        return changed

    async def set_priority(self, job_id: JobId, priority: int) -> Job:
        """Let a job go before those of a smaller priority. Raises as `cancel` does."""
        await self.known(job_id)
        changed = await self._store.update(job_id, self._clock(), only_if=_OPEN, priority=priority)
        if changed is None:
            raise _conflict(await self.known(job_id), "given another priority")
        self._events.publish("job.changed", **of_job(changed))
        self._scheduler.wake()
        return changed

    async def delete(self, job_id: JobId) -> None:
        """Forget an ended job; book and backup stay. Raises as `cancel` does."""
        known = await self.known(job_id)
        if not await self._store.delete(job_id):
            raise _conflict(known, "deleted before it has ended")
        self._events.publish("job.deleted", **of_job(known))

    async def clear(self, statuses: Collection[Status], older_than: timedelta = timedelta()) -> int:
        """Forget ended jobs of these states that ended so long ago; how many."""
        return await self._store.clear(statuses=statuses, before=self._clock() - older_than)

    async def forget(self, what: Fingerprint) -> None:
        """Convert the same audio again the next time it is seen, even though its book is in the library."""
        await self._store.forget(what)

    async def known(self, job_id: JobId) -> Job:
        """Return a job; raises NeedsAttention ``job.missing``."""
        job = await self._store.job(job_id)
        if job is None:
            raise NeedsAttention(
                "job.missing",
                f"There is no job {displayable(job_id)}.",
                remedy="`aiom4b jobs list` shows them all.",
                exit=Exit.NOT_FOUND,
            )
        return job


def _conflict(job: Job, what: str) -> NeedsAttention:
    return NeedsAttention(
        "job.conflict",
        f"The job is {job.status} and can't be {what}.",
        remedy="`aiom4b jobs show` tells where it stands.",
    )
