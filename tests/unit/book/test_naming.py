"""Every name that leaves here can be created on any file system, and no book lies where it swallows another."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.naming import MAX_NAME_BYTES, alternative, as_asked, clean_name, clean_title, target
from aiom4b.errors import Fatal, NeedsAttention
from aiom4b.models import Metadata, SeriesEntry

DEFAULT = "{author}/{series}/{title}/{title}.m4b"
WINDOWS = {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}

nasty = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="./\\-: \u202e\udce4\0ée\u0301\U0001f600<>?*|CONaux1", max_size=300),
    st.sampled_from(["..", ".", "-", "CON", "con.txt", " nul ", "a" * 400, "é" * 200, "\U0001f468\u200d" * 80]),
)


def assert_safe(name):
    assert name not in {"", ".", ".."}
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert not set(name) & set('/\\:*?"<>|\0\u202e')
    assert unicodedata.is_normalized("NFC", name)
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
    assert name.split(".")[0].upper() not in WINDOWS


@given(nasty, nasty, nasty, nasty)
def test_whatever_a_book_is_called_its_path_is_safe(author, series, title, part):
    book = Metadata(title=title, authors=(author,), series=(SeriesEntry(name=series, part=part),))
    for template in (DEFAULT, "{title}.m4b", "{author}/{part} - {title} {{{narrator}}}/{title}.m4b"):
        path = target(book, template)
        assert path.endswith(".m4b")
        assert len(path.split("/")) >= 2
        for name in path.split("/"):
            assert_safe(name)
        for name in alternative(path, 12).split("/"):
            assert_safe(name)


@given(nasty)
def test_cleaning_twice_changes_nothing(name):
    assert clean_name(clean_name(name)) == clean_name(name)
    assert clean_title(clean_title(name)) == clean_title(name)


@given(st.one_of(nasty, st.lists(nasty, max_size=6).map("/".join)), st.sampled_from(["", ".m4b", ".M4B", "/", "/.."]))
def test_whatever_is_asked_for_is_a_safe_path_inside_the_library_or_refused(asked, ending):
    try:
        path = as_asked(asked + ending)
    except NeedsAttention:
        return
    assert path.endswith(".m4b")
    assert len(path.split("/")) >= 2
    for name in path.split("/"):
        assert_safe(name)
    assert as_asked(path) == path
    for name in alternative(path, 12).split("/"):
        assert_safe(name)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("Jane Austen/Emma/Emma.m4b", "Jane Austen/Emma/Emma.m4b"),
        ("Jane Austen/Emma", "Jane Austen/Emma.m4b"),
        ("Emma.m4b", "Emma/Emma.m4b"),
        ("Emma.M4B", "Emma/Emma.m4b"),
        ("./Dr. No//vol. 1/", "Dr. No/vol. 1.m4b"),
        (".aiom4b/books/Emma", "aiom4b/books/Emma.m4b"),
        ("Who?/M\udce4rchen", "Who/M\ufffdrchen.m4b"),
    ],
)
def test_a_path_that_was_asked_for_is_kept_as_far_as_it_is_safe(asked, path):
    assert as_asked(asked) == path


@pytest.mark.parametrize(
    "asked", ["", "/", ".", ".m4b", "/etc/Emma", "../Emma", "A/../../Emma", "A/ /Emma", "..\udce4/.."]
)
def test_a_path_out_of_the_library_or_without_a_name_is_refused(asked):
    with pytest.raises(NeedsAttention) as caught:
        as_asked(asked)
    assert caught.value.code == "output.unusable"
    assert caught.value.reason.encode()


def test_the_default_layout():
    book = Metadata(title="Emma", authors=("Jane Austen", "X"), series=(SeriesEntry(name="Novels", part="4"),))
    assert target(book, DEFAULT) == "Jane Austen/Novels/Emma/Emma.m4b"
    assert target(Metadata(title="Emma", authors=("Jane Austen",)), DEFAULT) == "Jane Austen/Emma/Emma.m4b"
    assert target(Metadata(title="Emma"), DEFAULT) == "Unknown Author/Emma/Emma.m4b"
    assert target(Metadata(), DEFAULT) == "Unknown Author/Unknown Title/Unknown Title.m4b"


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{title}.m4b", "Emma/Emma.m4b"),
        ("{author}/{title}.m4b", "Jane Austen/Emma/Emma.m4b"),
        ("{author}/{series}/{title}.m4b", "Jane Austen/Emma/Emma.m4b"),
        ("{author}/{part} - {year} - {title} {{{narrator}}} [{asin}]/{title}.m4b", "Jane Austen/1815 - Emma/Emma.m4b"),
        ("Books/{authors}/{title} ({year})/{title}: {subtitle}.m4b", "Books/Jane Austen/Emma (1815)/Emma.m4b"),
        ("{author}/{title} - {part} - {year}/{title}.m4b", "Jane Austen/Emma - 1815/Emma.m4b"),
        ("{author}/Vol {part}/{title}/{title}.m4b", "Jane Austen/Emma/Emma.m4b"),
        ("/{author}/../{title}/{title}.m4b", "Jane Austen/_/Emma/Emma.m4b"),
    ],
)
def test_empty_parts_of_a_template_leave_no_trace(template, path):
    assert target(Metadata(title="Emma", authors=("Jane Austen",), year="1815"), template) == path


@pytest.mark.parametrize(
    "template",
    [
        "{author}/{name}.m4b",
        "{title}",
        "{title.__class__}.m4b",
        "{title!r}.m4b",
        "{title:>9}.m4b",
        "{title.m4b",
        "{}.m4b",
    ],
)
def test_a_template_that_names_no_book_is_refused(template):
    with pytest.raises(Fatal) as caught:
        target(Metadata(title="Emma"), template)
    assert caught.value.code == "config.template"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AC/DC", "AC-DC"),
        ("Dune: Messiah", "Dune - Messiah"),
        ("10:04", "10-04"),
        ("Who?", "Who"),
        ('The "Best"', "The 'Best'"),
        ("...and Justice", "and Justice"),
        ("..", ""),
        ("-rf", "rf"),
        ("M\udce4rchen", "M\ufffdrchen"),
        ("abc\u202edef", "abcdef"),
        ("e\u0301", "é"),
        ("Con", "Con_"),
        ("-CON", "CON_"),
        (".. nul", "nul_"),
        ("L'Étranger", "L'Étranger"),
    ],
)
def test_names_keep_what_they_can(name, expected):
    assert clean_name(name) == expected


def test_a_long_name_is_cut_at_a_character_and_keeps_its_suffix():
    path = target(Metadata(title="第" * 300, authors=("é" * 300,)), DEFAULT)
    author, title, file = path.split("/")
    assert (len(author.encode()), len(title.encode()), len(file.encode())) == (200, 198, 4 + 195)
    assert file == "第" * 65 + ".m4b"
    marked = clean_name("a" * 199 + "x\u0323\u0302\u0307")
    assert marked == "a" * 199


def test_an_alternative_numbers_folder_and_file():
    assert alternative("A/Emma/Emma.m4b", 2) == "A/Emma (2)/Emma (2).m4b"
    long = alternative(f"A/{'x' * 200}/{'x' * 196}.m4b", 10)
    assert [len(name) for name in long.split("/")] == [1, 200, 200]
    assert long.endswith("x (10).m4b")
    with pytest.raises(ValueError, match="number 2"):
        alternative("A/Emma/Emma.m4b", 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("The_Two_Towers", "The Two Towers"), ("Dune_ Messiah", "Dune Messiah"), ("a_b c", "a_b c"), ("x\ty\0", "x y")],
)
def test_a_title_is_made_of_a_name(name, expected):
    assert clean_title(name) == expected
