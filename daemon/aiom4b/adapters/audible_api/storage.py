"""Where are sign-ins kept, and how are others' files read? Durably, for our user only, encrypted where there is a password."""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from audible.aescipher import AESCipher
from pydantic import TypeAdapter, ValidationError

from aiom4b import redaction
from aiom4b.adapters import files
from aiom4b.adapters.audible_api import libation
from aiom4b.adapters.audible_api.connection import quieten
from aiom4b.adapters.audible_api.identity import Identity, PendingSignIn, marketplace
from aiom4b.errors import NeedsAttention

LARGEST = 4_000_000
"""Bytes that a file with sign-ins may have; real ones have a few thousand for each account."""
_MODE = 0o600
_ITERATIONS = 65535  # the most that audible's format can say; its own 1000 are too few, and these take 10 ms
_MARK = b"$"  # how audible's salt begins, and goes on after two bytes with the number of iterations
_BLOCK = 16
_VERSION = 1
_PENDING: TypeAdapter[PendingSignIn] = TypeAdapter(PendingSignIn)


def save(path: str, identity: Identity, password: str | None) -> None:
    """Write a sign-in durably, in place of what ``path`` held; encrypted in audible's way where there is a password.

    Nobody but our user can read the file at any time. Raises what `files.translated` raises.
    """
    quieten()
    plain = json.dumps(identity.document(), indent=2)
    if password:
        plain = json.dumps(AESCipher(password, kdf_iterations=_ITERATIONS).to_dict(plain), indent=2)
    files.write_durably(path, plain.encode(), replace=True, mode=_MODE)


def load(path: str, password: str | None) -> Identity:
    """Return a stored sign-in.

    Raises NeedsAttention ``authfile.encrypted`` without the password that it takes, ``authfile.wrong_password``,
    ``authfile.unknown``, ``authfile.incomplete``, and what `files.open_regular` and `files.translated` raise.
    """
    return Identity.of(_mapping(_opened(_read(path), password)))


def is_encrypted(path: str) -> bool:
    """Whether a stored sign-in takes a password. Raises what `load` raises for a file that can't be read."""
    document = _parsed(_read(path))
    return document is None or _is_sealed(document)


def save_pending(path: str, pending: PendingSignIn) -> None:
    """Write a sign-in between its two steps, durably, for our user only. Raises what `files.translated` raises."""
    document = {"v": _VERSION} | _PENDING.dump_python(pending, mode="json")
    files.write_durably(path, json.dumps(document, indent=2).encode(), replace=True, mode=_MODE)


def load_pending(path: str) -> PendingSignIn:
    """Return the sign-in that waits for its second step. Raises NeedsAttention ``signin.not_begun`` where none does."""
    try:
        document = json.loads(_read(path))
        if document.pop("v") != _VERSION:
            raise ValueError("a later version")
        pending = _PENDING.validate_python({**document, "began": datetime.fromisoformat(document["began"])})
    except NeedsAttention as error:
        if error.code != "file.missing":
            raise
        raise _not_begun("No sign-in waits to be finished.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        # Not named as the cause: pydantic shows what it was given.
        raise _not_begun("The sign-in that was begun can't be read any more.") from None
    redaction.keep_secret(pending.code_verifier)
    return pending


def imported(document: bytes, password: str | None, *, country: str | None) -> Identity:
    """Return the sign-in that a file of audible-cli (plain or encrypted either way) or Libation's AccountsSettings.json holds.

    ``country`` chooses among several accounts of Libation's; else it overrides nothing but a missing marketplace. Raises
    what `load` raises for its content, NeedsAttention ``authfile.several``, ``authfile.none`` and ``signin.country``.
    """
    quieten()
    if len(document) > LARGEST:
        raise _unknown()
    wanted = marketplace(country).country_code if country else None
    opened = _mapping(_opened(document, password))
    if libation.is_libation(opened):
        return Identity.of(libation.sign_in(opened, wanted))
    if not {"adp_token", "device_private_key"} & opened.keys():
        raise _unknown()
    key = opened.get("device_private_key")
    return Identity.of(
        {
            **opened,
            "locale_code": opened.get("locale_code") or wanted,
            "device_private_key": libation.pem(key) if isinstance(key, str) else key,
        }
    )


def _read(path: str) -> bytes:
    descriptor = files.open_regular(path)
    try:
        with files.translated(path, "reading"), open(descriptor, "rb", closefd=False) as file:
            data = file.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST:
        raise _unknown()
    return data


def _opened(data: bytes, password: str | None) -> object:
    document = _parsed(data)
    if document is not None and not _is_sealed(document):
        return document
    if document is None and not _looks_sealed(data):
        raise _unknown()
    if not password:
        raise NeedsAttention(
            "authfile.encrypted",
            "This sign-in is encrypted, and no password for it is known.",
            remedy="Give its password: audible.password (best as a credential) for the service's own, or with the "
            "import for another program's file.",
        )
    cipher = AESCipher(password)
    try:
        plain = cipher.from_bytes(data) if document is None else cipher.from_dict(dict(_mapping(document)))
        opened = json.loads(plain)
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise NeedsAttention(
            "authfile.wrong_password",
            "This sign-in can't be opened with that password.",
            remedy="Give the password that it was saved with; if it is lost, sign in anew with `aiom4b audible login`.",
        ) from error
    return opened


def _parsed(data: bytes) -> object | None:
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document


def _is_sealed(document: object) -> bool:
    return isinstance(document, dict) and all(
        isinstance(document.get(key), str) for key in ("salt", "iv", "ciphertext")
    )


def _looks_sealed(data: bytes) -> bool:
    # Salt, initialization vector, and at least one block.
    return data[:1] == _MARK and data[3:4] == _MARK and len(data) >= 3 * _BLOCK and len(data) % _BLOCK == 0


def _mapping(document: object) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise _unknown()
    return document


def _unknown() -> NeedsAttention:
    return NeedsAttention(
        "authfile.unknown",
        "This is no file with a sign-in that we know.",
        remedy="Give the auth file of audible-cli (~/.audible/*.json), or Libation's AccountsSettings.json; or sign in with "
        "`aiom4b audible login`.",
    )


def _not_begun(reason: str) -> NeedsAttention:
    return NeedsAttention("signin.not_begun", reason, remedy="Begin one: `aiom4b audible login --country CC`.")
