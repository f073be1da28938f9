"""What does a test of whole conversions live in? A machine of its own: drops, a library, backups, settings, and a look at all.

``House.run`` types ``aiom4b …`` and returns what a script would see. The house runs either the real program, or the same
command line inside this process with workers that all tests share (`integration/conftest.py`): ten times as fast.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import av
from mutagen.id3 import APIC, CHAP, CTOC, ID3, TALB, TCOM, TDRC, TIT2, TPE1, TPOS, TRCK
from mutagen.mp4 import MP4
from PIL import Image

import aiom4b
import sound

RATE = 22050
PROGRAM = (sys.executable, "-m", "aiom4b")


@dataclass(frozen=True)
class Answer:
    """What came out of one call: the exit code, the JSON document (None when stdout holds none), and stderr."""

    exit: int
    document: dict | None
    talk: str

    @property
    def book(self):
        """Return the only book."""
        (book,) = self.document["books"]
        return book

    @property
    def error(self):
        """Return the only error, of the book or of the whole call."""
        return self.document["error"] if "error" in self.document else self.book["error"]


class House:
    """Directories below ``root``, and the environment in which nothing else is seen."""

    def __init__(self, root: Path, call: Callable[[House, Sequence[str]], Answer]) -> None:
        self.root = root
        self.library = root / "library"
        self.backup = root / "backups"
        self.drops = root / "drops"
        for folder in (self.library, self.backup, self.drops, root / "home"):
            folder.mkdir()
        self.settings_file = root / "aiom4b.toml"
        self.settings_file.write_text("")
        self._call = call

    def environment(self) -> dict[str, str]:
        """Return an environment without the settings of whoever runs the tests."""
        kept = {"PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV"}
        home = str(self.root / "home")
        xdg = {f"XDG_{name}_HOME": f"{home}/{name}" for name in ("CONFIG", "STATE", "CACHE", "DATA")}
        ours = {"HOME": home, "AIOM4B_CONFIG": str(self.settings_file), "PYTHONWARNINGS": "error"}
        ours["PYTHONPATH"] = os.path.dirname(os.path.dirname(aiom4b.__file__))
        return {name: value for name, value in os.environ.items() if name in kept} | xdg | ours

    def set(self, text: str) -> None:
        """Write the settings file."""
        self.settings_file.write_text(text)

    def drop(self, name: str | bytes, files: Mapping[str | bytes, bytes]) -> str:
        """Make a folder of files and return its path."""
        folder = os.path.join(self.drops, os.fsdecode(name))
        for path, data in files.items():
            place = os.path.join(folder, os.fsdecode(path))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(data)
        return folder

    def run(self, *words: str) -> Answer:
        """Type ``aiom4b`` and these words."""
        return self._call(self, words)

    def convert(self, *words: str) -> Answer:
        """Convert with this house's library and backups, answered as JSON."""
        return self.run(*self.words(*words))

    def words(self, *words: str) -> tuple[str, ...]:
        """Return the words of `convert`."""
        places = ["--library", str(self.library)]
        if "--no-backup" not in words:
            places += ["--backup", str(self.backup)]
        return ("convert", *words, *places, "--json")

    def books(self) -> list[str]:
        """Return the paths of all books, relative to the library."""
        found = (str(path.relative_to(self.library)) for path in self.library.rglob("*.m4b"))
        return sorted(path for path in found if not path.startswith(".aiom4b/"))

    def record(self, book: Mapping) -> Path:
        """Return where the record of a book in a JSON document is."""
        return self.library / ".aiom4b" / "books" / f"{book['id']}.json"

    def litter(self, *, work: bool = False) -> list[str]:
        """Return every name in library and backups that is no part of a complete book, record or backup set.

        ``work`` allows for unfinished books what the next run takes up again: whole segments and the journal.
        """
        found = []
        for folder, below, names in os.walk(os.fsencode(self.library)):
            inside = os.path.relpath(os.fsdecode(folder), self.library)
            for name in map(os.fsdecode, names):
                path = os.path.normpath(os.path.join(inside, name))
                if not (_ours(path, work=work) if path.startswith(".aiom4b") else self._of_a_book(inside, name)):
                    found.append(path)
            if not below and not names and not inside.startswith(".") and inside != ".":
                found.append(inside + "/")
            if not work and os.path.dirname(inside) == ".aiom4b/work":
                found.append(inside + "/")
        for entry in os.scandir(self.backup):
            if entry.name == "cleanup.log":
                continue
            if entry.name == ".aiom4b":
                found += [one.path for one in os.scandir(entry.path)]
            elif not {"backup.json", "SHA256SUMS"} <= set(os.listdir(entry.path)):
                found.append(entry.path)
        return found

    def _of_a_book(self, folder: str, name: str) -> bool:
        beside = {one for one in os.listdir(self.library / folder) if one.endswith(".m4b")}
        companions = {
            f"{one.removesuffix('.m4b')}{ending}" for one in beside for ending in (".pdf", ".annotations.json")
        }
        if len(beside) != 1 or name not in beside | companions | {"cover.jpg", "metadata.json"}:
            return False
        data = (self.library / folder / beside.pop()).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        records = (self.library / ".aiom4b" / "books").glob("*.json")
        return any(json.loads(record.read_bytes())["record"]["sha256"] == digest for record in records)


