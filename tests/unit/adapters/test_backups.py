"""Is a backup set whole or absent, told apart from a damaged one, and restored without harm?"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest

from aiom4b.adapters import backups, files
from aiom4b.adapters.backup_format import BackupSet, StoredFile, stored_path
from aiom4b.errors import NeedsAttention, Transient
from crashes import every_death

NOW = datetime(2026, 11, 21, 13, 5, 9, tzinfo=UTC)
OLD = 946_684_800_123_456_789
CONTENTS = {
    "CD1/01.mp3": b"first",
    "CD1/deep/er/02.mp3": b"second",
    "SHA256SUMS": b"the source's own sums",
    os.fsdecode(b"\xff'\n.jpg"): b"cover",
}


def make(directory, name="Book", contents=CONTENTS, created=NOW):
    """Make a set as the step does, without the copying."""
    staged = backups.staging(str(directory), "/source", name)
    with backups.claimed(staged):
        backups.clear(staged)
        stored = []
        for path, data in contents.items():
            place = os.path.join(staged, stored_path(path))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(data)
            sha256 = hashlib.sha256(data).hexdigest()
            stored.append(StoredFile(path=path, size=len(data), sha256=sha256, mtime_ns=OLD))
        plan = BackupSet(
            root=staged, source="/source", fingerprint="f", created=created, tool="test", files=tuple(stored)
        )
        return backups.complete(staged, plan, str(directory), name)


def code(kind, call, *args):
    with pytest.raises(kind) as caught:
        call(*args)
    return caught.value.code


def test_a_finished_set_is_listed_and_verifies(tmp_path):
    made = make(tmp_path)
    assert made.root == str(tmp_path / "Book_20261121_130509")
    assert backups.list_sets(str(tmp_path)) == (made,)
    assert backups.verify_set(made.root) == ()


def test_sets_are_listed_oldest_first_whatever_their_names(tmp_path):
    newer = make(tmp_path, "A", created=NOW)
    older = make(tmp_path, "B", created=NOW - timedelta(days=1))
    assert backups.list_sets(str(tmp_path)) == (older, newer)


def test_two_sets_of_one_second_stand_beside_each_other(tmp_path):
    assert make(tmp_path).root != make(tmp_path).root
    assert len(backups.list_sets(str(tmp_path))) == 2


def test_a_name_taken_unseen_is_given_a_number(tmp_path, monkeypatch):
    first = make(tmp_path)
    monkeypatch.setattr(os, "listdir", lambda _: [])
    assert make(tmp_path).root == first.root + "_2"


def test_a_hidden_folder_is_no_set_whatever_it_holds(tmp_path):
    made = make(tmp_path)
    os.rename(made.root, tmp_path / ".trash")
    assert backups.list_sets(str(tmp_path)) == ()


def test_the_names_in_every_folder_of_a_set_are_synced_before_it_appears(tmp_path, monkeypatch):
    synced = []
    fsync, renameat2 = os.fsync, files._renameat2

    def heard_fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def heard_rename(old, new):
        if os.path.isdir(old):
            inside = {os.path.relpath(path, old) for path in synced}
            assert inside >= {".", "CD1", "CD1/deep", "CD1/deep/er"}
            synced.append("move")
        renameat2(old, new)

    monkeypatch.setattr(os, "fsync", heard_fsync)
    monkeypatch.setattr(files, "_renameat2", heard_rename)
    make(tmp_path)
    assert str(tmp_path) in synced[synced.index("move") :]


@pytest.mark.parametrize("lacking", ["backup.json", "SHA256SUMS"])
def test_a_set_without_its_manifest_or_sums_does_not_exist(tmp_path, lacking):
    made = make(tmp_path)
    os.unlink(os.path.join(made.root, lacking))
    assert backups.list_sets(str(tmp_path)) == ()
    assert code(NeedsAttention, backups.read_set, made.root) == "backup.none"


def test_what_is_no_set_is_not_in_the_way_of_the_others(tmp_path):
    made = make(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "link").symlink_to(made.root)
    (tmp_path / "loop").symlink_to("loop")
    torn = make(tmp_path, "torn")
    os.truncate(os.path.join(torn.root, "backup.json"), 20)
    odd = make(tmp_path, "odd")
    os.unlink(os.path.join(odd.root, "backup.json"))
    os.mkfifo(os.path.join(odd.root, "backup.json"))
    assert backups.list_sets(str(tmp_path)) == (made,)
    assert code(NeedsAttention, backups.read_set, torn.root) == "backup.damaged"


def flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def swap_for_link(path):
    path.rename(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize(
    ("harm", "file", "finding"),
    [
        (flip, "CD1/01.mp3", "Changed: CD1/01.mp3"),
        (os.unlink, "CD1/01.mp3", "Missing: CD1/01.mp3"),
        (swap_for_link, "CD1/01.mp3", "Unreadable: "),
        (flip, "SHA256SUMS_", "Changed: SHA256SUMS_"),
        (flip, "SHA256SUMS", "Changed: SHA256SUMS does not agree"),
        (lambda path: path.with_name("more").write_bytes(b""), "CD1/01.mp3", "Surplus: CD1/more"),
    ],
)
def test_every_harm_to_a_set_is_found(tmp_path, harm, file, finding):
    made = make(tmp_path)
    harm(tmp_path / made.root / file)
    assert backups.verify_set(made.root)[0].startswith(finding)


def test_a_restored_folder_is_what_was_backed_up(tmp_path):
    made = make(tmp_path / "b")
    restored = backups.restore_set(made.root, str(tmp_path / "new" / "target"))
    assert {os.path.relpath(path, tmp_path / "new" / "target") for path in restored} == set(CONTENTS)
    for path, data in CONTENTS.items():
        file = tmp_path / "new" / "target" / path
        assert file.read_bytes() == data
        assert file.stat().st_mtime_ns == OLD
    assert sum(len(names) for _, _, names in os.walk(tmp_path / "new")) == len(CONTENTS)


def test_a_restore_never_overwrites_and_writes_nothing_when_a_file_is_in_the_way(tmp_path):
    made = make(tmp_path / "b")
    theirs = tmp_path / "target" / "CD1" / "deep" / "er" / "02.mp3"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"edited by its owner")
    assert code(NeedsAttention, backups.restore_set, made.root, str(tmp_path / "target")) == "restore.exists"
    assert theirs.read_bytes() == b"edited by its owner"
    assert sum(len(names) for _, _, names in os.walk(tmp_path / "target")) == 1


def test_a_file_that_came_into_the_way_meanwhile_stays(tmp_path, monkeypatch):
    made = make(tmp_path / "b", contents={"a": b"ours"})
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").write_bytes(b"theirs")
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    assert code(NeedsAttention, backups.restore_set, made.root, str(tmp_path / "target")) == "restore.exists"
    assert (tmp_path / "target" / "a").read_bytes() == b"theirs"


def test_a_damaged_set_is_not_restored(tmp_path):
    made = make(tmp_path / "b")
    flip(tmp_path / "b" / "Book_20261121_130509" / "CD1" / "01.mp3")
    assert code(NeedsAttention, backups.restore_set, made.root, str(tmp_path / "target")) == "backup.damaged"
    assert not (tmp_path / "target").exists()


def test_surplus_files_do_not_hinder_a_restore(tmp_path):
    made = make(tmp_path / "b")
    (tmp_path / "b" / "Book_20261121_130509" / "@eaDir").mkdir()
    (tmp_path / "b" / "Book_20261121_130509" / "@eaDir" / "index").write_bytes(b"of the NAS")
    assert len(backups.restore_set(made.root, str(tmp_path / "target"))) == len(CONTENTS)


def test_a_source_is_staged_by_one_process_at_a_time(tmp_path):
    staged = backups.staging(str(tmp_path), "/source", "Book")
    assert staged == backups.staging(str(tmp_path), "/source", "Book")
    assert staged != backups.staging(str(tmp_path), "/source", "Other")
    with backups.claimed(staged):
        assert code(Transient, make, tmp_path) == "backup.busy"
        make(tmp_path, "Other")
    make(tmp_path)


def test_killed_at_any_call_there_is_a_whole_set_or_none_and_the_next_run_makes_one(tmp_path):
    contents = {"CD1/a": b"first", "b": b"second"}

    def run(number):
        make(tmp_path / str(number), contents=contents)

    def check(number):
        directory = tmp_path / str(number)
        visible = [name for name in os.listdir(directory) if not name.startswith(".")]
        sets = backups.list_sets(str(directory))
        assert len(visible) == len(sets)
        if not sets:
            sets = (make(directory, contents=contents),)
        assert backups.verify_set(sets[0].root) == ()
        hidden = [name for _, _, names in os.walk(directory / ".aiom4b") for name in names]
        assert all(name.endswith(".lock") for name in hidden)

    for number in range(1, 60):
        (tmp_path / str(number)).mkdir()
    assert every_death(run, check) > 15


def test_killed_at_any_call_a_restore_leaves_whole_files_and_is_finished_by_repeating_it(tmp_path):
    made = make(tmp_path / "b", contents={"CD1/a": b"first", "b": b"second"})

    def run(number):
        backups.restore_set(made.root, str(tmp_path / str(number)))

    def check(number):
        for path, data in {"CD1/a": b"first", "b": b"second"}.items():
            file = tmp_path / str(number) / path
            assert not file.exists() or file.read_bytes() == data
        assert len(backups.restore_set(made.root, str(tmp_path / str(number)))) == 2

    assert every_death(run, check) > 15
