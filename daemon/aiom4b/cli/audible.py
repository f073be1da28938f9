"""What is in the Audible library, and how do its titles come here? `aiom4b audible sync`, `list`, `download`."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Annotated

import typer

from aiom4b.cli import accounts, output
from aiom4b.cli.accounts import check_profile
from aiom4b.cli.client import PAGE, Client, Document, asking
from aiom4b.cli.following import batches, tell_gone
from aiom4b.cli.options import Json, Socket
from aiom4b.cli.service import tell_job
from aiom4b.cli.wording import columns, counted, explained, found
from aiom4b.errors import Exit, NeedsAttention

app = typer.Typer(
    name="audible", help="Sign in at Audible, and fetch what you have bought there.", no_args_is_help=True
)
app.command()(accounts.login)
app.command()(accounts.finish)
app.command("import")(accounts.import_)
app.command()(accounts.status)
app.command()(accounts.logout)

OneProfile = Annotated[str | None, typer.Option("--profile", metavar="NAME", help="Only of this account.")]
_STATUSES = ("new", "downloading", "downloaded", "converting", "completed", "unavailable")


@app.command()
def sync(
    *,
    full: Annotated[bool, typer.Option("--full", help="List the whole library, not only what has changed.")] = False,
    profile: OneProfile = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Don't wait for the result.")] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Look for new titles now, without waiting for the next round."""
    check_profile(profile)
    with asking(socket, json=json) as client:
        wanted: Document = {"full": full} | ({"profile": profile} if profile else {})
        if no_wait:
            answer = client.post("library/sync", wanted)
            if json:
                output.print_json({"ok": True, **answer})
            else:
                output.print_text(f"syncing: {', '.join(answer['profiles'])}")
            return
        reports = _synced(client, wanted)
        failed = [one for one in reports if "error" in one]
        if json:
            output.print_json({"ok": not failed, "items": reports, "total": len(reports)})
        for one in () if json else reports:
            _tell_synced(one)
        if failed:
            raise typer.Exit(Exit.FAILED)


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(metavar="S", help=f"Only {', '.join(_STATUSES)}.")] = None,
    search: Annotated[str, typer.Option(metavar="TEXT", help="Only titles with this in title, author and so on.")] = "",
    profile: OneProfile = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, metavar="N", help="How many at most.")] = 100,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="How many of the first to leave out.")] = 0,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """List the titles of the library, where each stands, and why it can't be had."""
    check_profile(profile)
    if status is not None and status not in _STATUSES:
        raise typer.BadParameter(f"choose {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}", param_hint="--status")
    with asking(socket, json=json) as client:
        answer = client.get(
            "library", status=status, search=search or None, profile=profile, limit=limit, offset=offset
        )
        if json:
            output.print_json({"ok": True, **answer})
            return
        titles, total = answer["items"], answer["total"]
        if titles:
            output.print_text("\n".join(_lines(titles)))
        if not titles:
            output.talk(
                "There are no such titles." if total == 0 else f"There are only {counted(total, 'such title')}."
            )
        elif total > len(titles):
            output.talk(f"{offset + 1} to {offset + len(titles)} of {counted(total, 'title')}; --offset shows more.")


@app.command()
def download(
    asins: Annotated[
        list[str] | None, typer.Argument(metavar="[ASIN...]", help="Titles, as `aiom4b audible list` names them.")
    ] = None,
    *,
    new: Annotated[bool, typer.Option("--new", help="All that are new.")] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Fetch titles and make their books. What is here already is not fetched again."""
    if bool(asins) == new:
        raise typer.BadParameter("name titles, or say --new", param_hint="[ASIN...]")
    if wrong := [asin for asin in asins or () if not re.fullmatch("[A-Za-z0-9]{10}", asin)]:
        raise typer.BadParameter(f"{wrong[0]!r} is no ASIN, which has ten letters and digits", param_hint="[ASIN...]")
    with asking(socket, json=json) as client:
        jobs = client.post(
            "jobs/download",
            {"new": True} if new else {"asins": [asin.upper() for asin in asins or ()]},
            errand=True,  # each of thousands is a row that is on the disk before the answer
        )["jobs"]
        if json:
            output.print_json({"ok": True, "jobs": jobs})
            return
        for job in jobs:
            tell_job(job)
        if not jobs:
            output.talk("There is nothing new.")


def _synced(client: Client, wanted: Document) -> list[Document]:
    """Ask for a sync and return what came of it for each account: a report, or profile and error."""
    heard_of: dict[str, Document] = {}
    profiles: list[str] = []
    asked = False

    def gone() -> None:
        nonlocal asked
        asked = False
        tell_gone()

    with closing(batches(client, 60.0, gone=gone)) as heard:
        for events in heard:
            if not asked or any(event.event == "reset" for event in events):
                # Only now, so that no answer is missed; once more if it may have been, which costs a request at most.
                profiles, asked = client.post("library/sync", wanted)["profiles"], True
            for event in events:
                data = event.data
                if data.get("profile") not in profiles or (wanted["full"] and not data.get("full", True)):
                    continue
                if event.event == "library.synced":
                    heard_of[data["profile"]] = data
                elif event.event == "library.not_synced":
                    heard_of[data["profile"]] = {"profile": data["profile"], "error": data["problem"]}
            if all(profile in heard_of for profile in profiles):
                break
    return [heard_of[profile] for profile in profiles]


def _tell_synced(report: Document) -> None:
    if problem := report.get("error"):
        reason = f"{report['profile']}: {problem['message']}"
        output.print_error(NeedsAttention(problem["code"], reason, remedy=problem["remedy"]))
    else:
        output.print_text(f"{report['profile']}: {found(report)}")


def _lines(titles: list[Document]) -> list[str]:
    several = len({title["profile"] for title in titles}) > 1
    rows = [
        (
            title["asin"],
            *((title["profile"],) if several else ()),
            title["status"],
            f"{title['runtime_minutes'] // 60}:{title['runtime_minutes'] % 60:02}",
            " – ".join(filter(None, [title["title"], ", ".join(title["authors"])])),
        )
        for title in titles
    ]
    lines = []
    for title, line in zip(titles, columns(rows, right=frozenset({len(rows[0]) - 2})), strict=True):
        lines.append(line)
        if title["reason"]:
            lines += explained(title["reason"], 12)
    return lines
