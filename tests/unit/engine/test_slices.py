"""What do the pieces of an open file tell when its disk or its writer fails?"""

from __future__ import annotations

import errno
import os

import pytest

from aiom4b.engine import slices
from aiom4b.engine.slices import Slices
from aiom4b.errors import Transient


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "1.mp3"
    place.write_bytes(bytes(range(100)))
    return place


@pytest.fixture
def data(path):
    with open(path, "rb") as file:
        yield Slices(file.fileno(), 100)


def test_pieces_are_read_as_of_bytes(data, monkeypatch):
    monkeypatch.setattr(slices, "_BLOCK", 7)
    whole = bytes(range(100))
    assert (data[0], data[99], data[10:35], data[90:], data[5:5], len(data)) == (
        whole[0],
        whole[99],
        whole[10:35],
        whole[90:],
        b"",
        100,
    )


def test_a_file_that_became_shorter_is_told(data, path):
    path.write_bytes(b"short")
    with pytest.raises(Transient) as caught:
        data[0:100]
    assert caught.value.code == "source.changed"


def test_a_disk_that_failed_while_a_segment_was_read_was_called_a_fault_of_the_program(data, path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(Transient) as caught:
        data[0:10]
    assert (caught.value.code, caught.value.path) == ("file.io", str(path))
