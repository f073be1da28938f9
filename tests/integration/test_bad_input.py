"""What becomes of a drop that is no good? A code, a reason, a remedy; nothing half-made, and the drop as it was."""

from __future__ import annotations

import base64
import os
import pkgutil
import re
import socket
from pathlib import Path

import pytest

import faults
import household
import sound
from aiom4b import pipeline
from aiom4b.engine import pool, segment
from aiom4b.errors import Transient
from household import Bait, clip, id3, picture, snapshot, tracks


@pytest.fixture
def refused(house):
    """Return a check that a drop is refused in the documented way and that a good one beside it goes on."""

    def check(bad, code, *options, exit=1, work=False):
        good = house.drop("good one", tracks(2))
        before = snapshot(house.drops)
        answer = house.convert(bad, good, *options)
        assert snapshot(house.drops) == before
        assert answer.document["ok"] is False
        first, second = answer.document["books"]
        assert first["error"]["code"] == code
        assert first["error"]["message"]
        assert first["error"]["remedy"]
        assert "output" not in first
        assert answer.exit == exit
        assert second["output"].endswith("Jane Austen/Emma/Emma.m4b")
        assert house.litter(work=work) == []
        assert house.books() == ["Jane Austen/Emma/Emma.m4b"]
        return first["error"]

    return check


# --- no audio, or none that can be used -------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_exits_4(house, refused):
    error = refused(str(house.drops / "nowhere"), "source.missing", exit=4)
    assert "nowhere" in error["message"]


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"nothing to hear", "cover.jpg": picture()}])
def test_a_folder_without_audio_is_told_so(house, refused, files):
    folder = house.drop("silent", files)
    os.makedirs(folder, exist_ok=True)
    refused(folder, "source.no_audio")


def test_a_zero_byte_mp3_is_named(house, refused):
    error = refused(house.drop("bad", tracks(2) | {"03.mp3": b""}), "file.empty")
    assert "03.mp3" in error["message"]


def test_a_truncated_mp3_is_named_with_the_second_where_it_ends(house, refused):
    whole = clip(seconds=4)
    error = refused(house.drop("bad", tracks(2) | {"03.mp3": sound.cut(whole, 0.5)}), "audio.truncated")
    assert "03.mp3" in error["message"]
    assert "second 2." in error["message"] or "second 1.9" in error["message"]


def test_a_truncated_m4a_is_refused(house, refused):
    whole = sound.m4a(sound.speech(4, household.RATE), household.RATE)
    data_first = whole.index(b"mdat") < whole.index(b"moov")
    torn = whole[:-2000] if not data_first else whole[: whole.index(b"mdat") + 2000] + whole[whole.index(b"moov") - 4 :]
    error = refused(house.drop("bad", {"01.m4a": torn}), "audio.truncated")
    assert "01.m4a" in error["message"]


def test_an_mp3_of_noise_is_no_sound(house, refused):
    noise = bytes(sound.np.random.default_rng(1).integers(0, 256, 40_000, dtype="uint8"))
    error = refused(house.drop("bad", tracks(2) | {"03.mp3": noise}), "audio.not_audio")
    assert "03.mp3" in error["message"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"Dear diary, this is no sound at all.\n" * 50, "text"),
        (picture(), "JPEG"),
        (picture(kind="PNG"), "PNG"),
        (b"%PDF-1.7\n" + bytes(2000), "PDF"),
    ],
)
def test_something_else_named_mp3_is_called_what_it_is(house, refused, data, word):
    error = refused(house.drop("bad", tracks(2) | {"03.mp3": data}), "audio.not_audio")
    assert word in error["message"]
    assert "03.mp3" in error["message"]


@pytest.mark.parametrize(
    ("data", "word"), [(b"RIFF\0\0\0\0WAVEfmt " + bytes(500), "WAV"), (b"fLaC" + bytes(500), "FLAC")]
)
def test_other_kinds_of_sound_are_refused_by_name(house, refused, data, word):
    error = refused(house.drop("bad", tracks(2) | {"03.mp3": data}), "audio.unsupported_codec")
    assert word in error["message"]
    assert "03.mp3" in error["message"]


def test_aac_in_mp4_named_mp3_is_taken_for_what_it_is(house):
    whole = sound.m4a(sound.speech(2, household.RATE), household.RATE)
    answer = house.convert(house.drop("Misnamed", {"book.mp3": whole}))
    assert answer.exit == 0
    assert answer.book["samples"] == 2 * household.RATE
    assert house.litter() == []


