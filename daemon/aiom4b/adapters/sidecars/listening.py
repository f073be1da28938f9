"""Which audio file does a sidecar mean?"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from aiom4b.adapters.sidecars.companions import is_companion
from aiom4b.models import Name

_CHAPTER_ENDING = re.compile(r"([\s._-]?(chapters?|ffmetadata|labels))?\.[^.]*$", re.IGNORECASE)


class AudioNames:
    """The audio files of a book, to be found by what people and programs wrote instead of their names."""

    def __init__(self, audio: Sequence[Name]) -> None:
        self._audio = tuple(audio)
        self._by: list[dict[str, list[Name]]] = []
        for key in _KEYS:
            index: dict[str, list[Name]] = defaultdict(list)
            for path in audio:
                index[key(path)].append(path)
            self._by.append(index)

    def find(self, written: str, sidecar: Name) -> Name | None:
        """Return the file that ``written`` in the file ``sidecar`` means, None when there is none or more than one.

        Tried in turn: its path, from the sidecar's folder and from the root; the same whatever the case and the suffix; the bare
        name; the bare name whatever the suffix (a cue names the ``.wav`` that was coded to ``.mp3``).
        """
        folder = os.path.dirname(sidecar)
        for plain in dict.fromkeys((written, unquote(written.removeprefix("file://")))):
            path = plain.strip().replace("\\", "/")
            for key, index in zip(_KEYS, self._by, strict=True):
                for candidate in (os.path.normpath(os.path.join(folder, path)), path):
                    found = index.get(key(candidate), [])
                    beside = [one for one in found if os.path.dirname(one) == folder]
                    if len(found) == 1 or len(beside) == 1:
                        return (found if len(found) == 1 else beside)[0]
        return None

    def companion_of(self, sidecar: Name) -> Name | None:
        """Return the audio file in the same folder that a downloader named alike, or the only one there is; else None."""
        beside = [path for path in self._audio if os.path.dirname(path) == os.path.dirname(sidecar)]
        named = [path for path in beside if is_companion(sidecar, path)]
        return next(iter(named or beside), None) if len(named or beside) == 1 else None

    def described_by(self, sidecar: Name) -> tuple[Name | None, bool]:
        """Return the file that a list of chapters counts from, None for the whole book, and whether that is clear.

        ``Part 1.chapters.txt`` is about ``Part 1.mp3`` beside it; in the root any other is about the whole book; in a
        sub-folder it is about the one file there, or the whole book when all of its files are there.
        """
        folder = os.path.dirname(sidecar)
        beside = [path for path in self._audio if os.path.dirname(path) == folder]
        stem = _CHAPTER_ENDING.sub("", os.path.basename(sidecar)).casefold()
        named = [path for path in beside if _stem(os.path.basename(path)) == stem]
        if len(named) == 1:
            return named[0], True
        if len(beside) == 1 and (folder or len(self._audio) == 1):
            return beside[0], True
        return None, not folder or len(beside) == len(self._audio)


def _same(path: Name) -> str:
    return path


def _folded(path: Name) -> str:
    return path.casefold()


def _stem(path: Name) -> str:
    return os.path.splitext(path)[0].casefold()


def _base(path: Name) -> str:
    return os.path.basename(path).casefold()


def _base_stem(path: Name) -> str:
    return _stem(os.path.basename(path))


_KEYS: tuple[Callable[[Name], str], ...] = (_same, _folded, _stem, _base, _base_stem)
