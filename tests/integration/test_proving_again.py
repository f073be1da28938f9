"""Can a book be proved long after it was published, a tampered one be told, and the originals be had back?"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import sound
from household import RATE, clip, picture, snapshot, tracks


@pytest.fixture
def published(house):
    """Return a published book, told as JSON."""
    answer = house.convert(house.drop("Emma", tracks(3) | {"cover.jpg": picture(), "extra/notes.txt": b"notes"}))
    assert answer.exit == 0
    return answer.book


@pytest.fixture
def copied(house):
    """Return a published book whose audio was copied."""
    answer = house.convert(house.drop("Emma", {"Emma.m4b": sound.m4a(sound.speech(3, 44100), 44100)}))
    assert answer.exit == 0
    return answer.book


def verify(house, book, *options):
    return house.run("verify", book["output"], *options, "--json")


def middle_of_the_sound(path):
    """Return a position in the middle of a book's mdat."""
    data = Path(path).read_bytes()
    at = data.index(b"mdat")
    return at + int.from_bytes(data[at - 4 : at], "big") // 2


def overwrite(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def in_the_middle(path):
    return os.path.getsize(path) // 2


# --- verify -----------------------------------------------------------------------------------------------------------


def test_a_book_is_proved_against_its_backup(house, published):
    before = snapshot(house.root)
    answer = verify(house, published)
    assert answer.exit == 0
    assert answer.document["proved"] == "against its backup"
    assert answer.document["proof"]["samples"] == 3 * RATE
    assert answer.document["proof"]["sound"]["seconds"] >= 3
    assert answer.document["unchanged"] is True
    assert snapshot(house.root) == before


def test_a_copied_book_is_proved_against_its_backup(house, copied):
    answer = verify(house, copied)
    assert answer.exit == 0
    assert answer.document["proved"] == "against its backup"


def test_a_backup_in_another_place_is_found_there(house, published):
    elsewhere = house.root / "elsewhere"
    os.rename(house.backup, elsewhere)
    assert verify(house, published).document["proved"] == "only the file itself"
    answer = verify(house, published, "--backup", str(elsewhere))
    assert answer.document["proved"] == "against its backup"


@pytest.mark.parametrize("lost", ["record", "backup"])
def test_without_record_or_backup_only_the_file_is_proved_and_that_is_said(house, published, lost):
    if lost == "record":
        house.record(published).unlink()
    else:
        shutil.rmtree(published["backup"])
    answer = verify(house, published)
    assert answer.exit == 0
    assert answer.document["proved"] == "only the file itself"
    assert answer.document["proof"] is None
    assert lost in answer.document["missing"]
    assert answer.document["unchanged"] is (None if lost == "record" else True)


def test_somebody_else_s_m4b_is_looked_at_alone(house):
    path = house.root / "foreign.m4b"
    path.write_bytes(sound.m4a(sound.speech(2, RATE), RATE))
    answer = house.run("verify", str(path), "--json")
    assert answer.exit == 0
    assert answer.document["proved"] == "only the file itself"


@pytest.mark.parametrize("kind", ["encoded", "copied"])
def test_flipped_bytes_in_the_sound_are_refused(house, request, kind):
    book = request.getfixturevalue({"encoded": "published", "copied": "copied"}[kind])
    overwrite(book["output"], middle_of_the_sound(book["output"]), b"\x00\xff\x00\xff")
    answer = verify(house, book)
    assert answer.exit == 1
    assert answer.error["code"].startswith("proof.")
    assert answer.error["remedy"]


def test_one_flipped_bit_in_the_sound_is_refused(house, published):
    at = middle_of_the_sound(published["output"])
    byte = Path(published["output"]).read_bytes()[at]
    overwrite(published["output"], at, bytes([byte ^ 1]))
    assert verify(house, published).error["code"] == "proof.packets"


def test_a_book_cut_short_is_refused(house, published):
    data = Path(published["output"]).read_bytes()
    Path(published["output"]).write_bytes(data[: middle_of_the_sound(published["output"])])
    assert verify(house, published).exit == 1


def test_a_remedy_for_a_published_book_does_not_say_that_nothing_was_published(house, published):
    overwrite(published["output"], middle_of_the_sound(published["output"]), b"\x00\xff\x00\xff")
    assert "Nothing was published" not in verify(house, published).error["remedy"]


def test_another_book_under_its_name_is_not_proved(house, published):
    other = house.convert(house.drop("Other", tracks(3, album="Other", first_seed=10))).book
    shutil.copy(other["output"], published["output"])
    answer = verify(house, published)
    # The id inside leads to the other book's record and backup: it is that book, and is proved as such.
    assert answer.document["proved"] == "against its backup"
    record = json.loads(house.record(published).read_bytes())
    record["record"]["files"] = json.loads(house.record(other).read_bytes())["record"]["files"]
    record["record"]["backup"] = json.loads(house.record(other).read_bytes())["record"]["backup"]
    house.record(other).write_text(json.dumps(record))
    assert verify(house, published).exit == 1


def test_edited_tags_are_allowed_and_said(house, published):
    tags = __import__("mutagen.mp4").mp4.MP4(published["output"])
    tags["\xa9nam"] = ["My Emma"]
    tags.save()
    answer = verify(house, published)
    assert answer.exit == 0
    assert answer.document["proved"] == "against its backup"
    assert answer.document["unchanged"] is False


def test_a_tampered_backup_is_told_from_a_tampered_book(house, published):
    path = os.path.join(published["backup"], "02.mp3")
    overwrite(path, in_the_middle(path), b"tampered")
    answer = verify(house, published)
    assert (answer.exit, answer.error["code"]) == (1, "backup.damaged")
    assert "02.mp3" in answer.error["message"]


def test_a_book_that_is_not_there_exits_4(house):
    answer = house.run("verify", str(house.library / "none.m4b"), "--json")
    assert (answer.exit, answer.error["code"]) == (4, "book.missing")


@pytest.mark.parametrize("data", [b"", b"no book at all", picture(), clip()])
def test_a_file_that_is_no_book_is_refused_in_plain_words(house, data):
    path = house.root / "odd.m4b"
    path.write_bytes(data)
    answer = house.run("verify", str(path), "--json")
    assert answer.exit == 1
    assert answer.error["code"] != "worker.error"
    assert "Errno" not in answer.error["message"]


# --- backups ----------------------------------------------------------------------------------------------------------


def backups(house, command, *words):
    return house.run("backups", command, *words, "--json")


def test_backups_are_listed_verified_and_restored_byte_for_byte(house, published):
    place = ("--backup", str(house.backup))
    (listed,) = backups(house, "list", *place).document["items"]
    assert listed["path"] == published["backup"]
    assert listed["source"] == published["source"]
    assert listed["files"] == 5
    checked = backups(house, "verify", *place)
    assert checked.exit == 0
    assert [item["ok"] for item in checked.document["items"]] == [True]
    out = house.root / "out"
    assert backups(house, "restore", published["backup"], str(out)).document["total"] == 5
    wanted, found = snapshot(published["source"]), snapshot(out)
    files = {os.path.relpath(path, os.fsencode(out)): seen[1:] for path, seen in found.items() if seen[3]}
    assert files == {
        os.path.relpath(path, os.fsencode(published["source"])): seen[1:] for path, seen in wanted.items() if seen[3]
    }


def test_a_book_made_from_a_restored_backup_is_the_same_book(house, published):
    out = str(house.drops / "Restored")
    backups(house, "restore", published["backup"], out)
    again = house.convert(out)
    assert again.book["already"] is True


@pytest.mark.parametrize("harm", ["changed", "missing", "surplus", "manifest"])
def test_a_harmed_backup_is_told(house, published, harm):
    path = Path(published["backup"], "01.mp3")
    match harm:
        case "changed":
            overwrite(path, in_the_middle(path), b"tampered")
        case "missing":
            path.unlink()
        case "surplus":
            Path(published["backup"], "more").write_text("x")
        case "manifest":
            Path(published["backup"], "backup.json").write_text("{")
    answer = backups(house, "verify", published["backup"])
    assert answer.exit == 1
    if harm == "manifest":
        assert answer.error["code"] == "backup.damaged"
    else:
        (finding,) = answer.document["items"][0]["findings"]
        assert ("more" if harm == "surplus" else "01.mp3") in finding


def test_a_harmed_backup_is_not_restored(house, published):
    path = os.path.join(published["backup"], "01.mp3")
    overwrite(path, in_the_middle(path), b"tampered")
    answer = backups(house, "restore", published["backup"], str(house.root / "out"))
    assert (answer.exit, answer.error["code"]) == (1, "backup.damaged")
    assert not (house.root / "out").exists()


def test_restoring_never_overwrites(house, published):
    Path(published["source"], "01.mp3").write_bytes(b"mine")
    before = snapshot(published["source"])
    answer = backups(house, "restore", published["backup"], published["source"])
    assert (answer.exit, answer.error["code"]) == (1, "restore.exists")
    assert snapshot(published["source"]) == before


def test_a_folder_that_is_no_backup_is_told(house):
    answer = backups(house, "verify", str(house.drops))
    assert (answer.exit, answer.error["code"]) == (1, "backup.none")
    assert backups(house, "list", "--backup", str(house.root / "nowhere")).exit == 4


def test_a_damaged_backup_is_not_taken_for_the_backup_of_a_new_attempt(house, published):
    path = os.path.join(published["backup"], "01.mp3")
    overwrite(path, in_the_middle(path), b"tampered")
    answer = house.convert(published["source"], "--again")
    assert answer.exit == 0
    assert answer.book["backup"] != published["backup"]
    assert verify(house, answer.book).document["proved"] == "against its backup"


def test_a_backup_whose_manifest_rotted_is_not_passed_over(house, published):
    Path(published["backup"], "backup.json").write_text("rot")
    found = house.run("backups", "verify", "--backup", str(house.backup), "--json")
    assert (found.exit, found.document["ok"]) == (1, False)
    (item,) = found.document["items"]
    assert item["path"] == published["backup"]
    assert "backup.json" in item["findings"][0]
