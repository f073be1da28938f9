"""What can be asked of a job, and told to it? `aiom4b jobs list`, `show`, `log`, `cancel`, `retry`, `order` and the rest."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from aiom4b.cli import output
from aiom4b.cli.client import PAGE, Client, Document, asking, exact, given
from aiom4b.cli.options import Json, Socket
from aiom4b.cli.wording import ago, ahead, columns, counted, explained, length, moment, size, span
from aiom4b.errors import Exit, NeedsAttention

app = typer.Typer(
    name="jobs", help="Look at jobs and steer them. ID is a job's id or its beginning.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or at least the first 4 characters of it.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="S", help="queued, running, waiting, completed, failed or cancelled; repeatable."),
]

_SHORTEST = 4
_STATUSES = ("queued", "running", "waiting", "completed", "failed", "cancelled")
_ENDED = _STATUSES[3:]


def _check(given_ones: list[str] | None, known: tuple[str, ...]) -> None:
    """Refuse a status that can't be meant here; raises ``typer.BadParameter``."""
    for one in given_ones or ():
        if one not in known:
            raise typer.BadParameter(f"choose {', '.join(known[:-1])} or {known[-1]}", param_hint="--status")


@app.command("list")
def list_(
    *,
    status: Statuses = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, metavar="N", help="How many at most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="How many of the newest to leave out.")] = 0,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """List jobs, the newest first, with the reason of each that doesn't go on."""
    _check(status, _STATUSES)
    with asking(socket, json=json) as client:
        answer = client.get("jobs", status=status, limit=limit, offset=offset)
        if json:
            output.print_json({"ok": True, **answer})
            return
        jobs, total = answer["items"], answer["total"]
        print_jobs(jobs)
        if not jobs:
            output.talk("There are no such jobs." if total == 0 else f"There are only {counted(total, 'such job')}.")
        elif total > len(jobs):
            output.talk(f"{offset + 1} to {offset + len(jobs)} of {counted(total, 'job')}; --offset shows more.")


@app.command()
def show(id: Id, *, socket: Socket = None, json: Json = False) -> None:
    """Show everything about a job, the remedy too."""
    with asking(socket, json=json) as client:
        job = _job(client, id)
        if json:
            output.print_json({"ok": True, "job": job})
            return
        rows = [(label, value) for label, value in _facts(job, datetime.now(UTC)) if value]
        output.print_text("\n".join(columns(rows)))


@app.command()
def log(id: Id, *, socket: Socket = None, json: Json = False) -> None:
    """Show what happened to a job, the oldest first."""
    with asking(socket, json=json) as client:
        answer = client.get(f"jobs/{_full(client, id)}/log")
        if json:
            output.print_json({"ok": True, **answer})
            return
        for line in answer["items"]:
            particulars = " ".join(f"{key}={value}" for key, value in line["data"].items())
            output.print_text(f"{moment(line['at'])}  {line['event']}  {particulars}".rstrip())


@app.command()
def cancel(id: Id, *, socket: Socket = None, json: Json = False) -> None:
    """Stop a job for good; its source stays as it is."""
    with asking(socket, json=json) as client:
        _tell(client.post(f"jobs/{_full(client, id)}/cancel"), "cancelled", json=json)


@app.command()
def retry(id: Id, *, socket: Socket = None, json: Json = False) -> None:
    """Let a job that failed, waits or was cancelled go on now, from where it was."""
    with asking(socket, json=json) as client:
        _tell(client.post(f"jobs/{_full(client, id)}/retry"), "goes on", json=json)


@app.command()
def order(
    id: Id,
    choice: Annotated[
        list[str], typer.Argument(metavar="names|tags|FILE...", help="Whose order counts, or all files in their order.")
    ],
    *,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Say in which order a book's files are to be played, and let the job go on.

    FILE is a path inside the book's folder; every audio file of the book has to be named, once.
    """
    if len(choice) == 1 and choice[0] not in {"names", "tags"} and "." not in choice[0]:
        raise typer.BadParameter("choose names or tags, or name all files", param_hint="names|tags|FILE...")
    with asking(socket, json=json) as client:
        job = _job(client, id)
        body = (
            {"by": choice[0]}
            if choice in (["names"], ["tags"])
            else {"files": [given(file) for file in _inside(choice, job)]}
        )
        _tell(client.post(f"jobs/{job['id']}/order", body), "goes on in that order", json=json)


@app.command(context_settings={"ignore_unknown_options": True})
def priority(
    id: Id,
    value: Annotated[int, typer.Argument(metavar="NUMBER", help="The larger, the sooner; 0 is usual, -1 comes last.")],
    *,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Move a job forward or back in the queue."""
    with asking(socket, json=json) as client:
        job = client.post(f"jobs/{_full(client, id)}/priority", {"priority": value})
        _tell(job, f"priority {value}", json=json)


@app.command()
def delete(id: Id, *, socket: Socket = None, json: Json = False) -> None:
    """Forget a job that has ended. Its book, its backup and its source stay."""
    with asking(socket, json=json) as client:
        full = _full(client, id)
        client.delete(f"jobs/{full}")
        if json:
            output.print_json({"ok": True, "deleted": 1})
        else:
            output.print_text(f"deleted: {full}")


@app.command()
def clear(
    *,
    status: Statuses = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Only those that ended longer ago.")
    ] = None,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Forget all jobs that have ended. Their books, backups and sources stay."""
    _check(status, _ENDED)
    with asking(socket, json=json) as client:
        wanted = {"status": status, "older_than_days": older_than}
        answer = client.post("jobs/clear", {key: value for key, value in wanted.items() if value is not None})
        if json:
            output.print_json({"ok": True, **answer})
        else:
            output.print_text(f"deleted: {counted(answer['cleared'], 'job')}")


def print_jobs(jobs: list[Document]) -> None:
    """Print a table of jobs, and below each that doesn't go on its reason and remedy."""
    if not jobs:
        return
    now = datetime.now(UTC)
    rows = [(job["id"][:8], _standing(job), ago(_at(job["updated"]), now), _named(job)) for job in jobs]
    lines = []
    for job, line in zip(jobs, columns(rows), strict=True):
        lines.append(line)
        if job["error"] is not None:
            lines += explained(job["error"], 10)
    output.print_text("\n".join(lines))


def _standing(job: Document) -> str:
    if job["status"] == "running":
        return f"running {job['progress']:.0f} %"
    return str(job["status"])


def _named(job: Document) -> str:
    return f"{job['name']} (download)" if job["kind"] == "download" else job["name"]


def _tell(job: Document, done: str, *, json: bool) -> None:
    if json:
        output.print_json({"ok": True, "job": job})
    else:
        output.print_text(f"{done}: {job['name']} ({job['id'][:8]})")


def _facts(job: Document, now: datetime) -> list[tuple[str, str]]:
    """Return label and text for all that is known of a job; "" where nothing is."""
    options, metrics, error = job["options"], job["metrics"], job["error"]
    status = str(job["status"])
    if job["status"] == "running":
        left = f", {span(job['eta_seconds'])} left" if job["eta_seconds"] is not None else ""
        status += f": {job['step'] or 'starting'}, {job['progress']:.0f} %{left}"
    chosen = options["order"] if isinstance(options["order"], str) else ", ".join(options["order"])
    download = job["kind"] == "download"
    asked = {
        "order": chosen if chosen != "auto" else "",
        "output": options["output"],
        "naming scheme": options["naming_scheme"],
    }
    return [
        ("id", job["id"]),
        ("kind", job["kind"] if download else ""),
        ("name", job["name"]),
        ("ASIN", job["asin"] or ""),
        ("status", status),
        ("reason", f"{error['message']} [{error['code']}]" if error else ""),
        ("remedy", error["remedy"] if error else ""),
        ("next try", _when(job["not_before"], now)),
        *(("folder", folder) for folder in job["folders"]),
        ("files" if download else "book", job["output"] or ""),
        ("book id", job["book"] or ""),
        ("backup", job["backup"] or ""),
        *((f"asked {what}", value) for what, value in asked.items() if value),
        ("asked", ", ".join(word for word in ("merge", "again") if options[word])),
        ("priority", str(job["priority"])),
        ("attempts", str(job["attempts"])),
        ("created", _when(job["created"], now)),
        ("started", _when(job["started"], now)),
        ("ended", _when(job["ended"], now)),
        ("audio", length(metrics["audio_seconds"]) if metrics["audio_seconds"] else ""),
        ("read", size(metrics["bytes_in"]) if metrics["bytes_in"] else ""),
        ("written", size(metrics["bytes_out"]) if metrics["bytes_out"] else ""),
        ("time", _seconds(metrics["wall_seconds"])),
        ("CPU time", _seconds(metrics["cpu_seconds"])),
        ("memory", size(metrics["peak_memory"]) if metrics["peak_memory"] else ""),
        ("fingerprint", job["fingerprint"] or ""),
    ]


def _seconds(steps: Document) -> str:
    return ", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps.items())


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _when(text: str | None, now: datetime) -> str:
    if text is None:
        return ""
    at = _at(text)
    return f"{moment(text)} ({ahead(at, now) if at > now else ago(at, now)})"


def _inside(files: list[str], job: Document) -> list[str]:
    """Return paths as the job knows them: those that exist below its only folder, as the shell completes them, too."""
    if len(job["folders"]) != 1:
        return files
    root = exact(job["folders"][0], job.get("folders_b64", [None])[0]) + "/"
    found = []
    for file in files:
        path = os.path.abspath(file)
        found.append(path.removeprefix(root) if path.startswith(root) and os.path.lexists(path) else file)
    return found


def _job(client: Client, beginning: str) -> Document:
    return client.get(f"jobs/{_full(client, beginning)}")


def _full(client: Client, beginning: str) -> str:
    """Return the whole id of the one job whose id begins so.

    Raises NeedsAttention ``job.id`` for what can't be an id, ``job.missing`` and ``job.ambiguous``.
    """
    beginning = beginning.lower()
    if not re.fullmatch(r"[0-9a-f-]{4,36}", beginning):
        raise NeedsAttention(
            "job.id",
            f"{beginning} is no job's id.",
            remedy=f"Give at least the first {_SHORTEST} characters of an id that `aiom4b jobs list` shows.",
            exit=Exit.USAGE,
        )
    if len(beginning) == 36:
        return beginning
    ids: dict[str, str] = {job["id"]: job["name"] for job in client.every("jobs", id=beginning)}
    if not ids:
        raise NeedsAttention(
            "job.missing",
            f"No job's id begins with {beginning}.",
            remedy="`aiom4b jobs list` shows the jobs that there are.",
            exit=Exit.NOT_FOUND,
        )
    if len(ids) > 1:
        these = "\n".join(f"{id}  {name}" for id, name in sorted(ids.items()))
        raise NeedsAttention(
            "job.ambiguous",
            f"The ids of {len(ids)} jobs begin with {beginning}:\n{these}",
            remedy="Give more characters of the one that you mean.",
            exit=Exit.USAGE,
        )
    return next(iter(ids))
