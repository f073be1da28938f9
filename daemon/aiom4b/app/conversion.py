"""How does one command convert many books? Everything that is given, several at a time, without a service."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters import files
from aiom4b.app.keyring import SettledKeys
from aiom4b.config import Settings
from aiom4b.engine.pool import Rank
from aiom4b.errors import Aiom4bError
from aiom4b.models import Fingerprint, Incomplete, Name, OrderChoice, Progress, Rejected, Source
from aiom4b.pipeline import Finished, PipelineSettings
from aiom4b.steps.context import Resources
from aiom4b.steps.examine import ExamineSettings, examine, refusal

log = structlog.get_logger()


class Observer(Protocol):
    """Whoever watches books being made; called from the event loop, must not block."""

    def began(self, book: int, source: Source) -> None:
        """Tell that a book was found; ``book`` numbers the books of this run."""
        ...

    def progressed(self, book: int, progress: Progress) -> None:
        """Tell how far a step has come."""
        ...

    def ended(self, book: int, outcome: Outcome) -> None:
        """Tell what became of a book."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one source: ``finished`` or ``error``. ``seconds`` is the time from the start to the end."""

    path: Name
    source: Source | None
    finished: Finished | None
    error: Aiom4bError | None
    seconds: float
    examine_seconds: float


async def convert_all(
    paths: Sequence[str], settings: Settings, *, order: OrderChoice, again: bool, observer: Observer
) -> list[Outcome]:
    """Convert everything that is given, several books at a time; one that fails doesn't stop the others.

    Outcomes come in the order of the paths. Cancelling ends all workers at once; what is done is kept for the next run.
    """
    run = _Conversion(settings, order=order, again=again, observer=observer)
    try:
        unique = list(dict.fromkeys(os.path.abspath(path) for path in paths))
        found: list[list[Outcome]] = [[] for _ in unique]
        async with anyio.create_task_group() as group:
            for index, path in enumerate(unique):
                group.start_soon(partial(run.entry, path, index, found[index]), name=f"convert {index}")
        return [outcome for outcomes in found for outcome in outcomes]
    finally:
        run.resources.pool.close()


class _Conversion:
    """One call of ``convert_all``: what its books share."""

    def __init__(self, settings: Settings, *, order: OrderChoice, again: bool, observer: Observer) -> None:
        self.resources = Resources.of(settings.encode.workers, SettledKeys(settings))
        self._pipeline = PipelineSettings.of(settings, order, again=again)
        self._examine = ExamineSettings.of(settings, order)
        self._slots = anyio.CapacityLimiter(settings.jobs.max_concurrent)
        self._observer = observer
        self._one_at_a_time: dict[Fingerprint, anyio.Lock] = {}
        self._books = 0

    async def entry(self, path: str, age: int, outcomes: list[Outcome]) -> None:
        """Examine one entry and convert each book in it."""
        rank = Rank(age=age)
        async with self._slots:
            began = anyio.current_time()
            try:
                findings = await examine(path, self._examine, self.resources.pool, rank)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other books go on
                findings = ()
                outcomes.append(self._told(path, None, pipeline.understood(error), anyio.current_time() - began))
            examined = anyio.current_time() - began
        for finding in findings:
            if isinstance(finding, Source):
                async with self._slots:
                    outcomes.append(await self._book(finding, rank, examined))
            else:
                outcomes.append(self._told(path, finding, None, examined))

    def _told(
        self, path: str, finding: Rejected | Incomplete | None, error: Aiom4bError | None, examined: float
    ) -> Outcome:
        if finding is not None:
            error = refusal(finding)
        assert error is not None
        # Whoever asked is told by the observer; this is the story of the book.
        log.info("book.failed", path=files.displayable(path), code=error.code, reason=error.reason)
        outcome = Outcome(
            path=path,
            source=None,
            finished=None,
            error=error,
            seconds=examined,
            examine_seconds=examined,
        )
        self._books += 1
        self._observer.ended(self._books, outcome)
        return outcome

    async def _book(self, source: Source, rank: Rank, examined: float) -> Outcome:
        began = anyio.current_time() - examined  # waiting for a slot is nobody's work
        self._books += 1
        number = self._books
        self._observer.began(number, source)
        finished: Finished | None = None
        failure: Aiom4bError | None = None
        name = files.displayable(source.name)
        log.info("book.found", book=name, files=len(source.files), hours=round(source.seconds / 3600, 2))
        try:
            async with self._one_at_a_time.setdefault(source.fingerprint, anyio.Lock()):
                report = partial(self._observer.progressed, number)
                finished = await pipeline.make(source, self._pipeline, self.resources, rank=rank, report=report)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other books go on
            failure = pipeline.understood(error)
            log.info("book.failed", book=name, code=failure.code, reason=failure.reason, remedy=failure.remedy)
        outcome = Outcome(
            path=source.root,
            source=source,
            finished=finished,
            error=failure,
            seconds=anyio.current_time() - began,
            examine_seconds=examined,
        )
        if finished is not None:
            log.info(
                "book.published",
                book=name,
                path=files.displayable(finished.publication.book),
                already=finished.publication.already,
                seconds=round(outcome.seconds, 2),
            )
        self._observer.ended(number, outcome)
        return outcome
