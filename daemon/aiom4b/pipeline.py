"""In which order does one book pass its steps, and where does it go on after a stop?"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog
from pydantic import TypeAdapter, ValidationError

from aiom4b.adapters import files, records
from aiom4b.adapters.backup_format import stored_path
from aiom4b.adapters.records import Record
from aiom4b.book import naming
from aiom4b.book.encoding import EncodeWishes
from aiom4b.book.plan import Wishes, plan
from aiom4b.config import Settings
from aiom4b.engine.pool import Rank
from aiom4b.engine.worker import Usage
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.models import (
    BackupReceipt,
    BookPlan,
    CopiedFile,
    Draft,
    Fingerprint,
    Journal,
    Name,
    OrderChoice,
    Progress,
    Proof,
    Publication,
    Sha256,
    Sidecar,
    Source,
    SourceFile,
    Step,
)
from aiom4b.steps.backup import backup, is_still_good
from aiom4b.steps.context import Resources, StepContext
from aiom4b.steps.convert import convert
from aiom4b.steps.publish import find_same, publish
from aiom4b.steps.unlock import Unlocked, unlock
from aiom4b.steps.verify import verify

T = TypeVar("T")

log = structlog.get_logger()

_JOURNAL_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """What the pipeline needs to know of the settings. ``backup_dir`` is None where no backup is wanted."""

    library: str
    backup_dir: str | None
    wishes: Wishes
    again: bool = False
    refuse_damage: bool = False

    @classmethod
    def of(
        cls,
        settings: Settings,
        order: OrderChoice | tuple[Name, ...],
        *,
        again: bool,
        template: str | None = None,
        output: Name | None = None,
    ) -> PipelineSettings:
        """Return what the owner's settings say, and what he asked of this one book; ``paths.library`` must be set."""
        encode = settings.encode
        assert settings.paths.library is not None
        return cls(
            library=settings.paths.library,
            backup_dir=settings.paths.backup if settings.backup.enabled else None,
            wishes=Wishes(
                order=order,
                encode=EncodeWishes(
                    bit_rate=_fixed(encode.bitrate),
                    channels=_fixed(encode.channels),
                    sample_rate=_fixed(encode.sample_rate),
                    aac_coder=encode.aac_coder,
                    copy_aac=encode.aac_join == "copy",
                ),
                template=settings.library.template if template is None else template,
                output=output,
                metadata_json=settings.library.metadata_json,
            ),
            again=again,
            refuse_damage=encode.on_damage == "refuse",
        )


def _fixed(value: int | str) -> int | None:
    return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A book's way, told at its end. ``draft`` is None when the book was there already.

    ``files`` are the names of the source's files in playing order, as they were called when the book was made.
    ``seconds`` are those that passed in each step, ``cpu_seconds`` those that workers spent on it, ``peak_memory`` is the
    largest worker's in bytes.
    """

    plan: BookPlan
    receipt: BackupReceipt
    draft: Draft | None
    proof: Proof
    publication: Publication
    files: tuple[Name, ...]
    bit_rate: int
    seconds: dict[Step, float] = field(default_factory=dict)
    cpu_seconds: dict[Step, float] = field(default_factory=dict)
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()


def work_dir(library: str, fingerprint: Fingerprint) -> str:
    """Return where a book of this source is worked on: in the library, since a rename can't leave its file system."""
    return os.path.join(library, ".aiom4b", "work", fingerprint[:16])


class FileJournal:
    """A journal of small versioned files in a book's work directory. A value of an unknown version means: do it again."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def get(self, step: Step, kind: type[T]) -> T | None:
        """Return what ``step`` recorded, or None if it must run."""
        try:
            with open(self._path(step), "rb") as stream:
                document = json.load(stream)
            if document["v"] != _JOURNAL_VERSION:
                return None
            return TypeAdapter(kind).validate_python(document["value"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None  # not there, torn, or another version's

    def put(self, step: Step, value: object) -> None:
        """Record a step's value durably."""
        document = {"v": _JOURNAL_VERSION, "value": TypeAdapter(type(value)).dump_python(value)}
        files.write_durably(self._path(step), json.dumps(document, ensure_ascii=True).encode("ascii"), replace=True)

    def _path(self, step: Step) -> str:
        return os.path.join(self._directory, f"{step}.json")