def _ours(path: str, *, work: bool) -> bool:
    parts = path.split("/")
    if parts[1] == "books":
        return parts[2].endswith(".json")
    if parts[1] != "work":
        return False
    if not work:
        return False
    if len(parts) == 3:
        return parts[2].endswith(".lock")
    if parts[3] == "segments":
        return os.path.splitext(parts[4])[1] in {".aac", ".json"} and not parts[4].startswith(".")
    return parts[3] == "draft" or parts[3].endswith(".json")


def snapshot(folder: str | Path) -> dict[bytes, tuple]:
    """Return everything below a folder: kind, mode, mtime, and the content of regular files; nothing else is opened."""
    seen = {}
    for where, below, names in os.walk(os.fsencode(folder)):
        for name in [b".", *below, *names]:
            path = os.path.join(where, name)
            status = os.lstat(path)
            content = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            seen[path] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return seen


def real_program(house: House, words: Sequence[str], **how) -> Answer:
    """Run the program as its users do; ``how`` is for `subprocess.run`."""
    how = {"env": house.environment(), "cwd": house.root, "capture_output": True, "timeout": 60} | how
    done = subprocess.run([*PROGRAM, *words], check=False, **how)
    return answer(done.returncode, done.stdout, done.stderr)


def answer(exit: int, stdout: bytes, stderr: bytes) -> Answer:
    """Return what a script makes of the streams."""
    try:
        document = json.loads(stdout.decode())
    except ValueError:
        document = None
    return Answer(exit, document, stderr.decode(errors="backslashreplace"))


