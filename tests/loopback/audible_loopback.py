"""How do requests to Audible reach a fake on this machine? Every httpx transport sends them there, and nowhere else.

The request stays what it was (Host header, signed path, body); only the connection goes elsewhere. Requests to this machine
itself (the service's own socket) go where they would; any other host is refused, as without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

PORT = "LOOPBACK_AUDIBLE_PORT"
"""The environment variable that names the fake's port to `sitecustomize`."""

_AUDIBLE = re.compile(
    r"(^|\.)(audible|amazon)\.(com?\.[a-z]{2}|com|[a-z]{2})$|(^|\.)(media-amazon\.com|cloudfront\.net)$"
)
_HERE = {"localhost", "127.0.0.1"}


def redirected(request: httpx.Request, port: int) -> httpx.Request:
    """Return the same request for another socket; the original is read again by those who made it."""
    host = request.url.host
    if host in _HERE:
        return request
    if not _AUDIBLE.search(host):
        raise httpx.ConnectError(f"{host} can't be reached from a test", request=request)
    return httpx.Request(
        request.method,
        request.url.copy_with(scheme="http", host="127.0.0.1", port=port),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions,
    )


@contextmanager
def all_to(port: int) -> Iterator[None]:
    """Let every httpx client of this process talk to the fake at ``port``."""
    blocking, waiting = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return blocking(self, redirected(request, port))

    async def handle_async_request(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return await waiting(self, redirected(request, port))

    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request  # type: ignore[method-assign]
    try:
        yield
    finally:
        httpx.HTTPTransport.handle_request = blocking  # type: ignore[method-assign]
        httpx.AsyncHTTPTransport.handle_async_request = waiting  # type: ignore[method-assign]