@asynccontextmanager
async def opened(library: str, fingerprint: Fingerprint, name: Name) -> AsyncIterator[tuple[str, Journal]]:
    """Hold the work directory of a source, alone, and remove it once the book is published.

    Raises Transient ``book.busy`` when another process converts the same source, called ``name`` for people.
    """
    directory = work_dir(library, fingerprint)
    await anyio.to_thread.run_sync(_make, directory, library)
    busy = Transient(
        "book.busy",
        f"{files.displayable(name)} is being converted by another process.",
        remedy="Wait for it to end.",
    )
    with files.locked(_lock_of(directory), busy):
        # The one who held the lock before us may have finished and removed it all.
        await anyio.to_thread.run_sync(_make, directory, library)
        yield directory, FileJournal(directory)
        # Published is published: cancelling it now must not let it look as if it were not.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, directory)


def _make(directory: str, library: str) -> None:
    """Make a work directory, if it is missing, in which a book becomes what it would be if it were made in the library."""
    if not os.path.isdir(directory):
        files.make_directories(os.path.dirname(directory))
        files.make_heir(directory, library)


def _lock_of(directory: str) -> str:
    return f"{directory}.lock"


def _remove(directory: str) -> None:
    # The book is published: what can't be removed now is no reason to call it failed, and `swept` tries again.
    shutil.rmtree(directory, ignore_errors=True)


async def swept(library: str, fingerprint: Fingerprint) -> None:
    """Remove what a run left behind that will not go on; whatever hinders that is left alone."""
    directory = work_dir(library, fingerprint)
    if os.path.lexists(directory) or os.path.lexists(_lock_of(directory)):
        with suppress(Aiom4bError):
            async with opened(library, fingerprint, directory):
                pass


def remember(library: str, source: Source) -> None:
    """Record a source durably where it will be worked on, so that nobody has to look at it again before that."""
    directory = work_dir(library, source.fingerprint)
    _make(directory, library)
    FileJournal(directory).put(Step.EXAMINE, source)


def remembered(library: str, fingerprint: Fingerprint) -> Source | None:
    """Return the source of this fingerprint as it was when it was accepted, or None: then it has to be examined."""
    source = FileJournal(work_dir(library, fingerprint)).get(Step.EXAMINE, Source)
    return source if source is not None and source.fingerprint == fingerprint else None


def contents(library: str, fingerprint: Fingerprint) -> frozenset[Sha256]:
    """Return the content of every audio file of a source that is being worked on or was published; nothing if it is unknown."""
    source = remembered(library, fingerprint)
    if source is not None:
        return frozenset(file.sha256 for file in source.files)
    record = already_published(library, fingerprint)
    return frozenset(file.sha256 for file in record.files) if record is not None else frozenset()


def has_backup(library: str, fingerprint: Fingerprint) -> bool:
    """Whether a verified copy of this source was recorded by an unfinished run, and is still there."""
    done = FileJournal(work_dir(library, fingerprint)).get(Step.BACKUP, _BackedUp)
    return done is not None and done.receipt.copied and is_still_good(done.receipt)


def already_published(library: str, fingerprint: Fingerprint) -> Record | None:
    """Return the record of a book that was made from this source and is still where it was put."""
    found = [
        record
        for record in records.by_fingerprint(library, fingerprint)
        if os.path.isfile(os.path.join(library, record.book))
    ]
    return found[-1] if found else None


async def make(
    source: Source,
    settings: PipelineSettings,
    resources: Resources,
    *,
    rank: Rank,
    report: Callable[[Progress], None],
) -> Finished:
    """Make a book of a source, unless the library holds it already; safe to repeat after any stop.

    Raises what `opened` and `run` raise.
    """
    # A book that is there already must not even need a lock or a writable directory.
    if not settings.again:
        known = await anyio.to_thread.run_sync(already_published, settings.library, source.fingerprint)
        if known is not None:
            await swept(settings.library, source.fingerprint)
            return as_recorded(known, settings.library)
    async with opened(settings.library, source.fingerprint, source.name) as (directory, journal):
        context = resources.context(directory, rank, report)
        return await run(source, settings, context, journal)


