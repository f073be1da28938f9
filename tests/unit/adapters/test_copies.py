"""Is a copy byte for byte what was read, and does nothing else pass for one?"""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from aiom4b.adapters import copies, files
from aiom4b.adapters.copies import Copy, copy_all, copy_verified
from aiom4b.adapters.files import identity
from aiom4b.errors import NeedsAttention, Transient
from crashes import every_death

DATA = bytes(range(256)) * 10
OLD = 946_684_800_123_456_789


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(copies, "BLOCK", 1000)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a.mp3"
    path.parent.mkdir()
    (tmp_path / "out").mkdir()
    path.write_bytes(DATA)
    os.utime(path, ns=(OLD, OLD))
    return path


def refused(kind, *args, **kwargs):
    with pytest.raises(kind) as caught:
        copy_verified(*args, **kwargs)
    return caught.value.code


def test_a_copy_has_the_content_the_time_and_the_hash_of_its_source(tmp_path, source):
    heard = []
    copied = copy_verified(
        str(source), str(tmp_path / "out" / "b"), expected=identity(os.stat(source)), on_bytes=heard.append
    )
    assert (tmp_path / "out" / "b").read_bytes() == DATA
    assert os.stat(tmp_path / "out" / "b").st_mtime_ns == OLD == copied.mtime_ns
    assert (copied.size, copied.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert sum(heard) == 2 * len(DATA)
    assert os.listdir(tmp_path / "out") == ["b"]


def test_a_copy_is_safe_from_the_sweep_until_it_has_its_name(tmp_path, source, monkeypatch):
    publish = copies.publish

    def late(temporary, final):
        files.sweep(str(tmp_path / "out"))
        publish(temporary, final)

    monkeypatch.setattr(copies, "publish", late)
    copy_verified(str(source), str(tmp_path / "out" / "b"))
    assert os.listdir(tmp_path / "out") == ["b"]


@pytest.mark.parametrize("name", ["x" * 255, "new\nline", "'\"🧀", os.fsdecode(b"\xff")])
def test_any_name_is_copied(tmp_path, source, name):
    odd = source.rename(source.parent / name)
    copy_verified(str(odd), str(tmp_path / "out" / name))
    assert os.listdir(tmp_path / "out") == [name]


def test_a_copy_never_takes_a_name_from_another_file(tmp_path, source):
    (tmp_path / "out" / "b").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        copy_verified(str(source), str(tmp_path / "out" / "b"))
    assert os.listdir(tmp_path / "out") == ["b"]
    assert (tmp_path / "out" / "b").read_bytes() == b"theirs"


def edit(path):
    """Change one byte in place and set the time back."""
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"!", 5)
    os.close(descriptor)
    os.utime(path, ns=(OLD, OLD))


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


def truncate(path):
    os.truncate(path, 10)


def replace(path):
    other = path.with_name("other")
    other.write_bytes(DATA)
    os.utime(other, ns=(OLD, OLD))
    other.rename(path)


def swap_for_link(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


CHANGES = [edit, append, truncate, replace, os.unlink, swap_for_link]


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_while_it_is_copied_gives_no_copy(tmp_path, source, change):
    changes = iter([change])

    def change_once(_):
        for one in changes:
            one(source)

    code = refused(
        Transient,
        str(source),
        str(tmp_path / "out" / "b"),
        expected=identity(os.stat(source)),
        on_bytes=change_once,
    )
    assert code == "source.changed"
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changed_since_it_was_examined_is_not_copied(tmp_path, source, change):
    expected = identity(os.stat(source))
    change(source)
    assert refused(Transient, str(source), str(tmp_path / "out" / "b"), expected=expected) == "source.changed"
    assert os.listdir(tmp_path / "out") == []


def test_a_content_that_is_not_the_known_one_is_not_copied(tmp_path, source):
    wrong = hashlib.sha256(b"other").hexdigest()
    assert refused(Transient, str(source), str(tmp_path / "out" / "b"), sha256=wrong) == "source.changed"
    assert os.listdir(tmp_path / "out") == []


def test_a_source_nobody_saw_before_is_told_as_missing(tmp_path):
    assert refused(NeedsAttention, str(tmp_path / "none"), str(tmp_path / "b")) == "file.missing"


def test_a_disk_that_returns_something_else_is_caught(tmp_path, source, monkeypatch):
    read = os.preadv

    def rotten(descriptor, buffers, offset):
        count = read(descriptor, buffers, offset)
        buffers[0][3] ^= 1
        return count

    monkeypatch.setattr(os, "preadv", rotten)
    assert refused(Transient, str(source), str(tmp_path / "out" / "b")) == "backup.readback"
    assert os.listdir(tmp_path / "out") == []


def test_the_copy_is_read_back_from_the_disk_after_it_was_synced(tmp_path, source, monkeypatch):
    events = []
    fsync, fadvise, preadv = os.fsync, os.posix_fadvise, os.preadv

    def note(name, call):
        def noted(*args):
            events.append(name)
            return call(*args)

        return noted

    monkeypatch.setattr(os, "fsync", note("sync", fsync))
    monkeypatch.setattr(os, "posix_fadvise", note("forget", fadvise))
    monkeypatch.setattr(os, "preadv", note("read", preadv))
    copy_all([Copy(source=str(source), destination=str(tmp_path / "out" / name)) for name in "ab"])
    assert events == ["sync", "sync", "forget", *["read"] * 4, "forget", *["read"] * 4]


def failing(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("call", "number", "code"),
    [
        ("readv", errno.EIO, "file.io"),
        ("write", errno.ENOSPC, "space.full"),
        ("fsync", errno.EDQUOT, "space.full"),
        ("preadv", errno.EIO, "file.io"),
    ],
)
def test_a_failing_disk_leaves_no_copy(tmp_path, source, monkeypatch, call, number, code):
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        assert refused(Transient, str(source), str(tmp_path / "out" / "b")) == code
    assert os.listdir(tmp_path / "out") == []


def test_no_descriptor_is_left_open_when_a_copy_fails(tmp_path, source, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Transient):
        copy_all([Copy(source=str(source), destination=str(tmp_path / "out" / name)) for name in "abc"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_killed_at_any_call_a_copy_is_whole_or_absent_and_can_be_repeated(tmp_path, source):
    def final(number):
        return tmp_path / "out" / str(number)

    def run(number):
        copy_verified(str(source), str(final(number)))

    def check(number):
        if final(number).exists():
            assert final(number).read_bytes() == DATA
        else:
            run(number)
            assert final(number).read_bytes() == DATA

    assert every_death(run, check) > 8
    assert files.hash_file(str(source)) == hashlib.sha256(DATA).hexdigest()
