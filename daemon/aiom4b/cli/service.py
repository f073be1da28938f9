"""What can be asked of the service as a whole, and told to it? `aiom4b status`, `list`, `submit`, `pause` and the rest."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from aiom4b.cli import output
from aiom4b.cli.client import Client, Document, asking, exact, given
from aiom4b.cli.options import Json, Order, Socket, check_order
from aiom4b.cli.wording import ago, columns, counted, explained, size, span
from aiom4b.errors import Exit, NeedsAttention


def status(*, socket: Socket = None, json: Json = False) -> None:
    """Show in a few lines how the service is and what it is doing."""
    with asking(socket, json=json) as client:
        answer = client.get("status")
        if json:
            output.print_json({"ok": True, **answer})
        else:
            output.print_text("\n".join(columns(_status(answer))))


def list_(*, socket: Socket = None, json: Json = False) -> None:
    """List every entry of the source: where it stands, and why it doesn't go on."""
    with asking(socket, json=json) as client:
        entries = client.every("folders")
        if json:
            output.print_json({"ok": True, "items": entries, "total": len(entries)})
        elif entries:
            output.print_text("\n".join(_entries(entries, datetime.now(UTC))))
        else:
            output.talk("The source is empty.")


def scan(*, socket: Socket = None, json: Json = False) -> None:
    """Look through the source now, without waiting for the next round."""
    _command("scan", "The service looks through its source.", socket, json=json)


def pause(*, socket: Socket = None, json: Json = False) -> None:
    """Let all work stand still until `aiom4b resume`, also over restarts."""
    _command("pause", "Paused. `aiom4b resume` goes on.", socket, json=json)


def resume(*, socket: Socket = None, json: Json = False) -> None:
    """Go on after `aiom4b pause`."""
    _command("resume", "The service goes on.", socket, json=json)


def reload(*, socket: Socket = None, json: Json = False) -> None:
    """Read the settings again; if there is a mistake in them, all stays as it was."""
    with asking(socket, json=json) as client:
        answer = client.post("reload")
        if json:
            output.print_json({"ok": True, **answer})
            return
        output.print_text("changed: " + (", ".join(answer["changed"]) or "nothing"))
        if answer["needs_restart"]:
            output.print_text(f"in force after a restart: {', '.join(answer['needs_restart'])}")


def submit(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Folders or files in the source, or their names in it.")
    ],
    *,
    merge: Annotated[bool, typer.Option("--merge", help="All of them are one book.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Even if the book is in the library already.")] = False,
    to: Annotated[
        str | None, typer.Option("--output", metavar="P", help="The book's path in the library; for one book.")
    ] = None,
    naming_scheme: Annotated[
        str | None, typer.Option(metavar="T", help="Stands in for library.template this once.")
    ] = None,
    order: Order = "auto",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until they have ended; 0 only if all were completed.")
    ] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Convert folders of the source now, without waiting for them to settle."""
    check_order(order)
    asked = {
        "merge": merge,
        "again": again,
        "naming_scheme": naming_scheme,
        "order": order if order != "auto" else None,
    }
    with asking(socket, json=json) as client:
        body: Document = {"folders": [given(_place(path)) for path in paths]} | {
            key: value for key, value in asked.items() if value
        }
        if to:
            body["output"] = given(to)
        jobs = client.post("convert", body)["jobs"]
        if not json:
            for job in jobs:
                tell_job(job)
        if wait:
            from aiom4b.cli.following import tell_gone, until_ended

            jobs = until_ended(client, jobs, (lambda _: None) if json else tell_job, gone=tell_gone)
        failed = wait and any(job["status"] != "completed" for job in jobs)
        if json:
            output.print_json({"ok": not failed, "jobs": jobs})
        if failed:
            raise typer.Exit(Exit.FAILED)


def forget(
    what: Annotated[str, typer.Argument(metavar="PATH|FINGERPRINT", help="An entry of the source, or a fingerprint.")],
    *,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Forget that a book was made, so that the same content is converted again when it is dropped again.

    The book, its backup and the source stay.
    """
    with asking(socket, json=json) as client:
        fingerprint = re.fullmatch(r"[0-9a-fA-F]{64}", what)
        answer = client.post("forget", {"what": what.lower() if fingerprint else given(_entry(client, what))})
        if json:
            output.print_json({"ok": True, **answer})
        else:
            output.print_text(f"forgotten: {counted(answer['forgotten'], 'source')}")


def _command(name: str, done: str, socket: str | None, *, json: bool) -> None:
    with asking(socket, json=json) as client:
        answer = client.post(name)
        if json:
            output.print_json({"ok": True, **answer})
        else:
            output.print_text(done)


def _place(path: str) -> str:
    """Return what exists here by its absolute path; anything else is a name in the source."""
    if path == "":
        # What an unset variable of a script leaves behind; it would otherwise mean the whole source.
        raise NeedsAttention(
            "path.empty", "A path is empty.", remedy="Name folders or files of the source.", exit=Exit.USAGE
        )
    return os.path.abspath(path) if os.path.lexists(path) else path


def _entry(client: Client, what: str) -> str:
    """Return the name of the entry of the source that a path lies in; what is no path inside the source is a name itself."""
    path = os.path.realpath(_place(what))
    disks = client.get("status")["disks"]
    (source,) = (exact(disk["path"], disk.get("path_b64")) for disk in disks if disk["place"] == "source")
    first = os.path.relpath(path, os.path.realpath(source)).split("/")[0]
    return what.rstrip("/") if first in {".", ".."} else first


def tell_job(job: Document) -> None:
    """Tell in a line what has become of a job, and below it why it doesn't go on."""
    output.print_text(f"{job['status']}: {job['output'] or job['name']} ({job['id'][:8]})")
    if job["error"]:
        output.print_text("\n".join(explained(job["error"], 2)))


def _status(answer: Document) -> list[tuple[str, str]]:
    """Return label and text for each line of `aiom4b status`."""
    health, watcher = answer["health"], answer["health"]["watcher"]
    up = span(answer["uptime_seconds"]) + (", paused" if answer["paused"] else "")
    lines = [("service", f"aiom4b {answer['version']}, up for {up}"), ("health", health["status"])]
    lines += [("", reason) for reason in health["reasons"]]
    if watcher is not None:
        watched = "by its events" if watcher["mode"] == "events" else "by looking again and again"
        lines.append(("source", f"{counted(watcher['entries'], 'entry', 'entries')}, watched {watched}"))
    lines += [("", states) for states in [_counts(answer["entries"])] if states]
    lines.append(("jobs", _counts(answer["jobs"]) or "none"))
    for job in answer["current"]:
        left = f", {span(job['eta_seconds'])} left" if job["eta_seconds"] is not None else ""
        lines.append(("", f"{job['name']}: {job['step'] or 'starting'}, {job['progress']:.0f} %{left}"))
    free = [f"{disk['place']} {size(disk['available'])}" for disk in answer["disks"] if disk["available"] is not None]
    return [*lines, ("free", ", ".join(free))]


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in states.items() if count)


def _entries(entries: list[Document], now: datetime) -> list[str]:
    rows = [
        (
            entry["state"].replace("_", " "),
            counted(entry["files"], "file"),
            size(entry["size"]),
            ago(datetime.fromisoformat(entry["changed"]), now),
            entry["name"],
        )
        for entry in entries
    ]
    lines = []
    for entry, line in zip(entries, columns(rows, right=frozenset({1, 2})), strict=True):
        lines.append(line)
        if problem := entry["error"]:
            lines += explained(problem, 4)
    return lines
