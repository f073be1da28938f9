"""How does a worker die while it makes a book? Tasks of the engine that are killed with half of their work done."""

from __future__ import annotations

import os
import signal

from aiom4b.engine import copying, media, mux

_PACKETS = 60


def _killed_in_the_middle():
    """Let this process die at the 60th packet that anybody reads from a locked file."""
    honest = media.unlocked

    def mortal(*args):
        for number, packet in enumerate(honest(*args)):
            if number == _PACKETS:
                os.kill(os.getpid(), signal.SIGKILL)
            yield packet

    media.unlocked = mortal


def half_a_mux(request):
    """Begin to write a book."""
    _killed_in_the_middle()
    return mux.mux(request)


def half_a_hearing(request):
    """Begin to listen to a source."""
    _killed_in_the_middle()
    return copying.stretches(request)


def written_and_gone(path, *_):
    """Leave half a book where tags were to be written."""
    os.truncate(path, os.stat(path).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
