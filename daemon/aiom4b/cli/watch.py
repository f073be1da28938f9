"""What is the service doing at this moment? `aiom4b watch`: a live view on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import typer

from aiom4b import redaction
from aiom4b.cli import output
from aiom4b.cli.client import Client, Document, asking
from aiom4b.cli.following import GONE, MOVING, batches, tell_gone, unless_gone
from aiom4b.cli.options import Json, Socket
from aiom4b.cli.stream import Event
from aiom4b.cli.wording import ahead, explained, found, size, span
from aiom4b.errors import Exit

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SHOWN = 50  # more jobs than any screen has lines for
_WITH_REASON = frozenset({"job.waiting", "job.failed", "job.cancelled"})
_STILL = MOVING | {"job.step"}  # after these the same jobs are there


def watch(*, socket: Socket = None, json: Json = False) -> None:
    """Watch the service at work, until Ctrl-C. With --json each event is one JSON document on a line of its own."""
    with asking(socket, json=json) as client:
        try:
            if json or not sys.stdout.isatty():
                _lines(client, json=json)
            else:
                _live(client)
        except KeyboardInterrupt:  # the usual way to leave: nothing to be told
            raise typer.Exit(Exit.INTERRUPTED) from None


# --- lines --------------------------------------------------------------------------------------------------------------


def _lines(client: Client, *, json: bool) -> None:
    with closing(batches(client, 60.0, gone=tell_gone)) as heard:
        for events in heard:
            for event in events:
                if json:
                    output.print_json_line({"id": event.id, "event": event.event, "data": event.data})
                elif event.event not in MOVING:
                    output.print_text(told(event, _reason(client, event), datetime.now(UTC)))


def _reason(client: Client, event: Event) -> Document | None:
    """Return the problem that an event is about, if there is one; of a job the event says only that there is."""
    if event.event not in _WITH_REASON:
        return event.data.get("problem")
    job = unless_gone(lambda: client.find(f"jobs/{event.data['job_id']}"), None)
    return job["error"] if job else None


def told(event: Event, problem: Document | None, now: datetime) -> str:
    """Return an event, and the problem that it is about, as one line for people."""
    data = event.data
    words = [now.astimezone().strftime("%H:%M:%S"), event.event]
    if event.event == "job.step":
        words.append(data["step"])
    elif event.event == "entry.changed":
        words.append((data["state"] or "gone").replace("_", " "))
    words += [str(data[key]) for key in ("name", "reason", "profile") if data.get(key)]
    if event.event == "library.synced":
        words.append(found(data))
    if id := data.get("job_id"):
        words.append(f"({id[:8]})")
    if problem:
        words.append(" ".join(problem["message"].split()))
    return "  ".join(words)


# --- the live view ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the live view shows: jobs as the service tells them, and by their ids how the transfers of some are going."""

    running: tuple[Document, ...] = ()
    transfers: Mapping[str, Document] = field(default_factory=dict)
    waiting: tuple[Document, ...] = ()
    queued: int = 0
    paused: bool = False
    reasons: tuple[str, ...] = ()
    gone: bool = False


def moved(view: View, events: list[Event]) -> View:
    """Return the view after these events of jobs on their way."""
    news = {event.data["job_id"]: event.data for event in events if event.event in {"job.progress", "job.step"}}
    transfers = {event.data["job_id"]: event.data for event in events if event.event == "download.progress"}
    keys = ("step", "progress", "eta_seconds")
    running = tuple(
        job | {key: news[job["id"]][key] for key in keys if key in news[job["id"]]} if job["id"] in news else job
        for job in view.running
    )
    return replace(view, running=running, transfers={**view.transfers, **transfers})


class Speeds:
    """How fast is each job, in seconds of audio for each second of time? From its progress since we first saw it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._first: dict[str, tuple[str, float, float]] = {}

    def of(self, job: Document) -> float | None:
        """Return the speed, None until two seconds were seen of the step that the job is in."""
        now, step, progress = self._monotonic(), job["step"], job["progress"]
        began = self._first.setdefault(job["id"], (step, now, progress))
        if began[0] != step:
            began = self._first[job["id"]] = (step, now, progress)
        seconds = now - began[1]
        if step != "convert" or seconds < 2:
            return None
        done: float = job["metrics"]["audio_seconds"] * (progress - began[2]) / 100
        return done / seconds


def _live(client: Client) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(markup=False, highlight=False, emoji=False)
    speeds = Speeds(time.monotonic)
    view = View()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show() -> None:
            live.update(drawn(view, speeds, datetime.now(UTC), console), refresh=True)

        def gone() -> None:
            nonlocal view
            view = replace(view, gone=True)
            show()

        with closing(batches(client, 1.0, gone=gone)) as heard:
            for events in heard:
                still = events and all(event.event in _STILL for event in events)
                view = moved(view, events)
                if not still:
                    view = unless_gone(partial(_looked, client, view), view)
                show()


def _looked(client: Client, before: View) -> View:
    status = client.get("status")
    waiting = client.get("jobs", status="waiting", limit=_SHOWN)["items"]
    return View(
        running=tuple(status["current"]),
        transfers={
            job["id"]: before.transfers[job["id"]] for job in status["current"] if job["id"] in before.transfers
        },
        waiting=tuple(reversed(waiting)),  # the oldest first
        queued=status["jobs"].get("queued", 0),
        paused=status["paused"],
        reasons=tuple(status["health"]["reasons"]),
    )


def drawn(view: View, speeds: Speeds, now: datetime, console: Console) -> RenderableType:
    """Return the view as rich shows it, in ASCII alone where the terminal knows no more."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    ascii_only = console.options.ascii_only

    def text(words: str, style: str = "") -> Text:
        safe = redaction.printable(redaction.redact(words))
        if ascii_only:
            safe = safe.encode("ascii", "backslashreplace").decode()
        return Text(safe, style=style)

    parts = [f"{len(view.running)} running", f"{view.queued} queued", f"{len(view.waiting)} waiting"]
    lines: list[RenderableType] = [text(", ".join(parts) + (" (paused)" if view.paused else ""), "bold")]
    if view.gone:
        lines.append(text(GONE, "yellow"))
    lines += [text(reason, "yellow") for reason in view.reasons]
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="crop" if ascii_only else "ellipsis")
    for _ in range(5):
        table.add_column(no_wrap=True)
    for job in view.running:
        left = job["eta_seconds"]
        table.add_row(
            text(job["name"]),
            text(job["step"] or "starting", "dim"),
            ProgressBar(total=100, completed=job["progress"], width=20),
            text(f"{job['progress']:.0f} %"),
            text(_pace(job, view.transfers.get(job["id"]), speeds.of(job), times="x" if ascii_only else "×")),
            text("" if left is None else f"{span(left)} left"),
        )
    lines.append(table)
    for job in view.waiting:
        again = datetime.fromisoformat(job["not_before"]) if job["not_before"] else None
        due = f" (next try {ahead(again, now)})" if again else ""
        lines.append(text(f"waiting: {job['name']} [{job['id'][:8]}]{due}"))
        if job["error"]:
            lines += [text(line, "yellow") for line in explained(job["error"], 2)]
    return Group(*lines)


def _pace(job: Document, transfer: Document | None, speed: float | None, *, times: str) -> str:
    """Say how fast a job is: times real time, or what has come of a transfer and at which rate."""
    if job["step"] == "download" and transfer is not None:
        return f"{size(transfer['bytes'])}, {size(transfer['bytes_per_second'])}/s"
    return "" if speed is None else f"{speed:.0f}{times}"
