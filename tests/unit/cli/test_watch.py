"""Facts about the live view: what it shows of values, without a service or a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from aiom4b.cli import watch
from aiom4b.cli.stream import Event, events_of
from aiom4b.cli.watch import Speeds, View, drawn, moved, told
from fake_service import job, problem, status

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


class Watch:
    """A monotonic clock that stands still until it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def converting(**facts):
    metrics = job()["metrics"] | {"audio_seconds": 36_000.0}
    return job(**({"status": "running", "step": "convert", "metrics": metrics} | facts))


def shown(view, encoding="utf-8", width=80, speeds=None):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, width=width, force_terminal=True, color_system=None, markup=False)
    console.print(drawn(view, speeds or Speeds(Watch()), NOW, console))
    return raw.getvalue().decode(encoding).splitlines()


def test_the_speed_is_that_of_the_audio_since_we_first_saw_it():
    watch = Watch()
    speeds = Speeds(watch)
    mine = converting(progress=10.0)
    assert speeds.of(mine) is None
    watch.now += 10
    assert speeds.of(mine | {"progress": 20.0}) == 360.0


def test_no_speed_is_told_from_less_than_two_seconds():
    watch = Watch()
    speeds = Speeds(watch)
    mine = converting(progress=10.0)
    speeds.of(mine)
    watch.now += 1.9
    assert speeds.of(mine | {"progress": 20.0}) is None


def test_the_speed_of_another_step_does_not_count():
    watch = Watch()
    speeds = Speeds(watch)
    mine = converting(progress=1.0)
    assert speeds.of(mine | {"step": "backup"}) is None
    watch.now += 100
    assert speeds.of(mine | {"step": "backup"}) is None
    assert speeds.of(mine) is None
    watch.now += 10
    assert speeds.of(mine | {"progress": 2.0}) == 36.0


def test_events_move_the_jobs_that_they_are_about():
    mine, other = converting(progress=1.0, id="1"), converting(progress=1.0, id="2")
    told = [
        Event(id=1, event="job.step", data={"job_id": "1", "step": "verify", "progress": 96.0, "eta_seconds": None}),
        Event(id=2, event="job.progress", data={"job_id": "1", "step": "verify", "progress": 97.0, "eta_seconds": 3.0}),
        Event(id=3, event="job.progress", data={"job_id": "unknown", "step": "backup", "progress": 1.0}),
    ]
    assert moved(View(running=(mine, other)), told).running == (
        mine | {"step": "verify", "progress": 97.0, "eta_seconds": 3.0},
        other,
    )


def test_waiting_ones_are_shown_with_reason_remedy_and_next_try():
    waiting = job(
        "Emma", id="abcd0111-0", error=problem("a.b", "Two orders:\n1 2\n2 1"), not_before="2026-03-01T09:05:00+00:00"
    )
    lines = [line.rstrip() for line in shown(View(waiting=(waiting,), queued=3, paused=True))]
    assert lines[0] == "0 running, 3 queued, 1 waiting (paused)"
    assert lines[-5:] == [
        "waiting: Emma [abcd0111] (next try in 5 min)",
        "  Two orders:",
        "  1 2",
        "  2 1",
        "  remedy: Make room.",
    ]


def test_a_long_name_leaves_room_for_the_rest():
    watch = Watch()
    speeds = Speeds(watch)
    mine = converting(name="A" * 200, progress=10.0, eta_seconds=190.0)
    speeds.of(mine)
    watch.now += 10
    for encoding, times in (("utf-8", "360×"), ("ascii", "360x")):
        _, line = shown(View(running=(mine | {"progress": 20.0},)), encoding, speeds=speeds)
        assert line.split()[-6:] == ["20", "%", times, "3", "min", "left"]
        assert len(line.rstrip()) <= 80
        assert line.startswith("AAAAAAAA")


def test_what_a_terminal_cannot_show_is_escaped_and_still_aligned():
    mine = converting(name="Über", progress=10.0)
    _, line = shown(View(running=(mine,)), "ascii")
    assert line.startswith(r"\xdcber")
    assert len(line.rstrip()) <= 80


