"""Which commands are there?"""

from __future__ import annotations

from typing import Annotated

import typer

import aiom4b
from aiom4b.cli import audible, backups, config, convert, jobs, output, run, service, verify, watch

app = typer.Typer(
    name="aiom4b",
    help="Turns folders of audio into proved, chaptered audiobooks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command()(convert.convert)
app.command()(verify.verify)
app.command()(service.status)
app.command()(watch.watch)
app.command("list")(service.list_)
app.command()(service.submit)
app.command()(service.scan)
app.command()(service.pause)
app.command()(service.resume)
app.command()(service.reload)
app.command()(service.forget)
app.add_typer(jobs.app)
app.add_typer(audible.app)
app.add_typer(backups.app)
app.add_typer(config.app)


@app.command()
def version(*, json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False) -> None:
    """Print the version."""
    if json:
        output.print_json({"ok": True, "version": aiom4b.__version__})
    else:
        output.print_text(f"aiom4b {aiom4b.__version__}")
