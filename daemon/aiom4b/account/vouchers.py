"""Which licences do we hold? A durable file of the owner's for each title, so that none is ever asked for twice."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from aiom4b import redaction
from aiom4b.adapters import files
from aiom4b.adapters.files import translated
from aiom4b.jobs.title import Asin, Profile
from aiom4b.models import AudibleKey

_VERSION = 1
_OURS = "aiom4b"
_ASIN = re.compile(r"[A-Z0-9]{10}")
_KEY = re.compile(r"[0-9a-fA-F]{32}")
_MARGIN = timedelta(minutes=10)
"""An address that is about to expire is not worth beginning with: a transfer that breaks off could not go on."""
_READ_LIMIT = 16 << 20
_PROOF = bytes(256 << 10)  # more than a reply with the chapters of a long book takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """A licence that was granted: what is to be fetched, from where, and what opens it. Its repr shows no secret.

    ``kind`` is "aaxc", "aax" or "mp3"; ``format`` names it in the file's name (``AAX_44_128``). ``address`` is good until
    ``expires``, which need not be known; ``asked`` is when it was given. ``document`` is Audible's reply in audible-cli's
    shape, {} for AAX. ``chapters`` is the ``chapter_info`` that came with it.
    """

    asin: Asin
    profile: Profile
    kind: str
    format: str
    address: str = field(repr=False)
    expires: datetime | None
    asked: datetime
    size: int | None
    pdf: str = field(repr=False)
    chapters: Mapping[str, Any] | None = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)

    @property
    def stem(self) -> str:
        """The name of the audio file, as audible-cli gives it, without its suffix."""
        return f"{self.asin}-{self.format}"

    @property
    def file(self) -> str:
        """The name of the audio file."""
        return f"{self.stem}.{self.kind}"

    @property
    def key(self) -> AudibleKey | None:
        """What opens the audio, None where that isn't in it or nothing is locked."""
        licence = self.document.get("content_license")
        reply = licence.get("license_response") if isinstance(licence, dict) else None
        key, iv = (reply.get("key"), reply.get("iv")) if isinstance(reply, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(iv, str) or not _KEY.fullmatch(key) or not _KEY.fullmatch(iv):
            return None
        return AudibleKey(key=key.lower(), iv=iv.lower())

    def serves(self, now: datetime) -> bool:
        """Whether its address is still worth asking."""
        return bool(self.address) and (self.expires is None or now + _MARGIN < self.expires)

    def without_address(self) -> Voucher:
        """Return the same voucher with an address that serves no more."""
        return replace(self, address="")


def beside(voucher: Voucher) -> bytes:
    """Return what lies beside the audio file: the reply in audible-cli's shape."""
    return json.dumps(voucher.document, indent=2).encode("ascii")


class Vouchers:
    """The stored ones, below ``folder``, which nobody but us may look into."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def store(self, voucher: Voucher) -> None:
        """Store durably, in place of an older one. Raises what `files.translated` raises."""
        path = self._path(voucher.asin)
        assert path is not None, "it was asked for by its ASIN"
        ours = {
            "v": _VERSION,
            "profile": voucher.profile,
            "kind": voucher.kind,
            "format": voucher.format,
            "address": voucher.address,
            "expires": voucher.expires and voucher.expires.isoformat(),
            "asked": voucher.asked.isoformat(),
            "size": voucher.size,
            "pdf": voucher.pdf,
            "chapters": voucher.chapters,
        }
        _keep_secret(voucher)
        self._make_folder()
        document = dict(voucher.document) | {_OURS: ours}
        files.write_durably(path, json.dumps(document, indent=1).encode("ascii"), replace=True, mode=0o600)

    def prove(self) -> None:
        """Write as much as a voucher may take, and remove it: a licence that could not be stored is not to be asked for.

        Raises what `files.translated` raises.
        """
        self._make_folder()
        path = os.path.join(self._folder, "proof")
        files.write_durably(path, _PROOF, replace=True, mode=0o600)
        with translated(path, "removing"):
            os.unlink(path)

    def of(self, asin: str) -> Voucher | None:
        """Return the stored voucher of a title, None without one; raises what `files.translated` raises."""
        path = self._path(asin)
        if path is None:
            return None
        with translated(path, "reading"):
            try:
                with open(path, "rb") as stream:
                    data = stream.read(_READ_LIMIT)
            except FileNotFoundError:
                return None
        voucher = _read(Asin(asin), data)
        if voucher is not None:
            _keep_secret(voucher)
        return voucher

    def _make_folder(self) -> None:
        files.make_directories(self._folder)
        with translated(self._folder, "closing to others"):
            os.chmod(self._folder, stat.S_IRWXU)

    def _path(self, asin: str) -> str | None:
        # It may come from the tags of any file that somebody dropped.
        return os.path.join(self._folder, f"{asin}.voucher") if _ASIN.fullmatch(asin) else None


def _read(asin: Asin, data: bytes) -> Voucher | None:
    """Return the voucher in a file's bytes; None where this version doesn't understand them: then it is asked for anew."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        document = json.loads(data)
        ours = document.pop(_OURS)
        if ours["v"] != _VERSION:
            return None
        return Voucher(
            asin=asin,
            profile=Profile(ours["profile"]),
            kind=ours["kind"],
            format=ours["format"],
            address=ours["address"],
            expires=datetime.fromisoformat(ours["expires"]) if ours["expires"] else None,
            asked=datetime.fromisoformat(ours["asked"]),
            size=ours["size"],
            pdf=ours["pdf"],
            chapters=ours["chapters"],
            document=document,
        )
    return None


def _keep_secret(voucher: Voucher) -> None:
    key = voucher.key
    for secret in (voucher.address, voucher.pdf, *((key.key, key.iv) if key is not None else ())):
        if len(secret) > 5:  # no address is that short, but a stranger's answer may say anything
            redaction.keep_secret(secret)
