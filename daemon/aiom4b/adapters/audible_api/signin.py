"""How does an owner sign in without telling us a password, and sign out? In two steps, with their own browser between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from audible import register
from audible.exceptions import NoRefreshToken
from audible.login import build_oauth_url, create_code_verifier

from aiom4b import redaction
from aiom4b.adapters.audible_api.connection import quieten, verdict
from aiom4b.adapters.audible_api.identity import Identity, PendingSignIn, marketplace
from aiom4b.adapters.audible_api.translation import masked
from aiom4b.errors import NeedsAttention, Transient

_WITH_USERNAME = ("de", "uk", "us")
_CODE = "openid.oa2.authorization_code"
_CODES = re.compile(r"[\w.~+/=-]{6,512}", re.ASCII)
_EXPIRED = frozenset({"InvalidToken", "InvalidValue", "ExpiredToken", "InvalidAuthorizationCode"})
_AROUND = "\"'`<>()[]{}„“”‘’«»"
_AGAIN = "Begin again with `aiom4b audible login`, and paste the address within a few minutes of signing in."


def begin(country: str, *, with_username: bool, now: datetime) -> PendingSignIn:
    """Return a new sign-in: the owner opens its ``url``, signs in, and copies the address of the page that can't be found.

    ``with_username`` is for accounts older than Amazon's ownership. Asks nobody. Raises NeedsAttention ``signin.country``
    and ``signin.with_username``.
    """
    quieten()
    place = marketplace(country)
    if with_username and place.country_code not in _WITH_USERNAME:
        raise NeedsAttention(
            "signin.with_username",
            f"There are no accounts with an Audible user name in the marketplace {place.country_code!r}.",
            remedy=f"Sign in with the Amazon account, or give one of {', '.join(_WITH_USERNAME)}.",
        )
    verifier = create_code_verifier()
    url, serial = build_oauth_url(
        country_code=place.country_code,
        domain=place.domain,
        market_place_id=place.market_place_id,
        code_verifier=verifier,
        with_username=with_username,
    )
    redaction.keep_secret(verifier.decode())
    return PendingSignIn(
        country=place.country_code,
        with_username=with_username,
        code_verifier=verifier.decode(),
        serial=serial,
        url=url,
        began=now,
    )


def finish(pending: PendingSignIn, pasted: str, now: datetime) -> Identity:
    """Register a device with what the owner copied from the address bar; blocks while Amazon is asked.

    ``pasted`` may be quoted, broken into lines or URL-encoded. Raises NeedsAttention ``signin.bad_address``,
    ``signin.expired`` and ``signin.refused``, and Transient ``audible.network`` and ``audible.unreachable``, after which it can be tried again.
    """
    quieten()
    code = _code(pasted)
    redaction.keep_secret(code)
    place = marketplace(pending.country)
    with _translated("signing in"):
        registered = register.register(
            authorization_code=code,
            code_verifier=pending.code_verifier.encode(),
            domain=place.domain,
            serial=pending.serial,
            with_username=pending.with_username,
        )
    about_us = {"locale_code": place.country_code, "with_username": pending.with_username}
    return Identity.of({**registered, **about_us}, registered=now)


def deregister(identity: Identity) -> None:
    """Take this device, and no other, off the account; blocks while Amazon is asked.

    Raises NeedsAttention ``audible.unauthorized`` where it is off already, ``signin.refused``, and Transient
    ``audible.network``, ``audible.unreachable``, ``audible.server`` and ``audible.unreadable``.
    """
    quieten()
    authenticator = identity.authenticator()
    with _translated("signing out"):
        # Always a fresh token: the stored one may be of a time when the clock was wrong.
        authenticator.refresh_access_token(force=True)
        authenticator.deregister_device()


def _code(pasted: str) -> str:
    address = "".join(pasted.split()).strip(_AROUND).replace("&amp;", "&")
    if "://" not in address and "%3a%2f%2f" in address.lower():
        address = unquote(address)
    try:
        parts = urlsplit(address)
        fields = parse_qs(parts.query) | parse_qs(parts.fragment)
    except ValueError:
        fields, parts = {}, urlsplit("")
    found = fields.get(_CODE, [])
    if len(found) == 1 and _CODES.fullmatch(found[0]):
        return found[0]
    if parts.path.startswith("/ap/signin"):
        why = "That is the address of the page for signing in; the one after it is needed."
    elif "audible" in parts.netloc or "amazon" in parts.netloc:
        why = "There is no authorization code in that address."
    else:
        why = "That is not the address of a page of Amazon's or Audible's with an authorization code in it."
    raise NeedsAttention(
        "signin.bad_address",
        why,
        remedy="After signing in the browser shows a page that can't be found. Copy its whole address, which has "
        "/ap/maplanding in it, and give it in quotes: `aiom4b audible finish 'https://…'`.",
    )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except NoRefreshToken as error:
        raise NeedsAttention(
            "signin.refused",
            "This sign-in holds no token with which the device could be taken off the account.",
            remedy="Take it off among the devices of your Amazon account, on its web site.",
        ) from error
    except httpx.HTTPStatusError as error:  # only asking for a token raises these
        if error.response.status_code >= 500 or error.response.status_code == 429:
            raise Transient(
                "audible.server",
                f"Amazon has a trouble of its own (status {error.response.status_code}) while {doing}.",
                remedy="Try again later.",
            ) from error
        raise NeedsAttention(
            "audible.unauthorized",
            "Amazon no longer knows this device: it was taken off the account before.",
            remedy="Nothing needs doing to sign out. To sign in again: `aiom4b audible login`.",
        ) from error
    except httpx.HTTPError as error:
        raise verdict(error) from error
    except (ValueError, KeyError, TypeError) as error:  # an answer that is no JSON, or another one than audible expects
        raise verdict(httpx.DecodingError("")) from error
    except Exception as error:  # audible raises what was answered in a plain Exception
        raise _refused(error, doing) from error


def _refused(error: Exception, doing: str) -> NeedsAttention:
    answer = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    response = answer.get("response")
    told = response.get("error") if isinstance(response, dict) else answer
    code, message = (str(told.get(key) or "") for key in ("code", "message")) if isinstance(told, dict) else ("", "")
    if code in _EXPIRED:
        return NeedsAttention(
            "signin.expired",
            "Amazon no longer accepts that address: each one works once, for a few minutes.",
            remedy=_AGAIN,
        )
    said = masked(": ".join(part for part in (code, message) if part)) or "no reason was given"
    return NeedsAttention("signin.refused", f"Amazon refused while {doing}: {said.rstrip('.')}.", remedy=_AGAIN)
