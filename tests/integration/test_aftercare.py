"""Which finished sources are taken away, and which stay because something in them is not finished?"""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import pytest

from aiom4b import pipeline
from aiom4b.app.aftercare import Aftercare
from aiom4b.config import PathSettings, Settings, WatchSettings
from aiom4b.intake import snapshot
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import EntryState, Problem, SourceEntry
from aiom4b.models import Fingerprint

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LOCKED = Problem(code="source.encrypted", message="One of its books is encrypted.", remedy="Give its key.")


@pytest.fixture
def places(tmp_path, monkeypatch):
    for name in ("source", "library", "archive"):
        (tmp_path / name).mkdir()
    (tmp_path / "library" / "book.m4b").touch()
    record = SimpleNamespace(book="book.m4b", backup=SimpleNamespace(root="", copied=False))
    monkeypatch.setattr(pipeline, "already_published", lambda library, fingerprint: record)
    return tmp_path


def entry(places, name, problem=None):
    (places / "source" / name).mkdir()
    (places / "source" / name / "1.mp3").write_bytes(b"sound")
    return known(places, name, problem)


def known(places, name, problem=None, beside=()):
    found = snapshot.take(str(places / "source"), name, beside)
    return SourceEntry(
        name=name,
        digest=found.digest,
        state=EntryState.DONE,
        problem=problem,
        fingerprints=(Fingerprint("1" * 64),),
        jobs=(),
        files=1,
        size=5,
        changed=NOW,
    )


def care(places, *entries):
    """Let it look once, at the start."""

    async def scene():
        async def known():
            return entries

        async def reserve(count):
            return 1

        events = Events(lambda: NOW, reserve)
        await events.start()
        paths = PathSettings(
            source=str(places / "source"), library=str(places / "library"), archive=str(places / "archive")
        )
        settings = Settings(paths=paths, watch=WatchSettings(after_success="archive"))
        aftercare = Aftercare(SimpleNamespace(entries=known), events, lambda: settings)
        async with anyio.create_task_group() as group:
            group.start_soon(aftercare.run)
            await anyio.wait_all_tasks_blocked()
            events.publish("job.completed")
            events.close()

    anyio.run(scene)
    return sorted(one.name for one in (places / "source").iterdir()), sorted(
        one.name for one in (places / "archive").iterdir() if not one.name.startswith(".")
    )


def test_a_folder_with_something_in_it_that_became_no_book_is_not_taken_away_with_its_reason(places):
    done, half = entry(places, "Emma"), entry(places, "Two of three", LOCKED)
    assert care(places, done, half) == (["Two of three"], ["Emma"])


def test_the_source_is_listed_once_however_many_entries_wait_for_their_books(places, monkeypatch):
    monkeypatch.setattr(pipeline, "already_published", lambda library, fingerprint: None)
    entries = [entry(places, name) for name in ("Emma", "Persuasion", "Sanditon")]
    surveys = []
    survey = snapshot.survey
    monkeypatch.setattr(snapshot, "survey", lambda source: surveys.append(source) or survey(source))
    assert care(places, *entries) == (["Emma", "Persuasion", "Sanditon"], [])
    assert len(surveys) <= 2


def test_a_voucher_was_taken_away_with_another_book_of_that_name(places):
    voucher = "Emma-AAX_44_128.voucher"
    for name in ("Emma.m4b", "Emma-AAX_44_128.aaxc", voucher, "Emma.jpg"):
        (places / "source" / name).write_bytes(b"something")
    done = known(places, "Emma.m4b", beside=snapshot.survey(str(places / "source")).entries["Emma.m4b"])
    assert care(places, done)[0] == ["Emma-AAX_44_128.aaxc", voucher, "Emma.jpg"]
