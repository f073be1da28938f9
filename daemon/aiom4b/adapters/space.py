"""Is there room for what we are about to write? Free space, less what other work has been promised."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiom4b.adapters.files import displayable, translated
from aiom4b.errors import Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A file system as it is now, in bytes: ``available`` to us, and its whole ``size``.

    ``size`` is 0 where the file system doesn't tell, as some FUSE mounts don't: then ``available`` means nothing either.
    """

    device: int
    available: int
    size: int


def volume(path: str) -> Volume:
    """Return the file system that ``path`` lies on, or will lie on once it is made. Raises what `translated` raises."""
    with translated(path, "looking up the free space for"):
        place = os.path.abspath(path)
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        statistics = os.statvfs(place)
        return Volume(
            device=os.stat(place).st_dev,
            available=statistics.f_bavail * statistics.f_frsize,
            size=statistics.f_blocks * statistics.f_frsize,
        )


class SpaceLedger:
    """Free space promised to work in progress, for each file system. One for the whole process; safe from any thread.

    What is written under a reservation lowers the free space while the reservation stands, so it counts twice for a while:
    work may have to wait on a nearly full disk although it would just have fitted, and never the other way round.
    """

    def __init__(self, look: Callable[[str], Volume] = volume) -> None:
        self._look = look
        self._promised: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, path: str, size: int) -> Iterator[None]:
        """Set ``size`` bytes aside where ``path`` lies for as long as the block runs.

        Leaves `kept_free` untouched. Raises Transient ``space.full``, which says how many more bytes are needed; never where
        the file system doesn't tell its size, and writing has to show.
        """
        with self._lock:
            found = self._look(path)
            promised = self._promised[found.device]
            lacking = size - (found.available - promised - kept_free(found))
            if lacking > 0 and found.size > 0:
                raise Transient(
                    "space.full",
                    f"Not enough room at {displayable(path)}: {size} bytes are to be written and {lacking} more are needed"
                    f" ({found.available} are free, {promised} of them set aside for other work).",
                    remedy=f"Free at least {lacking} bytes on that file system. The service then goes on by itself; a command has to be given again.",
                    path=path,
                )
            self._promised[found.device] += size
        try:
            yield
        finally:
            with self._lock:
                self._promised[found.device] -= size


def kept_free(found: Volume) -> int:
    """Return the bytes never to be used up: 256 MiB or 1 % if that is more, but at most 5 % of a tiny file system."""
    return min(max(256 << 20, found.size // 100), found.size // 20)
