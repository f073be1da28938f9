"""How does the fake of Audible listen? HTTP/1.1 on 127.0.0.1, with connections that it can break off anywhere."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit


class Request(BaseHTTPRequestHandler):
    """One connection, and the request that is being answered on it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def _answered(self) -> None:
        url = urlsplit(self.path)
        self.target, self.path, self.method = self.path, url.path, self.command
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.what = f"{self.command} {self.headers.get('host', '').partition(':')[0]}{url.path}"
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.answer(self)

    def do_GET(self) -> None:
        self._answered()

    def do_POST(self) -> None:
        self._answered()

    def do_HEAD(self) -> None:
        self._answered()

    def begin(self, status: int, length: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(
        self, status: int, content: dict[str, Any] | str | bytes, kind: str = "application/json", **headers: str
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.begin(status, len(data), kind, **headers)
        if self.command != "HEAD":
            self.wfile.write(data)

    def pour(self, file: IO[bytes], length: int) -> None:
        while length > 0 and (piece := file.read(min(length, 1 << 18))):
            self.wfile.write(piece)
            length -= len(piece)
        self.wfile.flush()

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.ahead().total_seconds())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 and has each request answered in a thread; its clock is ``ahead`` of ours."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, answer: Callable[[Request], None], ahead: Callable[[], timedelta], port: int) -> None:
        self.answer = answer
        self.ahead = ahead
        self.failures: list[BaseException] = []
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error and not isinstance(error, ConnectionError):  # clients that are killed hang up
            self.failures.append(error)

    def end(self) -> None:
        """Hang up on all, and return when every answer has ended."""
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):  # it has just gone
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
