"""Facts about the commands that ask the service, with a stand-in that answers at a real Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from aiom4b.cli import following
from aiom4b.cli.client import Client
from aiom4b.cli.main import app
from aiom4b.config import InvalidSettings
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.job import Problem, Status
from controls import entry as stored_entry
from controls import serving
from fake_service import FakeService, entry, job, problem, refusal, status
from household import House


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine of its own: no service and no settings of whoever runs the tests are seen."""
    for name in list(os.environ):
        if name.upper().startswith(("AIOM4B_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("aiom4b.cli.connecting.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    monkeypatch.setattr("aiom4b.config.sources.SYSTEM_FILE", str(tmp_path / "etc" / "aiom4b.toml"))


@pytest.fixture
def service(tmp_path, monkeypatch):
    path = tmp_path / "s.sock"
    monkeypatch.setenv("AIOM4B_PATHS__SOCKET", str(path))
    place = FakeService(path)
    yield place
    place.stop()


def type_(*words: str):
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def document(*words: str):
    done = type_(*words, "--json")
    assert done.stderr == ""
    return done.exit_code, json.loads(done.stdout)


def refused(*words: str):
    code, told = document(*words)
    assert told["ok"] is False
    return code, told["error"]["code"]


def eventually(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


# --- where the service is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("watch",),
        ("list",),
        ("scan",),
        ("pause",),
        ("resume",),
        ("reload",),
        ("submit", "Emma"),
        ("forget", "Emma"),
        ("jobs", "list"),
        ("jobs", "show", "abcd"),
        ("jobs", "log", "abcd"),
        ("jobs", "cancel", "abcd"),
        ("jobs", "retry", "abcd"),
        ("jobs", "order", "abcd", "names"),
        ("jobs", "priority", "abcd", "1"),
        ("jobs", "delete", "abcd"),
        ("jobs", "clear"),
    ],
)
def test_every_command_says_how_to_start_a_service_that_is_not_there(tmp_path, words):
    assert refused(*words, "--socket", str(tmp_path / "none")) == (3, "service.absent")
    told = type_(*words, "--socket", str(tmp_path / "none"))
    assert told.exit_code == 3
    assert told.stdout == ""
    assert f"No service answers at {tmp_path}/none." in told.stderr
    assert "systemctl start aiom4b" in told.stderr


def test_a_socket_that_nobody_listens_at_any_more_is_no_service(tmp_path):
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "stale"))
    assert refused("scan", "--socket", str(tmp_path / "stale")) == (3, "service.absent")


@pytest.mark.parametrize("place", ["XDG_RUNTIME_DIR", "system", "settings"])
def test_a_service_is_found_in_its_usual_places(tmp_path, monkeypatch, place):
    path = tmp_path / "run" / "aiom4b" / "aiom4b.sock"
    path.parent.mkdir(parents=True)
    (tmp_path / "broken.toml").write_text("[paths")
    monkeypatch.setenv("AIOM4B_CONFIG", str(tmp_path / "broken.toml"))  # not even read where that isn't needed
    if place == "XDG_RUNTIME_DIR":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    elif place == "system":
        monkeypatch.setattr("aiom4b.cli.connecting.SYSTEM_SOCKET", str(path))
    else:
        (tmp_path / "a.toml").write_text(f'[paths]\nsocket = "{path}"')
        monkeypatch.setenv("AIOM4B_CONFIG", str(tmp_path / "a.toml"))
    service = FakeService(path)
    service.answers["POST", "scan"] = 202, {}
    try:
        assert document("scan") == (0, {"ok": True})
    finally:
        service.stop()


def test_a_socket_that_was_named_is_the_only_one_tried(service, tmp_path):
    service.answers["POST", "scan"] = 202, {}
    assert refused("scan", "--socket", str(tmp_path / "other")) == (3, "service.absent")
    assert document("scan", "--socket", service.path)[0] == 0


