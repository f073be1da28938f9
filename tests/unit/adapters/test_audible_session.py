"""Is a strange answer of Audible's taken for no more than it is?"""

from __future__ import annotations

import json

import anyio
import httpx
import pytest

from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.session import Session
from aiom4b.errors import Aiom4bError
from audible_account import Account, Device

ASIN = "B00AIOM4B1"


@pytest.fixture
def ask(monkeypatch):
    """Return a function that asks a session whose every request gets the same answer."""

    def ask(question, status=200, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def handle(transport, request):
            return httpx.Response(status, content=data, headers=named)

        async def play():
            async with Session(Identity.of(Device(account=Account(), serial="0" * 40).identity())) as session:
                return await question(session)

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
        return anyio.run(play)

    return ask


def code_of(ask, *args, **facts):
    with pytest.raises(Aiom4bError) as caught:
        ask(*args, **facts)
    return caught.value.code


def page(number=1):
    return lambda session: session.library(page=number, page_size=2)


def test_what_might_become_a_path_is_no_title(ask):
    items = [{"asin": ASIN}, {"asin": "../../etcx"}, {"asin": "b00aiom4b1"}, {"asin": 7}, {}, "B00AIOM4B1", None]
    found = ask(page(), body={"items": items}, total_count="7")
    assert (found.items, found.left_out, found.total) == (({"asin": ASIN},), 6, 7)


@pytest.mark.parametrize("asin", ["", "../library", "B00AIOM4B1/x", "B00AIOM4B1\n", "b00aiom4b1"])
def test_what_is_no_asin_is_asked_of_nobody(ask, asin):
    for question in ("chapters", "annotations", "document"):
        assert code_of(ask, lambda session, question=question: getattr(session, question)(asin)) == "audible.not_found"
    assert code_of(ask, lambda session: session.licence(asin, "high")) == "audible.not_found"
    assert code_of(ask, lambda session: session.aax_address(asin, "x")) == "audible.not_found"
    assert code_of(ask, lambda session: session.library(page=1, parent=asin)) == "audible.not_found"


@pytest.mark.parametrize("told", ["", "many", "-1", "²", "9" * 5000])
def test_without_a_total_a_full_page_promises_another(ask, told):
    items = [{"asin": ASIN}, {"asin": "B00AIOM4B2"}]
    assert ask(page(3), body={"items": items}, total_count=told.encode()).total == 7
    assert ask(page(3), body={"items": items[:1]}, total_count=told.encode()).total == 5


@pytest.mark.parametrize("token", ["", "a b", "x" * 65, "<html>"])
def test_a_token_that_is_none_is_not_kept(ask, token):
    assert ask(page(), body={"items": []}, state_token=token).state_token == ""


@pytest.mark.parametrize("body", [{}, {"items": None}, {"items": {}}])
def test_a_library_without_a_list_is_unreadable(ask, body):
    assert code_of(ask, page(), body=body) == "audible.unreadable"


@pytest.mark.parametrize("found", [None, [], {}, {"chapter_info": None}, {"content_reference": {}}])
def test_chapters_that_are_none_are_none(ask, found):
    assert ask(lambda session: session.chapters(ASIN), body={"content_metadata": found}) is None


@pytest.mark.parametrize("status", [200, 401, 403, 404, 410])
def test_companions_that_are_something_else_are_none(ask, status):
    assert ask(lambda session: session.document(ASIN), status, b"<html>", content_type="text/html") is None
    assert (
        ask(lambda session: session.picture("https://m.example.org/x.jpg"), status, b"<html>", content_type="text/html")
        is None
    )


def test_a_document_that_would_fill_the_memory_is_not_read(ask):
    body = b"%PDF-" + bytes(64 << 20)
    assert code_of(ask, lambda session: session.document(ASIN), body=body) == "audible.unreadable"


@pytest.mark.parametrize(("status", "code"), [(429, "audible.rate"), (503, "audible.server")])
def test_companions_that_may_come_later_are_worth_another_try(ask, status, code):
    assert code_of(ask, lambda session: session.document(ASIN), status) == code
    assert code_of(ask, lambda session: session.picture("https://m.example.org/x.jpg"), status) == code


@pytest.mark.parametrize(
    "location",
    ["", "https://www.audible.com/error", "http://cds.audible.com/download", "https://cds.audible.example@x/"],
)
def test_the_older_way_may_lead_nowhere(ask, location):
    assert code_of(ask, lambda session: session.aax_address(ASIN, "x"), 302, location=location) == "audible.no_asset"


@pytest.mark.parametrize(
    "blob", [b"", b"group_id", b"BAD_LOGIN group_id" + bytes(600), b"Whoops group_id" + bytes(600), bytes(600)]
)
def test_activation_bytes_that_are_none_are_unreadable(ask, blob, capsys):
    assert code_of(ask, lambda session: session.activation_bytes(), body=blob) == "audible.unreadable"
    assert capsys.readouterr().out == ""
