"""What happens in the service, from now on? Its events in batches, over restarts of the service too."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from aiom4b.cli import output
from aiom4b.cli.client import Client, Document
from aiom4b.cli.stream import Event, Stream
from aiom4b.errors import Aiom4bError, Exit

T = TypeVar("T")
PATIENCE = 60
"""Attempts to find a service that went away, a second apart: enough for an update or a restart after a crash."""
GONE = "The service has gone; waiting for it."
MOVING = frozenset({"job.progress", "download.progress"})
"""Events that tell of progress alone, several times a second."""
_AWAY = frozenset({Exit.NO_DAEMON, Exit.TRY_LATER})
_ENDED = frozenset({"completed", "failed", "cancelled", "deleted"})


def batches(
    client: Client, every: float, *, gone: Callable[[], None], pause: Callable[[float], None] = time.sleep
) -> Generator[list[Event]]:
    """Yield what was heard, at least every so many seconds, for ever; [] says: look for yourself.

    That is so at the start, after ``every`` quiet seconds, and when the service is back after it went (``gone`` is called).
    Raises what `Client.stream` raises at the start, and once the service stays away for a minute.
    """
    last: int | None = None
    stream = client.stream()
    while True:
        with stream:
            # What happened between two connections is looked up, since the service may have forgotten the events.
            yield []
            try:
                while True:
                    events = stream.take(every)
                    last = max((event.id for event in events if event.id is not None), default=last)
                    yield events
            except Aiom4bError as error:
                if error.code != "service.lost":
                    raise
        gone()
        stream = _opened_again(client, last, pause)


def until_ended(
    client: Client,
    jobs: list[Document],
    changed: Callable[[Document], None],
    *,
    gone: Callable[[], None],
    pause: Callable[[float], None] = time.sleep,
) -> list[Document]:
    """Wait until each of these jobs has ended and return them as they are then; one deleted meanwhile is "deleted".

    ``changed`` hears of each job whose status is another one than before. Raises what `batches` raises.
    """
    known = {job["id"]: job for job in jobs}
    with closing(batches(client, 5.0, gone=gone, pause=pause)) as heard:
        for events in heard:
            told = {event.data.get("job_id") for event in events if event.event not in MOVING}
            for id, before in known.items():
                if before["status"] in _ENDED or (events and id not in told and "reset" not in _names(events)):
                    continue
                known[id] = _now(client, before)
                if known[id]["status"] != before["status"]:
                    changed(known[id])
            if all(job["status"] in _ENDED for job in known.values()):
                break
    return list(known.values())


def unless_gone(ask: Callable[[], T], before: T) -> T:
    """Return what is answered, or ``before`` if the service is just going: `batches` hears of that, and says when to ask again."""
    try:
        return ask()
    except Aiom4bError as error:
        if error.exit not in _AWAY:
            raise
        return before


def tell_gone() -> None:
    """Say on stderr that the service has gone."""
    output.talk(GONE, style="yellow")


def _now(client: Client, job: Document) -> Document:
    return unless_gone(lambda: client.find(f"jobs/{job['id']}") or job | {"status": "deleted"}, job)


def _names(events: list[Event]) -> set[str]:
    return {event.event for event in events}


def _opened_again(client: Client, last: int | None, pause: Callable[[float], None]) -> Stream:
    for _ in range(PATIENCE):
        pause(1.0)
        try:
            return client.stream(last)
        except Aiom4bError as error:
            if error.exit not in _AWAY:
                raise
    return client.stream(last)
