"""Does a whole conversion keep what is promised of books? Their sound, chapters, tags, names, and what is told of them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

import faults
import household
import sound
from household import RATE, clip, heard, picture, rich_id3, snapshot, tracks


def converted(house, folder, *options):
    """Convert one drop; return its entry in the JSON document and what other tools find in the book."""
    answer = house.convert(folder, *options)
    assert answer.exit == 0, answer.document
    assert answer.document["ok"] is True
    assert house.litter() == []
    return answer.book, heard(answer.book["output"])


def likeness(piece, wanted):
    return float(np.corrcoef(piece, wanted)[0, 1])


def titles(book):
    return [chapter["title"] for chapter in book["chapters"]]


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_document_has_the_documented_shape(house):
    book, _ = converted(house, house.drop("Emma", tracks(3)))
    kinds = {
        "source": str,
        "output": str,
        "already": bool,
        "backup": str,
        "sha256": str,
        "samples": int,
        "sample_rate": int,
        "channels": int,
        "bitrate": int,
        "chapters": list,
        "order": dict,
        "proof": dict,
        "warnings": list,
        "seconds": dict,
        "speed": float,
    }
    assert {key: type(book[key]) for key in kinds} == kinds
    assert all(set(chapter) == {"title", "start_samples"} for chapter in book["chapters"])
    assert set(book["order"]) == {"files", "evidence"}
    assert {"examine", "backup", "plan", "convert", "verify", "publish", "total"} <= set(book["seconds"])
    assert book["source"] == str(house.drops / "Emma")
    assert book["warnings"] == []


def test_the_book_is_what_the_document_says(house):
    book, found = converted(house, house.drop("Emma", tracks(3)))
    assert book["samples"] == found.samples == 3 * RATE
    assert book["sample_rate"] == found.sample_rate == RATE
    assert book["channels"] == found.channels == 1
    assert [(one["title"], one["start_samples"]) for one in book["chapters"]] == found.chapters
    assert found.chapters == [("Part the 1.", 0), ("Part the 2.", RATE), ("Part the 3.", 2 * RATE)]
    assert found.tags["\xa9nam"] == found.tags["\xa9alb"] == ["Emma"]
    assert found.tags["\xa9ART"] == ["Jane Austen"]
    assert book["sha256"] == household.hashlib.sha256(Path(book["output"]).read_bytes()).hexdigest()
    assert book["proof"]["samples"] == book["samples"]
    # Mutagen counts the hidden priming too.
    assert abs(found.tags.info.length - (3 + 1024 / RATE)) < 0.001


def test_the_sound_is_that_of_the_files_in_their_order(house):
    _, found = converted(house, house.drop("Emma", tracks(3)))
    for place in range(3):
        piece = found.sound[0, place * RATE : (place + 1) * RATE]
        assert likeness(piece, sound.speech(1.0, RATE, seed=place + 1)[0]) > 0.8


def test_the_record_holds_what_proves_the_book_later(house):
    book, _ = converted(house, house.drop("Emma", tracks(2)))
    record = json.loads(house.record(book).read_bytes())["record"]
    assert record["sha256"] == book["sha256"]
    assert record["book"] == os.path.relpath(book["output"], house.library)
    assert record["backup"]["root"] == book["backup"]
    assert found_id(book) == record["id"]


def found_id(book):
    values = [
        value[0].decode()
        for key, value in heard(book["output"]).tags.items()
        if key.startswith("----") and "aiom4b" in key.lower()
    ]
    return book["id"] if book["id"] in values else values


# --- again ------------------------------------------------------------------------------------------------------------


def test_the_same_drop_again_is_there_already_and_nothing_is_written(house):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    before = everything_below(house.library) | everything_below(house.backup)
    again, _ = converted(house, folder)
    assert again["already"] is True
    assert first["already"] is False
    for key in (
        "output",
        "sha256",
        "samples",
        "sample_rate",
        "channels",
        "chapters",
        "id",
        "bitrate",
        "backup",
        "order",
    ):
        assert again[key] == first[key], key
    assert everything_below(house.library) | everything_below(house.backup) == before


def everything_below(folder):
    """Return all but the folder itself, whose own time changes when it is tried whether we may write there."""
    seen = snapshot(folder)
    del seen[os.fsencode(folder) + b"/."]
    return seen


def test_the_same_audio_under_other_names_is_there_already(house):
    files = tracks(2)
    converted(house, house.drop("Emma", files))
    renamed = {f"Emma - {name}": data for name, data in files.items()}
    again, _ = converted(house, house.drop("emma again", renamed))
    assert again["already"] is True


def test_the_same_book_twice_on_one_command_line_is_made_once(house):
    files = tracks(2)
    answer = house.convert(house.drop("Emma", files), house.drop("Emma copy", files))
    assert answer.exit == 0
    assert sorted(book["already"] for book in answer.document["books"]) == [False, True]
    assert len(house.books()) == 1


def test_again_with_other_settings_makes_a_second_book_beside_the_first(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    before = snapshot(os.path.dirname(first["output"]))
    monkeypatch.setenv("AIOM4B_ENCODE__BITRATE", "32k")
    second, _ = converted(house, folder, "--again")
    assert second["output"] == str(house.library / "Jane Austen" / "Emma (2)" / "Emma (2).m4b")
    assert second["already"] is False
    assert second["sha256"] != first["sha256"]
    assert snapshot(os.path.dirname(first["output"])) == before
    assert len(house.run("backups", "list", "--backup", str(house.backup), "--json").document["items"]) == 1


def test_again_with_nothing_changed_makes_no_second_copy_of_the_same_bytes(house):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    before = snapshot(os.path.dirname(first["output"]))
    second, _ = converted(house, folder, "--again")
    assert (second["output"], second["already"]) == (first["output"], True)
    assert second["segments"]["made"] > 0
    assert snapshot(os.path.dirname(first["output"])) == before
    assert len(house.books()) == 1


def test_a_book_whose_record_is_lost_is_recognised_by_its_bytes_and_gets_its_record_back(house):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    house.record(first).unlink()
    answer = house.convert(folder)
    assert (answer.book["output"], answer.book["already"]) == (first["output"], True)
    assert house.record(first).exists()
    assert len(house.books()) == 1


def test_the_same_bytes_under_the_third_name_are_found_though_the_names_before_it_are_free_again(house):
    folder = house.drop("Emma", tracks(2))
    for name in ("Emma", "Emma (2)"):
        (house.library / "Jane Austen" / name).mkdir(parents=True)
    first, _ = converted_beside_others(house, folder)
    assert first["output"].endswith("/Emma (3)/Emma (3).m4b")
    for name in ("Emma (2)", "Emma"):
        (house.library / "Jane Austen" / name).rmdir()
        again = house.convert(folder, "--again").book
        assert (again["output"], again["already"]) == (first["output"], True)
    assert house.litter() == []


def converted_beside_others(house, folder):
    """Convert where empty folders of the owner's are no litter."""
    answer = house.convert(folder)
    assert answer.exit == 0, answer.document
    return answer.book, heard(answer.book["output"])


