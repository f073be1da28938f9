"""What a book is called comes from its owner first, then its tags, then its folder."""

import pytest

from aiom4b.book.metadata import merge, needs_metadata_json, people
from aiom4b.models import Metadata, Order, SeriesEntry
from factories import source, source_file, source_files


def merged(*files, **facts):
    book = source(*(files or ["1.mp3"]), **facts)
    return merge(book, Order(files=tuple(range(len(book.files))), evidence="names alone"))


def known(*files, **facts):
    return merged(*files, **facts)[0]


def test_sidecars_beat_tags_and_tags_beat_the_folder_field_by_field():
    file = source_file("1.mp3", album="Tag Title", artist="Tag Author", publisher="Tag House")
    strong, weak = Metadata(title="Owner's Title"), Metadata(title="Other", language="en", authors=())
    book = known(
        file, name="Folder Author - Folder Title (1815)", metadata=(("metadata.json", strong), ("x.opf", weak))
    )
    assert (book.title, book.authors, book.publisher) == ("Owner's Title", ("Tag Author",), "Tag House")
    assert (book.language, book.year) == ("en", "1815")


def test_most_files_decide_and_the_others_are_mentioned():
    files = source_files("1.mp3", "2.mp3", "3.mp3", album=["Emma", "Emma", "Dune"], date=["1815-12-23", "1815", "1965"])
    book, warnings = merged(*files)
    assert (book.title, book.year) == ("Emma", "1815")
    assert any("1 of 3 files name another album than 'Emma'" in warning for warning in warnings)


def test_albums_that_differ_by_their_disc_are_one_title():
    book, warnings = merged(
        *source_files("1.mp3", "2.mp3", album=["Emma (Disc 1)", "Emma (Disc 2)"], artist="Jane Austen")
    )
    assert book.title == "Emma"
    assert not warnings
    assert known(*source_files("1.mp3", "2.mp3", album="Dune, Part 1")).title == "Dune, Part 1"


def test_without_an_album_the_title_all_files_share_is_the_books():
    assert known(*source_files("1.mp3", "2.mp3", title="Emma")).title == "Emma"
    assert known(*source_files("1.mp3", "2.mp3", title=["One", "Two"]), name="Folder").title == "Folder"
    assert known(source_file("x.mp3", title="Emma", album="Unknown Album")).title == "Emma"


def test_the_album_artist_wrote_it():
    assert known(source_file("1.mp3", artist="A Reader", album_artist="Jane Austen")).authors == ("Jane Austen",)
    assert known(source_file("1.mp3", artist="Jane Austen", album_artist="Various Artists")).authors == ("Jane Austen",)


def test_a_composer_who_is_not_the_author_reads():
    assert known(source_file("1.mp3", artist="Jane Austen", composer="A Reader")).narrators == ("A Reader",)
    assert known(source_file("1.mp3", artist="Jane Austen", composer="JANE AUSTEN")).narrators == ()
    assert known(source_file("1.mp3", composer="A Reader", narrator="The Reader")).narrators == ("The Reader",)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Terry Pratchett; Neil Gaiman", ("Terry Pratchett", "Neil Gaiman")),
        ("Terry Pratchett & Neil Gaiman", ("Terry Pratchett", "Neil Gaiman")),
        ("Simon & Schuster", ("Simon & Schuster",)),
        ("Martin Luther King, Jr.", ("Martin Luther King, Jr.",)),
        ("King, Martin & Parks, Rosa", ("King, Martin & Parks, Rosa",)),
        ("Jane Austen;jane austen; ;Unknown", ("Jane Austen",)),
        ("", ()),
    ],
)
def test_names_are_split_only_where_that_is_safe(value, names):
    assert people(value) == names


@pytest.mark.parametrize(
    ("series", "part", "entries"),
    [
        ("Discworld", "1.5", (("Discworld", "1.5"),)),
        ("A; B", "1; 2", (("A", "1"), ("B", "2"))),
        ("Discworld #5; Witches #2.5", "", (("Discworld", "5"), ("Witches", "2.5"))),
        ("A; B", "1", (("A", ""), ("B", ""))),
        ("", "3", ()),
    ],
)
def test_series_are_read_with_their_parts(series, part, entries):
    expected = tuple(SeriesEntry(name=name, part=place) for name, place in entries)
    assert known(source_file("1.mp3", series=series, series_part=part)).series == expected


def test_genres_lose_what_every_audiobook_is():
    assert known(source_file("1.mp3", genre="Audiobook; Fantasy;fiction; Hörbuch")).genres == ("Fantasy", "fiction")
    assert known(source_file("1.mp3", genre="Audiobook")).genres == ()


