"""Is another service at work on the same directories? One lock each on state, library and source."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog

from aiom4b.adapters.files import displayable
from aiom4b.errors import Transient

log = structlog.get_logger()

# What network file systems answer that know no such lock on a folder.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)


@contextmanager
def claimed(directories: Sequence[str]) -> Iterator[None]:
    """Hold all of them, each alone, for as long as the block runs; one that isn't there, or can't be read, can't be held.

    The folders themselves are locked: nothing is ever written to a source. Raises Transient ``service.running`` (exit 75),
    which names the process that has one of them.
    """
    with ExitStack() as held:
        for directory in dict.fromkeys(map(os.path.realpath, directories)):
            if os.path.isdir(directory):
                held.enter_context(_locked(directory))
        yield


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    descriptor = _opened(folder)
    try:
        if descriptor is not None:
            _lock(descriptor, folder)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(folder: str) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:  # as for one that isn't there: the watch tells of it, and waits
        log.warning("directory.not_locked", path=displayable(folder), reason=error.strerror)
        return None


def _lock(descriptor: int, folder: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _running(folder) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning("directory.not_locked", path=displayable(folder), reason=error.strerror)


def _running(directory: str) -> Transient:
    holder = _holder(directory)
    who = "Another process" if holder is None else f"Process {holder}"
    return Transient(
        "service.running",
        f"{who} is at work on {displayable(directory)} already.",
        remedy="Stop that one first, or give this one a source, library and state directory of its own.",
        path=directory,
    )


def _holder(path: str) -> int | None:
    """Return the process that holds the lock on a folder, as the kernel tells (proc_locks(5)); None if that can't be told."""
    try:
        status = os.stat(path)
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                fields = line.split()
                if "FLOCK" in fields and device in fields:
                    return int(fields[4])
    except (OSError, ValueError, IndexError):
        return None  # no such lock, or a kernel that doesn't show it
    return None
