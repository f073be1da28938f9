"""Which job is worked on now, and what becomes of it? The only one who changes what a job's status is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Unpack

import anyio
import anyio.abc
import structlog

from aiom4b import pipeline
from aiom4b.adapters.files import displayable
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError, Transient
from aiom4b.jobs import progress as reckoning
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.events import Events, of_entry, of_job
from aiom4b.jobs.fetching import Fetcher
from aiom4b.jobs.job import Job, JobId, Kind, Metrics, Problem, Status
from aiom4b.jobs.runner import Duplicate, Runner
from aiom4b.jobs.store import JobChanges, Store
from aiom4b.jobs.verdicts import Course, verdict
from aiom4b.jobs.work import Conversions, Downloads, Recording, Work, insist
from aiom4b.models import Clock, Progress

_TELL_SECONDS = 0.5
_LONGEST_SLEEP = 60.0
_DUPLICATE = "job.duplicate"
# Begun so often beyond all its attempts, a job never came to an end of its own: kills and power cuts don't fall on one
# book that often, so it is taken for what ends the process.
_MOST_STOPS = 25

log = structlog.get_logger()


@dataclass(slots=True)
class _Live:
    """A job in work: what it stands at now, and how it shall end if it is stopped; ``back`` in the queue, when nothing else.

    What is ``made`` can't be stopped any more. Its step began at ``step_began``, with ``step_done`` done already.
    """

    job: Job
    scope: anyio.CancelScope
    ended: anyio.Event = field(default_factory=anyio.Event)
    ending: tuple[Status, Problem | None] | None = None
    back: bool = False
    made: Recording | None = None
    step_began: float = 0.0
    step_done: int = 0
    told: float = 0.0


class Scheduler:
    """Takes the oldest job of the highest priority whenever there is a slot for its kind, and never loses one.

    One for the process, in one event loop. ``monotonic`` is seconds on a clock that nobody sets. Without a ``fetcher``
    downloads fail with ``audible.no_account``.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        runner: Runner,
        admission: Admission,
        settings: Callable[[], Settings],
        *,
        clock: Clock,
        monotonic: Callable[[], float],
        fetcher: Fetcher | None = None,
    ) -> None:
        self._store = store
        self._events = events
        self._runner = runner
        admission.admitted = self.wake
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._work: dict[Kind, Work] = {
            Kind.CONVERT: Conversions(store, runner, admission, clock=clock),
            Kind.DOWNLOAD: Downloads(fetcher, monotonic=monotonic),
        }
        self._live: dict[JobId, _Live] = {}
        self._waiting_for: dict[JobId, str] = {}  # the code of the error
        self._wake = anyio.Event()
        self._idle = anyio.Event()
        self.paused = False
        self.totals = Metrics()
        """What all jobs together cost that were completed since the start; ``peak_memory`` is the largest of them."""

    @property
    def running(self) -> int:
        """How many jobs are in work."""
        return len(self._live)

    # --- the service itself --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. What is in work then goes back to the queue, and its attempt doesn't count."""
        self.paused = await self._store.flag("paused")
        self._runner.hold(self.paused)
        async with anyio.create_task_group() as group:
            while True:
                self._wake = anyio.Event()
                await insist(lambda: self._fill(group))
                if not self._live:
                    self._idle.set()
                with anyio.move_on_after(await insist(self._pause)):
                    await self._wake.wait()

    async def idle(self) -> None:
        """Return once nothing is in work and nothing can be begun now."""
        self._idle = anyio.Event()
        self._wake.set()
        await self._idle.wait()

    def _vacant(self, kind: Kind) -> bool:
        """Whether one more job of this kind may be begun now."""
        busy = sum(live.job.kind is kind for live in self._live.values())
        return not self.paused and busy < at_once(kind, self._settings())

    async def _pause(self) -> float:
        """Return for how many seconds there is nothing to begin. The wall clock may be set: a minute is the longest sleep."""
        vacant = [kind for kind in Kind if self._vacant(kind)]
        due = await self._store.next_due(vacant) if vacant else None
        if due is None:
            return _LONGEST_SLEEP
        return min(max((due - self._clock()).total_seconds(), 0.05), _LONGEST_SLEEP)

    async def _fill(self, group: anyio.abc.TaskGroup) -> None:
        for kind in Kind:
            while self._vacant(kind):
                job = await self._store.claim(self._clock(), kind)
                if job is None:
                    break
                live = _Live(job=job, scope=anyio.CancelScope(), step_began=self._monotonic())
                self._live[job.id] = live
                group.start_soon(self._carry_out, live, name=f"job {job.id}")

    async def _carry_out(self, live: _Live) -> None:
        job = live.job
        try:
            with structlog.contextvars.bound_contextvars(job=job.id):
                with live.scope:
                    await self._attempt(live)
                # Outside its scope: whoever cancels it while it is being published comes too late.
                if live.made is not None:
                    await self._completed(live, live.made)
                elif live.ending is not None:
                    await self._end(live, *live.ending)
                elif live.back:
                    await self._put_back(live)
        except anyio.get_cancelled_exc_class():
            await self._put_back(live)
            raise
        finally:
            # While its end was still told, somebody may have queued it again, and it may be in work anew.
            if self._live.get(job.id) is live:
                del self._live[job.id]
            live.ended.set()
            self._wake.set()

    async def _attempt(self, live: _Live) -> None:
        if live.job.attempts > self._settings().jobs.max_attempts + _MOST_STOPS:
            live.ending = (Status.FAILED, _deadly(live.job))
            return
        try:
            if live.job.id not in self._waiting_for:
                await self._note(live.job, "job.started", attempt=live.job.attempts)
            self._publish("job.started", live.job)
            live.made = await self._work[live.job.kind].make(
                live.job, lambda job: _identified(live, job), lambda now: self._progressed(live, now)
            )
        except Duplicate as other:
            live.ending = (Status.CANCELLED, _duplicate(other.name))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
            await self._failed(live, pipeline.understood(error))

    def _progressed(self, live: _Live, now: Progress) -> None:
        """Note how far a job is; told twice a second at most."""
        moment = self._monotonic()
        job = live.job
        if now.step != job.step:
            live.step_began, live.step_done = moment, now.done
            live.told = 0.0
        live.job = replace(
            job,
            step=now.step,
            progress=reckoning.overall(now, job.progress),
            eta_seconds=reckoning.eta_seconds(now, moment - live.step_began, begun=live.step_done),
        )
        if moment - live.told >= _TELL_SECONDS:
            live.told = moment
            self._publish("job.step" if now.step != job.step else "job.progress", live.job)

    async def _completed(self, live: _Live, record: Recording) -> None:
        made = await record(live.job)
        await self._note(live.job, "job.completed", output=displayable(made.output))
        live.job = await self._change(
            live.job,
            "job.completed",
            status=Status.COMPLETED,
            step=made.step,
            progress=100.0,
            eta_seconds=None,
            output=made.output,
            book=made.book,
            backup=made.backup,
            error=None,
            ended=self._clock(),
            metrics=made.metrics,
        )
        self.totals = self.totals.plus(made.metrics)
        self._waiting_for.pop(live.job.id, None)

    async def _failed(self, live: _Live, error: Aiom4bError) -> None:
        problem = Problem.of(error, order=f"aiom4b jobs order {live.job.id[:8]}")
        judged = verdict(error, live.job.attempts, self._settings().jobs.max_attempts)
        name = displayable(live.job.name)
        # What a job waits for is looked at again and again, and told once.
        news = self._waiting_for.get(live.job.id) != error.code
        if news:
            log.info(
                "book.failed",
                book=name,
                code=error.code,
                reason=error.reason,
                remedy=problem.remedy,
                course=judged.course,
            )
        attempts = live.job.attempts if judged.counts else live.job.attempts - 1
        match judged.course:
            case Course.AGAIN:
                later = self._clock() + judged.pause
                await self._wait(live, problem, attempts, later, news=news)
            case Course.CHOICE:
                await self._wait(live, problem, attempts, None, news=news)
            case Course.SETTLE:
                live.ending = (Status.CANCELLED, problem)
            case Course.FAIL:
                live.ending = (Status.FAILED, problem)

    async def _wait(self, live: _Live, problem: Problem, attempts: int, later: datetime | None, *, news: bool) -> None:
        self._waiting_for[live.job.id] = problem.code
        if news:
            await self._note(live.job, "job.waiting", code=problem.code, message=problem.message)
        live.job = await self._change(
            live.job,
            "job.waiting",
            status=Status.WAITING,
            error=problem,
            attempts=attempts,
            not_before=later,
            eta_seconds=None,
        )

    async def _end(self, live: _Live, status: Status, problem: Problem | None) -> None:
        self._waiting_for.pop(live.job.id, None)
        await self._note(live.job, f"job.{status}", **_reason(problem))
        if status is Status.CANCELLED and live.job.fingerprint is not None and not _is_duplicate(problem):
            await self._runner.sweep(live.job.fingerprint)
        live.job = await self._change(
            live.job,
            f"job.{status}",
            status=status,
            error=problem,
            ended=self._clock(),
            eta_seconds=None,
            not_before=None,
        )

    async def _put_back(self, live: _Live) -> None:
        """Return a job to the queue because we stop: what is done is kept, and it was not its fault.

        Where the database can't take that, the next start queues it by itself.
        """
        with anyio.CancelScope(shield=True), suppress(Transient):
            changed = await self._store.update(
                live.job.id,
                self._clock(),
                only_if=(Status.RUNNING,),
                status=Status.QUEUED,
                attempts=live.job.attempts - 1,
                step=live.job.step,
                progress=live.job.progress,
                eta_seconds=None,
            )
            if changed is not None:
                await self._store.note(live.job.id, self._clock(), "job.stopped")
                self._publish("job.changed", changed)

    # --- what others ask of it -----------------------------------------------------------------------------------------

    async def stop(self, job_id: JobId, problem: Problem | None) -> Job | None:
        """Cancel a job, for a reason if there is one, and return it; None if it has ended, or its book is published."""
        if job_id not in self._live:
            changed = await self._store.update(
                job_id,
                self._clock(),
                only_if=(Status.QUEUED, Status.WAITING),
                status=Status.CANCELLED,
                error=problem,
                ended=self._clock(),
                not_before=None,
            )
            if changed is not None:
                await self._stopped(changed, problem)
                return changed
        live = self._live.get(job_id)  # it may have been claimed that very moment
        if live is None:
            return None
        if live.made is None:
            live.ending = (Status.CANCELLED, problem)
            live.scope.cancel()
        await live.ended.wait()
        job = await self._store.job(job_id)
        return job if job is not None and job.status is Status.CANCELLED else None

    async def _stopped(self, job: Job, problem: Problem | None) -> None:
        self._waiting_for.pop(job.id, None)
        await self._store.note(job.id, self._clock(), "job.cancelled", **_reason(problem))
        self._publish("job.cancelled", job)
        if job.fingerprint is not None:
            await self._runner.sweep(job.fingerprint)

    async def pause(self) -> None:
        """Begin nothing any more, over restarts too; what is in work stands still after the segments in flight.

        Downloads go back to the queue, so that the line is free at once; they go on where they were.
        """
        await self._set_paused(True)

    async def resume(self) -> None:
        """Go on."""
        await self._set_paused(False)

    async def _set_paused(self, paused: bool) -> None:
        await self._store.set_flag("paused", paused)
        self.paused = paused
        self._runner.hold(paused)
        if paused:
            for live in self._live.values():
                if live.job.kind is Kind.DOWNLOAD and live.made is None:
                    live.back = True
                    live.scope.cancel()
        self._events.publish("service.paused" if paused else "service.resumed")
        self._wake.set()

    def in_work(self) -> list[Job]:
        """Return the jobs in work with their newest progress, the oldest first."""
        return sorted((live.job for live in self._live.values()), key=lambda job: job.sequence)

    def live(self, job: Job) -> Job:
        """Return a job with the newest progress."""
        found = self._live.get(job.id)
        if found is None or job.status is not Status.RUNNING:
            return job
        now = found.job
        return replace(job, step=now.step, progress=now.progress, eta_seconds=now.eta_seconds)

    def queued_again(self, job_id: JobId) -> None:
        """Take a job up afresh: what it waits for then is news."""
        self._waiting_for.pop(job_id, None)
        self.wake()

    def wake(self) -> None:
        """Look for work now: there is something new."""
        self._wake.set()

    # --- telling and recording -----------------------------------------------------------------------------------------

    async def _change(self, job: Job, event: str, **changes: Unpack[JobChanges]) -> Job:
        changed = await insist(lambda: self._store.update(job.id, self._clock(), **changes))
        assert changed is not None, "a job in work can't be deleted"
        self._publish(event, changed)
        if (name := changed.entry) is not None:
            entry = await insist(lambda: self._store.entry(name))
            if entry is not None:  # its state follows its jobs
                self._events.publish("entry.changed", **of_entry(entry))
        return changed

    async def _note(self, job: Job, event: str, **data: object) -> None:
        await insist(lambda: self._store.note(job.id, self._clock(), event, **data))

    def _publish(self, event: str, job: Job) -> None:
        self._events.publish(event, **of_job(job))


def at_once(kind: Kind, settings: Settings) -> int:
    """Return how many jobs of a kind may be in progress at a time."""
    return settings.audible.transfers if kind is Kind.DOWNLOAD else settings.jobs.max_concurrent


def _identified(live: _Live, job: Job) -> None:
    live.job = job


def _reason(problem: Problem | None) -> dict[str, str]:
    return {} if problem is None else {"code": problem.code, "message": problem.message}


def _is_duplicate(problem: Problem | None) -> bool:
    return problem is not None and problem.code == _DUPLICATE


def _deadly(job: Job) -> Problem:
    return Problem(
        code="job.deadly",
        message=f"The book was begun {job.attempts - 1} times, and each time the service was ended before it was done.",
        remedy="See in the system's log what ended the service (memory?), mend that, then `aiom4b jobs retry` it.",
    )


def _duplicate(name: str) -> Problem:
    return Problem(
        code=_DUPLICATE,
        message=f"Another job has the same audio, {displayable(name)}.",
        remedy="Nothing needs to be done: that job makes the book.",
    )
