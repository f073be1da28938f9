"""What of a title is here already, and what is left over? The folders of downloads, and the books that were made of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters import files, records, volumes
from aiom4b.adapters.files import displayable, translated
from aiom4b.config import Settings
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.job import Job, Kind, Status
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin
from aiom4b.models import Fingerprint, Name
from aiom4b.steps.backup import is_still_good

_FOLDERS = "downloads"
_ASIN = re.compile(r"[A-Z0-9]{10}")
_ASIN_IN_RECORD = re.compile(rb'"asin": "([A-Z0-9]{10})"')
_AUDIO = (".aaxc", ".aax", ".mp3")

log = structlog.get_logger()


class Shelf:
    """The folders below ``<library>/.aiom4b/downloads``, one for each title, named by its ASIN."""

    def __init__(self, store: Store, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._settings = settings
        self._one_at_a_time = anyio.Lock()
        self._reconciled = False
        self._used: set[Asin] = set()
        self._clearing = anyio.Lock()

    def folder(self, asin: Asin) -> Name:
        """Return where a title is fetched to, absolute."""
        return os.path.join(self._place(), asin)

    async def audio(self, asin: Asin) -> Name | None:
        """Return the audio file of a title that is fetched whole, absolute."""
        return await anyio.to_thread.run_sync(_audio, self.folder(asin))

    async def book(self, asin: Asin) -> Name | None:
        """Return the published book of a title that is still where it was put, absolute."""
        held = await self._store.here(asin)
        book = None if held is None else held.book
        return book if book is not None and await anyio.to_thread.run_sync(os.path.isfile, book) else None

    async def conversion(self, asin: Asin) -> Job | None:
        """Return the job that makes a title's book now."""
        jobs = await self._store.jobs_of_title(asin)
        return next((job for job in reversed(jobs) if job.kind is Kind.CONVERT and not job.status.ended), None)

    @asynccontextmanager
    async def used(self, asin: Asin) -> AsyncIterator[None]:
        """Keep a title's folder from being tidied away for as long as the block runs: it may have begun to be."""
        async with self._clearing:
            self._used.add(asin)
        try:
            yield
        finally:
            self._used.discard(asin)

    # --- tidying -------------------------------------------------------------------------------------------------------

    async def whole(self) -> list[Asin]:
        """Return the titles whose downloads are here whole."""
        place = self._place()
        found = await anyio.to_thread.run_sync(_asins, place)
        return [asin for asin in found if await self.audio(asin) is not None]

    async def drop_audio(self, asin: Asin) -> None:
        """Remove the audio of a download, which is damaged; what opens it stays. For a title without a job."""
        async with self._clearing:
            audio = await self.audio(asin)
            if audio is not None:
                await anyio.to_thread.run_sync(_remove, audio)
                log.warning("download.dropped", asin=asin, file=displayable(audio))
            await self._store.title_downloaded(asin, None)

    async def reconciled(self) -> None:
        """Return once what is recorded agrees with the disk, which is right: looked at once, before anything is asked for.

        A database that was lost learns from the library which titles have a book. Raises Transient ``volume.missing``.
        """
        async with self._one_at_a_time:
            if not self._reconciled:
                await self._reconcile()
                self._reconciled = True

    async def _reconcile(self) -> None:
        await volumes.check(volumes.written(self._settings()))
        library = self._library()
        for asin, path in await anyio.to_thread.run_sync(lambda: list(_recorded(library))):
            held = await self._store.here(asin)
            known = None if held is None else held.book
            if known is None or not await anyio.to_thread.run_sync(os.path.isfile, known):  # the library may have moved
                record = await anyio.to_thread.run_sync(records.read, path)
                if record is not None and record.plan.metadata.asin == asin:
                    book = os.path.join(library, record.book)
                    if await anyio.to_thread.run_sync(os.path.isfile, book):
                        await self._store.title_filed(asin, book)
        await self.tidy_all()

    async def tidy_all(self) -> None:
        """Do what `tidy` does for every title that has a download, or is said to have one; what can't be done is told.

        Raises Transient ``volume.missing``.
        """
        found = await anyio.to_thread.run_sync(_asins, self._place())
        for asin in sorted({*found, *await self._store.titles_downloaded()}):
            try:
                await self.tidy(asin)
            except (NeedsAttention, Transient) as error:
                if error.code == "volume.missing":
                    raise
                # One that can't be removed, say, is no reason to leave the others.
                log.warning("download.not_tidied", asin=asin, code=error.code, reason=error.reason, remedy=error.remedy)

    async def tidy(self, asin: Asin) -> None:
        """Remove what nobody needs any more of a title's download, and record what there is. Safe to repeat.

        A whole download stays until its book is in the library with a verified backup, or without one where no backups are
        made; a part of one as long as a job may go on with it. Raises Transient ``volume.missing``.
        """
        await volumes.check(volumes.written(self._settings()))
        async with self._clearing:
            if asin not in self._used:
                await self._tidy(asin, self.folder(asin))

    async def _tidy(self, asin: Asin, folder: Name) -> None:
        jobs = await self._store.jobs_of_title(asin)
        held = await self._store.here(asin)
        recorded = None if held is None else held.files
        whole = await self.audio(asin) is not None
        if recorded is not None and not whole:  # it went by another hand, or had never come
            await self._store.title_downloaded(asin, None)
            recorded = None
        if any(not job.status.ended for job in jobs):
            return
        if whole:
            made = await self._made(asin, jobs)
            if made is None or not await self._is_kept_elsewhere(made):
                if recorded != folder:
                    await self._store.title_downloaded(asin, folder)
                return
        elif jobs and jobs[-1].status is Status.FAILED:
            return
        if await anyio.to_thread.run_sync(_remove, folder):
            log.info("download.removed", asin=asin, folder=displayable(folder))
        if recorded is not None:
            await self._store.title_downloaded(asin, None)

    async def _made(self, asin: Asin, jobs: Sequence[Job]) -> Job | None:
        """Return the job that made the book of a download: of its folder, or of the same file that somebody dropped."""
        books = [job for job in reversed(jobs) if job.kind is Kind.CONVERT]
        own = next((job for job in books if job.folders == (self.folder(asin),)), None)
        audio = await self.audio(asin)
        if own is not None or audio is None:
            return own
        dropped = [job for job in books if job.status is Status.COMPLETED and job.fingerprint is not None]
        sha256 = await anyio.to_thread.run_sync(files.hash_file, audio) if dropped else ""
        for job in dropped:
            assert job.fingerprint is not None
            if sha256 in await anyio.to_thread.run_sync(pipeline.contents, self._library(), job.fingerprint):
                return job
        return None

    async def _is_kept_elsewhere(self, job: Job) -> bool:
        if job.status is not Status.COMPLETED or job.fingerprint is None:
            return False
        backups = self._settings().backup.enabled
        return await anyio.to_thread.run_sync(_is_filed, self._library(), job.fingerprint, backups)

    def _library(self) -> str:
        library = self._settings().paths.library
        assert library is not None
        return library

    def _place(self) -> str:
        return os.path.join(self._library(), files.HIDDEN, _FOLDERS)


