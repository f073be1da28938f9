"""How does the command line ask the service? HTTP over its Unix socket; what goes wrong becomes one of our errors."""

from __future__ import annotations

import base64
import http.client
import json as json_format
import os
import socket as sockets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from aiom4b.cli import output
from aiom4b.cli.connecting import VARIABLE, absent, configured_place, connect, silent, usual_places
from aiom4b.cli.stream import Stream, lost
from aiom4b.errors import Aiom4bError, Exit, NeedsAttention, Transient

Document = dict[str, Any]
"""A JSON object as the service sent it."""

TIMEOUT = 30.0
"""Seconds that the service may be silent within an answer. It answers in milliseconds, also when all cores are busy."""
ERRAND_TIMEOUT = 300.0
"""The same where the service has to ask Audible first, which may take a minute and be tried again."""
STREAM_TIMEOUT = 60.0
"""Seconds that a stream of events may be silent: the service sends a sign of life at least every 15."""
PAGE = 500
"""Items that are asked for at once; the service gives no more."""
_EXITS = {
    401: Exit.NOT_PERMITTED,
    403: Exit.NOT_PERMITTED,
    404: Exit.NOT_FOUND,
    429: Exit.TRY_LATER,
    503: Exit.TRY_LATER,
}
# What HTTP has no status of its own for: 422 says no more than that the command can't be carried out.
_KINDS = {"request": Exit.USAGE, "config": Exit.CONFIGURATION}


@contextmanager
def asking(socket: str | None, *, json: bool) -> Iterator[Client]:
    """Give a command its client, and turn what is raised inside into an answer and an exit code (``typer.Exit``).

    Ctrl-C ends the command with 130; the service goes on with whatever it was told.
    """
    try:
        yield Client(socket)
    except Aiom4bError as error:
        output.fail(error, json)
    except KeyboardInterrupt:
        output.fail(
            Transient(
                "client.interrupted",
                "Interrupted. The service goes on with what it was told.",
                remedy="`aiom4b status` shows what it is doing.",
                exit=Exit.INTERRUPTED,
            ),
            json,
        )


class Client:
    """The service's HTTP interface. Nothing is connected until something is asked; every request stands alone.

    Each request raises Transient ``service.absent`` (exit 3) when no service answers, ``service.silent`` and
    ``service.lost`` when it stops in the middle; NeedsAttention ``service.not_permitted`` (exit 77),
    ``service.socket`` and ``service.unclear``; and what the service itself refuses with the service's own code and remedy.
    """

    def __init__(self, socket: str | None) -> None:
        """Ask at ``socket``, else $AIOM4B_PATHS__SOCKET, else whoever answers first.

        The places are this user's service, the system's, and ``paths.socket`` of the settings.
        """
        named = socket or os.environ.get(VARIABLE)
        self._named = bool(named)
        self._places = (os.path.abspath(os.path.expanduser(named)),) if named else usual_places()

    def get(self, path: str, **query: Any) -> Document:
        """Ask for a resource below ``/api/v1``; a list in ``query`` is given as several values, None is left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path)

    def every(self, path: str, **query: str) -> list[Document]:
        """Return all items of a list that answer the query, page by page; one that moved on to the next page meanwhile is there once."""
        items: dict[str, Document] = {}
        offset, total = 0, 1
        while offset < total:
            answer = self.get(path, limit=PAGE, offset=offset, **query)
            items |= {item.get("id") or item.get("name_b64") or item["name"]: item for item in answer["items"]}
            offset, total = offset + PAGE, answer["total"]
        return list(items.values())

    def find(self, path: str) -> Document | None:
        """Ask for a resource that may be gone by now: None if so."""
        try:
            return self.get(path)
        except Aiom4bError as error:
            if error.exit is not Exit.NOT_FOUND:
                raise
            return None

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, errand: bool = False) -> Document:
        """Send a command below ``/api/v1`` and return what it says; an errand is given minutes."""
        return self._ask("POST", path, body, errand=errand)

    def delete(self, path: str, *, errand: bool = False) -> Document:
        """Delete a resource below ``/api/v1``; an errand is given minutes."""
        return self._ask("DELETE", path, errand=errand)

    def stream(self, after: int | None = None) -> Stream:
        """Return the events after ``after``, else from now on; the caller closes it (``with``)."""
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        connection = self._sent("GET", "events", None, headers, STREAM_TIMEOUT)
        carrier = connection.sock  # getresponse lets go of it where the answer ends with the connection
        with _told(connection):
            response = connection.getresponse()
            if response.status != 200:
                _answer(response)
                raise _unclear()
        return Stream(carrier, response)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, errand: bool = False) -> Document:
        patience = ERRAND_TIMEOUT if errand else TIMEOUT
        connection = self._sent(method, path, body, {"Accept": "application/json"}, patience)
        with _told(connection):
            answer = _answer(connection.getresponse())
        connection.close()
        return answer

    def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: dict[str, str], timeout: float
    ) -> http.client.HTTPConnection:
        data = None
        if body is not None:
            data = json_format.dumps(body).encode("ascii")
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = self._connected(timeout)
        with _told(connection):
            connection.request(method, f"/api/v1/{path}", data, headers)
        return connection

    def _connected(self, timeout: float) -> sockets.socket:
        for place in self._places:
            if (found := connect(place, timeout)) is not None:
                return found
        if self._named:
            raise absent(self._places)
        # Reading the settings takes longer than the answer: only where nothing was found without them.
        configured = configured_place(self._places)
        if configured not in self._places and (found := connect(configured, timeout)) is not None:
            return found
        raise absent((*self._places, configured))


def given(name: str) -> str | dict[str, str]:
    """Return a name or path as the service takes it: bytes that are not UTF-8 in base64."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return {"name_b64": base64.b64encode(os.fsencode(name)).decode("ascii")}
    return name


def exact(shown: str, name_b64: str | None) -> str:
    """Return a name of the service as ``os.fsdecode`` gives it, from what is shown of it and its bytes in base64, if any."""
    return shown if name_b64 is None else os.fsdecode(base64.b64decode(name_b64))


def _unclear() -> NeedsAttention:
    return NeedsAttention(
        "service.unclear",
        "What answers at the socket is not aiom4b, or of another version.",
        remedy="Restart the service after an update; --socket names another place.",
    )


@contextmanager
def _told(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Close the connection if anything is raised, in our own words where it is about the connection."""
    try:
        yield
    except TimeoutError as error:
        connection.close()
        raise silent() from error
    except (OSError, http.client.IncompleteRead) as error:
        connection.close()
        raise lost() from error
    except http.client.HTTPException as error:
        connection.close()
        raise _unclear() from error
    except BaseException:
        connection.close()
        raise


def _answer(response: http.client.HTTPResponse) -> Document:
    """Return the document, or raise what it says is wrong."""
    data = response.read()
    if response.status == 204:
        return {}
    try:
        document = json_format.loads(data)
    except ValueError as error:
        raise _unclear() from error
    if not isinstance(document, dict):
        raise _unclear()
    if response.status < 400:
        return document
    if not isinstance(document.get("code"), str) or not isinstance(document.get("detail"), str):
        raise _unclear()
    exit = _EXITS.get(response.status) or _KINDS.get(document["code"].partition(".")[0], Exit.FAILED)
    kind = Transient if exit is Exit.TRY_LATER else NeedsAttention
    raise kind(document["code"], document["detail"], remedy=document.get("remedy") or "", exit=exit)
