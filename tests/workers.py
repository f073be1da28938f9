"""What do workers do in the tests of the pool? Functions that a worker process can import: good, failing, dying, hanging ones."""

from __future__ import annotations

import ctypes
import os
import signal

from aiom4b.errors import Exit, Fatal, NeedsAttention, Transient


def echo(value):
    return value


def pid():
    return os.getpid()


def environment():
    return dict(os.environ)


def condition():
    """Return (niceness, SIGINT's handler, SIGTERM's handler, the parent-death signal, where stdin, stdout, stderr lead)."""
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death), 0, 0, 0)
    streams = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
    return os.nice(0), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), death.value, streams


def note(path, word):
    """Append a word to a file: what ran, and in which order."""
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(word + "\n")
    return word


def wait_at(gate, told=None):
    """Say that we are here (open the FIFO ``told``), then block until somebody opens the FIFO ``gate`` for writing."""
    if told is not None:
        with open(told, "w", encoding="utf-8") as stream:
            stream.write(str(os.getpid()))
    with open(gate, encoding="utf-8") as stream:
        stream.read()
    return os.getpid()


def die_by(number):
    os.kill(os.getpid(), number)
    signal.pause()


def segfault():
    ctypes.string_at(0)


def leave(status):
    os._exit(status)


def hang(told=None):
    if told is not None:
        with open(told, "w", encoding="utf-8") as stream:
            stream.write(str(os.getpid()))
    while True:
        signal.pause()


def fail(kind):
    known = {"Transient": Transient, "NeedsAttention": NeedsAttention, "Fatal": Fatal}
    raise known[kind]("a.code", "A reason.", remedy="A remedy.", path="/a/path", exit=Exit.NOT_FOUND)


def fail_unforeseen():
    return {}["nothing"]


def run_out_of_memory():
    raise MemoryError


def flood(size):
    """Write to stdout and stderr, as native code does, more than any pipe holds."""
    for descriptor in (1, 2):
        left = size
        while left > 0:
            left -= os.write(descriptor, b"x" * min(left, 65536))
    return size


def unpicklable():
    return lambda: None
