"""How are the bytes of an open file looked at in pieces? Read, never mapped.

A file that shrinks under a map kills the process, and so does a disk that fails.
"""

from __future__ import annotations

import os
from typing import overload

from aiom4b.adapters import files
from aiom4b.errors import Transient

_BLOCK = 4 << 20


class Slices:
    """The bytes of an open file, to be indexed and sliced like ``bytes``. ``size`` is what was found when it was opened.

    Raises Transient ``source.changed`` when the file has become shorter, and what ``files.translated`` raises.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        if isinstance(index, int):
            return self.read(index, index + 1)[0]
        start, stop, _ = index.indices(self._size)
        return self.read(start, stop)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop)."""
        pieces = []
        while start < stop:
            try:
                piece = os.pread(self._descriptor, min(stop - start, _BLOCK), start)
            except OSError:
                with files.translated(os.readlink(f"/proc/self/fd/{self._descriptor}"), "reading"):
                    raise
            if not piece:
                raise Transient(
                    "source.changed",
                    "This file became shorter while it was read.",
                    remedy="Wait until nothing writes to it any more. The service then looks at it again by itself; a command has to be given again.",
                )
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)
