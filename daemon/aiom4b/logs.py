"""How do we tell what happened? Events as JSON lines, or readable on a terminal, and never with a secret in them."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

from aiom4b import redaction

_Event = MutableMapping[str, Any]

_FILE_BYTES = 10_000_000
_OLD_FILES = 5

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Levels as syslog priorities, which journald reads from ``<N>`` at the start of a line (sd-daemon(3))."""


def configure(level: str, format: str, stream: TextIO | None = None, file: str | None = None) -> None:
    """Send our events, and what libraries log, to ``stream`` (standard error); calling it again replaces it all.

    ``level``, ``format`` and ``file`` as in the settings' table ``log``. One event is one line of JSON, or readable text on
    a terminal, in colour unless NO_COLOR is set; under journald each line starts with its priority. ``file`` gets JSON in any
    case and is rotated. Libraries are heard from ``warning`` up, from ``debug`` at level ``debug``. Raises OSError when the
    file can't be opened.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    console = format == "console" or (format == "auto" and terminal)
    line = _Line(console=console, colours=terminal and _colours_wanted(), prefixed=_read_by_journald(stream))
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    handlers[0].setFormatter(_formatted(line))
    if file is not None:
        handlers.append(
            logging.handlers.RotatingFileHandler(
                file, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8", errors="backslashreplace"
            )
        )
        handlers[1].setFormatter(_formatted(_Line(console=False, colours=False, prefixed=False)))
    number = logging.getLevelNamesMapping()[level.upper()]
    root, ours = logging.getLogger(), logging.getLogger("aiom4b")
    for old in root.handlers:
        if isinstance(old, logging.handlers.RotatingFileHandler):
            old.close()
    root.handlers[:] = handlers
    root.setLevel(number if number == logging.DEBUG else max(number, logging.WARNING))
    ours.setLevel(number)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _stamp,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_names: ours,
        cache_logger_on_first_use=False,
    )


def _formatted(line: _Line) -> ProcessorFormatter:
    before: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp,
    ]
    return ProcessorFormatter(foreign_pre_chain=before, processors=[line])


_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


class _Line:
    """The last processor: an event becomes the text that is written."""

    def __init__(self, *, console: bool, colours: bool, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._console = (
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
            if console
            else None
        )

    def __call__(self, logger: Any, name: str, event: _Event) -> str:
        ProcessorFormatter.remove_processors_meta(logger, name, event)
        priority = PRIORITIES.get(event["level"], 5)  # a level of a library's own: a notice
        event = structlog.processors.format_exc_info(logger, name, event)
        if self._console is None:
            text = redaction.json_text({key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event))
        else:
            text = redaction.redact(
                self._console(logger, name, {key: _shown(key, value) for key, value in redaction.hidden(event).items()})
            )
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines()) if self._prefixed else text


def _shown(key: str, value: Any) -> Any:
    """Return text that can't drive a terminal; a traceback (under ``exception``) keeps its lines."""
    if not isinstance(value, str):
        return value  # the renderer writes its repr, which escapes by itself
    lines = value.split("\n") if key == "exception" else [value]
    return "\n".join(map(redaction.printable, lines))


def _colours_wanted() -> bool:
    # https://no-color.org: any text but the empty one counts
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _read_by_journald(stream: TextIO) -> bool:
    """Tell whether ``stream`` is the one that systemd connected to the journal: $JOURNAL_STREAM is its device:inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # a stream in memory, or closed: it has no device
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
