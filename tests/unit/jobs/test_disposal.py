"""A source goes only when its books are there, and byte for byte only what a backup was just seen to hold."""

from __future__ import annotations

import os

import anyio
import anyio.from_thread
import pytest

from aiom4b.adapters import files
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs import disposal, trash
from aiom4b.jobs.disposal import Disposed
from crashes import every_death
from household import snapshot
from sets import BOOK, Shelf, rot, write


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, monkeypatch)
    write(made.library, {"Book.m4b": b"the book"})
    return made


def dispose(shelf, entry, after="remove", *, sets=(), books=None, archive=True, beside=()):
    async def run():
        return await disposal.dispose(
            entry,
            after,
            books=[os.path.join(shelf.library, "Book.m4b")] if books is None else books,
            sets=[made.root for made in sets],
            archive=shelf.archive if archive is True else archive,
            beside=beside,
        )

    return anyio.run(run)


def code(kind, *args, **kwargs):
    with pytest.raises(kind) as caught:
        dispose(*args, **kwargs)
    return caught.value.code


def told(done):
    return {os.path.basename(one.path): one.reason for one in done.kept}


# --- keep, and what holds for all -------------------------------------------------------------------------------------


def test_a_source_is_kept_unless_its_owner_wants_otherwise(shelf):
    entry = shelf.drop()
    before = snapshot(shelf.source)
    assert dispose(shelf, entry, "keep", sets=[shelf.keep()]) == Disposed()
    assert snapshot(shelf.source) == before


@pytest.mark.parametrize("after", ["archive", "remove"])
@pytest.mark.parametrize("books", [[], ["/nowhere/Book.m4b"]])
def test_without_its_book_in_the_library_a_source_stays(shelf, after, books):
    entry = shelf.drop()
    assert code(NeedsAttention, shelf, entry, after, sets=[shelf.keep()], books=books) == "book.missing"
    assert os.path.isdir(entry)


@pytest.mark.parametrize("after", ["archive", "remove"])
def test_what_is_gone_already_is_done(shelf, after):
    assert dispose(shelf, os.path.join(shelf.source, "Book"), after, sets=[shelf.keep()]) == Disposed()


# --- archive ----------------------------------------------------------------------------------------------------------


def test_a_source_is_archived_as_it_is(shelf):
    entry = shelf.drop()
    before = {os.path.relpath(os.fsdecode(path), entry): seen for path, seen in snapshot(entry).items()}
    place = os.path.join(shelf.archive, "Book")
    assert dispose(shelf, entry, "archive") == Disposed(archived=place)
    assert {os.path.relpath(os.fsdecode(path), place): seen for path, seen in snapshot(place).items()} == before
    assert not os.path.exists(entry)


def test_nothing_in_the_archive_is_ever_replaced(shelf):
    write(shelf.archive, {"Book/1.mp3": b"another", "a.b.mp3": b"another"})
    os.mkdir(os.path.join(shelf.archive, "Dr. Book"))
    file = os.path.join(write(shelf.source, {"a.b.mp3": b"mine"}), "a.b.mp3")
    assert dispose(shelf, shelf.drop("Book"), "archive").archived == os.path.join(shelf.archive, "Book (2)")
    assert dispose(shelf, shelf.drop("Book"), "archive").archived == os.path.join(shelf.archive, "Book (3)")
    assert dispose(shelf, shelf.drop("Dr. Book"), "archive").archived == os.path.join(shelf.archive, "Dr. Book (2)")
    assert dispose(shelf, file, "archive").archived == os.path.join(shelf.archive, "a.b (2).mp3")
    assert os.listdir(os.path.join(shelf.archive, "Book")) == ["1.mp3"]


