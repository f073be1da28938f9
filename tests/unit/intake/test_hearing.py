"""When is the watch called deaf? Only for what came without any event."""

from __future__ import annotations

import pytest

import intakes
from aiom4b.intake.watcher import Watcher
from intakes import Door, played


@pytest.fixture
def door(tmp_path, monkeypatch):
    monkeypatch.setattr(Watcher, "hears", True)
    return Door(tmp_path)


def test_the_service_was_called_degraded_after_every_folder_that_was_moved_in(tmp_path, door):
    async def scene():
        intakes.put(tmp_path / "Emma", intakes.book())
        await door.wait(0)  # one event, as a rename gives, before anything has been seen of it
        await door.wait(60, heard=False)
        assert door.state("Emma") == "queued"
        assert door.inbox.health().state == "up"

    played(scene, door)


def test_a_folder_that_came_without_an_event_shows_that_the_watch_is_deaf(tmp_path, door):
    async def scene():
        await door.wait(1)
        intakes.put(tmp_path / "Emma", intakes.book())
        door.inbox.scan()
        await door.wait(2, heard=False)
        assert door.inbox.health().state == "up"
        await door.wait(2, heard=False)
        assert door.inbox.health().state == "degraded"
        assert "Emma" in door.inbox.health().reason

    played(scene, door)
