"""Chapters begin where the sound does, and every one has a name."""

import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.chapters import decide
from aiom4b.models import ChapterList, Mark, Metadata, Order
from factories import marks, source, source_file, source_files

RATE = 44100


def decided(book, rate=RATE, order=None):
    files = order or tuple(range(len(book.files)))
    starts, position = [], 0
    for index in files:
        starts.append(position)
        position += round(book.files[index].audio.seconds * rate)
    return decide(book, Order(files=files, evidence="x"), starts, position, rate)


def shown(book, **facts):
    """The chapters as (seconds, title)."""
    return [(chapter.start / RATE, chapter.title) for chapter in decided(book, **facts)[0]]


def titles(*files, **facts):
    return [title for _, title in shown(source(*files, **facts))]


def listed(*pairs, origin="chapters.txt", file=None):
    return ChapterList(origin=origin, file=file, marks=marks(*pairs))


def test_without_anything_better_every_file_is_a_chapter():
    book = source(*source_files("1.mp3", "2.mp3", title=["One", "Two"], seconds=300.5))
    assert shown(book) == [(0, "One"), (300.5, "Two")]
    assert decided(book)[1:] == ("one chapter per file", ())


def test_chapters_follow_the_playing_order():
    book = source(*source_files("1.mp3", "2.mp3", title=["One", "Two"], seconds=[10, 20]))
    assert shown(book, order=(1, 0)) == [(0, "Two"), (20, "One")]


def test_a_list_beside_the_audio_comes_first():
    files = source_files("1.mp3", "2.mp3", chapters=((0, "x"), (9, "y")))
    chapters = (listed((0, "One"), (100, "Two"), (450, "Three")), listed((0, "No"), (1, "No"), origin="x.cue"))
    book = source(*files, chapters=chapters)
    assert shown(book) == [(0, "One"), (100, "Two"), (450, "Three")]
    assert decided(book)[1] == "chapters.txt"


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([(0, "One"), (700, "Two")], "longer than the audio"),
        ([(0, "1"), (10, "2"), (20, "3"), (30, "4")], "before half"),
        ([(0, "One")], "only one"),
    ],
)
def test_a_list_that_does_not_fit_is_reported_and_left_out(pairs, why):
    found, origin, warnings = decided(source("1.mp3", "2.mp3", chapters=(listed(*pairs),)))
    assert len(found) == 2
    assert origin == "one chapter per file"
    assert [why in warning and "chapters.txt" in warning for warning in warnings] == [True]


def test_the_next_list_counts_if_the_first_does_not_fit():
    lists = (listed((0, "x"), (999, "y")), listed((0, "One"), (400, "Two"), origin="metadata.json"))
    assert decided(source("1.mp3", "2.mp3", chapters=lists))[1] == "metadata.json"


def test_a_mark_for_the_end_is_no_chapter():
    assert titles("1.mp3", "2.mp3", chapters=(listed((0, "One"), (300, "Two"), (600.4, "End")),)) == ["One", "Two"]


def test_a_cue_over_several_files_counts_from_each_file():
    cue = (listed((0, "A"), (200, "B"), origin="x.cue", file="1.mp3"), listed((0, "C"), origin="x.cue", file="2.mp3"))
    assert shown(source("1.mp3", "2.mp3", chapters=cue)) == [(0, "A"), (200, "B"), (300, "C")]


def test_files_that_a_cue_leaves_out_are_chapters_of_their_own():
    cue = (listed((0, "A"), (100, "B"), origin="x.cue", file="2.mp3"),)
    assert shown(source("1.mp3", "2.mp3", chapters=cue)) == [(0, "Chapter 1"), (300, "A"), (400, "B")]


def test_a_cue_for_an_unknown_file_is_reported():
    assert "not there" in decided(source("1.mp3", chapters=(listed((0, "A"), file="9.mp3"),)))[2][0]


def test_chapters_inside_the_files_add_up():
    one = source_file("1.mp3", chapters=[(0, "A"), (100, "B")], seconds=200)
    book = source(one, source_file("2.mp3", title="Two"), source_file("3.mp3", chapters=[(0, "C"), (999, "beyond")]))
    found = decided(book)
    assert shown(book) == [(0, "A"), (100, "B"), (200, "Two"), (500, "C")]
    assert found[1] == "chapters inside the files"
    assert "1 chapters beyond its end" in found[2][0]


