"""Which options do several commands have? Each is told once, with what is refused about it."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document, errors too.")]
ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Read this file instead of the usual ones.")
]
Socket = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help="The service's socket, where it isn't in its usual place."),
]
Library = Annotated[str | None, typer.Option(metavar="DIR", help="Where finished books appear (paths.library).")]
Backup = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where verified copies of the sources are kept (paths.backup).")
]
Order = Annotated[
    str,
    typer.Option(
        metavar="names|tags",
        help="Whose order counts where names and tags disagree; says too that no file is missing.",
    ),
]


def check_order(order: str) -> None:
    """Refuse an order that is none; raises ``typer.BadParameter``."""
    if order not in {"auto", "names", "tags"}:
        raise typer.BadParameter("choose names or tags", param_hint="--order")


def refuse_empty(*given: tuple[str, str | None]) -> None:
    """Refuse empty paths, given with the names of their options: an unset variable would mean the current directory.

    Raises ``typer.BadParameter``.
    """
    for name, value in given:
        if value == "":
            raise typer.BadParameter("is empty", param_hint=name)
