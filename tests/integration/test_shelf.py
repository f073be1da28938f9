"""Is what is said of downloads true, whatever happens to their folder? The real account against a fake of Audible."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

import factories
from aiom4b import redaction
from aiom4b.account import shelf
from aiom4b.adapters.audible_api.session import Session
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.title import Asin, TitleStatus
from downloading import MAIN, at_work, run
from fake_audible import FakeAudible, Title, all_to

ASIN, OTHER = Asin("B00AIOM4B1"), Asin("B00AIOM4Z9")
BODY = hashlib.shake_256(b"own").digest(300_000)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def audio(tmp_path):
    path = tmp_path / "own.aaxc"
    path.write_bytes(BODY)
    return path


@pytest.fixture
def fake(audio):
    with FakeAudible(Title(asin=ASIN, aaxc=audio)) as service, all_to(service.port):
        yield service


def failing(life, code):
    """Let every book fail with this, for as long as ``life.runner.go_on`` isn't set."""
    make = life.runner.make

    async def failed(job, *args, **facts):
        if not life.runner.go_on.is_set():
            raise NeedsAttention(code, "It is no book.", remedy="Get it anew.")
        return await make(job, *args, **facts)

    life.runner.make = failed


async def gone(life, asin=ASIN):
    async def is_gone():
        return life.files(asin) is None

    await life.until(is_gone)


