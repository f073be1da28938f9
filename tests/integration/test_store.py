"""Does the database keep what it promised, whatever happens to the process, the file and the disk?"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

import aiom4b
from aiom4b.errors import Exit, Fatal, NeedsAttention, Transient
from aiom4b.jobs import database as opening
from aiom4b.jobs.job import EntryState, JobOptions, Kind, Metrics, Problem, SourceEntry, Status
from aiom4b.jobs.store import KEPT_NOTES, Store
from aiom4b.models import BookId, Fingerprint, OrderChoice, Step

NOON = datetime(2026, 11, 21, 12, 0, 0, 123457, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BYTES = os.fsdecode(b"caf\xe9 \xff")  # a name in Latin-1
TORN = Problem(code="source.damaged", message=f"{BYTES} is torn.", remedy="Copy it again.")
OPEN = {Status.QUEUED, Status.RUNNING, Status.WAITING}


@asynccontextmanager
async def opened(folder, **facts):
    store = await Store.open(str(folder / "aiom4b.db"), **facts)
    try:
        yield store
    finally:
        await store.close()


def played(scene):
    """Run an async test with an open store."""

    def test(tmp_path):
        async def run():
            async with opened(tmp_path) as store:
                await scene(store)

        anyio.run(run)

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


def fingerprint(number):
    return Fingerprint(f"{number:064x}")


async def added(store, number=1, **facts):
    """Queue a job and return it."""
    asked = {
        "kind": Kind.CONVERT,
        "name": f"Book {number}",
        "folders": (f"/drop/Book {number}",),
        "entry": f"Book {number}",
        "fingerprint": fingerprint(number),
        "options": JobOptions(),
        "now": NOON,
    }
    job, new = await store.add(**(asked | facts))
    assert new
    return job


def entry(name="Book", **facts):
    known = {
        "name": name,
        "digest": "d" * 64,
        "state": EntryState.READY,
        "problem": None,
        "fingerprints": (),
        "jobs": (),
        "files": 3,
        "size": 5_000_000_000,
        "changed": NOON,
    }
    return SourceEntry(**(known | facts))


# --- jobs -------------------------------------------------------------------------------------------------------------


@played
async def test_a_job_comes_back_as_it_was_added(store):
    options = JobOptions(order=(BYTES, "b"), merge=True, naming_scheme="{title}", output=BYTES, again=True)
    job = await added(
        store,
        name=BYTES,
        folders=(f"/drop/{BYTES}", "/drop/b"),
        entry=BYTES,
        options=options,
        priority=-3,
        audio_seconds=1.5,
        bytes_in=5_000_000_000,
    )
    assert (job.name, job.folders, job.entry) == (BYTES, (f"/drop/{BYTES}", "/drop/b"), BYTES)
    assert (job.options, job.priority, job.status, job.attempts) == (options, -3, Status.QUEUED, 0)
    assert job.metrics == Metrics(audio_seconds=1.5, bytes_in=5_000_000_000)
    assert (job.created, job.updated, job.started, job.ended) == (NOON, NOON, None, None)
    assert await store.job(job.id) == job
    assert await store.job("nobody") is None


def test_names_lie_in_the_file_as_their_bytes(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await added(store, name=BYTES)

    anyio.run(run)
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain:
        assert plain.execute("SELECT name FROM job").fetchall() == [(b"caf\xe9 \xff",)]


@played
async def test_an_order_is_a_choice_or_a_list(store):
    chosen = await added(store, options=JobOptions(order=OrderChoice.TAGS))
    assert chosen.options.order is OrderChoice.TAGS


@played
async def test_the_same_content_is_never_two_open_jobs(store):
    first = await added(store)
    for status in sorted(OPEN):
        await store.update(first.id, NOON, status=status)
        job, new = await store.add(
            kind=Kind.CONVERT,
            name="Other name",
            folders=("/drop/other",),
            entry=None,
            fingerprint=fingerprint(1),
            options=JobOptions(),
            now=NOON,
        )
        assert (job.id, new) == (first.id, False)
        assert await store.open_job(fingerprint(1)) == job
    await store.update(first.id, NOON, status=Status.COMPLETED)
    assert await store.open_job(fingerprint(1)) is None
    assert (await added(store)).id != first.id


def test_the_file_itself_refuses_a_second_open_job_of_one_content(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await added(store)

    anyio.run(run)
    fill(tmp_path / "aiom4b.db", 1)
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain, pytest.raises(sqlite3.IntegrityError):
        plain.execute(f"UPDATE job SET status = 'waiting', fingerprint = '{fingerprint(1)}'")


@played
async def test_jobs_that_nobody_has_looked_at_are_not_the_same(store):
    one, other = await added(store, fingerprint=None), await added(store, fingerprint=None)
    assert one.id != other.id


@played
async def test_a_look_names_a_job_unless_another_one_has_that_content(store):
    await added(store, 1)
    job = await added(store, 2, fingerprint=None)
    assert await store.identify(job.id, fingerprint(1), "Same", 60.0, 10) is None
    assert await store.job(job.id) == job
    seen = await store.identify(job.id, fingerprint(2), BYTES, 60.0, 10)
    assert (seen.fingerprint, seen.name) == (fingerprint(2), BYTES)
    assert seen.metrics == Metrics(audio_seconds=60.0, bytes_in=10)
    assert await store.identify(job.id, fingerprint(2), BYTES, 61.0, 10) is not None
    assert await store.identify("nobody", fingerprint(3), BYTES, 61.0, 10) is None


@played
async def test_claiming_counts_the_attempt_and_starts_the_clock_once(store):
    job = await added(store)
    claimed = await store.claim(NOON + MINUTE)
    assert (claimed.id, claimed.status, claimed.attempts) == (job.id, Status.RUNNING, 1)
    assert (claimed.started, claimed.updated) == (NOON + MINUTE, NOON + MINUTE)
    await store.update(job.id, NOON, status=Status.WAITING, not_before=NOON, error=TORN)
    again = await store.claim(NOON + 2 * MINUTE)
    assert (again.attempts, again.started, again.error, again.not_before) == (2, NOON + MINUTE, None, None)
    assert await store.claim(NOON + 3 * MINUTE) is None


@played
async def test_the_next_job_is_the_most_urgent_then_the_oldest_that_is_due(store):
    old, young, urgent = [await added(store, number) for number in range(3)]
    await store.update(urgent.id, NOON, priority=5)
    delayed = await added(store, 3, priority=9)
    await store.update(delayed.id, NOON, status=Status.WAITING, not_before=NOON + MINUTE)
    parked = await added(store, 4, priority=9)
    await store.update(parked.id, NOON, status=Status.WAITING)
    later = await added(store, 5, priority=9)
    await store.update(later.id, NOON, not_before=NOON + MINUTE)
    assert [(await store.claim(NOON)).id for _ in range(3)] == [urgent.id, old.id, young.id]
    assert await store.claim(NOON) is None
    assert [(await store.claim(NOON + MINUTE)).id for _ in range(2)] == [delayed.id, later.id]
    assert await store.claim(NOON + MINUTE) is None


@played
async def test_the_next_due_time_is_the_earliest_of_those_that_wait(store):
    assert await store.next_due() is None
    jobs = [await added(store, number) for number in range(4)]
    assert await store.next_due() is None
    await store.update(jobs[0].id, NOON, status=Status.WAITING, not_before=NOON + 2 * MINUTE)
    await store.update(jobs[1].id, NOON, not_before=NOON + MINUTE)
    await store.update(jobs[2].id, NOON, status=Status.FAILED, not_before=NOON)
    assert await store.next_due() == NOON + MINUTE


@played
async def test_every_part_of_a_job_that_can_change_comes_back(store):
    job = await added(store)
    metrics = Metrics(
        bytes_in=1, bytes_out=2, audio_seconds=3.0, wall_seconds={Step.CONVERT: 4.5}, cpu_seconds={}, peak_memory=6
    )
    changes = {
        "name": BYTES,
        "status": Status.FAILED,
        "options": JobOptions(again=True),
        "priority": 7,
        "attempts": 3,
        "not_before": NOON + MINUTE,
        "step": Step.VERIFY,
        "progress": 99.5,
        "eta_seconds": 0.5,
        "output": f"/library/{BYTES}.m4b",
        "book": BookId("b" * 16),
        "backup": f"/backup/{BYTES}",
        "error": TORN,
        "ended": NOON + MINUTE,
        "metrics": metrics,
    }
    changed = await store.update(job.id, NOON + MINUTE, **changes)
    assert changed == replace(job, updated=NOON + MINUTE, **changes)
    assert await store.job(job.id) == changed


@played
async def test_a_change_to_nobody_or_in_the_wrong_status_is_none(store):
    job = await added(store)
    assert await store.update("nobody", NOON, progress=1.0) is None
    assert await store.update(job.id, NOON, only_if={Status.RUNNING}, progress=1.0) is None
    assert await store.job(job.id) == job
    assert (await store.update(job.id, NOON, only_if={Status.QUEUED}, progress=1.0)).progress == 1.0


@played
async def test_what_a_job_does_not_have_can_not_be_changed(store):
    job = await added(store)
    with pytest.raises(TypeError, match="fingerprint"):
        await store.update(job.id, NOON, fingerprint=fingerprint(2))


@played
async def test_an_ended_job_is_not_opened_beside_another_one_of_the_same_content(store):
    ended = await added(store)
    await store.update(ended.id, NOON, status=Status.FAILED)
    await added(store)
    with pytest.raises(NeedsAttention) as caught:
        await store.update(ended.id, NOON, status=Status.QUEUED)
    assert caught.value.code == "job.conflict"
    assert (await store.job(ended.id)).status is Status.FAILED
    assert (await store.update(ended.id, NOON, status=Status.CANCELLED)).status is Status.CANCELLED


@played
async def test_jobs_are_listed_in_pages_the_newest_first(store):
    jobs = [await added(store, number) for number in range(5)]
    await store.update(jobs[1].id, NOON, status=Status.FAILED)
    page, total = await store.jobs(limit=2, offset=1)
    assert ([job.id for job in page], total) == ([jobs[3].id, jobs[2].id], 5)
    page, total = await store.jobs(status={Status.QUEUED}, kind=Kind.CONVERT, limit=2, offset=0, oldest_first=True)
    assert ([job.id for job in page], total) == ([jobs[0].id, jobs[2].id], 4)
    assert await store.jobs(status=set(), limit=2, offset=0) == ([], 0)
    assert (await store.counts())[Status.QUEUED] == 4
    assert await store.counts() == dict.fromkeys(Status, 0) | {Status.QUEUED: 4, Status.FAILED: 1}


@played
async def test_jobs_are_found_by_the_beginning_of_their_ids(store):
    jobs = [await added(store, number) for number in range(5)]
    for job in jobs:
        for length in (4, 36):
            beginning = job.id[:length]
            expected = [one.id for one in reversed(jobs) if one.id.startswith(beginning)]
            page, total = await store.jobs(beginning=beginning, limit=10, offset=0)
            assert ([one.id for one in page], total) == (expected, len(expected))


@played
async def test_only_ended_jobs_are_deleted_with_their_log(store):
    job = await added(store)
    await store.note(job.id, NOON, "job.created")
    for status in sorted(OPEN):
        await store.update(job.id, NOON, status=status)
        assert not await store.delete(job.id)
    await store.update(job.id, NOON, status=Status.CANCELLED)
    assert await store.delete(job.id)
    assert not await store.delete(job.id)
    assert (await store.job(job.id), await store.log(job.id)) == (None, [])
    successor = await added(store)
    assert successor.sequence == job.sequence + 1
    assert await store.log(successor.id) == []


@played
async def test_clearing_takes_ended_jobs_of_some_statuses_before_a_time(store):
    jobs = [await added(store, number) for number in range(4)]
    for job, status in zip(jobs[:3], (Status.COMPLETED, Status.COMPLETED, Status.FAILED), strict=True):
        await store.update(job.id, NOON, status=status, ended=NOON + job.sequence * MINUTE)
    assert await store.clear(statuses={Status.COMPLETED}, before=NOON + 2 * MINUTE) == 1
    assert await store.job(jobs[0].id) is None
    assert await store.clear(statuses=list(Status), before=None) == 2
    assert [job.id for job in (await store.jobs(limit=9, offset=0))[0]] == [jobs[3].id]


@played
async def test_what_was_running_is_queued_again_with_its_progress_and_attempts(store):
    one, other = await added(store, 1), await added(store, 2)
    await store.claim(NOON)
    await store.update(one.id, NOON, progress=40.0, step=Step.CONVERT)
    (back,) = await store.recover(NOON + MINUTE)
    assert (back.id, back.status, back.progress, back.step) == (one.id, Status.QUEUED, 40.0, Step.CONVERT)
    assert (back.attempts, back.started, back.updated) == (1, NOON, NOON + MINUTE)
    assert (await store.job(other.id)).updated == NOON
    assert (await store.claim(NOON)).id == one.id


# --- the log ----------------------------------------------------------------------------------------------------------


@played
async def test_a_log_keeps_its_newest_lines_in_order(store):
    job, other = await added(store, 1), await added(store, 2)
    await store.note(other.id, NOON, "job.created")
    for number in range(KEPT_NOTES + 5):
        await store.note(job.id, NOON, "step.completed", number=number)
    lines = await store.log(job.id)
    assert [line.data["number"] for line in lines] == list(range(5, KEPT_NOTES + 5))
    assert len(await store.log(other.id)) == 1


@played
async def test_a_line_of_a_log_comes_back_as_it_was_written(store):
    job = await added(store)
    data = {"id": 1, "event": BYTES, "now": None, "self": [1.5, {"deep": True}]}
    await store.note(job.id, NOON, "job.created", **data)
    (line,) = await store.log(job.id)
    assert (line.at, line.event, line.data) == (NOON, "job.created", data)


@played
async def test_a_job_that_is_gone_gets_no_log(store):
    await store.note("nobody", NOON, "job.created")
    assert await store.log("nobody") == []


# --- entries ----------------------------------------------------------------------------------------------------------


@played
async def test_an_entry_comes_back_as_it_was_put(store):
    one = entry(BYTES, problem=TORN, state=EntryState.INCOMPLETE, fingerprints=(fingerprint(1), fingerprint(2)))
    await store.put_entry(one)
    assert await store.entry(BYTES) == one
    assert await store.entries() == [one]
    changed = replace(one, problem=None, state=EntryState.SETTLING, digest="e", size=1)
    await store.put_entry(changed)
    assert await store.entries() == [changed]
    await store.drop_entry(BYTES)
    assert (await store.entries(), await store.entry(BYTES)) == ([], None)


@played
async def test_entries_are_listed_in_natural_order(store):
    for name in ("Book 10", "Book 2", BYTES, "book 1"):
        await store.put_entry(entry(name))
    assert [one.name for one in await store.entries()] == ["book 1", "Book 2", "Book 10", BYTES]


@played
async def test_an_entry_follows_its_jobs(store):
    one, other = await added(store, 1), await added(store, 2)
    await store.put_entry(entry(jobs=(other.id, "nobody", one.id)))
    await store.put_entry(entry("Twin", jobs=(one.id,)))
    await store.put_entry(entry("Another"))
    assert (await store.entry("Book")).jobs == (other.id, one.id)
    assert (await store.entry("Book")).state is EntryState.QUEUED
    await store.update(one.id, NOON, status=Status.FAILED, error=TORN)
    await store.update(other.id, NOON, status=Status.COMPLETED)
    found = {known.name: (known.state, known.problem) for known in await store.entries()}
    assert found == {
        "Another": (EntryState.READY, None),
        "Book": (EntryState.NEEDS_ATTENTION, TORN),
        "Twin": (EntryState.NEEDS_ATTENTION, TORN),
    }
    await store.drop_entry("Book")
    assert await store.job(one.id) is not None


@played
async def test_an_entry_keeps_the_state_that_its_last_deleted_job_gave_it(store):
    one, other = await added(store, 1), await added(store, 2)
    await store.put_entry(entry(jobs=(one.id, other.id), state=EntryState.QUEUED))
    await store.put_entry(entry("Open", jobs=((await added(store, 3)).id,)))
    await store.update(one.id, NOON, status=Status.FAILED, error=TORN)
    await store.update(other.id, NOON, status=Status.COMPLETED, ended=NOON)
    await store.delete(one.id)
    assert (await store.entry("Book")).state is EntryState.DONE
    await store.clear(statuses={Status.COMPLETED}, before=None)
    known = await store.entry("Book")
    assert (known.state, known.problem, known.jobs) == (EntryState.DONE, None, ())
    assert (await store.entry("Open")).state is EntryState.QUEUED


@played
async def test_an_entry_of_which_only_some_books_became_jobs_is_not_taken_for_dealt_with(store):
    job = await added(store)
    await store.put_entry(entry(jobs=(job.id,), state=EntryState.READY, problem=TORN))
    await store.update(job.id, NOON, status=Status.COMPLETED, ended=NOON)
    known = await store.entry("Book")
    assert (known.state, known.problem, known.jobs) == (EntryState.READY, TORN, (job.id,))


@played
async def test_a_failure_stays_told_when_its_job_is_cleared(store):
    job = await added(store)
    await store.put_entry(entry(jobs=(job.id,)))
    await store.update(job.id, NOON, status=Status.FAILED, error=TORN)
    await store.delete(job.id)
    known = await store.entry("Book")
    assert (known.state, known.problem) == (EntryState.NEEDS_ATTENTION, TORN)


# --- what outlives the jobs -------------------------------------------------------------------------------------------


@played
async def test_what_was_published_outlives_its_job(store):
    job = await added(store)
    assert await store.published(fingerprint(1)) is None
    await store.remember_published(fingerprint(1), BookId("a" * 16), "/library/old.m4b", NOON)
    await store.remember_published(fingerprint(1), BookId("b" * 16), f"/library/{BYTES}.m4b", NOON)
    await store.update(job.id, NOON, status=Status.COMPLETED)
    await store.delete(job.id)
    assert await store.published(fingerprint(1)) == f"/library/{BYTES}.m4b"


@played
async def test_forgetting_is_a_mark_that_can_be_taken_back(store):
    for _ in range(2):
        await store.forget(fingerprint(1))
    assert (await store.forgotten(fingerprint(1)), await store.forgotten(fingerprint(2))) == (True, False)
    await store.unforget(fingerprint(1))
    assert not await store.forgotten(fingerprint(1))


@played
async def test_a_flag_is_set_or_not(store):
    for value in (False, True, True, False):
        await store.set_flag("paused", value)
        assert await store.flag("paused") is value
    await store.set_flag("other", True)
    assert not await store.flag("paused")


# --- size -------------------------------------------------------------------------------------------------------------


def fill(path, jobs):
    """Put so many ended jobs into a database, which nobody has open."""
    with closing(sqlite3.connect(path)) as plain, plain:
        (columns,) = plain.execute("SELECT group_concat(name) FROM pragma_table_info('job') WHERE name != 'sequence'")
        names = columns[0].split(",")
        (row,) = plain.execute(f"SELECT {columns[0]} FROM job").fetchall()
        blank = dict(zip(names, row, strict=True))
        for number in range(jobs):
            changed = blank | {"id": f"job {number}", "fingerprint": fingerprint(number + 10), "status": "completed"}
            marks = ",".join("?" * len(names))
            plain.execute(f"INSERT INTO job ({columns[0]}) VALUES ({marks})", [changed[name] for name in names])


def test_ten_thousand_jobs_are_asked_through_indexes(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await added(store)
        fill(tmp_path / "aiom4b.db", 10_000)
        async with opened(tmp_path) as store:
            asked = []
            await store._run("DEFERRED", lambda: store._database.connection().set_trace_callback(asked.append))
            job = await store.claim(NOON)
            await store.next_due()
            await store.add(
                kind=Kind.CONVERT,
                name="",
                folders=(),
                entry=None,
                fingerprint=fingerprint(1),
                options=JobOptions(),
                now=NOON,
            )
            await store.note(job.id, NOON, "job.started")
            await store.log(job.id)
            await store.put_entry(entry(jobs=(job.id,)))
            await store.entry("Book")
            await store.update(job.id, NOON, status=Status.COMPLETED, ended=NOON)
            await store.counts()
            assert await store.delete(job.id)
            await store.recover(NOON)
            page, total = await store.jobs(status={Status.COMPLETED}, limit=50, offset=0)
            assert (len(page), total) == (50, 10_000)
            return asked

    asked = anyio.run(run)
    queries = {text for text in asked if text.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(queries) > 15
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain:
        plans = {query: [row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {query}")] for query in queries}
    walked = {query: plan for query, plan in plans.items() if any(_walks(step) for step in plan)}
    assert walked == {}


def _walks(step):
    """Tell whether a step of a plan reads a table row by row, rather than an index of it."""
    return step.startswith("SCAN") and "INDEX" not in step and "CONSTANT ROW" not in step


# --- the process ------------------------------------------------------------------------------------------------------

_WRITER = """
import sys, anyio
from datetime import UTC, datetime
from aiom4b.jobs.job import JobOptions, Kind
from aiom4b.jobs.store import Store

