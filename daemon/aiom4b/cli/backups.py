"""What can be done with backups? `aiom4b backups list`, `verify` and `restore`, on the directory itself."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from aiom4b.cli import output
from aiom4b.cli.book_json import name
from aiom4b.cli.options import ConfigFile, Json
from aiom4b.errors import Aiom4bError, Exit

app = typer.Typer(name="backups", help="List, verify and restore backups of sources.", no_args_is_help=True)

Directory = Annotated[str | None, typer.Option("--backup", metavar="DIR", help="The backup directory (paths.backup).")]


@app.command("list")
def list_(*, backup: Directory = None, config: ConfigFile = None, json: Json = False) -> None:
    """List the complete backups, the oldest first."""
    from aiom4b.adapters import backups

    try:
        sets = backups.list_sets(_directory(backup, config))
    except Aiom4bError as error:
        output.fail(error, json)
    if json:
        items = [
            {
                **name("path", made.root),
                **name("source", made.source),
                "created": made.created.isoformat(),
                "fingerprint": made.fingerprint,
                "files": len(made.files),
                "bytes": sum(file.size for file in made.files),
            }
            for made in sets
        ]
        output.print_json({"ok": True, "items": items, "total": len(items)})
        return
    for made in sets:
        size = sum(file.size for file in made.files) / 1_000_000
        output.print_text(f"{made.root}  {len(made.files)} files, {size:.1f} MB")
    if not sets:
        output.talk("There are no backups there.")


@app.command()
def verify(
    sets: Annotated[
        list[str] | None, typer.Argument(metavar="[SET...]", help="Folders of backups; all by default.")
    ] = None,
    *,
    backup: Directory = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Read every file of the backups and compare it with what was copied."""
    from aiom4b.adapters import backups

    try:
        if sets:
            findings = {path: backups.verify_set(path) for path in map(os.path.abspath, sets)}
        else:
            directory = _directory(backup, config)
            findings = {made.root: backups.verify_set(made.root) for made in backups.list_sets(directory)}
            findings |= {path: (reason,) for path, reason in backups.damaged_sets(directory).items()}
    except Aiom4bError as error:
        output.fail(error, json)
    bad = any(findings.values())
    if json:
        items = [{**name("path", path), "ok": not found, "findings": list(found)} for path, found in findings.items()]
        output.print_json({"ok": not bad, "items": items, "total": len(items)})
    else:
        for path, found in findings.items():
            output.print_text(f"{path}: {'damaged' if found else 'good'}")
            for finding in found:
                output.print_text(f"  {finding}")
    if bad:
        raise typer.Exit(Exit.FAILED)


@app.command()
def restore(
    set_: Annotated[str, typer.Argument(metavar="SET", help="The folder of a backup.")],
    target: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the files shall be; made if it is missing.")],
    *,
    json: Json = False,
) -> None:
    """Copy a backup back, verified, over nothing that is there already."""
    from aiom4b.adapters import backups

    try:
        restored = backups.restore_set(os.path.abspath(set_), os.path.abspath(target))
    except Aiom4bError as error:
        output.fail(error, json)
    if json:
        output.print_json({"ok": True, "files": [name("path", path) for path in restored], "total": len(restored)})
    else:
        output.print_text(f"restored {len(restored)} files to {os.path.abspath(target)}")


def _directory(backup: str | None, config: str | None) -> str:
    from aiom4b import config as settings_of

    return os.path.abspath(backup) if backup is not None else settings_of.load(config, {}).paths.backup