def test_broken_settings_are_told_where_no_service_answers(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("[paths")
    monkeypatch.setenv("AIOM4B_CONFIG", str(tmp_path / "a.toml"))
    told = type_("scan")
    assert told.exit_code == 3
    assert "aiom4b config check" in told.stderr


def test_a_socket_of_others_names_the_group(monkeypatch, service):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert refused("scan") == (77, "service.not_permitted")


def test_a_path_too_long_for_a_socket_is_told(tmp_path):
    assert refused("scan", "--socket", str(tmp_path / ("x" * 120))) == (1, "service.socket")


# --- what the service answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "code", "exit"),
    [
        (404, "job.missing", 4),
        (409, "job.conflict", 1),
        (422, "request.invalid", 2),
        (422, "path.outside", 1),
        (422, "config.invalid", 78),
        (403, "request.unauthorized", 77),
        (503, "database.busy", 75),
        (500, "internal", 1),
    ],
)
def test_what_the_service_refuses_keeps_its_code_reason_and_remedy(service, http, code, exit):
    service.answers["POST", "scan"] = refusal(http, code, "A reason.", "A remedy.")
    told = document("scan")
    assert told == (exit, {"ok": False, "error": {"code": code, "message": "A reason.", "remedy": "A remedy."}})
    assert type_("scan").stderr == f"error: A reason. [{code}]\nremedy: A remedy.\n"


@pytest.mark.parametrize("nonsense", [b"<html>", b"[1]", b"\xff", b""])
def test_something_else_that_listens_there_is_not_taken_for_the_service(service, nonsense):
    for http in (200, 404):
        service.answers["POST", "scan"] = http, nonsense
        assert refused("scan") == (1, "service.unclear")


def test_a_service_that_dies_while_it_answers_is_told(service, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "dying"))
        listening.listen()

        def die():
            connection, _ = listening.accept()
            connection.recv(10)
            connection.close()

        dying = threading.Thread(target=die)
        dying.start()
        assert refused("scan", "--socket", str(tmp_path / "dying")) == (75, "service.lost")
        dying.join()


def test_a_service_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("aiom4b.cli.client.TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "deaf"))
        listening.listen()
        assert refused("scan", "--socket", str(tmp_path / "deaf")) == (75, "service.silent")


def test_a_service_with_a_queue_of_callers_is_told(tmp_path):
    with contextlib.ExitStack() as callers:
        listening = callers.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(tmp_path / "busy"))
        listening.listen(0)
        callers.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "busy"))
        assert refused("scan", "--socket", str(tmp_path / "busy")) == (75, "service.silent")


def test_names_cannot_drive_the_terminal(service):
    service.answers["GET", "folders"] = 200, {"items": [entry("\x1b[2JEmma\n")], "total": 1, "limit": 50, "offset": 0}
    assert "\x1b" not in type_("list").stdout
    assert len(type_("list").stdout.splitlines()) == 1


# --- the service as a whole --------------------------------------------------------------------------------------------


def test_status_tells_in_a_few_lines_how_it_is(service):
    running = job("Emma", status="running", step="convert", progress=42.4, eta_seconds=190.0)
    health = status()["health"] | {"status": "degraded", "reasons": ["The library is full."]}
    service.answers["GET", "status"] = 200, status(current=[running], health=health, paused=True)
    told = type_("status")
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "service  aiom4b 0.1.0, up for 2 h, paused",
        "health   degraded",
        "         The library is full.",
        "source   3 entries, watched by its events",
        "         1 settling, 2 needs attention",
        "jobs     2 queued, 1 running",
        "         Emma: convert, 42 %, 3 min left",
        "free     source 5.0 MB",
    ]
    assert document("status") == (0, {"ok": True, **service.answers["GET", "status"][1]})


@pytest.mark.parametrize("command", ["scan", "pause", "resume"])
def test_the_service_is_told_to(service, command):
    service.answers["POST", command] = 200, {"paused": command == "pause"}
    assert document(command) == (0, {"ok": True, "paused": command == "pause"})
    told = type_(command)
    assert (told.exit_code, told.stderr, len(told.stdout.splitlines())) == (0, "", 1)
    assert [asked[:2] for asked in service.requests] == [("POST", command)] * 2


def test_reload_names_what_changed_and_what_needs_a_restart(service):
    changes = {"changed": ["jobs.max_concurrent"], "needs_restart": ["paths.library"]}
    service.answers["POST", "reload"] = 200, changes
    assert type_("reload").stdout.splitlines() == [
        "changed: jobs.max_concurrent",
        "in force after a restart: paths.library",
    ]
    assert document("reload") == (0, {"ok": True, **changes})


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("Emma", "Emma"),
        ("Emma/", "Emma"),
        ("{source}/Emma/CD1", "Emma"),
        ("AB" * 32, "ab" * 32),
        ("{source}/../elsewhere", "{source}/../elsewhere"),
        ("{source}/..", "{source}/.."),
    ],
)
def test_forget_names_an_entry_or_a_fingerprint(service, tmp_path, given, what):
    source = tmp_path / "drop"
    (source / "Emma" / "CD1").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    service.answers["GET", "status"] = 200, status(disks=[{"place": "source", "path": str(source)}])
    service.answers["POST", "forget"] = 200, {"forgotten": 1}
    assert type_("forget", given.format(source=source)).stdout == "forgotten: 1 source\n"
    assert service.requests[-1][3] == {"what": what.format(source=source)}


