"""What happens to a conversion on a disk that is really full, at any point?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiom4b.adapters.space import SpaceLedger, Volume
from aiom4b.steps import context
from household import Disk, clip, id3, picture, snapshot

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")]


@pytest.fixture
def drop(house):
    """Return a drop of three segments, with a cover."""
    files = {
        f"{n}.mp3": id3(TALB="Emma", TPE1="Jane Austen", TRCK=f"{n}/2", TIT2=f"T{n}t") + clip(n, seconds=18)
        for n in (1, 2)
    }
    return house.drop("Emma", files | {"cover.jpg": picture(side=300)})


@pytest.fixture
def full_without_warning(monkeypatch):
    """Let the look at the free space promise everything, so that the disk itself has the last word."""
    monkeypatch.setattr(
        context, "SpaceLedger", lambda: SpaceLedger(lambda _: Volume(device=1, available=1 << 50, size=1 << 50))
    )


def grown_until_it_fits(house, drop, disk, sizes):
    """Convert again and again on a growing disk; return the successful answer and in how many ways it failed before."""
    before = snapshot(drop)
    reasons = set()
    for size in sizes:
        disk.resize(size)
        answer = house.convert(drop)
        assert snapshot(drop) == before
        if answer.exit == 0:
            assert house.litter() == []
            return answer, len(reasons)
        assert (answer.exit, answer.error["code"]) == (75, "space.full"), answer.document
        assert "Free" in answer.error["remedy"]
        assert house.books() == []
        assert house.litter(work=True) == []
        reasons.add(size)
    raise AssertionError("it never fitted")


def test_a_library_that_is_full_at_any_point_keeps_what_is_done_and_ends_with_the_same_bytes(
    house, drop, full_without_warning, tmp_path
):
    wanted = tmp_path / "roomy"
    wanted.mkdir()
    good = house.run("convert", drop, "--library", str(wanted), "--no-backup", "--json")
    with Disk(house.library) as disk:
        answer, failures = grown_until_it_fits(house, drop, disk, range(1, 400, 7))
        assert failures > 5
        assert answer.book["segments"]["reused"] == 3
        assert Path(answer.book["output"]).read_bytes() == Path(good.book["output"]).read_bytes()


def test_a_backup_disk_that_is_full_at_any_point_holds_no_half_set(house, drop, full_without_warning):
    with Disk(house.backup) as disk:
        answer, failures = grown_until_it_fits(house, drop, disk, range(1, 200, 7))
        assert failures > 3
        assert house.run("backups", "verify", answer.book["backup"], "--json").exit == 0


@pytest.mark.parametrize("which", ["library", "backup"])
def test_too_little_room_is_told_before_the_work_begins(house, drop, which):
    with Disk(getattr(house, which)) as disk:
        disk.resize(20)
        answer = house.convert(drop)
        assert (answer.exit, answer.error["code"]) == (75, "space.full")
        assert "more are needed" in answer.error["message"]
        assert house.litter(work=True) == []
        assert not list(house.library.rglob("*.aac"))
        disk.resize(4000)
        assert house.convert(drop).exit == 0


@pytest.mark.parametrize("which", ["library", "backup"])
def test_a_read_only_disk_is_not_permitted(house, drop, which):
    with Disk(getattr(house, which)) as disk:
        disk.read_only()
        answer = house.convert(drop)
        assert (answer.exit, answer.error["code"]) == (77, "directory.not_writable")
        assert str(getattr(house, which)) in answer.error["message"]
