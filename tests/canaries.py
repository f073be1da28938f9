"""Does a secret show? Every spelling that a leak may have, and a search through all that comes out of processes.

A `Watch` looks on while programs run: at the command lines and environments of all processes below this one, and at every
file as it comes and goes, with its mode. `Evidence` keeps what was seen by the channel it came through; `Canaries` know
what may not be in it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from running import descendants

_PIECE = 24
_EVERY_SECONDS = 0.03
_WATCHED_BYTES = 1 << 20  # larger ones are sound, and are looked at when they are done


class Canaries:
    """Secrets by name. Long ones are known by their pieces: a leak may be cut off at either end."""

    def __init__(self) -> None:
        self._spelled: dict[bytes, str] = {}
        self._known: set[str | bytes] = set()

    def add(self, name: str, *values: str | bytes) -> None:
        """Keep secrets from now on: texts, and keys as bytes, which are texts in hexadecimal too."""
        for value in values:
            if value not in self._known:
                self._known.add(value)
                self._spelled |= dict.fromkeys(spellings(value), name)

    def found_in(self, data: bytes) -> set[str]:
        """Return the names of those that are in ``data`` in any spelling."""
        return {name for spelled, name in self._spelled.items() if spelled in data}


def spellings(value: str | bytes) -> set[bytes]:
    """Return the bytes by one of which ``value`` shows wherever it was written, whatever that made of it."""
    if isinstance(value, bytes):
        # Fewer bytes than these happen by chance in any sound.
        raw = {value, repr(value)[2:-1].encode(), *_base64(value)} if len(value) >= 8 else set()
        return raw | spellings(value.hex())
    found: set[bytes] = set()
    for piece in _pieces(value):
        for text in {piece, piece.lower(), piece.upper()} if re.fullmatch("[0-9a-fA-F]+", piece) else {piece}:
            found |= _written(text)
    return found


def _pieces(text: str) -> set[str]:
    middle = (len(text) - _PIECE) // 2
    return {text} if len(text) <= 2 * _PIECE else {text[:_PIECE], text[middle : middle + _PIECE], text[-_PIECE:]}


def _written(text: str) -> set[bytes]:
    data = text.encode()
    inside = text.encode("utf-16-le")[:-1]  # the same in either order of bytes but for one zero at an end
    escaped = {json.dumps(text)[1:-1].encode(), quote(text, safe="").encode(), quote(text).encode()}
    return {data, inside, data.hex().encode(), data.hex().upper().encode(), *escaped, *_base64(data)}


def _base64(data: bytes) -> set[bytes]:
    """Return what is always there of ``data`` in Base64, wherever in a longer text it stands."""
    found = set()
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(data)) // 3 * 3 - before
        encoded = base64.b64encode(bytes(before) + data[:whole])[skipped:]
        found |= {encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


class Evidence:
    """What came out, by channel and place."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, list[bytes]]] = defaultdict(lambda: defaultdict(list))

    def add(self, channel: str, where: str, data: bytes) -> None:
        """Keep what came through a channel."""
        if data not in self._seen[channel][where]:
            self._seen[channel][where].append(data)

    @property
    def channels(self) -> set[str]:
        """All that were looked into."""
        return set(self._seen)

    def seen(self, channel: str, where: str) -> bytes:
        """Return what was seen at a place."""
        return b"\0\0".join(self._seen[channel][where])

    def found(self, canaries: Canaries, channel: str) -> dict[str, set[str]]:
        """Return the names of the canaries by the place where they are."""
        places = self._seen[channel]
        # All at once first, since nearly always there is nothing.
        if not canaries.found_in(b"\0\0".join(data for seen in places.values() for data in seen)):
            return {}
        found = {where: canaries.found_in(b"\0\0".join(seen)) for where, seen in places.items()}
        return {where: names for where, names in found.items() if names}


def files_below(root: Path) -> Iterator[Path]:
    """Yield all regular files; what goes away meanwhile is left out."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


class Watch:
    """Looks on in a thread of its own, as a context manager.

    ``private`` are the places where a secret may lie: a file there goes into the channel "private files" unless others may
    read it; all the rest below ``root`` into "files". What is ``apart`` is not looked at: what the owner wrote, and what
    changes all the time.
    """

    def __init__(
        self, evidence: Evidence, root: Path, *, private: Callable[[Path], bool], apart: Callable[[Path], bool]
    ) -> None:
        self._evidence = evidence
        self._root = root
        self._private = private
        self._apart = apart
        self._seen: set[tuple[int, int, int, int]] = set()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch")
        self.rounds = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def look(self, *, largest: int | None = None) -> None:
        """Look at all files once more, at those too that are large."""
        for path in files_below(self._root):
            if not self._apart(path):
                with suppress(FileNotFoundError):
                    self._read(path, largest)

    def _read(self, path: Path, largest: int | None) -> None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            state = (status.st_ino, status.st_mtime_ns, status.st_size, stat.S_IMODE(status.st_mode))
            if state in self._seen or (largest is not None and status.st_size > largest):
                return
            data = file.read()
        self._seen.add(state)
        hidden = self._private(path) and state[-1] & 0o077 == 0
        self._evidence.add("private files" if hidden else "files", str(path), data)

    def _run(self) -> None:
        try:
            while not self._over.wait(_EVERY_SECONDS):
                for pid in descendants(os.getpid()):
                    self._ask(pid)
                self.look(largest=_WATCHED_BYTES)
                self.rounds += 1
        except BaseException as failure:  # noqa: BLE001 - for the test's own thread
            self._failure = failure

    def _ask(self, pid: int) -> None:
        for name in ("cmdline", "environ"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if data := Path(f"/proc/{pid}/{name}").read_bytes():
                    self._evidence.add(name, f"{pid}", data)


def holds(pid: int, value: str) -> bool:
    """Whether a process of ours has a text in its memory; False where it has ended."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                area, rights = line.split()[:2]
                if rights.startswith("rw"):
                    first, last = (int(part, 16) for part in area.split("-"))
                    memory.seek(first)
                    with suppress(OSError):
                        if value.encode() in memory.read(last - first):
                            return True
    except (FileNotFoundError, ProcessLookupError):
        pass
    return False
