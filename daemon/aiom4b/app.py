"""How are the parts put together? Built from the settings, started and stopped in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters import backups, files, records, tags
from aiom4b.adapters.records import Record
from aiom4b.adapters.space import SpaceLedger
from aiom4b.book.encoding import EncodeWishes
from aiom4b.book.plan import Wishes
from aiom4b.config import Settings, check_directories
from aiom4b.engine.inspect import BookFacts
from aiom4b.engine.pool import Rank, WorkerPool
from aiom4b.engine.probe import ProbeLimits
from aiom4b.errors import Aiom4bError, Exit, Fatal, NeedsAttention
from aiom4b.models import Fingerprint, Incomplete, Name, OrderChoice, Progress, Proof, Rejected, Source
from aiom4b.pipeline import Finished, PipelineSettings
from aiom4b.steps.context import StepContext
from aiom4b.steps.examine import ExamineSettings, examine
from aiom4b.steps.verify import prove_again, prove_alone

_COPIES = 2
_MEGABYTE = 1_000_000

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


def now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)


def wishes(settings: Settings, order: OrderChoice) -> Wishes:
    """Return what the settings say about a book."""
    encode = settings.encode

    def fixed(value: int | str) -> int | None:
        return value if isinstance(value, int) else None

    return Wishes(
        order=order,
        encode=EncodeWishes(
            bit_rate=fixed(encode.bitrate),
            channels=fixed(encode.channels),
            sample_rate=fixed(encode.sample_rate),
            aac_coder=encode.aac_coder,
            copy_aac=encode.aac_join == "copy",
        ),
        template=settings.library.template,
        metadata_json=settings.library.metadata_json,
    )


def prepare_directories(settings: Settings, sources: Sequence[str]) -> None:
    """Check where we shall write, before the first second of work.

    Raises Fatal ``directories.*`` when one lies inside another or inside a source, ``library.unset`` when there is no
    library, and what ``files.check_writable`` raises. Only the default backup directory is made when it is missing.
    """
    if settings.paths.library is None:
        raise Fatal(
            "library.unset",
            "It is not known where the library is.",
            remedy="Say it with --library DIR, or set paths.library.",
        )
    check_directories(settings, sources)
    files.check_writable(settings.paths.library)
    if settings.backup.enabled:
        if settings.paths.backup.startswith(settings.paths.state + os.sep):
            with files.translated(settings.paths.backup, "making the backup directory"):
                files.make_directories(settings.paths.backup)
        files.check_writable(settings.paths.backup)


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
        run.pool.close()


class _Conversion:
    """One call of ``convert_all``: what its books share."""

    def __init__(self, settings: Settings, *, order: OrderChoice, again: bool, observer: Observer) -> None:
        library = settings.paths.library
        assert library is not None
        self.pool = WorkerPool(settings.encode.workers)
        self._library = library
        self._pipeline = PipelineSettings(
            library=library,
            backup_dir=settings.paths.backup if settings.backup.enabled else None,
            wishes=wishes(settings, order),
            again=again,
            refuse_damage=settings.encode.on_damage == "refuse",
        )
        self._examine = ExamineSettings(
            limits=ProbeLimits(max_file_size=settings.limits.max_file_size_mb * _MEGABYTE),
            max_files=settings.limits.max_files,
            order=order,
        )
        self._slots = anyio.CapacityLimiter(settings.jobs.max_concurrent)
        self._copies = anyio.CapacityLimiter(_COPIES)
        self._ledger = SpaceLedger()
        self._observer = observer
        self._one_at_a_time: dict[Fingerprint, anyio.Lock] = {}
        self._books = 0

    async def entry(self, path: str, age: int, outcomes: list[Outcome]) -> None:
        """Examine one entry and convert each book in it."""
        rank = Rank(age=age)
        async with self._slots:
            began = anyio.current_time()
            try:
                findings = await examine(path, self._examine, self.pool, rank)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other books go on
                findings = ()
                outcomes.append(self._told(path, None, _understood(error), anyio.current_time() - began))
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
            error = NeedsAttention(finding.code, finding.reason, remedy=finding.remedy, path=finding.path)
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
        log.info("book.found", book=name, files=len(source.files), hours=round(_hours(source), 2))
        try:
            async with self._one_at_a_time.setdefault(source.fingerprint, anyio.Lock()):
                finished = await self._converted(source, rank, partial(self._observer.progressed, number))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other books go on
            failure = _understood(error)
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

    async def _converted(self, source: Source, rank: Rank, report: Callable[[Progress], None]) -> Finished:
        # A book that is there already must not even need a lock or a writable directory.
        if not self._pipeline.again:
            known = await anyio.to_thread.run_sync(pipeline.already_published, self._library, source)
            if known is not None:
                await pipeline.swept(self._library, source)
                return pipeline.as_recorded(known, self._library)
        async with pipeline.opened(self._library, source, report) as (directory, journal):
            context = StepContext(
                work_dir=directory,
                pool=self.pool,
                rank=rank,
                copies=self._copies,
                ledger=self._ledger,
                clock=now,
                report=report,
            )
            return await pipeline.run(source, self._pipeline, context, journal)


def _understood(error: Exception) -> Aiom4bError:
    """Return an error of ours; one that nobody foresaw goes to the log as a whole, and to the user as what it is."""
    if isinstance(error, Aiom4bError):
        return error
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    log.error("program.error", exc_info=error)
    return NeedsAttention(
        "program.error",
        f"The program met something unforeseen: {type(error).__name__}: {error}",
        remedy="This is a fault of the program: please report it with what it wrote to standard error.",
    )


def _hours(source: Source) -> float:
    return sum(file.audio.seconds for file in source.files) / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a later look at a published book showed. ``proof`` is None when nothing was there to compare it with.

    ``unchanged``: the file is, byte for byte, the one that was published; None when that isn't known. ``missing`` says in
    words what would have been needed for a full proof.
    """

    book: Name
    proof: Proof | None
    facts: BookFacts | None
    unchanged: bool | None
    missing: str


