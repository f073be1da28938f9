"""Where in the source does something happen? File events as hints, never as the truth. The only user of watchfiles."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NoReturn

import anyio
import anyio.to_thread
from watchfiles._rust_notify import RustNotify

from aiom4b.adapters.files import displayable
from aiom4b.errors import Transient
from aiom4b.models import Name

_DEBOUNCE_MS = 400
_STEP_MS = 100  # how often the library wakes up: 0.04 % of a core; 50 ms cost 0.07 %
_FOREVER_MS = 0


async def listen(source: str, *, standing: Callable[[], None], touched: Callable[[frozenset[Name]], None]) -> NoReturn:
    """Call ``touched`` with the top-level names in which something happened, "" for the source itself, until cancelled.

    ``standing`` is called once events come: what happened before must be looked for. Nothing is ever promised: a folder
    moved in comes without its files, a full queue of the kernel and a replaced source without a word.
    Raises Transient ``watch.limit`` and ``watch.failed`` when nothing more can be heard.
    """
    stop = threading.Event()
    failure: Transient | None = None
    async with anyio.create_task_group() as group:
        # A thread can't be cancelled; this tells it to return within one step.
        group.start_soon(_set_when_cancelled, stop, name="watch stop")
        try:
            notify = await anyio.to_thread.run_sync(_open, source)
            try:
                standing()
                while True:
                    touched(await anyio.to_thread.run_sync(_hear, notify, source, stop))
            finally:
                notify.close()
        except Transient as error:
            failure = error  # raised outside the group, which would wrap it
            group.cancel_scope.cancel()
    assert failure is not None
    raise failure


async def _set_when_cancelled(stop: threading.Event) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


def _open(source: str) -> RustNotify:
    # Told to pass over folders that may not be read, such as lost+found, the library passes over a missing source too.
    if not os.path.isdir(source):
        raise _failed(source, "there is no such directory")
    try:
        return RustNotify([source], False, False, 0, True, True)
    except UnicodeError as error:
        raise _failed(source, "its path is not UTF-8") from error
    except OSError as error:
        if "limit" in str(error):  # it has no errno
            raise Transient(
                "watch.limit",
                f"The system allows no more file watches, so {displayable(source)} is only looked at from time to time.",
                remedy="Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl.",
                path=source,
            ) from error
        raise _failed(source, str(error)) from error
    except RuntimeError as error:
        raise _failed(source, str(error)) from error


def _hear(notify: RustNotify, source: str, stop: threading.Event) -> frozenset[Name]:
    try:
        changes = notify.watch(_DEBOUNCE_MS, _STEP_MS, _FOREVER_MS, stop)
    except (OSError, RuntimeError) as error:  # one name that is not UTF-8 ends the library's watcher
        raise _failed(source, str(error)) from error
    if isinstance(changes, str):
        return frozenset()
    return frozenset(_top(source, path) for _, path in changes)


def _top(source: str, path: str) -> Name:
    inside = path.removeprefix(source + os.sep)
    return "" if inside == path else inside.split(os.sep, 1)[0]


def _failed(source: str, why: str) -> Transient:
    return Transient(
        "watch.failed",
        f"File events of {displayable(source)} stopped: {displayable(why)}.",
        remedy="Nothing needs to be done: it is looked through from time to time, and the events are asked for again.",
        path=source,
    )
