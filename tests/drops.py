"""How do people and their programs put a book into a watched directory? Slowly, in every order, with pauses."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

_OLD = 1_000_000_000  # what rsync -t and file managers set: the time of the original, long ago


@dataclass
class Drop:
    """One book on its way into ``target``, by one of `METHODS`. ``pause`` sleeps as long as it likes, and may be None.

    ``finished`` is the monotonic time at which all of it was there; ``touched`` each moment at which something changed.
    """

    target: str
    contents: Mapping[str, bytes]
    aside: str
    random: Random
    pause: Callable[[], None]
    touched: list[float] = field(default_factory=list)
    finished: float | None = None

    def run(self, method: str) -> None:
        METHODS[method](self)
        self.finished = time.monotonic()

    def change(self, path: str) -> str:
        """Note a change that is about to happen."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.touched.append(time.monotonic())
        return path

    def write(self, path: str, data: bytes, *, mode: str = "wb") -> None:
        """Write in pieces, with pauses between some of them; the file is closed in between as often as not."""
        at = 0
        while True:
            with open(self.change(path) if mode == "wb" else path, mode) as stream:
                together = self.random.randint(1, 3)
                while at < len(data) and together:
                    piece = data[at : at + self.random.randint(1, max(1, len(data) // 2))]
                    stream.seek(at)
                    stream.write(piece)
                    self.change(path)
                    stream.flush()
                    at += len(piece)
                    together -= 1
                    if self.random.random() < 0.3:
                        self.pause()
            if at >= len(data):
                return
            mode = "rb+"
            self.pause()

    def paths(self, *, order: bool = True) -> list[tuple[str, bytes]]:
        """Return the book's files as (path below the target, content), in an order of the file system's liking or not."""
        names = list(self.contents)
        if not order:
            self.random.shuffle(names)
        return [(os.path.join(self.target, name), self.contents[name]) for name in names]


def cp(drop: Drop) -> None:
    """Copy file by file, each under its own name from the start."""
    for path, data in drop.paths():
        drop.write(path, data)
        drop.pause()


def cp_preserving(drop: Drop) -> None:
    """Copy like ``cp -p`` or a file manager: every file is given an old time at its end."""
    for path, data in drop.paths(order=False):
        drop.write(path, data)
        os.utime(drop.change(path), (_OLD, _OLD))
        drop.pause()


def rsync(drop: Drop) -> None:
    """Write each file under a hidden temporary name, as rsync does, and rename it."""
    for path, data in drop.paths():
        folder, name = os.path.split(path)
        hidden = os.path.join(folder, f".{name}.{drop.random.randint(0, 10**6 - 1):06}")
        drop.write(hidden, data)
        os.utime(drop.change(hidden), (_OLD, _OLD))
        os.rename(hidden, drop.change(path))
        drop.pause()


def rsync_partial(drop: Drop) -> None:
    """Be broken off in each file and leave it short under its final name (``--partial``); then do it over."""
    for path, data in drop.paths():
        drop.write(path, data[: drop.random.randint(0, len(data) - 1)])
        os.utime(drop.change(path), (_OLD, _OLD))
        drop.pause()
    rsync(drop)


def rsync_inplace(drop: Drop) -> None:
    """Write under the final names (``--inplace``), the second half of each in a second pass."""
    for path, data in drop.paths():
        drop.write(path, data[: len(data) // 2])
        drop.pause()
    for path, data in drop.paths():
        drop.write(path, data, mode="rb+")
        os.utime(drop.change(path), (_OLD, _OLD))


def sizes_first(drop: Drop) -> None:
    """Give every file its full size at once, and fill them later, as downloaders and SMB clients do."""
    for path, data in drop.paths():
        with open(drop.change(path), "wb") as stream:
            stream.truncate(len(data))
    drop.pause()
    for path, data in drop.paths(order=False):
        drop.write(path, data, mode="rb+")
        drop.pause()


def move(drop: Drop) -> None:
    """Move a finished folder in by one rename."""
    for name, data in drop.contents.items():
        path = os.path.join(drop.aside, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
    drop.pause()
    os.rename(drop.aside, drop.change(drop.target))


def move_files(drop: Drop) -> None:
    """Move finished files in, one by one."""
    for number, (path, data) in enumerate(drop.paths(order=False)):
        ready = os.path.join(drop.aside, str(number))
        os.makedirs(drop.aside, exist_ok=True)
        with open(ready, "wb") as stream:
            stream.write(data)
        os.rename(ready, drop.change(path))
        drop.pause()


def real_rsync(drop: Drop) -> None:
    """Let the real program copy, throttled."""
    for name, data in drop.contents.items():
        path = os.path.join(drop.aside, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
    options = drop.random.choice((["--partial"], ["--inplace"], []))
    drop.change(os.path.join(drop.target, "x"))
    subprocess.run(["rsync", "-rt", "--bwlimit=50", *options, drop.aside + "/", drop.target], check=True)


METHODS: dict[str, Callable[[Drop], None]] = {
    "cp": cp,
    "cp -p": cp_preserving,
    "rsync": rsync,
    "rsync --partial": rsync_partial,
    "rsync --inplace": rsync_inplace,
    "sizes first": sizes_first,
    "mv": move,
    "mv files": move_files,
} | ({"real rsync": real_rsync} if shutil.which("rsync") else {})
