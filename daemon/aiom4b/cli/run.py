"""How is the service started? `aiom4b run`, in the foreground: systemd or a terminal keeps it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from aiom4b.cli import output
from aiom4b.cli.options import Backup, ConfigFile, Library, refuse_empty
from aiom4b.errors import Aiom4bError


def run(
    *,
    source: Annotated[str | None, typer.Option(metavar="DIR", help="What is watched for books (paths.source).")] = None,
    library: Library = None,
    backup: Backup = None,
    state: Annotated[
        str | None, typer.Option(metavar="DIR", help="What has to survive a restart (paths.state).")
    ] = None,
    socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the command line is answered (paths.socket).")
    ] = None,
    config: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Work off what is there now, then end: with 0 if all of it was published.")
    ] = False,
) -> None:
    """Watch the source directory and make every complete folder in it a book, until a signal ends it.

    SIGTERM ends it in order, a second one at once; SIGHUP reads the settings anew.
    """
    from aiom4b.engine import nursery

    nursery.start()  # it imports what workers need while we import what we need

    import anyio

    from aiom4b import config as settings_of
    from aiom4b import logs
    from aiom4b.adapters import files
    from aiom4b.app.service import serve

    places = {"source": source, "library": library, "backup": backup, "state": state, "socket": socket}
    refuse_empty(*((f"--{name}", value) for name, value in places.items()))
    paths = {name: os.path.abspath(value) for name, value in places.items() if value is not None}
    overrides: dict[str, Any] = {"paths": paths} if paths else {}

    def load() -> settings_of.Settings:
        return settings_of.load(config, overrides)

    try:
        log = load().log
        with files.translated(log.file or "", "opening the log file"):
            logs.configure(log.level, log.format, file=log.file)
        code = anyio.run(lambda: serve(load, once=once))
    except Aiom4bError as error:
        output.fail(error, json=False)
    raise typer.Exit(code)
