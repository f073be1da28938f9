"""What is left of a conversion when the power fails? On a real ext4 and xfs, whose journal is replayed afterwards."""

from __future__ import annotations

import os
import shutil

import pytest

from household import clip, id3, picture, snapshot
from power import PowerCut, lacking

pytestmark = pytest.mark.lab

STRIDE = 9
"""Every so many calls the power is cut; 1 for a long look."""


@pytest.fixture
def drop(house):
    """Return a drop of several segments, with a cover."""
    tracks = {
        f"{n}.mp3": id3(TALB="Emma", TPE1="Jane Austen", TRCK=f"{n}/2", TIT2=f"T{n}") + clip(n, seconds=16)
        for n in (1, 2)
    }
    return house.drop("Emma", tracks | {"cover.jpg": picture(side=300)})


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, house, tmp_path):
    """Return a disk that holds the house's library and backups."""
    if reason := lacking(request.param):
        pytest.skip(reason)
    place = tmp_path / "disk"
    place.mkdir()
    with PowerCut(request.param, tmp_path / "image", place) as made:
        house.library, house.backup = place / "library", place / "backups"
        yield made


def emptied(house):
    for folder in (house.library, house.backup):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    os.sync()


def sound(house, wanted):
    """Check that everything which can be seen is whole: no book or the right one, no backup set or a good one."""
    books = house.books()
    assert all((house.library / book).read_bytes() == wanted for book in books)
    sets = [entry for entry in os.listdir(house.backup) if not entry.startswith(".")]
    if sets:
        assert house.run("backups", "verify", "--backup", str(house.backup), "--json").document == {
            "ok": True,
            "items": [{"path": str(house.backup / name), "ok": True, "findings": []} for name in sets],
            "total": len(sets),
        }
    return bool(books), bool(sets)


def test_whenever_the_power_fails_books_and_backups_are_whole_or_absent_and_the_next_run_ends_with_the_same_bytes(
    house, drop, disk
):
    before = snapshot(drop)
    emptied(house)
    with disk.cut_at(0) as calls:
        wanted = house.convert(drop)
    book = (house.root / wanted.book["output"]).read_bytes()
    seen = set()
    for number in range(1, len(calls) + 1, STRIDE):
        emptied(house)
        with disk.cut_at(number):
            stopped = house.convert(drop)
        assert (stopped.exit, stopped.error["code"]) == (75, "file.io"), (number, stopped.document)
        disk.power_on()
        seen.add(sound(house, book))
        again = house.convert(drop)
        assert again.exit == 0, (number, again.document)
        assert sound(house, book) == (True, True)
        assert house.litter() == []
        assert snapshot(drop) == before
    assert {(False, False), (False, True)} <= seen


def test_what_was_told_as_done_survives_a_power_cut(house, drop, disk):
    emptied(house)
    made = house.convert(drop)
    assert made.exit == 0
    disk.cut()
    disk.power_on()
    assert house.convert(drop).book["already"] is True
    assert house.litter() == []  # a removal is not durable: what was tidied away may be back, and goes again
    assert house.run("verify", made.book["output"], "--json").document["proved"] == "against its backup"


@pytest.fixture
def fragile(house, drop, disk):
    """Return a drop on the disk, while library and backups are elsewhere."""
    house.library, house.backup = house.root / "library", house.root / "backups"
    folder = str(disk.place / "Emma")
    shutil.copytree(drop, folder)
    os.sync()
    return folder


only_ext4 = pytest.mark.parametrize("disk", ["ext4"], indirect=True)


@only_ext4
@pytest.mark.parametrize(("words", "number"), [((), 5), (("--no-backup",), 20)])
def test_a_source_whose_disk_dies_is_named_and_the_rest_is_whole(house, fragile, disk, words, number):
    before = snapshot(fragile)
    with disk.cut_at(number):
        stopped = house.convert(fragile, *words)
    assert (stopped.exit, stopped.error["code"]) == (75, "file.io"), stopped.document
    assert stopped.error["message"].startswith(f"Failed while reading {fragile}/")
    assert (house.litter(work=True), house.books()) == ([], [])
    disk.power_on()
    assert house.convert(fragile, *words).exit == 0
    assert snapshot(fragile) == before


@only_ext4
def test_a_source_whose_disk_dies_after_its_backup_is_not_missed(house, fragile, disk):
    with disk.cut_at(40):
        made = house.convert(fragile)
    assert made.exit == 0
    assert house.litter() == []
