"""Do worker processes come, work, crash, hang and go without harm to anyone but the one task?"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest

import workers
from aiom4b.engine import pool as pooling
from aiom4b.engine.pool import Rank, WorkerPool
from aiom4b.errors import Exit, NeedsAttention, Transient

SOON = 10.0  # seconds until a test gives up waiting for what must come


@asynccontextmanager
async def opened(size=1, **facts):
    pool = WorkerPool(size, **facts)
    try:
        yield pool
    finally:
        pool.close()


def played(scene):
    """Run an async function with a pool of one worker, or of as many as it says."""

    async def run():
        async with opened(getattr(scene, "size", 1), **getattr(scene, "facts", {})) as pool:
            return await asyncio.wait_for(scene(pool), 60)

    return asyncio.run(run())


def gone(pid, seconds=SOON):
    """Wait until a process is no more; False when it still is after that time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


async def gone_soon(pid):
    return await asyncio.get_running_loop().run_in_executor(None, gone, pid)


@pytest.fixture
def fifo(tmp_path):
    def make(name):
        path = tmp_path / name
        os.mkfifo(path)
        return str(path)

    return make


async def heard(fifo):
    """Wait for what a worker says through a FIFO."""

    def read():
        with open(fifo, encoding="utf-8") as stream:
            return stream.read()

    return await asyncio.get_running_loop().run_in_executor(None, read)


async def open_gate(fifo):
    def write():
        with open(fifo, "w", encoding="utf-8"):
            pass

    await asyncio.get_running_loop().run_in_executor(None, write)


# --- work -------------------------------------------------------------------------------------------------------------


def test_results_come_back_to_those_who_asked():
    async def scene(pool):
        return await asyncio.gather(*(pool.run(workers.echo, {"number": number}) for number in range(20)))

    scene.size = 2
    assert played(scene) == [{"number": number} for number in range(20)]


def test_large_values_travel_both_ways():
    async def scene(pool):
        return await pool.run(workers.echo, bytes(5_000_000))

    assert played(scene) == bytes(5_000_000)


def test_work_is_done_in_other_processes_as_many_as_asked_for(fifo):
    gates = [fifo(f"gate{number}") for number in range(2)]

    async def scene(pool):
        tasks = [asyncio.create_task(pool.run(workers.wait_at, gate)) for gate in gates]
        for gate in gates[::-1]:  # the second one is at its gate although the first still stands at its own
            await open_gate(gate)
        return await asyncio.gather(*tasks)

    scene.size = 2
    pids = played(scene)
    assert len({*pids, os.getpid()}) == 3


def test_under_load_the_oldest_book_goes_first_and_a_smaller_priority_before_all(tmp_path, fifo):
    diary, gate, told = str(tmp_path / "diary"), fifo("gate"), fifo("told")

    async def scene(pool):
        first = asyncio.create_task(pool.run(workers.wait_at, gate, told))
        await heard(told)  # the only worker is busy: from here on everybody queues
        tasks = [
            asyncio.create_task(pool.run(workers.note, diary, word, rank=rank))
            for word, rank in [
                ("young 1", Rank(age=3)),
                ("young 2", Rank(age=3)),
                ("old 1", Rank(age=1)),
                ("middle", Rank(age=2)),
                ("old 2", Rank(age=1)),
                ("urgent", Rank(priority=-1, age=9)),
            ]
        ]
        await asyncio.sleep(0)
        await open_gate(gate)
        await asyncio.gather(first, *tasks)

    played(scene)
    with open(diary, encoding="utf-8") as stream:
        assert stream.read().split("\n") == ["urgent", "old 1", "old 2", "middle", "young 1", "young 2", ""]


def test_a_single_use_worker_ends_after_its_task():
    async def scene(pool):
        one, two = [await pool.run(workers.pid, single_use=True) for _ in range(2)]
        assert one != two
        assert await gone_soon(one)
        three, four = [await pool.run(workers.pid) for _ in range(2)]
        assert three == four

    played(scene)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Transient", "NeedsAttention", "Fatal"])
def test_an_error_of_ours_comes_back_whole(kind):
    async def scene(pool):
        with pytest.raises(Exception, match="A reason") as caught:
            await pool.run(workers.fail, kind)
        return caught.value

    error = played(scene)
    assert type(error).__name__ == kind
    assert (error.code, error.reason, error.remedy, error.path) == ("a.code", "A reason.", "A remedy.", "/a/path")
    assert error.exit is Exit.NOT_FOUND


