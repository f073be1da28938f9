"""How does text that strangers wrote become readable and safe?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LINE_LIMIT = 1_000
"""Longest title, name or label kept, in characters."""
PROSE_LIMIT = 100_000
"""Longest description kept, in characters."""

# Overrides and isolates of writing direction show a name as something that it isn't; the byte order mark shows nothing.
_DECEIVING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
_WORD = re.compile(r"[A-Za-z\x80-\xff]+")


def line(value: str) -> str:
    """Return ``value`` as one line: no control characters or surrogates, white space single, at most `LINE_LIMIT` long."""
    return " ".join(_printable(value, keep="").split())[:LINE_LIMIT].rstrip()


def prose(value: str) -> str:
    """Return ``value`` as `line` does, but with its line breaks, each a line feed, and at most `PROSE_LIMIT` long."""
    unified = value.replace("\r\n", "\n").replace("\r", "\n")
    lines = (" ".join(part.split()) for part in _printable(unified, keep="\n").split("\n"))
    return "\n".join(lines).strip()[:PROSE_LIMIT].rstrip()


def _printable(value: str, keep: str) -> str:
    kept = []
    for character in value.translate(_DECEIVING):
        if character in keep:
            kept.append(character)
        elif character.isspace():
            kept.append(" ")
        elif unicodedata.category(character) not in {"Cc", "Cs", "Cn"}:
            kept.append(character)
    return "".join(kept)


def decode(data: bytes) -> str:
    """Return the text of a file whose encoding nobody declared: by its byte order mark, as UTF-8, else by `code_page`."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        latin = data.decode("latin-1")
        return repaired(latin, code_page([latin]) or "cp1252")


def code_page(texts: Iterable[str]) -> str | None:
    """Return the encoding in which bytes were written that somebody decoded as Latin-1, None when Latin-1 may be right.

    All texts of one writer together give the evidence, which has to be strong, since a wrong repair destroys what was
    right: valid UTF-8; Shift-JIS with kana in it; CP1251 when whole words, four letters and longer, consist of accented
    letters only (no language of Western Europe has one) and none mixes them with plain ones; CP1252 when the places of
    the C1 controls, which no text needs, are used.
    """
    joined = "\n".join(texts)
    raw = joined.encode("latin-1", "replace")
    if raw.isascii():
        return None
    if _decodes(raw, "utf-8"):
        return "utf-8"
    has_controls = any(0x80 <= byte < 0xA0 for byte in raw)
    if has_controls and _decodes(raw, "cp932"):
        kana = sum("\u3040" <= character <= "\u30ff" for character in raw.decode("cp932"))
        if kana >= 2:
            return "cp932"
    words = [word for word in _WORD.findall(joined) if not word.isascii()]
    if (
        any(len(word) >= 4 for word in words)
        and all(_could_be_cyrillic(word) for word in words)
        and _decodes(raw, "cp1251")
    ):
        return "cp1251"
    return "cp1252" if has_controls else None


def repaired(value: str, encoding: str | None) -> str:
    """Return ``value`` as it was meant, if its Latin-1 characters are bytes of ``encoding``; otherwise unchanged.

    Text that is UTF-8 by itself is taken as such whatever ``encoding`` says: one file may hold both.
    """
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        return value
    if _decodes(raw, "utf-8"):
        return raw.decode("utf-8")
    if encoding == "cp1252":
        return raw.decode("cp1252", "replace")
    return raw.decode(encoding) if encoding and _decodes(raw, encoding) else value


def _could_be_cyrillic(word: str) -> bool:
    return all(character >= "\xc0" or character in "\xa8\xb8" for character in word)


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
