"""How are times, sizes and rows of a table said to people? Pure: what is shown depends on the arguments alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len

_SPANS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def ago(at: datetime, now: datetime) -> str:
    """Say how long before ``now`` something happened: "just now", "3 min ago"; from two weeks on the date."""
    seconds = (now - at).total_seconds()
    if seconds >= 14 * 86_400:
        return at.astimezone().date().isoformat()
    return "just now" if seconds < 5 else f"{span(seconds)} ago"


def ahead(at: datetime, now: datetime) -> str:
    """Say how long after ``now`` something is due: "now", "in 3 min"."""
    seconds = (at - now).total_seconds()
    return "now" if seconds < 1 else f"in {span(seconds)}"


def span(seconds: float) -> str:
    """Say a stretch of time in whole ones of its largest unit: "42 s", "3 min", "7 h", "2 d"."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds // 1, 0):.0f} s"


def moment(text: str) -> str:
    """Write a time of the service (ISO 8601, with its zone) as the clock of this place: 2026-03-01 09:07:12."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def length(seconds: float) -> str:
    """Write the length of audio as players do: 9:07:12."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def size(count: int) -> str:
    """Say a number of bytes in decimal units: "812 B", "3.4 MB"."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Say a number of things: "1 job", "2 jobs"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def found(report: Mapping[str, Any]) -> str:
    """Say what a sync of a library found: "412 titles, 3 new, 1 queued"."""
    words = [f"{report[what]} {what}" for what in ("new", "changed", "gone", "queued") if report[what]]
    return ", ".join([counted(report["titles"], "title"), *(words or ["nothing new"])])


def explained(problem: Mapping[str, str], margin: int) -> list[str]:
    """Return message and remedy of a problem as lines, all with that many blanks before them."""
    lines = [*problem["message"].split("\n"), *f"remedy: {problem['remedy']}".split("\n")]
    return [" " * margin + line for line in lines]


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Return a line for each row, its cells aligned as a terminal shows them, wide characters too.

    The columns in ``right`` are set flush right. Nothing is ever cut; the last column may be of any length and hold
    several lines.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - cell_len(cell))
            cells.append(gap + cell if place in right else cell + gap)
        margin = " " * (sum(widths[:-1]) + 2 * (len(row) - 1))
        lines.append("  ".join(cells).rstrip().replace("\n", "\n" + margin))
    return lines
