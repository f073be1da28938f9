"""How does a title get here? From its licence to the book in the queue, safe to stop and to repeat anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import anyio
import anyio.to_thread
import structlog

from aiom4b.account import companions, vouchers
from aiom4b.account.keys import Keys
from aiom4b.account.licences import Here, Licences, later
from aiom4b.account.shelf import Shelf
from aiom4b.account.vouchers import Voucher
from aiom4b.adapters import audible_items, files, volumes
from aiom4b.adapters.audible_api.session import Session
from aiom4b.adapters.audible_items import ItemFacts
from aiom4b.book.naming import clean_name
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError, Exit, NeedsAttention, Transient
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import Job, JobId, JobOptions
from aiom4b.jobs.runner import EXAMINING, Runner
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Title
from aiom4b.models import Clock, Name, OrderChoice, Progress, Source, Step
from aiom4b.steps.examine import refusal

_TELL_SECONDS = 0.5
_BYTES_A_MINUTE = 1_000_000  # of audio at 128 kbit/s: for what the licence doesn't say
_BESIDE = 32_000_000  # bytes for cover, PDF and the rest
_FIRST_OUTAGE, _LONGEST_OUTAGE = timedelta(minutes=1), timedelta(hours=1)
_STALE = ("audible.address_expired", "audible.changed_download")
# An address that is refused so soon has not expired: another one would be refused as well.
_FRESH = timedelta(hours=1)
_PASSING = (
    "audible.network",
    "audible.unreachable",
    "audible.server",
    "audible.unreadable",
    "audible.rate",
    "audible.cut_download",
)
_INSISTS = 8
"""How often a book is kept waiting for what belongs beside its audio: for some two hours, after which it comes without."""
_WAITS = {
    "audible.clock": timedelta(minutes=15),
    "profile.missing": timedelta(hours=6),
    "title.missing": timedelta(hours=6),  # its account is being signed in anew, say
    "authfile.encrypted": timedelta(hours=6),
    "authfile.wrong_password": timedelta(hours=6),
}

log = structlog.get_logger()


class Downloads:
    """A `jobs.fetching.Fetcher`. ``monotonic`` is seconds on a clock that nobody sets."""

    def __init__(
        self,
        store: Store,
        events: Events,
        admission: Admission,
        runner: Runner,
        settings: Callable[[], Settings],
        *,
        keys: Keys,
        licences: Licences,
        shelf: Shelf,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._events = events
        self._admission = admission
        self._runner = runner
        self._settings = settings
        self._keys = keys
        self._profiles = keys.profiles
        self._sessions = keys.sessions
        self._vouchers = keys.vouchers
        self._licences = licences
        self._shelf = shelf
        self._clock = clock
        self._monotonic = monotonic
        self._outages: dict[JobId, int] = {}
        self._insisted: dict[JobId, int] = {}

    async def fetch(self, job: Job, report: Callable[[Progress], None]) -> Name:
        """Do what `Fetcher.fetch` says. No licence is asked for while there is anything of the title here.

        Beside what the account's rooms raise: NeedsAttention ``title.missing``, what says why the title can't be had, and
        what a look at the files shows.
        """
        try:
            await self._shelf.reconciled()
            async with self._shelf.used(Asin(job.asin)):
                folder = await self._fetch(job, report)
        except Aiom4bError as error:
            raise self._worth_waiting(job, error) from error
        self._outages.pop(job.id, None)
        self._insisted.pop(job.id, None)
        return folder

    def _worth_waiting(self, job: Job, error: Aiom4bError) -> Aiom4bError:
        """Return the error with the time after which to try again, where neither the title nor its files are at fault."""
        if error.later is not None:
            return error
        if error.code in _PASSING:
            before = self._outages.get(job.id, 0)
            self._outages[job.id] = before + 1
            return later(error, min(_FIRST_OUTAGE * 2 ** min(before, 10), _LONGEST_OUTAGE))
        wait = _WAITS.get(error.code)
        return error if wait is None else later(error, wait)

    async def _fetch(self, job: Job, report: Callable[[Progress], None]) -> Name:
        asin = Asin(job.asin)
        folder = self._shelf.folder(asin)
        await volumes.check(volumes.written(self._settings()))
        try:
            if await self._is_here(asin):
                raise Here
            title = await self._store.title(asin)
            if title is None:
                raise missing(asin)
            await self._bring(job, title, folder, report)
        except Here:
            log.info("title.here", asin=asin)
            return folder
        await self._store.title_downloaded(asin, folder)
        await self.queue_book(asin, job.name, job.options, job.priority)
        return folder

    async def _is_here(self, asin: Asin) -> bool:
        return await self._shelf.conversion(asin) is not None or await self._shelf.book(asin) is not None

    async def _bring(self, job: Job, title: Title, folder: str, report: Callable[[Progress], None]) -> None:
        asin, profile = title.facts.asin, title.profile
        identity = await anyio.to_thread.run_sync(self._profiles.load, profile)
        told = audible_items.facts_of(title.facts.item)
        best_first = self._settings().audible.quality == "high"
        codecs = told.codecs if best_first else told.codecs[::-1]
        try:
            async with self._sessions(identity) as session:
                if await self._shelf.audio(asin) is None:
                    await self._audio(job, title, codecs, folder, session, report)
                voucher = await anyio.to_thread.run_sync(self._vouchers.of, asin)
                missed = await self._beside(job, folder, title, told, voucher, session)
        except NeedsAttention as error:
            if error.code == "audible.unauthorized" and error.later is None:
                raise await self._licences.paused(profile, error) from error
            raise
        for one in missed:
            log.warning("title.without", asin=asin, code=one.code, reason=one.reason)
            await self._store.note(job.id, self._clock(), "title.warning", code=one.code, message=one.reason)

    async def _beside(
        self, job: Job, folder: str, title: Title, told: ItemFacts, voucher: Voucher | None, session: Session
    ) -> tuple[Aiom4bError, ...]:
        """Bring what belongs beside the audio; return why one or the other can't be had, once it was waited for long enough."""
        before = self._insisted.get(job.id, 0)
        try:
            return await companions.bring(folder, title.facts, told, voucher, session, insist=before < _INSISTS)
        except Transient as error:
            # Counted here, since what says when it is worth trying again counts as no attempt of its job.
            self._insisted[job.id] = before + 1
            raise (error if error.later is None else later(error, min(error.later, _LONGEST_OUTAGE))) from error

    async def _audio(
        self,
        job: Job,
        title: Title,
        codecs: tuple[str, ...],
        folder: str,
        session: Session,
        report: Callable[[Progress], None],
    ) -> None:
        """Bring the audio, with what opens it beside it."""
        if title.facts.unavailable is not None:
            raise refused(title)
        asin, guess = title.facts.asin, title.facts.runtime_minutes * _BYTES_A_MINUTE + _BESIDE
        with self._runner.resources.ledger.reserve(folder, guess):
            pass  # or the address would expire while we wait for room
        for last in (False, True):
            voucher = await self._licences.voucher(
                title.profile, asin, codecs, session, here=lambda: self._is_here(asin)
            )
            path = os.path.join(folder, voucher.file)
            here = await anyio.to_thread.run_sync(_prepare, folder, voucher)
            needed = guess if voucher.size is None else voucher.size + _BESIDE
            meter = _Meter(self._events, job, report, self._monotonic)
            with self._runner.resources.ledger.reserve(folder, max(needed - here, 0)):
                await self._lay_key(folder, voucher, session)
                try:
                    await session.transfer(voucher.address, path, expected=voucher.size, on_bytes=meter.tell)
                except Transient as error:
                    fresh = timedelta(0) <= self._clock() - voucher.asked < _FRESH
                    if last or fresh or error.code not in _STALE:
                        raise
                    log.info("voucher.stale", asin=asin, code=error.code)
                    await anyio.to_thread.run_sync(self._vouchers.store, voucher.without_address())
                    continue
            return

    async def _lay_key(self, folder: str, voucher: Voucher, session: Session) -> None:
        """Put what opens the audio beside it, before the audio: so there is never one without the other."""
        if voucher.kind == "aax":
            value = await self._keys.activation_bytes(voucher.profile, session)
            name, data = f"{voucher.stem}.key", f"ActivationBytes={value}\n".encode("ascii")
        else:
            name, data = f"{voucher.stem}.voucher", vouchers.beside(voucher)
        path = os.path.join(folder, name)
        await anyio.to_thread.run_sync(lambda: files.write_durably(path, data, replace=True, mode=0o600))

    async def queue_book(self, asin: Asin, name: Name, options: JobOptions, priority: int) -> Job:
        """Queue the book of a title that is fetched, called ``name``, or "": as its files say. Raises what a look at them shows."""
        folder = self._shelf.folder(asin)
        findings = await self._runner.examine([folder], order=OrderChoice.AUTO, merge=False, rank=EXAMINING)
        sources = [finding for finding in findings if isinstance(finding, Source)]
        if not sources:
            raise next(refusal(finding) for finding in findings if not isinstance(finding, Source))
        told = (metadata.title for _, metadata in sources[0].evidence.metadata)
        source = replace(sources[0], name=name or next(filter(None, map(clean_name, told)), asin))
        return await self._admission.add(source, None, options, priority, asin=asin, folder=folder)