@pytest.mark.parametrize("mark", ["hls", "ffconcat", "absolute", "cue"])
def test_no_other_file_is_opened_because_of_what_a_file_says(house, mark):
    bait = house.root / "bait.mp3"
    bait.write_bytes(clip(9))
    text = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../../bait.mp3\n#EXT-X-ENDLIST\n",
        "ffconcat": "ffconcat version 1.0\nfile ../../bait.mp3\n",
        "absolute": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{bait}\n#EXT-X-ENDLIST\n",
        "cue": f'FILE "{bait}" MP3\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    }[mark]
    folder = house.drop("bad", tracks(2) | {"03.mp3": text.encode()})
    with Bait(bait) as watch:
        answer = house.convert(folder)
        assert watch.taken() == set()
        bait.read_bytes()
        assert watch.taken() == {str(bait)}  # the watch does see
    assert answer.error["code"] == "audio.not_audio"
    assert house.litter() == []


@pytest.mark.parametrize("name", ["list.m3u", "book.cue", "chapters.txt", "metadata.json", "book.opf"])
def test_no_sidecar_leads_to_a_file_outside_the_book(house, name):
    bait = house.root / "bait.mp3"
    bait.write_bytes(clip(9))
    text = {
        "list.m3u": f"../../bait.mp3\n{bait}\n",
        "book.cue": f'FILE "{bait}" MP3\n  TRACK 01 AUDIO\n    TITLE "x"\n    INDEX 01 00:00:00\n',
        "chapters.txt": f"00:00:00 {bait}\n",
        "metadata.json": f'{{"title": "Emma", "cover": "{bait}"}}',
        "book.opf": f'<!DOCTYPE p [<!ENTITY x SYSTEM "file://{bait}">]><package><title>&x;</title></package>',
    }[name]
    with Bait(bait) as watch:
        answer = house.convert(house.drop("book", tracks(2) | {name: text.encode()}))
        assert watch.taken() == set()
    assert answer.exit == 0


# --- names that are no files ------------------------------------------------------------------------------------------


