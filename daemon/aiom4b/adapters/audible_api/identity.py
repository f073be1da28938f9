"""Who are we to Audible? A registered device of one account in one marketplace, and a sign-in on its way to one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import audible
from audible.auth import sign_request
from audible.localization import LOCALE_TEMPLATES, Locale

from aiom4b import redaction
from aiom4b.adapters import text
from aiom4b.adapters.audible_api.connection import quieten
from aiom4b.errors import NeedsAttention

_FIELDS = (
    "website_cookies",
    "adp_token",
    "access_token",
    "refresh_token",
    "device_private_key",
    "store_authentication_cookie",
    "device_info",
    "customer_info",
    "expires",
    "locale_code",
    "with_username",
    "activation_bytes",
)
_OURS = "aiom4b"
_BYTES = re.compile(r"[0-9a-fA-F]{8}")
_SHORTEST_SECRET = 8
_REMEDY = "Sign in anew with `aiom4b audible login`, or import a file that audible-cli or Libation can still use."


def countries() -> tuple[str, ...]:
    """Return the codes of Audible's marketplaces (``de``, ``us``, ``uk``, …), sorted."""
    return tuple(sorted(template["country_code"] for template in LOCALE_TEMPLATES.values()))


def marketplace(country: str) -> Locale:
    """Return the marketplace of a country code, in any case. Raises NeedsAttention ``signin.country``."""
    code = country.strip().lower()
    code = "uk" if code == "gb" else code
    if code not in countries():
        raise NeedsAttention(
            "signin.country",
            f"Audible has no marketplace {text.line(country)[:20]!r}.",
            remedy=f"Give one of {', '.join(countries())}: the country of the Audible shop that holds the books.",
        )
    return Locale(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A registered device of one account. Its repr shows no secret, and none of them appears in a log from now on.

    ``owner`` and ``device`` are names for people. ``token_expires`` is when the short-lived token does, which requests don't
    need. ``registered`` is when the device was, None where that isn't known. ``activation_bytes`` (8 hex digits) open the
    account's AAX files, "" until they have been asked for.
    """

    country: str
    owner: str
    device: str
    token_expires: datetime | None
    registered: datetime | None
    activation_bytes: str = field(repr=False)
    secret: str = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, object], *, registered: datetime | None = None) -> Identity:
        """Return the identity that a document in audible's shape describes; what it says besides is left out.

        ``registered`` counts where the document doesn't say so itself. Raises NeedsAttention ``authfile.incomplete`` where
        anything is missing or malformed without which Audible can't be asked, and ``signin.country``.
        """
        quieten()
        # By way of JSON, since audible takes entries out of what it is given; and only what it knows, since it would take
        # a file's word for where to write and how to encrypt.
        known: dict[str, Any] = json.loads(json.dumps({key: document.get(key) for key in _FIELDS}))
        if "login_cookies" in document and not known["website_cookies"]:
            known["website_cookies"] = document["login_cookies"]
        known["website_cookies"] = known["website_cookies"] or None
        known["with_username"] = known["with_username"] is True
        known["locale_code"] = marketplace(str(known["locale_code"] or "")).country_code
        device, customer = known["device_info"], known["customer_info"]
        if not _named(device, "device_serial_number", "device_type") or not _named(customer, "user_id"):
            raise _incomplete("It doesn't say which device was registered, and by whom.")
        if not known["adp_token"] or not known["device_private_key"]:
            raise _incomplete("The key with which requests are signed is missing.")
        _keep_secret(known)
        try:
            audible.Authenticator.from_dict(dict(known))
            sign_request("GET", "/", b"", known["adp_token"], known["device_private_key"])
        except Exception as error:  # audible raises ValueError, TypeError and plain Exceptions
            raise _incomplete("A token or key in it is malformed.") from error
        bytes_ = known["activation_bytes"]
        known["activation_bytes"] = bytes_.lower() if isinstance(bytes_, str) and _BYTES.fullmatch(bytes_) else None
        moment = _registered(document) or registered
        if moment is not None:
            known[_OURS] = {"registered": moment.isoformat()}
        return cls(
            country=known["locale_code"],
            owner=_shown(customer, "name") or _shown(customer, "given_name"),
            device=_shown(device, "device_name"),
            token_expires=_moment(known["expires"]),
            registered=moment,
            activation_bytes=known["activation_bytes"] or "",
            secret=json.dumps(known),
        )

    def document(self) -> dict[str, Any]:
        """Return what is to be stored, in audible's shape. It is all secret."""
        document: dict[str, Any] = json.loads(self.secret)
        return document

    def same_account(self, other: Identity) -> bool:
        """Whether both are devices of one account in one marketplace, so that one library is theirs."""
        mine, others = self.document()["customer_info"], other.document()["customer_info"]
        return self.country == other.country and bool(mine["user_id"] == others["user_id"])

    def authenticator(self) -> audible.Authenticator:
        """Return a fresh one of audible's, which signs requests; not to be shared between threads."""
        document = self.document()
        document.pop(_OURS, None)
        return audible.Authenticator.from_dict(document)

    def with_activation_bytes(self, value: str) -> Identity:
        """Return the same identity that remembers these activation bytes."""
        return replace(
            self, activation_bytes=value, secret=json.dumps(self.document() | {"activation_bytes": value or None})
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSignIn:
    """A sign-in between its two steps: ``url`` is where the owner signs in, the rest is what finishing it takes."""

    country: str
    with_username: bool
    code_verifier: str = field(repr=False)
    serial: str = field(repr=False)
    url: str = field(repr=False)
    began: datetime


def _named(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) and value[key] for key in keys)


def _shown(value: dict[str, object], key: str) -> str:
    shown = value.get(key)
    return text.line(shown) if isinstance(shown, str) else ""


def _moment(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(seconds), UTC) if isinstance(seconds, int | float | str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _registered(document: Mapping[str, object]) -> datetime | None:
    ours = document.get(_OURS)
    written = ours.get("registered") if isinstance(ours, dict) else None
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _keep_secret(known: Mapping[str, Any]) -> None:
    cookies = known["website_cookies"], known["store_authentication_cookie"]
    secrets = [
        known["adp_token"],
        known["access_token"],
        known["refresh_token"],
        known["activation_bytes"],
        known["device_info"]["device_serial_number"],
        known["customer_info"]["user_id"],
        *(value for jar in cookies if isinstance(jar, dict) for value in jar.values()),
    ]
    if isinstance(known["device_private_key"], str):
        secrets += [line for line in known["device_private_key"].splitlines() if not line.startswith("-----")]
    for secret in secrets:
        if isinstance(secret, str) and len(secret) >= _SHORTEST_SECRET:
            redaction.keep_secret(secret)


def _incomplete(why: str) -> NeedsAttention:
    return NeedsAttention("authfile.incomplete", f"This sign-in can't be used. {why}", remedy=_REMEDY)
