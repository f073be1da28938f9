"""What does a test of downloads live in? The real account, scheduler and store, with a fake of Audible and books that cost nothing.

    with FakeAudible(Title(…)) as fake, all_to(fake.port):
        async with at_work(tmp_path, fake) as life:
            await life.fetched(ASIN)

Each ``at_work`` on the same folder is a new start of the same service; its end is a stop at whatever it does.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import anyio

import factories
from aiom4b.account.account import Account
from aiom4b.account.keys import Keys
from aiom4b.adapters import files, records, volumes
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.records import Record, SourceRecord
from aiom4b.adapters.space import SpaceLedger, Volume
from aiom4b.book import plan as planning
from aiom4b.book.plan import Wishes
from aiom4b.config import Settings
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Event, Events
from aiom4b.jobs.job import Kind, Status
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Profile
from aiom4b.models import BackupReceipt, Proof, Sha256, SoundCheck, now
from aiom4b.pipeline import Finished

MAIN = Profile("main")
GIGABYTE = 1 << 30


class Runner:
    """Says of a folder's audio that it is a book, and makes one in no time, once ``go_on`` is set."""

    def __init__(self, library, free):
        self.library = library
        self.resources = SimpleNamespace(
            ledger=SpaceLedger(lambda path: Volume(device=1, available=free(), size=100 * GIGABYTE))
        )
        self.go_on = anyio.Event()
        self.backup = True

    def hold(self, held):
        pass

    async def remember(self, source):
        pass

    async def sweep(self, fingerprint):
        pass

    async def examine(self, folders, *, order, merge, rank):
        return (book_in(folders[0]),)

    async def source(self, job, found, others):
        return book_in(job.folders[0])

    async def make(self, job, source, report, *, again):
        await self.go_on.wait()
        book = os.path.join(self.library, f"{job.name}.m4b")
        await anyio.Path(book).write_bytes(b"book")
        made = planning.plan(source, Wishes())
        check = SoundCheck(seconds=1, quiet=0, beyond=0, snr_min=30.0, snr_median=31.0, worst=0.0)
        record = Record(
            id=made.id,
            fingerprint=source.fingerprint,
            book=os.path.basename(book),
            sha256=Sha256("0" * 64),
            size=4,
            bit_rate=64_000,
            published=now().isoformat(),
            tool="test",
            source=source.root,
            files=tuple(
                SourceRecord(path=file.path, size=file.identity.size, sha256=file.sha256) for file in source.files
            ),
            backup=self._backed_up(),
            plan=made,
            pieces=(),
            proof=Proof(
                against="", packets=1, samples=1, chapters=1, tags=1, sha256=Sha256("0" * 64), sound=check, joins=check
            ),
            warnings=(),
        )
        records.write(self.library, record)
        return Finished(
            plan=made,
            receipt=record.backup,
            draft=None,
            proof=record.proof,
            publication=SimpleNamespace(id=made.id, book=book, already=False),
            files=(),
            bit_rate=64_000,
        )

    def _backed_up(self):
        root = os.path.join(self.library, "set")
        if self.backup:
            os.makedirs(root, exist_ok=True)
            with open(os.path.join(root, "backup.json"), "w") as file:
                file.write("{}")
        return BackupReceipt(root=root, copied=self.backup, files=())


