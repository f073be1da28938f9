"""Does an Audible book become the very audio it was locked from, in every shape that people drop it, and nothing else ever?"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

import audible_files
import audible_layouts as layouts
import audible_strangers as strangers
from audible_documents import Title
from audible_files import ACTIVATION_BYTES, ASIN, IV, KEY, decoded, lock_aax, lock_aaxc, plain_book

KEY_FILE = f"Key={KEY.hex().upper()}\nIV={IV.hex().upper()}\n".encode()
ACTIVATION_FILE = f"ActivationBytes={ACTIVATION_BYTES.hex().upper()}\n".encode()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Six seconds in stereo with three chapters, a cover and all of Audible's atoms."""
    return plain_book(tmp_path_factory.mktemp("plain") / "plain.m4b", 6.0, rate=44100, channels=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Mono, the index at the end, 64-bit offsets and the priming heard."""
    return plain_book(tmp_path_factory.mktemp("small") / "small.m4b", 6.0, moov_last=True, wide=True, edit_list=False)


def book_of(house, folder, *options):
    answer = house.convert(str(folder), *options)
    assert answer.exit == 0, answer.document
    return answer.book


def refused(house, folder):
    answer = house.convert(str(folder))
    assert answer.exit != 0
    assert not list(house.library.rglob("*.m4b"))
    assert answer.error["remedy"]
    return answer.error


def lies(house, folder, dropped):
    """Whether the one book in the library plays what the dropped one was made from, to the bit."""
    book = book_of(house, folder)
    assert decoded(book["output"]) == decoded(dropped.plain)
    return book


# --- every shape -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", layouts.NAME_MODES)
def test_a_download_of_audible_cli_is_unlocked_to_the_bit(house, plain, mode):
    dropped = layouts.audible_cli(house.drops / "Book", plain, mode=mode)
    book = lies(house, house.drops / "Book", dropped)
    assert book["chapters_from"].endswith("-chapters.json")
    beside = sorted(os.listdir(os.path.dirname(book["output"])))
    assert [name.rpartition(".")[2] for name in beside] == ["json", "m4b", "pdf", "jpg"] or {
        "pdf",
        "m4b",
        "jpg",
        "json",
    } == {name.rpartition(".")[2] for name in beside}


def test_an_aax_of_audible_cli_opens_with_the_activation_bytes_of_the_settings(house, plain):
    house.set(f'[audible]\nactivation_bytes = "{ACTIVATION_BYTES.hex()}"\n')
    lies(house, house.drops / "Book", layouts.audible_cli(house.drops / "Book", plain, aax=True))


@pytest.mark.parametrize("aax", [False, True], ids=["aaxc", "aax"])
def test_a_title_that_libation_kept_is_unlocked_to_the_bit(house, plain, aax):
    dropped = layouts.libation(house.drops, plain, aax=aax)
    book = lies(house, dropped.audio.parent, dropped)
    assert book["chapters_from"].endswith(".cue")


@pytest.mark.parametrize("name", ["TheLighthouseUnabridged_ep6.aax", "Book.AAX", "book.mp4"])
def test_an_aax_of_an_old_program_is_known_by_its_bytes(house, small, name):
    dropped = layouts.old_app(house.drops / "Book", small, name)
    (house.drops / "Book" / "any.key").write_bytes(ACTIVATION_FILE)
    book = lies(house, house.drops / "Book", dropped)
    assert book["chapters_from"] == "chapters inside the files"


def test_an_aaxc_that_is_called_aax_is_known_by_its_bytes(house, plain):
    lies(house, house.drops / "Book", layouts.misnamed_aaxc(house.drops / "Book", plain))


def test_a_single_locked_file_finds_what_lies_beside_it_under_its_name(house, plain):
    dropped = layouts.audible_cli(house.drops, plain)
    book = lies(house, dropped.audio, dropped)
    assert book["chapters_from"].endswith("-chapters.json")


def test_several_books_of_audible_cli_in_one_folder_are_opened_each_by_its_own_key(house, tmp_path):
    shelf = layouts.shelf(house.drops / "Shelf", tmp_path / "aside")
    answer = house.convert(str(house.drops / "Shelf"))
    assert answer.exit == 0, answer.document
    found = {os.path.basename(book["output"]): decoded(book["output"]) for book in answer.document["books"]}
    assert found == {f"{one.title.title}.m4b": decoded(one.plain) for one in shelf}


def test_an_episode_that_is_a_plain_mp3_is_filed_too(house):
    dropped = layouts.podcast(house.drops / "Talk")
    assert book_of(house, house.drops / "Talk")["samples"]
    assert dropped.audio.exists()


def test_two_parts_in_one_folder_are_two_books_for_they_may_be_two_works(house, tmp_path):
    os.mkdir(house.drops / "Plays")
    for number in (1, 2):
        name = f"Henry IV, Part {number}"
        atoms = {"CDEK": f"B00PART00{number}", "©alb": name, "©nam": name}
        part = plain_book(tmp_path / f"{number}.m4b", 4.0, seed=number, atoms=atoms)
        lock_aaxc(part, house.drops / "Plays" / f"{number}.aaxc")
        (house.drops / "Plays" / f"{number}.key").write_bytes(KEY_FILE)
    answer = house.convert(str(house.drops / "Plays"))
    assert sorted(os.path.basename(book["output"]) for book in answer.document["books"]) == [
        "Henry IV, Part 1.m4b",
        "Henry IV, Part 2.m4b",
    ]


def test_one_key_file_of_any_name_opens_all_the_books_of_its_folder(house, tmp_path):
    for number in (1, 2):
        atoms = {"CDEK": f"B00BOOK00{number}", "©alb": f"Book {number}", "©nam": f"Book {number}"}
        plain = plain_book(tmp_path / f"{number}.m4b", 4.0, seed=number, atoms=atoms)
        layouts.old_app(house.drops / "Old", plain, f"Book{number}_ep6.aax")
    (house.drops / "Old" / "my account.key").write_bytes(ACTIVATION_FILE)
    answer = house.convert(str(house.drops / "Old"))
    assert answer.exit == 0, answer.document
    for book in answer.document["books"]:  # and each backup can be opened by itself
        assert list(Path(book["backup"]).rglob("*.key"))


def test_a_book_that_was_made_without_a_backup_is_proved_again_from_its_source(house, plain):
    layouts.audible_cli(house.drops / "Book", plain)
    answer = house.run("convert", str(house.drops / "Book"), "--no-backup", "--library", str(house.library), "--json")
    assert answer.exit == 0, answer.document
    verified = house.run("verify", "--json", answer.book["output"])
    assert verified.exit == 0, verified.document


def test_an_edit_list_that_hides_packets_at_the_end_is_kept_to_the_sample(house, tmp_path, plain):
    data = bytearray(plain.read_bytes())
    at = data.index(b"elst") + 12
    length = int.from_bytes(data[at : at + 4], "big") - 5000
    data[at : at + 4] = length.to_bytes(4, "big")
    shortened = tmp_path / "shortened.m4b"
    shortened.write_bytes(data)
    os.mkdir(house.drops / "Book")
    lock_aaxc(shortened, house.drops / "Book" / "a.aaxc")
    (house.drops / "Book" / "a.key").write_bytes(KEY_FILE)
    assert book_of(house, house.drops / "Book")["samples"] == length


def test_a_pdf_is_called_like_its_book_when_that_name_was_taken(house, plain):
    layouts.audible_cli(house.drops / "Book", plain)
    taken = house.library / "Ada Keeper" / "The Coast" / "The Lighthouse"
    first = book_of(house, house.drops / "Book")
    other = layouts.audible_cli(house.drops / "Other", plain, without=("-chapters.json",))
    second = book_of(house, other.audio.parent, "--again")
    assert os.path.dirname(first["output"]) != os.path.dirname(second["output"]), taken
    beside = os.listdir(os.path.dirname(second["output"]))
    assert os.path.basename(second["output"]).replace(".m4b", ".pdf") in beside


def test_a_locked_file_whose_index_leaves_packets_out_is_refused_at_once(house, plain):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    data = bytearray(dropped.audio.read_bytes())
    trak = data.index(b"aavd")
    at = data.index(b"stsc", trak) + 12 + 4  # packets in each chunk of the first run
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") - 1).to_bytes(4, "big")
    dropped.audio.write_bytes(data)
    assert refused(house, house.drops / "Book")["code"] == "audio.corrupt"


# --- what is kept ------------------------------------------------------------------------------------------------------


def test_more_chapters_than_the_short_list_holds_are_all_kept(house, tmp_path):
    plain = plain_book(tmp_path / "plain.m4b", 90.0, chapters=300)
    os.mkdir(house.drops / "Book")
    lock_aaxc(plain, house.drops / "Book" / "a.aaxc")
    (house.drops / "Book" / "a.key").write_bytes(KEY_FILE)
    book = book_of(house, house.drops / "Book")
    assert [one["title"] for one in book["chapters"]] == [f"Chapter {number}" for number in range(1, 301)]


def test_what_audible_wrote_into_the_file_stands_in_the_book(house, plain):
    from mutagen.mp4 import MP4

    dropped = layouts.audible_cli(house.drops / "Book", plain, without=("-chapters.json",))
    book = lies(house, house.drops / "Book", dropped)
    tags = MP4(book["output"]).tags
    free = {key.rpartition(":")[2]: bytes(value[0]).decode() for key, value in tags.items() if key.startswith("----")}
    assert tags["©nam"] == ["The Lighthouse"]
    assert tags["©ART"] == ["Ada Keeper; Bo Writer"]
    assert tags["©wrt"] == ["Noa Reader; Cy Voice"]
    assert tags["©day"] == ["2021"]
    assert tags["cprt"] == ["©2021 Ada Keeper (P)2021 Own Press"]
    assert tags["desc"][0].endswith("Read by the one who lit the lamp.")
    assert (free["ASIN"], free["PUBLISHER"]) == (ASIN, "Own Press")


def test_chapters_that_audible_calls_inaccurate_are_those_of_the_file(house, plain):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    (path,) = (one for one in dropped.beside if one.name.endswith("-chapters.json"))
    document = json.loads(path.read_text())
    document["content_metadata"]["chapter_info"]["is_accurate"] = False
    path.write_text(json.dumps(document))
    assert book_of(house, house.drops / "Book")["chapters_from"] == "chapters inside the files"


def test_chapters_of_another_edition_are_not_used(house, plain):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    (path,) = (one for one in dropped.beside if one.name.endswith("-chapters.json"))
    document = json.loads(path.read_text())
    document["content_metadata"]["chapter_info"]["runtime_length_ms"] += 2500
    path.write_text(json.dumps(document))
    book = book_of(house, house.drops / "Book")
    assert book["chapters_from"] == "chapters inside the files"
    assert any("recording of" in warning for warning in book["warnings"])


# --- keys --------------------------------------------------------------------------------------------------------------


def test_a_locked_book_without_a_key_says_what_to_provide(house, plain):
    layouts.audible_cli(house.drops / "Book", plain, without=(".voucher",))
    error = refused(house, house.drops / "Book")
    assert error["code"] == "audible.key_missing"
    assert ".voucher" in error["remedy"]
    assert not list(house.backup.iterdir())  # waiting for a key needs no copy yet


def test_an_aax_without_activation_bytes_says_what_to_provide(house, plain):
    layouts.old_app(house.drops / "Book", plain)
    error = refused(house, house.drops / "Book")
    assert error["code"] == "audible.key_missing"
    assert "audible login" in error["remedy"]


def changed(hexadecimal: str, digit: int) -> str:
    return hexadecimal[:digit] + f"{int(hexadecimal[digit], 16) ^ 1:x}" + hexadecimal[digit + 1 :]


# Of the iv's first digits, the first is a mere label to decoders in this book, and not to be heard.
@pytest.mark.parametrize(
    ("part", "digit"), [("key", 0), ("key", 17), ("key", 31), ("iv", 3), ("iv", 8), ("iv", 17), ("iv", 31)]
)
def test_a_key_that_is_wrong_in_one_digit_is_refused(house, plain, part, digit):
    key, iv = KEY.hex(), IV.hex()
    key, iv = (changed(key, digit), iv) if part == "key" else (key, changed(iv, digit))
    os.mkdir(house.drops / "Book")
    lock_aaxc(plain, house.drops / "Book" / "a.aaxc")
    (house.drops / "Book" / "a.key").write_text(f"Key={key}\nIV={iv}\n")
    error = refused(house, house.drops / "Book")
    assert error["code"] in {"audible.key_wrong", "audio.damaged"}
    if part == "key":
        assert error["code"] == "audible.key_wrong"


def test_the_voucher_of_another_book_is_told_as_such(house, plain):
    mine = layouts.audible_cli(house.drops / "Book", plain, without=(".voucher",))
    other = Title(asin="B00OTHER01", title="Other", key=bytes(16), iv=bytes(16))
    theirs = layouts.audible_cli(house.drops / "Other", plain, other)
    voucher = next(one for one in theirs.beside if one.suffix == ".voucher")
    shutil.copy(voucher, mine.audio.with_suffix(".voucher"))
    error = refused(house, house.drops / "Book")
    assert error["code"] == "audible.key_wrong"
    assert "B00OTHER01" in error["message"]


def test_activation_bytes_of_another_account_are_told_as_such(house, plain):
    layouts.old_app(house.drops / "Book", plain)
    (house.drops / "Book" / "a.key").write_text("ActivationBytes=1a2b3c4e\n")
    error = refused(house, house.drops / "Book")
    assert error["code"] == "audible.key_wrong"
    assert "another account" in error["message"]


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"{}", b"[1]", b"Key=12\nIV=34\n", b'{"content_license": null}', b"\xff" * 99]
)
def test_a_key_file_that_holds_none_is_as_good_as_none(house, plain, content):
    os.mkdir(house.drops / "Book")
    lock_aaxc(plain, house.drops / "Book" / "a.aaxc")
    (house.drops / "Book" / "a.voucher").write_bytes(content)
    error = refused(house, house.drops / "Book")
    assert error["code"] == "audible.key_missing"
    assert "a.voucher holds none" in error["message"]


# --- damage, strangers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0.2, 0.7, 0.99])
def test_a_locked_file_that_is_still_arriving_is_incomplete(house, plain, at):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    audible_files.cut(dropped.audio, at)
    assert refused(house, house.drops / "Book")["code"] == "audio.truncated"


@pytest.mark.parametrize("place", [0.3, 0.55, 0.9])
def test_a_locked_file_with_a_rotten_stretch_is_refused(house, plain, place):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    data = bytearray(dropped.audio.read_bytes())
    at = int(place * len(data))
    data[at : at + 3000] = bytes(byte ^ 0x55 for byte in data[at : at + 3000])
    dropped.audio.write_bytes(data)
    error = refused(house, house.drops / "Book")
    assert error["code"] in {"audio.damaged", "audible.key_wrong"}


@pytest.mark.parametrize(
    ("make", "code", "word"),
    [
        (strangers.aa, "audio.unsupported_codec", ".aa"),
        (strangers.adh, "audio.not_audio", ".adh"),
        (strangers.cenc, "audio.encrypted", "Widevine"),
        (strangers.dash, "audio.encrypted", "Widevine"),
        (strangers.usac, "audio.unsupported_codec", "xHE-AAC"),
        (strangers.dolby_digital_plus, "audio.unsupported_codec", "Dolby"),
        (strangers.dolby_ac4, "audio.unsupported_codec", "Dolby"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_unlocked_is_refused_with_a_sentence_of_its_own(house, make, code, word):
    os.mkdir(house.drops / "Book")
    (house.drops / "Book" / "a.aax").write_bytes(make())
    error = refused(house, house.drops / "Book")
    assert error["code"] == code
    assert word in error["message"]


# --- the backup --------------------------------------------------------------------------------------------------------


def test_a_restored_backup_can_be_unlocked_although_the_key_came_from_the_settings(house, plain):
    house.set(f'[audible]\nactivation_bytes = "{ACTIVATION_BYTES.hex()}"\n')
    os.mkdir(house.drops / "Book")
    lock_aax(plain, house.drops / "Book" / "a.aax")
    book = book_of(house, house.drops / "Book")
    key = os.path.join(book["backup"], "a.key")
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    house.set("")
    shutil.rmtree(house.drops / "Book")
    restored = house.run("backups", "restore", book["backup"], str(house.drops / "Again"))
    assert restored.exit == 0, restored.talk
    again = next((house.drops / "Again").rglob("a.aax")).parent
    assert stat.S_IMODE(os.stat(again / "a.key").st_mode) == 0o600
    assert book_of(house, again, "--again")["output"]


def test_a_voucher_is_copied_for_its_owner_only(house, plain):
    dropped = layouts.audible_cli(house.drops / "Book", plain)
    voucher = next(one for one in dropped.beside if one.suffix == ".voucher")
    book = book_of(house, house.drops / "Book")
    assert stat.S_IMODE(os.stat(os.path.join(book["backup"], voucher.name)).st_mode) == 0o600


def test_a_book_that_was_unlocked_is_proved_again_from_its_backup(house, plain):
    layouts.audible_cli(house.drops / "Book", plain)
    book = book_of(house, house.drops / "Book")
    verified = house.run("verify", "--json", book["output"])
    assert verified.exit == 0, verified.document
    assert "proof" in json.dumps(verified.document)
