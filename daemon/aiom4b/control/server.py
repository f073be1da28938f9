"""How are requests served, and how does that end? uvicorn on our own sockets, with limits, and a stop within a second."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import h11
import structlog
import uvicorn
from anyio.abc import TaskStatus
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from aiom4b.control.application import application
from aiom4b.control.guard import Peer
from aiom4b.control.lag import Lag
from aiom4b.control.listen import Listener
from aiom4b.control.service import Service

HEAD_SECONDS = 10.0
"""How long a client may take to send the head of a request."""
MOST_CONNECTIONS = 128
"""Far below the 1024 descriptors of a process: the rest belongs to books."""
GRACE_SECONDS = 1.0
"""How long answers in progress may take once we stop."""

log = structlog.get_logger()


class Server:
    """Answers on ``listeners`` from `run` until `stop`. One for the process; used once."""

    def __init__(
        self, service: Service, listeners: Sequence[Listener], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._listeners = listeners
        self._lag = Lag(monotonic)
        self._closing = anyio.Event()
        app = application(service, closing=self._closing, lag=self._lag, monotonic=monotonic)
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="websockets-sansio",
                ws_max_size=4096,  # nobody has to tell us anything there
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                log_level="error",  # every malformed request is a warning
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=MOST_CONNECTIONS + 1,  # answers 503 where nobody could be sent away
                timeout_keep_alive=30,
                timeout_graceful_shutdown=3,
                h11_max_incomplete_event_size=16 << 10,
            ),
            self._closing,
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer until `stop` or cancellation; ``started`` once requests are taken. Afterwards the sockets are closed."""
        sockets = [one.socket for one in self._listeners]
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._lag.measure, name="event loop lag")
                group.start_soon(self._tell, task_status, name="control started")
                try:
                    await self._uvicorn.serve(sockets)
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await self._uvicorn.shutdown(sockets)
                    raise
                group.cancel_scope.cancel()
        finally:
            for one in self._listeners:
                one.close()

    async def _tell(self, task_status: TaskStatus[None]) -> None:
        await self._uvicorn.listening.wait()
        log.info("control.listening", at=[one.address for one in self._listeners])
        task_status.started()

    def stop(self) -> None:
        """Take no more requests, end all streams, and let `run` return within about a second."""
        self._closing.set()


class _Uvicorn(uvicorn.Server):
    """uvicorn's life without its signal handlers, which are the service's business, and without its ten ticks a second."""

    def __init__(self, config: uvicorn.Config, closing: anyio.Event) -> None:
        super().__init__(config)
        self.listening = anyio.Event()
        self._closing = closing
        self._shut = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._closing.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._shut or not self.started:
            return
        self._shut = True
        self._closing.set()
        async with anyio.create_task_group() as group:
            group.start_soon(self._cut_off)
            await super().shutdown(sockets)
            group.cancel_scope.cancel()

    async def _cut_off(self) -> None:
        """Let nobody who reads slowly, or not at all, keep us."""
        await anyio.sleep(GRACE_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Connection(H11Protocol):
    """A client, with what the kernel says of it, and a deadline for each request's head."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        if (peer := _peer(transport)) is not None:
            self.app_state = {**self.app_state, "peer": peer}
        self._await_head()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel_deadline()
        elif self._deadline is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _make_room(self) -> None:
        """Close the connection that has asked nothing for longest, so that idlers can't keep others out."""
        present = [one for one in self.connections if not one.transport.is_closing()]
        if len(present) > MOST_CONNECTIONS:
            idle = [one for one in present if isinstance(one, _Connection) and one is not self and one.idle]
            if idle:
                min(idle, key=lambda one: one.since).transport.abort()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _peer(transport: asyncio.Transport) -> Peer | None:
    connection: Any = transport.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return None
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid=pid, uid=uid, gid=gid)
