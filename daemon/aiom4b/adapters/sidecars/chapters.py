"""Where do chapters start, by what a list of chapters in a text file says, in whichever of its forms?"""

from __future__ import annotations

import re
from fractions import Fraction

from aiom4b.adapters import text
from aiom4b.models import Mark

_TIME = r"(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2})(?:[.,](\d{1,9}))?"
_PLAIN = re.compile(_TIME + r"(?:\s+(?:[-\u2013]\s+)?(.*))?")
_OGM_START = re.compile(r"CHAPTER(\d{1,6})=" + _TIME, re.IGNORECASE)
_OGM_NAME = re.compile(r"CHAPTER(\d{1,6})NAME=(.*)", re.IGNORECASE)
_LABEL = re.compile(r"(\d{1,8})(?:[.,](\d{1,9}))?\t+\d{1,8}(?:[.,]\d{1,9})?(?:\t(.*))?")
_TIME_BASE = re.compile(r"(\d{1,12})/(\d{1,12})")


def read(written: str) -> list[Mark]:
    """Return the marks of ffmetadata, OGM (``CHAPTER01=``), Audacity labels, or lines of ``00:00:00.000 Title``.

    They stand as written; lines that are not understood are passed over. Raises ValueError for an absurd number.
    """
    if written.lstrip().startswith(";FFMETADATA"):
        return _ffmetadata(written)
    lines = [line.strip("\r\n ") for line in written.splitlines() if not line.lstrip().startswith(("#", ";"))]
    return _ogm(lines) or [mark for line in lines if (mark := _label(line) or _plain(line))]


def _plain(line: str) -> Mark | None:
    found = _PLAIN.fullmatch(line)
    return found and Mark(start_us=_microseconds(*found.groups()[:4]), title=text.line(found[5] or ""))


def _label(line: str) -> Mark | None:
    """Return the mark of an Audacity label: start and end in seconds, and the title, between tabs."""
    found = _LABEL.fullmatch(line)
    return found and Mark(start_us=_microseconds(None, "0", found[1], found[2]), title=text.line(found[3] or ""))


def _ogm(lines: list[str]) -> list[Mark]:
    starts = {
        int(found[1]): _microseconds(*found.groups()[1:]) for line in lines if (found := _OGM_START.fullmatch(line))
    }
    titles = {int(found[1]): text.line(found[2]) for line in lines if (found := _OGM_NAME.fullmatch(line))}
    return [Mark(start_us=start, title=titles.get(number, "")) for number, start in starts.items()]


def _microseconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> int:
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * 1_000_000 + int((fraction or "0")[:6].ljust(6, "0"))


def _ffmetadata(written: str) -> list[Mark]:
    marks: list[Mark] = []
    for section in re.split(r"^\[", written, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("]")
        values = _pairs(rest)
        base = _TIME_BASE.fullmatch(values.get("timebase", "1/1000000000").strip())  # FFmpeg's own default: nanoseconds
        if (
            name.upper() == "CHAPTER"
            and base
            and int(base[2])
            and re.fullmatch(r"\d{1,18}", values.get("start", "").strip())
        ):
            start = int(values["start"]) * Fraction(int(base[1]), int(base[2]))
            marks.append(Mark(start_us=int(start * 1_000_000), title=text.line(values.get("title", ""))))
    return marks


def _pairs(section: str) -> dict[str, str]:
    r"""Return the ``key=value`` lines of a section, keys in lower case; ``\`` takes the next character as it is."""
    pairs: dict[str, str] = {}
    for line in re.findall(r"(?:\\.|[^\\\n])+", section, flags=re.DOTALL):
        if line.lstrip()[:1] not in {";", "#"}:
            key, _, value = line.partition("=")
            pairs.setdefault(key.strip().lower(), re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL))
    return pairs
