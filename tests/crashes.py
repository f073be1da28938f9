"""What is left when the process is killed: at its N-th call to the file system, for every N, or really, while it writes?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from aiom4b.adapters import files

_CALLS = ("open", "write", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "utime")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the house catches it to go on."""


class Death:
    """Counts calls to the file system; the ``number``-th is the last one, and a dead process makes no more of them."""

    def __init__(self, number: int) -> None:
        self.came = False
        self._left = number
        self._lock = threading.Lock()

    def wrapped(self, name: str, call: Callable) -> Callable:
        def mortal(*args, **kwargs):
            with self._lock:
                self._left -= 1
                dies_now = self._left == 0
                if self._left <= 0:
                    self.came = True
            if dies_now and name == "write":
                call(args[0], args[1][: len(args[1]) // 2])
            if self.came:
                raise Killed
            return call(*args, **kwargs)

        return mortal


@contextmanager
def killed_at(number: int) -> Iterator[Death]:
    """Run the block as a process that is killed at its ``number``-th call; ``came`` tells whether it lived that long."""
    death = Death(number)
    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, death.wrapped(name, getattr(os, name)))
        patch.setattr(files, "_renameat2", death.wrapped("renameat2", files._renameat2))
        try:
            yield death
        except BaseException:
            if not death.came:
                raise


def every_death(run: Callable[[int], None], check: Callable[[int], None]) -> int:
    """Call ``run(n)`` killed at call n, then ``check(n)`` alive, until one run ends by itself; return that n."""
    for number in count(1):
        with killed_at(number) as death:
            run(number)
        check(number)
        if not death.came:
            return number
    raise AssertionError


_DYING = """
import os, signal, sys
from aiom4b.adapters import files
for call in ("fsync", "unlink"):
    setattr(os, call, lambda _: os.kill(os.getpid(), signal.SIGKILL))
folder = sys.argv[2]
{"write": lambda: files.write_durably(folder + "/final", b"x" * 100, replace=True),
 "probe": lambda: files.check_writable(folder)}[sys.argv[1]]()
"""


def killed_in(folder: str | Path, doing: str = "write") -> str:
    """Let a process of its own die by SIGKILL while it does a durable write or a ``probe`` there; return what it left."""
    before = set(os.listdir(folder))
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(files.__file__)))}
    done = subprocess.run([sys.executable, "-c", _DYING, doing, str(folder)], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(os.listdir(folder)) - before
    return left
