"""Which titles shall be fetched? What somebody asks for, and what the settings say; never what is here already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
import structlog

from aiom4b.account import policy
from aiom4b.account.downloads import Downloads, missing, refused
from aiom4b.account.shelf import Shelf
from aiom4b.account.vouchers import Vouchers
from aiom4b.adapters import audible_items
from aiom4b.adapters.files import displayable
from aiom4b.book.naming import clean_name
from aiom4b.config import Settings
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.job import Job, JobOptions, Kind, Status
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin, Profile, Title, TitleFacts, TitleStatus
from aiom4b.models import Name

_PAGE = 500
_MANY = 10_000
_OPEN = [status for status in Status if not status.ended]

log = structlog.get_logger()


class Orders:
    """Queues titles, one wish at a time, so that two for the same title are one."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        settings: Callable[[], Settings],
        *,
        downloads: Downloads,
        shelf: Shelf,
        vouchers: Vouchers,
    ) -> None:
        self._store = store
        self._admission = admission
        self._settings = settings
        self._downloads = downloads
        self._shelf = shelf
        self._vouchers = vouchers
        self._one_at_a_time = anyio.Lock()

    async def download(self, asins: Sequence[Asin] | None) -> tuple[Job, ...]:
        """Queue titles, all that are NEW for None; return the jobs that stand for them, be they in work or done.

        A title whose book is in the library and that no job stands for any more has none. Raises NeedsAttention
        ``title.missing`` and what says why one can't be had: then none was queued.
        """
        async with self._one_at_a_time:
            await self._shelf.reconciled()
            titles = await self._new(None) if asins is None else [await self._known(asin) for asin in asins]
            if asins is not None:
                for title in titles:
                    if title.facts.unavailable is not None and await self._standing(title) is None:
                        raise refused(title)
            return tuple([job for title in titles if (job := await self._wanted(title)) is not None])

    async def convert(self, asin: Asin, options: JobOptions, priority: int) -> Job:
        """Queue the book of a title, with its download first where that is not here yet.

        Raises NeedsAttention ``title.missing``, ``title.here`` for what has a book, and as `download` does.
        """
        async with self._one_at_a_time:
            await self._shelf.reconciled()
            title = await self._known(asin)
            job = await self._open(asin)
            if job is not None:
                return job
            book = await self._shelf.book(asin)
            if book is not None:
                raise NeedsAttention(
                    "title.here",
                    f"The book of this title is in the library: {displayable(book)}.",
                    remedy="Nothing needs doing. To make it anew, restore its backup into the source with `aiom4b backups restore`.",
                    path=book,
                )
            if await self._shelf.audio(asin) is not None:
                return await self._downloads.queue_book(asin, named(title.facts), options, priority)
            if title.facts.unavailable is not None:
                raise refused(title)
            return await self._fetch(title, options, priority)

    async def resume(self) -> None:
        """Queue the books of downloads that are here whole and that nothing is known of any more: the database was lost."""
        await self._shelf.reconciled()
        for asin in await self._shelf.whole():
            async with self._one_at_a_time:
                if await self._store.jobs_of_title(asin) or await self._store.title_declined(asin):
                    continue
                try:
                    await self._downloads.queue_book(asin, "", JobOptions(), 0)
                except (NeedsAttention, Transient) as error:
                    log.warning("title.not_resumed", asin=asin, code=error.code, reason=error.reason)

    async def automatic(self, profile: Profile) -> int:
        """Queue what ``audible.auto_download`` says of an account's titles, and return how many.

        No more than a day's licences are open at a time. Episodes of podcasts are left out: they are not bought, and there
        may be hundreds. What was asked for once is left alone: it may have been cancelled,
        or its book may have been removed on purpose.
        """
        settings = self._settings().audible
        if settings.auto_download == "off":
            return 0
        async with self._one_at_a_time:
            await self._shelf.reconciled()
            open_jobs, _ = await self._store.jobs(limit=_MANY, offset=0, status=_OPEN, kind=Kind.DOWNLOAD)
            # A title that Audible refuses may wait for a month, and would keep the others from ever being asked for.
            waiting = sum(job.error is None or not policy.waits_alone(job.error.code) for job in open_jobs)
            queued = 0
            for title in await self._new(profile):
                if waiting + queued >= settings.daily_licences:
                    break
                if settings.auto_download == "new" and not title.came_later:
                    continue
                asked = await anyio.to_thread.run_sync(self._vouchers.of, title.facts.asin)
                declined = await self._store.title_declined(title.facts.asin)
                known = title.job is not None or title.reason is not None or asked is not None or declined
                if not known and not audible_items.is_episode(title.facts.item):
                    await self._fetch(title, JobOptions(), 0)
                    queued += 1
            return queued

    async def _new(self, profile: Profile | None) -> list[Title]:
        """Return the titles that are NEW, each once though several accounts have it."""
        found: dict[Asin, Title] = {}
        offset, total = 0, 1
        while offset < total:
            page, total = await self._store.titles(limit=_PAGE, offset=offset, profile=profile, status=TitleStatus.NEW)
            found |= {title.facts.asin: title for title in page}
            offset += _PAGE
        return list(found.values())

    async def _known(self, asin: Asin) -> Title:
        title = await self._store.title(asin)
        if title is None:
            raise missing(asin)
        return title

    async def _wanted(self, title: Title) -> Job | None:
        """Return the job that stands for a title; a new one unless there is one, or a book."""
        if await self._shelf.book(title.facts.asin) is not None:
            return await self._standing(title)
        job = await self._open(title.facts.asin)
        # What can't be had any more is worth keeping even so.
        if job is None and title.facts.unavailable is None and await self._is_damaged(title.facts.asin):
            await self._shelf.drop_audio(title.facts.asin)
        return job or await self._fetch(title, JobOptions(), 0)

    async def _is_damaged(self, asin: Asin) -> bool:
        """Whether no book could be made of a title's download the last time, because of its audio: then it has to come anew."""
        jobs = [job for job in await self._store.jobs_of_title(asin) if job.folders == (self._shelf.folder(asin),)]
        while jobs and jobs[-1].kind is Kind.DOWNLOAD and jobs[-1].status is Status.COMPLETED:
            jobs.pop()  # that is not what a look at the audio came to
        if not jobs or jobs[-1].status is Status.COMPLETED:
            return False
        # A cancelled job forgets what it waited for; its log doesn't.
        told = [line for line in await self._store.log(jobs[-1].id) if line.event in {"job.failed", "job.waiting"}]
        code = str(told[-1].data.get("code")) if told else ""
        return code.startswith("audio.") or code == "audible.key_wrong"

    async def _standing(self, title: Title) -> Job | None:
        jobs = await self._store.jobs_of_title(title.facts.asin)
        return jobs[-1] if jobs else None

    async def _open(self, asin: Asin) -> Job | None:
        jobs = await self._store.jobs_of_title(asin)
        return next((job for job in reversed(jobs) if not job.status.ended), None)

    async def _fetch(self, title: Title, options: JobOptions, priority: int) -> Job:
        asin = title.facts.asin
        # Asked for by name, it is worth asking Audible once more.
        await self._store.title_unavailable(asin, None)
        return await self._admission.fetch(asin, named(title.facts), self._shelf.folder(asin), options, priority)


def named(facts: TitleFacts) -> Name:
    """Return what a title's jobs, its backup and, failing all else, its book are called."""
    return clean_name(facts.metadata.title) or facts.asin
