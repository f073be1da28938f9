"""How does a test get backup sets, and books that were made of them? Small real ones, as the steps leave them."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime

from aiom4b.adapters import backups, volumes
from aiom4b.adapters.backup_format import BackupSet, StoredFile, stored_path

NOW = datetime(2026, 11, 21, 13, 5, 9, tzinfo=UTC)
BOOK = {"CD1/01.mp3": b"first", "CD1/02.mp3": b"second", "cover.jpg": b"picture"}


def write(root, contents=BOOK):
    """Write files below ``root`` and return it."""
    for path, data in contents.items():
        place = os.path.join(root, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(data)
    return str(root)


def fingerprint(contents):
    """Return what stands for the audio among these files."""
    audio = sorted(data for path, data in contents.items() if path.endswith(".mp3"))
    return hashlib.sha256(repr(audio).encode()).hexdigest()


def make(directory, source, contents=BOOK, *, created=NOW) -> BackupSet:
    """Make the set of a source that held ``contents``, as the backup step does, without the copying."""
    name = os.path.basename(source)
    staged = backups.staging(str(directory), str(source), name)
    with backups.claimed(staged):
        backups.clear(staged)
        write(staged, {stored_path(path): data for path, data in contents.items()})
        files = tuple(
            StoredFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mtime_ns=10**18)
            for path, data in contents.items()
        )
        plan = BackupSet(
            root=staged,
            source=str(source),
            fingerprint=fingerprint(contents),
            created=created,
            tool="test",
            files=files,
        )
        return backups.complete(staged, plan, str(directory), name)


def rot(made: BackupSet, path=None):
    """Change one byte of a file in a set, leaving its size and times as they are."""
    place = os.path.join(made.root, stored_path(path or made.files[0].path))
    status = os.stat(place)
    with open(place, "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))


class Shelf:
    """Directories of a service: ``source``, ``library``, ``backups`` and ``archive``; and which books are published."""

    def __init__(self, root, monkeypatch) -> None:
        self.source, self.library, self.backups, self.archive = (
            os.path.join(str(root), name) for name in ("source", "library", "backups", "archive")
        )
        for place in (self.source, self.library, self.backups, self.archive):
            os.mkdir(place)
        for place in (self.library, self.backups):
            volumes.mark(place)
        self.published: set[str] = set()
        monkeypatch.setattr(
            "aiom4b.pipeline.already_published", lambda _, wanted: "a record" if wanted in self.published else None
        )

    def drop(self, name="Book", contents=BOOK):
        """Put a source there."""
        return write(os.path.join(self.source, name), contents)

    def keep(self, name="Book", contents=BOOK, *, created=NOW) -> BackupSet:
        """Make a backup of a source that is, or was, there."""
        return make(self.backups, os.path.join(self.source, name), contents, created=created)

    def publish(self, *sets):
        """Have the books of these sets in the library."""
        self.published |= {made.fingerprint for made in sets}

    def lose(self, name="Book"):
        """Take a source away."""
        shutil.rmtree(os.path.join(self.source, name))

    def sets(self) -> list[str]:
        """Return the names of the sets that are listed."""
        return [os.path.basename(made.root) for made in backups.list_sets(self.backups)]

    def hidden(self) -> list[str]:
        """Return what lies in the hidden folder of the backups."""
        return sorted(os.listdir(os.path.join(self.backups, ".aiom4b")))

    def story(self) -> list[str]:
        """Return the lines of the cleanup log."""
        try:
            with open(os.path.join(self.backups, "cleanup.log"), encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []
