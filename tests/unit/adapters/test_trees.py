"""Does a look at a folder show all that is there, and touch nothing?"""

from __future__ import annotations

import errno
import os

import pytest

from aiom4b.adapters.trees import EntryKind, walk
from aiom4b.errors import NeedsAttention


def put(path, data=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_everything_is_seen_in_the_order_of_its_bytes_and_links_are_not_followed(tmp_path):
    put(tmp_path / "book" / "a" / "1.mp3", b"12345")
    put(tmp_path / "book" / "a.mp3")
    put(tmp_path / "outside" / "secret")
    os.mkfifo(tmp_path / "book" / "pipe")
    (tmp_path / "book" / "link").symlink_to("../outside")
    (tmp_path / "book" / "loop").symlink_to(".")
    put(tmp_path / "book" / os.fsdecode(b"\xff"))
    found = walk(str(tmp_path / "book"))
    assert [(entry.path, entry.kind) for entry in found] == [
        ("a", EntryKind.DIRECTORY),
        ("a.mp3", EntryKind.REGULAR),
        ("a/1.mp3", EntryKind.REGULAR),
        ("link", EntryKind.SYMLINK),
        ("loop", EntryKind.SYMLINK),
        ("pipe", EntryKind.OTHER),
        (os.fsdecode(b"\xff"), EntryKind.REGULAR),
    ]
    assert found[2].identity.size == 5
    assert found[2].identity.mtime_ns == os.stat(tmp_path / "book" / "a" / "1.mp3").st_mtime_ns


def test_nothing_but_folders_is_opened(tmp_path, monkeypatch):
    put(tmp_path / "a" / "b")
    os.mkfifo(tmp_path / "pipe")
    opened = os.open

    def only_folders(path, flags, **where):
        assert flags & os.O_DIRECTORY
        return opened(path, flags, **where)

    monkeypatch.setattr(os, "open", only_folders)
    assert len(walk(str(tmp_path))) == 3


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_a_folder_that_goes_or_turns_into_a_link_meanwhile_leads_nowhere(tmp_path, monkeypatch, number):
    put(tmp_path / "going" / "a")
    put(tmp_path / "staying" / "b")
    opened = os.open

    def vanishing(path, flags, **where):
        if path == "going":
            raise OSError(number, os.strerror(number))
        return opened(path, flags, **where)

    monkeypatch.setattr(os, "open", vanishing)
    assert [entry.path for entry in walk(str(tmp_path))] == ["going", "staying", "staying/b"]


def test_a_file_that_vanishes_before_the_look_is_left_out(tmp_path, monkeypatch):
    put(tmp_path / "a")
    put(tmp_path / "b")
    look = os.lstat

    def vanishing(path, **where):
        if path == "a":
            raise FileNotFoundError(errno.ENOENT, "gone", path)
        return look(path, **where)

    monkeypatch.setattr(os, "lstat", vanishing)
    assert [entry.path for entry in walk(str(tmp_path))] == ["b"]


def test_the_link_swapped_in_for_a_folder_is_not_followed(tmp_path, monkeypatch):
    put(tmp_path / "book" / "disc" / "a")
    put(tmp_path / "outside" / "secret")
    look = os.lstat

    def swap_after(path, **where):
        status = look(path, **where)
        if path == "disc":
            os.rename(tmp_path / "book" / "disc", tmp_path / "gone")
            (tmp_path / "book" / "disc").symlink_to("../outside")
        return status

    monkeypatch.setattr(os, "lstat", swap_after)
    assert [entry.path for entry in walk(str(tmp_path / "book"))] == ["disc"]


def test_too_many_names_and_too_deep_nests_are_refused(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path / "wide" / name)
    assert len(walk(str(tmp_path / "wide"), max_entries=3)) == 3
    with pytest.raises(NeedsAttention) as caught:
        walk(str(tmp_path / "wide"), max_entries=2)
    assert caught.value.code == "source.too_large"
    put(tmp_path / "deep" / "1" / "2" / "file")
    assert len(walk(str(tmp_path / "deep"), max_depth=3)) == 3
    with pytest.raises(NeedsAttention) as caught:
        walk(str(tmp_path / "deep"), max_depth=2)
    assert caught.value.code == "source.too_large"


def test_no_descriptor_is_left_open(tmp_path):
    put(tmp_path / "deep" / "1" / "2" / "file")
    before = len(os.listdir("/proc/self/fd"))
    walk(str(tmp_path))
    with pytest.raises(NeedsAttention):
        walk(str(tmp_path), max_depth=2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_missing_root_is_told(tmp_path):
    with pytest.raises(NeedsAttention) as caught:
        walk(str(tmp_path / "none"))
    assert caught.value.code == "file.missing"