def understood(error: Exception) -> Aiom4bError:
    """Return an error of ours; one that nobody foresaw goes to the log as a whole, and to the user as what it is."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Aiom4bError):
        return error
    log.error("program.error", exc_info=error)
    return NeedsAttention(
        "program.error",
        f"The program met something unforeseen: {type(error).__name__}: {error}",
        remedy="This is a fault of the program: please report it with what it wrote to standard error.",
    )


async def run(source: Source, settings: PipelineSettings, context: StepContext, journal: Journal) -> Finished:
    """Take one source through all steps and return what became of it.

    Each step's value is recorded before the next begins; what is recorded and still good is not done again, so that calling
    it once more after any stop leads to the same bytes. Raises the steps' errors, and ``source.changed`` when a source that
    was not copied changed on the way; nothing is ever half published.
    """
    if not settings.again and (
        known := await anyio.to_thread.run_sync(already_published, settings.library, source.fingerprint)
    ):
        return as_recorded(known, settings.library)
    meter = _Meter()
    context = replace(context, meter=meter.used)
    with meter.of(Step.BACKUP):
        recorded = journal.get(Step.BACKUP, _BackedUp)
        usable = recorded is not None and _serves(recorded, source, settings.backup_dir)
        if not usable or recorded is None or not await anyio.to_thread.run_sync(is_still_good, recorded.receipt):
            recorded = None
        # Before anything is copied: a book that waits for its key has no need of a backup yet.
        root = source.root if recorded is None else recorded.receipt.root
        # A backup may hold a key that has never lain beside the source.
        copied = recorded is not None and recorded.receipt.copied
        belonging = [
            one.path for one in (recorded.receipt.files if recorded is not None and copied else source.sidecars)
        ]
        unlocked = await unlock(source.files, root, belonging, context)
        if recorded is None:
            receipt = await _backup(source, settings, unlocked, context)
            recorded = _BackedUp(receipt=receipt, sidecars=source.sidecars)
            # A draft was made from the old copy, with its cover.
            await anyio.to_thread.run_sync(journal.put, Step.CONVERT, None)
            await anyio.to_thread.run_sync(journal.put, Step.BACKUP, recorded)
        receipt = recorded.receipt
    with meter.of(Step.PLAN):
        book = plan(source, settings.wishes)
        if journal.get(Step.PLAN, BookPlan) != book:
            await anyio.to_thread.run_sync(journal.put, Step.PLAN, book)
    with meter.of(Step.CONVERT):
        draft = journal.get(Step.CONVERT, Draft)
        proof = journal.get(Step.VERIFY, Proof)
        if draft is None or not await anyio.to_thread.run_sync(_is_usable, draft, source, book, proof, settings):
            draft, proof = (
                await convert(source, book, receipt, unlocked.keys, context, refuse_damage=settings.refuse_damage),
                None,
            )
            await anyio.to_thread.run_sync(journal.put, Step.CONVERT, draft)
    with meter.of(Step.VERIFY):
        if proof is None or not await anyio.to_thread.run_sync(_is_proved, draft, proof):
            proof = await verify(source, book, receipt, draft, context)
            await anyio.to_thread.run_sync(journal.put, Step.VERIFY, proof)
    if not receipt.copied:
        await anyio.to_thread.run_sync(_check_unchanged, source)
    with meter.of(Step.PUBLISH):
        publication = await publish(
            source, book, receipt, draft, proof, context, library=settings.library, another_name=naming.alternative
        )
    return Finished(
        plan=book,
        receipt=receipt,
        draft=draft,
        proof=proof,
        publication=publication,
        files=tuple(source.files[index].path for index in book.order.files),
        bit_rate=draft.bit_rate,
        seconds=meter.seconds,
        cpu_seconds=meter.cpu_seconds,
        peak_memory=meter.peak_memory,
        warnings=book.warnings + draft.warnings,
    )


class _Meter:
    """How long each step took, and what workers spent on it."""

    def __init__(self) -> None:
        self.seconds: dict[Step, float] = {}
        self.cpu_seconds: dict[Step, float] = {}
        self.peak_memory = 0
        self._step = Step.BACKUP

    @contextmanager
    def of(self, step: Step) -> Iterator[None]:
        self._step = step
        began = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - began

    def used(self, usage: Usage) -> None:
        self.cpu_seconds[self._step] = self.cpu_seconds.get(self._step, 0.0) + usage.cpu_seconds
        self.peak_memory = max(self.peak_memory, usage.peak_memory)


async def _backup(
    source: Source, settings: PipelineSettings, unlocked: Unlocked, context: StepContext
) -> BackupReceipt:
    if settings.backup_dir is None:
        files_as_they_are = tuple(
            CopiedFile(path=file.path, size=file.identity.size, sha256=file.sha256) for file in source.files
        )
        return BackupReceipt(root=source.root, copied=False, files=files_as_they_are)
    return await backup(
        source,
        settings.backup_dir,
        now=context.clock(),
        limiter=context.copies,
        ledger=context.ledger,
        report=context.report,
        extras=unlocked.key_files(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BackedUp:
    """What the backup step records: its receipt, and the files beside the audio as they were seen just before."""

    receipt: BackupReceipt
    sidecars: tuple[Sidecar, ...]


def _serves(recorded: _BackedUp, source: Source, backup_dir: str | None) -> bool:
    """Whether what an earlier run recorded is the backup that is wanted now: in that place, and of all these files.

    Audio by name and content: the owner may have renamed files since, and the fingerprint that led here doesn't know names.
    What lies beside it by name and identity: nobody has read it yet, and another cover may have the old one's size.
    """
    receipt = recorded.receipt
    if backup_dir is None:
        if receipt.copied or receipt.root != source.root:
            return False
    elif not receipt.copied or os.path.dirname(receipt.root) != os.path.normpath(backup_dir):
        return False
    stored = stored_path if receipt.copied else str
    audio = [(stored(file.path), file.sha256) for file in source.files]
    kept = [(one.path, one.sha256) for one in receipt.files[: len(audio)]]
    return audio == kept and recorded.sidecars == source.sidecars


def _check_unchanged(source: Source) -> None:
    """Without a copy of our own, what was read at different times is one book only if no file changed since.

    The cover is read long after the source was examined, and so what lies beside the audio counts too. Raises Transient
    ``source.changed``.
    """
    seen: list[SourceFile | Sidecar] = [*source.files, *source.sidecars]
    for file in seen:
        path = os.path.join(source.root, file.path)
        with files.translated(path, "looking at"):
            same = files.identity(os.lstat(path)) == file.identity
        if not same:
            raise Transient(
                "source.changed",
                f"{files.displayable(path)} changed while it was converted.",
                remedy="Try again once nobody writes there any more; with a backup the source may change meanwhile.",
                path=path,
            )


def _is_usable(draft: Draft, source: Source, book: BookPlan, proof: Proof | None, settings: PipelineSettings) -> bool:
    """Whether a recorded draft is of this plan and still there, be it that it has moved into the library already."""
    if draft.id != book.id:
        return False
    damaged = any(one.flaws for one in draft.segments) or any(file.audio.damage for file in source.files)
    if settings.refuse_damage and damaged:
        return False  # it was made while damage was still only reported
    if os.path.isfile(draft.book):
        return True
    return proof is not None and find_same(book, proof, settings.library, naming.alternative) is not None


def _is_proved(draft: Draft, proof: Proof) -> bool:
    """Whether a recorded proof speaks of the bytes that are there now."""
    return not os.path.isfile(draft.book) or files.hash_file(draft.book) == proof.sha256


def as_recorded(record: Record, library: str) -> Finished:
    """Tell of a book that was published before, as its record does."""
    publication = Publication(id=record.id, book=os.path.join(library, record.book), sha256=record.sha256, already=True)
    return Finished(
        plan=record.plan,
        receipt=record.backup,
        draft=None,
        proof=record.proof,
        publication=publication,
        files=tuple(record.files[index].path for index in record.plan.order.files),
        bit_rate=record.bit_rate,
        warnings=record.warnings,
    )
