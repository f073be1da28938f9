"""Are files read and written so that nothing is lost?"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat

import pytest

from aiom4b.adapters import files
from aiom4b.errors import Exit, NeedsAttention, Transient
from crashes import every_death, killed_in


def put(path, data=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def failing(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def synced(monkeypatch):
    """Return the list of paths that were synced, and moves, in their order."""
    events = []
    fsync, renameat2 = os.fsync, files._renameat2

    def heard_fsync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def heard_rename(old, new):
        events.append("move")
        renameat2(old, new)

    monkeypatch.setattr(os, "fsync", heard_fsync)
    monkeypatch.setattr(files, "_renameat2", heard_rename)
    return events


# --- names and verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Käse 🧀 日本", "Käse 🧀 日本"),
        (os.fsdecode(b"\xff.mp3"), "\\xff.mp3"),
        ("a\nb\x1b[31m\x85", "a\\nb\\x1b[31m\\x85"),
        ("gpj.\u202e3pm", "gpj.\\u202e3pm"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_name_can_be_shown_without_harm(name, shown):
    assert files.displayable(name) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("number", "kind", "code", "exit"),
    [
        (errno.ENOSPC, Transient, "space.full", Exit.TRY_LATER),
        (errno.EDQUOT, Transient, "space.full", Exit.TRY_LATER),
        (errno.EIO, Transient, "file.io", Exit.TRY_LATER),
        (errno.ESTALE, Transient, "file.io", Exit.TRY_LATER),
        (errno.ETIMEDOUT, Transient, "file.io", Exit.TRY_LATER),
        (errno.EACCES, NeedsAttention, "file.not_permitted", Exit.NOT_PERMITTED),
        (errno.EPERM, NeedsAttention, "file.not_permitted", Exit.NOT_PERMITTED),
        (errno.EROFS, NeedsAttention, "file.not_permitted", Exit.NOT_PERMITTED),
        (errno.ENOENT, NeedsAttention, "file.missing", Exit.NOT_FOUND),
        (errno.ENOTDIR, NeedsAttention, "file.missing", Exit.NOT_FOUND),
        (errno.ENAMETOOLONG, NeedsAttention, "file.name_too_long", Exit.FAILED),
        (errno.EEXIST, NeedsAttention, "file.exists", Exit.FAILED),
        (errno.EXDEV, NeedsAttention, "file.other_volume", Exit.FAILED),
        (errno.ELOOP, NeedsAttention, "file.error", Exit.FAILED),
    ],
)
def test_what_the_system_refuses_becomes_a_verdict_with_a_remedy(number, kind, code, exit):
    path = os.fsdecode(b"/books/\xff")
    with pytest.raises(kind) as caught, files.translated(path, "reading"):
        failing(number)()
    assert caught.value.code == code
    assert caught.value.exit is exit
    assert caught.value.path == path
    assert caught.value.reason == f"Failed while reading /books/\\xff: {os.strerror(number)}."
    assert caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_regular_file_is_opened_for_reading(tmp_path):
    descriptor = files.open_regular(put(tmp_path / "a"))
    assert os.read(descriptor, 100) == b"content"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def make_link(path):
    put(path.parent / "target")
    path.symlink_to("target")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


KINDS = {"link": make_link, "fifo": os.mkfifo, "socket": make_socket, "folder": os.mkdir}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_not_even_opened(tmp_path, monkeypatch, kind):
    path = tmp_path / "x.mp3"
    KINDS[kind](path)
    monkeypatch.setattr(os, "open", lambda *args: pytest.fail("opened"))
    with pytest.raises(NeedsAttention) as caught:
        files.open_regular(str(path))
    assert caught.value.code == "file.not_regular"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_swapped_for_something_else_after_the_look_is_not_read(tmp_path, monkeypatch, kind):
    path = tmp_path / "x.mp3"
    regular = os.lstat(put(tmp_path / "regular"))
    KINDS[kind](path)
    monkeypatch.setattr(os, "lstat", lambda _: regular)
    with pytest.raises(NeedsAttention) as caught:
        files.open_regular(str(path))
    assert caught.value.code == "file.not_regular"


def test_a_missing_file_is_told_as_missing(tmp_path):
    with pytest.raises(NeedsAttention) as caught:
        files.open_regular(str(tmp_path / "none"))
    assert caught.value.code == "file.missing"


def test_the_hash_of_a_file_covers_all_its_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 10)
    data = bytes(range(105))
    heard = []
    assert files.hash_file(put(tmp_path / "a", data), on_bytes=heard.append) == hashlib.sha256(data).hexdigest()
    assert heard == [10] * 10 + [5]
    assert files.hash_file(put(tmp_path / "b", b"")) == hashlib.sha256().hexdigest()


# --- the durable write ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["plain", "ü" * 127, "x" * 255, "new\nline 'quoted' \"twice\"", "🧀.json", os.fsdecode(b"\xff\xfe")],
)
def test_a_durable_write_leaves_the_whole_file_and_nothing_else(tmp_path, name):
    files.write_durably(str(tmp_path / name), b"new")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"new"


def test_an_existing_file_is_never_overwritten_unasked(tmp_path):
    path = put(tmp_path / "a", b"old")
    with pytest.raises(NeedsAttention) as caught:
        files.write_durably(path, b"new")
    assert caught.value.code == "file.exists"
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    files.write_durably(path, b"new", replace=True)
    assert (tmp_path / "a").read_bytes() == b"new"


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_durably(str(tmp_path / "open"), b"")
        files.write_durably(str(tmp_path / "secret"), b"", mode=0o600)
        files.make_directories(str(tmp_path / "folder"))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("open", "secret", "folder")}
    assert modes == {"open": 0o640, "secret": 0o600, "folder": 0o750}


def test_a_write_that_the_system_takes_in_pieces_is_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    files.write_durably(str(tmp_path / "a"), b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_content_is_synced_before_the_name_and_the_name_after_it(tmp_path, synced):
    files.write_durably(str(tmp_path / "a"), b"new")
    assert len(synced) == 3
    assert synced[0].endswith(".tmp")
    assert synced[1:] == ["move", str(tmp_path)]


@pytest.mark.parametrize("replace", [False, True])
def test_a_replaced_file_is_synced_with_its_folder(tmp_path, synced, replace):
    files.write_durably(str(tmp_path / "a"), b"new", replace=replace)
    assert synced[-1] == str(tmp_path)


def test_a_failed_sync_is_final_and_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Transient) as caught:
        files.write_durably(str(tmp_path / "a"), b"new")
    assert caught.value.code == "file.io"
    assert len(calls) == 1
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = put(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with pytest.raises(Transient) as caught:
        files.write_durably(path, b"new", replace=True)
    assert caught.value.code == "space.full"
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("old", [None, b"old"])
def test_killed_at_any_call_a_durable_write_leaves_old_or_new_and_can_be_repeated(tmp_path, old):
    def path(number):
        return tmp_path / str(number) / "final"

    def run(number):
        files.write_durably(str(path(number)), b"brand new", replace=old is not None)

    def check(number):
        final = path(number)
        assert (final.read_bytes() if final.exists() else None) in {old, b"brand new"}
        files.write_durably(str(final), b"brand new", replace=True)
        assert final.read_bytes() == b"brand new"

    for number in range(1, 30):
        path(number).parent.mkdir()
        if old is not None:
            put(path(number), old)
    assert every_death(run, check) > 5


# --- what killed processes left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("doing", ["write", "probe"])
def test_what_a_killed_process_was_writing_stayed_for_ever(tmp_path, doing):
    left = killed_in(tmp_path, doing)
    assert left.startswith(files.HIDDEN)
    files.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.fixture
def swept_at_every_call(tmp_path, monkeypatch):
    """Let another process sweep just before each call that a write consists of."""

    def hurried(call):
        def late(*args, **kwargs):
            files.sweep(str(tmp_path))
            return call(*args, **kwargs)

        return late

    for where, name in (
        (os, "write"),
        (os, "fsync"),
        (os, "replace"),
        (os, "link"),
        (os, "unlink"),
        (files, "_renameat2"),
    ):
        monkeypatch.setattr(where, name, hurried(getattr(where, name)))
    lock, locking = fcntl.flock, []

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_EX and not locking:
            locking.append(descriptor)
            files.sweep(str(tmp_path))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("replace", [False, True])
def test_what_a_living_process_writes_is_not_swept_away(tmp_path, swept_at_every_call, replace):
    files.write_durably(str(tmp_path / "a"), b"new", replace=replace)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_is_writable_though_another_process_sweeps_it(tmp_path, swept_at_every_call):
    files.check_writable(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_where_there_are_no_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    left = files.temporary_beside(str(tmp_path / "a"))
    os.close(files.create(left))
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    files.write_durably(str(tmp_path / "a"), b"new")
    files.sweep(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(["a", os.path.basename(left)])


OURS = f"{files.HIDDEN}-0123456789abcdef.tmp"


def test_only_files_under_our_own_names_are_swept(tmp_path):
    hexed = "0123456789abcdef"
    for name in (f".aiom4b-{hexed}.tmp.mp3", f".aiom4b-{hexed}", ".aiom4b-1.tmp", f"x.aiom4b-{hexed}.tmp", "mine.tmp"):
        put(tmp_path / name)
    before = os.listdir(tmp_path)
    put(tmp_path / OURS)
    files.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_not_swept(tmp_path, kind):
    KINDS[kind](tmp_path / OURS)
    files.sweep(str(tmp_path))
    assert os.path.lexists(tmp_path / OURS)


def test_what_belongs_to_another_user_is_not_swept(tmp_path, monkeypatch):
    put(tmp_path / OURS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
        files.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == [OURS]


def test_folders_below_are_swept_only_when_asked_and_no_link_is_followed(tmp_path):
    deep = put(tmp_path / "a" / "deep" / "er" / OURS)
    elsewhere = put(tmp_path / "elsewhere" / OURS)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    files.sweep(str(tmp_path / "a"))
    assert os.path.exists(deep)
    files.sweep(str(tmp_path / "a"), below=True)
    assert not os.path.exists(deep)
    assert os.path.exists(elsewhere)
    files.sweep(str(tmp_path / "not there"), below=True)


# --- publishing -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["renameat2", "link", "rename"])
def way(request, monkeypatch):
    """Go through the file systems that know every call, no renameat2, and no hard links either."""
    if request.param != "renameat2":
        monkeypatch.setattr(files, "_renameat2", failing(errno.EINVAL))
    if request.param == "rename":
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    return request.param


def test_a_file_is_published_on_every_file_system(tmp_path, way):
    files.publish(put(tmp_path / "t", b"new"), str(tmp_path / "final"))
    assert os.listdir(tmp_path) == ["final"]
    assert (tmp_path / "final").read_bytes() == b"new"


def test_a_folder_is_published_on_every_file_system(tmp_path, way):
    put(tmp_path / "t" / "inside", b"new")
    files.publish(str(tmp_path / "t"), str(tmp_path / "final"))
    assert os.listdir(tmp_path) == ["final"]
    assert (tmp_path / "final" / "inside").read_bytes() == b"new"


@pytest.mark.parametrize("taken_by", ["file", "folder", "empty folder", "dangling link"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_taken_name_stays_with_its_owner_on_every_file_system(tmp_path, way, folder, taken_by):
    new = tmp_path / "t"
    put(new / "inside" if folder else new, b"new")
    final = tmp_path / "final"
    match taken_by:
        case "file":
            put(final, b"theirs")
        case "folder":
            put(final / "inside", b"theirs")
        case "empty folder":
            final.mkdir()
        case _:
            final.symlink_to("nowhere")
    before = os.lstat(final)
    with pytest.raises(FileExistsError):
        files.publish(str(new), str(final))
    assert new.exists()
    assert os.lstat(final).st_ino == before.st_ino


def test_a_move_whose_answer_was_lost_counts_as_done(tmp_path, monkeypatch):
    def lost(old, new):
        os.rename(old, new)
        raise OSError(errno.EIO, "the server did not answer")

    monkeypatch.setattr(files, "_renameat2", lost)
    files.publish(put(tmp_path / "t", b"new"), str(tmp_path / "final"))
    assert os.listdir(tmp_path) == ["final"]


@pytest.mark.parametrize("knows_renameat2", [True, False])
def test_a_publication_stopped_between_link_and_unlink_is_finished(tmp_path, monkeypatch, knows_renameat2):
    if not knows_renameat2:
        monkeypatch.setattr(files, "_renameat2", failing(errno.EINVAL))
    put(tmp_path / "t", b"new")
    os.link(tmp_path / "t", tmp_path / "final")
    files.publish(str(tmp_path / "t"), str(tmp_path / "final"))
    assert os.listdir(tmp_path) == ["final"]


def test_a_move_to_another_file_system_is_refused_and_never_becomes_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_renameat2", failing(errno.EXDEV))
    with pytest.raises(NeedsAttention) as caught:
        files.publish(put(tmp_path / "t"), str(tmp_path / "final"))
    assert caught.value.code == "file.other_volume"
    assert os.listdir(tmp_path) == ["t"]


def test_both_folders_of_a_move_are_synced(tmp_path, synced):
    put(tmp_path / "from" / "t")
    (tmp_path / "to").mkdir()
    files.publish(str(tmp_path / "from" / "t"), str(tmp_path / "to" / "final"))
    assert synced[0] == "move"
    assert set(synced[1:]) == {str(tmp_path / "from"), str(tmp_path / "to")}


# --- folders ----------------------------------------------------------------------------------------------------------


def test_every_new_folder_is_synced_into_its_parent(tmp_path, synced):
    files.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    files.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert len(synced) == 3


def test_a_file_in_place_of_a_folder_is_told(tmp_path):
    path = put(tmp_path / "a")
    with pytest.raises(NeedsAttention) as caught:
        files.make_directories(path)
    assert caught.value.code == "file.exists"


def test_a_tree_is_synced_to_its_last_leaf_and_no_link_is_followed(tmp_path, synced):
    tree = tmp_path / "tree"
    put(tree / "a")
    put(tree / "deep" / "er" / "b")
    (tree / "link").symlink_to(put(tmp_path / "elsewhere"))
    os.mkfifo(tree / "pipe")
    files.fsync_tree(str(tree))
    inside = {os.path.relpath(path, tree) for path in synced}
    assert inside == {".", "a", "deep", "deep/er", "deep/er/b"}
    assert synced[-1] == str(tree)


def test_a_file_system_that_cannot_sync_folders_is_lived_with(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    files.fsync_directory(str(tmp_path))
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.fsync_directory(str(tmp_path))


def test_a_folder_is_found_writable_without_a_trace(tmp_path):
    files.check_writable(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(NeedsAttention) as caught:
        files.check_writable(str(tmp_path / "none"))
    assert caught.value.code == "directory.missing"


def test_a_folder_that_takes_no_files_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", failing(errno.EROFS))
    with pytest.raises(NeedsAttention) as caught:
        files.check_writable(str(tmp_path))
    assert caught.value.code == "directory.not_writable"
    assert caught.value.path == str(tmp_path)
    assert os.strerror(errno.EROFS) in caught.value.reason


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_has_one_holder_at_a_time_and_leaves_no_file(tmp_path):
    path = str(tmp_path / "lock")
    busy = Transient("plan.busy", "It is busy.", remedy="Wait.")
    with files.locked(path, busy):
        with pytest.raises(Transient) as caught, files.locked(path, busy):
            pytest.fail("held twice")
        assert caught.value is busy
    with files.locked(path, busy):
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_a_lock_whose_name_was_removed_by_its_last_holder_is_not_held_by_two(tmp_path, monkeypatch):
    path = str(tmp_path / "lock")
    busy = Transient("plan.busy", "It is busy.", remedy="Wait.")
    real_open, opened = os.open, []

    def late(name, *rest, **named):
        descriptor = real_open(name, *rest, **named)
        if name == path and not opened:
            opened.append(descriptor)
            os.unlink(path)  # the last holder goes just between our open and our lock
        return descriptor

    monkeypatch.setattr(os, "open", late)
    with files.locked(path, busy), pytest.raises(Transient), files.locked(path, busy):
        pytest.fail("held twice")


def test_a_lock_is_let_go_when_its_work_fails(tmp_path):
    path = str(tmp_path / "lock")
    busy = Transient("plan.busy", "It is busy.", remedy="Wait.")
    with pytest.raises(ZeroDivisionError), files.locked(path, busy):
        raise ZeroDivisionError
    with files.locked(path, busy):
        pass