async def main(path, label, number):
    store = await Store.open(path)
    print("open", flush=True)
    sys.stdin.readline()
    while number:
        number -= 1
        job, _ = await store.add(kind=Kind.CONVERT, name=label, folders=("/x",), entry=None, fingerprint=None,
                                 options=JobOptions(), now=datetime.now(UTC))
        first = await store.reserve_event_ids(7)
        print(job.id, first, flush=True)
    await store.close()

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


@pytest.fixture
def writer(tmp_path):
    """Start processes that add jobs to the one database once they are told to; all are gone at the end."""
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(aiom4b.__file__))}
    processes = []

    def start(label, number):
        words = (sys.executable, "-W", "error", "-c", _WRITER, str(tmp_path / "aiom4b.db"), label, str(number))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(words, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ready(process):
    """Wait until a process has opened the database; what it says before that is its log."""
    for line in process.stdout:
        if line == "open\n":
            return
    raise AssertionError("it ended")


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_what_was_told_survives_kill_9_and_event_ids_go_on_rising(tmp_path, writer):
    told = []
    for enough in (1, 5, 30):
        process = writer("mortal", -1)
        ready(process)
        go(process)
        told += [process.stdout.readline().split() for _ in range(enough)]
        process.send_signal(signal.SIGKILL)
        told += [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
        assert process.wait() == -signal.SIGKILL

    async def look():
        async with opened(tmp_path) as store:
            assert store.damaged_aside is None
            jobs, _ = await store.jobs(limit=10_000, offset=0, oldest_first=True)
            return [job.id for job in jobs], await store.reserve_event_ids(1)

    kept, following = anyio.run(look)
    assert len(told) >= 36
    assert [job for job in kept if job in {one for one, _ in told}] == [one for one, _ in told]
    assert len(kept) <= len(told) + 3  # each death may leave one that nobody was told of
    firsts = [int(first) for _, first in told]
    assert all(later >= earlier + 7 for earlier, later in pairwise(firsts))
    assert following >= firsts[-1] + 7


def test_two_processes_share_one_database_from_its_making_on(tmp_path, writer):
    both = [writer(label, 25) for label in ("one", "other")]
    for process in both:
        ready(process)
    for process in both:
        go(process)
    lines = [line.split() for process in both for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in both] == [0, 0]
    assert len({first for _, first in lines if first.isdigit()}) == 50

    async def look():
        async with opened(tmp_path) as store:
            return await store.jobs(limit=100, offset=0)

    jobs, total = anyio.run(look)
    assert total == 50
    assert {job.name for job in jobs} == {"one", "other"}


def test_a_database_that_another_process_holds_is_tried_later(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "BUSY_SECONDS", 0.05)

    async def run():
        async with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "aiom4b.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(Transient) as caught:
                    await added(store)
                assert caught.value.code == "database.busy"
                assert await store.counts() == dict.fromkeys(Status, 0)  # reading goes on
                other.execute("ROLLBACK")
            await added(store)

    anyio.run(run)


def test_what_has_begun_is_brought_to_its_end_when_its_caller_is_cancelled(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await added(store)
            held, claimed = threading.Event(), []
            store._thread.submit(held.wait, 30)

            async def claim():
                claimed.append(await store.claim(NOON))

            async with anyio.create_task_group() as group:
                group.start_soon(claim)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
                await anyio.lowlevel.cancel_shielded_checkpoint()
                held.set()
            assert [job.status for job in claimed] == [Status.RUNNING]

    anyio.run(run)


def test_a_change_that_fails_in_the_middle_leaves_no_trace(tmp_path, monkeypatch):
    async def run():
        async with opened(tmp_path) as store:
            job = await added(store)
            await store.put_entry(entry(jobs=(job.id,)))
            await store.update(job.id, NOON, status=Status.FAILED)

            def dying(*_):
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr("aiom4b.jobs.entries.keep_state", dying)
                with pytest.raises(ZeroDivisionError):
                    await store.delete(job.id)
            assert (await store.job(job.id)).status is Status.FAILED

    anyio.run(run)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_database_is_for_its_owner_only_and_one_file_once_it_is_closed(tmp_path):
    path = tmp_path / "aiom4b.db"
    path.touch(0o666)

    async def run():
        async with opened(tmp_path) as store:
            await added(store)
            names = sorted(os.listdir(tmp_path))
            assert names == ["aiom4b.db", "aiom4b.db-shm", "aiom4b.db-wal"]
            assert {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in names} == {0o600}

    anyio.run(run)
    assert os.listdir(tmp_path) == ["aiom4b.db"]


def test_every_commit_is_forced_to_the_disk(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            asked = ("synchronous", "foreign_keys", "journal_mode", "busy_timeout")
            return await store._run(
                "DEFERRED",
                lambda: [store._database.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in asked],
            )

    assert anyio.run(run) == [2, 1, "wal", 5000]


def damaged_by(damage, path):
    """Damage a database that holds a few jobs."""

    async def run():
        async with opened(path.parent) as store:
            for number in range(50):
                await added(store, number)

    anyio.run(run)
    damage(path)


def garbage(path):
    path.write_bytes(b"This is no database. " * 1000)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path):
    with open(path, "r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xaa" * 8192)


def overwritten_later(path):
    """Damage what is read last."""
    half = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(half)
        file.write(b"\xaa" * half)


@pytest.mark.parametrize("damage", [garbage, cut, overwritten])
def test_a_damaged_database_is_put_aside_whole_and_begun_anew(tmp_path, damage):
    path = tmp_path / "aiom4b.db"
    damaged_by(damage, path)
    kept = path.read_bytes()
    (tmp_path / "aiom4b.db-wal").write_bytes(b"log")

    async def run():
        async with opened(tmp_path, clock=lambda: NOON) as store:
            assert store.damaged_aside == f"{path}-damaged-20261121T120000Z"
            assert await store.jobs(limit=1, offset=0) == ([], 0)
            await added(store)

    anyio.run(run)
    assert not {"aiom4b.db-wal", "aiom4b.db-shm"} & set(os.listdir(tmp_path))
    aside = tmp_path / "aiom4b.db-damaged-20261121T120000Z"
    assert (aside.read_bytes(), Path(f"{aside}-wal").read_bytes()) == (kept, b"log")


def test_two_damages_in_one_second_are_both_kept(tmp_path):
    async def run():
        async with opened(tmp_path, clock=lambda: NOON) as store:
            return store.damaged_aside

    asides = []
    for text in ("one", "other"):
        (tmp_path / "aiom4b.db").write_text(text * 5000)
        asides.append(anyio.run(run))
    assert [Path(aside).read_text()[:5] for aside in asides] == ["oneon", "other"]


def test_damage_found_in_the_middle_stops_the_service_so_that_it_starts_anew(tmp_path):
    path = tmp_path / "aiom4b.db"

    async def run():
        async with opened(tmp_path) as store:
            await added(store)
        fill(path, 500)
        store = await Store.open(str(path))
        overwritten_later(path)
        await store._run("DEFERRED", lambda: store._database.execute_sql("PRAGMA shrink_memory"))
        with pytest.raises(Fatal) as caught:
            await store.jobs(limit=1000, offset=0, oldest_first=True)
        assert (caught.value.code, caught.value.exit) == ("database.damaged", Exit.FAILED)
        await store.close()

    anyio.run(run)


def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    newer = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, newer, ignore=shutil.ignore_patterns("__pycache__"))
    (newer / "0003_more.py").write_text(
        "def up(migrator, database):\n    database.execute_sql('CREATE TABLE more (x)')\n"
    )
    place = tmp_path / "state"
    place.mkdir()

    async def run():
        async with opened(place) as store:
            await added(store)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", str(newer))
        anyio.run(run)
    before = (place / "aiom4b.db").read_bytes()
    with pytest.raises(Fatal) as caught:
        anyio.run(run)
    assert (caught.value.code, caught.value.exit) == ("database.newer", Exit.CONFIGURATION)
    assert "0003_more" in caught.value.reason
    assert (place / "aiom4b.db").read_bytes() == before


def test_an_older_database_is_brought_up_to_date_and_keeps_its_rows(tmp_path, monkeypatch):
    async def run(number):
        async with opened(place) as store:
            await added(store, number)
            await store.note((await store.open_job(fingerprint(1))).id, NOON, "job.created")
            return await store.log((await store.open_job(fingerprint(1))).id)

    place, newer = tmp_path / "state", tmp_path / "[odd] migrations"
    place.mkdir()
    anyio.run(run, 1)
    shutil.copytree(opening.MIGRATIONS, newer, ignore=shutil.ignore_patterns("__pycache__"))
    # What SQLite asks for where ALTER TABLE is not enough: with foreign keys on, the logs would go with the old table.
    (newer / "0003_rebuilt.py").write_text(
        "def up(migrator, database):\n"
        "    old = database.execute_sql(\"SELECT sql FROM sqlite_master WHERE name = 'job'\").fetchone()[0]\n"
        "    database.execute_sql(old.replace('TABLE job', 'TABLE job_new'))\n"
        "    database.execute_sql('INSERT INTO job_new SELECT * FROM job')\n"
        "    database.execute_sql('DROP TABLE job')\n"
        "    database.execute_sql('ALTER TABLE job_new RENAME TO job')\n"
    )
    monkeypatch.setattr(opening, "MIGRATIONS", str(newer))
    assert len(anyio.run(run, 2)) == 2


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    broken = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, broken, ignore=shutil.ignore_patterns("__pycache__"))
    (broken / "0003_broken.py").write_text(
        "def up(migrator, database):\n"
        "    database.execute_sql('CREATE TABLE more (x)')\n"
        "    database.execute_sql('nonsense')\n"
    )

    async def run():
        async with opened(tmp_path) as store:
            await store.check()

    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", str(broken))
        with pytest.raises(Fatal) as caught:
            anyio.run(run)
        assert caught.value.code == "database.unusable"
    with closing(sqlite3.connect(tmp_path / "aiom4b.db")) as plain:
        assert plain.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('more', 'job')").fetchone() == (0,)
    anyio.run(run)


def unusable(folder):
    """Return the error of opening a database in a folder."""

    async def run():
        async with opened(folder):
            pass

    with pytest.raises(Fatal) as caught:
        anyio.run(run)
    return caught.value


def test_a_place_that_can_not_hold_a_database_is_named(tmp_path):
    missing = unusable(tmp_path / "missing")
    assert (missing.code, missing.exit) == ("database.unusable", Exit.CONFIGURATION)
    assert "missing" in missing.reason
    (tmp_path / "aiom4b.db").mkdir()
    assert unusable(tmp_path).code == "database.unusable"


def test_a_database_that_is_removed_while_it_is_used_is_noticed(tmp_path):
    async def run():
        async with opened(tmp_path) as store:
            await store.check()
            os.rename(tmp_path / "aiom4b.db", tmp_path / "elsewhere")
            with pytest.raises(Fatal) as caught:
                await store.check()
            assert (caught.value.code, caught.value.exit) == ("database.replaced", Exit.FAILED)
            os.rename(tmp_path / "elsewhere", tmp_path / "aiom4b.db")
            await store.check()

    anyio.run(run)


def test_the_migrations_are_part_of_the_installed_package():
    assert "0001_first.py" in os.listdir(opening.MIGRATIONS)
    assert opening.MIGRATIONS.startswith(os.path.dirname(aiom4b.__file__))