def test_what_belongs_to_a_single_file_goes_with_it_and_before_it(shelf, monkeypatch):
    write(shelf.source, {"Book.mp3": b"audio", "Book.jpg": b"picture", "Other.jpg": b"another's"})
    entry, picture = (os.path.join(shelf.source, name) for name in ("Book.mp3", "Book.jpg"))
    order = []
    move = disposal.archives.move
    monkeypatch.setattr(disposal.archives, "move", lambda path, to: order.append(path) or move(path, to))
    assert dispose(shelf, entry, "archive", beside=[picture]).archived == os.path.join(shelf.archive, "Book.mp3")
    assert order == [picture, entry]
    assert os.listdir(shelf.source) == ["Other.jpg"]


def test_a_source_is_not_copied_to_an_archive_on_another_file_system(shelf, monkeypatch):
    entry = shelf.drop()
    real = files._renameat2

    def other_volume(old, new):
        if old == entry:
            raise OSError(18, os.strerror(18), old, None, new)
        real(old, new)

    monkeypatch.setattr(files, "_renameat2", other_volume)
    assert code(NeedsAttention, shelf, entry, "archive") == "archive.other_volume"
    assert os.path.isdir(entry)
    assert os.listdir(shelf.archive) == []


def test_without_an_archive_nothing_is_moved(shelf):
    entry = shelf.drop()
    assert code(NeedsAttention, shelf, entry, "archive", archive=None) == "archive.unset"
    assert code(NeedsAttention, shelf, entry, "archive", archive=shelf.archive + "/none") == "directory.missing"
    assert os.path.isdir(entry)


# --- remove -----------------------------------------------------------------------------------------------------------


def test_a_source_that_is_wholly_backed_up_is_removed_with_its_folders(shelf):
    entry = shelf.drop()
    done = dispose(shelf, entry, sets=[shelf.keep()])
    assert os.listdir(shelf.source) == []
    assert {os.path.relpath(path, entry) for path in done.removed} == {*BOOK, "CD1", "."}
    assert done.kept == ()


def test_several_books_in_one_entry_are_covered_by_the_backups_of_all(shelf):
    one, two = {"1.mp3": b"one"}, {"1.mp3": b"two"}
    entry = shelf.drop("Shelf", {"One/1.mp3": b"one", "Two/1.mp3": b"two"})
    first, second = shelf.keep("Shelf/One", one), shelf.keep("Shelf/Two", two)
    assert told(dispose(shelf, entry, sets=[first])) == {
        "1.mp3": f"{entry}/Two/1.mp3 is in no verified backup of its books."
    }
    assert os.listdir(entry) == ["Two"]
    dispose(shelf, entry, sets=[first, second])
    assert os.listdir(shelf.source) == []


@pytest.mark.parametrize("content", [b"sEcond", b"second and more"], ids=["same size", "longer"])
def test_a_file_that_is_not_byte_for_byte_in_the_backup_stays_and_is_told(shelf, content):
    made = shelf.keep()
    entry = shelf.drop(contents=BOOK | {"CD1/02.mp3": content, "notes.txt": b"mine"})
    done = dispose(shelf, entry, sets=[made])
    assert sorted(told(done)) == ["02.mp3", "notes.txt"]
    assert sorted(os.listdir(entry)) == ["CD1", "notes.txt"]
    assert os.listdir(os.path.join(entry, "CD1")) == ["02.mp3"]


def test_without_a_backup_nothing_is_removed(shelf):
    entry = shelf.drop(contents=BOOK | {"Thumbs.db": b"the system's"})
    before = snapshot(entry)
    assert list(told(dispose(shelf, entry)).values()) == ["There is no verified backup of it."]
    assert snapshot(entry) == before


def test_a_backup_that_rotted_covers_nothing(shelf):
    entry = shelf.drop()
    made = shelf.keep()
    rot(made, "cover.jpg")
    before = snapshot(entry)
    (reason,) = told(dispose(shelf, entry, sets=[made])).values()
    assert "is damaged. Changed: cover.jpg" in reason
    assert snapshot(entry) == before
    os.unlink(os.path.join(made.root, "backup.json"))
    assert len(dispose(shelf, entry, sets=[made]).kept) == 1
    assert snapshot(entry) == before


