"""Which files belong to which audio file, by their names alone, as downloaders and people name them?"""

from __future__ import annotations

import os
import re

from aiom4b.models import Name

# audible-cli names a download after its codec and what goes with it after what it is; Libation doubles the suffix. Each such
# ending counts only before its own suffix, and of the pictures' sizes only those there are: "Dune_(1984)" is a title.
_KIND = re.compile(
    r"(?:-(?:aax_\d+_\d+|lc_\d+_\d+_\w+|m4a_\w+)\.(?:aaxc?|m4a|mp4|voucher|key)"
    r"|-mpeg\.(?:mp3|voucher)"
    r"|-(?:chapters|annotations|item)\.json"
    r"|\.metadata\.json"
    r"|_\((?:252|315|360|408|500|558|570|882|900|1215|native)\)\.(?:jpe?g|png))\Z",
    re.IGNORECASE,
)


def stem_of(name: Name) -> str:
    """Return what the names of a download's files have in common; of any other file its name without the suffix.

    ``Emma-AAX_44_128.aaxc``, ``Emma-AAX_44_128.voucher``, ``Emma-chapters.json``, ``Emma_(1215).jpg`` and ``Emma.pdf`` are
    all ``Emma``. Folders before it are kept.
    """
    folder, base = os.path.split(name)
    kind = _KIND.search(base)
    return os.path.join(folder, base[: kind.start()] if kind and kind.start() else os.path.splitext(base)[0])


def is_companion(name: Name, audio: Name) -> bool:
    """Whether a file goes with an audio file in the same folder: with this one, where there are others as well."""
    return stem_of(name) == stem_of(audio)
