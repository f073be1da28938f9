"""How does a browser open a stream without sending a key? With a ticket: short-lived, and good for one use."""

from __future__ import annotations

import secrets
from collections.abc import Callable

SECONDS = 30.0
"""How long a ticket is good for: a page asks for one and uses it at once."""
_MOST = 256


class Tickets:
    """The tickets that are out. ``monotonic`` tells seconds that never jump."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def issue(self) -> str:
        """Return a new ticket. When too many are out, the oldest one is void."""
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        ticket = secrets.token_urlsafe(32)
        self._until[ticket] = self._monotonic() + SECONDS
        return ticket

    def redeem(self, ticket: str) -> bool:
        """Return whether a ticket is good; it is void from now on."""
        return self._until.pop(ticket, 0.0) > self._monotonic()
