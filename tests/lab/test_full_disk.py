"""What happens when the disk is really full?"""

from __future__ import annotations

import ctypes
import os

import pytest

from aiom4b.adapters import files
from aiom4b.adapters.copies import copy_verified
from aiom4b.adapters.space import SpaceLedger
from aiom4b.errors import Transient

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")]

SIZE = 1 << 20


def mounted(place, options):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))
    return lambda: libc.umount2(os.fsencode(place), 0)


@pytest.fixture
def tiny(tmp_path):
    """Return a file system of one MiB that holds one old file."""
    place = tmp_path / "tiny"
    place.mkdir()
    unmount = mounted(place, f"size={SIZE}")
    files.write_durably(str(place / "old"), b"old")
    yield place
    assert unmount() == 0


@pytest.fixture
def without_inodes(tmp_path):
    place = tmp_path / "few"
    place.mkdir()
    unmount = mounted(place, f"size={SIZE},nr_inodes=4")
    for name in "abc":
        (place / name).touch()
    yield place
    assert unmount() == 0


def full(call, *args, **kwargs):
    with pytest.raises(Transient) as caught:
        call(*args, **kwargs)
    return caught.value.code == "space.full"


@pytest.mark.parametrize("replace", [False, True])
def test_a_write_that_finds_no_room_leaves_everything_as_it_was(tiny, replace):
    path = str(tiny / ("old" if replace else "new"))
    assert full(files.write_durably, path, bytes(2 * SIZE), replace=replace)
    assert os.listdir(tiny) == ["old"]
    assert (tiny / "old").read_bytes() == b"old"
    files.write_durably(path, bytes(SIZE // 4), replace=replace)


def test_a_copy_that_finds_no_room_leaves_nothing(tiny, tmp_path):
    (tmp_path / "big").write_bytes(bytes(2 * SIZE))
    assert full(copy_verified, str(tmp_path / "big"), str(tiny / "big"))
    assert os.listdir(tiny) == ["old"]


def test_a_disk_without_inodes_counts_as_full(without_inodes):
    assert full(files.write_durably, str(without_inodes / "new"), b"")


def test_the_ledger_sees_the_real_room(tiny):
    with SpaceLedger().reserve(str(tiny / "book"), SIZE // 2):
        pass
    with pytest.raises(Transient), SpaceLedger().reserve(str(tiny / "book"), SIZE):
        pytest.fail("promised more than there is")
