"""Files play in the order that the evidence tells, and nobody guesses between two witnesses."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.order import decide_order, natural, positions
from aiom4b.errors import NeedsAttention
from aiom4b.models import OrderChoice
from factories import source_file, source_files

names = st.lists(
    st.text(alphabet="ab1290 IVX_-./CDcd\u0661\uff12\udce4é", min_size=1, max_size=12).filter(lambda t: t.strip("/")),
    max_size=8,
    unique=True,
)


def played(files, *playlists, choice=OrderChoice.AUTO):
    order = decide_order(files, playlists, choice)
    return [files[index].path for index in order.files]


def evidence(files, *playlists):
    return decide_order(files, playlists, OrderChoice.AUTO).evidence


@pytest.mark.parametrize(
    "expected",
    [
        ["CD2/1.mp3", "CD10/1.mp3"],
        ["cd 1/9.mp3", "CD1/10.mp3", "Cd_2/1.mp3", "CD-11/1.mp3"],
        ["Track 9.mp3", "track10.mp3", "TRACK_11.mp3"],
        ["第2章.mp3", "第１０章.mp3"],
        ["\uff11.mp3", "2.mp3", "\uff11\uff10.mp3"],
        ["Part I.mp3", "Part IV.mp3", "Part V.mp3", "Part IX.mp3", "Part X.mp3"],
        ["I.mp3", "II.mp3", "III.mp3", "IV.mp3", "V.mp3", "VI.mp3", "VII.mp3", "VIII.mp3", "IX.mp3", "X.mp3"],
        ["Dune - I.mp3", "Dune - II.mp3", "Dune - III.mp3", "Dune - IV.mp3", "Dune - V.mp3"],
        [
            "Chapter One.mp3",
            "Chapter Two.mp3",
            "Chapter Three.mp3",
            "Chapter Twenty-Two.mp3",
            "Chapter Twenty-Three.mp3",
        ],
        ["Teil eins.mp3", "Teil zwei.mp3", "Teil drei.mp3", "Teil zwölf.mp3"],
        ["Part 3 of 12.mp3", "Part 11 of 12.mp3"],
        ["1-01.mp3", "1-10.mp3", "2-01.mp3", "10-01.mp3"],
        ["A 1.mp3", "A 1.5.mp3", "A 2.mp3"],
        ["Side A.mp3", "Side B.mp3", "Side C.mp3", "Side D.mp3"],
        ["A/2.mp3", "B/1.mp3"],
        ["Disc 2/Chapter I.mp3", "Disc 2/Chapter V.mp3", "Disc 2/Chapter IX.mp3", "Disc 10/Chapter 1.mp3"],
    ],
)
def test_names_are_sorted_as_people_write_them(expected):
    shuffled = list(expected)
    random.Random(4).shuffle(shuffled)
    assert natural(shuffled) == expected


def test_letters_that_could_be_numerals_stay_letters():
    assert natural(["Side H.mp3", "Side I.mp3", "Side J.mp3", "Side C.mp3"])[0] == "Side C.mp3"
    assert natural(["X.mp3", "V.mp3", "L.mp3"]) == ["L.mp3", "V.mp3", "X.mp3"]
    assert natural(["I am.mp3", "Go.mp3", "V.mp3"]) == ["Go.mp3", "I am.mp3", "V.mp3"]


@given(names, st.randoms())
def test_the_natural_order_is_total_and_loses_nothing(paths, chance):
    once = natural(paths)
    chance.shuffle(paths)
    assert natural(paths) == once
    assert sorted(once) == sorted(paths)


def test_tags_and_names_that_agree_are_recorded():
    files = source_files("02 b.mp3", "01 a.mp3", track=[2, 1])
    assert played(files) == ["01 a.mp3", "02 b.mp3"]
    assert evidence(files, ("book.m3u", ("01 a.mp3", "02 b.mp3"))) == "track tags, book.m3u and names agree"


def test_titles_without_numbers_are_no_contradiction_to_tags():
    files = source_files("Zebra.mp3", "Ape.mp3", track=[1, 2])
    assert played(files) == ["Zebra.mp3", "Ape.mp3"]
    assert evidence(files) == "track tags alone"


def test_names_that_only_write_one_number_in_two_ways_are_no_contradiction_to_tags():
    assert played(source_files("1 Zebra.mp3", "01 Ape.mp3", track=[1, 2])) == ["1 Zebra.mp3", "01 Ape.mp3"]


def test_titles_without_numbers_go_by_the_alphabet_if_nobody_else_speaks():
    files = source_files("Zebra.mp3", "Ape.mp3")
    assert played(files) == ["Ape.mp3", "Zebra.mp3"]
    assert "alphabet" in evidence(files)


@pytest.mark.parametrize("tracks", [[1, 1, 1], [1, 2, 2], [1, None, 2], [None, None, None]])
def test_tags_that_cannot_tell_files_apart_leave_it_to_the_names(tracks):
    files = source_files("3.mp3", "1.mp3", "2.mp3", track=tracks)
    assert played(files) == ["1.mp3", "2.mp3", "3.mp3"]
    assert evidence(files) == "names alone"


def test_disc_tags_order_files_that_lie_in_one_folder():
    files = source_files("b.mp3", "a.mp3", "d.mp3", "c.mp3", disc=[1, 1, 2, 2], track=[1, 2, 1, 2])
    assert played(files) == ["b.mp3", "a.mp3", "d.mp3", "c.mp3"]


def test_disc_folders_stand_in_for_disc_tags_where_tracks_restart():
    files = source_files("CD10/x.mp3", "CD2/y.mp3", "CD2/a.mp3", track=[1, 1, 2])
    assert played(files) == ["CD2/y.mp3", "CD2/a.mp3", "CD10/x.mp3"]
    assert positions(files) == ((10, 1), (2, 1), (2, 2))


def test_disc_folders_stand_in_for_disc_tags_that_are_all_the_same():
    files = source_files("Disc 1/a.mp3", "Disc 2/a.mp3", disc=1, track=1)
    assert positions(files) == ((1, 1), (2, 1))


def test_two_usable_witnesses_that_disagree_need_a_person():
    files = source_files(*(f"{place:02}.mp3" for place in range(1, 21)), track=[*range(20, 0, -1)])
    with pytest.raises(NeedsAttention) as caught:
        played(files)
    error = caught.value
    assert error.code == "order.contradiction"
    assert "track tags | names" in error.reason
    assert "place 1: 20.mp3 | 01.mp3" in error.reason
    assert len(error.reason.splitlines()) <= 6
    assert "--order names" in error.remedy
    assert "--order tags" in error.remedy


def test_a_playlist_is_a_witness_too():
    files = source_files("1.mp3", "2.mp3")
    with pytest.raises(NeedsAttention, match=r"book\.m3u"):
        played(files, ("book.m3u", ("2.mp3", "1.mp3")))
    titles = source_files("Ape.mp3", "Zebra.mp3")
    assert played(titles, ("book.m3u", ("zebra.MP3", "./Ape.mp3"))) == ["Zebra.mp3", "Ape.mp3"]


@pytest.mark.parametrize("listed", [("1.mp3",), ("2.mp3", "1.mp3", "1.mp3"), ("2.mp3", "1.mp3", "3.mp3"), ()])
def test_a_playlist_that_does_not_name_each_file_once_is_not_heard(listed):
    assert evidence(source_files("1.mp3", "2.mp3"), ("book.m3u", listed)) == "names alone"


def test_the_owner_decides():
    files = source_files("1.mp3", "2.mp3", track=[2, 1])
    assert played(files, choice=OrderChoice.NAMES) == ["1.mp3", "2.mp3"]
    assert played(files, choice=OrderChoice.TAGS) == ["2.mp3", "1.mp3"]


def test_tags_that_tell_nothing_cannot_be_chosen():
    with pytest.raises(NeedsAttention) as caught:
        played(source_files("1.mp3", "2.mp3"), choice=OrderChoice.TAGS)
    assert caught.value.code == "order.tags_unusable"


def test_a_list_of_all_files_beats_every_witness():
    odd = "3 \udcff.mp3"
    files = source_files("1.mp3", "2.mp3", odd, track=[3, 2, 1])
    assert played(files, choice=("2.mp3", odd, "1.mp3")) == ["2.mp3", odd, "1.mp3"]
    assert decide_order(files, (), ("1.mp3", "2.mp3", odd)).evidence == "as listed by its owner"
    assert played(files[:1], choice=("1.mp3",)) == ["1.mp3"]


@pytest.mark.parametrize(
    ("listed", "odd"),
    [
        (("1.mp3",), "CD/2 ?.mp3"),
        ((), "1.mp3"),
        (("1.mp3", "CD/2 \udcff.mp3", "3.mp3"), "3.mp3"),
        (("1.mp3", "CD/2 \udcff.mp3", "1.mp3"), "1.mp3"),
        (("2 \udcff.mp3", "1.mp3"), "2 ?.mp3"),
    ],
    ids=["too few", "none", "too many", "twice", "without its folder"],
)
def test_a_list_that_does_not_name_each_file_once_is_refused_with_the_first_odd_one(listed, odd):
    with pytest.raises(NeedsAttention) as caught:
        decide_order(source_files("1.mp3", "CD/2 \udcff.mp3"), (), listed)
    assert caught.value.code == "order.not_these"
    assert caught.value.reason.endswith(f" {odd}.")


def test_one_file_has_no_order():
    assert decide_order(source_files("x.mp3"), (), OrderChoice.AUTO).files == (0,)


def test_a_single_prologue_comes_first_and_a_single_epilogue_last_if_nothing_else_speaks():
    files = source_files("Epilogue.mp3", "Chapter 2.mp3", "Prologue.mp3", "Chapter 10.mp3")
    assert played(files) == ["Prologue.mp3", "Chapter 2.mp3", "Chapter 10.mp3", "Epilogue.mp3"]
    named = source_files("Emma - Prologue.mp3", "Emma - 1.mp3", "Emma - 2.mp3")
    assert played(named) == ["Emma - Prologue.mp3", "Emma - 1.mp3", "Emma - 2.mp3"]
    tagged = source_files("Prologue.mp3", "Chapter 1.mp3", "Chapter 2.mp3", track=[3, 1, 2])
    assert played(tagged)[-1] == "Prologue.mp3"


def test_folders_that_only_the_alphabet_sorts_need_a_person():
    files = source_files("Prologue/1.mp3", "Part 1/1.mp3", "Part 2/1.mp3")
    with pytest.raises(NeedsAttention) as caught:
        played(files)
    assert caught.value.code == "order.unclear"
    assert "Part 1, Part 2, Prologue" in caught.value.reason
    assert played(files, choice=OrderChoice.NAMES) == ["Part 1/1.mp3", "Part 2/1.mp3", "Prologue/1.mp3"]


def test_loose_files_beside_disc_folders_need_a_person_unless_tags_tell():
    paths = ["Bonus.mp3", "CD1/1.mp3", "CD2/1.mp3"]
    with pytest.raises(NeedsAttention, match="Bonus"):
        played(source_files(*paths))
    assert played(source_files(*paths, track=[3, 1, 2]))[-1] == "Bonus.mp3"


@given(st.permutations(range(12)))
def test_the_order_does_not_depend_on_how_the_files_arrive(places):
    files = [source_file(f"CD{place // 4 + 1}/{place % 4 + 1} x.mp3", track=place % 4 + 1) for place in places]
    assert played(files) == [f"CD{disc}/{track} x.mp3" for disc in (1, 2, 3) for track in (1, 2, 3, 4)]
