"""What happens to a conversion that may not read or write what it needs, or finds a device? Bound by modes, unlike root."""

from __future__ import annotations

import os
import stat
from functools import partial

import pytest

import household
from household import Bait, House, picture, snapshot, tracks

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices")]


@pytest.fixture
def house(tmp_path):
    """Return a house whose program is bound by the modes of files."""
    return House(tmp_path, partial(household.real_program, preexec_fn=household.bound_by_modes))


@pytest.mark.parametrize("name", ["02.mp3", "cover.jpg", "CD2"])
def test_what_may_not_be_read_is_named_and_exits_77(house, name):
    folder = house.drop("Emma", tracks(2) | {"cover.jpg": picture(), "CD2/notes.txt": b"x"})
    before = snapshot(folder)
    path = os.path.join(folder, name)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, 0)
    good = house.drop("Ulysses", tracks(2, album="Ulysses", first_seed=5))
    answer = house.convert(folder, good)
    bad, other = answer.document["books"]
    assert bad["error"]["code"] == "file.not_permitted"
    assert name in bad["error"]["message"]
    assert bad["error"]["remedy"]
    assert other["output"].endswith("Ulysses.m4b")
    assert answer.exit == 77
    assert house.litter(work=True) == []
    assert len(house.books()) == 1
    os.chmod(path, mode)
    assert snapshot(folder) == before
    assert house.convert(folder).exit == 0


@pytest.mark.parametrize("which", ["library", "backup"])
def test_a_directory_that_may_not_be_written_exits_77_before_any_work(house, which):
    folder = house.drop("Emma", tracks(2))
    place = getattr(house, which)
    os.chmod(place, 0o555)
    answer = house.convert(folder)
    assert (answer.exit, answer.error["code"]) == (77, "directory.not_writable")
    assert str(place) in answer.error["message"]
    assert answer.error["remedy"]
    os.chmod(place, 0o755)
    assert house.litter() == []
    assert house.convert(folder).exit == 0


def test_a_book_s_folder_in_the_library_that_may_not_be_written_keeps_the_finished_work(house):
    author = house.library / "Jane Austen"
    author.mkdir(mode=0o555)
    folder = house.drop("Emma", tracks(2))
    answer = house.convert(folder)
    assert (answer.exit, answer.error["code"]) == (77, "file.not_permitted")
    assert "Jane Austen" in answer.error["message"]
    assert house.litter(work=True) == ["Jane Austen/"]
    author.chmod(0o755)
    again = house.convert(folder)
    assert again.exit == 0
    assert again.book["output"] == str(author / "Emma" / "Emma.m4b")
    assert house.litter() == []


def test_devices_in_a_drop_are_never_opened(house):
    folder = house.drop("Emma", tracks(2))
    device, alone = os.path.join(folder, "03.mp3"), str(house.drops / "null.mp3")
    for path in (device, alone):
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with Bait(device, alone) as watch:
        answer = house.convert(folder, alone)
        assert watch.taken() == set()
    emma, refused = answer.document["books"]
    assert emma["samples"] == 2 * household.RATE
    assert any(warning.startswith("03.mp3") for warning in emma["warnings"])
    assert refused["error"]["code"] == "source.not_regular"