class _Meter:
    """Tells how far a transfer is: to its job always, to watchers twice a second at most."""

    def __init__(
        self, events: Events, job: Job, report: Callable[[Progress], None], monotonic: Callable[[], float]
    ) -> None:
        self._events = events
        self._job = job
        self._report = report
        self._monotonic = monotonic
        self._told: tuple[float, int] | None = None

    def tell(self, done: int, total: int) -> None:
        """Hear that so many bytes of so many are here."""
        self._report(Progress(step=Step.DOWNLOAD, done=done, total=total))
        now = self._monotonic()
        if self._told is None:
            self._told = (now, done)
            return
        then, before = self._told
        if now - then >= _TELL_SECONDS:
            self._told = (now, done)
            self._events.publish(
                "download.progress",
                asin=self._job.asin,
                job_id=self._job.id,
                bytes=done,
                total=total,
                bytes_per_second=round((done - before) / (now - then)),
            )


def missing(asin: str) -> NeedsAttention:
    """Return the error for an ASIN that is in no account's library."""
    return NeedsAttention(
        "title.missing",
        f"There is no title {files.displayable(asin)} in the library of any account that is signed in.",
        remedy="`aiom4b audible list` shows them all; `aiom4b audible sync` asks Audible for new ones.",
        exit=Exit.NOT_FOUND,
    )


def refused(title: Title) -> NeedsAttention:
    """Return the error for a title that can't be had."""
    problem = title.facts.unavailable
    assert problem is not None
    return NeedsAttention(problem.code, problem.message, remedy=problem.remedy)


def _prepare(folder: str, voucher: Voucher) -> int:
    """Make the folder, drop what was begun for another file than this one, and return how many bytes of it are here."""
    files.make_directories(folder)
    mine = (f"{voucher.file}.part", f"{voucher.file}.resume")
    with files.translated(folder, "tidying"):
        for name in os.listdir(folder):
            other_part = name.endswith((".part", ".resume")) and name not in mine
            if other_part or (name.endswith((".voucher", ".key")) and not name.startswith(f"{voucher.stem}.")):
                os.unlink(os.path.join(folder, name))
        try:
            return os.stat(os.path.join(folder, mine[0])).st_size
        except FileNotFoundError:
            return 0
