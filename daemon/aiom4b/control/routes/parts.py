"""What do the routes share? The service, what belongs to the server itself, and the ways to say which page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import anyio
from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from aiom4b.control.lag import Lag
from aiom4b.control.service import Service
from aiom4b.control.tickets import Tickets


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One for each application. ``closing`` is set when the server stops."""

    service: Service
    closing: anyio.Event
    lag: Lag
    tickets: Tickets


def _parts(connection: HTTPConnection) -> Parts:
    parts: Parts = connection.app.state.parts
    return parts


def _service(connection: HTTPConnection) -> Service:
    return _parts(connection).service


TheParts = Annotated[Parts, Depends(_parts)]
TheService = Annotated[Service, Depends(_service)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many items at most.")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="How many items to leave out first.")]
