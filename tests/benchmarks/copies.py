"""Does the real service make the right book of every slow copy? Any number of randomised ones, from a seed, into one process.

    python tests/benchmarks/copies.py --copies 200 --seed 1 --settle 1

`soak.py` asks the same of the inbox alone, thousands of times an hour; here each book is made, and compared with what
``aiom4b convert`` makes of the whole folder. Half of the books show what is missing (``2/3``) and pause for as long as they like;
the others show nothing, and pause for less than the settle time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from drops import METHODS, Drop
from household import House, clip, id3, real_program
from running import Service, running


@dataclass
class Copy:
    """One copy, how it is made, and whether its content shows what is missing."""

    name: str
    method: str
    blind: bool
    drop: Drop

    def longest_lull(self) -> float:
        """Return the longest time for which it did nothing, as it came: the machine may have held it up."""
        moments = [*self.drop.touched, self.drop.finished]
        return max((later - one for one, later in pairwise(moments)), default=0.0)


def planned(house: House, number: int, seed: int, settle: float) -> Copy:
    """Return one copy, the same for the same seed."""
    dice = random.Random(f"{seed} {number}")
    name = f"Book {number}"
    total = dice.randint(1, 4)
    blind = dice.random() < 0.5
    longest = settle * (0.6 if blind else 2.5)
    contents = {}
    for place in range(1, total + 1):
        tags = id3(TALB=name, TPE1="Somebody") if blind else id3(TALB=name, TPE1="Somebody", TRCK=f"{place}/{total}")
        contents[f"{place}.mp3"] = tags + clip(seed + 100 * number + place, dice.uniform(0.5, 2.0))
    drop = Drop(
        target=str(house.drops / name),
        contents=contents,
        aside=str(house.root / f"aside {number}"),
        random=dice,
        pause=lambda: time.sleep(longest * dice.random() ** 3),
    )
    return Copy(name=name, method=dice.choice(sorted(METHODS)), blind=blind, drop=drop)


def until_done(service: Service, copies: list[Copy], seconds: float) -> list[str]:
    """Wait until every entry is done; return what isn't by then, and why."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        entries = service.ask("folders")["items"]
        waited_for = [entry for entry in entries if entry["state"] != "done"]
        if len(entries) == len(copies) and not waited_for:
            return []
        time.sleep(0.1)
    return [f"{entry['name']} is {entry['state']}: {entry['error']}" for entry in waited_for]


def references(house: House, copies: list[Copy]) -> dict[str, str]:
    """Return the SHA-256 of what `aiom4b convert` makes of each whole folder."""
    done = real_program(
        house, house.words(*(copy.drop.target for copy in copies), "--no-backup"), timeout=60 + 5 * len(copies)
    )
    assert done.exit == 0, done.talk
    return {os.path.basename(made["source"]): made["sha256"] for made in done.document["books"]}


def main() -> int:
    """Run one soak and print what came of it; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=1.0, help="seconds")
    parser.add_argument("--at-once", type=int, default=8)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="copies-") as directory:
        return _soaked(Path(directory), wanted)


def _soaked(directory: Path, wanted: argparse.Namespace) -> int:
    (directory / "alone").mkdir()
    house, alone = House(directory, real_program), House(directory / "alone", real_program)
    copies = [planned(house, number, wanted.seed, wanted.settle) for number in range(wanted.copies)]
    began = time.monotonic()
    with running(house, environment={"AIOM4B_WATCH__SETTLE_SECONDS": str(wanted.settle)}) as service:
        with ThreadPoolExecutor(wanted.at_once) as pool:
            list(pool.map(lambda copy: copy.drop.run(copy.method), copies))
        wrong = until_done(service, copies, 60 + wanted.copies)
        jobs = service.jobs()
    seconds = time.monotonic() - began
    whole = references(alone, copies)
    made: dict[str, list[str]] = {copy.name: [] for copy in copies}
    for path in house.books():
        name = os.path.basename(path).removesuffix(".m4b").partition(" (")[0]
        made[name].append(hashlib.sha256((house.library / path).read_bytes()).hexdigest())
    held_up = {copy.name for copy in copies if copy.blind and copy.longest_lull() >= wanted.settle}
    for copy in copies:
        if whole[copy.name] not in made[copy.name]:
            wrong.append(f"{copy.name} ({copy.method}) is not the book of the whole folder.")
        elif len(made[copy.name]) > 1 and copy.name not in held_up:
            wrong.append(f"{copy.name} ({copy.method}) was taken before it was complete.")
    litter = house.litter()
    wrong += [f"Left behind: {litter}"] if litter else []
    states = Counter(job["status"] for job in jobs)
    print(f"{wanted.copies} copies in {seconds:.0f} s: {len(house.books())} books, jobs {dict(states)}.")
    print(f"The machine held up {len(held_up)} copies for longer than the settle time, so that they seemed complete.")
    for method, count in sorted(Counter(copy.method for copy in copies).items()):
        print(f"  {count:4} {method}")
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
