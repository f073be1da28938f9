"""How do we reach Audible? The one place that makes HTTP clients, sends requests, and follows where they lead."""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import audible
import httpx

from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

TIMEOUTS = httpx.Timeout(60, connect=20)
"""Seconds that a connection may take to come about, and that it may then stay silent."""
APP = "Audible/671 CFNetwork/1240.0.4 Darwin/20.6.0"
"""What we call ourselves: the servers that hold the audio know this one."""
MIB = 1 << 20

_PATIENCE = 60.0  # seconds until the first byte
_SLOWEST = 64 * 1024  # bytes a second: who sends an answer more slowly than this keeps us for nothing
_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def quieten() -> None:
    """Keep audible and what it speaks through from logging below WARNING, at any level of ours.

    At DEBUG they write keys, tokens, whole answers and signed addresses. Safe to repeat.
    """
    for name in ("audible", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered, read whole. ``headers`` are named in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def type(self) -> str:
        """The content type without its parameters, in lower case; "" when it has none."""
        return media_type(self.headers)


def media_type(headers: Mapping[str, str]) -> str:
    """Return the content type that headers name, without parameters, in lower case; "" when there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    headers: Mapping[str, str]
    params: Mapping[str, str | int] | None = None
    document: object = None


class Connection:
    """Two clients: one signs, and is used for the few hosts of Audible that need it; the other knows nothing of the account.

    So no server that holds audio or pictures ever gets a header of the account, wherever an address leads. To be entered
    with ``async with``, and used by one event loop.
    """

    def __init__(self, authenticator: audible.Authenticator, domain: str) -> None:
        quieten()
        self._authenticator = authenticator
        self._trusted = {f"api.audible.{domain}", f"www.audible.{domain}", "www.audible.com", "cde-ta-g7g.amazon.com"}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": APP, "Accept-Charset": "utf-8"}
        context = await anyio.to_thread.run_sync(self._prepared)
        self._signed = await self._stack.enter_async_context(
            httpx.AsyncClient(auth=self._authenticator, headers=headers, timeout=TIMEOUTS, verify=context)
        )
        self._plain = await self._stack.enter_async_context(
            httpx.AsyncClient(headers=headers, timeout=TIMEOUTS, verify=context)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _prepared(self) -> ssl.SSLContext:
        """Return whom to trust; it and the key for signing, which is remembered, take some 20 ms each to read."""
        self._authenticator.sign_request(httpx.Request("GET", "https://api.audible.com/"))
        return _trust()

    async def ask(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, str | int] | None = None,
        document: object = None,
        follow: bool = False,
        largest: int = 64 * MIB,
    ) -> Answer:
        """Send a request and read the whole answer, of any status; ``document`` is sent as JSON.

        Without ``follow`` an answer that leads elsewhere is returned as it is. Raises Transient ``audible.network``,
        ``audible.unreachable``, and ``audible.unreadable`` for more than ``largest`` bytes; NeedsAttention ``audible.clock`` and ``audible.refused``.
        """
        with _translated(), anyio.fail_after(_PATIENCE + largest / _SLOWEST):
            headers = {"Accept": "application/json"} if address.startswith("https://api.") else {}
            request = _Request(method=method, params=params, document=document, headers=headers)
            async with self._opened(address, request, follow=follow, account=True) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > largest:
                        raise Transient(
                            "audible.unreadable",
                            f"Audible sent more than {largest // MIB} MiB where far less was expected.",
                            remedy="Nothing needs doing; it is tried again later. If it stays so, please report it.",
                        )
                return Answer(status=response.status_code, headers=response.headers, body=bytes(body))

    @asynccontextmanager
    async def opened(self, address: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Open an address of audio for reading piece by piece, wherever it leads. The account stays out of it.

        Raises what `ask` raises until the answer begins; while reading the caller translates.
        """
        async with AsyncExitStack() as stack:
            with _translated():
                request = _Request(method="GET", headers=headers)
                response = await stack.enter_async_context(self._opened(address, request, follow=True, account=False))
            yield response

    @asynccontextmanager
    async def _opened(
        self, address: str, asked: _Request, *, follow: bool, account: bool
    ) -> AsyncIterator[httpx.Response]:
        # httpx would carry the signature of the first request to wherever it is led, so each hop is a request of its own.
        url = _on_the_internet(address)
        for _ in range(_HOPS):
            client = self._signed if account and url.host in self._trusted else self._plain
            request = client.build_request(
                asked.method, url, params=asked.params, json=asked.document, headers=dict(asked.headers)
            )
            response = await client.send(request, stream=True)
            try:
                location = response.headers.get("location", "")
                if not (follow and response.status_code in _REDIRECTS and location):
                    yield response
                    return
            finally:
                await response.aclose()
            url, asked = _on_the_internet(location, url), replace(asked, params=None)
        raise Transient(
            "audible.unreadable",
            f"The address at {url.host} led from one to the next without end.",
            remedy="Nothing needs doing; it is tried again later.",
        )


@functools.cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _on_the_internet(address: str, base: httpx.URL | None = None) -> httpx.URL:
    """Return an address, unless it leads to a place of the owner's own network, or goes there without encryption."""
    try:
        url = httpx.URL(address) if base is None else base.join(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    try:
        numeric = bool(ip_address(url.host))
    except ValueError:
        numeric = False
    if url.scheme != "https" or numeric or "." not in url.host or url.userinfo or url.port not in {None, 443}:
        raise NeedsAttention(
            "audible.refused",
            "Audible named an address that is not a plain https address of the internet; it was not opened.",
            remedy="Check that no proxy or DNS server of your network answers in Audible's place, then try again.",
        )
    return url


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, TimeoutError) as error:
        raise verdict(error) from error


def verdict(error: Exception) -> Aiom4bError:
    """Return the error of ours for one of httpx's, whose text is not shown.

    Transient ``audible.unreachable`` when nothing of the request has got to Audible, else ``audible.network`` mostly.
    """
    if isinstance(error, httpx.ConnectError) and _untimely(error):
        return NeedsAttention(
            "audible.clock",
            "The certificate of Audible's server is not valid at the time that this computer's clock shows.",
            remedy="Set the clock right, best by NTP (`timedatectl set-ntp true`), then try again.",
        )
    code = "audible.network"
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout() | httpx.ProxyError():
            code, what = "audible.unreachable", "could not be reached"
        case httpx.TimeoutException() | TimeoutError():
            what = "did not answer in time"
        case httpx.DecodingError():
            return Transient(
                "audible.unreadable",
                "Audible sent something that can't be read.",
                remedy="Nothing needs doing; it is tried again later. Check any proxy or VPN if it stays so.",
            )
        case _:
            what = "broke the connection"
    return Transient(
        code,
        f"Audible {what} ({type(error).__name__}).",
        remedy="Nothing needs doing; it is tried again later. Check the network, DNS and any proxy if it stays so.",
    )


def _untimely(error: Exception) -> bool:
    said = str(error)
    return "certificate is not yet valid" in said or "certificate has expired" in said
