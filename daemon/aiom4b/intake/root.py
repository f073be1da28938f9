"""Is the source itself there, and is it the one that we know? Pure: what may be concluded from a look at its top level."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiom4b.intake.snapshot import Survey


class Place(StrEnum):
    """What a look at the source tells."""

    SAME = "same"
    REPLACED = "replaced"  # another directory stands in its place: the watch on the old one is deaf
    UNMOUNTED = "unmounted"  # empty, and not known to have become so: nothing may be concluded of its entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Which directory the source was when it was last seen as it should be."""

    device: int
    inode: int


def place(known: Root | None, survey: Survey, *, entries: int) -> Place:
    """Judge a survey. ``known`` is None before the first; ``entries`` are those that were there last time.

    Emptied under our eyes is emptied. An empty directory that is another than before, or that we never saw otherwise,
    is what an unmounted volume leaves behind.
    """
    same = known == root_of(survey)
    if not same and entries and not survey.entries:
        return Place.UNMOUNTED
    return Place.SAME if same or known is None else Place.REPLACED


def root_of(survey: Survey) -> Root:
    """Return which directory was surveyed."""
    return Root(device=survey.device, inode=survey.inode)
