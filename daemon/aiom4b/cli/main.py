"""Which commands are there?"""

from __future__ import annotations

from typing import Annotated

import typer

import aiom4b
from aiom4b.cli import backups, config, convert, output, verify

app = typer.Typer(
    name="aiom4b",
    help="Turns folders of audio into proved, chaptered audiobooks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(convert.convert)
app.command()(verify.verify)
app.add_typer(backups.app)
app.add_typer(config.app)


@app.command()
def version(*, json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False) -> None:
    """Print the version."""
    if json:
        output.print_json({"ok": True, "version": aiom4b.__version__})
    else:
        output.print_text(f"aiom4b {aiom4b.__version__}")
