"""What if a title is fetched and dropped at once? The real account against a fake of Audible, and somebody else's copy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import pytest

from aiom4b import redaction
from aiom4b.jobs.job import Kind, Status
from aiom4b.jobs.title import Asin, TitleStatus
from downloading import MAIN, at_work, book_in, run
from fake_audible import FakeAudible, Title, all_to

FIRST, SECOND = Asin("B00AIOM4B1"), Asin("B00AIOM4B2")


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def audio(tmp_path):
    """Return the audio of both titles, which differ by what they are called."""
    made = {}
    for asin in (FIRST, SECOND):
        made[asin] = tmp_path / f"{asin}.aaxc"
        made[asin].write_bytes(hashlib.shake_256(asin.encode()).digest(2_000_000))
    return made


@pytest.fixture
def fake(audio):
    titles = [Title(asin=asin, title=asin, aaxc=path) for asin, path in audio.items()]
    with FakeAudible(*titles) as service, all_to(service.port):
        yield service


async def dropped(life, asin, audio):
    """Drop a copy of a title into the source, and return the job that was made of it."""
    folder = Path(life.settings.paths.source, asin)
    folder.mkdir(parents=True)
    (folder / "own copy.aaxc").write_bytes(audio[asin].read_bytes())
    return (await life.admission.accept(book_in(str(folder)), os.fsencode(asin).decode())).job


async def held(life):
    await anyio.to_thread.run_sync(life.fake.wait_held)


def test_no_licence_is_asked_for_a_title_that_is_dropped_while_its_turn_is_waited_for(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("licence", FIRST)
            await life.account.download([FIRST, SECOND])
            await held(life)

            async def both():
                return life.scheduler.running == 2

            await life.until(both)
            await anyio.wait_all_tasks_blocked()
            book = await dropped(life, SECOND, audio)
            fake.release()
            job = await life.status(SECOND, Status.COMPLETED)
            assert job.error is None
            await life.status(FIRST, Status.COMPLETED)
            life.runner.go_on.set()

            async def made():
                title = await life.store.title(SECOND, MAIN)
                return title if title.status is TitleStatus.COMPLETED and title.files is None else None

            assert (await life.until(made)).job == book.id
        assert fake.licences == {FIRST: 1}

    run(scene)


def test_a_download_whose_very_file_was_dropped_meanwhile_does_not_stay_for_ever(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn")
            await life.account.download([FIRST])
            await held(life)
            book = await dropped(life, FIRST, audio)
            fake.release()
            await life.status(FIRST, Status.COMPLETED)
            assert (await life.job(FIRST, Kind.CONVERT)).id == book.id
            assert f"{FIRST}-AAX_44_128.aaxc" in life.files(FIRST)
            life.runner.go_on.set()
            await life.status(FIRST, Status.COMPLETED, kind=Kind.CONVERT)

            async def tidied():
                return life.files(FIRST) is None

            await life.until(tidied)

    run(scene)


def test_another_edition_that_was_dropped_is_no_reason_to_remove_a_download(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn")
            await life.account.download([FIRST])
            await held(life)
            await dropped(life, FIRST, {FIRST: audio[SECOND]})
            fake.release()
            await life.status(FIRST, Status.COMPLETED)
            books = [job for job in await life.store.jobs_of_title(FIRST) if job.kind is Kind.CONVERT]
            own = next(job for job in books if job.folders == (life.folder(FIRST),))
            await life.desk.cancel(own.id)
            await life.desk.delete(own.id)  # as clearing the history does
            life.runner.go_on.set()

            async def made():
                return all(job.status.ended for job in await life.store.jobs_of_title(FIRST))

            await life.until(made)
        async with at_work(tmp_path, fake) as life:
            await life.account.download([])  # which has it all looked at
            assert f"{FIRST}-AAX_44_128.aaxc" in life.files(FIRST)

    run(scene)


def test_nothing_is_fetched_by_itself_before_all_that_was_dropped_has_been_looked_at(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="all") as life:
            life.looked = anyio.Event()
            await life.sign_in()
            _, total = await life.store.jobs(limit=0, offset=0)
            assert total == 0
            await dropped(life, SECOND, audio)
            life.looked.set()
            await life.status(FIRST, Status.COMPLETED)
            assert await life.job(SECOND) is None
        assert fake.licences == {FIRST: 1}

    run(scene)