def _audio(folder: str) -> Name | None:
    with translated(folder, "listing"):
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None
    return next((os.path.join(folder, name) for name in names if name.endswith(_AUDIO)), None)


def _is_filed(library: str, fingerprint: Fingerprint, backups: bool) -> bool:
    """Whether the book of this content is in the library, and its source in a verified backup, where ``backups`` are made."""
    record = pipeline.already_published(library, fingerprint)
    if record is None:
        return False
    return not backups or (record.backup.copied and is_still_good(record.backup))


def _recorded(library: str) -> Iterator[tuple[Asin, str]]:
    """Yield the ASINs of the library's books, each with the file of its record."""
    folder = records.folder(library)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json"):
            path = os.path.join(folder, name)
            with translated(path, "reading the record"), open(path, "rb") as stream:
                found = _ASIN_IN_RECORD.search(stream.read())
            if found is not None:
                yield Asin(found[1].decode("ascii")), path


def _asins(place: str) -> list[Asin]:
    try:
        return [Asin(name) for name in sorted(os.listdir(place)) if _ASIN.fullmatch(name)]
    except FileNotFoundError:
        return []


def _remove(path: str) -> bool:
    """Remove a folder with all that is in it, or a file, or a link but not what it leads to; whether there was anything.

    Stopped in between, the rest is removed the next time.
    """
    if not os.path.lexists(path):
        return False
    with translated(path, "removing"):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        files.fsync_directory(os.path.dirname(path))
    return True
