"""Where do chapters start, by what ID3 CHAP frames and OverDrive's MediaMarkers say?"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from aiom4b.adapters import text
from aiom4b.models import Mark

_NAME = re.compile(r"<Name>(.*?)</Name>", re.DOTALL | re.IGNORECASE)
_TIME = re.compile(r"<Time>\s*(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2})(?:[.,](\d{1,6}))?\s*</Time>", re.IGNORECASE)
_MARKER_LIMIT = 256 << 10


def overdrive(xml: str) -> tuple[Mark, ...]:
    """Return the marks of a ``OverDrive MediaMarkers`` text in the order of their times, titles as they stand.

    It looks like XML but often isn't: ampersands stand bare, HTML entities are used, so no XML parser is asked.
    Markers without a readable name or time are left out; a text of more than 256 KiB is read up to there.
    """
    marks = []
    for piece in re.split("<Marker>", xml[:_MARKER_LIMIT], flags=re.IGNORECASE)[1:]:
        name, time = _NAME.search(piece), _TIME.search(piece)
        title = text.line(html.unescape(name[1])) if name else ""
        if time and title:
            hours, minutes, seconds, fraction = time.groups()
            whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
            marks.append(Mark(start_us=whole * 1_000_000 + int((fraction or "0").ljust(6, "0")), title=title))
    return tuple(sorted(marks, key=lambda mark: mark.start_us))


def embedded(found: Iterable[tuple[str, int, str]], listed: Sequence[str]) -> tuple[Mark, ...]:
    """Return the marks of CHAP frames, given as (element id, start in ms, title), in the order of their starts.

    Frames of equal start stand as the table of contents (``listed``, ids) has them, those it doesn't list last. A start
    of 2**32-1 means "see the byte offset" (ID3v2 Chapter Frame Addendum, 3.1), which says nothing of time: left out.
    """
    place = {element: index for index, element in reversed(list(enumerate(listed)))}
    timed = [chapter for chapter in found if chapter[1] != 0xFFFFFFFF]
    timed.sort(key=lambda chapter: (chapter[1], place.get(chapter[0], len(place))))
    return tuple(Mark(start_us=start * 1000, title=title) for _, start, title in timed)
