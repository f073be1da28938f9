"""What does Libation's AccountsSettings.json say of a sign-in? Its entries, told in audible's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiom4b.errors import NeedsAttention

# How Libation names the marketplaces; those older than Amazon's ownership carry a prefix.
_COUNTRIES = {
    "us": "us", "uk": "uk", "germany": "de", "france": "fr", "canada": "ca", "italy": "it", "australia": "au",
    "india": "in", "japan": "jp", "spain": "es", "brazil": "br",
}  # fmt: skip
_OLD_ACCOUNT = "pre-amazon - "
_PEM = re.compile(r"-----BEGIN ((?:RSA )?PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def is_libation(document: Mapping[str, Any]) -> bool:
    """Whether a document is Libation's list of accounts."""
    return isinstance(document.get("Accounts"), list)


def sign_in(settings: Mapping[str, Any], country: str | None) -> dict[str, Any]:
    """Return the one account of ``country`` (of any, when there is only one) as a document in audible's shape.

    Raises NeedsAttention ``authfile.none`` and ``authfile.several`` where it isn't one, and ``authfile.encrypted`` where
    Libation has sealed its tokens with a key of the desktop that it runs on.
    """
    accounts = [account for account in settings["Accounts"] if isinstance(account, dict) and _tokens(account)]
    there = sorted({_country(account) or "unknown" for account in accounts})
    chosen = [account for account in accounts if country in {None, _country(account)}]
    if not chosen:
        held = f"accounts of {', '.join(there)}" if there else "no account that is signed in"
        raise NeedsAttention(
            "authfile.none",
            f"Libation's file holds {held}" + (f", and none of {country}." if country and there else "."),
            remedy="Name the country of an account that is in it, or sign in to Libation first.",
        )
    if len(chosen) > 1:
        raise NeedsAttention(
            "authfile.several",
            f"Libation's file holds {len(chosen)} accounts that fit, of {', '.join(there)}.",
            remedy="Name the country of the one that is meant; of several in one country keep one in a copy of the file.",
        )
    return _translated(chosen[0])


def pem(key: str) -> str:
    """Return a private key as audible wants it, from one whose line breaks are lost, escaped or others."""
    key = key.replace("\\n", "\n")
    found = _PEM.search(key)
    kind, inside = (found[1], found[2]) if found else ("RSA PRIVATE KEY", key)
    inside = "".join(inside.split())
    if not _BASE64.fullmatch(inside):
        return key
    lines = [inside[start : start + 64] for start in range(0, len(inside), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def _translated(account: Mapping[str, Any]) -> dict[str, Any]:
    tokens = _tokens(account)
    cookies = tokens.get("Cookies")
    return {
        "website_cookies": {
            str(cookie.get("Key")): _value(cookie.get("Value"))
            for cookie in (cookies if isinstance(cookies, list) else ())
            if isinstance(cookie, dict) and _value(cookie.get("Value"))
        },
        "adp_token": _value(tokens.get("AdpToken")),
        "access_token": _value(tokens.get("ExistingAccessToken"), "TokenValue") or None,
        "refresh_token": _value(tokens.get("RefreshToken")) or None,
        "device_private_key": pem(_value(tokens.get("PrivateKey"))),
        "store_authentication_cookie": {"cookie": _value(tokens.get("StoreAuthenticationCookie"))},
        "device_info": {
            "device_name": tokens.get("DeviceName") or "",
            "device_serial_number": tokens.get("DeviceSerialNumber") or "",
            "device_type": tokens.get("DeviceType") or "",
        },
        "customer_info": {
            "account_pool": "Amazon",
            "user_id": tokens.get("AmazonAccountId") or "",
            "home_region": "",
            "name": account.get("AccountName") or "",
            "given_name": "",
        },
        "expires": _expires(tokens.get("ExistingAccessToken")),
        "locale_code": _country(account),
        "with_username": str(tokens.get("LocaleName", "")).startswith(_OLD_ACCOUNT),
        "activation_bytes": account.get("DecryptKey") or None,
    }


def _tokens(account: Mapping[str, Any]) -> Mapping[str, Any]:
    tokens = account.get("IdentityTokens")
    return tokens if isinstance(tokens, dict) else {}


def _country(account: Mapping[str, Any]) -> str:
    name = str(_tokens(account).get("LocaleName", "")).strip().removeprefix(_OLD_ACCOUNT)
    return _COUNTRIES.get(name, "")


def _value(secret: object, key: str = "Value") -> str:
    """Return a token, which is text or stands in an object of its own, with a word on whether it is sealed."""
    if isinstance(secret, dict):
        if secret.get("IsEncrypted"):
            raise NeedsAttention(
                "authfile.encrypted",
                "Libation has encrypted its sign-ins with a key that only the computer it runs on knows.",
                remedy="In Libation's settings store the tokens as plain text, or export the account for audible-cli, and "
                "import that file; or sign in with `aiom4b audible login`.",
            )
        secret = secret.get(key)
    return secret if isinstance(secret, str) else ""


def _expires(token: object) -> float:
    written = token.get("Expires") if isinstance(token, dict) else None
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else datetime.fromtimestamp(0, UTC)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