def test_names_that_are_not_utf_8_reach_the_service_whole(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"H\xf6r")
    service.answers["POST", "convert"] = 202, {"jobs": []}
    assert document("submit", name, "--output", name)[0] == 0
    assert service.requests[-1][3] == {"folders": [{"name_b64": "SPZy"}], "output": {"name_b64": "SPZy"}}


def test_every_entry_is_listed_however_many_there_are(service):
    entries = [entry(f"Book {n}") for n in range(1200)]

    def page(query):
        first, count = int(query["offset"][0]), int(query["limit"][0])
        assert count <= 500
        return 200, {"items": entries[first : first + count], "total": 1200, "limit": count, "offset": first}

    service.answers["GET", "folders"] = page
    assert document("list") == (0, {"ok": True, "items": entries, "total": 1200})


# --- entries -----------------------------------------------------------------------------------------------------------


def test_list_shows_each_entry_and_why_it_does_not_go_on(service):
    items = [
        entry("Emma", state="needs_attention", error=problem("order.contradiction", "Two orders.", "Choose one.")),
        entry("日本", state="settling", files=12, size=999, changed=datetime.now(UTC).isoformat()),
    ]
    service.answers["GET", "folders"] = 200, {"items": items, "total": 2, "limit": 2, "offset": 0}
    lines = type_("list").stdout.splitlines()
    assert lines == [
        "needs attention   3 files  3.4 MB  2026-03-01  Emma",
        "    Two orders.",
        "    remedy: Choose one.",
        "settling         12 files   999 B  just now    日本",
    ]
    assert document("list") == (0, {"ok": True, "items": items, "total": 2})


def test_an_empty_source_is_no_data(service):
    service.answers["GET", "folders"] = 200, {"items": [], "total": 0, "limit": 50, "offset": 0}
    told = type_("list")
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "The source is empty.\n")


# --- jobs --------------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_with_the_reasons_of_those_that_wait(service):
    service.jobs = [
        job("Emma", status="running", progress=42.4, id="11111111-0000-4000-8000-000000000000"),
        job("Persuasion", status="waiting", error=problem(), id="22222222-0000-4000-8000-000000000000"),
    ]
    assert type_("jobs", "list").stdout.splitlines() == [
        "11111111  running 42 %  2026-03-01  Emma",
        "22222222  waiting       2026-03-01  Persuasion",
        "          The disk is full.",
        "          remedy: Make room.",
    ]


def test_jobs_are_listed_by_status_and_in_pages(service):
    service.jobs = [job(status=now) for now in ("queued", "failed", "completed", "failed")]
    code, told = document("jobs", "list", "--status", "failed", "--status", "queued", "--limit", "2", "--offset", "1")
    assert (code, told["total"], len(told["items"])) == (0, 3, 2)
    assert [found["status"] for found in told["items"]] == ["failed", "failed"]
    assert "1 to 2 of 4 jobs" in type_("jobs", "list", "--limit", "2").stderr


def test_a_job_is_shown_with_all_that_is_known_of_it(service):
    service.jobs = [
        job(
            status="waiting",
            error=problem(),
            backup="/backup/Emma_1",
            attempts=2,
            started="2026-03-01T09:00:01+00:00",
            not_before=(datetime.now(UTC) + timedelta(minutes=5, seconds=20)).isoformat(),
            metrics=job()["metrics"]
            | {"audio_seconds": 32832.0, "bytes_in": 812, "wall_seconds": {"examine": 0.25, "convert": 91.0}},
        )
    ]
    shown = dict(line.split(maxsplit=1) for line in type_("jobs", "show", service.jobs[0]["id"]).stdout.splitlines())
    assert shown["id"] == service.jobs[0]["id"]
    assert shown["reason"] == "The disk is full. [space.full]"
    assert shown["remedy"] == "Make room."
    assert shown["next"].endswith("(in 5 min)")
    assert shown["folder"] == "/drop/Emma"
    assert shown["backup"] == "/backup/Emma_1"
    assert shown["audio"] == "9:07:12"
    assert shown["time"] == "examine 0.2 s, convert 91.0 s"
    assert "book" not in shown
    code, told = document("jobs", "show", service.jobs[0]["id"])
    assert (code, told) == (0, {"ok": True, "job": service.jobs[0]})


