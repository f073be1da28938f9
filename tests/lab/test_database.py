"""What becomes of the database when its disk is really full, or read-only?"""

from __future__ import annotations

import ctypes
import os

import anyio
import pytest

from aiom4b.errors import Exit, Fatal, Transient
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.store import Store
from aiom4b.models import now

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")]

_READ_ONLY = 1 | 32  # MS_RDONLY | MS_REMOUNT


def mount(place, flags, options):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))


@pytest.fixture
def state(tmp_path):
    """Return a file system of two MiB."""
    place = tmp_path / "state"
    place.mkdir()
    mount(place, 0, "size=2m")
    yield place
    # Detached, since the traceback of a failed query may still hold its cursor, and that the file.
    assert ctypes.CDLL(None).umount2(os.fsencode(place), 2) == 0


def fill(place):
    """Take all the room there is."""
    with open(place / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


async def add(store):
    facts = {"name": "x" * 3000, "folders": ("/x",), "entry": None, "fingerprint": None}
    return await store.add(kind=Kind.CONVERT, options=JobOptions(), now=now(), **facts)


def test_a_full_disk_stops_changes_but_no_answers_and_ends_by_itself(state):
    async def run():
        store = await Store.open(str(state / "aiom4b.db"))
        await add(store)
        fill(state)
        kept, told = 1, None
        while told is None:  # the log has some room left
            try:
                await add(store)
                kept += 1
            except Transient as error:
                told = error.code
        assert told == "space.full"
        assert (await store.counts())[Status.QUEUED] == kept
        await store.check()
        os.unlink(state / "filler")
        await add(store)
        assert (await store.counts())[Status.QUEUED] == kept + 1
        await store.close()

    anyio.run(run)


def test_a_start_on_a_full_disk_is_tried_again_later(state):
    fill(state)

    async def run():
        store = await Store.open(str(state / "aiom4b.db"))
        await store.close()

    with pytest.raises(Transient):
        anyio.run(run)
    os.unlink(state / "filler")
    anyio.run(run)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_read_only_state_is_named(state, damaged):
    async def run():
        store = await Store.open(str(state / "aiom4b.db"))
        await store.close()

    anyio.run(run)
    if damaged:
        (state / "aiom4b.db").write_bytes(b"This is no database. " * 100)
    mount(state, _READ_ONLY, "size=2m")
    with pytest.raises(Fatal) as caught:
        anyio.run(run)
    assert (caught.value.code, caught.value.exit) == ("database.unusable", Exit.CONFIGURATION)
    assert "aiom4b.db" in caught.value.reason
    assert sorted(os.listdir(state)) == ["aiom4b.db"]