def test_links_and_fifos_in_a_drop_are_left_out_unopened_and_said_so(house):
    folder = house.drop("Emma", tracks(2))
    bait = house.root / "secret.mp3"
    bait.write_bytes(clip(9))
    os.symlink(bait, os.path.join(folder, "03.mp3"))
    os.symlink(house.root, os.path.join(folder, "04"))
    os.mkfifo(os.path.join(folder, "05.mp3"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.join(folder, "06.mp3"))
        with Bait(bait, os.path.join(folder, "05.mp3")) as watch:
            answer = house.convert(folder)
            assert watch.taken() == set()
    assert answer.exit == 0
    assert answer.book["samples"] == 2 * household.RATE
    for name in ("03.mp3", "04", "05.mp3", "06.mp3"):
        assert any(warning.startswith(name) for warning in answer.book["warnings"])


def test_a_fifo_or_link_is_no_book_itself(house, refused):
    fifo, link = str(house.drops / "pipe.mp3"), str(house.drops / "link")
    os.mkfifo(fifo)
    os.symlink(house.drop("Emma", tracks(2)), link)
    refused(fifo, "source.not_regular")
    answer = house.convert(link)
    assert answer.error["code"] == "source.not_regular"


def test_a_folder_whose_only_audio_is_a_link_was_told_to_hold_none(house, refused):
    folder = house.drop("linked", {"notes.txt": b"x"})
    os.symlink(house.drop("Emma", tracks(1)) + "/01.mp3", os.path.join(folder, "01.mp3"))
    error = refused(folder, "source.no_audio")
    assert "01.mp3 was left out: it is no regular file." in error["message"]
    assert "links" in error["remedy"]


# --- what is missing, or contradicts itself ---------------------------------------------------------------------------


def test_a_missing_track_number_is_named(house, refused):
    files = tracks(4)
    del files["03.mp3"]
    error = refused(house.drop("gap", files), "source.tracks_fewer_than_total")
    assert "3" in error["message"]
    assert "--order" in error["remedy"]


def test_a_missing_number_in_the_names_is_named(house, refused):
    error = refused(house.drop("gap", {f"{n}.mp3": clip(n) for n in (1, 2, 4)}), "source.track_missing")
    assert "3" in error["message"]


def test_a_missing_disc_is_named(house, refused):
    files = {f"CD{disc}/{n}.mp3": clip(10 * disc + n) for disc in (1, 3) for n in (1, 2)}
    error = refused(house.drop("gap", files), "source.disc_missing")
    assert "2" in error["message"]


def test_a_gap_that_its_owner_knows_of_is_converted_and_reported(house):
    answer = house.convert(house.drop("gap", {f"{n}.mp3": clip(n) for n in (1, 2, 4)}), "--order", "names")
    assert answer.exit == 0
    assert any("3" in warning and "incomplete" in warning for warning in answer.book["warnings"])


def contradiction(house):
    files = {
        f"{n}.mp3": id3(TRCK=str(4 - n), TALB="Emma", TPE1="Jane Austen", TIT2=f"T{n}x") + clip(n) for n in (1, 2, 3)
    }
    return house.drop("contradiction", files)


def test_names_and_tags_that_contradict_each_other_are_both_shown(house):
    folder = contradiction(house)
    before = snapshot(folder)
    answer = house.convert(folder)
    assert answer.exit == 1
    assert answer.error["code"] == "order.contradiction"
    assert "3.mp3 | 1.mp3" in answer.error["message"]
    assert "--order names" in answer.error["remedy"]
    assert "--order tags" in answer.error["remedy"]
    assert house.litter(work=True) == []
    assert snapshot(folder) == before


@pytest.mark.parametrize(("choice", "wanted"), [("names", [1, 2, 3]), ("tags", [3, 2, 1])])
def test_the_owner_s_choice_of_order_is_what_is_heard(house, choice, wanted):
    answer = house.convert(contradiction(house), "--order", choice)
    assert answer.exit == 0
    assert answer.book["order"]["files"] == [f"{n}.mp3" for n in wanted]
    found = household.heard(answer.book["output"])
    for place, seed in enumerate(wanted):
        piece = found.sound[0, place * household.RATE : (place + 1) * household.RATE]
        likeness = [
            sound.np.corrcoef(piece, sound.speech(1.0, household.RATE, seed=other)[0])[0, 1] for other in (1, 2, 3)
        ]
        assert max(likeness) == likeness[seed - 1] > 0.8


def test_a_file_over_the_limit_is_refused_with_the_limit(house, refused):
    house.set("[limits]\nmax_file_size_mb = 1\n")
    large = clip() + bytes(1_000_000)
    error = refused(house.drop("large", {"book.mp3": large}), "file.too_large")
    assert "1000000" in error["message"]
    assert "book.mp3" in error["message"]


def test_more_files_than_allowed_are_refused(house, refused):
    house.set("[limits]\nmax_files = 4\n")
    refused(house.drop("many", {f"{n}.txt": b"x" for n in range(5)}), "source.too_large")


def test_a_drop_that_is_still_being_copied_waits(house, refused):
    error = refused(house.drop("arriving", tracks(2) | {"03.mp3.part": b"half"}), "source.arriving")
    assert "03.mp3.part" in error["message"]


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["library", "backup"])
def test_a_directory_that_is_missing_is_not_made(house, which):
    folder = house.drop("Emma", tracks(2))
    os.rmdir(getattr(house, which))
    answer = house.convert(folder)
    assert answer.exit == 4
    assert answer.error["code"] == "directory.missing"
    assert str(getattr(house, which)) in answer.error["message"]
    assert answer.error["remedy"]
    assert not getattr(house, which).exists()


@pytest.mark.parametrize("which", ["library", "backup"])
def test_a_directory_that_is_a_file_is_refused(house, which):
    folder = house.drop("Emma", tracks(2))
    os.rmdir(getattr(house, which))
    getattr(house, which).write_text("mine")
    answer = house.convert(folder)
    assert answer.exit != 0
    assert answer.error["message"] == f"{getattr(house, which)} is not a folder."
    assert answer.error["remedy"]
    assert getattr(house, which).read_text() == "mine"


def test_without_a_library_the_way_to_name_one_is_shown(house):
    answer = house.run("convert", house.drop("Emma", tracks(2)), "--json")
    assert (answer.exit, answer.error["code"]) == (78, "library.unset")
    assert "--library" in answer.error["remedy"]


