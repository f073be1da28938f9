"""Which books does the library already hold, and from what? Their records, beside the library's books."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aiom4b.adapters import files
from aiom4b.models import BackupReceipt, BookId, BookPlan, Fingerprint, Name, Proof, Sha256

VERSION = 1
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceRecord:
    """Packets ``first`` up to ``first + packets`` of the book, and the SHA-256 of their bytes laid end to end."""

    first: int
    packets: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A source file as it was: enough to find it in the backup."""

    path: Name
    size: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A published book: ``book`` is its path relative to the library, ``published`` an ISO time in UTC.

    ``bit_rate`` is what its audio really has, in bit/s. ``plan.order`` counts in ``files``.
    """

    id: BookId
    fingerprint: Fingerprint
    book: Name
    sha256: Sha256
    size: int
    bit_rate: int
    published: str
    tool: str
    source: Name
    files: tuple[SourceRecord, ...]
    backup: BackupReceipt
    plan: BookPlan
    pieces: tuple[PieceRecord, ...]
    proof: Proof
    warnings: tuple[str, ...]


_ADAPTER = TypeAdapter(Record)


def folder(library: str) -> str:
    """Return where the records of a library lie."""
    return os.path.join(library, ".aiom4b", "books")


def write(library: str, record: Record) -> None:
    """Write a record durably; one of the same id is replaced, since the id stands for the same bytes."""
    files.make_directories(folder(library))
    # Identity first, so that looking for a fingerprint reads only the beginning of each record.
    document = {
        "v": VERSION,
        "fingerprint": record.fingerprint,
        "id": record.id,
        "record": _ADAPTER.dump_python(record),
    }
    data = json.dumps(document, ensure_ascii=True, indent=1).encode("ascii")
    files.write_durably(os.path.join(folder(library), f"{record.id}.json"), data, replace=True)


def read(path: str) -> Record | None:
    """Return the record in a file, or None when it is none that this version understands."""
    try:
        with open(path, "rb") as stream:
            document: Any = json.load(stream)
        if document.get("v") != VERSION:
            return None
        return _ADAPTER.validate_python(document["record"])
    except (OSError, ValueError, KeyError, AttributeError, ValidationError):
        return None  # a torn or foreign file is no record; the book itself is untouched


def by_fingerprint(library: str, fingerprint: Fingerprint) -> tuple[Record, ...]:
    """Return the records of all books that were made from this source, the oldest first."""
    mark = f'"fingerprint": "{fingerprint}"'.encode("ascii")
    found = []
    for path in _paths(library):
        with files.translated(path, "reading the record"), open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if mark in head and (record := read(path)) is not None:
            found.append(record)
    return tuple(sorted(found, key=lambda record: (record.published, record.id)))


def by_id(library: str, book: BookId) -> Record | None:
    """Return the record of this book, or None."""
    return read(os.path.join(folder(library), f"{book}.json"))


def _paths(library: str) -> list[str]:
    try:
        names = os.listdir(folder(library))
    except FileNotFoundError:
        return []
    return sorted(os.path.join(folder(library), name) for name in names if name.endswith(".json"))
