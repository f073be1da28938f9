"""What does kill -9 cost? A queue of five books in the real service, killed at random moments: the same bytes, nothing twice, no litter.

    python tests/benchmarks/kills.py --kills 20 --seed 1

Each round has directories of its own, is killed once or several times, and is then left alone until its queue is done.
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
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from household import House, clip, id3, real_program
from running import running, started

BOOKS = 5


def contents(book: int) -> dict[str, bytes]:
    """Return the files of one book, of a minute or two."""
    return {
        f"{n:02}.mp3": id3(TRCK=f"{n}/3", TALB=f"Book {book}", TPE1="Somebody") + clip(10 * book + n, 17 + 5 * book)
        for n in (1, 2, 3)
    }


def made(directory: Path) -> House:
    """Return a house in which five books were dropped."""
    directory.mkdir()
    house = House(directory, real_program)
    house.set('[encode]\naac_coder = "twoloop"\n')  # so that there is time to be killed in
    for book in range(1, BOOKS + 1):
        house.drop(f"Book {book}", contents(book))
    return house


def books(house: House) -> dict[str, str]:
    """Return the SHA-256 of every book by its path in the library."""
    return {path: hashlib.sha256((house.library / path).read_bytes()).hexdigest() for path in house.books()}


def finished(service) -> bool:
    """Whether all books are made."""
    return len(service.jobs("completed")) == BOOKS


def wrong(house: House, jobs: list[dict], whole: dict[str, str]) -> list[str]:
    """Return what is not as it would have been without any kill."""
    found = []
    if books(house) != whole:
        found.append(f"The library holds {books(house)}.")
    completed = Counter(job["name"] for job in jobs if job["status"] == "completed")
    if len(jobs) != BOOKS or set(completed.values()) != {1} or len(completed) != BOOKS:
        found.append(f"The jobs are {[(job['name'], job['status']) for job in jobs]}.")
    litter = house.litter() + [name for name in os.listdir(house.root / "state") if not name.startswith("aiom4b.db")]
    if litter:
        found.append(f"Left behind: {litter}.")
    sets = [name for name in os.listdir(house.backup) if not name.startswith(".")]
    if len(sets) != BOOKS:
        found.append(f"There are {len(sets)} backups: {sorted(sets)}.")
    return found


def main() -> int:
    """Kill as often as asked and print what came of it; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    chance = random.Random(wanted.seed)
    broken = kills = rounds = 0
    states: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        house = made(Path(directory, "whole"))
        began = time.monotonic()
        with running(house) as service:
            service.until(lambda: finished(service))
            length = time.monotonic() - began
        whole = books(house)
        print(f"Undisturbed: {len(whole)} books in {length:.1f} s from the start of the process.")
        while kills < wanted.kills:
            rounds += 1
            house = made(Path(directory, str(rounds)))
            moments = []
            while not moments or (kills < wanted.kills and chance.random() < 0.5):
                moments.append(chance.uniform(0.2, 1.1) * length)
                with started(house) as service:
                    time.sleep(moments[-1])
                    kills += 1
            with running(house) as service:
                states.update(job["status"] for job in service.jobs())
                service.until(lambda service=service: finished(service))
                service.until(lambda service=service: service.ask("status")["entries"]["done"] == BOOKS)
                jobs = service.jobs()
            for sentence in wrong(house, jobs, whole):
                broken += 1
                print(f"WRONG, killed after {moments}: {sentence}")
    print(f"{kills} kills in {rounds} rounds; the next start found jobs {dict(states)}; {broken} promises broken.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
