"""How do answers and errors look? Answers are data on stdout, talk and errors go to stderr, or are JSON too if asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from aiom4b import logs
from aiom4b.errors import Aiom4bError


def print_json(document: Mapping[str, Any]) -> None:
    r"""Write one JSON document to stdout: valid UTF-8 and one of a kind, whatever names and secrets are in it.

    A name's bytes that are not UTF-8 show as ``\\xff``; whoever needs them exactly adds the name in base64 beside it.
    """
    print(logs.json_text(document, indent=2))


def print_text(text: str) -> None:
    """Write lines of data to stdout; nothing in them can drive the terminal."""
    print(_safe(text))


def talk(text: str, *, style: str = "") -> None:
    """Tell a person something on stderr, where it never mixes with data; ``style`` is one of rich's, for a terminal."""
    console().print(Text(_safe(text), style=style))


def console() -> Console:
    """Return a console on stderr, for progress too. It takes text as it is: a title like "[b]" is no markup."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def fail(error: Aiom4bError, json: bool, details: Mapping[str, Any] | None = None) -> NoReturn:
    """Show ``error``, then leave with its exit code (``typer.Exit``).

    With ``json`` it is one document on stdout, ``{"ok": false, "error": {"code", "message", "remedy"}}`` with
    ``details`` beside these two, and stderr stays empty; else code, reason and remedy on stderr.
    """
    if json:
        problem = {"code": error.code, "message": error.reason, "remedy": error.remedy}
        print_json({"ok": False, "error": problem, **(details or {})})
    else:
        print_error(error)
    raise typer.Exit(error.exit) from error


def print_error(error: Aiom4bError) -> None:
    """Write code, reason and remedy to stderr; further lines of a reason are indented, so that none looks like ours."""
    reason = _safe(error.reason).replace("\n", "\n  ")
    text = Text.assemble(("error: ", "bold red"), reason, (f" [{error.code}]", "dim"))
    text.append("\n").append("remedy: ", "bold").append(_safe(error.remedy).replace("\n", "\n  "))
    console().print(text)


def _safe(text: str) -> str:
    """Return ``text`` without secrets, and each of its lines without what drives a terminal."""
    return "\n".join(map(logs.printable, logs.redact(text).split("\n")))
