"""Does a stranger's document of a title become clean values, whatever is in it?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.adapters.audible_items import facts_of, is_episode, metadata_of
from aiom4b.models import Metadata, SeriesEntry
from audible_documents import Title, item

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(item(Title()))


def test_a_title_tells_its_metadata():
    title = Title(series=(("The Coast", "1"), ("All Lights", "")), isbn="978-0-00-000000-2", language="english")
    assert metadata_of(item(title)) == Metadata(
        title="The Lighthouse",
        subtitle="A Novel of the Sea",
        authors=("Ada Keeper", "Bo Writer"),
        narrators=("Noa Reader", "Cy Voice"),
        series=(SeriesEntry(name="The Coast", part="1"), SeriesEntry(name="All Lights")),
        genres=("Literature & Fiction", "Sea"),
        year="2024",
        description="A keeper counts ships, and one night there is one too many.",
        publisher="Own Press",
        language="English",
        asin="B00AIOM4B1",
        isbn="9780000000002",
    )


def test_a_title_tells_its_facts():
    facts = facts_of(item(Title(pdf=True, minutes=601)))
    assert facts.asin == "B00AIOM4B1"
    assert facts.runtime_minutes == 601
    assert facts.purchased == facts.released == datetime(2024, 5, 1, 8, tzinfo=UTC)
    assert (facts.unavailable, facts.children, facts.pdf) == (None, False, True)


def test_the_largest_cover_is_asked_for_unscaled():
    address = "https://m.media-amazon.com/images/I/81-own+L"
    pictures = {"500": f"{address}._SL500_.jpg", "1215": f"{address}._SL1215_.jpg", "90": "http://x.example/small.jpg"}
    assert facts_of({"product_images": pictures}).cover == f"{address}.jpg"
    assert facts_of({"product_images": {"500": "http://x.example/plain.jpg"}}).cover == ""
    assert facts_of({"product_images": {}}).cover == ""


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"status": "Revoked"}, "title.revoked"),
        ({"delivery": "PodcastParent"}, "title.podcast"),
        ({"delivery": "Periodical"}, "title.podcast"),
        ({"delivery": "AudioPart"}, "title.part"),
        ({"consumable": False}, "title.streaming_only"),
        ({"delivery": "MultiPartBook"}, None),  # it comes in one file
        ({"delivery": "PodcastEpisode"}, None),
        ({"plus": True}, None),
    ],
)
def test_what_can_not_be_downloaded_says_why(facts, code):
    found = facts_of(item(Title(**facts)))
    assert (found.unavailable and found.unavailable[0]) == code
    assert found.children == (code == "title.podcast")
    if found.unavailable:
        assert all(sentence.endswith(".") for sentence in found.unavailable[1:])


def test_an_episode_is_told_from_what_is_bought():
    assert is_episode(item(Title(delivery="PodcastEpisode")))
    for delivery in ("SinglePartBook", "MultiPartBook", "PodcastParent"):
        assert not is_episode(item(Title(delivery=delivery)))
    assert not is_episode({})


def test_an_order_without_a_date_waits_and_one_with_a_date_is_for_the_clock():
    ordered = {"library_status": {"is_preordered": True}}
    found = facts_of(ordered)
    assert found.unavailable
    assert found.unavailable[0] == "title.not_released"
    dated = facts_of(ordered | {"publication_datetime": "2031-02-03T08:00:00Z"})
    assert (dated.unavailable, dated.released) == (None, datetime(2031, 2, 3, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2024-05-01T08:00:00Z", datetime(2024, 5, 1, 8, tzinfo=UTC)),
        ("2024-05-01T08:00:00.123Z", datetime(2024, 5, 1, 8, 0, 0, 123000, tzinfo=UTC)),
        ("2024-05-01T10:00:00+02:00", datetime(2024, 5, 1, 8, tzinfo=UTC)),
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("soon", None),
    ],
)
def test_times_are_read_as_audible_writes_them(written, moment):
    assert facts_of({"purchase_date": written}).purchased == moment
    assert facts_of({"library_status": {"date_added": written}}).purchased == moment


def test_the_codecs_of_the_older_files_come_best_first():
    codecs = [{"enhanced_codec": name} for name in ("LC_32_22050_stereo", "format4", "LC_128_44100_stereo", "mp42264")]
    assert facts_of({"available_codecs": codecs}).codecs == ("LC_128_44100_stereo", "LC_32_22050_stereo")


@pytest.mark.parametrize(
    ("people", "names"),
    [
        (["Liu Cixin", "Ken Liu - translator"], ("Liu Cixin",)),
        (["Ken Liu - translator"], ("Ken Liu",)),
        (["Ada Keeper", "Ada Keeper", " "], ("Ada Keeper",)),
        (["Jean-Luc Own", "Own - Own"], ("Jean-Luc Own", "Own - Own")),
    ],
)
def test_a_translator_is_no_author_unless_there_is_nobody_else(people, names):
    assert metadata_of({"authors": [{"name": name} for name in people]}).authors == names


def test_a_summary_becomes_paragraphs_without_html():
    written = (
        "<p>One&nbsp;<b>two</b>\nthree &amp; <i>four</i>.</p> <p></p><ul><li>Five<br/>six</li></ul><p>\u202eseven</p>"
    )
    assert metadata_of({"publisher_summary": written}).description == "One two three & four.\n\nFive\n\nsix\n\nseven"
    assert (
        metadata_of({"publisher_summary": "", "merchandising_summary": "Plain > simple"}).description
        == "Plain > simple"
    )


def test_genres_are_those_of_the_ladders_of_genres():
    ladders = [
        {"root": "Genres", "ladder": [{"name": "Fiction"}, {"name": "Sea"}]},
        {"root": "Genres", "ladder": [{"name": "Fiction"}, {"name": "Light"}]},
        {"root": "EditorsPicks", "ladder": [{"name": "Best of May"}]},
    ]
    assert metadata_of({"category_ladders": ladders}).genres == ("Fiction", "Sea", "Light")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, ANYTHING)))
def test_no_document_is_too_strange(document):
    facts = facts_of(document)
    assert all(isinstance(text, str) and "\0" not in text for text in (facts.asin, facts.cover, facts.metadata.title))


@pytest.mark.parametrize(
    "document",
    [
        {"product_images": {"9" * 5000: "https://m.example.org/own.jpg"}},
        {"purchase_date": "0001-01-01T00:00:00+23:59"},
        {"publisher_summary": "<![own[<!own <?own </ <a href='"},
        {"publisher_summary": "<b>" * 50_000},
        {"runtime_length_min": 10**30},
        {"content_delivery_type": ["PodcastParent"]},
    ],
)
def test_numbers_dates_and_markup_that_break_parsers_break_nothing(document):
    facts = facts_of(document)
    assert (facts.cover, facts.purchased, facts.runtime_minutes) == ("", None, 0)


def test_a_document_of_wrong_kinds_is_an_empty_one():
    strange = dict.fromkeys(KEYS, 7)
    facts = facts_of(strange)
    assert facts.metadata == Metadata()
    assert (facts.asin, facts.cover, facts.codecs, facts.unavailable) == ("", "", (), None)
    lists = [None, 3, {"name": 4, "title": [], "ladder": "x"}]
    assert facts_of(dict.fromkeys(KEYS, lists)).metadata == Metadata()
