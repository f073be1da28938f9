"""How does a test live with the real service? It starts ``aiom4b run`` in a house, asks it, waits for it, and ends it.

Nothing sleeps and hopes: whatever is waited for is a condition, with a deadline, and a service that ends too early says why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import httpx

from household import PROGRAM, Answer, House, real_program

PATIENCE = 40.0
"""Seconds after which a test gives up."""
SETTLE = 0.4
"""Seconds for which a folder has to be quiet, unless the test says otherwise."""

T = TypeVar("T")


class Service:
    """One process of ``aiom4b run``, watching ``house.drops``."""

    def __init__(self, house: House, process: subprocess.Popen, told: Path) -> None:
        self.house = house
        self.process = process
        self.pid = process.pid
        self._told = told
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket(house))), base_url="http://localhost/api/v1/", timeout=PATIENCE
        )

    # --- asking --------------------------------------------------------------------------------------------------------

    def ask(self, path: str, **query) -> dict:
        """Return what a path below /api/v1 answers."""
        return self.http.get(path, params=query).raise_for_status().json()

    def tell(self, path: str, body: object = None) -> dict:
        """Send a command and return what is answered."""
        return self.http.post(path, json=body).raise_for_status().json()

    def types(self, *words: str) -> Answer:
        """Type ``aiom4b …`` as its user does; answered as JSON."""
        return real_program(self.house, [*words, "--socket", str(socket(self.house)), "--json"])

    def jobs(self, *statuses: str) -> list[dict]:
        """Return the jobs of these statuses, or all, the oldest first."""
        return self.ask("jobs", limit=1000, status=list(statuses))["items"][::-1]

    def job(self, entry: str) -> dict | None:
        """Return the newest job of an entry of the source."""
        return next((job for job in reversed(self.jobs()) if job["entry"] == entry), None)

    def entry(self, name: str) -> dict | None:
        """Return what is known of an entry of the source, by its displayable name."""
        return next((entry for entry in self.ask("folders")["items"] if entry["name"] == name), None)

    def events(self) -> list[dict]:
        """Return the lines of its log so far."""
        lines = self._told.read_text(errors="backslashreplace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> list[dict]:
        """Return the lines of its log about one event."""
        return [line for line in self.events() if line["event"] == event]

    def talk(self) -> str:
        """Return all it wrote to stderr."""
        return self._told.read_text(errors="backslashreplace")

    # --- waiting -------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], seconds: float = PATIENCE) -> T:
        """Return what ``condition`` returns once that is true."""
        for _ in range(int(seconds / 0.02)):
            with suppress(httpx.TransportError):  # it may just have ended
                if found := condition():
                    return found
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                raise AssertionError(f"it ended with {self.process.returncode}: {self.talk()}")
        raise AssertionError(f"it never came; {self.jobs()}\n{self.ask('folders')}\n{self.talk()}")

    def until_state(self, name: str, *states: str) -> dict:
        """Return an entry once it is in one of these states."""
        return self.until(lambda: (found := self.entry(name)) and found["state"] in states and found)

    def until_job(self, entry: str, *statuses: str) -> dict:
        """Return the newest job of an entry once it has one of these statuses."""
        return self.until(lambda: (found := self.job(entry)) and found["status"] in statuses and found)

    def until_segments(self, number: int = 2) -> dict[str, int]:
        """Return the segments of unfinished books, as inodes by paths, once there are so many."""
        return self.until(lambda: len(found := segments(self.house)) >= number and found)

    @contextmanager
    def followed(self, after: int | None = None) -> Iterator[Iterator[dict]]:
        """Return the events of the service as they come: their names as "event", their numbers as "id"."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.http.stream("GET", "events", headers=headers) as answer:
            yield _events(answer.raise_for_status().iter_lines())

    # --- ending --------------------------------------------------------------------------------------------------------

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Return the exit code, minus the signal's number if one ended it; fails when it takes longer."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """Let it end in order."""
        self.signal()
        assert self.ended(10) == 0, self.talk()
        assert "Traceback" not in self.talk()

    def kill(self) -> None:
        """End it as a power cut does, and wait until all its processes are gone."""
        family = descendants(self.pid)
        self.process.kill()
        self.process.wait()
        until_gone(family)


_numbers = count(1)


@contextmanager
def started(house: House, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Start a service in a house; it is gone with the block, in whatever way that ends."""
    told = house.root / f"service-{next(_numbers)}.log"
    (house.root / "state").mkdir(exist_ok=True)
    with open(told, "wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "run", *places(house), *words],
            env=house.environment() | {"AIOM4B_WATCH__SETTLE_SECONDS": str(SETTLE)} | (environment or {}),
            cwd=house.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    service = Service(house, process, told)
    try:
        yield service
    finally:
        service.http.close()
        process.send_signal(signal.SIGCONT)
        service.kill()


@contextmanager
def running(house: House, *words: str, **how) -> Iterator[Service]:
    """Start a service, wait until it answers, and see to it that it ends in order."""
    with started(house, *words, **how) as service:
        service.until(lambda: service.said("service.ready"))
        yield service
        if service.process.poll() is None:
            service.end()


def places(house: House) -> list[str]:
    """Return the options that say where everything is."""
    named = {"source": house.drops, "library": house.library, "backup": house.backup, "state": house.root / "state"}
    return [word for name, path in (named | {"socket": socket(house)}).items() for word in (f"--{name}", str(path))]


def socket(house: House) -> Path:
    """Return where its service answers: a socket's path has at most 107 bytes."""
    return house.root / "s.sock"


def segments(house: House) -> dict[str, int]:
    """Return the finished segments of unfinished books: inodes by paths."""
    found = {}
    for path in house.library.glob(".aiom4b/work/*/segments/*.json"):
        with suppress(FileNotFoundError):
            found[str(path)] = path.with_suffix(".aac").stat().st_ino
    return found


def descendants(pid: int) -> list[int]:
    """Return all processes below one."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = Path(entry.path, "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def until_gone(processes: Sequence[int], seconds: float = 10.0) -> None:
    """Wait for processes that are not our children to end."""
    for _ in range(int(seconds / 0.02)):
        if not any(map(_lives, processes)):
            return
        time.sleep(0.02)
    raise AssertionError("they live on")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _events(lines: Iterator[str]) -> Iterator[dict]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif "event" in fields:
            yield {**json.loads(fields["data"]), "event": fields["event"], "id": int(fields["id"])}
            fields = {}
