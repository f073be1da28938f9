"""What is the book called in the library? Paths from a template, made safe for every file system and player."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from string import Formatter

from pathvalidate import sanitize_filename

from aiom4b.errors import Fatal, NeedsAttention
from aiom4b.models import Metadata

SUFFIX = ".m4b"
MAX_NAME_BYTES = 200
"""Of the 255 bytes that file systems allow; the rest is room for the names of temporary files beside it."""

_BIDI = {*"\u061c\u200e\u200f\ufeff", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_SPOKEN = str.maketrans({"/": "-", "\\": "-", "|": "-", '"': "'", "*": "", "?": "", "<": "", ">": ""})
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
_DOUBLED_DASH = re.compile(r"(?: +-){2,} +")
_FIELDS = ("author", "authors", "title", "subtitle", "series", "part", "year", "narrator", "asin")


def target(metadata: Metadata, template: str) -> str:
    """Return the book's path in the library, relative, such as ``Author/Series/Title/Title.m4b``.

    A folder all of whose fields are empty is dropped. The book always gets a folder that is named after it: players take
    all audio under a folder for one book, so that an ``.m4b`` in its author's folder would swallow the author's others.
    Names are in NFC, at most ``MAX_NAME_BYTES`` long, and hold nothing that a file system, a shell or a Windows client
    stumbles over. Raises Fatal ``config.template`` for an unknown field or a template that isn't one.
    """
    values = _values(metadata)
    if not template.endswith(SUFFIX):
        raise _unusable(template, f"it does not end in {SUFFIX}")
    patterns = [_parsed(pattern, template) for pattern in template.removesuffix(SUFFIX).strip("/").split("/")]
    *folders, last = patterns
    parts = [(_filled(pattern, values), {field for _, field in pattern}) for pattern in folders]
    kept = [(name, fields) for name, fields in parts if name]
    stem = clean_name(_filled(last, values), reserve=len(SUFFIX)) or clean_name(values["title"], reserve=len(SUFFIX))
    names = [clean_name(name) or "_" for name, _ in kept]
    if not kept or not kept[-1][1] & {"title", "asin"}:
        names.append(stem)
    return "/".join([*names, stem + SUFFIX])


def as_asked(output: str) -> str:
    """Return the path that somebody asked for, relative to the library, made as safe as `target` makes its own.

    ``.m4b`` is added where it is missing, and a folder of the book's own where none was named. Raises NeedsAttention
    ``output.unusable`` when it leads out of the library or nothing is left of a name.
    """
    stem = output[: -len(SUFFIX)] if output.lower().endswith(SUFFIX) else output
    parts = [part for part in stem.split("/") if part not in {"", "."}]
    names = [clean_name(part, reserve=len(SUFFIX)) for part in parts]
    if output.startswith("/") or not names or not all(names):  # of ".." nothing is left
        raise NeedsAttention(
            "output.unusable",
            f'The output "{clean_text(output)}" is no path inside the library.',
            remedy="Give a path relative to the library, such as Author/Title/Title.m4b.",
        )
    if len(names) == 1:
        names *= 2
    return "/".join([*names[:-1], names[-1] + SUFFIX])


def alternative(target: str, n: int) -> str:
    """Return the path to take when ``target`` is taken: ``Title (2)/Title (2).m4b`` for n = 2; n must be at least 2.

    Both names carry the number, and both still fit: two books never share a folder.
    """
    if n < 2:
        raise ValueError("the first alternative is number 2")
    *above, folder, file = target.split("/")
    suffix = f" ({n})"
    numbered = [
        _cut(name, MAX_NAME_BYTES - len(suffix) - room) + suffix
        for name, room in ((folder, 0), (file.removesuffix(SUFFIX), len(SUFFIX)))
    ]
    return "/".join([*above, numbered[0], numbered[1] + SUFFIX])


def clean_title(name: str) -> str:
    """Turn a file's or folder's name into text for people: no underscores for spaces, no control or bidi characters.

    Bytes that are not UTF-8 become U+FFFD; runs of white space one space. May return "".
    """
    text = unicodedata.normalize("NFC", "".join(_visible(character) for character in name))
    if " " not in text.strip():
        text = text.replace("_", " ")
    return " ".join(text.replace("_ ", " ").replace(" _", " ").split())


def clean_text(text: str) -> str:
    """Remove what has no place in one line of text: control and bidi characters, lone surrogates, doubled spaces."""
    return " ".join(unicodedata.normalize("NFC", "".join(_visible(character) for character in text)).split())


def clean_name(name: str, *, reserve: int = 0) -> str:
    """Make one name of a path safe, ``reserve`` bytes shorter than the limit; "" if nothing is left of it.

    Pathvalidate knows the names and characters that Windows reserves, but lets through ``..``, bidi overrides and leading
    dashes: so these go first, and whatever its own replacements make ends up checked again.
    """
    text = clean_text(re.sub(r"\s*:\s+", " - ", name).replace(":", "-").translate(_SPOKEN))
    safe = sanitize_filename(_trimmed(text), platform="universal")
    return _cut(_trimmed(unicodedata.normalize("NFC", safe)), MAX_NAME_BYTES - reserve)


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    if category in {"Cc", "Zl", "Zp"}:
        return " "
    return "" if character in _BIDI else character


def _trimmed(text: str) -> str:
    return text.lstrip(" .-\u2010\u2011\u2012\u2013\u2014").rstrip(" .")


def _cut(text: str, size: int) -> str:
    """Cut to ``size`` bytes of UTF-8 at a character, never between a letter and its marks."""
    data = text.encode()
    if len(data) <= size:
        return text
    kept = data[:size].decode(errors="ignore")
    following = text[len(kept)]
    while kept and unicodedata.combining(following):
        kept, following = kept[:-1], kept[-1]
    return kept.rstrip(" .")


def _values(metadata: Metadata) -> Mapping[str, str]:
    series = metadata.series[0] if metadata.series else None
    values = {
        "author": metadata.authors[0] if metadata.authors else "",
        "authors": ", ".join(metadata.authors),
        "title": metadata.title,
        "subtitle": metadata.subtitle,
        "series": series.name if series else "",
        "part": series.part if series else "",
        "year": metadata.year,
        "narrator": ", ".join(metadata.narrators),
        "asin": metadata.asin,
    }
    cleaned = {field: clean_name(value) for field, value in values.items()}
    unknown = {"author": "Unknown Author", "authors": "Unknown Author", "title": "Unknown Title"}
    return cleaned | {field: cleaned[field] or name for field, name in unknown.items()}


_Pattern = list[tuple[str, str]]


def _parsed(pattern: str, template: str) -> _Pattern:
    """Cut into (literal, field) pairs; the field is "" at the end."""
    try:
        pieces = list(Formatter().parse(pattern))
    except ValueError as error:
        raise _unusable(template, f"{error}") from error
    for _, field, spec, conversion in pieces:
        if field is not None and (field not in _FIELDS or spec or conversion):
            raise _unusable(
                template, f"it asks for {{{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            )
    return [(literal, field or "") for literal, field, _, _ in pieces]


def _unusable(template: str, why: str) -> Fatal:
    fields = ", ".join(f"{{{field}}}" for field in _FIELDS)
    return Fatal(
        "config.template",
        f"The template {template!r} can't name a book: {why}.",
        remedy=f"Use the fields {fields}, folders separated by /, and {SUFFIX} at the end.",
    )


def _filled(pattern: _Pattern, values: Mapping[str, str]) -> str:
    fields = [field for _, field in pattern if field]
    if fields and not any(values[field] for field in fields):
        return ""
    text = "".join(literal + (values[field] if field else "") for literal, field in pattern)
    if all(values[field] for field in fields):
        return text
    return _EMPTY_BRACKETS.sub("", _DOUBLED_DASH.sub(" - ", text)).strip(" -_,:")