def test_a_comment_describes_the_book_if_it_is_long_and_shared():
    text = "Emma Woodhouse, handsome, clever, and rich, with a comfortable home and happy disposition. " * 2
    assert known(*source_files("1.mp3", "2.mp3", comment=text)).description == text
    assert known(*source_files("1.mp3", "2.mp3", "3.mp3", comment=[text, "", ""])).description == ""
    assert known(source_file("1.mp3", comment="Ripped with EAC")).description == ""
    assert known(source_file("1.mp3", comment=text, description="Short.")).description == "Short."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Jane Austen - Emma", {"authors": ("Jane Austen",), "title": "Emma"}),
        ("Jane_Austen_-_Emma", {"authors": ("Jane Austen",), "title": "Emma"}),
        (
            "Terry Pratchett - Discworld 05 - Sourcery",
            {"authors": ("Terry Pratchett",), "title": "Sourcery", "series": (("Discworld", "5"),)},
        ),
        (
            "Terry Pratchett - Discworld, Book 5 - 1988 - Sourcery {Nigel Planer} [B0036I54I6]",
            {"series": (("Discworld", "5"),), "year": "1988", "narrators": ("Nigel Planer",), "asin": "B0036I54I6"},
        ),
        ("Emma (1815) (Unabridged) [MP3 64kbps]", {"title": "Emma", "year": "1815", "authors": ()}),
        ("Emma (read by Fiona Shaw)", {"title": "Emma", "narrators": ("Fiona Shaw",)}),
        ("Ray Bradbury - Fahrenheit 451", {"authors": ("Ray Bradbury",), "title": "Fahrenheit 451", "series": ()}),
        ("George Orwell - 1984", {"authors": ("George Orwell",), "title": "1984", "year": ""}),
        ("1984", {"title": "1984", "year": ""}),
        ("Book 2 - The Two Towers", {"title": "The Two Towers", "authors": (), "series": ()}),
        ("1965 - Dune", {"title": "Dune", "year": "1965", "authors": ()}),
        ("Emma - CD 2", {"title": "Emma - CD 2", "authors": ()}),
        ("Emma (A Novel)", {"title": "Emma (A Novel)"}),
        ("Emma.mp3", {"title": "Emma"}),
        ("M\udce4rchen", {"title": "M\ufffdrchen"}),
        ("{}", {"title": "{}"}),
        ("\0", {"title": "Unknown Title"}),
    ],
)
def test_a_folders_name_is_read(name, expected):
    book = known(name=name)
    if "series" in expected:
        expected = expected | {"series": tuple(SeriesEntry(name=name, part=part) for name, part in expected["series"])}
    assert {field: getattr(book, field) for field in expected} == expected


def test_tags_tell_which_part_of_the_folders_name_is_which():
    assert known(source_file("1.mp3", album="Emma"), name="Emma - Jane Austen").authors == ("Jane Austen",)
    by_author = known(source_file("1.mp3", artist="Jane Austen"), name="Emma - Jane Austen")
    assert (by_author.title, by_author.authors) == ("Emma", ("Jane Austen",))
    fahrenheit = known(source_file("1.mp3", artist="Ray Bradbury"), name="Fahrenheit 451 - Ray Bradbury")
    assert (fahrenheit.title, fahrenheit.series) == ("Fahrenheit 451", ())


def test_a_book_without_an_author_is_mentioned():
    assert any("No author" in warning for warning in merged(name="Emma")[1])
    assert not merged(source_file("1.mp3", artist="Jane Austen"))[1]


@pytest.mark.parametrize("date", ["2021-05-04T10:00:00Z", "04.05.2021", "2021"])
def test_a_year_has_four_digits(date):
    assert known(source_file("1.mp3", date=date)).year == "2021"
    assert known(metadata=(("x.opf", Metadata(year=date)),)).year == "2021"
    assert known(source_file("1.mp3", date="99")).year == ""


@pytest.mark.parametrize(
    "name",
    [
        "Dr. Seuss",
        "Sir Terry Pratchett",
        "Martin Luther King Jr.",
        "King, Jr.",
        "Doe, Jane",
        "Simon & Schuster",
        "Penn and Teller",
        "Sammy Davis III",
        "bell hooks",
        "AVI",
        'James "Jim" Hay',
        "Jim (James) Hay",
        "Anna Poe Ph.D.",
    ],
)
def test_a_name_the_player_server_would_mangle_needs_a_metadata_json(name):
    assert needs_metadata_json(Metadata(authors=("Jane Austen", name)))
    assert needs_metadata_json(Metadata(narrators=(name,)))


@pytest.mark.parametrize(
    "name",
    ["Jane Austen", "J. R. R. Tolkien", "Plato", "Ursula K. Le Guin", "Flann O'Brien", "村上春樹", "Do Kwon", "X"],
)
def test_ordinary_names_need_none(name):
    assert not needs_metadata_json(Metadata(title="Dr. Who", authors=(name,), narrators=(name,)))
