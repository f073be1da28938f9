"""What becomes of a conversion whose processes are killed, interrupted, or meet another one? The real program."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import household
import sound
from household import PROGRAM, clip, picture, snapshot, tracks

PATIENCE = 60.0
"""Seconds after which a test gives up on a process."""


@pytest.fixture(scope="module")
def long_recording():
    """Return an MP3 of five segments."""
    return sound.mp3(sound.speech(64, 44100), 44100)


@pytest.fixture
def long_book(house, long_recording):
    """Return a drop whose conversion takes some seconds, whatever the machine."""
    house.set('[encode]\naac_coder = "twoloop"\nchannels = 2\nbitrate = "128k"\n')
    return house.drop("Long", {"Long.mp3": long_recording})


@contextmanager
def started(house, *words, **how):
    """Start the program and see to it that it ends with the block."""
    process = subprocess.Popen(
        [*PROGRAM, *words],
        env=house.environment(),
        cwd=house.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate(timeout=PATIENCE)


def until(process, condition):
    """Wait while the process runs, until there is something that is true."""
    for _ in range(int(PATIENCE / 0.01)):
        if found := condition():
            return found
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"it ended too early: {process.communicate()}")
    raise AssertionError("it never came")


def ended(process):
    """Return the answer of a started process."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return household.answer(process.returncode, stdout, stderr)


def segments(house):
    """Return the segments that count: those with a receipt."""
    return sorted(path.name for path in house.library.glob(".aiom4b/work/*/segments/*.json"))


def some_segments(house):
    """Return a condition: the first segments are there."""
    return lambda: segments(house)[1:]


def parents():
    """Return the parent of every process on this machine that still runs."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def workers(process):
    """Return the worker processes: the children of the server that forks them, itself a child of the program."""
    tree = parents()
    return [pid for pid, parent in tree.items() if tree.get(parent) == process.pid]


def finished(house, folder, *options):
    """Convert to the end; return the book's entry and how many segments had been there before."""
    there = len(segments(house))
    answer = house.convert(folder, *options)
    assert answer.exit == 0, answer.document
    assert house.litter() == []
    assert answer.book["segments"]["reused"] == there
    assert answer.book["segments"]["made"] == 5 - there
    return answer.book


def content(book):
    return Path(book["output"]).read_bytes()


# --- the same bytes, whatever happens ---------------------------------------------------------------------------------


def test_one_worker_two_workers_and_a_kill_in_between_give_the_same_bytes(house, long_book):
    before = snapshot(long_book)
    alone = finished(house, long_book, "--workers", "1")
    together = finished(house, long_book, "--again", "--workers", "2")
    with started(house, *house.words(long_book, "--again")) as process:
        until(process, some_segments(house))
        helpers = workers(process)
        process.kill()
        process.wait(timeout=PATIENCE)
        gone(helpers)
    assert house.litter(work=True) == []
    assert len(segments(house)) >= 2
    after_a_kill = finished(house, long_book, "--again")
    assert content(alone) == content(together) == content(after_a_kill)
    assert alone["sha256"] == together["sha256"] == after_a_kill["sha256"]
    assert snapshot(long_book) == before


