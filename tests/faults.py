"""What may happen inside a worker process? Stand-ins for its tasks, to be found there by name."""

from __future__ import annotations

import os
import signal
import threading

from aiom4b.steps.examine import look


def killed(*_):
    """Die as the kernel lets a process die that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def segfaulted(*_):
    """Die as native code dies."""
    os.kill(os.getpid(), signal.SIGSEGV)


def left(*_):
    """End without a word."""
    os._exit(3)


def hanging(*_):
    """Never come back."""
    threading.Event().wait()


def mistaken(*_):
    """Make a mistake that nobody foresaw."""
    return 1 / 0


def starved(*_):
    """Find no memory."""
    raise MemoryError


def killed_by_poison(path, *args):
    """Examine a file, and die of one that begins with "poison"."""
    with open(path, "rb") as file:
        if file.read(6) == b"poison":
            killed()
    return look(path, *args)
