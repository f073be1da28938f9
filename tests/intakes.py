"""Who stands in for the rest of the house when only its door is tested? Fake jobs, contents that can be checked, a clock."""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import anyio

import factories
from aiom4b.config import WatchSettings
from aiom4b.intake.inbox import Inbox
from aiom4b.jobs.job import EntryState, Job, JobId, JobOptions, Kind, Metrics, Problem, SourceEntry, Status
from aiom4b.models import Fingerprint, Incomplete, Rejected

START = datetime(2024, 2, 29, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Accepted:
    job: Job | None
    already: str | None


class FakeJobs:
    """Jobs that wait for ever unless a test ends them, and records in a dict."""

    def __init__(self):
        self.jobs: dict[JobId, Job] = {}
        self.records: dict[str, SourceEntry] = {}
        self.published: dict[Fingerprint, str] = {}
        self.withdrawn: list[tuple[str, str, bool]] = []
        self.accepted: list[str] = []
        self.writes = 0
        self.refuse: Exception | None = None

    async def accept(self, source, entry):
        if self.refuse is not None:
            raise self.refuse
        if source.fingerprint in self.published:
            return Accepted(None, self.published[source.fingerprint])
        self.accepted.append(source.name)
        for job in self.jobs.values():
            if job.fingerprint == source.fingerprint and not job.status.ended:
                return Accepted(job, None)
        number = len(self.jobs) + 1
        job = Job(
            id=JobId(f"job-{number}"),
            kind=Kind.CONVERT,
            status=Status.QUEUED,
            name=source.name,
            folders=(source.root,),
            entry=entry,
            fingerprint=source.fingerprint,
            options=JobOptions(),
            priority=0,
            sequence=number,
            attempts=0,
            not_before=None,
            step=None,
            progress=0.0,
            eta_seconds=None,
            output=None,
            book=None,
            backup=None,
            error=None,
            created=START,
            started=None,
            ended=None,
            updated=START,
            metrics=Metrics(),
        )
        self.jobs[job.id] = job
        return Accepted(job, None)

    def end(self, job_id, status, error=None):
        self.jobs[job_id] = replace(self.jobs[job_id], status=status, error=error)

    async def withdraw(self, job_id, problem, *, vanished):
        if self.jobs[job_id].status.ended:
            return False
        self.end(job_id, Status.CANCELLED, problem)
        self.withdrawn.append((job_id, problem.code, vanished))
        return True

    async def entries(self):
        return [self._derived(entry) for entry in self.records.values()]

    async def put_entry(self, entry):
        self.writes += 1
        self.records[entry.name] = entry

    async def drop_entry(self, name):
        self.writes += 1
        del self.records[name]

    def _derived(self, entry):
        jobs = [self.jobs[job] for job in entry.jobs]
        if not jobs or (entry.state is EntryState.READY and entry.problem is not None):
            return entry
        if any(not job.status.ended for job in jobs):
            return replace(entry, state=EntryState.QUEUED, problem=None)
        for job in jobs:
            if job.status is Status.FAILED:
                return replace(entry, state=EntryState.NEEDS_ATTENTION, problem=job.error)
            if job.status is Status.CANCELLED:
                return replace(entry, state=EntryState.REJECTED, problem=job.error)
        return replace(entry, state=EntryState.DONE, problem=None)

    @property
    def open(self):
        return [job.name for job in self.jobs.values() if not job.status.ended]


# --- contents ----------------------------------------------------------------------------------------------------------


def track(size: int, seed: int = 0) -> bytes:
    """Return a file that tells whether all of it is there, as an MP3 does by its frames: its last bytes are their hash."""
    body = hashlib.shake_256(str(seed).encode()).digest(max(0, size - 32))
    return body + hashlib.sha256(body).digest()


def put(folder, contents) -> None:
    for name, data in contents.items():
        path = os.path.join(os.fspath(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)


def book(total=2, seed=0, size=200):
    return {f"{number} of {total}.mp3": track(size, 100 * seed + number) for number in range(1, total + 1)}


async def examined(path: str):
    """Say what an entry holds, as the real one would: whole files ending in their own hash, named ``2 of 3.mp3``."""
    if os.path.isfile(path):
        return (_one_book(os.path.dirname(path), os.path.splitext(os.path.basename(path))[0], [path]),)
    folders = {}
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(".mp3"):
                folders.setdefault(folder, []).append(os.path.join(folder, name))
    if not folders:
        return (Rejected(path=path, code="source.no_audio", reason="There is no audio in it.", remedy="Add some."),)
    return tuple(_one_book(folder, os.path.basename(folder), files) for folder, files in sorted(folders.items()))


def _one_book(root, name, files):
    hashes = []
    for path in files:
        with open(path, "rb") as stream:
            data = stream.read()
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            return _lacking(root, f"{os.path.basename(path)} is cut off.")
        hashes.append(hashlib.sha256(data).hexdigest())
    words = os.path.splitext(os.path.basename(files[0]))[0].split(" of ")
    if len(words) == 2 and len(files) != int(words[1]):
        return _lacking(root, f"There are {len(files)} of {words[1]} files.")
    members = [
        factories.source_file(os.path.basename(path), sha256=sha) for path, sha in zip(files, hashes, strict=True)
    ]
    return factories.source(*members, root=root, name=name)


def _lacking(root, reason):
    return Incomplete(path=root, code="source.incomplete", reason=reason, remedy="Wait.")


# --- time --------------------------------------------------------------------------------------------------------------


class Door:
    """An inbox in a time of our own, without the watcher: all that it does is what the next turn does."""

    def __init__(self, source, jobs=None, *, examine=examined, **watch):
        self.seconds = 1000.0
        self.jobs = jobs or FakeJobs()
        self.events = []
        self.looked = []
        self.examine = examine
        self.settings = WatchSettings(**({"mode": "poll", "settle_seconds": 30} | watch))
        self.source = os.fspath(source)
        self.inbox = Inbox(
            source=self.source,
            settings=lambda: self.settings,
            examine=self._examine,
            jobs=self.jobs,
            publish=lambda event, **data: self.events.append((event, data)),
            clock=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
        )

    async def _examine(self, path):
        self.looked.append(os.path.basename(path))
        return await self.examine(path)

    @asynccontextmanager
    async def opened(self):
        await self.inbox._entries.refresh()
        async with anyio.create_task_group() as self.group:
            await self.wait(0)
            yield self
            self.group.cancel_scope.cancel()

    async def wait(self, seconds, *, drain=True, heard=True):
        """Let time pass, from one thing that is due to the next, as `Inbox.run` does; events come first, for everything."""
        until = self.seconds + seconds
        if heard:
            names = os.listdir(self.source) if os.path.isdir(self.source) else ()
            self.inbox._touched(frozenset({"", *names, *self.inbox._present}))
        while True:
            self.inbox._wake = anyio.Event()
            due = await self.inbox._turn(self.group)
            with anyio.fail_after(20):
                while drain and self.inbox._busy:
                    await self.inbox._wake.wait()
                    self.inbox._wake = anyio.Event()
                    due = self.seconds
            if due > until:
                self.seconds = until
                return
            self.seconds = max(self.seconds, due)

    def record(self, name):
        return next(
            (entry for entry in map(self.jobs._derived, self.jobs.records.values()) if entry.name == name), None
        )

    def state(self, name):
        found = self.record(name)
        return None if found is None else found.state

    def code(self, name):
        found = self.record(name)
        return None if found is None or found.problem is None else found.problem.code

    def told(self, event):
        return [data for name, data in self.events if name == event]


def played(scene, door):
    """Run an async function beside an opened door."""

    async def run():
        async with door.opened():
            await scene()

    anyio.run(run)


PROBLEM = Problem(code="test", message="A test.", remedy="None.")