def test_an_unforeseen_error_says_where_and_what():
    async def scene(pool):
        with pytest.raises(NeedsAttention) as caught:
            await pool.run(workers.fail_unforeseen)
        assert await pool.run(workers.echo, 1) == 1
        return caught.value

    error = played(scene)
    assert error.code == "worker.error"
    assert "workers.py" in error.reason
    assert "KeyError" in error.reason


def test_a_worker_without_memory_may_be_tried_again():
    async def scene(pool):
        with pytest.raises(Transient) as caught:
            await pool.run(workers.run_out_of_memory)
        return caught.value

    assert played(scene).code == "worker.memory"


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (partial(workers.die_by, signal.SIGKILL), "SIGKILL"),
        (partial(workers.die_by, signal.SIGABRT), "SIGABRT"),
        (workers.segfault, "SIGSEGV"),
        (partial(workers.leave, 3), "exit status 3"),
    ],
    ids=["kill", "abort", "segfault", "exit"],
)
def test_a_crash_fails_that_task_alone_and_names_its_cause(function, cause):
    call = (function.func, *function.args) if isinstance(function, partial) else (function,)

    async def scene(pool):
        tasks = [asyncio.create_task(pool.run(workers.echo, number)) for number in range(6)]
        crash = asyncio.create_task(pool.run(*call))
        later = [asyncio.create_task(pool.run(workers.echo, number)) for number in range(6)]
        with pytest.raises(Transient) as caught:
            await crash
        assert await asyncio.gather(*tasks, *later) == [*range(6), *range(6)]
        assert pool.crashes == 1
        return caught.value

    scene.size = 2
    error = played(scene)
    assert error.code == "worker.crashed"
    assert cause in error.reason


def test_a_crash_of_a_single_use_worker_is_told_and_the_next_one_works():
    async def scene(pool):
        with pytest.raises(Transient) as caught:
            await pool.run(workers.die_by, signal.SIGKILL, single_use=True)
        assert await pool.run(workers.echo, 1, single_use=True) == 1
        return caught.value

    assert played(scene).code == "worker.crashed"


def test_a_hang_meets_its_deadline_and_the_next_task_works(monkeypatch):
    monkeypatch.setattr(pooling, "_PATIENCE_SECONDS", 0.2)

    async def scene(pool):
        with pytest.raises(Transient) as caught:
            await pool.run(workers.hang)
        monkeypatch.setattr(pooling, "_PATIENCE_SECONDS", 60.0)
        assert await pool.run(workers.echo, 1) == 1
        return caught.value

    error = played(scene)
    assert error.code == "worker.deadline"
    assert "hang" in error.reason


def test_a_wall_clock_that_is_set_ahead_ended_every_task_in_flight(fifo, monkeypatch):
    gate, told = fifo("gate"), fifo("told")

    async def scene(pool):
        task = asyncio.create_task(pool.run(workers.wait_at, gate, told))
        await heard(told)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86400)
        with pytest.raises(Transient):  # when this death has been noticed, lateness would have been too
            await pool.run(workers.die_by, signal.SIGKILL)
        assert not task.done()
        await open_gate(gate)
        return await task

    scene.size = 2
    assert played(scene) > 0


def test_the_deadline_grows_with_the_audio(monkeypatch):
    monkeypatch.setattr(pooling, "_PATIENCE_SECONDS", 0.0)

    async def scene(pool):
        return await pool.run(workers.echo, 1, audio_seconds=60.0)

    assert played(scene) == 1


def test_what_cannot_be_pickled_is_an_error_and_no_hang():
    async def scene(pool):
        with pytest.raises(Transient, match="unpicklable"):
            await pool.run(workers.unpicklable)
        with pytest.raises(Exception, match=r"(?i)pickle"):
            await pool.run(workers.echo, lambda: None)
        assert await pool.run(workers.echo, 1) == 1

    played(scene)


# --- cancelling, ending -----------------------------------------------------------------------------------------------


def test_cancelling_frees_the_worker_within_a_second(fifo):
    told = fifo("told")

    async def scene(pool):
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(pool.run(workers.hang, told))
        pid = int(await heard(told))
        began = loop.time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.run(workers.echo, 1) == 1
        assert await gone_soon(pid)
        assert loop.time() - began < 1.0 + 1.0  # the second: for a loaded machine

    played(scene)