@pytest.mark.parametrize("words", [("show",), ("cancel",), ("retry",), ("priority", "-5"), ("order", "names")])
def test_the_beginning_of_an_id_is_enough(service, words):
    service.jobs = [job() for _ in range(1200)]  # more than a page
    wanted = service.jobs[-1] | {"id": "zzzz"}
    service.jobs[-1]["id"] = wanted["id"] = "abcdef12" + service.jobs[-1]["id"][8:]
    for other in service.jobs[:-1]:
        other["id"] = "1" + other["id"][1:]
    path = f"jobs/{wanted['id']}" + ("" if words[0] == "show" else f"/{words[0]}")
    service.answers["GET" if words[0] == "show" else "POST", path] = 200, wanted
    code, told = document("jobs", words[0], "ABCD", *words[1:])
    assert (code, told["job"]["id"]) == (0, wanted["id"])


def test_an_id_must_mean_one_job(service):
    service.jobs = [job(id=f"abcd{n}111-0000-4000-8000-000000000000", name=f"Book {n}") for n in range(2)]
    assert refused("jobs", "show", "abcd") == (2, "job.ambiguous")
    assert "Book 1" in type_("jobs", "show", "abcd").stderr
    assert refused("jobs", "show", "dcba") == (4, "job.missing")
    assert refused("jobs", "show", "abc") == (2, "job.id")
    assert refused("jobs", "show", "../status") == (2, "job.id")
    assert refused("jobs", "show", "abcd0111-0000-4000-8000-000000000009") == (4, "job.missing")


def test_commands_reach_the_job(service):
    service.jobs = [job(id="abcd0111-0000-4000-8000-000000000000")]
    for words, body in [
        (("cancel",), None),
        (("retry",), None),
        (("priority", "-5"), {"priority": -5}),
        (("order", "tags"), {"by": "tags"}),
        (("order", "2.mp3", "1.mp3"), {"files": ["2.mp3", "1.mp3"]}),
    ]:
        path = f"jobs/{service.jobs[0]['id']}/{words[0]}"
        service.answers["POST", path] = 200, service.jobs[0]
        told = type_("jobs", words[0], "abcd", *words[1:])
        assert (told.exit_code, told.stderr) == (0, "")
        assert told.stdout.endswith(": Emma (abcd0111)\n")
        assert service.requests[-1] == ("POST", path, {}, body)


def test_files_are_ordered_by_the_paths_that_the_shell_completes(service, tmp_path, monkeypatch):
    book = tmp_path / "drop" / "Emma" / "CD1"
    book.mkdir(parents=True)
    (book / "1.mp3").touch()
    monkeypatch.chdir(tmp_path / "drop")
    service.jobs = [job(id="abcd0111-0000-4000-8000-000000000000", folders=[str(tmp_path / "drop" / "Emma")])]
    service.answers["POST", f"jobs/{service.jobs[0]['id']}/order"] = 200, service.jobs[0]
    type_("jobs", "order", "abcd", "Emma/CD1/1.mp3", "CD1/2.mp3", str(book / "1.mp3"))
    assert service.requests[-1][3] == {"files": ["CD1/1.mp3", "CD1/2.mp3", "CD1/1.mp3"]}
    monkeypatch.chdir(book)
    type_("jobs", "order", "abcd", "1.mp3", "CD1/1.mp3")
    assert service.requests[-1][3] == {"files": ["CD1/1.mp3", "CD1/1.mp3"]}


def test_a_log_is_told_line_by_line(service):
    service.jobs = [job()]
    items = [{"at": "2026-03-01T09:00:00+00:00", "event": "job.started", "data": {"attempt": 1}}]
    path = f"jobs/{service.jobs[0]['id']}/log"
    service.answers["GET", path] = 200, {"items": items, "total": 1, "limit": 200, "offset": 0}
    told = type_("jobs", "log", service.jobs[0]["id"]).stdout
    assert re.fullmatch(r"2026-0\d-\d\d \d\d:00:00  job.started  attempt=1\n", told)
    assert document("jobs", "log", service.jobs[0]["id"])[1]["items"] == items


def test_ended_jobs_are_cleared(service):
    service.answers["POST", "jobs/clear"] = 200, {"cleared": 2}
    assert type_("jobs", "clear", "--status", "failed", "--older-than", "7").stdout == "deleted: 2 jobs\n"
    assert service.requests[-1][3] == {"status": ["failed"], "older_than_days": 7}
    assert document("jobs", "clear") == (0, {"ok": True, "cleared": 2})
    assert service.requests[-1][3] == {}