def gone(helpers):
    """Wait for processes that are not our children to end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as pacemaker:
        try:
            until(pacemaker, lambda: not set(helpers) & set(parents()))
        finally:
            pacemaker.kill()


def test_a_worker_killed_by_the_system_fails_the_attempt_and_its_segments_serve_the_next(house, long_book):
    before = snapshot(long_book)
    with started(house, *house.words(long_book, "--workers", "1")) as process:
        until(process, some_segments(house))
        (worker,) = workers(process)
        os.kill(worker, signal.SIGKILL)
        answer = ended(process)
    assert answer.exit == 75
    assert answer.error["code"] == "worker.crashed"
    assert "SIGKILL" in answer.error["message"]
    assert answer.error["remedy"]
    assert house.books() == []
    assert house.litter(work=True) == []
    finished(house, long_book)
    assert snapshot(long_book) == before


def test_ctrl_c_exits_130_at_once_and_what_is_done_is_kept(house, long_book):
    with started(house, *house.words(long_book), start_new_session=True) as process:
        until(process, some_segments(house))
        helpers = workers(process)
        os.killpg(process.pid, signal.SIGINT)
        answer = ended(process)
        gone(helpers)
    assert answer.exit == 130
    assert answer.document["error"]["code"] == "run.interrupted"
    assert "same command" in answer.document["error"]["remedy"]
    assert "Traceback" not in answer.talk
    assert house.books() == []
    assert house.litter(work=True) == []
    finished(house, long_book)


def test_a_second_conversion_of_the_same_book_exits_75_and_disturbs_nothing(house, long_book):
    with started(house, *house.words(long_book)) as first:
        until(first, some_segments(house))
        first.send_signal(signal.SIGSTOP)  # it holds on in the middle, as long as the second one takes
        second = house.convert(long_book)
        first.send_signal(signal.SIGCONT)
        answer = ended(first)
    assert (second.exit, second.error["code"]) == (75, "book.busy")
    assert second.error["remedy"]
    assert answer.exit == 0
    assert answer.book["segments"] == {"made": 5, "reused": 0}
    assert house.litter() == []


def test_another_book_is_converted_while_one_is_being_converted(house, long_book):
    with started(house, *house.words(long_book)) as first:
        until(first, some_segments(house))
        first.send_signal(signal.SIGSTOP)
        assert house.convert(house.drop("Emma", tracks(2))).exit == 0


# --- what a script and a person see -----------------------------------------------------------------------------------


def test_stdout_is_data_and_stderr_is_talk(house):
    folder = house.drop("Emma", tracks(2))
    quiet = house.convert(folder)
    assert quiet.document["ok"] is True
    plain = house.run("convert", house.drop("Ulysses", tracks(2, album="Ulysses", first_seed=7)), *house.words()[1:-1])
    assert (plain.exit, plain.document) == (0, None)
    assert "published" in plain.talk
    assert "Ulysses.m4b" in plain.talk
    failed = house.run("convert", str(house.drops / "nowhere"), *house.words()[1:-1])
    assert failed.exit == 4
    assert "[source.missing]" in failed.talk
    assert "remedy:" in failed.talk


def test_one_command_line_ends_with_the_common_exit_code_or_1(house):
    nowhere, elsewhere = str(house.drops / "nowhere"), str(house.drops / "elsewhere")
    good, bad = house.drop("Emma", tracks(2)), house.drop("empty", {"1.mp3": b""})
    assert house.convert(nowhere, good, elsewhere).exit == 4
    mixed = house.convert(nowhere, bad, good)
    assert mixed.exit == 1
    assert [book.get("already") for book in mixed.document["books"]] == [None, None, True]


def test_wrong_settings_are_one_json_document_too(house):
    house.set("[encode]\nworkers = -1\nbitrate = 3\n")
    answer = house.convert(house.drop("Emma", tracks(2)))
    assert (answer.exit, answer.document["ok"], answer.error["code"]) == (78, False, "config.invalid")
    assert answer.talk == ""


def test_names_that_are_not_utf_8_go_through_the_real_command_line(house):
    folder = house.drop(b"not \xff UTF-8", {b"1 \xfe.mp3": clip(1)})
    answer = house.convert(folder)
    assert answer.exit == 0
    assert house.run("verify", answer.book["output"], "--json").exit == 0


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_modes_of_what_is_published_follow_the_umask(house, mask, file, folder):
    source = house.drop("Emma", tracks(2) | {"cover.jpg": picture()})
    with started(house, *house.words(source), umask=mask) as process:
        book = ended(process).book
    at = os.path.dirname(book["output"])
    for path in (book["output"], f"{at}/cover.jpg", str(house.record(book)), os.path.join(book["backup"], "01.mp3")):
        assert stat.S_IMODE(os.stat(path).st_mode) == file, path
    for path in (at, os.path.dirname(at), book["backup"]):
        assert stat.S_IMODE(os.stat(path).st_mode) == folder, path


def test_the_backup_goes_to_the_state_directory_unless_told_otherwise(house):
    answer = house.run("convert", house.drop("Emma", tracks(2)), "--library", str(house.library), "--json")
    assert answer.book["backup"].startswith(str(house.root / "home" / "XDG_STATE_HOME"[4:-5]))
    assert json.loads(Path(answer.book["backup"], "backup.json").read_bytes())["v"] == 1
