"""What does the service cost when idle, how quick is it, and does it keep all cores busy? One command each.

    python tests/benchmarks/service.py idle|latency|prompt|hundred [--data DIR]

The real process, on speech by espeak-ng (see run.py). The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import anyio
import run as measures
import speech

import running
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.store import Store
from aiom4b.models import Fingerprint, now
from household import House, id3
from running import Service

TICKS = os.sysconf("SC_CLK_TCK")
_data = measures._data


@contextmanager
def house() -> Iterator[House]:
    """Yield a house that is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="aiom4b-service-", dir=_data))
    try:
        yield House(root, running.real_program)
    finally:
        shutil.rmtree(root)


def cpu_seconds(pid: int) -> float:
    """Return what a process and its living children have used so far."""
    total = 0
    for one in [pid, *running.descendants(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory(pid: int, key: str) -> int:
    """Return VmRSS or VmHWM of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(key))


def processes(pid: int) -> list[str]:
    """Return the children of a process with their sizes."""
    found = []
    for one in running.descendants(pid):
        command = Path(f"/proc/{one}/cmdline").read_bytes().decode(errors="replace")
        kind = next((word for word in ("resource_tracker", "forkserver") if word in command), "other")
        found.append(f"{kind} {memory(one, 'VmRSS')}")
    return found


def run_idle() -> None:
    """1,000 books in the source, all done: CPU over ten minutes, with two full rescans in it; memory; processes."""
    with house() as place:
        for number in range(1000):
            folder = place.drops / f"Book {number:04}"
            folder.mkdir()
            for track in range(20):
                (folder / f"{track:02}.mp3").write_bytes(b"no audio at all %d" % (number * 20 + track))
        settings = {"AIOM4B_WATCH__SETTLE_SECONDS": "5"}
        with running.running(place, environment=settings) as service:
            # None of it is audio, so nothing is converted; what counts is that there is nothing left to do.
            service.until(lambda: _settled(service, 1000), seconds=600)
            measures._tell(
                "1,000 entries dealt with", rss_MiB=memory(service.pid, "VmRSS"), processes=processes(service.pid)
            )
            time.sleep(70)  # workers retire after a minute
            began, used = time.monotonic(), cpu_seconds(service.pid)
            time.sleep(620)
            share = (cpu_seconds(service.pid) - used) / (time.monotonic() - began)
            measures._tell("idle", cpu_share=share, due="< 0.005", processes=processes(service.pid))
            measures._tell(
                "  daemon MiB", rss=memory(service.pid, "VmRSS"), peak=memory(service.pid, "VmHWM"), due="≤ 150"
            )


def _settled(service: Service, count: int) -> bool:
    states = service.ask("status")["entries"]
    return sum(number for state, number in states.items() if state not in {"settling", "ready", "queued"}) == count


def run_latency() -> None:
    """`aiom4b status` with 10,000 jobs in the history, idle and while all cores encode; delays of the event loop."""
    source = speech.book(_data, 6, 1513)
    with house() as place:
        (place.root / "state").mkdir()
        anyio.run(_history, str(place.root / "state" / "aiom4b.db"), 10_000)
        with running.running(place) as service:
            measures._tell("status, idle", seconds=_status(place), due="≤ 0.5")
            shutil.copytree(source, place.drops / "Speech")
            service.until_segments(4)
            measures._tell("status, all cores busy", seconds=_status(place), due="≤ 0.5")
            delays = []
            while service.jobs("running"):
                began = time.monotonic()
                service.ask("jobs", limit=50)
                delays.append(time.monotonic() - began)
                time.sleep(0.05)
            text = service.http.get("../../metrics").text
            lag = [line for line in text.splitlines() if "lag" in line and not line.startswith("#")]
            measures._tell("a request meanwhile", median=statistics.median(delays), worst=max(delays), due="loop < 0.1")
            measures._tell("  event loop", metrics=lag)


def _status(place: House) -> list[float]:
    walls = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(
            [Path(sys.executable).parent / "aiom4b", "status", "--socket", running.socket(place)],
            check=True,
            capture_output=True,
            env=place.environment() | {"PYTHONWARNINGS": ""},
        )
        walls.append(round(time.monotonic() - began, 3))
    return sorted(walls)


async def _history(path: str, count: int) -> None:
    store = await Store.open(path)
    for number in range(count):
        job, _ = await store.add(
            kind=Kind.CONVERT,
            name=f"Book {number}",
            folders=(f"/nowhere/Book {number}",),
            entry=None,
            fingerprint=Fingerprint(f"{number:064x}"),
            options=JobOptions(),
            now=now(),
        )
        await store.update(job.id, now(), status=Status.COMPLETED, progress=100.0, ended=now())
    await store.close()


def run_prompt() -> None:
    """From the last byte copied to the book in the library, against settle time and the conversion alone."""
    source = speech.book(_data, 1, 600)
    settle = 3.0
    alone = statistics.median(measures.convert(source)["wall"] for _ in range(3))
    settings = {"AIOM4B_WATCH__SETTLE_SECONDS": str(settle)}
    with house() as place, running.running(place, environment=settings) as service:
        shutil.copytree(source, place.drops / "Ten Minutes")
        copied = time.monotonic()
        service.until(place.books)
        wall = time.monotonic() - copied
    measures._tell("prompt", wall=wall, settle=settle, convert_alone=alone, over=wall - settle - alone, due="≤ 2")


def run_hundred() -> None:
    """100 books of two minutes at once: cores busy from the first to the last, order, memory."""
    source = next(speech.book(_data, 1, 120).glob("*.mp3")).read_bytes()
    with house() as place:
        settings = {"AIOM4B_WATCH__SETTLE_SECONDS": "2"}
        with running.running(place, environment=settings) as service:
            for number in range(100):
                folder = place.root / "ready" / f"Book {number:03}"
                folder.mkdir(parents=True)
                # A tag makes each of them another book.
                (folder / "01.mp3").write_bytes(id3(TALB=f"Book {number:03}", TPE1="Ada Speaker", TRCK="1/1") + source)
            for folder in sorted((place.root / "ready").iterdir()):
                folder.rename(place.drops / folder.name)
            service.until(lambda: service.jobs("running"))
            busy = measures._busy()
            peaks: list[int] = []
            over = threading.Event()

            def sample() -> None:
                while not over.wait(0.25):
                    peaks.append(memory(service.pid, "VmRSS"))

            thread = threading.Thread(target=sample)
            thread.start()
            began = time.monotonic()
            service.until(lambda: len(service.jobs("completed")) == 100, seconds=600)
            after = measures._busy()
            over.set()
            thread.join()
            wall = time.monotonic() - began
            begun = [job["name"] for job in sorted(service.jobs("completed"), key=lambda job: job["started"])]
            measures._tell(
                "100 books of 2 minutes",
                wall=wall,
                busy=(after[0] - busy[0]) / (after[1] - busy[1]),
                due="≥ 0.9",
                speed=100 * 120 / wall,
                out_of_order_by=max(abs(place - sorted(begun).index(name)) for place, name in enumerate(begun)),
                daemon_MiB=max(peaks),
                peak=memory(service.pid, "VmHWM"),
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["idle", "latency", "prompt", "hundred"])
    parser.add_argument("--data", type=Path, default=_data, help="where generated audio is kept")
    arguments = parser.parse_args()
    _data = measures._data = arguments.data
    _data.mkdir(parents=True, exist_ok=True)
    globals()[f"run_{arguments.what}"]()