def test_a_name_whose_accent_is_written_in_the_other_way_counts_as_taken(house):
    (house.library / "Jane Austen" / "E\u0301mile").mkdir(parents=True)
    answer = house.convert(house.drop("Émile", tracks(2, album="Émile")))
    assert answer.book["output"] == str(house.library / "Jane Austen" / "Émile (2)" / "Émile (2).m4b")


def test_a_book_that_its_owner_deleted_is_made_again(house):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    shutil.rmtree(house.library / "Jane Austen")
    second, _ = converted(house, folder)
    assert (second["already"], second["output"], second["sha256"]) == (False, first["output"], first["sha256"])


def test_a_library_that_moved_still_knows_its_books(house):
    folder = house.drop("Emma", tracks(2))
    converted(house, folder)
    os.rename(house.library, house.root / "moved")
    house.library = house.root / "moved"
    again, _ = converted(house, folder)
    assert again["already"] is True
    assert again["output"] == str(house.root / "moved/Jane Austen/Emma/Emma.m4b")
    assert house.run("verify", again["output"], "--json").document["proved"] == "against its backup"


def test_a_torn_record_is_no_record(house):
    folder = house.drop("Emma", tracks(2))
    first, _ = converted(house, folder)
    house.record(first).write_bytes(house.record(first).read_bytes()[:700])
    answer = house.convert(folder)
    assert answer.exit == 0
    assert answer.book["segments"]["made"] > 0
    assert house.run("verify", first["output"], "--json").document["proved"] == "against its backup"


