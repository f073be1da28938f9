"""Is a licence's reply understood, or refused, whatever stands in it?"""

from __future__ import annotations

import copy
import traceback
from datetime import UTC, datetime

import pytest

from aiom4b import redaction
from aiom4b.adapters.audible_api import licences
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.errors import Aiom4bError
from audible_account import Account, Device
from audible_documents import Title, licence, voucher

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASIN = "B00AIOM4B1"
TITLE = Title(told_size=1000)
DEVICE = Device(account=Account(), serial="0" * 40)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


def sealed(document):
    return licence(TITLE, DEVICE.sealed(ASIN, document), "own", NOON)


def granted(reply, asin=ASIN):
    return licences.granted(reply, asin, Identity.of(DEVICE.identity()).authenticator())


def code_of(reply, **facts):
    with pytest.raises(Aiom4bError) as caught:
        granted(reply, **facts)
    return caught.value.code


def changed(path, value):
    """Return a good reply with one thing changed: ``path`` leads there through the licence."""
    reply = sealed(voucher(TITLE, "own", NOON))
    *parents, last = path.split(".")
    place = reply["content_license"]
    for name in parents:
        place = place[name]
    place[last] = value
    return reply


def test_only_what_can_be_opened_is_asked_for():
    body = licences.request("high")
    assert body["supported_drm_types"] == ["Mpeg", "Adrm"]
    assert sorted(body["supported_media_features"]["drm_types"]) == ["Adrm", "Mpeg"]
    assert body["supported_media_features"]["codecs"] == ["mp4a.40.2"]
    assert body["quality"] == "High"
    assert licences.request("normal")["quality"] == "Normal"
    assert "chapter_info" in body["response_groups"]


def test_the_reply_itself_is_left_as_it_was():
    reply = sealed(voucher(TITLE, "own", NOON))
    before = copy.deepcopy(reply)
    found = granted(reply)
    assert reply == before
    assert found.voucher["content_license"]["license_response"]["rules"]
    assert found.voucher["response_groups"] == reply["response_groups"]
    assert TITLE.key.hex() not in repr(found)
    assert "Signature" not in repr(found)


def test_keys_are_hidden_from_then_on():
    granted(sealed(voucher(TITLE, "own", NOON)))
    assert TITLE.key.hex() not in redaction.redact(TITLE.key.hex())
    assert TITLE.iv.hex() not in redaction.redact(TITLE.iv.hex())


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("drm_type", "Hls", "audible.protected_streaming"),
        ("drm_type", None, "audible.protected_streaming"),
        ("status_code", "Denied", "audible.licence_denied"),
        ("status_code", 7, "audible.unreadable"),
        ("asin", "B00ANOTHER", "audible.unreadable"),
        ("content_metadata", None, "audible.unreadable"),
        ("content_metadata.content_url", {}, "audible.unreadable"),
        ("content_metadata.content_url.offline_url", ["x"], "audible.unreadable"),
        ("license_response", None, "audible.voucher_unreadable"),
        ("license_response", "", "audible.voucher_unreadable"),
        ("license_response", "?", "audible.voucher_unreadable"),
        ("license_response", "A" * 64, "audible.voucher_unreadable"),
    ],
)
def test_a_reply_that_is_not_as_it_should_be_is_refused(path, value, code):
    assert code_of(changed(path, value)) == code


@pytest.mark.parametrize(
    "keys",
    [
        {"key": "0" * 31, "iv": "0" * 32},
        {"key": "0" * 32, "iv": "g" * 32},
        {"key": "0" * 32 + "\n", "iv": "0" * 32},
        {"key": 7, "iv": "0" * 32},
        {"iv": "0" * 32},
        {},
    ],
)
def test_keys_that_are_none_are_refused(keys):
    assert code_of(sealed(keys)) == "audible.voucher_unreadable"


def test_half_a_voucher_is_not_shown_by_its_error():
    with pytest.raises(Aiom4bError) as caught:
        granted(sealed({"key": TITLE.key.hex()}))
    assert TITLE.key.hex() not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("reply", [{}, {"content_license": None}, {"content_license": []}, {"content_license": {}}])
def test_what_is_no_licence_is_unreadable(reply):
    assert code_of(reply) == "audible.unreadable"


def test_a_title_without_audio_is_told_from_a_reply_that_makes_no_sense():
    reply = changed("content_metadata.content_url", None)
    reply["content_license"]["acr"] = None
    assert code_of(reply) == "audible.no_asset"


def denied(reasons, message="License not granted to customer [A2OWN3CUSTOMER]"):
    return {
        "content_license": {
            "status_code": "Denied",
            "license_denial_reasons": reasons,
            "message": message,
            "asin": ASIN,
        }
    }


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("Ownership", "library"), ("Membership", "membership"), ("AYCL", "membership"), ("Client", "some days")],
)
def test_a_denied_licence_says_why_and_what_to_do(kind, remedy):
    reason = {"validationType": kind, "rejectionReason": "RequesterEligibility", "message": "A2OWN3CUSTOMER may not"}
    with pytest.raises(Aiom4bError) as caught:
        granted(denied([reason]))
    error = caught.value
    assert f"{kind}/RequesterEligibility" in error.reason
    assert "[account] may not." in error.reason
    assert remedy in error.remedy
    assert ASIN in error.reason


def test_a_denial_without_reasons_still_says_what_audible_said():
    for reasons in (None, [], [{}]):
        with pytest.raises(Aiom4bError) as caught:
            granted(denied(reasons))
        assert "License not granted to customer [hidden]" in caught.value.reason
    with pytest.raises(Aiom4bError) as caught:
        granted(denied(None, None))
    assert "it gave no reason." in caught.value.reason


def test_throttling_is_told_by_its_reason_or_its_words():
    assert code_of(denied([{"rejectionReason": "CustomerThrottled"}])) == "audible.customer_throttled"
    assert code_of(denied([{"message": "Customer id [x] being throttled"}])) == "audible.customer_throttled"


@pytest.mark.parametrize(
    ("address", "expires"),
    [
        ("https://own.example.org/x?Expires=1795262400&Signature=y", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("https://own.example.org/x", None),
        ("https://own.example.org/x?Expires=soon", None),
        ("https://own.example.org/x?Expires=99999999999999999999", None),
        ("", None),
        ("https://[own", None),
    ],
)
def test_an_address_tells_until_when_it_works(address, expires):
    assert licences.expiry(address) == expires


@pytest.mark.parametrize("size", [0, -1, None])
def test_a_size_that_is_none_is_not_known(size):
    assert granted(changed("content_metadata.content_reference.content_size_in_bytes", size)).size is None


@pytest.mark.parametrize("named", ["../../etc", "a b", None, "x" * 100])
def test_a_format_becomes_a_name_only_if_it_can(named):
    assert granted(changed("content_metadata.content_reference.content_format", named)).content_format == ""
