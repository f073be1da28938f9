"""What does Audible allow us to download, from where, and what opens it? A licence, from its request to the keys in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import audible
from audible.aescipher import decrypt_voucher_from_licenserequest
from pydantic import BaseModel, ConfigDict, ValidationError

from aiom4b import redaction
from aiom4b.adapters.audible_api.translation import licence_refusal, masked, no_asset
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

Quality = Literal["high", "normal"]

_HEX_KEY = re.compile(r"[0-9a-fA-F]{32}")
_FORMAT = re.compile(r"[A-Za-z0-9_]{1,40}")
# Extended HE-AAC and Dolby's, by the names that Audible gives them as format or codec.
_OTHER_CODECS = re.compile(r"xhe|usac|mp4a\.40\.42|ec[-+_]?3|ac[-+_]?4|atmos", re.IGNORECASE)
_ELSEWHERE = "It can be listened to in Audible's own apps; there may be another edition that can be downloaded."


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What a granted licence says. ``voucher`` is to be stored: the whole reply in audible-cli's shape, the keys in it open.

    ``kind`` is ``aaxc`` or, for what isn't locked, ``mp3``. ``expires`` is until when ``address`` works, None where it doesn't
    tell. ``size`` is in bytes. ``pdf`` is the address of the companion, "" without one.
    """

    asin: str
    kind: Literal["aaxc", "mp3"]
    content_format: str
    address: str = field(repr=False)
    expires: datetime | None
    size: int | None
    voucher: Mapping[str, Any] = field(repr=False)
    pdf: str = field(repr=False)
    chapter_info: Mapping[str, Any] | None = field(repr=False)


class _Strange(BaseModel):
    # What a reply held is never shown: keys stand in it.
    model_config = ConfigDict(hide_input_in_errors=True, extra="ignore")


class _Reference(_Strange):
    content_format: str | None = None
    codec: str | None = None
    content_size_in_bytes: int | None = None


class _Url(_Strange):
    offline_url: str | None = None


class _Content(_Strange):
    content_reference: _Reference | None = None
    content_url: _Url | None = None
    chapter_info: dict[str, Any] | None = None


class _Denial(_Strange):
    message: str | None = None
    rejectionReason: str | None = None  # noqa: N815  (Audible's name)
    validationType: str | None = None  # noqa: N815


class _Grant(_Strange):
    status_code: str
    asin: str | None = None
    acr: str | None = None
    drm_type: str | None = None
    message: str | None = None
    pdf_url: str | None = None
    license_response: str | dict[str, Any] | None = None
    license_denial_reasons: list[_Denial] | None = None
    content_metadata: _Content | None = None


class _Reply(_Strange):
    content_license: _Grant


class _Keys(_Strange):
    key: str
    iv: str


def request(quality: Quality) -> dict[str, Any]:
    """Return the body that asks for a licence: AAX or MP3 with plain AAC or MP3 inside, since we can open nothing else."""
    return {
        "consumption_type": "Download",
        "quality": "High" if quality == "high" else "Normal",
        "supported_drm_types": ["Mpeg", "Adrm"],
        "supported_media_features": {
            "drm_types": ["Adrm", "Mpeg"],
            "codecs": ["mp4a.40.2"],
            "chapter_titles_type": "Tree",
            "previews": False,
            "catalog_samples": False,
        },
        "spatial": False,
        "tenant_id": "Audible",
        "response_groups": "last_position_heard,pdf_url,content_reference,chapter_info",
    }


def granted(reply: Mapping[str, Any], asin: str, authenticator: audible.Authenticator) -> Licence:
    """Return the licence that Audible's reply grants, its voucher opened with the registered device's identity.

    Raises NeedsAttention ``audible.licence_denied``, ``audible.customer_throttled``, ``audible.no_asset``,
    ``audible.protected_streaming``, ``audible.other_codec`` and ``audible.voucher_unreadable``; Transient ``audible.rate``
    and ``audible.unreadable``.
    """
    try:
        grant = _Reply.model_validate(reply).content_license
    except ValidationError as error:
        raise _unreadable() from error
    if grant.status_code != "Granted":
        raise _denied(grant, asin)
    if grant.asin not in {None, asin}:
        raise _unreadable()
    content = grant.content_metadata or _Content()
    reference = content.content_reference or _Reference()
    address = (content.content_url and content.content_url.offline_url) or ""
    _check_kind(grant, reference, address)
    voucher: dict[str, Any] = json.loads(json.dumps(reply))
    if grant.drm_type == "Adrm":
        voucher["content_license"]["license_response"] = _opened(reply, authenticator)
    format_ = reference.content_format or ""
    return Licence(
        asin=asin,
        kind="aaxc" if grant.drm_type == "Adrm" else "mp3",
        content_format=format_ if _FORMAT.fullmatch(format_) else "",
        address=address,
        expires=expiry(address),
        size=reference.content_size_in_bytes if (reference.content_size_in_bytes or 0) > 0 else None,
        voucher=voucher,
        pdf=grant.pdf_url or "",
        chapter_info=content.chapter_info,
    )


