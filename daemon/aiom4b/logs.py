"""How do we tell what happened? Events as JSON lines, or readable on a terminal, and never with a secret in them."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

_Event = MutableMapping[str, Any]

_FILE_BYTES = 10_000_000
_OLD_FILES = 5

HIDDEN = "[redacted]"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Levels as syslog priorities, which journald reads from ``<N>`` at the start of a line (sd-daemon(3))."""

_NAMED = (
    r"(?:access|refresh|adp|session|x-amz-access)[_-]?token|password|passphrase|secret|authorization|cookies?"
    r"|activation[_-]?bytes|device[_-]?private[_-]?key|(?:audible|api)[_-]?(?:key|iv)"
)
_NAMED_SECRET = re.compile(_NAMED, re.IGNORECASE)
_PATTERNS = (
    # Amazon's tokens tell by their first letters what they are, wherever they stand.
    (re.compile(r"At(?:na|nr|ms)\|[^\s\"'\\,;&}]+"), HIDDEN),
    # A key in PEM, whole or cut off, its line ends plain or escaped; never past a quote, so that JSON stays JSON.
    (re.compile(r"-----BEGIN [A-Z ]+-----(?:[A-Za-z0-9+/=\s]|\\+[nr])*(?:-----END [A-Z ]+-----)?"), HIDDEN),
    # name=value, name: value, "name": "value", also with the quotes escaped
    (
        re.compile(
            rf"((?<![a-z0-9])(?:{_NAMED})\\?[\"']?\s*[=:]\s*\\?[\"']?)(?:Bearer )?[^\s\"'\\,;&}}]+", re.IGNORECASE
        ),
        rf"\g<1>{HIDDEN}",
    ),
    # Key and iv are everyday words: they count only before hex digits.
    (
        re.compile(r"((?<![a-z0-9])(?:key|iv)\\?[\"']?\s*[=:]\s*\\?[\"']?)[0-9a-f]{8,}", re.IGNORECASE),
        rf"\g<1>{HIDDEN}",
    ),
)
# What breaks a line, drives a terminal or turns the direction of writing; JSON takes it escaped, without loss.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_secrets: set[str] = set()


def keep_secret(value: str) -> None:
    """From now on hide ``value`` wherever we write. At least 6 characters, or ordinary words would vanish: ValueError."""
    if len(value) < 6:
        raise ValueError("a secret of fewer than 6 characters can't be told from ordinary text")
    # Inside a JSON line or a repr it looks different as soon as it holds a quote, a backslash or a line end.
    _secrets.update({value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]})


def redact(text: str) -> str:
    """Return ``text`` with every secret that we know, and everything that looks like one, replaced by ``[redacted]``."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _hidden(value: Any) -> Any:
    """Return a copy without secrets: by the names in a mapping, and in every text.

    Before the text is rendered, since a name and its value stand apart afterwards: quotes, escapes, colours, tables.
    """
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {
                _hidden(key): HIDDEN if isinstance(key, str) and _NAMED_SECRET.fullmatch(key) else _hidden(below)
                for key, below in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_hidden(below) for below in value]
        case _:
            return value


def json_text(document: object, *, indent: int | None = None) -> str:
    r"""Return JSON without secrets, valid UTF-8 and safe to show; what isn't JSON appears as its ``str``.

    Nothing else is lost but surrogates: a byte of a name that was not UTF-8 shows as ``\xff``, since many parsers refuse
    a lone surrogate even escaped.
    """
    # Hidden text by text, never in the finished JSON: a pattern there could take a bracket for a part of a secret.
    text = json.dumps(_hidden(document), ensure_ascii=False, indent=indent, default=lambda value: redact(str(value)))
    return _UNSAFE_IN_JSON.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return _visible(char).replace("\\", "\\\\") if "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"


def printable(text: str) -> str:
    r"""Return ``text`` on one line that can't drive a terminal: control, bidi and surrogate characters as ``\x1b``."""
    return "".join(char if char.isprintable() else _visible(char) for char in text)


def _visible(char: str) -> str:
    byte = 0xDC80 <= ord(char) <= 0xDCFF  # os.fsdecode hides byte b as U+DC00 + b
    return f"\\x{ord(char) - 0xDC00:02x}" if byte else repr(char)[1:-1]


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
    before: list[structlog.typing.Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _stamp]
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
            text = json_text({key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event))
        else:
            text = redact(
                self._console(logger, name, {key: _shown(key, value) for key, value in _hidden(event).items()})
            )
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines()) if self._prefixed else text


def _shown(key: str, value: Any) -> Any:
    """Return text that can't drive a terminal; a traceback (under ``exception``) keeps its lines."""
    if not isinstance(value, str):
        return value  # the renderer writes its repr, which escapes by itself
    lines = value.split("\n") if key == "exception" else [value]
    return "\n".join(map(printable, lines))


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