def test_what_is_cancelled_while_it_waits_is_never_begun(tmp_path, fifo):
    diary, gate, told = str(tmp_path / "diary"), fifo("gate"), fifo("told")

    async def scene(pool):
        first = asyncio.create_task(pool.run(workers.wait_at, gate, told))
        await heard(told)
        tasks = [asyncio.create_task(pool.run(workers.note, diary, f"{number}")) for number in range(5)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[3].cancel()
        await asyncio.sleep(0)
        await open_gate(gate)
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = played(scene)
    with open(diary, encoding="utf-8") as stream:
        assert stream.read().split() == ["0", "2", "4"]
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [False, True, False, True, False]


def test_closing_ends_all_workers_whatever_they_do(fifo):
    told = [fifo("one"), fifo("two")]

    async def scene(pool):
        tasks = [asyncio.create_task(pool.run(workers.hang, name)) for name in told]
        pids = [int(await heard(name)) for name in told]
        pool.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return pids

    scene.size = 2
    assert all(gone(pid) for pid in played(scene))


def test_idle_workers_retire_and_new_ones_come():
    async def scene(pool):
        pid = await pool.run(workers.pid)
        assert await gone_soon(pid)
        assert await pool.run(workers.pid) != pid

    scene.facts = {"retire_after": 0.0}
    played(scene)


def test_a_worker_does_not_retire_while_it_is_wanted():
    async def scene(pool):
        return {await pool.run(workers.pid) for _ in range(5)}

    assert len(played(scene)) == 1


def test_killing_an_idle_worker_does_not_break_the_pool():
    async def scene(pool):
        for _ in range(3):
            pid = await pool.run(workers.pid)
            os.kill(pid, signal.SIGKILL)
            assert await gone_soon(pid)
            assert await pool.run(workers.echo, 1) == 1

    played(scene)


def test_killing_an_idle_worker_harms_no_task_of_another(fifo):
    gate, told = fifo("gate"), fifo("told")

    async def scene(pool):
        gates = [fifo("a"), fifo("b")]
        pair = [asyncio.create_task(pool.run(workers.wait_at, one)) for one in gates]
        for one in gates[::-1]:
            await open_gate(one)
        pids = set(await asyncio.gather(*pair))
        busy = asyncio.create_task(pool.run(workers.wait_at, gate, told))
        working = int(await heard(told))
        (idle,) = pids - {working}
        os.kill(idle, signal.SIGKILL)
        assert await gone_soon(idle)
        assert await pool.run(workers.echo, 1) == 1
        await open_gate(gate)
        assert await busy == working

    scene.size = 2
    played(scene)


PARENT = """
import asyncio, sys
sys.path[:0] = {path!r}
import workers
from aiom4b.engine.pool import WorkerPool

async def main():
    pool = WorkerPool(2)
    busy = asyncio.create_task(pool.run(workers.hang, {told!r}))
    print(await pool.run(workers.pid), flush=True)
    await busy

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_die_with_a_parent_that_was_killed(tmp_path, fifo):
    told = fifo("told")
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(path=sys.path, told=told))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        with open(told, encoding="utf-8") as stream:
            busy = int(stream.read())
        idle = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    assert gone(busy)
    assert gone(idle)


# --- what a worker is -------------------------------------------------------------------------------------------------


def test_native_code_may_write_what_it_likes():
    async def scene(pool):
        return await pool.run(workers.flood, 3_000_000)

    assert played(scene) == 3_000_000


def test_a_worker_is_nice_quiet_and_deaf_to_the_terminal():
    async def scene(pool):
        return await pool.run(workers.condition)

    nice, interrupt, terminate, death, streams = played(scene)
    assert nice >= 10
    assert (interrupt, terminate) == (signal.SIG_IGN, signal.SIG_IGN)
    assert death == signal.SIGKILL
    assert set(streams) == {os.devnull}


def test_a_worker_knows_nothing_of_our_environment():
    async def scene(pool):
        return await pool.run(workers.environment)

    assert set(played(scene)) <= {"PATH", "LANG", "LC_ALL", "TMPDIR"}
    assert "PYTEST_CURRENT_TEST" in os.environ  # what must not be seen there


def test_a_pool_without_a_number_has_a_worker_for_each_core_we_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert WorkerPool().size == 3
    assert WorkerPool(9).size == 9
