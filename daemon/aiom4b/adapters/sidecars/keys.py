"""Which keys lie beside a locked file? The voucher that audible-cli writes, and Libation's key file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiom4b.adapters import text
from aiom4b.adapters.files import open_regular, translated
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudibleKey, Lock, Name

_LIMIT = 4 << 20
_LINE = re.compile(r"\s*(key|iv|activationbytes)\s*[=:]\s*([0-9a-f]+)\s*", re.IGNORECASE)
_BLOCK = re.compile(r"[0-9a-fA-F]{32}")
_ACTIVATION = re.compile(r"[0-9a-fA-F]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundKey:
    """A key in the file ``path``, and the title it is for, "" where the file doesn't tell."""

    path: Name
    lock: Lock
    asin: str
    key: AudibleKey = field(repr=False)


def read_keys(root: str, paths: tuple[Name, ...]) -> tuple[FoundKey, ...]:
    """Return the keys in these files (relative to ``root``); what holds none that is well formed is passed over.

    Runs in a worker. Raises Transient as `translated` does when a disk fails.
    """
    found = []
    for path in paths:
        try:
            descriptor = open_regular(os.path.join(root, path))
            with translated(path, "reading"), os.fdopen(descriptor, "rb") as file:
                data = file.read(_LIMIT)
        except NeedsAttention:
            continue  # gone, a link, or not ours to read: as good as not there, and who needs a key will say so
        key = of_voucher(data) or _of_lines(data)
        if key is not None:
            lock, asin, opened = key
            found.append(FoundKey(path=path, lock=lock, asin=asin, key=opened))
    return tuple(found)


def of_voucher(data: bytes) -> tuple[Lock, str, AudibleKey] | None:
    """Return the key in a voucher as audible-cli writes it, with its lock and title; None where there is none."""
    try:
        document: Any = json.loads(data)
        licence = document["content_license"]
        opened = licence["license_response"]
        key, iv, asin = opened["key"], opened["iv"], licence.get("asin", "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(opened, Mapping) or not (isinstance(key, str) and isinstance(iv, str)):
        return None
    if not (_BLOCK.fullmatch(key) and _BLOCK.fullmatch(iv)):
        return None
    asin = text.line(asin) if isinstance(asin, str) else ""
    return Lock.AAXC, asin, AudibleKey(key=key.lower(), iv=iv.lower())


def _of_lines(data: bytes) -> tuple[Lock, str, AudibleKey] | None:
    lines = (_LINE.fullmatch(line) for line in data[:4096].decode("utf-8-sig", "replace").splitlines())
    values = {line[1].lower(): line[2].lower() for line in lines if line}
    if _ACTIVATION.fullmatch(values.get("activationbytes", "")):
        return Lock.AAX, "", AudibleKey(activation_bytes=values["activationbytes"])
    if _BLOCK.fullmatch(values.get("key", "")) and _BLOCK.fullmatch(values.get("iv", "")):
        return Lock.AAXC, "", AudibleKey(key=values["key"], iv=values["iv"])
    return None
