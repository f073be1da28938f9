"""Does a title come here whole, with one licence, whatever happens on the way? The real account against a fake of Audible."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from aiom4b import redaction
from aiom4b.account.downloads import Downloads
from aiom4b.account.vouchers import Vouchers
from aiom4b.adapters import files
from aiom4b.errors import NeedsAttention
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.title import Asin, TitleStatus
from aiom4b.models import Lock
from downloading import GIGABYTE, MAIN, at_work, run
from fake_audible import ABOVE_THRESHOLD, FakeAudible, Title, all_to

ASIN = Asin("B00AIOM4B1")
BODY = hashlib.shake_256(b"own").digest(3_500_000)
MANY = [Asin(f"B00AIOM4C{n}") for n in range(8)]


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
    with FakeAudible(Title(asin=ASIN, aaxc=audio, pdf=True, annotations=True)) as service, all_to(service.port):
        yield service


def stored(life, asin=ASIN):
    return Path(life.state, "audible", "vouchers", f"{asin}.voucher")


async def held(life, number=1):
    """Return once the fake holds so many requests."""
    await anyio.to_thread.run_sync(life.fake.wait_held, number)


async def begun(life):
    """Return once the fake holds a transfer of which something has arrived."""
    await held(life)
    part = Path(life.folder(ASIN), f"{ASIN}-AAX_44_128.aaxc.part")

    async def arrived():
        return part.stat().st_size > 0

    await life.until(arrived)


# --- what comes ----------------------------------------------------------------------------------------------------------


def test_a_title_comes_here_with_all_that_belongs_to_it_and_its_book_is_queued(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            job = await life.fetched(ASIN)
            assert (job.output, job.progress, job.name) == (life.folder(ASIN), 100.0, "The Lighthouse")
            assert life.files(ASIN) == {
                f"{ASIN}-AAX_44_128.aaxc",
                f"{ASIN}-AAX_44_128.voucher",
                f"{ASIN}-chapters.json",
                f"{ASIN}-item.json",
                f"{ASIN}_(1215).jpg",
                f"{ASIN}.pdf",
                f"{ASIN}-annotations.json",
            }
            folder = Path(life.folder(ASIN))
            assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY
            voucher = folder / f"{ASIN}-AAX_44_128.voucher"
            document = json.loads(voucher.read_bytes())
            title, keys = fake.titles[ASIN], document["content_license"]["license_response"]
            assert (keys["key"], keys["iv"]) == (title.key.hex(), title.iv.hex())
            assert document.keys() == {"content_license", "response_groups"}
            assert {stat.S_IMODE(path.stat().st_mode) for path in (voucher, stored(life))} == {0o600}
            assert json.loads((folder / f"{ASIN}-chapters.json").read_bytes())["content_metadata"]["chapter_info"]
            convert = await life.job(ASIN, Kind.CONVERT)
            assert (convert.name, convert.folders, convert.asin) == ("The Lighthouse", (str(folder),), ASIN)
            assert (await life.store.title(ASIN)).status is TitleStatus.CONVERTING
            assert fake.licences == {ASIN: 1}
            ((_, key),) = await life.keys.keys(Lock.AAXC, ASIN)
            assert (key.key, key.iv) == (title.key.hex(), title.iv.hex())

    run(scene)


def test_a_podcast_episode_comes_as_the_plain_mp3_that_it_is(fake, audio, tmp_path):
    fake.add(
        Title(asin="B00AIOM4P1", title="Episode 1", delivery="PodcastEpisode", aaxc=audio, drm="Mpeg", quality="mpeg")
    )

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(Asin("B00AIOM4P1"))
            assert "B00AIOM4P1-MPEG.mp3" in life.files("B00AIOM4P1")

    run(scene)


def test_a_title_without_an_aaxc_comes_the_older_way_with_the_accounts_activation_bytes(fake, audio, tmp_path):
    fake.add(Title(asin=ASIN, aax=audio))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            name = next(name for name in life.files(ASIN) if name.endswith(".aax"))
            key = Path(life.folder(ASIN), name.removesuffix(".aax") + ".key")
            value = fake.account.activation_bytes.hex()
            assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == (f"ActivationBytes={value}\n", 0o600)
            assert Path(life.folder(ASIN), name).read_bytes() == BODY
            # Asked for once, then kept with the sign-in.
            assert [one.activation_bytes for _, one in await life.keys.keys(Lock.AAX, "")] == [value]
            assert (fake.requests["activation"], fake.licences[ASIN]) == (1, 1)

    run(scene)


def test_the_activation_bytes_of_the_settings_count_without_any_account(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, activation_bytes="1A2B3C4D") as life:
            ((origin, key),) = await life.keys.keys(Lock.AAX, "")
            assert (origin, key.activation_bytes) == ("audible.activation_bytes", "1a2b3c4d")
            assert fake.requests == {}

    run(scene)


@pytest.mark.parametrize("asin", ["", "../../etc/x", "b00aiom4b1", "B00AIOM4B1/", "B00AIOM4B12"])
def test_what_is_no_asin_opens_no_voucher(asin, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.fetched(ASIN)
            assert await life.keys.keys(Lock.AAXC, asin) == ()

    run(scene)


def test_a_transfer_tells_its_bytes_and_its_rate(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            ticks = iter(range(1000))
            life.account.fetcher._monotonic = lambda: next(ticks)
            events = life.heard("download.progress")
            await life.fetched(ASIN)
            told = [(await anext(events)).data for _ in range(3)]
            assert {one["asin"] for one in told} == {ASIN}
            assert [one["bytes"] for one in told] == sorted(one["bytes"] for one in told)
            assert told[-1]["total"] == len(BODY)
            assert all(one["bytes_per_second"] >= 0 for one in told)
            assert told[0]["bytes_per_second"] == told[0]["bytes"]

    run(scene)


def test_what_can_not_be_had_beside_the_audio_is_a_warning_in_the_jobs_log(fake, tmp_path):
    fake.fault("metadata", status=400, message="No chapters for you")

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            job = await life.fetched(ASIN)
            assert f"{ASIN}-chapters.json" not in life.files(ASIN)
            (line,) = [line for line in await life.store.log(job.id) if line.event == "title.warning"]
            assert line.data["code"] == "audible.refused"

    run(scene)


# --- one licence, whatever happens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["licence", "cdn", "metadata", "cover", "pdf", "annotations"])
def test_a_stop_at_any_stage_costs_no_second_licence(route, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold(route, after=1_500_000)
            (job,) = await life.account.download([ASIN])
            await (begun if route == "cdn" else held)(life)
        async with at_work(tmp_path, fake) as life:
            assert (await life.store.job(job.id)).status is not Status.FAILED
            done = await life.status(ASIN, Status.COMPLETED)
            assert (done.id, done.attempts) == (job.id, 1)
            assert Path(life.folder(ASIN), f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY
            assert (await life.job(ASIN, Kind.CONVERT)).name == "The Lighthouse"
        assert fake.licences == {ASIN: 1}
        resumed = [line for line in fake.log if "bytes=" in line]
        assert len(resumed) == (route == "cdn")

    run(scene)


def test_a_stop_between_the_book_in_the_queue_and_the_end_of_the_download_makes_no_second_book(
    fake, tmp_path, monkeypatch
):
    queued = anyio.Event()
    queue_book = Downloads.queue_book

    async def and_then_nothing(self, *what):
        await queue_book(self, *what)
        queued.set()
        await anyio.sleep_forever()

    async def scene():
        with monkeypatch.context() as patched:
            patched.setattr(Downloads, "queue_book", and_then_nothing)
            async with at_work(tmp_path, fake) as life:
                await life.sign_in()
                await life.account.download([ASIN])
                await queued.wait()
                # The book is done, and its source gone, before the download is told to be.
                life.runner.go_on.set()
                await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
        async with at_work(tmp_path, fake) as life:
            await life.status(ASIN, Status.COMPLETED)

            async def tidied():
                return life.files(ASIN) is None

            await life.until(tidied)
            assert len(await life.store.jobs_of_title(ASIN)) == 2
            assert (await life.store.title(ASIN)).files is None
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_licence_is_counted_before_it_is_asked_for(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("licence")
            await life.account.download([ASIN])
            await held(life)
            assert [outcome for _, outcome in await life.store.licences_of(MAIN, ASIN)] == ["asked"]
            fake.release()
            await life.status(ASIN, Status.COMPLETED)
            assert [outcome for _, outcome in await life.store.licences_of(MAIN, ASIN)] == ["granted"]

    run(scene)


def test_licences_are_asked_for_one_at_a_time_and_five_titles_come_at_once(fake, audio, tmp_path):
    fake.add(*(Title(asin=asin, title=f"Volume {asin}", aaxc=audio) for asin in MANY))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("licence")
            await life.account.download(MANY)
            await held(life)

            async def busy():
                return life.scheduler.running == 5

            await life.until(busy)
            await anyio.wait_all_tasks_blocked()
            assert fake.requests["licence"] == 1
            fake.release()
            fake.hold("cdn", after=1_000_000)
            await held(life, 5)
            assert (life.scheduler.running, fake.licences.total()) == (5, 5)
            fake.release()
            for asin in MANY:
                await life.status(asin, Status.COMPLETED)
            assert len(life.slept) == len(MANY)
            assert life.slept[0] == 0.0
            assert all(1.0 < pause <= 8.0 for pause in life.slept[1:])
        assert (fake.busiest["licence"], fake.busiest["cdn"]) == (1, 5)
        assert fake.licences.total() == len(MANY)

    run(scene)


def test_conversions_and_downloads_take_no_place_from_each_other(fake, tmp_path):
    for n, asin in enumerate(MANY):
        (tmp_path / asin).write_bytes(BODY + bytes([n]))
        fake.add(Title(asin=asin, title=f"Volume {n}", aaxc=tmp_path / asin))

    async def scene():
        async with at_work(tmp_path, fake, transfers=1) as life:
            await life.sign_in()
            await life.account.download(MANY)

            async def full():
                return all([await life.job(asin, Kind.CONVERT) for asin in MANY])

            await life.until(full)
            # As many books are in the making as may be, and downloads went on all the while.
            assert sum(job.kind is Kind.CONVERT for job in life.scheduler.in_work()) == 4
        assert fake.busiest["cdn"] == 1

    run(scene)


def test_an_address_that_has_expired_takes_one_more_licence_and_the_transfer_goes_on(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            await life.account.download([ASIN])
            await begun(life)
        voucher = Vouchers(str(stored(life).parent))
        known = voucher.of(ASIN)
        voucher.store(replace(known, expires=life.clock() - timedelta(minutes=1)))
        async with at_work(tmp_path, fake) as life:
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences == {ASIN: 2}
        assert any("bytes=" in line for line in fake.log)

    run(scene)


@pytest.mark.parametrize(("asked", "licences"), [(timedelta(hours=2), 2), (timedelta(0), 1)])
def test_an_address_that_is_refused_is_asked_for_anew_unless_it_is_fresh(asked, licences, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            await life.account.download([ASIN])
            await begun(life)
        voucher = Vouchers(str(stored(life).parent))
        known = voucher.of(ASIN)
        voucher.store(replace(known, expires=None, asked=known.asked - asked))
        fake.fault("cdn", status=403)
        async with at_work(tmp_path, fake) as life:
            if licences == 2:
                await life.status(ASIN, Status.COMPLETED)
            else:
                job = await life.waits(ASIN, "audible.address_expired")
                assert job.attempts == 1
        assert fake.licences == {ASIN: licences}

    run(scene)


# --- nothing is asked for what is here -----------------------------------------------------------------------------------


def test_nothing_is_asked_for_what_is_here_in_any_form(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            (job,) = await life.account.download([ASIN])
            assert [one.id for one in await life.account.download([ASIN])] == [job.id]
            await life.status(ASIN, Status.COMPLETED)
            # Its book is being made.
            convert = await life.job(ASIN, Kind.CONVERT)
            assert [one.id for one in await life.account.download([ASIN])] == [convert.id]
            # The owner stops that: the download is still here.
            await life.desk.cancel(convert.id)
            assert (await life.store.title(ASIN)).status is TitleStatus.DOWNLOADED
            await life.account.download([ASIN])
            await life.status(ASIN, Status.COMPLETED)
            convert = await life.status(ASIN, Status.RUNNING, kind=Kind.CONVERT)
            life.runner.go_on.set()
            # Its book is there.
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            assert [one.id for one in await life.account.download([ASIN])] == [convert.id]
            assert await life.account.download(None) == ()
            with pytest.raises(NeedsAttention) as caught:
                await life.account.convert(ASIN, JobOptions(), 0)
            assert caught.value.code == "title.here"
        for _ in range(2):
            async with at_work(tmp_path, fake, auto_download="all") as life:
                await life.account.sync(MAIN, full=True)
                await life.scheduler.idle()
        assert fake.licences == {ASIN: 1}
        assert fake.requests["cdn"] == 1

    run(scene)


def test_a_database_that_is_lost_learns_from_the_disk_what_is_here(fake, audio, tmp_path):
    fake.add(Title(asin=MANY[0], title="Volume 0", aaxc=audio))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            life.runner.go_on.set()
            await life.fetched(ASIN)
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            life.runner.go_on = anyio.Event()
            await life.fetched(MANY[0])
        for name in os.listdir(life.state):
            if name.startswith("aiom4b.db"):
                os.unlink(os.path.join(life.state, name))
        async with at_work(tmp_path, fake, auto_download="all") as life:
            life.runner.go_on.set()
            await life.account.sync(MAIN, full=True)
            await life.status(MANY[0], Status.COMPLETED, kind=Kind.CONVERT)
            for asin in (ASIN, MANY[0]):
                assert (await life.store.title(asin)).status is TitleStatus.COMPLETED
                assert await life.job(asin) is None
        assert fake.licences == {ASIN: 1, MANY[0]: 1}

    run(scene)


def test_a_book_that_its_owner_has_removed_comes_again_only_when_it_is_asked_for(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="all") as life:
            life.runner.go_on.set()
            await life.sign_in()
            job = await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            os.unlink(job.output)
            await life.desk.clear([Status.COMPLETED])
            await life.account.sync(MAIN, full=True)
            assert await life.job(ASIN) is None
            await life.account.download([ASIN])
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
        # The address of the first licence still serves.
        assert fake.licences == {ASIN: 1}

    run(scene)


# --- what is left over ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backup", [True, False])
def test_a_download_goes_once_its_book_is_published_and_its_backup_verified(backup, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            life.runner.backup = backup
            await life.fetched(ASIN)
            life.runner.go_on.set()
            await life.status(ASIN, Status.COMPLETED, kind=Kind.CONVERT)
            if backup:

                async def gone():
                    return life.files(ASIN) is None

                await life.until(gone)
                title = await life.until(lambda: life.store.title(ASIN))
                assert title.status is TitleStatus.COMPLETED
            else:
                await anyio.wait_all_tasks_blocked()
        async with at_work(tmp_path, fake) as life:
            await life.account._shelf.reconciled()
            assert (life.files(ASIN) is None) == backup
            title = await life.store.title(ASIN)
            assert (title.files is None) == backup

    run(scene)


def test_a_download_that_is_cancelled_leaves_nothing_and_one_that_failed_is_gone_on_with(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            (job,) = await life.account.download([ASIN])
            await held(life)
            await life.desk.cancel(job.id)

            async def gone():
                return life.files(ASIN) is None

            await life.until(gone)
            fake.release()
            fake.fault("cdn", content_type="text/html")
            await life.desk.retry(job.id)
            failed = await life.status(ASIN, Status.FAILED)
            assert failed.error.code == "audible.not_audio"
            fake.hold("metadata")
            await life.desk.retry(job.id)
            await held(life)
        async with at_work(tmp_path, fake) as life:
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_what_a_failed_download_has_brought_is_kept_for_the_next_try(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            (job,) = await life.account.download([ASIN])
            await begun(life)
        fake.fault("cdn", content_type="text/html")
        async with at_work(tmp_path, fake) as life:
            failed = await life.status(ASIN, Status.FAILED)
            assert failed.error.code == "audible.not_audio"
        async with at_work(tmp_path, fake) as life:
            await life.account._shelf.reconciled()
            assert f"{ASIN}-AAX_44_128.aaxc.part" in life.files(ASIN)
            asked = len(fake.log)
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.COMPLETED)
            assert any("bytes=" in line for line in fake.log[asked:])
        assert fake.licences == {ASIN: 1}

    run(scene)


# --- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"route": "cdn", "cut": 2_000_000}, "audible.cut_download"),
        ({"route": "cdn", "status": 503}, "audible.server"),
        ({"route": "licence", "drop": True}, "audible.network"),
        ({"route": "metadata", "drop": True}, "audible.network"),
        ({"route": "metadata", "html": True}, "audible.unreadable"),
    ],
)
def test_what_passes_by_itself_is_waited_for_and_counts_as_no_attempt(fault, code, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.fault(**fault)
            await life.account.download([ASIN])
            job = await life.waits(ASIN, code)
            assert job.attempts == 0
            assert (job.not_before - job.updated).total_seconds() == pytest.approx(60, abs=0.5)
            life.later = timedelta(minutes=1)
            life.scheduler.wake()
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences[ASIN] == 1 + (fault["route"] == "licence")

    run(scene)


def test_an_outage_is_waited_out_longer_and_longer_and_told_once(fake, tmp_path):
    fake.titles[ASIN].lifetime = timedelta(days=1)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.fault("cdn", times=9, drop=True)
            await life.account.download([ASIN])
            waits = []
            for _ in range(9):
                job = await life.waits(ASIN, "audible.network")
                waits.append((job.not_before - job.updated).total_seconds() / 60)
                life.later += job.not_before - life.clock() + timedelta(seconds=1)
                life.scheduler.wake()

                async def again(before=job):
                    return (await life.store.job(before.id)).updated > before.updated

                await life.until(again)
            assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=0.01)
            job = await life.status(ASIN, Status.COMPLETED)
            log = [line.event for line in await life.store.log(job.id)]
            assert log.count("job.waiting") == 1
        assert fake.licences == {ASIN: 1}

    run(scene)


@pytest.mark.parametrize(
    ("change", "fault", "code", "hours"),
    [
        ({"denied": ["CustomerThrottled"]}, None, "audible.customer_throttled", 24),
        ({"denied": ["RequesterEligibility"]}, None, "audible.licence_denied", 24),
        ({"aaxc": None}, None, "audible.no_asset", 6),
        ({}, {"status": 403, "message": ABOVE_THRESHOLD}, "audible.rate", 24),
        ({}, {"status": 429, "retry_after": 3600}, "audible.rate", 1),
        ({}, {"status": 500}, "audible.server", 1),
        ({}, {"html": True}, "audible.unreadable", 1),
        ({}, {"status": 403}, "audible.unauthorized", 6),
    ],
)
def test_a_refused_licence_is_waited_for_as_its_cause_asks_over_restarts_too(
    change, fault, code, hours, fake, tmp_path
):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            if change:
                for name, value in change.items():
                    setattr(fake.titles[ASIN], name, value)
            if fault:
                fake.fault("licence", **fault)
            await life.account.download([ASIN])
            job = await life.waits(ASIN, code)
            assert job.attempts == 0
            wait = (job.not_before - job.updated).total_seconds() / 3600
            assert wait == pytest.approx(hours, abs=0.01)
            asked = fake.licences[ASIN]
            # Somebody who can't wait changes nothing.
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.WAITING)
        async with at_work(tmp_path, fake) as life:
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.WAITING)
            assert fake.licences[ASIN] == asked == 1
            if fault:
                life.later = timedelta(hours=hours, minutes=1)
                life.scheduler.wake()
                await life.status(ASIN, Status.COMPLETED)
                (account,) = await life.account.status()
                assert (account.pauses, account.problem) == ((), None)
                assert await life.store.pauses(MAIN) == ()  # the next refusal is a first one again

    run(scene)


def test_a_device_that_is_deregistered_in_the_middle_waits_and_the_account_says_so(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.fault("metadata", status=403)
            await life.account.download([ASIN])
            job = await life.waits(ASIN, "audible.unauthorized")
            assert job.attempts == 0
            (account,) = await life.account.status()
            assert account.problem.code == "audible.unauthorized"
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences == {ASIN: 1}

    run(scene)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"drm": "Widevine"}, "audible.protected_streaming"), ({"codec": "mp4a.40.42"}, "audible.other_codec")],
)
def test_what_nobody_can_open_fails_at_once_and_is_not_asked_for_by_itself_again(change, code, fake, tmp_path):
    for name, value in change.items():
        setattr(fake.titles[ASIN], name, value)

    async def scene():
        async with at_work(tmp_path, fake, auto_download="all") as life:
            await life.sign_in()
            job = await life.status(ASIN, Status.FAILED)
            assert job.error.code == code
            title = await life.store.title(ASIN)
            assert (title.status, title.reason.code) == (TitleStatus.UNAVAILABLE, code)
            await life.account.sync(MAIN, full=True)
            await life.scheduler.idle()
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_full_disk_is_seen_before_a_licence_is_asked_for_and_waited_out(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            life.free = GIGABYTE  # 1 % of the disk is never used up
            await life.account.download([ASIN])
            job = await life.waits(ASIN, "space.full")
            assert (job.attempts, fake.licences[ASIN]) == (0, 0)
            life.free = 50 * GIGABYTE
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.COMPLETED)

    run(scene)


def test_a_disk_that_fills_in_the_middle_loses_nothing(fake, tmp_path, monkeypatch):
    write_all = files.write_all

    def full(descriptor, data):
        if os.fstat(descriptor).st_size > 1_500_000:
            raise OSError(28, "No space left on device")
        write_all(descriptor, data)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            monkeypatch.setattr(files, "write_all", full)
            await life.account.download([ASIN])
            job = await life.waits(ASIN, "space.full")
            assert job.attempts == 0
            monkeypatch.setattr(files, "write_all", write_all)
            await life.desk.retry(job.id)
            await life.status(ASIN, Status.COMPLETED)
            assert Path(life.folder(ASIN), f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_file_that_changed_at_audible_comes_afresh(fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            await life.account.download([ASIN])
            await begun(life)
        audio.write_bytes(BODY[::-1])
        fake.titles[ASIN].edition = 2
        async with at_work(tmp_path, fake) as life:
            await life.status(ASIN, Status.COMPLETED)
            assert Path(life.folder(ASIN), f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY[::-1]
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_titles_that_wait_for_the_budget_take_turns(fake, audio, tmp_path):
    fake.add(*(Title(asin=asin, title=f"Volume {asin}", aaxc=audio) for asin in MANY[:4]))

    async def scene():
        async with at_work(tmp_path, fake, daily_licences=2) as life:
            await life.sign_in()
            await life.account.download(MANY[:4])
            for asin in MANY[:2]:
                await life.status(asin, Status.COMPLETED)
            third, fourth = [await life.waits(asin, "audible.budget") for asin in MANY[2:4]]
            assert (third.attempts, fourth.attempts) == (0, 0)
            hours = [(job.not_before - life.clock()).total_seconds() / 3600 for job in (third, fourth)]
            assert hours == pytest.approx([24, 36], abs=0.1)
            (account,) = await life.account.status()
            assert [pause.cause for pause in account.pauses] == ["budget"]
            life.later = timedelta(hours=24, minutes=1)
            life.scheduler.wake()
            await life.status(MANY[2], Status.COMPLETED)
        assert fake.licences.total() == 3

    run(scene)


# --- pausing -------------------------------------------------------------------------------------------------------------


def test_a_pause_frees_the_line_at_once_and_the_transfer_goes_on_where_it_was(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("cdn", after=1_500_000)
            await life.account.download([ASIN])
            await begun(life)
            await life.scheduler.pause()
            job = await life.status(ASIN, Status.QUEUED)
            assert (job.attempts, life.scheduler.running) == (0, 0)
            fake.release()
            await life.scheduler.idle()
            assert fake.requests["cdn"] == 1
            await life.scheduler.resume()
            await life.status(ASIN, Status.COMPLETED)
        assert any("bytes=" in line for line in fake.log)
        assert fake.licences == {ASIN: 1}

    run(scene)
