"""What must never end the service, lose a job, or try it for ever? The scheduler with a real store, and books that cost nothing."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import anyio

import factories
from aiom4b import pipeline
from aiom4b.config import Settings
from aiom4b.errors import Transient
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import JobOptions, Kind, Problem, Status
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.models import Fingerprint, Progress, Step
from aiom4b.pipeline import Finished

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Runner:
    """Says at once that a book is published where the test wants it."""

    def __init__(self, book):
        self.book = str(book)
        self.begun = 0
        self.twice = anyio.Event()

    def hold(self, held):
        pass

    async def sweep(self, fingerprint):
        pass

    async def source(self, job, found, others):
        self.begun += 1
        if self.begun == 2:
            self.twice.set()
        return factories.source(*factories.source_files("1.mp3"))

    async def make(self, job, source, report, *, again):
        return Finished(
            plan=SimpleNamespace(timeline=SimpleNamespace(seconds=1.0)),
            receipt=SimpleNamespace(root="", copied=False),
            draft=None,
            proof=None,
            publication=SimpleNamespace(id="id", book=self.book, already=False),
            files=(),
            bit_rate=64_000,
        )


@asynccontextmanager
async def at_work(folder, runner, fetcher=None):
    store = await Store.open(os.path.join(folder, "aiom4b.db"))
    try:
        events = Events(lambda: NOW, store.reserve_event_ids)
        await events.start()
        settings = Settings()
        scheduler = Scheduler(
            store,
            events,
            runner,
            SimpleNamespace(admitted=None),
            lambda: settings,
            clock=lambda: NOW,
            monotonic=lambda: 0.0,
            fetcher=fetcher,
        )
        job, _ = await store.add(
            kind=Kind.CONVERT,
            name="Emma",
            folders=("/drop/Emma",),
            entry=None,
            fingerprint=Fingerprint("1" * 64),
            options=JobOptions(),
            now=NOW,
        )
        yield SimpleNamespace(store=store, events=events, scheduler=scheduler, job=job, settings=settings)
        events.close()
    finally:
        await store.close()


async def worked_off(scene):
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(scene.scheduler.run)
            await anyio.wait_all_tasks_blocked()
            await scene.scheduler.idle()
            group.cancel_scope.cancel()
    return await scene.store.job(scene.job.id)


def test_a_book_that_its_owner_moves_the_moment_it_is_published_is_completed_and_the_service_goes_on(tmp_path):
    async def scene():
        async with at_work(tmp_path, Runner(tmp_path / "moved.m4b")) as one:
            job = await worked_off(one)
            assert (job.status, job.progress, job.metrics.bytes_out) == (Status.COMPLETED, 100.0, 0)

    anyio.run(scene)


def test_a_book_under_which_the_service_ends_again_and_again_is_not_tried_for_ever(tmp_path):
    async def scene():
        book = tmp_path / "book.m4b"
        book.touch()
        runner = Runner(book)
        async with at_work(tmp_path, runner) as one:
            begun = one.settings.jobs.max_attempts + 25
            await one.store.update(one.job.id, NOW, attempts=begun)
            job = await worked_off(one)
            assert (job.status, job.error.code, runner.begun) == (Status.FAILED, "job.deadly", 0)
            assert f"begun {begun} times" in job.error.message
            await one.store.update(one.job.id, NOW, status=Status.QUEUED, attempts=begun - 1)
            assert (await worked_off(one)).status is Status.COMPLETED

    anyio.run(scene)


def test_a_job_that_is_queued_again_while_its_end_is_still_told_is_worked_on_once_more(tmp_path):
    async def scene():
        book = tmp_path / "book.m4b"
        book.touch()
        runner = Runner(book)
        async with at_work(tmp_path, runner) as one:
            told, go_on = anyio.Event(), anyio.Event()
            change = one.scheduler._change

            async def slowly(job, event, **changes):
                changed = await change(job, event, **changes)
                if not told.is_set():
                    told.set()
                    await go_on.wait()
                return changed

            one.scheduler._change = slowly
            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(one.scheduler.run)
                    await told.wait()
                    await one.store.update(one.job.id, NOW, status=Status.QUEUED)
                    one.scheduler.wake()
                    await runner.twice.wait()
                    go_on.set()
                    await one.scheduler.idle()
                    group.cancel_scope.cancel()
            job = await one.store.job(one.job.id)
            assert (job.status, one.scheduler.running) == (Status.COMPLETED, 0)

    anyio.run(scene)


def test_a_job_that_is_claimed_while_it_is_being_cancelled_is_cancelled(tmp_path):
    class Endless(Runner):
        async def make(self, job, source, report, *, again):
            await anyio.sleep_forever()

    async def scene():
        async with at_work(tmp_path, Endless(tmp_path / "book.m4b")) as one:
            await one.store.set_flag("paused", True)
            update = one.store.update

            async def overtaken(*args, **changes):
                one.store.update = update
                await one.scheduler.resume()
                while one.scheduler.running == 0:  # noqa: ASYNC110 - nothing tells when the claim is through
                    await anyio.sleep(0.001)
                return await update(*args, **changes)

            one.store.update = overtaken
            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(one.scheduler.run)
                    await one.scheduler.idle()
                    stopped = await one.scheduler.stop(one.job.id, None)
                    group.cancel_scope.cancel()
            assert stopped is not None
            assert stopped.status is Status.CANCELLED

    anyio.run(scene)


def test_a_job_that_is_cancelled_the_moment_its_book_appears_in_the_library_is_completed(tmp_path):
    class Overtaken(Runner):
        async def make(self, job, source, report, *, again):
            async with anyio.create_task_group() as group, pipeline.opened(str(tmp_path), source.fingerprint, "Emma"):
                group.start_soon(self.stop, job.id, None)
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
            return await super().make(job, source, report, again=again)

    async def scene():
        book = tmp_path / "book.m4b"
        book.touch()
        runner = Overtaken(book)
        async with at_work(tmp_path, runner) as one:
            asked = []

            async def stop(job_id, problem):
                # In a task of its own: the job's own tasks are cancelled.
                asked.append(asyncio.create_task(one.scheduler.stop(job_id, problem)))

            runner.stop = stop
            job = await worked_off(one)
            assert job.status is Status.COMPLETED
            assert await asked[0] is None
            assert os.listdir(tmp_path / ".aiom4b" / "work") == []

    anyio.run(scene)


async def wanted(scene, asin="B00AIOM4B1"):
    """Queue the download of a title, in place of the book."""
    await scene.store.update(scene.job.id, NOW, status=Status.CANCELLED)
    scene.job, _ = await scene.store.add(
        kind=Kind.DOWNLOAD,
        name="Emma",
        folders=("/library/.aiom4b/downloads/" + asin,),
        entry=None,
        fingerprint=None,
        options=JobOptions(),
        now=NOW,
        asin=asin,
    )


def test_a_download_without_anybody_to_fetch_it_fails_plainly(tmp_path):
    async def scene():
        async with at_work(tmp_path, Runner(tmp_path)) as one:
            await wanted(one)
            job = await worked_off(one)
            assert (job.status, job.error.code) == (Status.FAILED, "audible.no_account")

    anyio.run(scene)


def test_a_download_ends_with_its_folder_and_its_events_name_the_title(tmp_path):
    class Fetcher:
        async def fetch(self, job, report):
            for done in (0, 500, 1000):
                report(Progress(step=Step.DOWNLOAD, done=done, total=1000))
            return "/library/.aiom4b/downloads/" + job.asin

    async def scene():
        async with at_work(tmp_path, Runner(tmp_path), Fetcher()) as one:
            await wanted(one)
            events = one.events.since(None)
            job = await worked_off(one)
            assert (job.status, job.step, job.progress) == (Status.COMPLETED, Step.DOWNLOAD, 100.0)
            assert (job.output, job.book, job.backup) == (job.folders[0], None, None)
            assert (await anext(events)).data["asin"] == "B00AIOM4B1"
            assert Step.DOWNLOAD in one.scheduler.totals.wall_seconds

    anyio.run(scene)


def test_what_says_when_to_come_again_waits_that_long_and_is_told_once(tmp_path):
    class Refusing:
        async def fetch(self, job, report):
            raise Transient("audible.budget", "Not today.", remedy="Wait.", later=timedelta(hours=7))

    async def scene():
        async with at_work(tmp_path, Runner(tmp_path), Refusing()) as one:
            await wanted(one)
            for _ in range(3):
                job = await worked_off(one)
                assert (job.status, job.attempts) == (Status.WAITING, 0)
                assert job.not_before == NOW + timedelta(hours=7)
                await one.store.update(job.id, NOW, not_before=NOW)
            lines = [line.event for line in await one.store.log(job.id)]
            assert lines == ["job.started", "job.waiting"]

    anyio.run(scene)


def test_a_pause_puts_downloads_back_and_lets_books_stand_still(tmp_path):
    class Endless(Runner):
        async def make(self, job, source, report, *, again):
            await anyio.sleep_forever()

        async def fetch(self, job, report):
            report(Progress(step=Step.DOWNLOAD, done=500, total=1000))
            await anyio.sleep_forever()

    async def scene():
        runner = Endless(tmp_path)
        async with at_work(tmp_path, runner, runner) as one:
            book = one.job
            await wanted(one)
            await one.store.update(book.id, NOW, status=Status.QUEUED)
            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(one.scheduler.run)
                    while one.scheduler.running < 2:  # noqa: ASYNC110 - nothing tells when the claim is through
                        await anyio.sleep(0.001)
                    await anyio.wait_all_tasks_blocked()
                    await one.scheduler.pause()
                    while one.scheduler.running > 1:  # noqa: ASYNC110 - nor when it is put back
                        await anyio.sleep(0.001)
                    job = await one.store.job(one.job.id)
                    assert (job.status, job.attempts, job.progress) == (Status.QUEUED, 0, 50.0)
                    assert (await one.store.job(book.id)).status is Status.RUNNING
                    await one.scheduler.resume()
                    while one.scheduler.running < 2:  # noqa: ASYNC110 - as above
                        await anyio.sleep(0.001)
                    group.cancel_scope.cancel()

    anyio.run(scene)


def test_what_waits_for_a_key_is_taken_up_when_one_may_have_come_and_nothing_else_is(tmp_path):
    async def scene():
        async with at_work(tmp_path, Runner(tmp_path)) as one:
            desk = Desk(one.store, one.events, None, one.scheduler, clock=lambda: NOW)
            later = NOW + timedelta(minutes=10)
            found = {}
            for code in ("audible.key_missing", "audible.key_wrong", "space.full"):
                job, _ = await one.store.add(
                    kind=Kind.CONVERT,
                    name=code,
                    folders=(code,),
                    entry=None,
                    fingerprint=None,
                    options=JobOptions(),
                    now=NOW,
                )
                problem = Problem(code=code, message="Waits.", remedy="Help.")
                await one.store.update(job.id, NOW, status=Status.WAITING, error=problem, not_before=later)
                found[code] = job.id
            await desk.look_for_keys()
            standing = {code: (await one.store.job(job)).status for code, job in found.items()}
            assert standing == {
                "audible.key_missing": Status.QUEUED,
                "audible.key_wrong": Status.QUEUED,
                "space.full": Status.WAITING,
            }

    anyio.run(scene)
