"""What does Audible's answer mean for the owner? By status, type and text, in plain words, without what concerns nobody else."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from aiom4b import redaction
from aiom4b.adapters import text
from aiom4b.adapters.audible_api.connection import Answer
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

_CLOCKS_MAY_DIFFER = timedelta(minutes=5)
_LONGEST_WAIT = timedelta(days=7)
_THRESHOLD_WAIT = timedelta(hours=24)  # people report blocks of 24 to 48 hours
_SAID_LIMIT = 200
_LOOKED_AT = 20_000

_WAITS = "Nothing needs doing; it is tried again later."
_MASKED = (
    (re.compile(r"https?://\S+"), "[address]"),
    (re.compile(r"amzn1\.[\w.:-]+", re.IGNORECASE), "[account]"),
    (re.compile(r"(customer|account|user)((?:\s*id)?)\s*[:=]?\s*\[[^\]]*\]+", re.IGNORECASE), r"\1\2 [hidden]"),
    (re.compile(r"\b(?=[A-Z0-9]*\d)A[A-Z0-9]{11,20}\b"), "[account]"),  # longer than an ASIN
)


def masked(said: str) -> str:
    """Return what a server said as one short line, without accounts, addresses, tokens and keys."""
    said = redaction.redact(said)
    for pattern, replacement in _MASKED:
        said = pattern.sub(replacement, said)
    return text.line(said)[:_SAID_LIMIT]


def document(answer: Answer, *, doing: str, now: datetime) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises what `refusal` returns, and Transient ``audible.unreadable``."""
    if answer.status != 200:
        raise refusal(answer, doing=doing, now=now)
    found = _object(answer)
    if found is None:
        raise unreadable(answer, doing)
    return found


def unreadable(answer: Answer, doing: str) -> Transient:
    """Return the error for an answer that isn't what was asked for, such as a gateway's page of HTML with status 200."""
    what = "a web page" if "html" in answer.type or answer.body.lstrip()[:1] == b"<" else "something that can't be read"
    return Transient(
        "audible.unreadable",
        f"Audible answered with {what} instead of data while {doing} (status {answer.status}).",
        remedy=f"{_WAITS} A VPN, a proxy or an outage at Audible is often the reason if it stays so.",
    )


def refusal(answer: Answer, *, doing: str, now: datetime) -> Aiom4bError:
    """Return the error for an answer of any status but 200, with the server's wish when to come again in ``later``."""
    found = _object(answer)
    said = masked(_message(found)) if found is not None else ""
    told = f": {said}" if said else ""
    whole = answer.body[:_LOOKED_AT].decode("utf-8", "replace")
    later = _retry_after(answer, now)
    if (known := licence_refusal(whole)) is not None:
        return known
    match answer.status:
        case 401 | 403:
            if (clock := _clock_error(answer, now)) is not None:
                return clock
            if found is None and "could not be authenticated" not in whole:
                return unreadable(answer, doing)
            return NeedsAttention(
                "audible.unauthorized",
                f"Audible no longer accepts this sign-in{told}. The device was deregistered, or the sign-in has expired.",
                remedy="Sign in again: `aiom4b audible logout`, then `aiom4b audible login`.",
            )
        case 404:
            return NeedsAttention(
                "audible.not_found",
                f"Audible doesn't know what was asked for while {doing}{told}.",
                remedy="Check that the title is in the library of this account and marketplace.",
            )
        case 429:
            return Transient(
                "audible.rate",
                f"Audible was asked too often while {doing}{told}.",
                remedy=_WAITS,
                later=later,
            )
        case 408 | 425:
            return _server(answer, doing, later)
        case status if status >= 500:
            return _server(answer, doing, later)
        case status if status < 400:
            return unreadable(answer, doing)
        case status:
            return NeedsAttention(
                "audible.refused",
                f"Audible refused a request while {doing} (status {status}){told}.",
                remedy="Try again later; if it stays so, please report it with this message.",
            )


def licence_refusal(said: str) -> Aiom4bError | None:
    """Return the error for the refusals of a licence that Audible only tells in words, whatever the status; else None."""
    if "CustomerThrottled" in said or "being throttled" in said:
        return NeedsAttention(
            "audible.customer_throttled",
            "Audible throttles this account: it gives this registered device no licences for now.",
            remedy="Wait a day or two. If it stays so, renew the registration: `aiom4b audible logout`, then "
            "`aiom4b audible login`.",
        )
    if "above threshold" in said:
        return Transient(
            "audible.rate",
            "Audible has given this account more licences lately than it likes, and gives no more for about a day.",
            remedy=f"{_WAITS} A smaller audible.daily_licences keeps it from coming back.",
            later=_THRESHOLD_WAIT,
        )
    if "000307" in said or re.search(r'\bacr\\?"?\s*:\s*null', said):
        return no_asset()
    return None


def no_asset() -> NeedsAttention:
    """Return the error for a title that Audible has no audio of that could be downloaded."""
    return NeedsAttention(
        "audible.no_asset",
        "Audible has no audio of this title for downloading: it is not released yet, or can only be streamed.",
        remedy="Wait for its release; ask for it again in some days with `aiom4b audible download`.",
    )


def _server(answer: Answer, doing: str, later: timedelta | None) -> Transient:
    return Transient(
        "audible.server",
        f"Audible has a trouble of its own (status {answer.status}) while {doing}.",
        remedy=_WAITS,
        later=later,
    )


def _object(answer: Answer) -> dict[str, Any] | None:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _message(found: dict[str, Any]) -> str:
    for key in ("message", "error_description", "error", "reason"):
        value = found.get(key)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return ""


def _clock_error(answer: Answer, now: datetime) -> NeedsAttention | None:
    theirs = _date(answer.headers.get("date", ""))
    if theirs is None or abs(theirs - now) <= _CLOCKS_MAY_DIFFER:
        return None
    apart = round(abs((theirs - now).total_seconds()) / 60)
    return NeedsAttention(
        "audible.clock",
        f"This computer's clock differs from Audible's by {apart} minutes, and requests are signed with their time.",
        remedy="Set the clock right, best by NTP (`timedatectl set-ntp true`), then try again.",
    )


def _retry_after(answer: Answer, now: datetime) -> timedelta | None:
    told = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", told):
        wait = timedelta(seconds=min(int(told[:9]), int(_LONGEST_WAIT.total_seconds())))
    elif (moment := _date(told)) is not None:
        wait = moment - (_date(answer.headers.get("date", "")) or now)
    else:
        return None
    return min(max(wait, timedelta(seconds=1)), _LONGEST_WAIT)


def _date(written: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
