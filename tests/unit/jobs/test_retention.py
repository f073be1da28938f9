"""A backup goes only if every byte of it was just read somewhere else, and never the last copy of a source that is gone."""

from __future__ import annotations

import os
from datetime import timedelta

import anyio
import anyio.from_thread
import pytest

from aiom4b import pipeline
from aiom4b.adapters import backups
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs import retention, trash
from crashes import every_death
from sets import BOOK, NOW, Shelf, rot, write

DAY = timedelta(days=1)
OLD = NOW - 40 * DAY


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Return a shelf with a newest set that no run may touch."""
    made = Shelf(tmp_path, monkeypatch)
    made.keep("Newest", {"1.mp3": b"newest"})
    return made


def clean(shelf, *, days=30, now=NOW, archive=False):
    places = {"source": shelf.source, "archive": shelf.archive} if archive else {}

    async def run():
        return await retention.clean(shelf.backups, shelf.library, days=days, now=now, **places)

    return anyio.run(run)


def reasons(cleaned):
    return [one.reason for one in cleaned.kept]


def test_an_old_backup_goes_while_its_book_is_published_and_its_source_is_there(shelf):
    shelf.drop()
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    cleaned = clean(shelf)
    assert [one.root for one in cleaned.removed] == [made.root]
    assert cleaned.removed[0].size == sum(map(len, BOOK.values()))
    assert not os.path.exists(made.root)
    assert shelf.hidden() == []


def test_a_backup_is_kept_for_its_days_and_for_ever_with_none(shelf):
    shelf.drop()
    made = shelf.keep(created=NOW - 30 * DAY)
    shelf.publish(made)
    assert clean(shelf, days=30) == clean(shelf, days=0, now=NOW + 9999 * DAY) == retention.Cleaned()
    assert clean(shelf, days=29).removed


def test_the_last_copy_of_a_source_that_is_gone_stays(shelf):
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    cleaned = clean(shelf)
    assert [one.root for one in cleaned.kept] == [made.root]
    assert backups.verify_set(made.root) == ()


@pytest.mark.parametrize("changed", [{"CD1/02.mp3": b"sEcond"}, {"cover.jpg": b"another"}], ids=["audio", "cover"])
def test_a_source_that_changed_in_a_single_byte_is_no_copy(shelf, changed):
    shelf.drop(contents=BOOK | changed)
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    assert reasons(clean(shelf)) == ["nothing else holds all that is in it"]


def test_a_source_that_is_a_link_to_the_backup_itself_is_no_copy(shelf):
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    os.symlink(made.root, os.path.join(shelf.source, "Book"))
    assert not clean(shelf).removed


def test_a_source_that_cannot_be_read_now_is_no_copy(shelf):
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    folder = shelf.drop()
    os.unlink(os.path.join(folder, "cover.jpg"))
    os.mkfifo(os.path.join(folder, "cover.jpg"))
    assert not clean(shelf).removed


def test_an_archived_source_is_a_copy(shelf):
    made = shelf.keep("Book/Part one", created=OLD)
    shelf.publish(made)
    write(os.path.join(shelf.archive, "Book", "Part one"), {"CD1/01.mp3": b"somebody else's"})
    assert not clean(shelf, archive=True).removed
    write(os.path.join(shelf.archive, "Book (2)", "Part one"))
    assert not clean(shelf).removed
    assert clean(shelf, archive=True).removed


def test_the_older_of_two_sets_with_the_same_content_goes_and_the_other_stays(shelf):
    older = shelf.keep(created=OLD)
    newer = shelf.keep("Renamed", {f"x/{name}": data for name, data in BOOK.items()}, created=OLD + DAY)
    cleaned = clean(shelf)
    assert [one.root for one in cleaned.removed] == [older.root]
    assert [one.root for one in clean(shelf).kept] == [newer.root]


def test_a_set_that_rotted_stands_in_for_nothing(shelf):
    older = shelf.keep(created=OLD)
    newer = shelf.keep("Renamed", created=OLD + DAY)
    rot(newer)
    assert [one.root for one in clean(shelf).removed] == [newer.root]
    assert backups.verify_set(older.root) == ()


def test_a_set_with_a_picture_that_no_other_has_stays(shelf):
    shelf.keep(created=OLD)
    shelf.keep("Renamed", BOOK | {"cover.jpg": b"another"}, created=OLD + DAY)
    assert not clean(shelf).removed


def test_a_set_whose_book_is_not_in_the_library_stays_though_its_source_is_there(shelf):
    shelf.drop()
    shelf.keep(created=OLD)
    assert reasons(clean(shelf)) == ["its book is not in the library"]


def test_a_set_that_an_unfinished_book_reads_from_stays(shelf):
    shelf.drop()
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    os.makedirs(pipeline.work_dir(shelf.library, made.fingerprint))
    assert reasons(clean(shelf)) == ["an unfinished book needs it"]


def test_a_set_that_somebody_put_a_file_into_stays_and_thumbnails_go_with_it(shelf):
    shelf.drop()
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    note = write(made.root, {"CD1/note.txt": b"mine", "@eaDir/01.mp3/thumb.jpg": b"the system's"})
    assert reasons(clean(shelf)) == ["CD1/note.txt in it is no part of the backup"]
    os.unlink(os.path.join(note, "CD1/note.txt"))
    assert clean(shelf).removed


def test_the_newest_set_stays_however_old_it_is(shelf):
    shelf.drop("Newest", {"1.mp3": b"newest"})
    (made,) = backups.list_sets(shelf.backups)
    shelf.publish(made)
    assert clean(shelf, now=NOW + 1000 * DAY) == retention.Cleaned()


def test_nothing_goes_while_the_clock_stands_before_the_newest_set(shelf):
    shelf.drop()
    shelf.publish(shelf.keep(created=OLD))
    assert clean(shelf, now=NOW - timedelta(seconds=1)) == retention.Cleaned()
    assert clean(shelf, now=NOW).removed


@pytest.mark.parametrize(("count", "gone"), [(1, 1), (6, 1), (7, 2), (11, 3)])
def test_a_quarter_of_the_sets_goes_in_one_run_at_least_one_and_the_oldest_first(shelf, count, gone):
    for number in range(count):
        contents = {"1.mp3": b"book %d" % number}
        shelf.drop(f"Book {number:02}", contents)
        shelf.publish(shelf.keep(f"Book {number:02}", contents, created=OLD + number * timedelta(hours=1)))
    names = [os.path.basename(one.root)[:7] for one in clean(shelf).removed]
    assert names == [f"Book {number:02}" for number in range(gone)]


def test_sets_that_must_stay_do_not_use_up_the_quarter(shelf):
    shelf.keep("Gone", {"1.mp3": b"gone"}, created=OLD - DAY)
    shelf.drop()
    shelf.publish(made := shelf.keep(created=OLD))
    assert [one.root for one in clean(shelf).removed] == [made.root]


def test_each_removal_is_a_line_in_the_log_and_each_refusal_is_one_until_it_changes(shelf):
    odd = os.fsdecode(b"Two\nlines \xff")
    made = shelf.keep(odd, created=OLD)
    for hour in range(3):
        clean(shelf, now=NOW + timedelta(hours=hour))
    (line,) = shelf.story()
    name = f"Two\\nlines \\xff_{OLD:%Y%m%d_%H%M%S}"
    assert line == f"2026-11-21T13:05:09Z kept {name}, 18 bytes: its book is not in the library"
    shelf.publish(made)
    clean(shelf)
    shelf.published.clear()
    clean(shelf)
    shelf.publish(made)
    shelf.drop(odd)
    clean(shelf)
    assert shelf.story()[1].endswith("18 bytes: nothing else holds all that is in it")
    assert shelf.story()[2] == line
    assert shelf.story()[3].startswith(
        f"2026-11-21T13:05:09Z removed {name}, 18 bytes: older than 30 days; its book is"
    )
    assert len(shelf.story()) == 4


def test_a_clock_that_ran_back_is_told_once(shelf):
    for _ in range(2):
        clean(shelf, now=NOW - DAY)
    (line,) = shelf.story()
    assert "kept everything: the clock stands before" in line


def test_a_log_on_a_full_disk_does_not_keep_anything_from_going(shelf, monkeypatch):
    shelf.drop()
    shelf.publish(shelf.keep(created=OLD))
    write_all, left = trash.files.write_all, [OSError(28, os.strerror(28))]

    def full(descriptor, data):
        if left:
            raise left.pop()
        write_all(descriptor, data)

    monkeypatch.setattr(trash.files, "write_all", full)
    assert clean(shelf).removed
    (line,) = shelf.story()
    assert " removed Book" in line


def test_what_is_not_mounted_is_not_cleaned(shelf):
    os.rmdir(os.path.join(shelf.library, ".aiom4b"))
    with pytest.raises(Transient) as caught:
        clean(shelf)
    assert caught.value.code == "volume.missing"


def test_two_do_not_clean_up_at_once(shelf):
    with trash.alone(shelf.backups), pytest.raises(Transient) as caught:
        clean(shelf)
    assert caught.value.code == "cleanup.busy"


def test_a_set_that_was_only_moved_aside_when_the_run_was_killed_is_judged_anew(shelf):
    made = shelf.keep(created=OLD)
    stand_in = shelf.keep("Renamed", created=OLD + DAY)
    os.rename(made.root, os.path.join(shelf.backups, ".aiom4b", f".trash-{os.path.basename(made.root)}"))
    rot(stand_in)
    assert [one.root for one in clean(shelf).removed] == [stand_in.root]
    assert backups.verify_set(made.root) == ()
    assert "returned Book" in shelf.story()[0]


def test_a_set_that_had_begun_to_go_is_deleted_by_the_next_run(shelf):
    made = shelf.keep(created=OLD)
    left = os.path.join(shelf.backups, ".aiom4b", f".trash-{os.path.basename(made.root)}")
    os.rename(made.root, left)
    os.unlink(os.path.join(left, "backup.json"))
    clean(shelf, days=0)
    assert shelf.hidden() == []


def test_nothing_is_deleted_before_its_line_and_the_loss_of_its_manifest_survive_a_power_cut(shelf, monkeypatch):
    shelf.drop()
    shelf.publish(shelf.keep(created=OLD))
    synced = []
    fsync, rmtree = os.fsync, trash.shutil.rmtree

    def heard(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def deleted(folder):
        assert synced[-2:] == [os.path.join(shelf.backups, "cleanup.log"), folder]
        assert not os.path.exists(os.path.join(folder, "backup.json"))
        synced.append("deleted")
        rmtree(folder)

    monkeypatch.setattr(os, "fsync", heard)
    monkeypatch.setattr(trash.shutil, "rmtree", deleted)
    assert clean(shelf).removed
    assert "deleted" in synced


def test_what_lies_in_the_way_in_the_trash_is_not_deleted(shelf):
    shelf.drop()
    made = shelf.keep(created=OLD)
    shelf.publish(made)
    trashed = os.path.join(shelf.backups, ".aiom4b", f".trash-{os.path.basename(made.root)}")
    write(trashed, {"backup.json": b"somebody's"})
    with pytest.raises(NeedsAttention) as caught:
        clean(shelf)
    assert caught.value.code == "cleanup.trash_taken"
    assert os.listdir(trashed) == ["backup.json"]
    assert backups.verify_set(made.root) == ()


def test_a_cancelled_run_ends_while_it_reads_and_nothing_is_removed(shelf, monkeypatch):
    shelf.drop()
    shelf.publish(shelf.keep(created=OLD))

    async def run():
        with anyio.CancelScope() as scope:
            hash_file = retention.files.hash_file

            def hashed(*args, **kwargs):
                anyio.from_thread.run_sync(scope.cancel)
                return hash_file(*args, **kwargs)

            monkeypatch.setattr(retention.files, "hash_file", hashed)
            await retention.clean(shelf.backups, shelf.library, days=30, now=NOW)
        return scope.cancelled_caught

    assert anyio.run(run)
    assert len(shelf.sets()) == 2


def test_killed_at_any_call_a_set_is_there_or_goes_at_the_next_run(tmp_path, monkeypatch):
    shelves = {}

    def run(number):
        clean(shelves[number])

    def prepare(number):
        (tmp_path / f"s{number}").mkdir()
        shelf = shelves[number] = Shelf(tmp_path / f"s{number}", monkeypatch)
        shelf.keep("Newest", {"1.mp3": b"newest"})
        shelf.drop()
        shelf.publish(shelf.keep(created=OLD))

    def check(number):
        hidden = os.path.join(shelves[number].backups, ".aiom4b")
        moved = [os.path.join(hidden, name) for name in os.listdir(hidden) if name.startswith(".trash-")]
        whole = [made for made in moved if os.path.exists(os.path.join(made, "backup.json"))]
        listed = [os.path.join(shelves[number].backups, name) for name in shelves[number].sets()]
        assert all(backups.verify_set(made) == () for made in (*whole, *listed))
        clean(shelves[number])
        assert [name[:6] for name in shelves[number].sets()] == ["Newest"]
        assert shelves[number].hidden() == []
        assert any(" removed Book" in line for line in shelves[number].story())

    for number in range(1, 60):
        prepare(number)
    assert every_death(run, check) > 8