def test_a_job_is_deleted(service):
    service.jobs = [job()]
    id = service.jobs[0]["id"]
    service.answers["DELETE", f"jobs/{id}"] = 204, b""
    assert type_("jobs", "delete", id[:8]).stdout == f"deleted: {id}\n"
    assert service.requests[-1][:2] == ("DELETE", f"jobs/{id}")
    assert document("jobs", "delete", id) == (0, {"ok": True, "deleted": 1})


# --- submitting and waiting --------------------------------------------------------------------------------------------


def test_submit_says_what_was_asked(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Here").mkdir()
    service.answers["POST", "convert"] = 202, {"jobs": [job(id="abcd0111-0000-4000-8000-000000000000")]}
    told = type_("submit", "Emma", "Here", "--merge", "--again", "--output", "A/B.m4b", "--naming-scheme", "{title}")
    assert (told.exit_code, told.stdout) == (0, "queued: Emma (abcd0111)\n")
    assert service.requests[-1][3] == {
        "folders": ["Emma", str(tmp_path / "Here")],
        "merge": True,
        "again": True,
        "output": "A/B.m4b",
        "naming_scheme": "{title}",
    }
    assert document("submit", "Emma")[1]["jobs"][0]["name"] == "Emma"
    assert service.requests[-1][3] == {"folders": ["Emma"]}


def test_an_empty_path_is_refused(service):
    assert refused("submit", "") == (2, "path.empty")
    assert refused("forget", "") == (2, "path.empty")
    assert service.requests == []


def _wait_for(service, *words):
    """Type a command in a thread; return it once it listens, and what it will answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(type_(*words)))
    thread.start()
    assert service.opened.acquire(timeout=10)
    return thread, answers


@pytest.mark.parametrize(("last", "exit"), [("completed", 0), ("failed", 1), ("cancelled", 1)])
def test_submit_waits_until_all_have_ended(service, last, exit):
    first, second = service.jobs = [job("Emma"), job("Persuasion")]
    service.answers["POST", "convert"] = 202, {"jobs": [dict(first), dict(second)]}
    thread, answers = _wait_for(service, "submit", "Emma", "Persuasion", "--wait")
    service.change(first, "job.completed", status="completed", output="/library/Emma.m4b")
    eventually(lambda: ("GET", f"jobs/{first['id']}", {}, None) in service.requests)
    assert not answers
    service.change(second, "job.waiting", status="waiting", error=problem())
    service.change(second, f"job.{last}", status=last, error=problem() if last == "failed" else None)
    thread.join(10)
    (told,) = answers
    assert told.exit_code == exit
    assert "completed: /library/Emma.m4b" in told.stdout
    assert told.stdout.splitlines()[0] == f"queued: Emma ({first['id'][:8]})"


def test_waiting_as_json_ends_with_one_document(service):
    (mine,) = service.jobs = [job("Emma")]
    service.answers["POST", "convert"] = 202, {"jobs": [dict(mine)]}
    thread, answers = _wait_for(service, "submit", "Emma", "--wait", "--json")
    service.change(mine, "job.failed", status="failed", error=problem())
    thread.join(10)
    assert answers[0].exit_code == 1
    assert json.loads(answers[0].stdout) == {"ok": False, "jobs": [mine]}


def test_what_ended_before_we_listened_is_not_waited_for(service):
    (mine,) = service.jobs = [job("Emma", status="completed")]
    service.answers["POST", "convert"] = 202, {"jobs": [mine | {"status": "queued"}]}
    assert document("submit", "Emma", "--wait")[0] == 0


def test_waiting_survives_a_restart_of_the_service(service, tmp_path):
    (mine,) = service.jobs = [job("Emma")]
    client = Client(service.path)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        mine["status"] = "completed"

    gone = []
    service.end_streams_when_opened = None
    ender = threading.Thread(
        target=lambda: (
            service.opened.acquire(timeout=10),
            service.tell("job.progress", job_id="x"),
            service.end_streams(),
        )
    )
    ender.start()
    (ended,) = following.until_ended(client, [dict(mine)], lambda _: None, gone=lambda: gone.append(1), pause=pause)
    ender.join()
    assert (ended["status"], gone, pauses) == ("completed", [1], [1.0])
    assert service.asked_after == [None, "1"]


def test_the_bytes_of_a_transfer_are_no_reason_to_look_at_its_job(service):
    (mine,) = service.jobs = [job("Emma")]
    ended = []
    waiter = threading.Thread(
        target=lambda: ended.extend(
            following.until_ended(Client(service.path), [dict(mine)], lambda _: None, gone=lambda: None)
        )
    )
    waiter.start()
    assert service.opened.acquire(timeout=10)
    eventually(lambda: len(service.requests) == 1)  # how it stands at the start
    for _ in range(3):
        service.tell("download.progress", job_id=mine["id"], bytes=1, total=2, bytes_per_second=1)
        service.tell("job.progress", job_id=mine["id"], status="running", step="download", progress=1.0)
    service.change(mine, "job.completed", status="completed")
    waiter.join(10)
    assert (ended[0]["status"], len(service.requests)) == ("completed", 2)


def test_a_question_that_meets_a_service_just_going_is_asked_again(service):
    (mine,) = service.jobs = [job("Emma")]
    path = f"jobs/{mine['id']}"

    def going(_):
        service.answers.pop(("GET", path))
        service.end_streams()
        return refusal(503, "service.stopping", "It stops.", "Wait.")

    def going_soon(_):
        service.answers["GET", path] = going
        service.tell("job.changed", job_id=mine["id"])
        return 200, dict(mine)

    service.answers["GET", path] = going_soon
    (ended,) = following.until_ended(
        Client(service.path),
        [dict(mine)],
        lambda _: None,
        gone=lambda: None,
        pause=lambda _: mine.update(status="completed"),
    )
    assert ended["status"] == "completed"
    assert len(service.asked_after) == 2


def test_a_service_that_stays_away_is_not_waited_for_for_ever(tmp_path):
    service = FakeService(tmp_path / "s.sock")
    client = Client(service.path)
    pauses = []
    heard = following.batches(client, 5.0, gone=service.stop, pause=pauses.append)
    assert next(heard) == []
    service.end_streams()
    with pytest.raises(Aiom4bError) as failed:
        next(heard)
    assert failed.value.code == "service.absent"
    assert pauses == [1.0] * 60


def test_a_job_deleted_meanwhile_counts_as_not_completed(service):
    (mine,) = service.jobs = [job("Emma")]
    service.answers["POST", "convert"] = 202, {"jobs": [dict(mine)]}
    thread, answers = _wait_for(service, "submit", "Emma", "--wait")
    service.jobs = []
    service.tell("job.deleted", job_id=mine["id"])
    thread.join(10)
    assert answers[0].exit_code == 1
    assert "deleted: Emma" in answers[0].stdout


# --- watching ----------------------------------------------------------------------------------------------------------


def test_events_are_told_line_by_line_away_from_a_terminal(service, monkeypatch):
    # Once everything is told the service goes for good.
    monkeypatch.setattr(following, "PATIENCE", 0)
    (failed,) = service.jobs = [job("Mansfield", id="11111111-0", status="failed", error=problem())]
    for json_too in (False, True):
        thread, answers = _wait_for(service, "watch", *(["--json"] if json_too else []))
        service.tell("job.step", job_id="abcd0111-0", name="Emma", status="running", step="convert", progress=4.0)
        service.tell("job.progress", job_id="abcd0111-0", name="Emma", status="running", step="convert", progress=5.0)
        service.tell("download.progress", job_id="x", asin="B07EXAMPLE", bytes=5, total=9, bytes_per_second=1)
        service.send(b": sign of life\n\n")
        service.tell("entry.changed", name="Persuasion", state="needs_attention", problem=problem("x.y", "No disc 2."))
        service.tell("entry.changed", name="Sanditon", state=None, problem=None)
        service.tell("job.failed", job_id=failed["id"], name="Mansfield", status="failed", step=None, progress=0.0)
        service.tell("service.paused")
        service.refuse_streams = True
        service.end_streams()
        thread.join(10)
        service.refuse_streams = False
        assert answers[0].exit_code == 75
        lines = answers[0].stdout.splitlines()
        if json_too:
            told = [json.loads(line) for line in lines[:7]]
            assert [line["event"] for line in told] == [
                "job.step",
                "job.progress",
                "download.progress",
                "entry.changed",
                "entry.changed",
                "job.failed",
                "service.paused",
            ]
            assert told[1]["data"]["progress"] == 5.0
            assert told[6]["id"] == told[0]["id"] + 6
        else:
            assert [line.split("  ", 1)[1] for line in lines] == [
                "job.step  convert  Emma  (abcd0111)",
                "entry.changed  needs attention  Persuasion  No disc 2.",
                "entry.changed  gone  Sanditon",
                "job.failed  Mansfield  (11111111)  The disk is full.",
                "service.paused",
            ]


def environment_of(service, tmp_path):
    (tmp_path / "house").mkdir()
    return House(tmp_path / "house", lambda *_: None).environment() | {"AIOM4B_PATHS__SOCKET": service.path}


class _Terminal:
    """The real program on a terminal of its own."""

    def __init__(self, service, tmp_path, *words, **environment):
        self.ours, theirs = pty.openpty()
        given = environment_of(service, tmp_path) | {"COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aiom4b", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=given | {"TERM": "xterm"} | environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = b""

    def until(self, text: str):
        deadline = time.monotonic() + 20
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 1 << 16)

    def interrupted(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        with contextlib.suppress(OSError):
            while select.select([self.ours], [], [], 0)[0] and (more := os.read(self.ours, 1 << 16)):
                self.seen += more
        os.close(self.ours)
        return code


@pytest.fixture
def busy(service):
    emma = job("Emma", status="running", step="convert", progress=42.4, eta_seconds=190.0)
    waiting = job("Persuasion\x1b[2J", status="waiting", error=problem())
    service.jobs = [waiting, emma]
    # Its progress stays as it is here: what is seen to move has moved by the events.
    service.answers["GET", "status"] = lambda _: (200, status(current=[emma | {"progress": 42.4}]))
    return service, emma


def test_the_live_view_shows_progress_queue_and_what_waits(busy, tmp_path):
    service, emma = busy
    terminal = _Terminal(service, tmp_path, "watch", LANG="C.UTF-8")
    terminal.until("42 %")
    terminal.until("3 min left")
    terminal.until("1 running, 2 queued, 1 waiting")
    terminal.until("The disk is full.")
    terminal.until("remedy: Make room.")
    terminal.until("━")
    assert b"\x1b[2JEmma" not in terminal.seen
    assert rb"Persuasion\x1b[2J" in terminal.seen
    service.change(emma, "job.progress", progress=77.0)
    terminal.until("77 %")
    service.change(emma, "job.completed", status="completed")
    service.answers["GET", "status"] = lambda _: (200, status(current=[]))
    terminal.until("0 running")
    assert terminal.interrupted() == 130
    assert b"Traceback" not in terminal.seen
    assert b"error:" not in terminal.seen
    assert b"\x1b[?25h" in terminal.seen  # the cursor is back


def test_the_live_view_is_ascii_where_the_terminal_knows_no_more(busy, tmp_path):
    service, emma = busy
    emma["name"] = "Überfahrt"
    ascii_only = {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    terminal = _Terminal(service, tmp_path, "watch", **ascii_only)
    terminal.until(r"\xdcberfahrt")
    terminal.until("42 %")
    assert terminal.interrupted() == 130
    assert terminal.seen.isascii()
    assert b"Traceback" not in terminal.seen


def test_a_reader_that_has_enough_sees_no_traceback(service, tmp_path):
    entries = [entry(f"Book {n}") for n in range(500)] * 8
    items = [one | {"name": f"{one['name']} {n}"} for n, one in enumerate(entries)]
    service.answers["GET", "folders"] = lambda _: (200, {"items": items, "total": 1, "limit": 500, "offset": 0})
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m aiom4b list | head -n 1"],
        env=environment_of(service, tmp_path),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


def test_ctrl_c_while_waiting_says_that_the_jobs_go_on(service, tmp_path):
    (mine,) = service.jobs = [job("Emma")]
    service.answers["POST", "convert"] = 202, {"jobs": [mine]}
    terminal = _Terminal(service, tmp_path, "submit", "Emma", "--wait", LANG="C.UTF-8")
    assert service.opened.acquire(timeout=20)
    terminal.until("queued: Emma")
    assert terminal.interrupted() == 130
    assert b"The service goes on" in terminal.seen
    assert b"Traceback" not in terminal.seen


# --- against the real interface ----------------------------------------------------------------------------------------


def asked(scene):
    """Run a test with the real interface, and ``ask`` to type a command in a thread beside it."""

    def test(tmp_path, monkeypatch):
        async def run():
            with anyio.fail_after(60):
                async with serving(tmp_path) as control:
                    monkeypatch.setenv("AIOM4B_PATHS__SOCKET", control.path)

                    async def ask(*words):
                        return await anyio.to_thread.run_sync(lambda: type_(*words))

                    await scene(control, ask)

        with capture_logs():  # the service's lines would get among the answers, in one process
            anyio.run(run)

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


@asked
async def test_every_question_is_understood(control, ask):
    failed = await control.add(
        "Emma", changes={"status": Status.FAILED, "error": Problem(code="a.b", message="Torn.", remedy="Copy it.")}
    )
    await control.store.note(failed.id, control.now, "job.failed", code="a.b")
    await control.store.put_entry(stored_entry("Emma", jobs=(failed.id,)))
    beginning = failed.id[:8]
    assert "jobs     1 failed" in (await ask("status")).stdout
    assert "needs attention  3 files" in (await ask("list")).stdout
    assert "remedy: Copy it." in (await ask("list")).stdout
    assert f"{beginning}  failed" in (await ask("jobs", "list", "--status", "failed")).stdout
    assert (await ask("jobs", "list", "--status", "running")).stdout == ""
    assert "Torn. [a.b]" in (await ask("jobs", "show", beginning)).stdout
    assert "job.failed  code=a.b" in (await ask("jobs", "log", beginning)).stdout
    for words in (("status",), ("list",), ("jobs", "list"), ("jobs", "show", beginning), ("jobs", "log", beginning)):
        told = await ask(*words, "--json")
        assert (told.exit_code, json.loads(told.stdout)["ok"]) == (0, True)


@asked
async def test_every_command_is_understood(control, ask):
    name = os.fsdecode(b"H\xf6r")
    os.mkdir(os.path.join(control.source, name))
    told = json.loads((await ask("submit", name, "--json")).stdout)
    (made,) = told["jobs"]
    assert made["name"] == r"H\xf6r"
    beginning = made["id"][:8]
    for words in (
        ("priority", beginning, "-5"),
        ("order", beginning, "names"),
        ("order", beginning, "2.mp3", name + ".mp3"),
        ("cancel", beginning),
        ("retry", beginning),
    ):
        told = await ask("jobs", *words)
        assert (told.exit_code, told.stderr) == (0, ""), words
    job = await control.store.job(made["id"])
    assert (job.priority, job.options.order) == (-5, ("2.mp3", name + ".mp3"))
    for command in ("scan", "pause", "resume", "reload"):
        assert (await ask(command)).exit_code == 0
    assert control.scans == 1
    await ask("jobs", "cancel", beginning)
    assert (await ask("jobs", "clear", "--older-than", "1")).stdout == "deleted: 0 jobs\n"
    assert (await ask("jobs", "delete", beginning)).exit_code == 0
    assert (await ask("jobs", "clear", "--status", "cancelled")).stdout == "deleted: 0 jobs\n"


@asked
async def test_a_source_is_forgotten_by_its_path(control, ask):
    book = os.path.join(control.source, "Emma", "CD1")
    os.makedirs(book)
    await control.store.put_entry(stored_entry("Emma"))
    assert (await ask("forget", book)).stdout == "forgotten: 1 source\n"
    assert await control.store.forgotten("a" * 64)
    assert (await ask("forget", "b" * 64)).exit_code == 0
    assert await control.store.forgotten("b" * 64)
    assert (await ask("forget", "Persuasion")).exit_code == 4


@asked
async def test_refusals_end_with_their_own_exit_codes(control, ask):
    job = await control.add("Emma")
    assert (await ask("jobs", "delete", job.id)).exit_code == 1
    assert (await ask("jobs", "show", "00000000-0000-4000-8000-000000000000")).exit_code == 4
    assert (await ask("submit", "/etc")).exit_code == 1
    assert (await ask("submit", "Missing")).exit_code == 4
    assert (await ask("jobs", "list", "--status", "happy")).exit_code == 2
    control.reloaded = InvalidSettings([])
    assert (await ask("reload")).exit_code == 78


@asked
async def test_a_job_is_waited_for_over_the_real_events(control, ask):
    os.mkdir(os.path.join(control.source, "Emma"))
    answers = []

    async def submit():
        answers.append(await ask("submit", "Emma", "--wait"))

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        jobs = []
        while not jobs:
            jobs, _ = await control.store.jobs(status=None, kind=None, limit=1, offset=0)
            await anyio.sleep(0.01)
        await control.store.update(jobs[0].id, control.now, status=Status.COMPLETED, output="/library/Emma.m4b")
        control.events.publish("job.completed", job_id=jobs[0].id, status="completed", step=None, progress=100.0)
    assert answers[0].exit_code == 0
    assert "completed: /library/Emma.m4b" in answers[0].stdout
