"""What has arrived of a file so far, and what of it can be relied on? The part that grows, with its durable note.

All calls block, for the disk: they belong in a thread.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from aiom4b.adapters import files
from aiom4b.adapters.audible_api.connection import MIB
from aiom4b.errors import Aiom4bError, NeedsAttention

_SYNCED_EVERY = 16 * MIB
_NOTE_LIMIT = 64 * 1024
_VERSION = 1


class _Note(BaseModel):
    """What is known of the part beside it: ``synced`` bytes survive a power cut, all of it while the system ``boot`` runs."""

    v: int
    etag: str
    size: int
    synced: int
    boot: str


@dataclass(slots=True)
class Part:
    """A file on its way to become ``path``: meanwhile ``path + ".part"``, with what its server said in ``path + ".resume"``.

    ``size`` bytes of it are here, of ``total`` (0 where nobody tells); ``buffer`` is what comes next. ``etag`` names which
    file it is. All methods raise what `files.translated` raises.
    """

    path: str
    descriptor: int
    size: int = 0
    total: int = 0
    etag: str = ""
    buffer: bytearray = field(default_factory=bytearray)
    _synced: int = 0

    @classmethod
    def opened(cls, path: str, expected: int | None) -> Part:
        """Return what is there, cut down to what can be relied on: nothing where it is unknown which file of what size it is.

        ``expected`` is the size that the whole must have, if that is known. To be closed by the caller.
        """
        part = cls(path, -1)
        with files.translated(part.name, "writing"):
            part.descriptor = os.open(part.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                note, size = part._read_note(), os.fstat(part.descriptor).st_size
                if note is not None and size <= note.size and expected in {None, note.size}:
                    kept = size if note.boot == _boot() else min(size, note.synced)
                    part.etag, part.total, part.size, part._synced = note.etag, note.size, kept, kept
                os.ftruncate(part.descriptor, part.size)
            except BaseException:
                os.close(part.descriptor)
                raise
        return part

    @property
    def name(self) -> str:
        """The path that it has meanwhile."""
        return self.path + ".part"

    @property
    def whole(self) -> bool:
        """Whether all of it is here."""
        return self.size > 0 and self.size == self.total

    def begin(self, total: int, etag: str) -> None:
        """Begin from nothing with the file that a server calls ``etag``; what was here is of another one."""
        self.drop()
        self.total, self.etag = total, etag
        self._sync()

    def drop(self) -> None:
        """Forget all that has arrived."""
        with files.translated(self.name, "writing"):
            os.ftruncate(self.descriptor, 0)
            with suppress(FileNotFoundError):
                os.unlink(self._note)
        self.size = self._synced = self.total = 0
        self.etag = ""
        self.buffer.clear()

    def flush(self) -> None:
        """Write the buffer; now and then what has been written is made durable, and noted."""
        with files.translated(self.name, "writing"):
            # A full disk may have taken a part of it before.
            os.lseek(self.descriptor, self.size, os.SEEK_SET)
            files.write_all(self.descriptor, memoryview(self.buffer))
        self.size += len(self.buffer)
        self.buffer.clear()
        if self.size - self._synced >= _SYNCED_EVERY:
            self._sync()

    def publish(self) -> None:
        """Give the whole file its name, durably. Raises NeedsAttention ``file.exists`` where something else has it."""
        with files.translated(self.path, "putting in place"):
            os.fsync(self.descriptor)
            files.publish(self.name, self.path)
            with suppress(FileNotFoundError):
                os.unlink(self._note)

    def close(self) -> None:
        """Keep what has arrived although the work may end early: the next call goes on after it."""
        try:
            if not self.whole:
                with suppress(Aiom4bError):  # the error on its way tells more, and a full disk takes neither
                    self.flush()
                    self._sync()
        finally:
            os.close(self.descriptor)

    @property
    def _note(self) -> str:
        return self.path + ".resume"

    def _sync(self) -> None:
        with files.translated(self.name, "writing"):
            os.fsync(self.descriptor)
        self._synced = self.size
        # A weak tag says that two files mean the same, not that their bytes are: without a strong one nothing is resumed.
        if self.etag and not self.etag.startswith("W/") and self.total:
            note = _Note(v=_VERSION, etag=self.etag, size=self.total, synced=self.size, boot=_boot())
            files.write_durably(self._note, note.model_dump_json().encode(), replace=True)

    def _read_note(self) -> _Note | None:
        try:
            descriptor = files.open_regular(self._note)
        except NeedsAttention as error:
            if error.code == "file.missing":
                return None
            raise
        try:
            note = _Note.model_validate_json(os.read(descriptor, _NOTE_LIMIT))
        except ValidationError:
            return None  # not one of ours: then nothing is known of the part
        finally:
            os.close(descriptor)
        return note if note.v == _VERSION and note.etag else None


def _boot() -> str:
    """Return what names this run of the system: as long as it lasts, the system has every byte that was written."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.urandom(8).hex()  # never the same again: only what was synced counts
