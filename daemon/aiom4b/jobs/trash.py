"""How does a backup set vanish, so that a stop at any moment does no harm, and who hears of it?"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime

import structlog

from aiom4b.adapters import files
from aiom4b.adapters.backup_format import MANIFEST
from aiom4b.adapters.files import displayable, translated
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

LOG = "cleanup.log"
"""In the backup directory: a line for each set that was removed, and for each old one that was kept."""

_PREFIX = ".trash-"
_LOOKED_AT = 1 << 20  # bytes of the log's end that are looked through for what was said before

log = structlog.get_logger()


class CleanupLog:
    """Lines of time, what and why, for people; ``now`` is the time of all that one run says."""

    def __init__(self, directory: str, now: datetime) -> None:
        self._path = os.path.join(directory, LOG)
        self._stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def tell(self, what: str, why: str) -> bool:
        """Append a line durably; whether that was possible: a log that can't be written to is no reason to stop."""
        line = f"{self._stamp} {what}: {why}"
        try:
            with translated(self._path, "writing"):
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(self._path, flags, 0o666)
                try:
                    files.write_all(descriptor, f"{line}\n".encode())
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except Aiom4bError as error:
            log.warning("cleanup.log_failed", line=line, code=error.code, reason=error.reason)
            return False
        return True

    def tell_once(self, what: str, why: str) -> None:
        """Append a line unless the last one about the same thing says the same: a refusal may stand for years."""
        said = [line for line in self._lines() if line.startswith(f"{what}: ")]
        if not said or said[-1] != f"{what}: {why}":
            self.tell(what, why)

    def _lines(self) -> list[str]:
        try:
            with open(self._path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOOKED_AT))
                text = stream.read().decode(errors="replace")
        except OSError:
            return []  # not there yet; if it can't be read, writing to it will tell
        return [line.partition(" ")[2] for line in text.split("\n")]


def alone(directory: str) -> AbstractContextManager[None]:
    """Hold the right to remove anything whose copy is in this backup directory, or to remove such copies.

    Of two at a time each could rely on the very copy that the other one removes. Raises Transient ``cleanup.busy`` when
    somebody else holds it, and what `translated` raises.
    """
    busy = Transient(
        "cleanup.busy",
        f"Something else is being removed that is, or has a copy, in {displayable(directory)}.",
        remedy="Nothing needs to be done: it is tried again later.",
        path=directory,
    )
    return files.locked(os.path.join(directory, files.HIDDEN, "cleanup.lock"), busy)


def remove(root: str, story: CleanupLog, size: int, why: str) -> None:
    """Remove the set in ``root``, of ``size`` bytes, and tell it.

    It vanishes in one durable rename into a hidden folder, is told, loses its manifest, and only then its files. Raises
    NeedsAttention ``cleanup.trash_taken`` and what `translated` raises.
    """
    directory, name = os.path.split(root)
    trash = os.path.join(directory, files.HIDDEN, _PREFIX + name)
    try:
        files.publish(root, trash)
    except FileExistsError as error:
        raise NeedsAttention(
            "cleanup.trash_taken",
            f"{displayable(trash)} is in the way of removing a backup of that name.",
            remedy="Look at what is in it, and move it away.",
            path=trash,
        ) from error
    line = (f"removed {displayable(name)}, {size} bytes", why)
    told = story.tell(*line)
    _delete(trash)
    if not told:
        story.tell(*line)  # a full disk is when it matters most that something goes, and now there is room
    log.info("backup.removed", backup=displayable(root), bytes=size, reason=why)


def settle(directory: str, story: CleanupLog) -> None:
    """Bring to an end what a killed run has left: delete what has begun to go, and give back what is still whole.

    The copy that stood in for a whole one may have rotted since, so that one is judged anew. Raises what `translated` raises.
    """
    hidden = os.path.join(directory, files.HIDDEN)
    with translated(hidden, "reading the folder"), os.scandir(hidden) as entries:
        left = sorted(one.name for one in entries if one.name.startswith(_PREFIX) and one.is_dir(follow_symlinks=False))
    for entry in left:
        trash = os.path.join(hidden, entry)
        name = entry.removeprefix(_PREFIX)
        if not os.path.lexists(os.path.join(trash, MANIFEST)):
            _delete(trash)
            continue
        with suppress(FileExistsError):  # it stays where it is, whole, until the name is free
            files.publish(trash, os.path.join(directory, name))
            story.tell(f"returned {displayable(name)}", "a run was stopped while it removed it")


def _delete(trash: str) -> None:
    """Delete a set's folder. The manifest goes first, durably: whoever finds the rest then knows what it is."""
    with translated(trash, "removing"):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(trash, MANIFEST))
        files.fsync_directory(trash)
        shutil.rmtree(trash)