@pytest.mark.parametrize(
    ("library", "backup"),
    [
        ("here", "here/backups"),
        ("here/library", "here"),
        ("here", "here"),
        ("drops/Emma/library", "elsewhere"),
        ("elsewhere", "drops/Emma/backup"),
        ("drops/Emma", "elsewhere"),
        ("link/library", "here"),
    ],
)
def test_directories_inside_each_other_or_inside_the_source_exit_78(house, library, backup):
    folder = house.drop("Emma", tracks(2))
    os.makedirs(house.root / "here")
    os.symlink(house.root / "here", house.root / "link")
    for place in (library, backup):
        os.makedirs(house.root / place, exist_ok=True)
    before = snapshot(house.root)
    places = ("--library", str(house.root / library), "--backup", str(house.root / backup))
    answer = house.run("convert", folder, *places, "--json")
    assert (answer.exit, answer.error["code"]) == (78, "config.directories")
    assert answer.error["remedy"]
    assert snapshot(house.root) == before


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b'It\'s "quoted" `here` $(touch x); rm -rf ~',
        b"new\nline\ttab \x1b[31mred",
        "🧀 Käse — 本".encode(),
        b"-rf --library",
        b"x" * 255,
        "é".encode() * 127,
        b"not \xff\xfe UTF-8 \x80",
    ],
)
def test_any_name_is_converted_backed_up_and_told_exactly(house, name):
    file = name[:251] + b".mp3"
    folder = house.drop(name, {file: clip(), b"1 " + name[:253]: b"beside it"})
    before = snapshot(folder)
    answer = house.convert("--", folder) if name.startswith(b"--") else house.convert(folder)
    assert answer.exit == 0, answer.talk
    assert snapshot(folder) == before
    assert house.litter() == []
    (book,) = house.books()
    assert os.path.join(house.library, book) == answer.book["output"]
    assert all(len(part.encode()) <= 255 for part in book.split("/"))
    assert book.isprintable()
    told = answer.book
    exact = told.get("source_b64")
    raw = base64.b64decode(exact) if exact else told["source"].encode()
    assert raw == os.fsencode(folder)
    out = house.root / "restored"
    kept = os.fsdecode(base64.b64decode(told["backup_b64"])) if "backup_b64" in told else told["backup"]
    assert house.run("backups", "restore", kept, str(out), "--json").exit == 0
    assert (out / os.fsdecode(file)).read_bytes() == clip()


# --- what is there already, and what changes --------------------------------------------------------------------------


def test_a_book_of_that_name_is_never_replaced(house):
    mine = house.library / "Jane Austen" / "Emma"
    mine.mkdir(parents=True)
    (mine / "Emma.m4b").write_bytes(b"my own recording")
    answer = house.convert(house.drop("Emma", tracks(2)))
    assert answer.exit == 0
    assert answer.book["output"] == str(house.library / "Jane Austen" / "Emma (2)" / "Emma (2).m4b")
    assert (mine / "Emma.m4b").read_bytes() == b"my own recording"
    assert os.listdir(mine) == ["Emma.m4b"]


def test_a_name_taken_in_another_case_counts_as_taken(house):
    (house.library / "jane austen" / "EMMA").mkdir(parents=True)
    answer = house.convert(house.drop("Emma", tracks(2)))
    assert answer.book["output"] == str(house.library / "jane austen" / "Emma (2)" / "Emma (2).m4b")


def append(path):
    with open(path, "ab") as file:
        file.write(b"one more line")


def changing(monkeypatch, where, name, path):
    """Let somebody append to ``path`` just before a step."""
    step = getattr(where, name)

    async def late(*args, **kwargs):
        append(path)
        return await step(*args, **kwargs)

    monkeypatch.setattr(where, name, late)