def test_one_embedded_chapter_names_a_single_file_no_better_than_its_title():
    assert titles(source_file("1.mp3", title="Emma", chapters=[(0, "whole")])) == ["Emma"]


def test_overdrive_markers_that_only_continue_a_chapter_are_left_out():
    one = source_file("1.mp3", markers=[(0, "Chapter 1"), (200, "Chapter 2")])
    two = source_file("2.mp3", markers=[(0, "Chapter 2 (01:40)"), (50, "Chapter 3"), (80, "Chapter 3 - Continued")])
    three = source_file("3.mp3", markers=[(0, "Chapter 3"), (10, "Chapter 4")])
    book = source(one, two, three)
    assert shown(book) == [(0, "Chapter 1"), (200, "Chapter 2"), (350, "Chapter 3"), (610, "Chapter 4")]
    assert decided(book)[1] == "OverDrive markers"


def test_a_title_that_nearly_all_files_share_is_the_books():
    files = source_files(
        *(f"{place} Part {'abcdefghij'[place]}.mp3" for place in range(10)), title=["Emma"] * 9 + ["x"]
    )
    assert titles(*files)[:2] == ["Part a", "Part b"]
    files = source_files(
        "1 a.mp3", "2 b.mp3", "3 c.mp3", "4 d.mp3", "5 e.mp3", title=["One", "Two", "Two", "Two", "Two"]
    )
    assert titles(*files) == ["One", "Two", "Two", "Two", "Two"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["01 - Jane Austen - Emma - The Ball.mp3", "02 - Jane Austen - Emma - The End.mp3"], ["The Ball", "The End"]),
        (["Emma_01_The_Ball.mp3", "Emma_02_The_End.mp3"], ["The Ball", "The End"]),
        (["1-01 The Ball.mp3", "1-02 The End.mp3"], ["The Ball", "The End"]),
        (["Emma - Chapter 01.mp3", "Emma - Chapter 02.mp3"], ["Chapter 01", "Chapter 02"]),
        (["Emma 01.mp3", "Emma 02.mp3"], ["Chapter 1", "Chapter 2"]),
        (["01.mp3", "02.mp3"], ["Chapter 1", "Chapter 2"]),
        (["Track 01.mp3", "Track 02.mp3"], ["Chapter 1", "Chapter 2"]),
        (["01 Emma Meets Harriet.mp3", "02 The Ball.mp3", "03 End.mp3"], ["Emma Meets Harriet", "The Ball", "End"]),
        (["01 Ten.mp3", "02 100 Years.mp3"], ["Ten", "100 Years"]),
        (["Prologue.mp3", "01 One.mp3", "02 Two.mp3"], ["Prologue", "One", "Two"]),
        (["M\udce4r.mp3", "Zoo.mp3"], ["M\ufffdr", "Zoo"]),
    ],
)
def test_titles_are_made_of_file_names(paths, expected):
    assert titles(*source_files(*paths, album="Emma", artist="Jane Austen")) == expected


def test_titles_that_only_count_name_nothing():
    assert titles(*source_files("a One.mp3", "b Two.mp3", title=["Track 1", "Track 2"])) == ["a One", "b Two"]
    assert titles(*source_files("1.mp3", "2.mp3", title=["Emma - 01", "Emma - 02"], album="Emma")) == [
        "Chapter 1",
        "Chapter 2",
    ]


def test_missing_titles_are_filled_from_names():
    assert titles(*source_files("01 One.mp3", "02 Two.mp3", title=["First", ""])) == ["First", "Two"]


def test_a_single_file_is_named_after_the_book():
    assert titles("x.mp3", metadata=(("metadata.json", Metadata(title="Emma")),)) == ["Emma"]


def test_what_comes_long_before_the_first_chapter_is_an_opening():
    assert shown(source("1.mp3", chapters=(listed((30, "One"), (200, "Two")),)))[:2] == [(0, "Opening"), (30, "One")]
    assert shown(source("1.mp3", chapters=(listed((2, "One"), (200, "Two")),)))[0] == (0, "One")


def test_more_than_255_chapters_are_kept():
    assert len(shown(source(*(f"{place:03}.mp3" for place in range(330))))) == 330


def test_positions_are_rounded_once_and_exactly():
    book = source("1.mp3", chapters=(listed((0, "One"), (123.456789, "Two")),))
    for rate in (22050, 44100, 48000):
        chapters = decided(book, rate=rate)[0]
        assert chapters[1].start == round(Fraction(123_456_789 * rate, 1_000_000))


