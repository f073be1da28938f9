"""How is work spread over the cores? Worker processes with deadlines, and the oldest book first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, process
from dataclasses import dataclass, field
from typing import TypeVar

import pebble

from aiom4b.engine import nursery, worker
from aiom4b.errors import Transient

T = TypeVar("T")

RETIRE_SECONDS = 60.0
_PATIENCE_SECONDS = 60.0

# Workers ignore SIGTERM, so Pebble's wait before it kills them, one after the other, only delays an end.
pebble.CONSTS.term_timeout = 0.01
# How often Pebble looks for what was cancelled, crashed or overdue, and whether it shall stop.
pebble.CONSTS.sleep_unit = 0.05
_KILLED_SECONDS = 3 * pebble.CONSTS.sleep_unit


def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, and the CPU quota of its control group (version 2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as groups:
            group = next((line.split("::", 1)[1].strip() for line in groups if line.startswith("0::")), "/")
        while True:
            with_limit = f"/sys/fs/cgroup{group.rstrip('/')}/cpu.max"
            if os.path.exists(with_limit):
                with open(with_limit, encoding="ascii") as limit:
                    quota, period = limit.read().split()
                if quota != "max":
                    cores = min(cores, math.ceil(int(quota) / int(period)))
            if group in {"/", ""}:
                break
            group = os.path.dirname(group)
    except (OSError, ValueError):
        return cores  # no control groups, or another kind: affinity is all that is known
    return max(1, cores)


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """Who goes first: the smaller priority, then the older book (a number that rises from book to book)."""

    priority: int = 0
    age: int = 0


@dataclass(slots=True)
class _Waiting:
    key: tuple[Rank, int]
    function: Callable[..., object]
    args: tuple[object, ...]
    deadline: float
    done: asyncio.Future[object]
    running: Future[worker.Done | worker.Failed] | None = None
    processes: pebble.ProcessPool | None = None
    expiry: asyncio.TimerHandle | None = None
    again: bool = False

    def __lt__(self, other: _Waiting) -> bool:
        return self.key < other.key


@dataclass(slots=True)
class _Bench:
    """Some worker processes behind one heap. Only as many tasks as workers are handed to Pebble at a time.

    Otherwise its queue, first in first out, would decide the order.
    """

    size: int
    tasks_each: int
    heap: list[_Waiting] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    processes: pebble.ProcessPool | None = None
    retirement: asyncio.TimerHandle | None = None


class WorkerPool:
    """The CPU-bound pool of the whole process; every book shares it.

    ``run`` may be awaited from one event loop only. ``close`` ends all workers at once; a pool that is idle for a minute
    has none. ``workers=0`` means one for each usable core.
    """

    def __init__(self, workers: int = 0, *, retire_after: float = RETIRE_SECONDS) -> None:
        self.size = workers or usable_cores()
        self._retire_after = retire_after
        self._sequence = itertools.count()
        self._many = _Bench(self.size, tasks_each=0)
        # Muxing a long book leaves its process with hundreds of megabytes: such a worker ends after one task.
        self._once = _Bench(1, tasks_each=1)
        self._held: Rank | None = None
        self.crashes = 0

    async def run(
        self,
        function: Callable[..., T],
        *args: object,
        rank: Rank = Rank(),
        audio_seconds: float = 0.0,
        single_use: bool = False,
        meter: Callable[[worker.Usage], None] | None = None,
    ) -> T:
        """Return ``function(*args)``, computed in a worker process; ``meter`` is told what that cost.

        ``function`` is found by its name in its module; arguments and result are pickled. The task is killed when it takes
        longer than a minute plus the length of its audio. Raises what the function raised if that is an error of ours;
        ``worker.crashed`` and ``worker.deadline`` (Transient) when the process died or hung: that task alone fails.
        Cancelling kills the worker within a fraction of a second.
        """
        bench = self._once if single_use else self._many
        waiting = _Waiting(
            key=(rank, next(self._sequence)),
            function=function,
            args=args,
            deadline=_PATIENCE_SECONDS + audio_seconds,
            done=asyncio.get_running_loop().create_future(),
        )
        heapq.heappush(bench.heap, waiting)
        self._feed(bench)
        try:
            outcome = await waiting.done
        except asyncio.CancelledError:
            if waiting in bench.heap:
                bench.heap.remove(waiting)
                heapq.heapify(bench.heap)
            elif waiting.running is not None:
                waiting.running.cancel()
            raise
        except TimeoutError as error:
            raise Transient(
                "worker.deadline",
                f"A worker process did not finish {_task_name(function)} within {waiting.deadline:.0f} seconds and was ended.",
                remedy="Try again; if it happens again, check the disk and the load of the machine.",
            ) from error
        except (pebble.ProcessExpired, process.BrokenProcessPool) as error:
            self.crashes += 1
            raise Transient(
                "worker.crashed",
                f"A worker process died during {_task_name(function)} ({_cause(error)}).",
                remedy="Try again: finished segments are kept. If it happens again at the same place, the file is at fault.",
            ) from error
        if isinstance(outcome, worker.Failed):
            raise outcome.error()
        assert isinstance(outcome, worker.Done)
        if meter is not None:
            meter(outcome.usage)
        return outcome.value  # type: ignore[return-value]  # pickled there and back: its type is the function's

    def hold(self, rank: Rank | None) -> None:
        """Begin no task of this rank or a later one any more, or with None all; what has begun is brought to its end."""
        self._held = rank
        for bench in (self._many, self._once):
            self._feed(bench)

    def healthy(self) -> bool:
        """Whether those who hand out the work live: a pool whose threads died would wait for ever."""
        return all(bench.processes is None or bench.processes.active for bench in (self._many, self._once))

    def close(self) -> None:
        """End all workers now, whatever they do."""
        for bench in (self._many, self._once):
            processes = self._detached(bench)
            if processes is not None:
                _end(processes)

    def _feed(self, bench: _Bench) -> None:
        loop = asyncio.get_running_loop()
        if bench.retirement is not None:
            bench.retirement.cancel()
            bench.retirement = None
        while bench.heap and len(bench.running) < bench.size and self._may_begin(bench.heap[0]):
            waiting = heapq.heappop(bench.heap)
            ticket = waiting.key[1]
            bench.running.add(ticket)
            try:
                self._hand_over(bench, waiting)
            except RuntimeError:  # Pebble calls itself broken when an idle worker was killed: start afresh
                self._retire(bench)
                self._hand_over(bench, waiting)
            assert waiting.running is not None
            wrapped = asyncio.wrap_future(waiting.running, loop=loop)
            wrapped.add_done_callback(lambda future, waiting=waiting: self._finish(bench, waiting, future))  # type: ignore[misc]
        if not bench.running and bench.processes is not None:
            bench.retirement = loop.call_later(self._retire_after, self._retire, bench)

    def _may_begin(self, waiting: _Waiting) -> bool:
        return self._held is None or waiting.key[0] < self._held

    def _hand_over(self, bench: _Bench, waiting: _Waiting) -> None:
        waiting.processes = self._processes(bench)
        waiting.running = waiting.processes.schedule(worker.run, args=(waiting.function, waiting.args))
        # Not Pebble's timeout: that goes by the wall clock, and a machine that sets it after booting would lose all in flight.
        waiting.expiry = asyncio.get_running_loop().call_later(waiting.deadline, self._expire, waiting)

    def _expire(self, waiting: _Waiting) -> None:
        """Kill the worker of a task that is late, and let its waiter know."""
        assert waiting.running is not None
        if not waiting.done.done():
            waiting.done.set_exception(TimeoutError())
            waiting.running.cancel()

    def _finish(self, bench: _Bench, waiting: _Waiting, future: asyncio.Future[object]) -> None:
        if future.cancelled():
            # Pebble ends the worker a moment from now. What is handed over meanwhile may be fetched by that very worker, when
            # it has just done the cancelled task, and would be lost without a word.
            asyncio.get_running_loop().call_later(_KILLED_SECONDS, self._vacate, bench, waiting)
        else:
            bench.running.discard(waiting.key[1])
        if waiting.expiry is not None:
            waiting.expiry.cancel()
        if not waiting.done.done():
            if future.cancelled():
                waiting.done.cancel()
            elif (error := future.exception()) is not None:
                if isinstance(error, process.BrokenProcessPool) and not waiting.again:
                    # An idle worker was killed just before this task was handed over: it has not even begun.
                    waiting.again = True
                    if waiting.processes is bench.processes:
                        self._retire(bench)
                    heapq.heappush(bench.heap, waiting)
                else:
                    waiting.done.set_exception(error)
            else:
                waiting.done.set_result(future.result())
        elif not future.cancelled():
            future.exception()  # the one who waited was cancelled: nobody else will look at it
        self._feed(bench)

    def _vacate(self, bench: _Bench, waiting: _Waiting) -> None:
        bench.running.discard(waiting.key[1])
        self._feed(bench)

    def _processes(self, bench: _Bench) -> pebble.ProcessPool:
        if bench.processes is None:
            nursery.start()
            bench.processes = pebble.ProcessPool(
                max_workers=bench.size,
                max_tasks=bench.tasks_each,
                initializer=worker.prepare,
                context=nursery.context(),
            )
        return bench.processes

    def _retire(self, bench: _Bench) -> None:
        """End the processes of a bench without holding up the event loop: waiting for them takes a tenth of a second."""
        processes = self._detached(bench)
        if processes is not None:
            asyncio.get_running_loop().run_in_executor(None, _end, processes)

    def _detached(self, bench: _Bench) -> pebble.ProcessPool | None:
        if bench.retirement is not None:
            bench.retirement.cancel()
            bench.retirement = None
        processes, bench.processes = bench.processes, None
        return processes


def _end(processes: pebble.ProcessPool) -> None:
    processes.stop()
    processes.join()


def _task_name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", "a task").replace("_", " ")


def _cause(error: BaseException) -> str:
    code = getattr(error, "exitcode", None)
    if isinstance(code, int) and code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}" if code is not None else "the pool of workers broke"
