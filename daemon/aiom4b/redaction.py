"""How is text made safe to show? Secrets are hidden, terminals and lines can't be broken, and JSON stays JSON."""

from __future__ import annotations

import json
import re
from bisect import insort
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"

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

_secrets: list[str] = []  # the longest first: one may be a part of another


def keep_secret(value: str) -> None:
    """From now on hide ``value`` wherever we write. At least 6 characters, or ordinary words would vanish: ValueError."""
    if len(value) < 6:
        raise ValueError("a secret of fewer than 6 characters can't be told from ordinary text")
    # Inside a JSON line or a repr it looks different as soon as it holds a quote, a backslash or a line end.
    spelled = {value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]}
    for one in spelled.difference(_secrets):
        insort(_secrets, one, key=_shortness)


def _shortness(secret: str) -> int:
    return -len(secret)


def redact(text: str) -> str:
    """Return ``text`` with every secret that we know, and everything that looks like one, replaced by ``[redacted]``."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def hidden(value: Any) -> Any:
    """Return a copy without secrets: by the names in a mapping, and in every text.

    Before the text is rendered, since a name and its value stand apart afterwards: quotes, escapes, colours, tables.
    """
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {
                hidden(key): HIDDEN if isinstance(key, str) and _NAMED_SECRET.fullmatch(key) else hidden(below)
                for key, below in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [hidden(below) for below in value]
        case _:
            return value


def json_text(document: object, *, indent: int | None = None) -> str:
    r"""Return JSON without secrets, valid UTF-8 and safe to show; what isn't JSON appears as its ``str``.

    Nothing else is lost but surrogates: a byte of a name that was not UTF-8 shows as ``\xff``, since many parsers refuse
    a lone surrogate even escaped.
    """
    # Hidden text by text, never in the finished JSON: a pattern there could take a bracket for a part of a secret.
    text = json.dumps(hidden(document), ensure_ascii=False, indent=indent, default=lambda value: redact(str(value)))
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
