"""In which order does a playlist play?"""

from __future__ import annotations

import re

_PLS = re.compile(r"File(\d{1,6})\s*=(.*)", re.IGNORECASE)
_ENTRY_LIMIT = 100_000


def read(written: str) -> list[str]:
    """Return the entries of an M3U or PLS playlist in playing order, as they are written. Raises ValueError when endless."""
    lines = [line.strip() for line in written.splitlines()]
    if any(line.lower() == "[playlist]" for line in lines):
        numbered = [(int(found[1]), found[2].strip()) for line in lines if (found := _PLS.fullmatch(line))]
        entries = [entry for _, entry in sorted(numbered, key=lambda pair: pair[0])]
    else:
        entries = [line for line in lines if line and not line.startswith("#")]
    if len(entries) > _ENTRY_LIMIT:
        raise ValueError("too many entries")
    return entries
