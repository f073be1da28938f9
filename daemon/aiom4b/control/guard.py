"""Who may ask, and how much? Looked at before any route: keys and hosts on TCP, sizes and times everywhere."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import anyio
import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiom4b.config import ApiSettings
from aiom4b.control import problems
from aiom4b.control.tickets import Tickets
from aiom4b.errors import Aiom4bError

MOST_BYTES = 256 << 10
"""Of a request's body. The longest that makes sense is another program's file of accounts, some 15 kB for each."""
BODY_SECONDS = 30.0
STREAMS = ("/api/v1/events", "/api/v1/ws/jobs", "/ws/jobs")
"""What a ticket opens: a browser can't send headers with an event stream or a WebSocket."""
# The description of the interface holds nothing but what everybody can read in our source, and a browser has no way to
# show a page that wants a key in a header.
_PUBLIC = ("/docs", "/openapi.json")
_CLOSING = {"Connection": "close"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end of a Unix socket, as the kernel vouches for it."""

    pid: int
    uid: int
    gid: int


class Guard:
    """Lets through to ``app`` what may pass. A connection without a `Peer` in its state comes from the network.

    On the network every request needs the key, in X-API-Key or as a Bearer token, except for the documentation; and a
    Host that can't be somebody else's name pointed at us. On the Unix socket the file's mode has decided already.
    Each changing request leaves an audit event, ``control.request``.
    """

    def __init__(self, app: ASGIApp, *, api: Callable[[], ApiSettings], tickets: Tickets) -> None:
        self._app = app
        self._api = api
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or WebSocket (ASGI)."""
        peer: Peer | None = scope["state"].get("peer")
        try:
            if peer is None:
                self._check(scope)
            if scope["type"] == "http":
                receive = await _received(receive)
        except Aiom4bError as error:
            log.warning("control.refused", code=error.code, path=scope["path"], client=_address(scope))
            headers = {"WWW-Authenticate": "Bearer"} if error.code == "request.unauthorized" else {}
            await problems.response(error, headers | _CLOSING)(scope, receive, send)
            return
        except _GoneError:
            return
        if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD", "OPTIONS"}:
            send = _audited(scope, peer, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if not _is_ours(headers.get("host", ""), self._api()):
            raise problems.refused(
                "request.host",
                "The request is addressed to a host that is not this one.",
                "Use this machine's address or name, or list the page's origin in api.cors_origins.",
            )
        if scope["path"] in _PUBLIC or scope["path"].startswith("/docs/"):
            return
        if scope["path"] in STREAMS and self._ticket(scope):
            return
        if not self._has_key(headers):
            raise problems.refused(
                "request.unauthorized",
                "The request has no valid key.",
                "Send api.key in X-API-Key or as a bearer token; for a browser's stream get a ticket first.",
            )

    def _has_key(self, headers: Headers) -> bool:
        key = self._api().key
        if key is None:
            return False
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        # As bytes, since text beyond ASCII would raise.
        return secrets.compare_digest(given.encode(), key.get_secret_value().encode())

    def _ticket(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [])
        return len(given) == 1 and self._tickets.redeem(given[0])


def _is_ours(host: str, api: ApiSettings) -> bool:
    """Whether a Host can be meant for us. A page that points its own name at our address (DNS rebinding) sends that name."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        trusted = {urlsplit(origin).hostname for origin in api.cors_origins}
        return name in {"localhost", api.host.lower(), own, f"{own.partition('.')[0]}.local"} | trusted - {None}
    return True


async def _received(receive: Receive) -> Receive:
    """Take in the whole body, within limits; return what gives it to the app. Raises ``request.too_large``, ``.slow``."""
    body = bytearray()
    more = True
    with anyio.move_on_after(BODY_SECONDS) as scope:
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                raise _too_large()
    if scope.cancelled_caught:
        raise problems.refused("request.slow", "The request took too long to arrive.")
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return replayed


class _GoneError(Exception):
    """Whoever asked has left."""


def _too_large() -> Aiom4bError:
    return problems.refused("request.too_large", f"The request is larger than {MOST_BYTES} bytes.")


def _audited(scope: Scope, peer: Peer | None, send: Send) -> Send:
    async def audited(message: Message) -> None:
        if message["type"] == "http.response.start":
            who = {"uid": peer.uid, "pid": peer.pid} if peer is not None else {"client": _address(scope)}
            log.info("control.request", method=scope["method"], path=scope["path"], status=message["status"], **who)
        await send(message)

    return audited


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "unix" if client is None else f"{client[0]}:{client[1]}"
