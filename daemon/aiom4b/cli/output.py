"""How do answers and errors look? Answers are data on stdout, talk and errors go to stderr, or are JSON too if asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from aiom4b import redaction
from aiom4b.errors import Aiom4bError, Exit


def print_json(document: Mapping[str, Any]) -> None:
    r"""Write one JSON document to stdout: valid UTF-8 and one of a kind, whatever names and secrets are in it.

    A name's bytes that are not UTF-8 show as ``\\xff``; whoever needs them exactly adds the name in base64 beside it.
    """
    _write(redaction.json_text(document, indent=2))


def print_json_line(document: Mapping[str, Any]) -> None:
    """Write one JSON document on a line of its own, as one of many, else as `print_json` does."""
    _write(redaction.json_text(document))


def print_text(text: str) -> None:
    """Write lines of data to stdout; nothing in them can drive the terminal."""
    _write(_safe(text))


def _write(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise  # whoever read has what he wanted; click ends the program quietly
    except OSError as error:
        talk(f"error: The answer can't be written to standard output: {error.strerror}. [output.failed]")
        raise typer.Exit(Exit.FAILED) from error


def talk(text: str, *, style: str = "", to: Console | None = None) -> None:
    """Tell a person something on stderr, where it never mixes with data; ``style`` is one of rich's, for a terminal.

    ``to`` is the console that shows a live view, if there is one: others would write into the middle of it. Never fails:
    that nobody listens any more is no reason to stop making books.
    """
    _say(Text(_safe(text), style=style), to)


def _say(text: Text, to: Console | None) -> None:
    with suppress(OSError):
        (to or console()).print(text)


def console() -> Console:
    """Return a console on stderr, for progress too. It takes text as it is: a title like "[b]" is no markup."""
    return _Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


class _Console(Console):
    """Rich ends the program when its reader is gone (`2>&1 | head`), in the middle of a book."""

    def on_broken_pipe(self) -> None:
        """Fall silent, logs included."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        with suppress(OSError):  # a console of a test has no descriptor
            os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


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


def print_error(error: Aiom4bError, *, to: Console | None = None) -> None:
    """Write code, reason and remedy to stderr; further lines of a reason are indented, so that none looks like ours."""
    reason = _safe(error.reason).replace("\n", "\n  ")
    text = Text.assemble(("error: ", "bold red"), reason, (f" [{error.code}]", "dim"))
    text.append("\n").append("remedy: ", "bold").append(_safe(error.remedy).replace("\n", "\n  "))
    _say(text, to)


def _safe(text: str) -> str:
    """Return ``text`` without secrets, and each of its lines without what drives a terminal."""
    return "\n".join(map(redaction.printable, redaction.redact(text).split("\n")))
