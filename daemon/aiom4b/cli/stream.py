"""What does the service say as it happens? Its stream of events, read in a thread."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from aiom4b.errors import Aiom4bError, Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in the service: ``id`` rises, ``event`` is ``job.started`` and the like, or ``reset``."""

    id: int | None
    event: str
    data: dict[str, Any]


class Stream:
    """Events as they happen. A thread of its own reads them, so that whoever waits can do something else meanwhile."""

    def __init__(self, connection: socket.socket, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self._heard: queue.SimpleQueue[Event | Aiom4bError] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="events", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the service may have gone first
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._response.close()
        self._connection.close()

    def take(self, timeout: float) -> list[Event]:
        """Return all that was heard, after at most ``timeout`` seconds: [] if nothing was.

        Raises Transient ``service.lost`` once the stream has ended and all of it was taken.
        """
        events: list[Event] = []
        while True:
            try:
                item = self._heard.get(timeout=timeout) if not events else self._heard.get_nowait()
            except queue.Empty:
                return events
            if isinstance(item, Event):
                events.append(item)
                continue
            if not events:
                raise item
            self._heard.put(item)  # nothing comes after it: it is told by the next call
            return events

    def _read(self) -> None:
        try:
            for event in events_of(self._response):
                self._heard.put(event)
            self._heard.put(lost())
        except (OSError, ValueError, http.client.HTTPException) as error:
            failure = lost()
            failure.__cause__ = error
            self._heard.put(failure)


def events_of(lines: Iterable[bytes]) -> Iterator[Event]:
    """Read the text/event-stream format (WHATWG HTML, section 9.2), as far as our service speaks it."""
    id, name, data = None, "message", ""
    for line in lines:
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            id = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            data += value
        elif not field and not value and data:
            yield Event(id=id, event=name, data=json.loads(data))
            name, data = "message", ""


def lost() -> Transient:
    """Return the error of a connection that ended too early."""
    return Transient(
        "service.lost", "The service ended the connection.", remedy="See with `aiom4b status` whether it is running."
    )
