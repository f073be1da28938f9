"""Is a book ever taken before it is complete? Any number of randomised slow copies into a watched directory, from a seed.

    python tests/benchmarks/soak.py --copies 200 --seed 1 --settle 1

Half of the copies can be judged by their content, as most books can: a file that is cut off, a number that is missing. They
pause for as long as they like, and must never be taken incomplete. The other half show nothing, and pause for less than the
settle time. None may be examined before nothing changed for the whole settle time, and in the end all must be taken whole.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import anyio
import anyio.to_thread

import factories
import intakes
from aiom4b.config import WatchSettings
from aiom4b.intake.inbox import Inbox
from aiom4b.jobs.job import EntryState
from drops import METHODS, Drop


@dataclass
class Copy:
    """One copy: how it is made, and whether its content shows what is missing."""

    name: str
    method: str
    blind: bool
    drop: Drop


@dataclass(frozen=True)
class Result:
    """What came of a soak. ``wrong`` tells each promise that was broken."""

    taken: int
    looked: int
    withdrawn: int
    by_method: Counter[str]
    wrong: list[str]
    seconds: float


def soak(directory: str, *, copies: int, seed: int, settle: float, at_once: int = 8) -> Result:
    """Make ``copies`` copies, ``at_once`` at a time, while an inbox watches, and tell what it did."""
    return anyio.run(partial(_Soak(directory, seed, settle, copies).run, at_once))


class _Soak:
    def __init__(self, directory: str, seed: int, settle: float, copies: int) -> None:
        self.settle = settle
        self.source = os.path.join(directory, "source")
        os.mkdir(self.source)
        self.jobs = intakes.FakeJobs()
        self.looked = 0
        self.wrong: list[str] = []
        self.copies = {copy.name: copy for copy in (self._copy(directory, number, seed) for number in range(copies))}

    def _copy(self, directory: str, number: int, seed: int) -> Copy:
        dice = random.Random(f"{seed} {number}")
        name = f"Book {number}"
        total = dice.randint(1, 5)
        blind = dice.random() < 0.5
        longest = self.settle * (0.8 if blind else 2.5)
        contents = {
            (f"{place}.mp3" if blind else f"{place} of {total}.mp3"): intakes.track(
                dice.randint(100, 5000), seed + 100 * number + place
            )
            for place in range(1, total + 1)
        }
        drop = Drop(
            target=os.path.join(self.source, name),
            contents=contents,
            aside=os.path.join(directory, f"aside {number}"),
            random=dice,
            pause=lambda: time.sleep(longest * dice.random() ** 3),
        )
        return Copy(name=name, method=dice.choice(sorted(METHODS)), blind=blind, drop=drop)

    async def run(self, at_once: int) -> Result:
        began = time.monotonic()
        inbox = Inbox(
            source=self.source,
            settings=lambda: WatchSettings(mode="events", settle_seconds=self.settle, rescan_seconds=30),
            examine=self._examine,
            jobs=self,
            publish=lambda event, **data: None,
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )
        slots = anyio.CapacityLimiter(at_once)
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.run)
            async with anyio.create_task_group() as copying:
                for copy in self.copies.values():
                    copying.start_soon(partial(anyio.to_thread.run_sync, copy.drop.run, copy.method, limiter=slots))
            with anyio.move_on_after(60 + 50 * self.settle):
                while self._missing():
                    await inbox._moved.wait()
            group.cancel_scope.cancel()
        self.wrong += [f"{name} was not taken: {self.jobs.records.get(name)}" for name in self._missing()]
        return Result(
            taken=len(self.copies) - len(self._missing()),
            looked=self.looked,
            withdrawn=len(self.jobs.withdrawn),
            by_method=Counter(copy.method for copy in self.copies.values()),
            wrong=self.wrong,
            seconds=time.monotonic() - began,
        )

    def _missing(self) -> list[str]:
        records = self.jobs.records
        return [
            name
            for name, copy in self.copies.items()
            if name not in records
            or records[name].state is not EntryState.QUEUED
            or records[name].files != len(copy.drop.contents)
            or records[name].size != sum(map(len, copy.drop.contents.values()))
        ]

    async def _examine(self, path: str):
        self.looked += 1
        copy = self.copies[os.path.basename(path)]
        quiet = time.monotonic() - max(copy.drop.touched)
        # Until Linux 6.13 a change within 4 ms of the one before leaves no trace in the times of a file.
        if quiet < self.settle - 0.01:
            self.wrong.append(f"{copy.name} ({copy.method}) was examined {quiet:.2f} s after a change.")
        return (_anything(path),) if copy.blind else await intakes.examined(path)

    # What the inbox needs of jobs; every acceptance is compared with the copy.

    async def accept(self, source, entry):
        copy = self.copies[entry]
        found = {one.name: one.read_bytes() for one in Path(copy.drop.target).iterdir()}
        if found != copy.drop.contents and not copy.blind:
            self.wrong.append(f"{copy.name} ({copy.method}) was taken incomplete.")
        return await self.jobs.accept(source, entry)

    def __getattr__(self, name):
        return getattr(self.jobs, name)


def _anything(path: str):
    """Say of whatever is there that it is a book."""
    return factories.source(
        *(factories.source_file(f"{one.name} {one.stat().st_size}") for one in os.scandir(path)),
        root=path,
        name=os.path.basename(path),
    )


def main() -> int:
    """Run one soak and print what came of it; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=1.0, help="seconds")
    parser.add_argument("--at-once", type=int, default=24)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = soak(directory, copies=wanted.copies, seed=wanted.seed, settle=wanted.settle, at_once=wanted.at_once)
    print(
        f"{result.taken} of {wanted.copies} copies taken whole in {result.seconds:.0f} s, after {result.looked} examinations "
        f"and {result.withdrawn} withdrawn jobs; {threading.active_count()} threads left."
    )
    for method, count in sorted(result.by_method.items()):
        print(f"  {count:4} {method}")
    for sentence in result.wrong:
        print(f"WRONG: {sentence}")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
