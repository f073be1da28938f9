"""Is a book that was made again with another picture a book of its own, and are both told apart for ever?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from household import clip, heard, picture, rich_id3, tracks


def record(house, book):
    return json.loads(house.record(book).read_bytes())["record"]


def beside(colour):
    return tracks(2) | {"cover.jpg": picture(colour)}


def inside(colour):
    return {"1.mp3": rich_id3(cover=picture(colour), album="Emma", artist="Jane Austen") + clip(1), "2.mp3": clip(2)}


def made(house, folder, *options):
    answer = house.convert(folder, *options)
    assert answer.exit == 0, answer.document
    return answer.book


def is_proved(house, book):
    answer = house.run("verify", book["output"], "--json")
    return answer.exit == 0 and answer.document["proved"] == "against its backup"


def test_a_cover_changed_beside_the_audio_makes_a_second_book_with_a_record_and_a_backup_of_its_own(house):
    folder = house.drop("Emma", beside("red"))
    first = made(house, folder)
    house.drop("Emma", {"cover.jpg": picture("blue")})
    assert made(house, folder)["already"] is True
    second = made(house, folder, "--again")
    assert second["id"] != first["id"]
    assert (second["already"], second["output"]) == (False, str(house.library / "Jane Austen/Emma (2)/Emma (2).m4b"))
    for book, colour in ((first, "red"), (second, "blue")):
        assert Path(os.path.dirname(book["output"]), "cover.jpg").read_bytes() == picture(colour)
        assert bytes(heard(book["output"]).tags["covr"][0]) == picture(colour)
        assert Path(book["backup"], "cover.jpg").read_bytes() == picture(colour)
        known = record(house, book)
        assert (known["sha256"], known["backup"]["root"]) == (book["sha256"], book["backup"])
        assert os.path.join(house.library, known["book"]) == book["output"]
        assert is_proved(house, book)
    assert record(house, first)["plan"]["cover"]["sha256"] != record(house, second)["plan"]["cover"]["sha256"]
    assert len(house.books()) == 2
    assert house.litter() == []


def test_the_old_cover_again_is_the_first_book_again(house):
    folder = house.drop("Emma", beside("red"))
    first = made(house, folder)
    house.drop("Emma", {"cover.jpg": picture("blue")})
    made(house, folder, "--again")
    house.drop("Emma", {"cover.jpg": picture("red")})
    third = made(house, folder, "--again")
    assert (third["id"], third["output"], third["already"]) == (first["id"], first["output"], True)
    assert len(house.books()) == 2


@pytest.mark.parametrize("lost", ["record", "book"])
def test_the_second_book_lives_without_the_first(house, lost):
    folder = house.drop("Emma", beside("red"))
    first = made(house, folder)
    house.drop("Emma", {"cover.jpg": picture("blue")})
    second = made(house, folder, "--again")
    (house.record(first) if lost == "record" else Path(first["output"])).unlink()
    assert is_proved(house, second)
    assert made(house, folder)["output"] == second["output"]


def test_another_picture_in_the_tags_is_another_source(house):
    first = made(house, house.drop("Emma", inside("red")))
    second = made(house, house.drop("Emma again", inside("blue")))
    assert second["id"] != first["id"]
    assert all(is_proved(house, book) for book in (first, second))