texts = st.text(alphabet="aé \0\n\u202e\udce4()0:1", max_size=12) | st.just("x" * 400)
any_marks = st.lists(st.tuples(st.floats(0, 700), texts), max_size=6)


@given(any_marks, any_marks, any_marks, st.lists(st.sampled_from([0.01, 0.05, 0.2, 5, 300]), min_size=1, max_size=4))
def test_whatever_the_evidence_the_chapters_can_be_written(inside, over, beside, lengths):
    files = [
        source_file(f"{place}.mp3", seconds=seconds, chapters=inside if place else (), markers=over)
        for place, seconds in enumerate(lengths)
    ]
    book = source(*files, chapters=(listed(*beside),))
    chapters, origin, _ = decided(book)
    total = sum(round(file.audio.seconds * RATE) for file in files)
    starts = [chapter.start for chapter in chapters]
    assert origin
    assert starts[0] == 0
    assert all(type(start) is int for start in starts)
    ends = [*starts[1:], total]
    if len(chapters) > 1:
        assert all(10 * (end - start) >= RATE for start, end in zip(starts, ends, strict=True))
    for chapter in chapters:
        assert 0 < len(chapter.title) <= 300
        assert chapter.title == chapter.title.strip()
        assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in chapter.title)


# --- lists that tell for which recording they are ----------------------------------------------------------------------


def told(length, *pairs, file="a.m4b", origin="a-chapters.json"):
    """Return a list that says how long the recording is, in seconds."""
    return ChapterList(origin=origin, file=file, marks=marks(*pairs), length_us=round(length * 1_000_000))


TWO = ((0, "One"), (150, "Two"))


@pytest.mark.parametrize("length", [298, 298.000001, 299, 300, 301, 302])
def test_a_list_for_a_recording_of_this_length_is_used(length):
    book = source(source_file("a.m4b", seconds=300), chapters=[told(length, *TWO)])
    assert decided(book)[1] == "a-chapters.json"
    assert titles(source_file("a.m4b", seconds=300), chapters=[told(length, *TWO)]) == ["One", "Two"]


@pytest.mark.parametrize("length", [0, 150, 297.999, 302.001, 600, 10**12, -300, -(10**12)])
def test_a_list_for_another_recording_is_not_and_says_why(length):
    own = source_file("a.m4b", seconds=300, chapters=((0, "Own"), (100, "Other")))
    found, origin, warnings = decided(source(own, chapters=[told(length, *TWO)]))
    assert [one.title for one in found] == ["Own", "Other"]
    assert origin == "chapters inside the files"
    assert warnings == (
        f"The chapters of a-chapters.json were not used: it is for a recording of {length / 60:.1f} minutes.",
    )


def test_of_several_files_each_is_measured_by_itself():
    files = [source_file("a.m4b", seconds=300), source_file("b.m4b", seconds=500)]
    both = [told(300, *TWO), told(500, (0, "Three"), file="b.m4b")]
    assert titles(*files, chapters=both) == ["One", "Two", "Three"]
    wrong = [told(300, *TWO), told(300, (0, "Three"), file="b.m4b")]
    assert decided(source(*files, chapters=wrong))[1] == "one chapter per file"
    whole = [told(800, *TWO, (300, "Three"), file=None)]
    assert titles(*files, chapters=whole) == ["One", "Two", "Three"]
    assert decided(source(*files, chapters=[told(500, *TWO, file=None)]))[1] == "one chapter per file"


def test_a_list_that_does_not_tell_its_length_is_used_as_before():
    assert titles(source_file("a.m4b", seconds=300), chapters=[listed(*TWO, file="a.m4b")]) == ["One", "Two"]


@given(
    length=st.integers(-(10**18), 10**18),
    starts=st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=5),
)
def test_whatever_a_list_tells_the_chapters_are_in_the_book(length, starts):
    one = ChapterList(
        origin="x", file="a.m4b", marks=tuple(Mark(start_us=start, title="") for start in starts), length_us=length
    )
    found, _, _ = decided(source(source_file("a.m4b", seconds=300), chapters=[one]))
    places = [chapter.start for chapter in found]
    assert places[0] == 0
    assert places == sorted(set(places))
    assert places[-1] < 300 * RATE
    assert all(chapter.title for chapter in found)
