"""How do others watch? Events as they happen, as server-sent events or over a WebSocket, until they leave or we stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import anyio
from fastapi import WebSocket
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from aiom4b.jobs.events import Event, Reset
from aiom4b.redaction import json_text

PING_SECONDS = 15.0
"""Shorter than the patience of proxies, and of our own client, which takes long silence for a dead connection."""
_SERVICE_RESTART = 1012  # IANA's WebSocket close code number registry


class EventStream(Response):
    """Events in the format of server-sent events (WHATWG HTML, 9.2), without an end of its own.

    Each has its id, its name and JSON data. ``reset`` tells that some were missed: ask anew for the state.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[Event | Reset], closing: anyio.Event) -> None:
        self._events = events
        self._closing = closing
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]  # of the empty body that `Response` takes it to have

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Stream until the client leaves or ``closing`` is set."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def give(event: Event | Reset) -> None:
            await send({"type": "http.response.body", "body": _frame(event), "more_body": True})

        async def ping() -> None:
            while True:
                await anyio.sleep(PING_SECONDS)
                await send({"type": "http.response.body", "body": KEEPALIVE_COMMENT, "more_body": True})

        await _follow(self._events, give, ends=(gone, self._closing.wait, ping))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def serve_jobs(
    socket: WebSocket, events: AsyncIterator[Event | Reset], job: str | None, closing: anyio.Event
) -> None:
    """Send what happens to jobs, or to one of them, as JSON texts {"id", "event", "at", "data"}; what comes in is ignored."""
    await socket.accept()

    async def gone() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    async def give(event: Event | Reset) -> None:
        if isinstance(event, Reset):
            told = {"id": event.id, "event": "reset", "at": None, "data": {}}
        elif event.event.startswith("job.") and job in {None, event.data.get("job_id")}:
            told = {"id": event.id, "event": event.event, "at": event.at.isoformat(), "data": event.data}
        else:
            return
        with suppress(WebSocketDisconnect):  # `gone` hears of it too
            await socket.send_text(json_text(told))

    await _follow(events, give, ends=(gone, closing.wait))
    with suppress(WebSocketDisconnect, RuntimeError):  # gone already
        await socket.close(_SERVICE_RESTART)


def _frame(event: Event | Reset) -> bytes:
    if isinstance(event, Reset):
        return format_sse_event(event="reset", data_str="{}", id=str(event.id))
    data = json_text({**event.data, "at": event.at.isoformat()})
    return format_sse_event(event=event.event, data_str=data, id=str(event.id))


async def _follow(
    events: AsyncIterator[Event | Reset],
    give: Callable[[Event | Reset], Awaitable[None]],
    *,
    ends: tuple[Callable[[], Awaitable[object]], ...],
) -> None:
    """Hand every event to ``give`` until one of ``ends`` returns, or there are no more events."""
    async with anyio.create_task_group() as group:

        async def until(end: Callable[[], Awaitable[object]]) -> None:
            await end()
            group.cancel_scope.cancel()

        for end in ends:
            group.start_soon(until, end)
        async for event in events:
            await give(event)
        group.cancel_scope.cancel()