def expiry(address: str) -> datetime | None:
    """Return until when a signed address works, by its own words; None where it doesn't tell."""
    try:
        told = parse_qs(urlsplit(address).query).get("Expires", [""])[-1]
        return datetime.fromtimestamp(int(told), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _check_kind(grant: _Grant, reference: _Reference, address: str) -> None:
    if grant.drm_type not in {"Adrm", "Mpeg"} or urlsplit(address).path.endswith(".mpd"):
        raise NeedsAttention(
            "audible.protected_streaming",
            "Audible offers this title only as protected streaming (Widevine or FairPlay), which nobody else can open.",
            remedy=_ELSEWHERE,
        )
    named = f"{reference.content_format or ''} {reference.codec or ''}"
    if _OTHER_CODECS.search(named):
        raise NeedsAttention(
            "audible.other_codec",
            f"Audible offers this title only as {masked(named)}, which is no plain AAC.",
            remedy=_ELSEWHERE,
        )
    if not address:
        raise no_asset() if grant.acr is None else _unreadable()


def _opened(reply: Mapping[str, Any], authenticator: audible.Authenticator) -> dict[str, Any]:
    try:
        opened = decrypt_voucher_from_licenserequest(authenticator, dict(reply))
        keys = _Keys.model_validate(opened)
    except Exception as error:  # audible raises ValueError, KeyError, what JSON and base64 raise, and plain Exceptions
        raise _voucher_unreadable() from error
    if not (_HEX_KEY.fullmatch(keys.key) and _HEX_KEY.fullmatch(keys.iv)):
        raise _voucher_unreadable()
    for secret in (keys.key, keys.iv):
        redaction.keep_secret(secret)
    return opened


def _denied(grant: _Grant, asin: str) -> Aiom4bError:
    reasons = grant.license_denial_reasons or []
    told = [f"{reason.rejectionReason or ''} {reason.message or ''}" for reason in reasons]
    known = licence_refusal("\n".join([*told, grant.message or ""]))
    if known is not None:
        return known
    kinds = {reason.validationType for reason in reasons}
    if kinds & {"Membership", "AYCL"}:
        remedy = "Check the membership of the account: the title may have left the Plus catalogue."
    elif "Ownership" in kinds:
        remedy = "Check on Audible's web site that the title is in the library of this account and marketplace."
    else:
        remedy = "Audible may think better of it: ask again in some days with `aiom4b audible download`."
    named = ", ".join(
        sorted({"/".join(filter(None, (reason.validationType, reason.rejectionReason))) for reason in reasons} - {""})
    )
    words = masked(next((reason.message for reason in reasons if reason.message), None) or grant.message or "")
    why = ": ".join(part for part in (masked(named), words) if part) or "it gave no reason"
    return NeedsAttention(
        "audible.licence_denied",
        f"Audible denied the licence{f' for {asin}' if asin else ''}: {why.rstrip('.')}.",
        remedy=remedy,
    )


def _voucher_unreadable() -> NeedsAttention:
    return NeedsAttention(
        "audible.voucher_unreadable",
        "The voucher of this title can't be opened: it is damaged, or was issued to another registered device.",
        remedy="Sign in anew (`aiom4b audible logout`, then `aiom4b audible login`); it is then asked for anew.",
    )


def _unreadable() -> Transient:
    return Transient(
        "audible.unreadable",
        "Audible's answer to the request for a licence is none that we can read.",
        remedy="Nothing needs doing; it is tried again later. If it stays so, please report it.",
    )
