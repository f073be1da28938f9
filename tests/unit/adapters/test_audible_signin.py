"""Does signing in refuse what can't lead anywhere, before anybody is asked?"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from aiom4b import redaction
from aiom4b.adapters.audible_api import identity, signin
from aiom4b.errors import NeedsAttention

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    def refuse(self, request):
        raise AssertionError(request)

    monkeypatch.setattr(redaction, "_secrets", [])
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refuse)


def pending():
    return signin.begin("us", with_username=False, now=NOON)


def test_each_sign_in_has_a_secret_and_a_device_of_its_own():
    one, other = pending(), pending()
    assert one.code_verifier != other.code_verifier
    assert one.serial != other.serial
    query = parse_qs(urlsplit(one.url).query)
    assert urlsplit(one.url).hostname == "www.amazon.com"
    assert one.code_verifier not in one.url
    assert query["openid.oa2.code_challenge_method"] == ["S256"]
    assert one.code_verifier not in redaction.redact(f"it is {one.code_verifier}")
    assert one.code_verifier not in repr(one)
    assert one.serial not in repr(one)


@pytest.mark.parametrize("country", ["", "xx", "germany", "../de"])
def test_an_unknown_country_names_those_that_there_are(country):
    with pytest.raises(NeedsAttention) as caught:
        signin.begin(country, with_username=False, now=NOON)
    assert caught.value.code == "signin.country"
    assert "au, br, ca, de, es, fr, in, it, jp, uk, us" in caught.value.remedy


def test_countries_are_taken_as_people_write_them():
    assert identity.marketplace(" GB ").domain == "co.uk"
    assert identity.marketplace("Jp").domain == "co.jp"


def test_a_user_name_is_only_for_the_markets_that_had_some():
    for country in ("de", "uk", "us"):
        url = signin.begin(country, with_username=True, now=NOON).url
        assert urlsplit(url).hostname.startswith("www.audible.")
    with pytest.raises(NeedsAttention) as caught:
        signin.begin("fr", with_username=True, now=NOON)
    assert caught.value.code == "signin.with_username"


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        "   \n",
        "OWNCODE1234",
        "https://www.amazon.com/ap/maplanding",
        "https://www.amazon.com/ap/maplanding?openid.mode=cancel",
        "https://www.amazon.com/ap/maplanding?openid.oa2.authorization_code=",
        "https://www.amazon.com/ap/maplanding?openid.oa2.authorization_code=a%20b%00c%0Adefg",
        "https://www.amazon.com/ap/maplanding?openid.oa2.authorization_code=OWNCODE1&openid.oa2.authorization_code=OWNCODE2",
        "https://[broken",
        "x" * 100_000,
    ],
)
def test_an_address_without_a_code_is_refused_and_not_repeated(pasted):
    with pytest.raises(NeedsAttention) as caught:
        signin.finish(pending(), pasted, NOON)
    error = caught.value
    assert error.code == "signin.bad_address"
    assert "OWNCODE" not in f"{error.reason} {error.remedy}"
    assert "/ap/maplanding" in error.remedy
    assert len(error.reason) < 200


def test_the_address_of_the_first_page_is_told_from_the_last():
    one = pending()
    with pytest.raises(NeedsAttention) as caught:
        signin.finish(one, one.url, NOON)
    assert "the one after it" in caught.value.reason
