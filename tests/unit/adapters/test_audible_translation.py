"""Is each answer of Audible's told by what it means, and without what concerns nobody else?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from aiom4b.adapters.audible_api.connection import Answer
from aiom4b.adapters.audible_api.translation import document, masked, refusal
from aiom4b.errors import NeedsAttention, Transient

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def answer(status, body=b"", kind="application/json", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers={"content-type": kind, **named}, body=data)


def error(*args, **kwargs):
    return refusal(answer(*args, **kwargs), doing="asking", now=NOON)


@pytest.mark.parametrize(
    "said",
    [
        "License not granted to customer [A2OWN3CUSTOMER] for asin [B00AIOM4B1]",
        "Customer id: [amzn1.account.AEOWN2CUSTOMER] is throttled",
        "account amzn1.account.AEOWN2CUSTOMER",
        "A2OWN3CUSTOMER may not",
        "see https://own.cloudfront.net/A2OWN3CUSTOMER?Signature=AEOWN2CUSTOMER",
        "token Atna|AEOWN2CUSTOMER is old",
    ],
)
def test_no_customer_address_or_token_is_repeated(said):
    assert "OWN" not in masked(said).replace("B00AIOM4B1", "")


def test_what_was_said_is_one_short_line():
    assert masked("no\n\x1b[31mway " + "x" * 5000).startswith("no [31mway x")
    assert len(masked("x" * 5000)) == 200


@pytest.mark.parametrize(
    ("headers", "later"),
    [
        ({"retry_after": "30"}, timedelta(seconds=30)),
        ({"retry_after": "0"}, timedelta(seconds=1)),
        ({"retry_after": "9" * 30}, timedelta(days=7)),
        ({"retry_after": "Sat, 21 Nov 2026 12:10:00 GMT"}, timedelta(minutes=10)),
        # By the clock of who says so: ours may be wrong.
        (
            {"retry_after": "Sat, 21 Nov 2026 15:10:00 GMT", "date": "Sat, 21 Nov 2026 15:00:00 GMT"},
            timedelta(minutes=10),
        ),
        ({"retry_after": "Sat, 21 Nov 2026 11:00:00 GMT"}, timedelta(seconds=1)),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_again_is_heard(status, headers, later):
    found = error(status, **headers)
    assert isinstance(found, Transient)
    assert found.later == later


def test_a_page_of_a_gateway_is_no_word_on_the_sign_in():
    assert error(403, b"<html>VPN</html>", "text/html").code == "audible.unreadable"
    assert error(403, b"Message could not be authenticated", "text/plain").code == "audible.unauthorized"
    assert error(403, {"message": "no"}).code == "audible.unauthorized"


@pytest.mark.parametrize(
    ("minutes", "code"), [(4, "audible.unauthorized"), (6, "audible.clock"), (-6, "audible.clock")]
)
def test_a_sign_in_is_not_blamed_for_the_clock(minutes, code):
    date = format(NOON + timedelta(minutes=minutes), "%a, %d %b %Y %H:%M:%S GMT")
    assert error(401, {}, date=date).code == code


def test_a_clock_that_can_not_be_compared_is_not_blamed():
    assert error(401, {}, date="today").code == "audible.unauthorized"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, {"error_code": "000307", "message": "no asset"}, "audible.no_asset"),
        (400, {"message": "asin:B00AIOM4B1, acr:null, version"}, "audible.no_asset"),
        (403, {"message": "Customer [x] is above threshold for content license grant count"}, "audible.rate"),
        (400, {"message": "CustomerThrottled"}, "audible.customer_throttled"),
        (302, b"", "audible.unreadable"),
        (418, {"error": {"message": "tea"}}, "audible.refused"),
        (408, {}, "audible.server"),
        (502, b"<html>", "audible.server"),
    ],
)
def test_what_is_only_told_in_words_is_understood(status, body, code):
    found = error(status, body)
    assert found.code == code
    assert found.reason.endswith(".")
    assert found.remedy.endswith((".", "`."))


def test_what_was_said_is_told():
    assert "(status 418): tea." in error(418, {"error": {"message": "tea"}}).reason
    assert ": no such thing." in error(404, {"error_description": "no such thing"}).reason


@pytest.mark.parametrize("body", [b"<html></html>", b"", b"[1]", b"[" * 100_000, b"\xff\xfe\x00", b"null"])
def test_what_is_no_document_is_unreadable(body):
    with pytest.raises(Transient) as caught:
        document(answer(200, body), doing="asking", now=NOON)
    assert caught.value.code == "audible.unreadable"


def test_a_document_is_read_and_a_refusal_raised():
    assert document(answer(200, {"a": 1}), doing="asking", now=NOON) == {"a": 1}
    with pytest.raises(NeedsAttention):
        document(answer(404, {}), doing="asking", now=NOON)
