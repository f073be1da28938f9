"""What can be asked about the settings? `aiom4b config show`, `example` and `check`, all without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiom4b.cli import output
from aiom4b.cli.options import ConfigFile, Json
from aiom4b.errors import Fatal

if TYPE_CHECKING:
    from aiom4b.config import Loaded

app = typer.Typer(name="config", help="Show, explain and check the settings.", no_args_is_help=True)


@app.command()
def show(
    *,
    config: ConfigFile = None,
    origin: Annotated[bool, typer.Option("--origin", help="Tell also where each value comes from.")] = False,
    json: Json = False,
) -> None:
    """Print every setting as it is in force now."""
    from aiom4b.config import flattened, toml

    loaded = _loaded(config, json=json)
    values = flattened(loaded.settings)
    if json:
        settings = [
            {"key": key, "value": value} | ({"origin": loaded.origins[key]} if origin else {})
            for key, value in values.items()
        ]
        output.print_json({"ok": True, "files": list(loaded.files), "settings": settings})
        return
    lines = []
    shown = None
    for key, value in values.items():
        table, name = key.split(".")
        if table != shown:
            lines += ["", f"[{table}]"] if shown else [f"[{table}]"]
            shown = table
        lines.append(f"{name} = {toml(value)}" + (f"  # {loaded.origins[key]}" if origin else ""))
    output.print_text("\n".join(lines))


@app.command()
def example() -> None:
    """Print a complete settings file with every setting explained."""
    from aiom4b.config import example

    output.print_text(example().removesuffix("\n"))


@app.command()
def check(*, config: ConfigFile = None, json: Json = False) -> None:
    """Check the settings: every mistake at once, and whether the directories get in each other's way."""
    from aiom4b.config import check_directories

    loaded = _loaded(config, json=json)
    try:
        check_directories(loaded.settings, [])
    except Fatal as error:
        output.fail(error, json)
    if json:
        output.print_json({"ok": True, "files": list(loaded.files)})
    else:
        output.talk("The settings are fine. Read: " + (", ".join(loaded.files) or "no file, only defaults"))


def _loaded(config: str | None, *, json: bool) -> Loaded:
    from aiom4b.config import InvalidSettings, load_with_origins

    try:
        return load_with_origins(config, {})
    except InvalidSettings as error:
        problems: list[dict[str, Any]] = [
            {"key": problem.key, "origin": problem.origin, "reason": problem.reason} for problem in error.problems
        ]
        output.fail(error, json, {"problems": problems})
