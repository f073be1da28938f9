import json

from aiom4b.adapters.sidecars.descriptions import from_json
from aiom4b.adapters.sidecars.writing import metadata_json
from aiom4b.models import Metadata, SeriesEntry

FULL = Metadata(
    title="The Cat",
    subtitle="A Tale",
    authors=("Dr. Seuss", "King, Jr."),
    narrators=("Ann Reader",),
    series=(SeriesEntry(name="Cats", part="1.5"), SeriesEntry(name="Hats")),
    genres=("Children",),
    year="1957",
    description="Line one\nLine two",
    publisher="House",
    language="en",
    asin="B000000000",
    isbn="9780000000000",
)


def test_what_is_written_for_audiobookshelf_reads_back_as_it_was():
    assert from_json(metadata_json(FULL)) == FULL


def test_nothing_unknown_is_written_because_an_empty_value_would_erase_a_tag():
    assert json.loads(metadata_json(Metadata(title="T"))) == {"title": "T"}