def test_a_name_cannot_drive_the_terminal():
    assert "\x1b" not in "".join(shown(View(running=(converting(name="\x1b[2J"),), waiting=(job("\x1b[2J"),))))


def test_an_event_is_one_line_whatever_its_reason():
    event = Event(id=1, event="job.failed", data={"job_id": "abcd0111-0", "name": "Emma"})
    line = told(event, problem("a.b", "Two orders:\n1 2"), NOW)
    assert line.split("  ", 1)[1] == "job.failed  Emma  (abcd0111)  Two orders: 1 2"


def test_a_service_that_went_is_told_until_it_is_back():
    assert "The service has gone; waiting for it." in "\n".join(
        shown(View(gone=True, reasons=("The source is gone.",)))
    )
    assert "The source is gone." in "\n".join(shown(View(reasons=("The source is gone.",))))


def test_events_are_read_from_the_stream_format():
    lines = (
        b': ping\n\nid: 7\r\nevent: job.step\r\ndata: {"a":\ndata: 1}\n\nevent: reset\ndata: {}\n\nid: 9\n'.splitlines(
            True
        )
    )
    assert list(events_of(iter(lines))) == [
        Event(id=7, event="job.step", data={"a": 1}),
        Event(id=7, event="reset", data={}),
    ]


def transferring(**facts):
    return job(**({"kind": "download", "status": "running", "step": "download", "id": "1"} | facts))


def transfer(**facts):
    data = {
        "asin": "B07EXAMPLE",
        "job_id": "1",
        "bytes": 12_300_000,
        "total": 45_600_000,
        "bytes_per_second": 3_400_000,
    }
    return Event(id=1, event="download.progress", data=data | facts)


def test_a_download_shows_its_bytes_and_its_rate():
    view = moved(View(running=(transferring(name="Emma " * 20, progress=27.0, eta_seconds=9.0),)), [transfer()])
    _, line = shown(view)
    assert line.startswith("Emma Emma")
    assert line.rstrip().endswith(" 27 %  12.3 MB, 3.4 MB/s  9 s left")
    _, line = shown(moved(view, [transfer(bytes=13_000_000, bytes_per_second=0)]))
    assert "13.0 MB, 0 B/s" in line
    _, line = shown(View(running=(transferring(progress=27.0),)))
    assert line.split()[-1] == "%"


def test_the_bytes_of_a_transfer_are_no_reason_to_ask_again(monkeypatch):
    asked, views = [], []

    class Asked:
        def get(self, path, **_):
            asked.append(path)
            current = [transferring(progress=27.0)] if asked.count("status") == 1 else []
            return status(current=current) if path == "status" else {"items": []}

    def heard(*_, **__):
        yield []
        yield [transfer()]
        yield [transfer(bytes=13_000_000)]
        yield []  # the job is gone

    monkeypatch.setattr(watch, "batches", heard)
    monkeypatch.setattr(watch, "drawn", lambda view, *_: views.append(view) or "")
    watch._live(Asked())
    assert asked == ["status", "jobs"] * 2
    assert [view.transfers and view.transfers["1"]["bytes"] for view in views] == [{}, 12_300_000, 13_000_000, {}]


def test_the_progress_of_a_transfer_is_no_step_of_a_job():
    mine = transferring(progress=27.0)
    assert moved(View(running=(mine,)), [transfer()]).running == (mine,)


def test_the_bytes_of_a_transfer_are_no_matter_of_the_steps_after_it():
    view = moved(View(running=(transferring(step="examine", progress=99.0),)), [transfer()])
    assert "MB" not in shown(view)[1]


def test_what_a_sync_found_is_told_in_a_line():
    data = {"profile": "main", "full": True, "titles": 412, "new": 3, "changed": 0, "gone": 1, "queued": 2}
    line = told(Event(id=1, event="library.synced", data=data), None, NOW)
    assert line.split("  ", 1)[1] == "library.synced  main  412 titles, 3 new, 1 gone, 2 queued"
    line = told(Event(id=1, event="library.not_synced", data={"profile": "main"}), problem("a.b", "No answer."), NOW)
    assert line.split("  ", 1)[1] == "library.not_synced  main  No answer."