def test_a_source_that_changes_before_its_backup_is_not_converted(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    with monkeypatch.context() as patch:
        changing(patch, pipeline, "backup", os.path.join(folder, "02.mp3"))
        answer = house.convert(folder)
    assert (answer.exit, answer.error["code"]) == (75, "source.changed")
    assert "02.mp3" in answer.error["message"]
    assert house.litter(work=True) == []
    assert house.convert(folder).exit == 0


@pytest.mark.parametrize("name", ["02.mp3", "cover.jpg"])
@pytest.mark.parametrize("step", ["convert", "verify"])
def test_without_a_backup_a_source_that_changes_at_any_step_is_not_published(house, monkeypatch, step, name):
    folder = house.drop("Emma", tracks(2) | {"cover.jpg": picture()})
    with monkeypatch.context() as patch:
        changing(patch, pipeline, step, os.path.join(folder, name))
        answer = house.convert(folder, "--no-backup")
    assert (answer.exit, answer.error["code"]) == (75, "source.changed")
    assert house.books() == []
    assert house.litter(work=True) == []


def test_a_source_that_changes_after_its_backup_is_converted_as_it_was(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    changing(monkeypatch, pipeline, "convert", os.path.join(folder, "02.mp3"))
    answer = house.convert(folder)
    assert answer.exit == 0
    assert answer.book["samples"] == 2 * household.RATE


def failed_attempt(house, monkeypatch, folder, *options):
    """Let an attempt get as far as its backup and no farther."""
    with monkeypatch.context() as patch:
        patch.setattr(segment, "make_segment", faults.mistaken)
        assert house.convert(folder, *options).error["code"] == "worker.error"


def test_a_backup_is_made_although_the_first_attempt_was_to_make_none(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    failed_attempt(house, monkeypatch, folder, "--no-backup")
    answer = house.convert(folder)
    assert os.path.dirname(answer.book["backup"]) == str(house.backup)
    assert len(house.run("backups", "list", "--backup", str(house.backup), "--json").document["items"]) == 1


def test_a_cover_that_came_after_a_failed_attempt_is_backed_up_and_used(house, monkeypatch):
    folder = house.drop("Emma", tracks(2))
    failed_attempt(house, monkeypatch, folder)
    house.drop("Emma", {"cover.jpg": picture()})
    answer = house.convert(folder)
    assert "covr" in household.heard(answer.book["output"]).tags
    assert os.path.exists(os.path.join(answer.book["backup"], "cover.jpg"))


@pytest.mark.parametrize("options", [(), ("--no-backup",)])
def test_a_cover_that_changed_after_a_draft_was_made_came_too_late(house, monkeypatch, options):
    red, blue = (picture(colour).ljust(2000, b"\0") for colour in ("red", "blue"))
    folder = house.drop("Emma", tracks(2) | {"cover.jpg": red})
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "verify", stopped)
        assert house.convert(folder, *options).error["code"] == "test.stopped"
    house.drop("Emma", {"cover.jpg": blue})
    answer = house.convert(folder, *options)
    assert answer.book["segments"] == {"made": 0, "reused": 1}
    assert bytes(household.heard(answer.book["output"]).tags["covr"][0]) == blue
    if not options:
        assert Path(answer.book["backup"], "cover.jpg").read_bytes() == blue


@pytest.mark.parametrize("options", [(), ("--no-backup",)])
def test_a_draft_whose_source_did_not_change_is_not_made_again(house, monkeypatch, options):
    folder = house.drop("Emma", tracks(2) | {"cover.jpg": picture()})
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "verify", stopped)
        house.convert(folder, *options)
    monkeypatch.setattr(pipeline, "convert", lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr(pipeline, "backup", lambda *_, **__: pytest.fail("copied again"))
    assert house.convert(folder, *options).exit == 0


async def stopped(*_, **__):
    raise Transient("test.stopped", "It was stopped.", remedy="Go on.")


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        (faults.killed, "worker.crashed", "SIGKILL"),
        (faults.segfaulted, "worker.crashed", "SIGSEGV"),
        (faults.left, "worker.crashed", "exit status 3"),
        (faults.hanging, "worker.deadline", "seconds"),
        (faults.mistaken, "worker.error", "ZeroDivisionError"),
        (faults.starved, "worker.memory", "memory"),
    ],
)
def test_a_worker_s_end_fails_that_attempt_with_the_cause_and_the_next_one_works(house, monkeypatch, fault, code, word):
    folder = house.drop("Emma", tracks(2))
    before = snapshot(folder)
    with monkeypatch.context() as patch:
        patch.setattr(segment, "make_segment", fault)
        patch.setattr(pool, "_PATIENCE_SECONDS", 0.5 if fault is faults.hanging else 60.0)
        answer = house.convert(folder)
    assert answer.exit == (1 if code == "worker.error" else 75)
    assert answer.error["code"] == code
    assert word in answer.error["message"]
    assert house.books() == []
    assert house.litter(work=True) == []
    assert snapshot(folder) == before
    assert house.convert(folder).exit == 0
    assert house.litter() == []


def test_a_worker_that_dies_over_a_file_fails_that_book_only(house, monkeypatch):
    monkeypatch.setattr("aiom4b.steps.examine.look", faults.killed_by_poison)
    bad = house.drop("bad", {"01.mp3": b"poison" + clip()})
    answer = house.convert(bad, house.drop("good", tracks(2)))
    assert [book.get("error", {}).get("code") for book in answer.document["books"]] == ["worker.crashed", None]
    assert house.litter() == []


