"""How is a backup set written down? Its names, its manifest, and the sums that `sha256sum -c` reads; values and bytes only."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from aiom4b.adapters.files import displayable
from aiom4b.models import Fingerprint, Name, Sha256

SUMS = "SHA256SUMS"
MANIFEST = "backup.json"
NAME_LIMIT = 200
"""Bytes of a set's name, so that suffixes and the tools of other systems find room."""

# The names we need ourselves, with the underscores that `stored_path` has added to them.
_RESERVED = re.compile(rf"(?:{re.escape(SUMS)}|{re.escape(MANIFEST)})_*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of a set: ``path`` relative to the source it came from, with ``/``; where it lies, `stored_path` tells."""

    path: Name
    size: int
    sha256: Sha256
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSet:
    """A complete set. ``root`` is its folder, ``source`` the folder it was made from, ``tool`` what made it."""

    root: Name
    source: Name
    fingerprint: Fingerprint
    created: datetime
    tool: str
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileRecord:
    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    mtime_ns: int
    path_b64: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    v: Literal[1]
    tool: str
    created: AwareDatetime
    fingerprint: str
    source: str
    files: tuple[_FileRecord, ...]
    source_b64: str | None = None


_MANIFEST = TypeAdapter(_Manifest)


def stored_path(path: str) -> str:
    """Return where a set keeps the source's file ``path``, relative to the set.

    That is the same path, unless it is a name that the set needs itself: then it has one underscore more at its end. So
    even a backup that somebody dropped into the source as a book is kept whole.
    """
    return path + "_" if _RESERVED.fullmatch(path) else path


def holds_key(path: str) -> bool:
    """Whether a file is one that opens an Audible book: then every copy of it is readable by its owner only."""
    return path.lower().endswith((".voucher", ".key"))


def set_name(folder: str, now: datetime, taken: Container[str]) -> str:
    """Return the name of a new set: ``{folder}_{YYYYMMDD_HHMMSS}`` in UTC, with ``_2`` and on when that is taken.

    A long folder name is cut at a character and gets a hash, so that two long names stay two; a leading dot is covered,
    since hidden folders are no sets.
    """
    visible = f"_{folder}" if folder.startswith(".") else folder
    ending = now.astimezone(UTC).strftime("_%Y%m%d_%H%M%S")
    number = 1
    while True:
        suffix = ending if number == 1 else f"{ending}_{number}"
        name = _shortened(visible, NAME_LIMIT - len(suffix)) + suffix
        if name not in taken:
            return name
        number += 1


def _shortened(name: str, limit: int) -> str:
    if len(os.fsencode(name)) <= limit:
        return name
    ending = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    kept, room = "", limit - len(ending)
    for character in name:
        room -= len(os.fsencode(character))
        if room < 0:
            break
        kept += character
    return kept + ending


def sums(files: tuple[StoredFile, ...]) -> bytes:
    r"""Return the text of ``SHA256SUMS``, as ``sha256sum -c`` of GNU coreutils reads it.

    A name with a backslash, newline or carriage return is written with ``\\``, ``\n`` and ``\r``, and its line begins with
    a backslash; the name ``-`` would mean standard input.
    """
    lines = []
    for file in files:
        name = os.fsencode(stored_path(file.path))
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        mark = b"" if escaped == name else b"\\"
        lines.append(mark + file.sha256.encode() + b"  " + (b"./-" if name == b"-" else escaped) + b"\n")
    return b"".join(lines)


def manifest(made: BackupSet) -> bytes:
    """Return the text of ``backup.json``; names that are not UTF-8 are there to be read, and exact in ``…_b64``."""
    document: dict[str, object] = {
        "v": 1,
        "tool": made.tool,
        "created": made.created.isoformat(),
        "fingerprint": made.fingerprint,
        **_packed("source", made.source),
        "files": [
            {**_packed("path", file.path), "size": file.size, "sha256": file.sha256, "mtime_ns": file.mtime_ns}
            for file in made.files
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def parse_manifest(data: bytes, root: str) -> BackupSet:
    """Return the set in the folder ``root`` from the bytes of its manifest; raises ValueError with a reason for people."""
    try:
        record = _MANIFEST.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}") from error
    return BackupSet(
        root=root,
        source=_unpacked(record.source, record.source_b64),
        fingerprint=Fingerprint(record.fingerprint),
        created=record.created,
        tool=record.tool,
        files=tuple(
            StoredFile(
                path=_inside(_unpacked(file.path, file.path_b64)),
                size=file.size,
                sha256=Sha256(file.sha256),
                mtime_ns=file.mtime_ns,
            )
            for file in record.files
        ),
    )


def _packed(key: str, name: str) -> dict[str, str]:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8: for people to read, and once more to be exact
        return {key: displayable(name), f"{key}_b64": base64.b64encode(os.fsencode(name)).decode("ascii")}
    return {key: name}


def _unpacked(name: str, packed: str | None) -> str:
    return name if packed is None else os.fsdecode(base64.b64decode(packed, validate=True))


def _inside(path: str) -> str:
    if path.startswith("/") or "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"{displayable(path)} leads out of the set")
    return path