def book_in(folder):
    """Return the source that a folder of a download holds."""
    (name,) = [name for name in os.listdir(folder) if name.endswith((".aaxc", ".aax", ".mp3"))]
    with open(os.path.join(folder, name), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    asin = os.path.basename(folder)
    made = factories.source_file(name, sha256=digest, asin=asin)
    return factories.source(made, name=asin, root=folder)


class Life:
    """One run of the service on ``root``. ``later`` is how far its clock is ahead."""

    def __init__(self, root, fake, audible):
        self.root = str(root)
        self.fake = fake
        self.later = timedelta()
        self.free = 50 * GIGABYTE
        self.slept = []
        self.looked = anyio.Event()
        self.looked.set()
        self.library, self.state = os.path.join(self.root, "library"), os.path.join(self.root, "state")
        self.settings = Settings(
            paths={
                "source": os.path.join(self.root, "source"),
                "library": self.library,
                "state": self.state,
                "backup": os.path.join(self.root, "backup"),
            },
            audible=audible,
        )
        for folder in (self.library, self.state, self.settings.paths.backup):
            os.makedirs(folder, exist_ok=True)
            volumes.mark(folder)

    def clock(self):
        return now() + self.later

    async def open(self):
        self.store = await Store.open(os.path.join(self.state, "aiom4b.db"), clock=self.clock)
        self.events = Events(self.clock, self.store.reserve_event_ids)
        await self.events.start()
        self.runner = Runner(self.library, lambda: self.free)
        self.admission = Admission(self.store, self.events, self.runner, lambda: self.settings, clock=self.clock)
        self.keys = Keys(lambda: self.settings)

        async def requeue(job_id):
            return await self.desk.retry(job_id)

        async def looked():
            await self.looked.wait()

        async def sleep(seconds):
            self.slept.append(seconds)

        self.account = Account(
            self.store,
            self.events,
            self.admission,
            self.runner,
            lambda: self.settings,
            keys=self.keys,
            requeue=requeue,
            looked=looked,
            clock=self.clock,
            sleep=sleep,
            jitter=lambda: 0.0,
        )
        self.scheduler = Scheduler(
            self.store,
            self.events,
            self.runner,
            self.admission,
            lambda: self.settings,
            clock=self.clock,
            monotonic=time.monotonic,
            fetcher=self.account.fetcher,
        )
        self.desk = Desk(self.store, self.events, self.runner, self.scheduler, clock=self.clock)

    async def sign_in(self, profile=MAIN, device=None):
        """Put the sign-in of a device there, as an import would, and learn what is in the library."""
        self.device = device or self.fake.device()
        identity = Identity.of(self.device.identity())
        await anyio.to_thread.run_sync(self.keys.profiles.save, profile, identity)
        await self.account.sync(profile, full=True)

    def folder(self, asin):
        return os.path.join(self.library, files.HIDDEN, "downloads", asin)

    def files(self, asin):
        """Return what lies in the folder of a download."""
        try:
            return set(os.listdir(self.folder(asin)))
        except FileNotFoundError:
            return None

    async def job(self, asin, kind=Kind.DOWNLOAD):
        """Return the last job of a kind for a title."""
        jobs = [job for job in await self.store.jobs_of_title(asin) if job.kind is kind]
        return jobs[-1] if jobs else None

    async def until(self, true, *, seconds=20.0):
        """Return what ``true`` returns once that is something, looked at whenever anything happens."""
        with anyio.fail_after(seconds):
            while True:
                events = self.events.since(None)
                if found := await true():
                    return found
                with anyio.move_on_after(0.1):  # files and counters tell nobody
                    await anext(events)

    async def status(self, asin, *statuses, kind=Kind.DOWNLOAD):
        """Return the job of a title once it stands so."""

        async def stands():
            job = await self.job(asin, kind)
            return job if job is not None and job.status in statuses else None

        return await self.until(stands)

    async def fetched(self, asin):
        """Ask for a title, and return its job once it is completed."""
        await self.account.download([asin])
        return await self.status(asin, Status.COMPLETED)

    async def waits(self, asin, code):
        """Return the job of a title once it waits for this reason."""

        async def waiting():
            job = await self.job(asin)
            return job if job and job.status is Status.WAITING and job.error.code == code else None

        return await self.until(waiting)

    def heard(self, *names):
        """Return what is told of some kinds of events from now on."""
        events = self.events.since(None)

        async def follow():
            async for event in events:
                if isinstance(event, Event) and event.event in names:
                    yield event

        return follow()


@asynccontextmanager
async def at_work(root, fake, *, scheduled=True, account=True, later=timedelta(), **audible):
    """Run the service below ``root``; further keywords are its settings for Audible."""
    life = Life(root, fake, {"sync_hours": 0} | audible)
    life.later = later
    await life.open()
    try:
        await life.store.recover(life.clock())
        async with anyio.create_task_group() as group:
            if account:
                group.start_soon(life.account.run)
            if scheduled:
                group.start_soon(life.scheduler.run)
            await anyio.wait_all_tasks_blocked()
            try:
                yield life
            finally:
                group.cancel_scope.cancel()
                fake.release()  # what it holds would keep the stop waiting
        life.events.close()
    finally:
        await life.store.close()


def run(scene):
    """Run a scene to its end, however it ends, within a minute; what it raises is raised as it is."""

    async def whole():
        with anyio.fail_after(60):
            await scene()

    try:
        anyio.run(whole)
    except BaseExceptionGroup as group:
        error = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None
