"""Is an empty directory told from an unmounted one?"""

from __future__ import annotations

import pytest

from aiom4b.intake.root import Place, Root, place
from aiom4b.intake.snapshot import Survey

KNOWN = Root(device=1, inode=2)


def survey(device=1, inode=2, *names):
    return Survey(device=device, inode=inode, entries=dict.fromkeys(names, ()))


@pytest.mark.parametrize(
    ("known", "found", "entries", "expected"),
    [
        (None, survey(1, 2), 0, Place.SAME),
        (None, survey(1, 2, "Emma"), 3, Place.SAME),
        (None, survey(1, 2), 3, Place.UNMOUNTED),
        (KNOWN, survey(1, 2), 3, Place.SAME),
        (KNOWN, survey(9, 2), 3, Place.UNMOUNTED),
        (KNOWN, survey(1, 9), 3, Place.UNMOUNTED),
        (KNOWN, survey(9, 2), 0, Place.REPLACED),
        (KNOWN, survey(1, 9, "Emma"), 3, Place.REPLACED),
        (KNOWN, survey(1, 2, "Emma"), 3, Place.SAME),
    ],
)
def test_a_look_at_the_source_tells(known, found, entries, expected):
    assert place(known, found, entries=entries) is expected
