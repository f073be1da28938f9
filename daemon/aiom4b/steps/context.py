"""What does a step get to work with?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import anyio

import aiom4b
from aiom4b.adapters.space import SpaceLedger
from aiom4b.engine.pool import Rank, WorkerPool
from aiom4b.engine.worker import Usage
from aiom4b.errors import Aiom4bError
from aiom4b.models import AudibleKey, Clock, KeyRing, Lock, Name, Progress, now

T = TypeVar("T")
U = TypeVar("U")

TOOL = f"aiom4b {aiom4b.__version__}"
"""What made a book, as its tags and its record say."""

Keys = Mapping[Name, AudibleKey]
"""What opens the locked files of a source, by `SourceFile.path`; empty for most books."""

_MANY_PACKETS = 500_000
_COPIES = 2  # a disk that reads and writes more files at once only moves its head


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """The tools of one book's steps.

    ``work_dir`` belongs to this book alone and lies in the library, so that publishing is a rename. ``rank`` says before
    whom its tasks go. ``copies`` limits how many files are copied at once, over all books. ``keys`` knows keys that don't lie
    beside the source. ``report`` may be called often, ``meter`` hears what each task of a worker cost.
    """

    work_dir: Name
    pool: WorkerPool
    rank: Rank
    copies: anyio.CapacityLimiter
    ledger: SpaceLedger
    keys: KeyRing
    clock: Clock
    report: Callable[[Progress], None]
    meter: Callable[[Usage], None] | None = None

    async def work(
        self, function: Callable[..., T], *args: object, audio_seconds: float = 0.0, single_use: bool = False
    ) -> T:
        """Return ``function(*args)`` from a worker process, in this book's rank; see ``WorkerPool.run``."""
        return await self.pool.run(
            function, *args, rank=self.rank, audio_seconds=audio_seconds, single_use=single_use, meter=self.meter
        )


class _NoKeys:
    """The ring of whoever has no account: only keys beside the source count."""

    async def keys(self, lock: Lock, asin: str) -> tuple[tuple[str, AudibleKey], ...]:  # noqa: ARG002 - a KeyRing
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What all books of this process share: worker processes, a limit for copies at once, promised free space, known keys."""

    pool: WorkerPool
    copies: anyio.CapacityLimiter
    ledger: SpaceLedger
    keys: KeyRing
    clock: Clock = now

    @classmethod
    def of(cls, workers: int, keys: KeyRing | None = None) -> Resources:
        """Return fresh ones, with so many worker processes (0: one for each usable core)."""
        return cls(
            pool=WorkerPool(workers),
            copies=anyio.CapacityLimiter(_COPIES),
            ledger=SpaceLedger(),
            keys=keys or _NoKeys(),
        )

    def context(self, work_dir: Name, rank: Rank, report: Callable[[Progress], None]) -> StepContext:
        """Return the tools of one book's steps."""
        return StepContext(
            work_dir=work_dir,
            pool=self.pool,
            rank=rank,
            copies=self.copies,
            ledger=self.ledger,
            keys=self.keys,
            clock=self.clock,
            report=report,
        )


def needs_own_worker(packets: int) -> bool:
    """Whether opening a book of so many packets as a whole deserves a worker that ends afterwards.

    At 20 hours FFmpeg's index and mutagen's shifting leave 200 to 290 MB in a process; up to three hours it is not worth a start.
    """
    return packets > _MANY_PACKETS


async def together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Await all calls at once and return their results in order.

    The first error of ours ends the others and is raised as it is, not wrapped in a group.
    """
    results: dict[int, T] = {}

    async def one(index: int, call: Callable[[], Awaitable[T]]) -> None:
        results[index] = await call()

    try:
        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(one, index, call)
    except BaseExceptionGroup as errors:
        ours = errors.subgroup(Aiom4bError)
        if ours is None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from errors
    return [results[index] for index in range(len(calls))]


async def both(one: Callable[[], Awaitable[T]], other: Callable[[], Awaitable[U]]) -> tuple[T, U]:
    """Await two calls at once and return their results; errors as in `together`."""
    calls: Sequence[Callable[[], Awaitable[T | U]]] = (one, other)
    first, second = await together(calls)
    return cast("T", first), cast("U", second)
