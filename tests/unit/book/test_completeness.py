"""A book with a hole in its numbering is not converted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.completeness import check, is_litter, is_temporary, is_worthless
from aiom4b.models import Order
from factories import source_file, source_files


def code(files):
    found = check(files, None, "Book")
    return None if found is None else found.code


def reason(files):
    return check(files, None, "Book").reason


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
        ".DS_Store",
        "._01.mp3",
        "Thumbs.db",
        "desktop.ini",
        ".@__thumb",
        ".stfolder",
        ".Trash-1000",
        "Icon\r",
        "~$x.doc",
    ],
)
def test_what_a_nas_leaves_around_is_litter(name):
    assert is_litter(name)
    assert not is_temporary(name)


@pytest.mark.parametrize("name", ["@eaDir", "Thumbs.db", "desktop.ini", ".DS_Store", "._01.mp3", "Icon\r", "__MACOSX"])
def test_what_a_system_makes_again_by_itself_is_worth_nothing(name):
    assert is_worthless(name)
    assert is_litter(name)


@pytest.mark.parametrize(
    "name", ["#recycle", "lost+found", ".notes", ".git", "~$letter", "._1.mp3.part", "._1.mp3.AbC123"]
)
def test_litter_that_may_be_somebodys_is_worth_something(name):
    assert not is_worthless(name)


@pytest.mark.parametrize("name", ["01.mp3", "Emma", "...and Justice", "cover.jpg", "CD1", "@home.mp3", "#1.mp3"])
def test_a_book_is_neither_litter_nor_temporary(name):
    assert not is_litter(name)
    assert not is_temporary(name)


@pytest.mark.parametrize(
    "name",
    [
        "01.mp3.part",
        "x.PARTIAL",
        "a.tmp",
        "a.temp",
        "b.crdownload",
        "c.download",
        "d.filepart",
        "e.!qB",
        "f.aria2",
        ".syncthing.01.mp3.tmp",
        "~syncthing~01.mp3.tmp",
        ".01 Title.mp3.Xq3dF9",
        "_UNPACK_Emma",
        "_FAILED_Emma",
    ],
)
def test_a_file_being_written_is_temporary_and_so_never_overlooked_as_litter(name):
    assert is_temporary(name)
    assert not is_litter(name)


def test_a_skipped_track_is_named():
    files = source_files("a.mp3", "b.mp3", "c.mp3", track=[1, 2, 4])
    assert code(files) == "source.track_missing"
    assert reason(files) == "Track 3 is missing: there are 1, 2 and 4."


def test_a_skipped_track_of_a_disc_is_named_with_its_disc():
    files = source_files("a.mp3", "b.mp3", "c.mp3", "d.mp3", "e.mp3", disc=[1, 1, 1, 2, 2], track=[1, 2, 4, 1, 2])
    assert reason(files) == "Track 3 of disc 1 is missing: there are 1, 2 and 4."


def test_a_track_skipped_between_discs_that_count_through_is_noticed():
    files = source_files("a.mp3", "b.mp3", "c.mp3", "d.mp3", disc=[1, 1, 2, 2], track=[1, 2, 4, 5])
    assert "Track 3 is missing between two discs" in reason(files)


def test_a_disc_folder_stands_in_for_missing_disc_tags():
    files = source_files("CD1/a.mp3", "CD1/b.mp3", "CD2/a.mp3", "CD2/b.mp3", "CD2/c.mp3", track=[1, 2, 1, 2, 4])
    assert reason(files) == "Track 3 of disc 2 is missing: there are 1, 2 and 4."


@pytest.mark.parametrize(
    "tracks", [[0, 1, 2], [13, 14, 15], [1, 2, 3], [101, 102, 201], [None, 1, 3], [1, 1, 3], [1, 500, 900]]
)
def test_a_series_may_begin_anywhere_and_junk_is_no_series(tracks):
    assert code(source_files("x.mp3", "y.mp3", "z.mp3", track=tracks)) is None


def test_the_numbers_between_two_discs_are_not_missed():
    tracks = [*range(101, 161), *range(201, 261)]
    assert code(source_files(*(f"{track}.mp3" for track in tracks), track=tracks)) is None
    assert "Track 102 is missing" in reason(
        source_files(*(f"{track}.mp3" for track in tracks[:1] + tracks[2:]), track=tracks[:1] + tracks[2:])
    )


def test_a_total_that_is_not_reached_is_named():
    files = source_files("a.mp3", "b.mp3", track=[1, 2], track_total=12)
    assert code(files) == "source.tracks_fewer_than_total"
    assert reason(files) == "The book should have 12 tracks, but there are 2; tracks 3 to 12 are missing."


def test_a_total_counts_the_disc_or_the_book():
    discs = {"disc": [1, 1, 2, 2], "track": [1, 2, 1, 2]}
    paths = ["a.mp3", "b.mp3", "c.mp3", "d.mp3"]
    assert code(source_files(*paths, **discs, track_total=2)) is None
    assert code(source_files(*paths, **discs, track_total=4)) is None
    assert "Disc 2 should have 3" in reason(source_files(*paths, **discs, track_total=[2, 2, 3, 3]))


def test_a_total_is_held_against_each_disc_folder():
    files = source_files("CD1/1.mp3", "CD1/2.mp3", "CD2/1.mp3", "CD2/2.mp3", "CD2/3.mp3", track_total=3)
    assert reason(files) == "CD1 should have 3 tracks, but there are 2."


@pytest.mark.parametrize("total", [1, 2, 10**9])
def test_a_total_that_cannot_be_is_no_total(total):
    assert code(source_files("a.mp3", "b.mp3", "c.mp3", track=[1, 2, 3], track_total=total)) is None


def test_a_single_file_of_twelve_is_not_the_book():
    assert code([source_file("x.mp3", track=3, track_total=12)]) == "source.tracks_fewer_than_total"
    assert code([source_file("x.mp3", track=3)]) is None
    assert code([source_file("Emma, part 3 of 12.mp3")]) == "source.tracks_fewer_than_total"
    assert code([source_file("Discworld book 3 of 41.mp3")]) is None


def test_a_missing_disc_is_named():
    files = source_files("a.mp3", "b.mp3", disc=[1, 3], track=[1, 1])
    assert code(files) == "source.disc_missing"
    assert reason(files) == "Disc 2 is missing: by the disc tags there are 1 and 3."
    assert code(source_files("a.mp3", "b.mp3", disc=[1, 2], track=[1, 1], disc_total=3)) == "source.disc_missing"
    assert code(source_files("a.mp3", "b.mp3", disc=[2, 3], track=[1, 1])) is None


def test_a_missing_disc_folder_is_named():
    assert code(source_files("CD1/1.mp3", "CD3/1.mp3")) == "source.disc_missing"
    assert code(source_files("Disc 1 of 3/1.mp3", "Disc 2 of 3/1.mp3")) == "source.disc_missing"
    assert code(source_files("CD1/1.mp3", "CD2/1.mp3")) is None
    assert code(source_files("CD1/1.mp3", f"CD{10**30}/1.mp3")) is None


@pytest.mark.parametrize(
    "paths",
    [
        ["01.mp3", "02.mp3", "04.mp3"],
        ["Emma - 01 - A.mp3", "Emma - 02 - B.mp3", "Emma - 04 - C.mp3"],
        ["Chapter One.mp3", "Chapter Two.mp3", "Chapter Four.mp3"],
        ["1-01.mp3", "1-02.mp3", "1-04.mp3", "2-01.mp3", "2-02.mp3"],
        ["CD1/1.mp3", "CD1/2.mp3", "CD2/1.mp3", "CD2/3.mp3"],
        ["Prologue.mp3", "01.mp3", "03.mp3"],
    ],
)
def test_a_number_skipped_by_the_names_is_noticed(paths):
    assert code(source_files(*paths)) == "source.track_missing"


@pytest.mark.parametrize(
    "paths",
    [
        ["00.mp3", "01.mp3", "02.mp3"],
        ["07.mp3", "08.mp3", "09.mp3"],
        ["1984.mp3", "1986.mp3"],
        ["Catch 22.mp3", "Station 11.mp3"],
        ["12 Monkeys.mp3", "100 Years.mp3"],
        ["01.mp3", "02-03 Both.mp3", "04.mp3"],
        ["101.mp3", "102.mp3", "201.mp3", "202.mp3"],
        ["Ape.mp3", "Zebra.mp3"],
        ["01.mp3"],
    ],
)
def test_names_that_are_no_series_prove_nothing(paths):
    assert code(source_files(*paths)) is None


def test_tags_that_reach_their_total_overrule_the_names():
    files = source_files("01.mp3", "02.mp3", "04.mp3", track=[1, 2, 3], track_total=3)
    assert code(files) is None


def test_numbers_that_do_not_rise_with_the_book_count_something_else():
    files = source_files("1.mp3", "2.mp3", "4.mp3")
    assert check(files, Order(files=(2, 0, 1), evidence="track tags alone"), "Book") is None


def test_the_same_audio_twice_is_noticed_but_not_a_jingle():
    long = [source_file("01.mp3", sha256="a" * 64), source_file("02.mp3", sha256="a" * 64)]
    assert code(long) == "source.duplicate_file"
    short = [source_file("01.mp3", sha256="a" * 64, seconds=5), source_file("02.mp3", sha256="a" * 64, seconds=5)]
    assert code(short) is None


def test_the_same_track_in_two_formats_is_noticed():
    assert code(source_files("01 Intro.mp3", "01 intro.m4a")) == "source.duplicate_file"


def test_the_copy_of_a_sync_conflict_is_noticed():
    assert code(source_files("01.mp3", "01.sync-conflict-20240101-120000-ABCDEFG.mp3")) == "source.sync_conflict"


@given(st.integers(0, 30), st.integers(3, 20), st.data())
def test_any_one_track_taken_out_of_a_series_is_missed(first, count, data):
    tracks = [*range(first, first + count)]
    assert code(source_files(*(f"{track:03}.mp3" for track in tracks), track=tracks)) is None
    gone = data.draw(st.integers(1, count - 2))
    left = tracks[:gone] + tracks[gone + 1 :]
    by_tags = source_files(*(f"{chr(97 + place)}.mp3" for place in range(len(left))), track=left)
    by_names = source_files(*(f"{track:03}.mp3" for track in left))
    assert f"{tracks[gone]}" in reason(by_tags)
    assert f"{tracks[gone]}" in reason(by_names)


@given(st.lists(st.text(alphabet="ab019 -_/\udce4IVof", min_size=1, max_size=10), min_size=1, max_size=6, unique=True))
def test_every_reason_is_a_sentence_that_can_be_printed(paths):
    found = check(source_files(*paths), None, "Book")
    if found is not None:
        assert found.reason.encode().endswith(b".")
        assert found.remedy.endswith(".")
        assert found.code.startswith("source.")
