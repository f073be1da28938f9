"""Does a book suit the place where it appears? Groups, rights and mounts that its owner has set there, later too."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from contextlib import contextmanager

import pytest

from household import tracks

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and mount")]

GROUP, READERS = 4242, 4243
_ACL_VERSION = 2
_OWNER, _GROUP, _NAMED_GROUP, _MASK, _OTHERS = 1, 4, 8, 16, 32  # tags of an entry, as in linux/posix_acl.h
_BIND, _DETACH = 4096, 2


def shared(folder):
    """Let everything that is made in ``folder`` belong to one group, be readable by another, and by nobody else."""
    os.chown(folder, -1, GROUP)
    os.chmod(folder, 0o2770)
    entries = [(_OWNER, 7, -1), (_GROUP, 7, -1), (_NAMED_GROUP, 5, READERS), (_MASK, 7, -1), (_OTHERS, 0, -1)]
    value = struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_default", value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system knows no access lists")


def readable_by_readers(path):
    """Whether the access list of ``path`` has a line for the readers."""
    value = os.getxattr(path, "system.posix_acl_access")
    return any(entry[0] == _NAMED_GROUP and entry[2] == READERS for entry in struct.iter_unpack("<HHi", value[4:]))


def test_a_group_and_an_access_list_given_to_library_and_backup_later_hold_for_the_next_book(house):
    assert house.convert(house.drop("Emma", tracks(2))).exit == 0
    for place in (house.library, house.backup):
        shared(place)
    made = house.convert(house.drop("Ulysses", tracks(2, album="Ulysses", artist="James Joyce", first_seed=5))).book
    for folder in (os.path.dirname(os.path.dirname(made["output"])), os.path.dirname(made["output"]), made["backup"]):
        for path in [folder, *(entry.path for entry in os.scandir(folder))]:
            status = os.stat(path)
            assert status.st_gid == GROUP, path
            assert not status.st_mode & stat.S_IRWXO, path
            assert readable_by_readers(path), path
    assert house.litter() == []


@contextmanager
def another_volume(place, below):
    """Mount a folder at ``below``: even on the same file system nothing can be moved across."""
    libc = ctypes.CDLL(None, use_errno=True)
    place.mkdir()
    below.mkdir()
    assert libc.mount(os.fsencode(place), os.fsencode(below), None, _BIND, None) == 0
    try:
        yield
    finally:
        assert libc.umount2(os.fsencode(below), _DETACH) == 0


def test_a_volume_of_its_own_inside_the_library_is_told_and_nothing_is_half_published(house):
    folder = house.drop("Emma", tracks(2))
    with another_volume(house.root / "elsewhere", house.library / "Jane Austen"):
        answer = house.convert(folder)
        assert (answer.exit, answer.error["code"]) == (1, "file.other_volume")
        assert "mount" in answer.error["remedy"]
        assert house.books() == []
        assert house.litter(work=True) == ["Jane Austen/"]
    again = house.convert(folder)
    assert again.exit == 0
    assert again.book["output"] == str(house.library / "Jane Austen" / "Emma" / "Emma.m4b")
    assert house.litter() == []