async def verify_book(book: str, backup_dir: str | None, settings: Settings) -> Verified:
    """Prove a published book again against its backup; without record or backup look at the file alone.

    Raises NeedsAttention ``proof.*`` when it is not what it should be, ``book.missing`` when there is no such file.
    """
    path = os.path.abspath(book)
    if not os.path.isfile(path):
        raise NeedsAttention(
            "book.missing",
            f"There is no book {files.displayable(path)}.",
            remedy="Give the path of an .m4b file.",
            path=path,
            exit=Exit.NOT_FOUND,
        )
    pool = WorkerPool(settings.encode.workers)
    try:
        context = StepContext(
            work_dir=os.path.dirname(path),
            pool=pool,
            rank=Rank(),
            copies=anyio.CapacityLimiter(_COPIES),
            ledger=SpaceLedger(),
            clock=now,
            report=lambda _: None,
        )
        record = await _record_of(path, context)
        root, missing = await anyio.to_thread.run_sync(_backup_of, record, backup_dir)
        unchanged = None
        if record is not None:
            unchanged = await anyio.to_thread.run_sync(files.hash_file, path) == record.sha256
        if record is None or root is None:
            facts = await prove_alone(path, context)
            return Verified(book=path, proof=None, facts=facts, unchanged=unchanged, missing=missing)
        limits = ProbeLimits(max_file_size=settings.limits.max_file_size_mb * _MEGABYTE)
        proof = await prove_again(record, path, root, limits, context)
        return Verified(book=path, proof=proof, facts=None, unchanged=unchanged, missing="")
    except NeedsAttention as error:
        if error.code.startswith("proof."):
            error.remedy = "Put a good copy of the book in its place, or convert its source once more with --again."
        raise
    finally:
        pool.close()


async def _record_of(book: str, context: StepContext) -> Record | None:
    """Find the record of a book: by the id in its tags, in the library that holds it."""
    identity = await context.work(tags.book_id_of, book)
    if identity is None:
        return None
    folder = os.path.dirname(book)
    while folder != os.path.dirname(folder):
        if os.path.isdir(records.folder(folder)):
            return await anyio.to_thread.run_sync(records.by_id, folder, identity)
        folder = os.path.dirname(folder)
    return None


def _backup_of(record: Record | None, backup_dir: str | None) -> tuple[str | None, str]:
    """Return where the sources of a book lie, or None and what is missing."""
    if record is None:
        return None, "The library has no record of this book."
    if backup_dir is not None:
        for made in reversed(backups.list_sets(backup_dir)):
            if made.fingerprint == record.fingerprint:
                return made.root, ""
        return None, f"There is no backup of this book's source in {files.displayable(backup_dir)}."
    if all(os.path.isfile(os.path.join(record.backup.root, file.path)) for file in record.files):
        return record.backup.root, ""
    return None, f"The backup {files.displayable(record.backup.root)} is not there."