def test_segments_that_are_there_are_not_made_again(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    with monkeypatch.context() as patch:
        patch.setattr("aiom4b.engine.mux.mux", faults.mistaken)
        assert house.convert(folder).error["code"] == "worker.error"
    monkeypatch.setattr("aiom4b.engine.segment.make_segment", faults.mistaken)
    book, _ = converted(house, folder)
    assert book["segments"] == {"made": 0, "reused": 1}


def test_a_segment_that_rotted_on_the_disk_is_told_and_made_anew(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    with monkeypatch.context() as patch:
        patch.setattr("aiom4b.engine.mux.mux", faults.mistaken)
        house.convert(folder)
    (segment,) = house.library.glob(".aiom4b/work/*/segments/*.aac")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    answer = house.convert(folder)
    assert (answer.exit, answer.error["code"]) == (75, "segment.damaged")
    book, _ = converted(house, folder)
    assert book["segments"] == {"made": 1, "reused": 0}


# --- what is dropped --------------------------------------------------------------------------------------------------


def test_disc_folders_are_one_book_in_the_order_of_the_discs(house):
    discs = {f"CD{disc}/{n:02}.mp3": clip(10 * disc + n) for disc in (1, 2, 10) for n in (1, 2)}
    discs |= {f"CD{disc}/01.mp3": clip(10 * disc + 1) for disc in range(3, 10)}
    book, found = converted(house, house.drop("Emma", discs))
    wanted = ["CD1/01.mp3", "CD1/02.mp3", "CD2/01.mp3", "CD2/02.mp3"]
    wanted += [f"CD{disc}/01.mp3" for disc in range(3, 10)] + ["CD10/01.mp3", "CD10/02.mp3"]
    assert book["order"]["files"] == wanted
    assert found.samples == len(wanted) * RATE


def test_several_books_in_one_folder_become_several_books(house):
    emma = {f"Emma/{name}": data for name, data in tracks(2).items()}
    ulysses = {
        f"Ulysses/{name}": data for name, data in tracks(2, album="Ulysses", artist="James Joyce", first_seed=5).items()
    }
    folder = house.drop("Two", emma | ulysses)
    before = snapshot(folder)
    answer = house.convert(folder)
    assert answer.exit == 0
    assert [book["source"] for book in answer.document["books"]] == [f"{folder}/Emma", f"{folder}/Ulysses"]
    assert house.books() == ["James Joyce/Ulysses/Ulysses.m4b", "Jane Austen/Emma/Emma.m4b"]
    assert snapshot(folder) == before
    assert house.litter() == []


def test_a_single_mp3_is_a_book_and_its_neighbours_are_not_looked_at(house):
    folder = house.drop("files", {"Emma.mp3": clip(1), "Other.mp3": b"not looked at", "Emma.jpg": picture()})
    with household.Bait(os.path.join(folder, "Other.mp3")) as watch:
        book, found = converted(house, os.path.join(folder, "Emma.mp3"))
        assert watch.taken() == set()
    assert found.samples == RATE
    assert os.path.basename(book["output"]) == "Emma.m4b"
    assert "covr" in found.tags


def test_a_single_aac_file_is_copied_packet_by_packet(house):
    data = sound.m4a(sound.speech(3, 44100, channels=2), 44100, chapters=[(0, "One"), (1.5, "Two")])
    book, found = converted(house, house.drop("Emma", {"Emma.m4b": data}))
    ours = [packet for packet, _, _ in sound.packets(Path(book["output"]).read_bytes(), format="mp4")]
    assert ours == [packet for packet, _, _ in sound.packets(data, format="mp4")]
    assert found.samples == book["samples"] == 3 * 44100
    assert found.chapters == [("One", 0), ("Two", 66150)]


@pytest.mark.parametrize(("join", "exact"), [("copy", False), ("encode", True)])
def test_several_aac_files_are_joined_as_the_settings_say(house, join, exact):
    house.set(f'[encode]\naac_join = "{join}"\n')
    files = {f"{n}.m4a": sound.m4a(sound.speech(1.5, 44100, seed=n), 44100) for n in (1, 2, 3)}
    book, found = converted(house, house.drop("Emma", files))
    assert (found.samples == round(4.5 * 44100)) is exact
    assert found.samples == book["samples"]
    assert any("padding" in warning for warning in book["warnings"]) is not exact
    starts = [start for _, start in found.chapters]
    for n, start in enumerate(starts):
        # A copied file begins with its own priming; the chapter begins there too.
        begin = start + (1024 if n and not exact else 0)
        assert likeness(found.sound[0, begin : begin + 44100], sound.speech(1.5, 44100, seed=n + 1)[0, :44100]) > 0.8


def test_mixed_rates_and_channels_keep_pitch_length_and_order(house):
    rates = [(44100, 1), (22050, 2), (44100, 1), (8000, 1)]
    files = {
        f"{n}.mp3": sound.mp3(
            sound.tone(1.5, rate, frequency=300 + 100 * n, channels=channels),
            rate,
            bit_rate=64000 if rate > 8000 else 16000,
        )
        for n, (rate, channels) in enumerate(rates, 1)
    }
    book, found = converted(house, house.drop("Mixed", files))
    assert (book["sample_rate"], book["channels"]) == (44100, 2)
    assert abs(found.samples - 6 * 44100) <= len(rates)
    for n in range(1, 5):
        begin = round((n - 1) * 1.5 * 44100) + 11025
        spectrum = np.abs(np.fft.rfft(found.sound[0, begin : begin + 44100]))
        assert abs(int(spectrum.argmax()) - (300 + 100 * n)) <= 1


def test_fixed_encoder_settings_are_followed(house):
    house.set('[encode]\nbitrate = "128k"\nchannels = 2\nsample_rate = 44100\naac_coder = "twoloop"\n')
    book, found = converted(house, house.drop("Emma", {"1.mp3": clip(seconds=2)}))
    assert (found.sample_rate, found.channels, book["sample_rate"], book["channels"]) == (44100, 2, 44100, 2)
    assert found.samples == 2 * 44100


# --- cover ------------------------------------------------------------------------------------------------------------


def cover_of(book, found):
    beside = os.path.join(os.path.dirname(book["output"]), "cover.jpg")
    data = Path(beside).read_bytes()
    assert bytes(found.tags["covr"][0]) == data
    return household.Image.open(household.io.BytesIO(data))


def test_a_cover_beside_the_audio_goes_into_the_book_and_beside_it(house):
    book, found = converted(house, house.drop("Emma", tracks(2) | {"cover.jpg": picture("blue")}))
    assert Path(os.path.dirname(book["output"]) + "/cover.jpg").read_bytes() == picture("blue")
    assert cover_of(book, found).format == "JPEG"


def test_an_embedded_cover_is_used_where_there_is_no_other(house):
    files = {"1.mp3": rich_id3(cover=picture("green")) + clip(1), "2.mp3": clip(2)}
    book, found = converted(house, house.drop("Emma", files))
    assert cover_of(book, found).getpixel((5, 5))[1] > 100


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "CMYK")])
def test_any_picture_becomes_a_plain_jpeg(house, kind, mode):
    book, found = converted(house, house.drop("Emma", tracks(1) | {"folder.jpg": picture(kind=kind, mode=mode)}))
    cover = cover_of(book, found)
    assert (cover.format, cover.mode) == ("JPEG", "RGB")
    assert any("cover" in warning.lower() for warning in book["warnings"])


