"""What is lost when a conversion is stopped anywhere, its source changes its names meanwhile, or nobody listens? The real program."""

from __future__ import annotations

import os
import random
import subprocess
import time
from itertools import count
from pathlib import Path

import pytest

import sound
from crashes import killed_in
from household import PROGRAM, clip, snapshot, tracks

SEED = 4
KILLS = 4
"""Raise it for a long look: `pytest tests/e2e/test_resuming.py` prints the moments of a failure."""


@pytest.fixture(scope="module")
def parts():
    """Return three MP3s of one size and one length, as programs that cut a recording every ten minutes make them."""
    return [sound.mp3(sound.speech(20, 22050, seed=seed), 22050, bit_rate=48000) for seed in (101, 102, 103)]


def killed_once(house, folder, found):
    """Kill a conversion as soon as something called ``found`` is in the library."""
    with subprocess.Popen(
        [*PROGRAM, *house.words(folder)], env=house.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for _ in count():
            if list(house.library.glob(found)) or process.poll() is not None:
                break
            time.sleep(0.002)
        process.kill()


def named(parts, *names):
    return dict(zip(names, parts, strict=True))


def test_killed_at_any_moment_the_next_run_gives_the_same_book_and_leaves_nothing(house, parts):
    folder = house.drop("Parts", named(parts, "1.mp3", "2.mp3", "3.mp3"))
    before = snapshot(folder)
    began = time.monotonic()
    whole = house.convert(folder).book["sha256"]
    length = time.monotonic() - began
    chance = random.Random(SEED)
    for _ in range(KILLS):
        moment = chance.uniform(0.2, 1.1) * length
        with subprocess.Popen(
            [*PROGRAM, *house.words(folder, "--again")],
            env=house.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
        after = house.convert(folder, "--again")
        assert (after.exit, after.book["sha256"], house.litter()) == (0, whole, []), moment
        assert len(house.books()) == 1
    assert snapshot(folder) == before


def test_a_book_whose_files_were_renamed_after_a_stop_was_stuck_for_ever(house, parts):
    folder = house.drop("Parts", named(parts, "1.mp3", "2.mp3", "3.mp3"))
    killed_once(house, folder, ".aiom4b/work/*/segments/*.json")
    for number in (1, 2, 3):
        os.rename(f"{folder}/{number}.mp3", f"{folder}/0{number}.mp3")
    assert house.convert(folder).exit == 0
    assert house.litter() == []


def test_files_of_one_size_that_changed_their_names_after_a_stop_gave_the_old_order(house, parts):
    folder = house.drop("Parts", named(parts, "1.mp3", "2.mp3", "3.mp3"))
    killed_once(house, folder, ".aiom4b/work/*/verify.json")
    for old, new in (("1.mp3", "x"), ("2.mp3", "1.mp3"), ("x", "2.mp3")):
        os.rename(f"{folder}/{old}", f"{folder}/{new}")
    swapped = house.convert(folder, "--again").book
    right = house.drop("right/Parts", named([parts[1], parts[0], parts[2]], "1.mp3", "2.mp3", "3.mp3"))
    assert house.convert(right, "--again").book["sha256"] == swapped["sha256"]


def test_the_segments_of_a_book_that_was_published_just_before_a_kill_stayed_for_ever(house, parts):
    folder = house.drop("Parts", named(parts, "1.mp3", "2.mp3", "3.mp3"))
    book = house.convert(folder).book
    left = house.library / ".aiom4b" / "work" / "0123456789abcdef"
    fingerprint = house.record(book).read_text().split('"fingerprint": "')[1][:16]
    left = left.with_name(fingerprint)
    (left / "segments").mkdir(parents=True)
    (left / "segments" / "x.aac").write_bytes(b"x")
    left.with_name(f"{fingerprint}.lock").touch()
    assert house.convert(folder).book["already"] is True
    assert house.litter() == []


def test_what_killed_processes_were_writing_is_swept_by_the_next_run(house):
    places = [".aiom4b/books", ".aiom4b/work/0123456789abcdef/segments", ".aiom4b/work/0123456789abcdef"]
    folders = [house.backup, house.library, *(house.library / place for place in places)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        killed_in(folder)
    assert house.convert(house.drop("Emma", tracks(2))).exit == 0
    assert [path for folder in folders for path in folder.glob(".aiom4b-*")] == []


def test_books_were_not_made_because_nobody_read_the_talk(house):
    folders = [house.drop(name, tracks(2, album=name, first_seed=seed)) for name, seed in (("A", 1), ("B", 5))]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, *house.words(*folders)[:-1]], env=house.environment(), stderr=writer, check=False, timeout=60
    )
    os.close(writer)
    assert done.returncode == 0
    assert len(house.books()) == 2


def test_a_program_without_standard_streams_makes_the_book(house):
    folder = house.drop("Emma", tracks(2))
    words = " ".join(f"'{word}'" for word in (*PROGRAM, *house.words(folder)))
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {words} <&- >&- 2>&-"], env=house.environment(), check=False, timeout=60
    )
    assert done.returncode == 0
    assert len(house.books()) == 1


def test_a_name_in_utf_8_is_kept_where_the_locale_is_another(house):
    folder = house.drop("Émile", {"1.mp3": clip(1)})
    strange = house.environment() | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, *house.words(folder)], env=strange, check=False, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert house.books() == ["Unknown Author/Émile/Émile.m4b"]


@pytest.mark.parametrize("words", [("",), ("--library", ""), ("--backup", "")])
def test_an_unset_variable_of_a_script_does_not_mean_the_current_directory(house, words):
    folder = house.drop("Emma", tracks(2))
    answer = house.run("convert", folder, *house.words()[1:-1], *words)
    assert answer.exit == 2
    assert house.books() == []
    assert not Path(house.root, ".aiom4b").exists()


def test_a_link_under_the_book_s_name_stopped_the_book(house):
    place = house.library / "Jane Austen" / "Emma"
    place.mkdir(parents=True)
    (place / "Emma.m4b").symlink_to("/etc/hostname")
    answer = house.convert(house.drop("Emma", tracks(2)))
    assert answer.exit == 0
    assert answer.book["output"].endswith("Emma (2)/Emma (2).m4b")


def test_every_book_failed_on_a_terminal(house):
    folder = house.drop("Emma", tracks(2))
    master, terminal = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, *house.words(folder)[:-1]], env=house.environment() | {"TERM": "xterm"}, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(master, 65536):
                shown += data
        except OSError:
            pass  # how Linux says that the last one has left the terminal
        assert process.wait(60) == 0, shown
    os.close(master)
    assert b"published" in shown
    assert house.litter() == []