@pytest.mark.parametrize("where", ["aiom4b.app.conversion.examine", "aiom4b.pipeline.plan"])
def test_a_fault_of_the_program_over_one_book_leaves_the_others_alone(house, monkeypatch, where):
    step = pkgutil.resolve_name(where)

    def faulty(first, *rest):
        if "bad" in str(getattr(first, "root", first)):
            raise ZeroDivisionError("a fault of ours")
        return step(first, *rest)

    monkeypatch.setattr(where, faulty)
    answer = house.convert(house.drop("bad", tracks(2, first_seed=7)), house.drop("good", tracks(2)))
    bad, good = answer.document["books"]
    assert (answer.exit, bad["error"]["code"]) == (1, "program.error")
    assert "ZeroDivisionError: a fault of ours" in bad["error"]["message"]
    assert "Traceback" in answer.talk or "faulty" in answer.talk
    assert good["output"].endswith("Emma.m4b")
    assert house.litter(work=True) == []


# --- damage -----------------------------------------------------------------------------------------------------------


def scratched():
    """Return an old collection's MP3: bytes that are no frame in its middle, all frames there."""
    whole = clip(seconds=4)
    middle = sound.packets(whole)[80][0]
    return sound.with_junk(whole, b"\xaa" * 60, whole.index(middle) + len(middle))


def silenced():
    """Return an MP3 in whose middle a frame can't be decoded."""
    whole = clip(seconds=4)
    frame = sound.packets(whole)[30][0]
    at = whole.index(frame)
    return whole[: at + 4] + b"\xff" * (len(frame) - 4) + whole[at + len(frame) :]


def test_a_slightly_damaged_mp3_is_converted_and_the_damage_reported(house):
    answer = house.convert(house.drop("Old", {"1.mp3": scratched(), "2.mp3": clip(2)}))
    assert answer.exit == 0
    assert any("1.mp3" in warning for warning in answer.book["warnings"])
    assert answer.book["samples"] == 5 * household.RATE


@pytest.mark.parametrize("data", [scratched(), silenced()])
def test_damage_is_refused_where_its_owner_wants_that(house, data):
    house.set('[encode]\non_damage = "refuse"\n')
    folder = house.drop("Old", {"1.mp3": data})
    answer = house.convert(folder)
    assert (answer.exit, answer.error["code"]) == (1, "audio.damaged")
    assert "on_damage" in answer.error["remedy"]
    assert house.books() == []
    assert house.litter(work=True) == []
    house.set("")
    assert house.convert(folder).exit == 0


def test_frames_that_cannot_be_decoded_become_silence_and_are_told_with_file_and_second(house):
    answer = house.convert(house.drop("Old", {"1.mp3": clip(2), "2.mp3": silenced()}))
    assert answer.exit == 0
    (told,) = [warning for warning in answer.book["warnings"] if "silence" in warning]
    assert told.startswith("2.mp3: ")
    assert re.search(r"the first at second [01]\.\d\.", told)
    assert answer.book["samples"] == 5 * household.RATE


def test_damage_once_reported_is_refused_when_its_owner_changes_his_mind(house, monkeypatch):
    folder = house.drop("Old", {"1.mp3": silenced()})
    with monkeypatch.context() as patch:
        patch.setattr("aiom4b.engine.inspect.facts", faults.mistaken)
        assert house.convert(folder).error["code"] == "worker.error"
    house.set('[encode]\non_damage = "refuse"\n')
    assert house.convert(folder).error["code"] == "audio.damaged"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_wrong_settings_exit_78_with_every_problem_at_once(house):
    house.set('[encode]\nbitrate = "lots"\naac_coder = "best"\n[librery]\ntemplate = "x"\n')
    answer = house.convert(house.drop("Emma", tracks(2)), "--workers", "-1")
    assert (answer.exit, answer.error["code"]) == (78, "config.invalid")
    for word in ("encode.bitrate", "encode.aac_coder", "librery", "encode.workers"):
        assert word in answer.error["message"]
    assert house.litter() == []


def test_a_template_that_names_no_book_exits_78(house):
    house.set('[library]\ntemplate = "{writer}/{title}.m4b"\n')
    answer = house.convert(house.drop("Emma", tracks(2)))
    assert (answer.exit, answer.error["code"]) == (78, "config.template")
    assert house.litter(work=True) == []


@pytest.mark.parametrize("words", [("--order", "size"), ("--backup", "x", "--no-backup"), ()])
def test_a_wrong_command_line_exits_2(house, words):
    answer = house.run("convert", *words, *([house.drop("Emma", tracks(2))] if words else []))
    assert answer.exit == 2
    assert house.litter() == []
