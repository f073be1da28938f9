"""Does the service keep its promises when somebody drops folders, sends signals, pulls plugs and asks questions? The real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

import running as harness
import sound
from household import House, clip, real_program, snapshot, tracks
from running import SETTLE, descendants, running, segments, started

LONG = '[encode]\naac_coder = "twoloop"\nchannels = 2\nbitrate = "128k"\n'


@pytest.fixture(scope="module")
def recording():
    """Return an MP3 of five segments, whose encoding with the settings LONG takes some seconds on any machine."""
    return sound.mp3(sound.speech(64, 44100), 44100)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, recording):
    """Return the books that ``aiom4b convert`` makes of whole folders, without any service."""
    house = House(tmp_path_factory.mktemp("alone"), real_program)
    emma = house.convert(house.drop("Emma", tracks(3))).book
    house.set(LONG)
    long = house.convert(house.drop("Long", {"Long.mp3": recording})).book
    return {name: Path(book["output"]).read_bytes() for name, book in (("Emma", emma), ("Long", long))}


def book(house):
    """Return the content of the only book."""
    (path,) = house.books()
    return (house.library / path).read_bytes()


def drop_long(house, recording):
    house.set(LONG)
    return house.drop("Long", {"Long.mp3": recording})


# --- the way of a book ------------------------------------------------------------------------------------------------


def test_a_folder_copied_in_slowly_becomes_one_book_and_everybody_tells_the_truth_meanwhile(house, alone):
    with running(house) as service:
        with service.followed() as events:
            for name, data in tracks(3).items():
                for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                    folder = house.drops / "Emma"
                    folder.mkdir(exist_ok=True)
                    with open(folder / name, "ab") as file:
                        file.write(half)
                    time.sleep(0.6 * SETTLE)  # so slow is this copy
                assert service.entry("Emma")["state"] == "settling"
                assert service.ask("status")["entries"]["settling"] == 1
                assert service.jobs() == []
            told = []
            for event in events:
                told.append(event)
                if event["event"] == "job.completed":
                    break
        before = snapshot(house.drops)
        done = service.until_state("Emma", "done")
        (job,) = service.jobs()
        assert (job["status"], job["progress"], job["attempts"]) == ("completed", 100.0, 1)
        assert done["jobs"] == [job["id"]]
        assert service.types("status").document["jobs"]["completed"] == 1
        assert service.types("list").document["items"][0]["state"] == "done"
        shown = service.types("jobs", "show", job["id"][:8]).document["job"]
        assert Path(shown["output"]).read_bytes() == alone["Emma"]
        assert len(service.said("book.published")) == 1
        assert len(service.events()) < 10
    assert house.books() == ["Jane Austen/Emma/Emma.m4b"]
    assert house.litter() == []
    assert snapshot(house.drops) == before
    steps = [event["step"] for event in told if event["event"] == "job.step"]
    assert steps == sorted(steps, key=["backup", "plan", "convert", "verify", "publish"].index)
    progress = [event["progress"] for event in told if event["event"].startswith("job.")]
    assert progress == sorted(progress)
    assert [event["id"] for event in told] == sorted({event["id"] for event in told})


def test_while_a_book_is_made_its_progress_is_told_and_another_one_is_taken(house, recording):
    with running(house) as service:
        drop_long(house, recording)
        service.tell("reload")
        service.until_segments(1)
        house.drop("Emma", tracks(3))
        current = service.ask("status")["current"][0]
        assert (current["name"], current["status"], current["step"]) == ("Long", "running", "convert")
        assert 0 < current["progress"] < 100
        assert service.entry("Long")["state"] == "queued"
        emma = service.until_job("Emma", "completed")
        long = service.until_job("Long", "completed")
        assert emma["created"] < long["ended"]
        downloaded = service.http.get(f"download/{long['id']}", headers={"Range": "bytes=100-199"})
        assert (downloaded.status_code, downloaded.content) == (206, Path(long["output"]).read_bytes()[100:200])
    assert len(house.books()) == 2
    assert house.litter() == []


def test_names_that_are_not_utf_8_go_all_the_way(house):
    with running(house) as service:
        house.drop(b"not \xff UTF-8", {b"1 \xfe.mp3": clip(1)})
        entry = service.until_state("not \\xff UTF-8", "done")
        assert b64decode(entry["name_b64"]) == b"not \xff UTF-8"
        (job,) = service.jobs()
        assert b64decode(job["name_b64"]) == b"not \xff UTF-8"
        path = b64decode(job["output_b64"]) if "output_b64" in job else job["output"].encode()
        assert os.path.isfile(path)
        assert service.types("jobs", "show", job["id"]).exit == 0
        assert service.types("list").document["items"] == [entry]
        # Both ways to name it: as the shell gives it, and in JSON.
        assert service.types("forget", os.fsdecode(b"not \xff UTF-8")).document["forgotten"] == 1
        asked = {"folders": [{"name_b64": b64encode(b"not \xff UTF-8").decode()}]}
        (again,) = service.tell("convert", asked)["jobs"]
        done = service.until(lambda: (found := service.ask(f"jobs/{again['id']}"))["status"] == "completed" and found)
        assert done["output"] == job["output"]
    assert house.litter() == []


def test_two_orders_that_disagree_wait_for_a_word_and_go_on_with_it(house):
    files = {
        f"{n}.mp3": data
        for n, data in zip((3, 2, 1), tracks(3).values(), strict=True)  # numbered backwards
    }
    with running(house) as service:
        house.drop("Emma", files)
        entry = service.until_state("Emma", "needs_attention")
        assert entry["error"]["code"] == "order.contradiction"
        job = service.job("Emma")
        assert (job["status"], job["not_before"]) == ("waiting", None)
        assert f"`aiom4b jobs order {job['id'][:8]} names`" in job["error"]["remedy"]
        assert house.books() == []
        assert service.types("jobs", "order", job["id"][:8], "names").exit == 0
        assert service.until_state("Emma", "done")["error"] is None
        done = service.until_job("Emma", "completed")
        assert done["id"] == job["id"]
        record = json.loads((house.library / ".aiom4b" / "books" / f"{done['book']}.json").read_bytes())["record"]
        assert [record["files"][index]["path"] for index in record["plan"]["order"]["files"]] == [
            "1.mp3",
            "2.mp3",
            "3.mp3",
        ]
    assert house.litter() == []


# --- being stopped ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_stopped_in_the_middle_the_next_start_goes_on_where_it_was(house, recording, alone, how):
    drop_long(house, recording)
    with running(house) as service:
        service.until_segments(2)
        first = service.job("Long")
        if how == "SIGKILL":
            service.kill()  # with all its workers
        else:
            helpers = descendants(service.pid)
            assert helpers
            service.signal()
            began = time.monotonic()
            assert service.ended() == 0
            assert time.monotonic() - began < 5
            harness.until_gone(helpers)
    there = segments(house)
    assert len(there) >= 2
    assert house.books() == []
    assert house.litter(work=True) == []
    assert harness.socket(house).exists() is (how == "SIGKILL")
    seen = {}
    with running(house) as service:
        assert service.job("Long")["id"] == first["id"]
        while not service.jobs("completed"):
            for path, inode in segments(house).items():
                seen.setdefault(path, set()).add(inode)
            service.until(lambda: True)
        job = service.until_job("Long", "completed")
        assert (job["attempts"], len(service.jobs())) == (1 if how == "SIGTERM" else 2, 1)
    assert {path: seen[path] for path in there} == {path: {inode} for path, inode in there.items()}
    assert book(house) == alone["Long"]
    assert house.litter() == []


def test_a_second_signal_ends_it_at_once(house, recording):
    drop_long(house, recording)
    with running(house) as service:
        service.until_segments(1)
        helpers = descendants(service.pid)
        service.signal(signal.SIGSTOP)  # so that both are there when it looks
        service.signal(signal.SIGINT)
        service.signal(signal.SIGTERM)
        service.signal(signal.SIGCONT)
        assert service.ended(5) in {128 + signal.SIGINT, 128 + signal.SIGTERM}
        harness.until_gone(helpers)
    assert house.litter(work=True) == []


def test_cancelled_in_the_middle_a_job_is_gone_within_a_second_and_can_be_tried_again(house, recording, alone):
    drop_long(house, recording)
    with running(house) as service:
        service.until_segments(2)
        job = service.job("Long")
        began = time.monotonic()
        cancelled = service.tell(f"jobs/{job['id']}/cancel")
        assert time.monotonic() - began < 1
        assert cancelled["status"] == "cancelled"
        assert service.entry("Long")["state"] == "rejected"
        assert house.litter() == []
        assert house.books() == []
        assert service.http.post(f"jobs/{job['id']}/cancel").status_code == 409
        service.tell("scan")
        assert service.types("jobs", "retry", job["id"]).exit == 0
        assert service.until_job("Long", "completed")["id"] == job["id"]
    assert book(house) == alone["Long"]
    assert house.litter() == []


def test_a_pause_lasts_over_a_restart(house):
    with running(house) as service:
        assert service.types("pause").exit == 0
    house.drop("Emma", tracks(2))
    with running(house) as service:
        assert service.ask("status")["paused"] is True
        service.tell("scan")
        service.tell("resume")
        service.until_job("Emma", "completed")
    assert len(house.books()) == 1


# --- settings and rivals ----------------------------------------------------------------------------------------------


def test_new_settings_are_taken_while_it_runs_and_wrong_ones_are_not(house):
    with running(house) as service:
        house.set("[jobs]\nmax_concurrent = 2\n[encode]\nworkers = 1\n")
        answer = service.types("reload")
        assert (answer.exit, answer.document["changed"], answer.document["needs_restart"]) == (
            0,
            ["jobs.max_concurrent"],
            ["encode.workers"],
        )
        house.set("[jobs]\nmax_concurrent = 0\n")
        refused = service.types("reload")
        assert (refused.exit, refused.error["code"]) == (78, "config.invalid")
        assert "max_concurrent" in refused.error["message"]
        service.signal(signal.SIGHUP)
        service.until(lambda: service.said("service.not_reloaded"))
        house.set("[backup]\nenabled = false\n[jobs]\nmax_concurrent = 2\n[encode]\nworkers = 1\n")
        service.signal(signal.SIGHUP)
        service.until(lambda: len(service.said("service.reloaded")) == 2)
        assert service.said("service.reloaded")[1]["changed"] == ["backup.enabled"]
        house.drop("Emma", tracks(2))
        service.until_job("Emma", "completed")
    assert os.listdir(house.backup) in ([], [".aiom4b"])


def test_a_log_file_that_can_not_be_opened_is_refused_at_a_reload_and_does_not_end_the_service(house):
    with running(house) as service:
        house.set(f'[log]\nfile = "{house.root}/nowhere/aiom4b.log"\n')
        refused = service.types("reload")
        assert refused.error["code"] == "file.missing"
        service.signal(signal.SIGHUP)
        service.until(lambda: service.said("service.not_reloaded"))
        assert service.types("status").exit == 0


def test_a_second_service_names_the_first_and_leaves_it_alone(house, tmp_path):
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other", real_program)
    named = {"source": "drops", "library": "library", "backup": "backups", "state": "state", "socket": "s.sock"}
    with running(house) as service:
        for shared in ("state", "library", "source", "socket"):
            roots = dict.fromkeys(named, other.root) | {shared: house.root}
            second = real_program(other, ["run", *(f"--{name}={roots[name]}/{place}" for name, place in named.items())])
            assert second.exit == 75, (shared, second.talk)
            assert "[service.running]" in second.talk
            assert str(service.pid) in second.talk
        house.drop("Emma", tracks(2))
        service.until_job("Emma", "completed")
        assert service.types("status").exit == 0


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("[watch]\nsettle_secs = 3\n", "config.invalid"),
        ("[watch\n", "config.invalid"),
    ],
)
def test_wrong_settings_at_the_start_are_named(house, settings, code):
    house.set(settings)
    answer = real_program(house, ["run", *harness.places(house)])
    assert answer.exit == 78
    assert code in answer.talk
    assert "remedy:" in answer.talk
    assert not harness.socket(house).exists()


def test_directories_that_lie_in_each_other_are_refused_at_the_start(house):
    inside = house.drops / "library"
    inside.mkdir()
    answer = real_program(house, ["run", *harness.places(house), "--library", str(inside)])
    assert (answer.exit, "[config.directories]" in answer.talk) == (78, True)


def test_the_socket_is_for_its_owner_and_group_only(house):
    old = os.umask(0)
    try:
        with running(house) as service:
            assert stat.S_IMODE(os.stat(harness.socket(house)).st_mode) == 0o660
            assert service.types("status").exit == 0
    finally:
        os.umask(old)
    assert not harness.socket(house).exists()
    answer = real_program(house, ["status", "--socket", str(harness.socket(house)), "--json"])
    assert (answer.exit, answer.error["code"]) == (3, "service.absent")


# --- once -------------------------------------------------------------------------------------------------------------


def test_once_works_off_what_is_there_and_tells_whether_all_of_it_was_published(house):
    house.drop("Emma", tracks(2))
    house.drop("Persuasion", tracks(2, album="Persuasion", first_seed=5))
    with started(house, "--once") as service:
        assert service.ended() == 0, service.talk()
    assert len(house.books()) == 2
    house.drop("broken", {"1.mp3": b"no sound"})
    with started(house, "--once") as service:
        assert service.ended() == 1, service.talk()
    assert len(house.books()) == 2
    assert house.litter() == []


# --- nothing twice ----------------------------------------------------------------------------------------------------


def test_nothing_is_converted_twice_when_history_or_database_are_lost_and_again_when_forgotten(house):
    with running(house) as service:
        house.drop("Emma", tracks(2))
        service.until_job("Emma", "completed")
        assert service.types("jobs", "clear").document["cleared"] == 1
        assert service.entry("Emma")["state"] == "done"
        os.rename(house.drops / "Emma", house.drops / "Renamed")
        service.until_state("Renamed", "done")
        assert service.jobs() == []
    for path in (house.root / "state").glob("aiom4b.db*"):
        path.unlink()
    with running(house) as service:
        assert service.until_state("Renamed", "done")
        assert service.jobs() == []
        assert len(house.books()) == 1
        assert service.types("forget", "Renamed").document["forgotten"] == 1
        os.utime(house.drops / "Renamed" / "01.mp3")  # as if it were dropped again
        assert service.until_job("Renamed", "completed")["attempts"] == 1
    assert len(house.books()) == 1  # the very same bytes, so that nothing was to be published
    assert house.litter() == []


def test_the_same_audio_under_two_names_is_one_book(house):
    with running(house) as service:
        house.drop("Emma", tracks(2))
        house.drop("Copy of Emma", tracks(2))
        for name in ("Emma", "Copy of Emma"):
            service.until_state(name, "done")
    assert len(house.books()) == 1
    assert house.litter() == []


# --- a source that goes away ------------------------------------------------------------------------------------------


def test_a_source_that_goes_away_once_its_copy_is_made_is_no_loss(house, recording, alone):
    drop_long(house, recording)
    with running(house) as service:
        service.until_segments(1)
        os.rename(house.drops / "Long", house.root / "elsewhere")
        service.until(lambda: service.entry("Long") is None)
        (job,) = service.until(lambda: service.jobs("completed"))
        assert job["name"] == "Long"
    assert book(house) == alone["Long"]


def test_a_source_that_goes_away_before_its_copy_is_made_ends_its_job_with_the_reason(house):
    with running(house) as service:
        service.tell("pause")
        house.drop("Emma", tracks(2))
        service.tell("scan")
        # Paused, nothing is examined either: it is asked for by name.
        (job,) = service.tell("convert", {"folders": ["Emma"]})["jobs"]
        shutil.rmtree(house.drops / "Emma")
        service.tell("resume")
        ended = service.until(
            lambda: (found := service.ask(f"jobs/{job['id']}"))["status"] not in ("queued", "running") and found
        )
        assert ended["error"]["code"] in {"source.missing", "source.vanished"}
        assert service.until(lambda: service.entry("Emma") is None)
    assert house.books() == []
    assert house.litter() == []


def test_a_folder_that_grows_while_its_book_is_made_becomes_the_whole_book(house, recording):
    drop_long(house, recording)
    with running(house) as service:
        service.until_segments(1)
        first = service.job("Long")
        (house.drops / "Long" / "Long 2.mp3").write_bytes(clip(9))
        changed = service.until(
            lambda: (found := service.ask(f"jobs/{first['id']}"))["status"] == "cancelled" and found
        )
        assert changed["error"]["code"] == "source.changed"
        job = service.until(lambda: (found := service.job("Long"))["status"] == "completed" and found)
        assert job["id"] != first["id"]
        assert job["metrics"]["audio_seconds"] == pytest.approx(65, abs=0.2)
    assert len(house.books()) == 1
    assert house.litter() == []


def test_what_came_to_a_folder_while_the_service_was_down_is_in_its_book(house):
    every = tracks(4)
    house.set("[jobs]\nmax_concurrent = 1\n")
    with running(house) as service:
        service.tell("pause")
        house.drop("Emma", dict(list(tracks(3).items())))
        first = service.until_job("Emma", "queued")
    shutil.rmtree(house.drops / "Emma")
    house.drop("Emma", every)
    with running(house) as service:
        service.tell("resume")
        done = service.until_state("Emma", "done")
        assert service.ask(f"jobs/{first['id']}")["status"] == "cancelled"
        assert len(done["jobs"]) == 1
    assert len(house.books()) == 1
    assert house.litter() == []


def test_an_incomplete_book_that_is_asked_for_all_the_same_is_made_and_its_entry_is_done(house):
    with running(house) as service:
        house.drop("Emma", {name: data for name, data in tracks(3).items() if name != "02.mp3"})
        waiting = service.until_state("Emma", "incomplete")
        assert "`aiom4b submit Emma --order names`" in waiting["error"]["remedy"]
        assert service.types("submit", "Emma", "--order", "names", "--wait").exit == 0
        service.until_state("Emma", "done")
        assert len(service.until(house.books)) == 1


def test_a_web_page_hears_of_a_book_over_a_websocket(house):
    with running(house) as service, unix_connect(str(harness.socket(house)), uri="ws://localhost/ws/jobs") as page:
        house.drop("Emma", tracks(2))
        heard = []
        while not heard or heard[-1]["event"] != "job.completed":
            heard.append(json.loads(page.recv(timeout=harness.PATIENCE)))
        assert {event["data"]["name"] for event in heard if event["event"].startswith("job.")} == {"Emma"}
        assert [event["id"] for event in heard] == sorted(event["id"] for event in heard)
        service.end()
        with pytest.raises(ConnectionClosed):
            page.recv(timeout=harness.PATIENCE)


def test_to_work_off_a_source_that_is_not_there_is_refused(house):
    house.drops.rmdir()
    with started(house, "--once") as service:
        assert service.ended() == 4
        assert "source.missing" in service.talk()
        assert "Traceback" not in service.talk()
    house.drops.mkdir()


def test_folders_that_were_asked_for_as_one_book_are_not_books_of_their_own_afterwards(house):
    with running(house, environment={"AIOM4B_WATCH__SETTLE_SECONDS": "2"}) as service:
        for folder, seed in (("CD1", 1), ("CD2", 5)):
            house.drop(folder, tracks(2, first_seed=seed))  # each would make a whole book
        assert service.types("submit", "CD1", "CD2", "--merge", "--order", "names", "--wait").exit == 0
        for folder in ("CD1", "CD2"):
            service.until_state(folder, "done")
    assert len(house.books()) == 1
