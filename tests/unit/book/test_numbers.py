"""Numbers in names are read as people mean them, and only where siblings vouch for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.numbers import Counts, disc, disc_folders, in_digits, stem, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CD2", ("cd", "2")),
        ("cd_02", ("cd", "02")),
        ("Ｐａｒｔ　３", ("part", "3")),
        ("1-01 [Intro]", ("1", "01", "intro")),
        ("...", ()),
    ],
)
def test_a_name_is_cut_into_words_and_numbers(name, expected):
    assert words(name) == expected


@pytest.mark.parametrize(
    ("name", "stem_words", "number", "total", "counts"),
    [
        ("CD1", (), 1, None, Counts.DISCS),
        ("Emma - Disc 2 of 3", ("emma",), 2, 3, Counts.DISCS),
        ("Teil 3", (), 3, None, Counts.PARTS),
        ("07", (), 7, None, Counts.BARE),
        ("3 of 12", (), 3, 12, Counts.BARE),
        ("CD1 - The Shire", (), 1, None, Counts.DISCS),
    ],
)
def test_a_folder_of_a_set_is_recognised(name, stem_words, number, total, counts):
    read = disc(words(name))
    assert (read.stem, read.number, read.total, read.counts) == (stem_words, number, total, counts)


@pytest.mark.parametrize("name", ["1984", "Emma", "Book 2", "01 - Emma", "", "CD"])
def test_other_folders_are_no_discs(name):
    assert disc(words(name)) is None


def test_numerals_count_where_all_siblings_do():
    assert disc_folders(["CD I/x.mp3", "CD IX/x.mp3", "y.mp3"])["CD IX"].number == 9
    assert disc_folders(["Side C/x.mp3", "Side A/x.mp3"]) == {}


@given(st.integers(1, 89))
def test_every_small_roman_numeral_is_read_back(value):
    tens = ["", "x", "xx", "xxx", "xl", "l", "lx", "lxx", "lxxx"][value // 10]
    name = f"part {tens}{['', 'i', 'ii', 'iii', 'iv', 'v', 'vi', 'vii', 'viii', 'ix'][value % 10]}"
    assert in_digits([name])[name] == ("part", str(value))


def test_only_an_audio_suffix_is_cut_off():
    assert stem("a/Chapter 1.5") == "Chapter 1.5"
    assert stem("a/Chapter 1.5.MP3") == "Chapter 1.5"