def test_a_rotten_backup_beside_a_good_one_is_told(shelf):
    entry = shelf.drop()
    good, bad = shelf.keep(), shelf.keep()
    rot(bad)
    assert list(told(dispose(shelf, entry, sets=[good, bad]))) == [os.path.basename(bad.root)]
    assert not os.path.exists(entry)


def test_a_source_that_is_the_backup_itself_is_not_removed(shelf):
    made = shelf.keep()
    assert "is itself the copy" in told(dispose(shelf, made.root, sets=[made]))["01.mp3"]
    assert os.path.exists(os.path.join(made.root, "CD1/01.mp3"))


def test_links_are_neither_followed_nor_removed(shelf):
    elsewhere = write(os.path.join(shelf.library, "elsewhere"))
    entry = shelf.drop()
    os.symlink(elsewhere, os.path.join(entry, "folder"))
    os.symlink(os.path.join(elsewhere, "cover.jpg"), os.path.join(entry, "file.jpg"))
    before = snapshot(elsewhere)
    done = dispose(shelf, entry, sets=[shelf.keep()])
    assert {name: reason.split(" is ")[1] for name, reason in told(done).items()} == dict.fromkeys(
        ["file.jpg", "folder"], "a link or a device, and those are never touched."
    )
    assert sorted(os.listdir(entry)) == ["file.jpg", "folder"]
    assert snapshot(elsewhere) == before
    os.symlink(elsewhere, os.path.join(shelf.source, "Linked"))
    assert len(dispose(shelf, os.path.join(shelf.source, "Linked"), sets=[shelf.keep()]).kept) == 1
    assert snapshot(elsewhere) == before


def test_a_folder_swapped_for_a_link_meanwhile_leads_nowhere(shelf, monkeypatch):
    elsewhere = write(os.path.join(shelf.library, "elsewhere"), {"01.mp3": b"first", "02.mp3": b"second"})
    entry = shelf.drop()
    made = shelf.keep()
    listdir = os.listdir

    def swapped(place):
        names = listdir(place)
        if isinstance(place, int) and "01.mp3" in names:
            os.rename(os.path.join(entry, "CD1"), os.path.join(entry, "aside"))
            os.symlink(elsewhere, os.path.join(entry, "CD1"))
        return names

    monkeypatch.setattr(os, "listdir", swapped)
    with pytest.raises(NeedsAttention):
        dispose(shelf, entry, sets=[made])  # there is a link where it has just seen a folder
    assert sorted(listdir(elsewhere)) == sorted(listdir(os.path.join(entry, "aside"))) == ["01.mp3", "02.mp3"]


def test_a_folder_swapped_for_a_link_before_it_is_opened_is_not_entered(shelf, monkeypatch):
    elsewhere = write(os.path.join(shelf.library, "elsewhere"), {"01.mp3": b"first", "02.mp3": b"second"})
    entry = shelf.drop()
    made = shelf.keep()
    real = os.open

    def swapped(path, *args, **kwargs):
        if path == "CD1" and os.path.samestat(os.fstat(kwargs["dir_fd"]), os.stat(entry)):
            os.rename(os.path.join(entry, "CD1"), os.path.join(entry, "aside"))
            os.symlink(elsewhere, os.path.join(entry, "CD1"))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(NeedsAttention):
        dispose(shelf, entry, sets=[made])
    assert len(os.listdir(elsewhere)) == 2


def test_a_file_that_changes_while_it_is_compared_stays(shelf, monkeypatch):
    entry = shelf.drop()
    made = shelf.keep()
    hash_open = files.hash_open

    def written_to(descriptor, *args, **kwargs):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        content = hash_open(descriptor, *args, **kwargs)
        if path.startswith(entry) and path.endswith("01.mp3"):
            os.replace(write(shelf.library, {"x": b"first"}) + "/x", path)
        return content

    monkeypatch.setattr(files, "hash_open", written_to)
    assert told(dispose(shelf, entry, sets=[made])) == {"01.mp3": f"{entry}/CD1/01.mp3 changed this moment."}
    assert os.listdir(os.path.join(entry, "CD1")) == ["01.mp3"]


