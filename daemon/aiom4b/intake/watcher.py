"""Do we hear of changes, and who is told when we don't? Keeps the listening alive, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import anyio
import structlog

from aiom4b.adapters.files import displayable
from aiom4b.errors import Aiom4bError, Transient
from aiom4b.intake.watch import listen
from aiom4b.models import Name

_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_STEADY_SECONDS = 60.0  # who listened for so long begins with the shortest pause again

log = structlog.get_logger()


class Publish(Protocol):
    """Tells everybody who follows the service; must not block."""

    def __call__(self, event: str, /, **data: object) -> None:
        """Tell an event and its JSON values."""
        ...


class Watcher:
    """Listens for events while they are wanted. ``standing`` and ``touched`` as in `watch.listen`."""

    def __init__(
        self,
        source: str,
        *,
        standing: Callable[[], None],
        touched: Callable[[frozenset[Name]], None],
        publish: Publish,
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._stands = standing
        self._touched = touched
        self._publish = publish
        self._monotonic = monotonic
        self._troubles: dict[str, Aiom4bError] = {}
        self._wanted: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._stood = anyio.Event()
        self._listening = False
        self.mode: Literal["events", "poll"] = "poll"

    @property
    def hears(self) -> bool:
        """Whether new entries are noticed by themselves; otherwise somebody has to look more often."""
        return self._listening and not self._troubles

    @property
    def reason(self) -> str:
        """Why it is degraded; "" when it isn't."""
        return next((error.reason for error in self._troubles.values()), "")

    def has(self, what: str) -> bool:
        """Whether something is wrong with this."""
        return what in self._troubles

    def trouble(self, what: str, error: Aiom4bError | None) -> None:
        """Note what is wrong with one thing ("source", "events", "ears"), or that it is right again."""
        before = self._troubles.get(what)
        if error is None:
            if self._troubles.pop(what, None) is not None and not self._troubles:
                log.info("watcher.recovered", source=displayable(self._source))
                self._publish("watcher.recovered")
            return
        self._troubles[what] = error
        if before is None or before.code != error.code:
            log.warning("watcher.degraded", code=error.code, reason=error.reason, remedy=error.remedy)
            self._publish("watcher.degraded", code=error.code, message=error.reason, remedy=error.remedy)

    def set_mode(self, mode: Literal["events", "poll"]) -> None:
        """Begin or end to listen."""
        if mode == self.mode:
            return
        self.mode = mode
        if mode == "poll":
            self.trouble("events", None)
            self.trouble("ears", None)
            self.listen_anew()
        elif self._wanted is not None:
            self._wanted.set()

    def listen_anew(self) -> None:
        """Ask for the events afresh and at once, as after the source was replaced: the old watch would hear nothing more."""
        if self._scope is not None:
            self._scope.cancel()

    def deaf(self, name: Name) -> None:
        """Note that something happened without an event; believed to go on until one comes."""
        self.trouble(
            "ears",
            Transient(
                "watch.deaf",
                f"{displayable(name)} appeared in {displayable(self._source)} without a file event.",
                remedy='Nothing needs to be done: the source is looked through more often. watch.mode = "poll" does so for good.',
                path=self._source,
            ),
        )
        self.listen_anew()

    async def run(self) -> None:
        """Listen until cancelled; whatever ends the events, they are asked for again."""
        pause = _SHORTEST_PAUSE
        while True:
            while self.mode != "events":
                self._wanted = anyio.Event()
                await self._wanted.wait()
            began = self._monotonic()
            with anyio.CancelScope() as self._scope:
                failure = await self._listen(pause)
                self.trouble("events", failure)
                steady = self._monotonic() - began > _STEADY_SECONDS
                pause = _SHORTEST_PAUSE if steady else min(2 * pause, _LONGEST_PAUSE)
                await anyio.sleep(pause)

    async def _listen(self, trusted_after: float) -> Transient:
        """Listen until nothing more can be heard, and return why."""
        async with anyio.create_task_group() as group:
            self._stood = anyio.Event()
            group.start_soon(self._trust_after, trusted_after, name="intake trust")
            try:
                await listen(self._source, standing=self._standing, touched=self._heard)
            except Transient as error:
                failure = error
                group.cancel_scope.cancel()
            finally:
                self._listening = False
        return failure

    def _standing(self) -> None:
        self._listening = True
        self._stood.set()
        self._stands()

    async def _trust_after(self, seconds: float) -> None:
        """Take the events for mended once they have lasted for a while.

        A name that is not UTF-8 ends them whenever that file is opened, also by our own looks: for as long as it is there
        they come back for moments only.
        """
        await self._stood.wait()
        if "events" in self._troubles:
            await anyio.sleep(seconds)
            self.trouble("events", None)

    def _heard(self, names: frozenset[Name]) -> None:
        if names:
            self.trouble("ears", None)
            self._touched(names)
