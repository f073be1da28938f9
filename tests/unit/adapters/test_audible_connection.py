"""Does nothing of the account leave for where it doesn't belong, and nothing endless come in?"""

from __future__ import annotations

import logging

import anyio
import httpx
import pytest

from aiom4b.adapters.audible_api import connection
from aiom4b.adapters.audible_api.connection import Connection
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.errors import Aiom4bError
from audible_account import Account, Device

HERE = "https://www.audible.com/companion-file/B00AIOM4B1"


@pytest.fixture
def ask(monkeypatch):
    """Return a function that asks servers, each a host with its answer, and returns the answer with the requests."""

    def ask(address, answers, question=None, **facts):
        seen = []

        async def handle(transport, request):
            seen.append(request)
            answer = answers[request.url.host]
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def play():
            identity = Identity.of(Device(account=Account(), serial="0" * 40).identity())
            async with Connection(identity.authenticator(), "com") as linked:
                return await (question(linked) if question else linked.ask("GET", address, **facts))

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
        return anyio.run(play), seen

    return ask


def to(location, status=302):
    return httpx.Response(status, headers={"location": location})


def code_of(ask, *args, **facts):
    with pytest.raises(Aiom4bError) as caught:
        ask(*args, **facts)
    return caught.value.code


def test_a_signature_stays_where_it_was_made_for(ask):
    answer, seen = ask(
        HERE,
        {
            "www.audible.com": to("https://own.cloudfront.net/own.pdf"),
            "own.cloudfront.net": httpx.Response(200, content=b"%"),
        },
        follow=True,
    )
    assert answer.body == b"%"
    assert "x-adp-token" in seen[0].headers
    assert not [name for name in seen[1].headers if name.startswith(("x-adp", "cookie"))]


@pytest.mark.parametrize(
    "location",
    ["http://own.cloudfront.net/own.pdf", "https://192.168.1.1/", "//localhost/", "file:///etc/passwd"],
)
def test_nobody_is_led_into_the_house_or_out_of_encryption(ask, location):
    assert code_of(ask, HERE, {"www.audible.com": to(location)}, follow=True) == "audible.refused"


def test_audio_is_fetched_without_the_account_even_from_its_own_servers(ask):
    async def question(linked):
        async with linked.opened(HERE, {}) as response:
            return response.status_code

    status, seen = ask(HERE, {"www.audible.com": httpx.Response(200)}, question=question)
    assert status == 200
    assert "x-adp-token" not in seen[0].headers


def test_a_circle_ends(ask):
    assert (
        code_of(ask, HERE, {"www.audible.com": to("/companion-file/B00AIOM4B1")}, follow=True) == "audible.unreadable"
    )


def test_who_does_not_follow_gets_the_answer_itself(ask):
    answer, seen = ask(HERE, {"www.audible.com": to("https://own.cloudfront.net/own.pdf")})
    assert (answer.status, len(seen)) == (302, 1)


def test_more_than_expected_is_not_read_to_its_end(ask):
    class Long(httpx.AsyncByteStream):
        given = 0

        async def __aiter__(self):
            while Long.given < 1_000_000:
                Long.given += 1000
                yield bytes(1000)

    answers = {"www.audible.com": httpx.Response(200, stream=Long())}
    assert code_of(ask, HERE, answers, largest=10_000) == "audible.unreadable"
    assert Long.given < 20_000


def test_who_never_ends_is_given_up(ask, monkeypatch):
    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self):
            await anyio.sleep_forever()
            yield b""

    monkeypatch.setattr(connection, "_PATIENCE", 0.0)
    answers = {"www.audible.com": httpx.Response(200, stream=Silent())}
    assert code_of(ask, HERE, answers, largest=0) == "audible.network"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "audible.unreachable"),
        (httpx.ConnectTimeout(""), "audible.unreachable"),
        (httpx.ReadTimeout(""), "audible.network"),
        (httpx.RemoteProtocolError("Server disconnected"), "audible.network"),
        (httpx.ProxyError("407"), "audible.unreachable"),
        (httpx.DecodingError("bad gzip"), "audible.unreadable"),
        (httpx.ConnectError("certificate verify failed: certificate is not yet valid (_ssl.c:992)"), "audible.clock"),
        (httpx.ConnectError("certificate verify failed: certificate has expired (_ssl.c:992)"), "audible.clock"),
        (httpx.ConnectError("certificate verify failed: self-signed certificate"), "audible.unreachable"),
    ],
)
def test_each_failure_of_the_network_is_told_as_what_it_is(ask, error, code):
    assert code_of(ask, HERE, {"www.audible.com": error}) == code


def test_libraries_that_write_secrets_at_debug_do_not_speak(caplog):
    for name in ("audible", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        Connection(Identity.of(Device(account=Account(), serial="0" * 40).identity()).authenticator(), "com")
        for name in ("audible.auth", "audible.client", "httpx", "httpcore.connection"):
            logging.getLogger(name).info("token")
    assert "token" not in caplog.messages
