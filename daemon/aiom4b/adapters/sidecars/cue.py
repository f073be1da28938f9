"""Where do tracks start, by what a cue sheet says?"""

from __future__ import annotations

import re

from aiom4b.adapters import text
from aiom4b.models import Mark

_FILE = re.compile(
    r'FILE\s+(?:"(?P<quoted>[^"]*)"|(?P<bare>.*?))(?:\s+(?:MP3|WAVE|AIFF|FLAC|BINARY|MOTOROLA|AAC|M4A|MP4))?\s*',
    re.IGNORECASE,
)
_TRACK = re.compile(r"TRACK\s+\d+\s+\w+", re.IGNORECASE)
_TITLE = re.compile(r'TITLE\s+"?(.*?)"?\s*', re.IGNORECASE)
_START = re.compile(r"INDEX\s+0?1\s+(\d{1,5}):(\d{1,2})(?::(\d{1,2}))?", re.IGNORECASE)
_FRAMES_A_SECOND = 75


def read(sheet: str) -> list[tuple[str, list[Mark]]]:
    """Return the marks of each FILE that has any, by its name as written, in the order of the sheet.

    A track starts in the file in which its INDEX 01 stands: rippers leave TRACK and the pause before it in the file
    that goes before. Lines that are not understood are passed over, as the format asks.
    """
    files: list[tuple[str, list[Mark]]] = []
    title, is_in_track = "", False
    for raw in sheet.splitlines():
        line = raw.strip()[: 2 * text.LINE_LIMIT]
        if named := _FILE.fullmatch(line):
            files.append((named["quoted"] if named["quoted"] is not None else named["bare"], []))
        elif _TRACK.fullmatch(line):
            title, is_in_track = "", True
        elif is_in_track and (titled := _TITLE.fullmatch(line)):
            title = text.line(titled[1])
        elif is_in_track and files and (start := _START.fullmatch(line)):
            minutes, seconds, frames = (int(part or 0) for part in start.groups())
            start_us = (minutes * 60 + seconds) * 1_000_000 + frames * 1_000_000 // _FRAMES_A_SECOND
            files[-1][1].append(Mark(start_us=start_us, title=title))
    return [(name, marks) for name, marks in files if marks]
