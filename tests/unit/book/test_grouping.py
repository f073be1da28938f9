"""One drop may hold one book or many: discs stay together, books stay apart, and no file is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.grouping import books
from aiom4b.models import Codec, Lock
from factories import audio_facts, source_file, source_files


def grouped(files):
    return [[files[index].path for index in group] for group in books(files)]


def test_a_flat_folder_is_one_book():
    assert grouped(source_files("10.mp3", "2.mp3", album=["A", "B"])) == [["2.mp3", "10.mp3"]]


def test_disc_folders_are_one_book_in_the_order_of_their_numbers():
    for names in (["CD10", "CD2"], ["Disc 10", "disc_02"], ["Teil 10", "Teil 3"], ["10", "02"], ["Part X", "Part IV"]):
        assert grouped(source_files(*(f"{name}/1.mp3" for name in names))) == [
            [f"{names[1]}/1.mp3", f"{names[0]}/1.mp3"]
        ]


def test_discs_stay_together_though_each_was_looked_up_for_itself():
    assert len(grouped(source_files("CD1/1.mp3", "CD2/1.mp3", album=["Emma 1", "Austen: Emma (Disc Two)"]))) == 1


def test_parts_and_numbers_with_albums_of_their_own_are_several_books():
    assert len(grouped(source_files("1/1.mp3", "2/1.mp3", album=["Dune", "Emma"]))) == 2
    assert len(grouped(source_files("Part 1/1.mp3", "Part 2/1.mp3", album=["Dune", "Emma"]))) == 2
    assert len(grouped(source_files("Part 1/1.mp3", "Part 2/1.mp3", album=["Dune, Part 1", "Dune, Part 2"]))) == 1


def test_named_folders_of_one_album_are_one_book():
    files = source_files("Winter/1.mp3", "Summer/1.mp3", album=["Emma (Disc 2)", "Emma CD 1"])
    assert grouped(files) == [["Summer/1.mp3", "Winter/1.mp3"]]


def test_folders_of_different_books_are_several_books():
    assert len(grouped(source_files("Dune/1.mp3", "Dune/2.mp3", "Emma/1.mp3"))) == 2
    assert len(grouped(source_files("Dune/1.mp3", "Emma/1.mp3", album=["Dune", "Emma"]))) == 2
    assert len(grouped(source_files("Dune/1.mp3", "Emma/1.mp3", album="Unknown Album"))) == 2


def test_books_with_discs_inside_a_folder_of_books():
    files = source_files("Dune/CD1/1.mp3", "Dune/CD2/1.mp3", "Emma/CD1/1.mp3", "Emma/CD2/1.mp3")
    assert [len(group) for group in grouped(files)] == [2, 2]


def test_discs_of_two_books_side_by_side():
    files = source_files("Dune CD1/1.mp3", "Dune CD2/1.mp3", "Emma CD1/1.mp3", "Emma CD2/1.mp3")
    assert grouped(files) == [["Dune CD1/1.mp3", "Dune CD2/1.mp3"], ["Emma CD1/1.mp3", "Emma CD2/1.mp3"]]


def test_what_lies_beside_discs_without_an_album_belongs_to_them():
    assert len(grouped(source_files("Bonus.mp3", "CD1/1.mp3", "CD2/1.mp3"))) == 1
    assert len(grouped(source_files("Epilogue/1.mp3", "CD1/1.mp3", "CD2/1.mp3"))) == 1
    assert len(grouped(source_files("Bonus.mp3", "CD1/1.mp3", "CD2/1.mp3", album=["Emma", "Dune", "Dune"]))) == 2
    assert len(grouped(source_files("Emma/1.mp3", "CD1/1.mp3", "CD2/1.mp3", album=["Emma", "Dune", "Dune"]))) == 2


def test_a_named_folder_of_the_discs_album_changes_nothing_for_what_has_none():
    files = source_files("Bonus.mp3", "CD1/1.mp3", "CD2/1.mp3", "An Epilogue/1.mp3", album=["", "Emma", "Emma", "Emma"])
    assert len(grouped(files)) == 1


def test_loose_files_join_the_folder_of_their_album():
    files = source_files("Intro.mp3", "Rest/1.mp3", "Emma/1.mp3", album=["Dune", "Dune", "Emma"])
    assert grouped(files) == [["Emma/1.mp3"], ["Intro.mp3", "Rest/1.mp3"]]


def test_loose_files_beside_other_books_are_a_book():
    assert len(grouped(source_files("1.mp3", "2.mp3", "Emma/1.mp3", "Dune/1.mp3"))) == 3


def test_finished_books_in_one_folder_are_several_books():
    assert len(grouped(source_files("a.m4b", "b.m4b", "c.m4b", album=["Dune", "Emma", "Dune"]))) == 2
    assert len(grouped(source_files("a.m4b", "b.m4b", album=["Dune", ""]))) == 1
    assert len(grouped(source_files("a.m4b", "b.m4b", album=["Dune (Part 1)", "Dune (Part 2)"]))) == 1


def test_a_finished_book_never_doubles_the_mp3s_it_was_made_of():
    assert grouped(source_files("1.mp3", "2.mp3", "Emma.m4b", album="Emma")) == [["1.mp3", "2.mp3"], ["Emma.m4b"]]
    assert len(grouped(source_files("CD1/1.mp3", "CD2/1.mp3", "Emma.m4b", album="Emma"))) == 2
    fake = [source_file("1.mp3"), source_file("Emma.m4b", codec=Codec.MP3)]
    assert len(grouped(fake)) == 1


def test_folders_within_folders_are_looked_through():
    assert grouped(source_files("Austen/Emma/1.mp3", "Austen/Emma/2.mp3")) == [
        ["Austen/Emma/1.mp3", "Austen/Emma/2.mp3"]
    ]


components = st.sampled_from(["CD1", "CD 2", "Part 1", "Emma", "Emma CD1", "Emma CD2", "03", "Dune", "x", "CD1.m4b"])
paths = st.lists(components, min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(paths, st.sampled_from(["", "Emma", "Dune", "Emma (Disc 2)"]), min_size=1, max_size=8))
def test_every_file_is_in_exactly_one_book(albums):
    files = [
        source_file(f"{path}.m4b" if "CD1" in path else f"{path}.mp3", album=album) for path, album in albums.items()
    ]
    found = books(files)
    assert sorted(index for group in found for index in group) == list(range(len(files)))
    assert all(found)


# --- what Audible locked -----------------------------------------------------------------------------------------------


def locked(path, album, asin="", lock=Lock.AAXC):
    return source_file(path, audio=audio_facts(300, Codec.AAC, lock=lock), album=album, asin=asin)


@pytest.mark.parametrize(
    "albums",
    [
        ("Emma", "Persuasion"),
        ("Emma", "Emma"),
        ("Henry IV, Part 1", "Henry IV, Part 2"),
        ("Long Book, Part 1", "Other Book, Part 2"),
        ("Long Book, Part 1 of 2", "Long Book, Part 2 of 2"),
        ("", ""),
        ("Part 1", "Part 2"),
        ("- Part 1", "- Part 2"),
        ("Emma (1)", "Emma (2)"),
    ],
)
def test_locked_titles_are_books_of_their_own(albums):
    files = [locked(f"{asin}.aaxc", album, asin) for album, asin in zip(albums, ("B1", "B2"), strict=True)]
    assert len(grouped(files)) == 2
    assert len(grouped([*files, locked("c.aaxc", "Emma Again", "B3")])) == 3


@pytest.mark.parametrize("folders", [("", ""), ("a/", "b/"), ("CD1/", "x/")])
def test_one_title_that_is_there_twice_does_not_play_twice(folders):
    """As AAX and as AAXC it became one book of double length."""
    files = [
        locked(f"{folders[0]}Emma.aax", "Emma", "B00AIOM4B1", Lock.AAX),
        locked(f"{folders[1]}Emma.aaxc", "Emma", "B00AIOM4B1", Lock.AAXC),
    ]
    assert len(grouped(files)) == 2


def test_a_locked_file_never_joins_the_plain_ones_beside_it():
    files = [
        *source_files("1.mp3", "2.mp3", album="Emma"),
        locked("Emma.aaxc", "Emma", "B00AIOM4B1"),
        source_file("Emma.m4b", album="Emma"),
    ]
    assert sorted(map(sorted, grouped(files))) == [["1.mp3", "2.mp3"], ["Emma.aaxc"], ["Emma.m4b"]]


def test_a_shelf_of_locked_titles_in_any_folders_is_as_many_books():
    files = [locked(f"{folder}{asin}.aaxc", asin, asin) for folder in ("", "a/", "a/b/") for asin in ("B1", "B2")]
    assert len(grouped(files)) == 6


@given(
    st.lists(st.sampled_from(["Emma", "Dune, Part 1", "Dune, Part 2", "", "- Part 1", "Part 2"]), max_size=6),
    st.lists(st.sampled_from(["", "CD1/", "CD2/", "x/"]), min_size=6, max_size=6),
)
def test_every_locked_file_is_in_exactly_one_book(albums, folders):
    files = [
        locked(f"{folder}{at}.aaxc", album) for at, (album, folder) in enumerate(zip(albums, folders, strict=False))
    ]
    found = books(files)
    assert sorted(index for group in found for index in group) == [*range(len(files))]