@pytest.mark.parametrize("data", [b"", b"no picture at all", picture()[:200]])
def test_a_bad_cover_is_left_out_with_a_warning_and_never_stops_a_book(house, data):
    book, found = converted(house, house.drop("Emma", tracks(1) | {"cover.jpg": data}))
    assert "covr" not in found.tags
    assert os.listdir(os.path.dirname(book["output"])) == ["Emma.m4b"]
    assert any("cover.jpg" in warning for warning in book["warnings"])


# --- chapters and metadata --------------------------------------------------------------------------------------------


def test_chapters_in_id3_are_kept_to_the_millisecond(house):
    data = rich_id3(chapters=[(0, "Dawn"), (0.75, "Noon"), (2.125, "Night")]) + clip(seconds=3)
    book, found = converted(house, house.drop("Emma", {"1.mp3": data}))
    assert [title for title, _ in found.chapters] == ["Dawn", "Noon", "Night"]
    for (_, start), wanted in zip(found.chapters, (0, 0.75, 2.125), strict=True):
        assert abs(start - wanted * RATE) <= RATE / 1000
    assert titles(book) == ["Dawn", "Noon", "Night"]


CUE = """FILE "book.wav" WAVE
  TRACK 01 AUDIO
    TITLE "Dawn"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Noon"
    INDEX 01 00:01:37
"""


FFMETADATA = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1493
title=Dawn
[CHAPTER]
TIMEBASE=1/1000
START=1493
END=3000
title=Noon
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("book.cue", CUE),
        ("chapters.txt", "00:00:00.000 Dawn\n00:00:01.493 Noon\n"),
        ("book.ffmetadata", FFMETADATA),
    ],
)
def test_chapters_beside_the_audio_are_used(house, name, text):
    _, found = converted(house, house.drop("Emma", {"book.mp3": clip(seconds=3), name: text.encode()}))
    assert [title for title, _ in found.chapters] == ["Dawn", "Noon"]
    assert abs(found.chapters[1][1] - 1.4933 * RATE) <= RATE / 1000


