"""What is left on a disk when its power fails? Real file systems on a loop device, told to forget what they were not told to keep.

Needs root, a loop device and the programs ``mkfs.*`` and ``mount``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from aiom4b.adapters import files

SIZES = {"ext4": 64 << 20, "xfs": 300 << 20}
"""Bytes of the disk for each file system that can be used; the file that stands for it has holes."""

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): the same number for ext4 and xfs
_LOSE_THE_LOG = 2
_DURABLE = ("fsync", "rename", "replace", "link")


def lacking(system: str) -> str:
    """Return why no disk with this file system can be had here, or ""."""
    if os.geteuid() != 0:
        return "only root may mount"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices here"
    missing = [name for name in (f"mkfs.{system}", "mount", "umount") if shutil.which(name) is None]
    return f"{missing[0]} is not installed" if missing else ""


class PowerCut:
    """A disk mounted at ``place`` that can lose its power."""

    def __init__(self, system: str, image: Path, place: Path) -> None:
        self._image = image
        self.place = place
        with open(image, "wb") as file:
            file.truncate(SIZES[system])
        _do(f"mkfs.{system}", "-q", image)

    def cut(self) -> None:
        """Lose everything that was not synced, and fail at every access from now on."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _LOSE_THE_LOG))
        finally:
            os.close(descriptor)

    def power_on(self) -> None:
        """Mount it again, as at the next boot: what its journal holds is replayed."""
        _do("umount", self.place)
        self._mount()

    @contextmanager
    def cut_at(self, number: int) -> Iterator[list[str]]:
        """Cut the power just before the ``number``-th durable call of the block; yields the names of the calls that were made."""
        calls: list[str] = []

        def counted(name, call):
            def mortal(*args, **kwargs):
                calls.append(name)
                if len(calls) == number:
                    self.cut()
                return call(*args, **kwargs)

            return mortal

        with pytest.MonkeyPatch.context() as patch:
            for name in _DURABLE:
                patch.setattr(os, name, counted(name, getattr(os, name)))
            patch.setattr(files, "_renameat2", counted("renameat2", files._renameat2))
            yield calls

    def _mount(self) -> None:
        _do("mount", "-o", "loop", self._image, self.place)

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        _do("umount", self.place)


def _do(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