def test_a_file_that_cannot_be_read_stays(shelf, monkeypatch):
    entry = shelf.drop()
    made = shelf.keep()
    hash_open = files.hash_open

    def failing(descriptor, *args, **kwargs):
        if os.readlink(f"/proc/self/fd/{descriptor}") == os.path.join(entry, "cover.jpg"):
            raise OSError(5, os.strerror(5))
        return hash_open(descriptor, *args, **kwargs)

    monkeypatch.setattr(files, "hash_open", failing)
    assert "could not be compared" in told(dispose(shelf, entry, sets=[made]))["cover.jpg"]
    assert os.listdir(entry) == ["cover.jpg"]


def test_thumbnails_and_the_like_go_and_hidden_files_of_somebody_stay(shelf):
    litter = {"@eaDir/01.mp3/SYNO@.jpg": b"x", "CD1/.DS_Store": b"x", "Thumbs.db": b"x", "CD1/._01.mp3": b"x"}
    mine = {".notes/idea.txt": b"mine", "#recycle/thrown away.mp3": b"mine"}
    entry = shelf.drop(contents=BOOK | litter | mine)
    done = dispose(shelf, entry, sets=[shelf.keep()])
    assert sorted(os.listdir(entry)) == ["#recycle", ".notes"]
    assert sorted(told(done)) == ["idea.txt", "thrown away.mp3"]


def test_a_single_file_is_removed_with_what_belongs_to_it(shelf):
    contents = {"Book.mp3": b"audio", "Book.jpg": b"picture"}
    write(shelf.source, contents | {"Other.mp3": b"another"})
    made = shelf.keep("x", contents)
    dispose(shelf, shelf.source + "/Book.mp3", sets=[made], beside=[shelf.source + "/Book.jpg"])
    assert os.listdir(shelf.source) == ["Other.mp3"]


def test_nothing_is_removed_while_backups_are_cleaned_up(shelf):
    entry = shelf.drop()
    made = shelf.keep()
    with trash.alone(shelf.backups):
        assert code(Transient, shelf, entry, sets=[made]) == "cleanup.busy"
    assert os.path.isdir(os.path.join(entry, "CD1"))


def test_a_cancelled_removal_ends_while_it_reads(shelf, monkeypatch):
    entry = shelf.drop()
    made = shelf.keep()

    async def run():
        with anyio.CancelScope() as scope:
            hash_file = disposal.backups.hash_file

            def hashed(*args, **kwargs):
                anyio.from_thread.run_sync(scope.cancel)
                return hash_file(*args, **kwargs)

            monkeypatch.setattr(disposal.backups, "hash_file", hashed)
            await disposal.dispose(entry, "remove", books=[shelf.library + "/Book.m4b"], sets=[made.root], archive=None)
        return scope.cancelled_caught

    before = snapshot(shelf.source)
    assert anyio.run(run)
    assert snapshot(shelf.source) == before


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "calls"), [("archive", 6), ("remove", 10)])
def test_killed_at_any_call_it_is_finished_by_repeating_it(shelf, after, calls):
    made = shelf.keep()
    for number in range(1, 60):
        shelf.drop(f"Book {number:02}")

    def run(number):
        dispose(shelf, os.path.join(shelf.source, f"Book {number:02}"), after, sets=[made])

    def check(number):
        run(number)
        name = f"Book {number:02}"
        assert not os.path.exists(os.path.join(shelf.source, name))
        if after == "archive":
            assert sorted(os.listdir(os.path.join(shelf.archive, name))) == ["CD1", "cover.jpg"]
        assert not any(f"{name} (" in other for other in os.listdir(shelf.archive))

    assert every_death(run, check) > calls
