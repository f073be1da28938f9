"""How long does the event loop keep others waiting? Seen by a task that asks to be woken each second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

_INTERVAL = 1.0


class Lag:
    """The delays of the last minute, in seconds. ``monotonic`` tells seconds that never jump."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._delays: deque[float] = deque(maxlen=60)

    @property
    def worst(self) -> float:
        """The longest delay of the last minute."""
        return max(self._delays, default=0.0)

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            before = self._monotonic()
            await anyio.sleep(_INTERVAL)
            self._delays.append(max(0.0, self._monotonic() - before - _INTERVAL))