def test_more_than_255_chapters_all_arrive(house):
    lines = "".join(f"00:00:{n / 100:06.3f} Chapter no {n}\n" for n in range(0, 2990, 11))
    _, found = converted(house, house.drop("Emma", {"book.mp3": clip(seconds=30), "chapters.txt": lines.encode()}))
    assert len(found.chapters) == 272
    assert found.chapters[-1][0] == "Chapter no 2981"


def test_a_metadata_json_of_its_owner_beats_the_tags(house):
    known = {
        "title": "Emma, annotated",
        "authors": ["Austen, Jane"],
        "narrators": ["Jane Doe"],
        "publishedYear": "1815",
    }
    folder = house.drop("Emma", tracks(2) | {"metadata.json": json.dumps(known).encode()})
    book, found = converted(house, folder)
    assert found.tags["\xa9nam"] == ["Emma, annotated"]
    assert found.tags["\xa9ART"] == ["Austen, Jane"]
    assert found.tags["\xa9wrt"] == ["Jane Doe"]
    assert found.tags["\xa9day"] == ["1815"]
    written = json.loads(Path(os.path.dirname(book["output"]) + "/metadata.json").read_bytes())
    assert written["authors"] == ["Austen, Jane"]  # the player's server would turn the name round


def test_an_opf_is_read_and_needs_no_metadata_json(house):
    opf = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf"><metadata
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf"><dc:title>Emma Woodhouse</dc:title>
    <dc:creator opf:role="aut">Jane Austen</dc:creator><meta name="calibre:series" content="Highbury"/>
    <meta name="calibre:series_index" content="2.0"/></metadata></package>"""
    book, found = converted(house, house.drop("Emma", tracks(2) | {"book.opf": opf.encode()}))
    assert found.tags["\xa9nam"] == ["Emma Woodhouse"]
    assert book["output"] == str(house.library / "Jane Austen/Highbury/Emma Woodhouse/Emma Woodhouse.m4b")
    assert os.listdir(os.path.dirname(book["output"])) == ["Emma Woodhouse.m4b"]


def test_the_folder_s_name_serves_where_there_is_nothing_else(house):
    book, _ = converted(house, house.drop("Jane Austen - Emma", {"1.mp3": clip(1), "2.mp3": clip(2)}))
    assert book["output"] == str(house.library / "Jane Austen" / "Emma" / "Emma.m4b")


def test_tags_in_a_wrong_code_page_do_not_stop_a_book(house):
    bad = b"TALB" + (7).to_bytes(4, "big") + b"\0\0" + b"\x00K\xe4\xdfe \x92"
    book, found = converted(house, house.drop("Emma", {"1.mp3": sound.id3(bad) + clip(1)}))
    assert found.samples == RATE
    assert book["output"].isprintable()


def test_everything_in_the_drop_is_in_the_backup(house):
    beside = {"notes.odt": b"notes", "extra/map.png": picture(kind="PNG"), "desc.txt": b"About Emma."}
    book, _ = converted(house, house.drop("Emma", tracks(2) | beside))
    for name, data in (tracks(2) | beside).items():
        assert Path(os.path.join(book["backup"], name)).read_bytes() == data
    assert os.path.dirname(book["backup"]) == str(house.backup)


def test_without_a_backup_none_is_made(house):
    book, _ = converted(house, house.drop("Emma", tracks(2)), "--no-backup")
    assert book["backup"] is None
    assert os.listdir(house.backup) == []
    assert book["proof"]["against"] == "the source"


# --- modes ------------------------------------------------------------------------------------------------------------


def test_a_library_s_group_is_inherited(house):
    os.chmod(house.library, 0o2775)
    book, _ = converted(house, house.drop("Emma", tracks(2)))
    assert os.stat(os.path.dirname(book["output"])).st_mode & stat.S_ISGID
    assert os.stat(house.library / "Jane Austen").st_mode & stat.S_ISGID


def test_a_book_that_ends_just_behind_a_segment_is_published(house):
    """Its last segment was one packet with eight samples of sound, and refused."""
    house.set('[encode]\naac_coder = "twoloop"\n')
    folder = house.drop("Emma", {f"{n}.mp3": clip(10 + n, seconds=20) for n in (1, 2, 3)})
    assert house.convert(folder).exit == 0