# --- what only root can do ---------------------------------------------------------------------------------------------

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def bound_by_modes() -> None:
    """Let the program that this process becomes be bound by the modes of files, as every user but root is."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


class Disk:
    """A file system of its own at ``place``, in memory, of some pages of 4 KiB."""

    _REMOUNT, _READ_ONLY, _DETACH = 32, 1, 2

    def __init__(self, place: str | Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._place = os.fsencode(place)

    def resize(self, pages: int) -> None:
        """Make it larger or smaller."""
        self._mount(self._REMOUNT, f"size={pages * 4096}")

    def read_only(self) -> None:
        """Take no writes any more."""
        self._mount(self._REMOUNT | self._READ_ONLY, "")

    def _mount(self, flags: int, options: str) -> None:
        if self._libc.mount(b"tmpfs", self._place, b"tmpfs", flags, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def __enter__(self) -> Self:
        self._mount(0, "size=4096")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._libc.umount2(self._place, self._DETACH) == 0


# --- what is dropped --------------------------------------------------------------------------------------------------


def id3(**tags: str) -> bytes:
    """Return an ID3v2.4 tag of text frames by their names (``TRCK="1/3"``)."""
    frames = b"".join(sound.id3_text(name, text) for name, text in tags.items())
    return sound.id3(frames)


def rich_id3(
    *, title="", album="", artist="", track="", disc="", narrator="", date="", chapters=(), cover=b"", mime="image/jpeg"
) -> bytes:
    """Return an ID3 tag with what text frames can't hold: chapters as (seconds, title), and a picture."""
    tag = ID3()
    texts = {TIT2: title, TALB: album, TPE1: artist, TRCK: track, TPOS: disc, TCOM: narrator, TDRC: date}
    for frame, text in texts.items():
        if text:
            tag.add(frame(encoding=3, text=text))
    for number, (start, name) in enumerate(chapters):
        element = f"ch{number}"
        tag.add(
            CHAP(
                element_id=element,
                start_time=round(1000 * start),
                end_time=round(1000 * start) + 1,
                start_offset=0xFFFFFFFF,
                end_offset=0xFFFFFFFF,
                sub_frames=[TIT2(encoding=3, text=name)],
            )
        )
    if chapters:
        ids = [f"ch{number}" for number in range(len(chapters))]
        tag.add(CTOC(element_id="toc", flags=3, child_element_ids=ids, sub_frames=[]))
    if cover:
        tag.add(APIC(encoding=0, mime=mime, type=3, desc="", data=cover))
    target = io.BytesIO()
    tag.save(target)
    return target.getvalue()


def clip(seed: int = 1, seconds: float = 1.0, rate: int = RATE, channels: int = 1, **how) -> bytes:
    """Return an MP3 of speech, without tags; the same seed gives the same bytes."""
    bit_rate = how.pop("bit_rate", 32000 * channels if rate >= 16000 else 16000)
    return sound.mp3(sound.speech(seconds, rate, channels=channels, seed=seed), rate, bit_rate=bit_rate, **how)


def tracks(count: int = 3, *, album: str = "Emma", artist: str = "Jane Austen", first_seed: int = 1) -> dict:
    """Return the files of a well-kept book: numbered names and tags that agree."""
    return {
        f"{n:02}.mp3": id3(TRCK=f"{n}/{count}", TALB=album, TPE1=artist, TIT2=f"Part the {n}.")
        + clip(first_seed + n - 1)
        for n in range(1, count + 1)
    }


def picture(colour: str = "red", kind: str = "JPEG", side: int = 64, mode: str = "RGB") -> bytes:
    """Return a picture."""
    target = io.BytesIO()
    Image.new(mode, (side, side), colour if mode == "RGB" else 0).save(target, kind)
    return target.getvalue()


# --- what came of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """What FFmpeg (through PyAV) and mutagen find in a book; ``samples`` is what a player plays."""

    samples: int
    sample_rate: int
    channels: int
    chapters: list[tuple[str, int]]
    tags: MP4
    sound: object


def heard(path: str | Path) -> Heard:
    """Open a book with tools that are not ours to vouch for."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate = stream.rate
        chapters = [
            (chapter["metadata"]["title"], round(chapter["start"] * chapter["time_base"] * rate))
            for chapter in container.chapters()
        ]
        samples = round(stream.duration * stream.time_base * rate)
        channels = stream.channels
    with open(path, "rb") as file:
        pcm = sound.decoded(file.read(), format="mp4")
    return Heard(samples, rate, channels, chapters, MP4(path), pcm)


# --- who opens what ---------------------------------------------------------------------------------------------------

_IN_OPEN = 0x20
_IN_NONBLOCK = 0o4000


class Bait:
    """Watches paths: ``taken`` tells which of them any process on this machine has opened since (inotify)."""

    def __init__(self, *paths: str | Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_IN_NONBLOCK)
        assert self._descriptor >= 0
        self._paths = {}
        for path in paths:
            watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN)
            assert watch > 0, os.strerror(ctypes.get_errno())
            self._paths[watch] = str(path)

    def taken(self) -> set[str]:
        """Return the paths that were opened; asking forgets them."""
        try:
            events = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return set()
        found = set()
        while events:
            watch, _, _, length = struct.unpack_from("iIII", events)
            found.add(self._paths.get(watch, "?"))
            events = events[16 + length :]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