# --- a download that is damaged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "waits"), [("audio.damaged", False), ("audible.key_wrong", True)])
def test_a_damaged_download_comes_anew_when_it_is_asked_for_and_takes_no_licence(code, waits, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            failing(life, code)
            await life.account.download([ASIN])
            if waits:

                async def waiting():
                    job = await life.job(ASIN, Kind.CONVERT)
                    return job if job is not None and job.status is Status.WAITING else None

                await life.desk.cancel((await life.until(waiting)).id)
            else:
                await life.status(ASIN, Status.FAILED, kind=Kind.CONVERT)
            damaged = Path(life.folder(ASIN), f"{ASIN}-AAX_44_128.aaxc")
            damaged.write_bytes(bytes(len(BODY)))
            assert (await life.store.title(ASIN)).status is TitleStatus.DOWNLOADED
            fake.hold("cdn")
            (job,) = await life.account.download([ASIN])
            await anyio.to_thread.run_sync(fake.wait_held)
            assert not damaged.exists()
            title = await life.store.title(ASIN)
            assert (job.kind, title.status, title.files) == (Kind.DOWNLOAD, TitleStatus.DOWNLOADING, None)
            life.runner.go_on.set()
            fake.release()
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
        assert (fake.licences, fake.requests["cdn"]) == ({ASIN: 1}, 2)

    run(scene)


def test_a_download_that_is_no_audio_at_all_comes_anew_when_it_is_asked_for(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            examine = life.runner.examine

            async def refused(folders, **facts):
                raise NeedsAttention("audio.corrupt", "It is damaged.", remedy="Get it anew.")

            life.runner.examine = refused
            await life.account.download([ASIN])
            await life.status(ASIN, Status.FAILED)
            life.runner.examine = examine
            await life.account.download([ASIN])
            await life.status(ASIN, Status.COMPLETED)
        assert (fake.licences, fake.requests["cdn"]) == ({ASIN: 1}, 2)

    run(scene)


def test_a_damaged_download_that_can_not_be_had_any_more_stays(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            failing(life, "audio.damaged")
            await life.account.download([ASIN])
            await life.status(ASIN, Status.FAILED, kind=Kind.CONVERT)
            fake.revoke(ASIN)
            await life.account.sync(MAIN, full=False)
            await life.account.download([ASIN])
            assert f"{ASIN}-AAX_44_128.aaxc" in life.files(ASIN)

    run(scene)


def test_a_download_whose_book_failed_for_another_reason_stays(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            failing(life, "book.no_place")
            await life.account.download([ASIN])
            failed = await life.status(ASIN, Status.FAILED, kind=Kind.CONVERT)
            await life.account.download([ASIN])

            async def again():
                job = await life.job(ASIN, Kind.CONVERT)
                return job.id != failed.id

            await life.until(again)
        assert fake.requests["cdn"] == 1

    run(scene)


def test_an_address_that_is_refused_twice_is_told_however_the_clock_jumps(fake, tmp_path, monkeypatch):
    async def scene():
        async with at_work(tmp_path, fake) as life:

            async def refused(session, *args, **facts):
                life.later += timedelta(hours=2)
                raise Transient("audible.address_expired", "The address is refused.", remedy="Wait.")

            monkeypatch.setattr(Session, "transfer", refused)
            await life.sign_in()
            await life.account.download([ASIN])
            await life.waits(ASIN, "audible.address_expired")

    run(scene)


# --- what is said to be here ---------------------------------------------------------------------------------------------


def test_a_library_that_was_moved_is_found_again_and_takes_no_licence(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            life.runner.go_on.set()
            await life.fetched(ASIN)
            book = (await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)).output
            await gone(life)
            await life.store.title_filed(ASIN, "/where/the/library/was/Book.m4b")
        async with at_work(tmp_path, fake) as life:
            await life.account.download([ASIN])
            await life.scheduler.idle()
            assert (await life.store.title(ASIN)).book == book
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_title_that_came_here_by_another_way_is_not_said_to_be_downloaded(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, scheduled=False) as life:
            await life.sign_in()
            await life.account.download([ASIN])
            folder = tmp_path / "source" / "dropped"
            folder.mkdir(parents=True)
            (folder / "a.aaxc").write_bytes(b"own copy")
            file = factories.source_file("a.aaxc", sha256="1" * 64, asin=ASIN)
            source = factories.source(file, name="dropped", root=str(folder))
            convert = await life.admission.add(source, None, JobOptions(), 0, asin=ASIN)
            async with anyio.create_task_group() as group:
                group.start_soon(life.scheduler.run)
                await life.status(ASIN, Status.COMPLETED)

                async def untold():
                    return (await life.store.title(ASIN)).files is None

                await life.until(untold)
                await life.desk.cancel(convert.id)
                assert (await life.store.title(ASIN)).status is TitleStatus.NEW
                group.cancel_scope.cancel()
        assert fake.licences == {}

    run(scene)


def test_a_download_that_was_removed_by_hand_is_new_again(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            await life.desk.cancel((await life.job(ASIN, Kind.CONVERT)).id)
            assert (await life.store.title(ASIN)).status is TitleStatus.DOWNLOADED
            shutil.rmtree(life.folder(ASIN))
        async with at_work(tmp_path, fake) as life:
            await life.account._shelf.reconciled()
            assert (await life.store.title(ASIN)).status is TitleStatus.NEW
            (job,) = await life.account.download(None)
            assert job.asin == ASIN

    run(scene)


@pytest.mark.parametrize("declined", [False, True])
def test_a_database_that_was_lost_before_the_book_goes_on_with_it(declined, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            if declined:
                await life.desk.cancel((await life.job(ASIN, Kind.CONVERT)).id)
                await life.desk.clear(list(Status))
        for name in os.listdir(life.state):
            if name.startswith("aiom4b.db") and not declined:
                os.unlink(os.path.join(life.state, name))
        async with at_work(tmp_path, fake) as life:
            await life.account.sync(MAIN, full=True)
            if declined:
                await life.account._orders.resume()
                assert await life.store.jobs_of_title(ASIN) == []
                return
            life.runner.go_on.set()
            job = await life.until(lambda: life.job(ASIN, Kind.CONVERT))
            assert (job.folders, job.asin) == ((life.folder(ASIN),), ASIN)
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            await gone(life)
        assert fake.licences == {ASIN: 1}

    run(scene)


# --- what lies among the downloads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["link", "file"])
def test_what_is_no_folder_among_the_downloads_stops_no_other(what, fake, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.txt").write_text("own")
    place = tmp_path / "library" / ".aiom4b" / "downloads"
    place.mkdir(parents=True)
    if what == "link":
        (place / OTHER).symlink_to(elsewhere)
    else:
        (place / OTHER).write_text("x")

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            assert sorted(os.listdir(place)) == [ASIN]
            assert os.listdir(elsewhere) == ["own.txt"]

    run(scene)


def test_a_download_that_can_not_be_removed_stops_no_other(fake, tmp_path, monkeypatch):
    (tmp_path / "library" / ".aiom4b" / "downloads" / OTHER).mkdir(parents=True)
    remove = shutil.rmtree

    def stubborn(path, *args, **facts):
        if os.path.basename(path) == OTHER:
            raise OSError(39, "Directory not empty")
        remove(path, *args, **facts)

    monkeypatch.setattr(shelf.shutil, "rmtree", stubborn)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)

    run(scene)


def test_a_download_whose_end_was_told_too_fast_is_removed_all_the_same(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            tidy, busy, on = life.account._shelf.tidy, anyio.Event(), anyio.Event()

            async def slow(asin):
                if asin == OTHER:
                    busy.set()
                    await on.wait()
                await tidy(asin)

            life.account._shelf.tidy = slow
            life.events.publish("job.completed", asin=OTHER)
            await busy.wait()
            life.runner.go_on.set()
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            last = life.events.last_id
            for _ in range(1100):  # more than are kept
                life.events.publish("news")

            async def all_told():
                return life.events.last_id >= last + 1000

            await life.until(all_told)
            assert life.files(ASIN)
            on.set()
            await gone(life)

    run(scene)
