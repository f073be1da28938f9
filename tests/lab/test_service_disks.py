"""What does the running service do when its disks are full, or gone and back again?"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

import sound
from household import Disk, House, clip, real_program, tracks
from running import places, running, segments

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")]

LONG = '[encode]\naac_coder = "twoloop"\nchannels = 2\nbitrate = "128k"\n'


@pytest.fixture
def house(tmp_path):
    """Return a house whose source is looked through every second: nobody tells that a volume went."""
    house = House(tmp_path, real_program)
    house.set("[watch]\nrescan_seconds = 1\n")
    return house


class Volume:
    """What is mounted at ``place``: the folder ``disk``, which is there all the time."""

    _BIND, _DETACH = 4096, 2

    def __init__(self, disk: Path, place: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._disk, self._place = os.fsencode(disk), os.fsencode(place)
        disk.mkdir()
        self.mounted = False

    def mount(self) -> None:
        assert self._libc.mount(self._disk, self._place, b"", self._BIND, b"") == 0, os.strerror(ctypes.get_errno())
        self.mounted = True

    def unmount(self) -> None:
        assert self._libc.umount2(self._place, self._DETACH) == 0, os.strerror(ctypes.get_errno())
        self.mounted = False

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        if self.mounted:
            self.unmount()


def fill(place):
    """Take all the room there is."""
    with open(place / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_book_waits_for_room_in_the_library_and_goes_on_by_itself(house):
    with Disk(house.library) as disk:
        disk.resize(256)
        with running(house) as service:
            (house.library / "filler").write_bytes(bytes(900_000))
            house.drop("Emma", {f"{n:02}.mp3": clip(n, 20) for n in range(1, 4)})
            job = service.until_job("Emma", "waiting")
            assert job["error"]["code"] == "space.full"
            assert job["not_before"] is not None
            assert job["error"]["remedy"]
            entry = service.entry("Emma")
            assert (entry["state"], entry["error"]) == ("queued", job["error"])
            assert house.books() == []
            disk.resize(4096)
            done = service.until_job("Emma", "completed")
            assert (done["id"], done["attempts"], done["error"]) == (job["id"], 1, None)
            (house.library / "filler").unlink()
        assert len(house.books()) == 1
        assert house.litter() == []


def test_a_full_state_directory_stops_no_answer_and_loses_no_book(house):
    state = house.root / "state"
    state.mkdir()
    with Disk(state) as disk:
        disk.resize(1024)
        with running(house) as service:
            house.drop("Emma", tracks(2))
            service.until_job("Emma", "completed")
            fill(state)
            house.drop("Persuasion", tracks(2, album="Persuasion", first_seed=5))
            service.until(lambda: service.said("entry.not_recorded"))
            status = service.ask("status")
            assert status["jobs"]["completed"] == 1
            assert service.types("list").exit == 0
            assert service.http.post("pause").status_code in {200, 503}
            (state / "filler").unlink()
            service.tell("resume")
            service.until_state("Persuasion", "done")
    assert len(house.books()) == 2
    assert house.litter() == []


@pytest.mark.parametrize("moment", ["between", "within"])
def test_a_library_that_is_unmounted_is_waited_for_and_nothing_is_written_in_its_place(house, moment):
    with Volume(house.root / "disk", house.library) as volume:
        with running(house) as service:
            if moment == "within":
                house.set("[watch]\nrescan_seconds = 1\n" + LONG)
                service.tell("reload")
                house.drop("Emma", {"Emma.mp3": sound.mp3(sound.speech(64, 44100), 44100)})
                service.until_segments(2)
            there = segments(house)
            volume.unmount()
            if moment == "between":
                house.drop("Emma", tracks(2))
            job = service.until(lambda: (service.jobs("waiting") or [None])[0], 60)
            assert job["error"]["code"] == "volume.missing"
            assert str(house.library) in job["error"]["message"]
            assert service.ask("status")["health"]["status"] == "degraded"
            assert service.http.get("http://localhost/health").status_code == 503
            assert os.listdir(house.library) == []
            volume.mount()
            assert set(there) <= set(segments(house))
            assert service.until_job("Emma", "completed")["id"] == job["id"]
            assert service.ask("status")["health"]["status"] == "ok"
        assert len(house.books()) == 1
        assert house.litter() == []


def test_a_source_that_is_unmounted_loses_no_entry_and_recovers(house):
    with Volume(house.root / "disk", house.drops) as volume:
        with running(house) as service:
            house.drop("Emma", tracks(2))
            emma = service.until_state("Emma", "done")
            volume.unmount()
            service.until(lambda: service.ask("status")["health"]["status"] == "degraded")
            (reason,) = service.ask("status")["health"]["reasons"]
            assert "mounted" in reason
            assert service.entry("Emma") == emma
            volume.mount()
            service.until(lambda: service.ask("status")["health"]["status"] == "ok")
            assert service.entry("Emma") == emma
            house.drop("Persuasion", tracks(2, album="Persuasion", first_seed=5))
            service.until_state("Persuasion", "done")
            assert len(service.jobs()) == 2
        assert len(house.books()) == 2


def test_a_service_that_starts_without_its_library_waits_to_be_started_with_it(house):
    with Volume(house.root / "disk", house.library) as volume:
        with running(house) as service:
            house.drop("Emma", tracks(2))
            service.until_state("Emma", "done")
        volume.unmount()
        answer = real_program(house, ["run", *places(house)])
        assert answer.exit == 75
        assert "[volume.missing]" in answer.talk
        assert os.listdir(house.library) == []
        volume.mount()
        with running(house) as service:
            assert service.until_state("Emma", "done")
            assert len(service.jobs()) == 1
