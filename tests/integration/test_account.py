"""Does the account keep itself in order for years? Signing in and out, schedules, and what goes on by itself."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from datetime import timedelta

import anyio
import pytest

from aiom4b import redaction
from aiom4b.account import licences
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.title import Asin, Profile, TitleStatus
from downloading import MAIN, at_work, run
from fake_audible import Account, FakeAudible, Title, all_to

ASIN = Asin("B00AIOM4B1")
NEWER = Asin("B00AIOM4B2")
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


async def signed_in(life, fake, profile=MAIN, country="us"):
    address = await life.account.begin_sign_in(profile, country, with_username=False)
    return await life.account.finish_sign_in(profile, fake.sign_in(address))


async def synced(life, *, times=1):
    """Return once the library was asked so often."""

    async def asked():
        return life.fake.requests["library"] >= times

    await life.until(asked)


# --- signing in and out --------------------------------------------------------------------------------------------------


def test_an_owner_signs_in_in_two_steps_and_the_library_is_there_over_restarts(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            assert await life.account.status() == ()
            address = await life.account.begin_sign_in(MAIN, "us", with_username=False)
            (account,) = await life.account.status()
            assert (account.pending, account.owner) == (True, "")
        async with at_work(tmp_path, fake) as life:
            account = await life.account.finish_sign_in(MAIN, fake.sign_in(address))
            assert (account.pending, account.country, account.owner) == (False, "us", "Ada Keeper")
            assert account.registered is not None
            path = os.path.join(life.state, "audible", "main.json")
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

            async def listed():
                return await life.store.title(ASIN)

            assert (await life.until(listed)).status is TitleStatus.NEW
        async with at_work(tmp_path, fake) as life:
            (account,) = await life.account.status()
            assert (account.titles, account.problem) == (1, None)
            assert account.last_sync is not None

    run(scene)


def test_a_sign_in_that_nobody_began_can_not_be_finished(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            with pytest.raises(NeedsAttention) as caught:
                await life.account.finish_sign_in(MAIN, "https://www.amazon.com/ap/maplanding?x=y")
            assert caught.value.code == "signin.not_begun"
            with pytest.raises(NeedsAttention) as caught:
                await life.account.begin_sign_in(Profile("../x"), "us", with_username=False)
            assert caught.value.code == "profile.invalid"

    run(scene)


def test_the_sign_in_of_another_program_is_taken_over(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, password="a long password") as life:
            document = json.dumps(fake.device().identity()).encode()
            account = await life.account.import_identity(MAIN, document, None, None)
            assert (account.owner, account.encrypted) == ("Ada Keeper", True)
            await synced(life)
        async with at_work(tmp_path, fake) as life:
            (account,) = await life.account.status()
            assert (account.problem.code, account.encrypted) == ("authfile.encrypted", True)

    run(scene)


def test_signing_out_ends_this_device_alone_and_keeps_what_is_here(fake, tmp_path):
    other = fake.device()

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await signed_in(life, fake)
            await life.account.sync(MAIN, full=True)
            await life.fetched(ASIN)
            await life.account.sign_out(MAIN)
            assert [device.registered for device in fake.devices] == [True, False]
            assert await life.account.status() == ()
            assert await life.store.title(ASIN) is None
            assert life.files(ASIN)
            assert os.listdir(os.path.join(life.state, "audible", "vouchers"))
            with pytest.raises(NeedsAttention) as caught:
                await life.account.sign_out(MAIN)
            assert caught.value.code == "profile.missing"

    run(scene)
    assert other.registered


def test_a_sign_in_is_kept_where_audible_can_not_be_told_unless_it_is_forced(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await signed_in(life, fake)
            fake.fault("deregister", drop=True)
            with pytest.raises(Transient) as caught:
                await life.account.sign_out(MAIN)
            assert caught.value.code == "audible.network"
            (account,) = await life.account.status()
            assert account.owner == "Ada Keeper"
            fake.fault("deregister", drop=True)
            await life.account.sign_out(MAIN, forced=True)
            assert await life.account.status() == ()

    run(scene)


def test_an_account_that_was_deregistered_elsewhere_can_still_be_forgotten(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await signed_in(life, fake)
            fake.deregister()
            await life.account.sign_out(MAIN)
            assert await life.account.status() == ()

    run(scene)


def test_a_deregistered_device_is_told_and_all_goes_on_after_a_new_sign_in(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, sync_hours=6) as life:
            await life.sign_in()
            fake.deregister()
            await life.account.download([ASIN])
            job = await life.waits(ASIN, "audible.unauthorized")
            (account,) = await life.account.status()
            assert account.problem.code == "audible.unauthorized"
            assert [pause.cause for pause in account.pauses] == ["unauthorized"]
            # Nobody is asked meanwhile.
            asked = fake.requests.total()
            life.later = timedelta(hours=5)
            life.account._rounds._wake.set()
            await anyio.wait_all_tasks_blocked()
            assert fake.requests.total() == asked
            account = await signed_in(life, fake)
            assert (account.problem, account.pauses) == (None, ())
            assert (await life.status(ASIN, Status.COMPLETED)).id == job.id

    run(scene)


def test_two_accounts_have_a_library_each(fake, audio, tmp_path):
    fake.add(Title(asin=NEWER, title="Own in Germany", market="de", aaxc=audio))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await signed_in(life, fake)
            await signed_in(life, fake, Profile("de"), "de")
            await life.account.sync(MAIN, full=True)
            await life.account.sync(Profile("de"), full=True)
            assert (await life.store.title(NEWER)).profile == "de"
            await life.fetched(NEWER)
            accounts = {account.profile: account for account in await life.account.status()}
            assert {name: one.licences_today for name, one in accounts.items()} == {"main": 0, "de": 1}

    run(scene)


# --- the schedule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "due"), [(5.9, False), (6.1, True), (-1.0, True), (24 * 400.0, True)], ids="{}".format
)
def test_a_library_is_asked_when_its_hours_have_passed_and_after_any_jump_of_the_clock(hours, due, fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, sync_hours=6) as life:
            await life.sign_in()
            await anyio.wait_all_tasks_blocked()
            asked = fake.requests["library"]
        async with at_work(tmp_path, fake, sync_hours=6, account=False) as life:
            life.later = timedelta(hours=hours)
            wait = await life.account._rounds._wait(MAIN)
            assert (wait <= 0) == due
            if not due:
                assert wait == pytest.approx(360, abs=60)
            assert fake.requests["library"] == asked

    run(scene)


def test_an_account_that_is_due_is_synced_at_the_start_and_one_that_is_not_is_left_alone(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, account=False) as life:
            await life.sign_in()
        seven = timedelta(hours=7)
        async with at_work(tmp_path, fake, sync_hours=6, later=seven) as life:
            await synced(life, times=2)

            async def recorded():
                return await life.account._rounds._wait(MAIN) > 0

            await life.until(recorded)
        async with at_work(tmp_path, fake, sync_hours=6, later=seven) as life:
            events = life.heard("library.synced")
            fake.hold("library")
            life.account.request_sync(MAIN, full=False)
            await anyio.to_thread.run_sync(fake.wait_held)
            assert fake.requests["library"] == 3  # this one, and none before it
            fake.release()
            await anext(events)

    run(scene)


def test_a_sync_that_was_asked_for_is_told_whether_it_worked_or_not(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            events = life.heard("library.synced", "library.not_synced")
            life.account.request_sync(MAIN, full=True)
            told = await anext(events)
            assert (told.event, told.data["profile"], told.data["full"]) == ("library.synced", "main", True)
            fake.fault("library", html=True)
            life.account.request_sync(None, full=False)
            told = await anext(events)
            assert (told.event, told.data["problem"]["code"]) == ("library.not_synced", "audible.unreadable")
            (account,) = await life.account.status()
            assert account.problem.code == "audible.unreadable"
            life.account.request_sync(Profile("nobody"), full=False)
            told = await anext(events)
            assert (told.data["profile"], told.data["problem"]["code"]) == ("nobody", "profile.missing")
            life.account.request_sync(None, full=False)
            assert (await anext(events)).event == "library.synced"
            (account,) = await life.account.status()
            assert account.problem is None

    run(scene)


def test_a_sync_that_fails_is_tried_again_later_and_later(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, sync_hours=1, account=False) as life:
            await life.sign_in()
            life.later = timedelta(hours=2)
            rounds = life.account._rounds
            rounds._monotonic = lambda: 0.0
            waits = []
            for _ in range(8):
                fake.fault("library", drop=True)
                with pytest.raises(Transient):
                    await life.account.sync(MAIN, full=False)
                waits.append(await rounds._wait(MAIN) / 60)
            assert waits == [5, 10, 20, 40, 80, 160, 320, 360]
            await life.account.sync(MAIN, full=False)
            assert await rounds._wait(MAIN) == pytest.approx(3600, abs=60)

    run(scene)


# --- what is fetched by itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "fetched"), [("off", []), ("new", [NEWER]), ("all", [ASIN, NEWER])])
def test_what_is_bought_is_fetched_as_the_settings_say(wanted, fetched, fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download=wanted, scheduled=False) as life:
            await life.sign_in()
            fake.add(Title(asin=NEWER, title="Newer", aaxc=audio))
            events = life.heard("library.synced")
            life.account.request_sync(None, full=False)
            report = (await anext(events)).data
            jobs, _ = await life.store.jobs(limit=9, offset=0, oldest_first=True)
            assert sorted(job.asin for job in jobs) == sorted(fetched)
            assert report["queued"] == len(set(fetched) - {ASIN})
            await life.account.sync(MAIN, full=True)
            assert (await life.store.jobs(limit=0, offset=0))[1] == len(fetched)

    run(scene)


def test_no_more_is_queued_by_itself_than_a_days_licences(fake, tmp_path):
    fake.many(9)

    async def scene():
        async with at_work(tmp_path, fake, auto_download="all", daily_licences=4, scheduled=False) as life:
            await life.sign_in()
            assert (await life.store.jobs(limit=0, offset=0))[1] == 4
            await life.account.sync(MAIN, full=True)
            assert (await life.store.jobs(limit=0, offset=0))[1] == 4
            assert len(await life.account.download(None)) == 6  # whoever asks gets all

    run(scene)


def test_what_its_owner_cancelled_is_not_fetched_by_itself_again(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="all", scheduled=False) as life:
            await life.sign_in()
            job = await life.job(ASIN)
            await life.desk.cancel(job.id)
            await life.account.sync(MAIN, full=True)
            assert [one.id for one in await life.store.jobs_of_title(ASIN)] == [job.id]
            (again,) = await life.account.download([ASIN])
            assert again.id != job.id

    run(scene)


def test_what_was_asked_for_once_is_not_fetched_by_itself_again_when_its_job_is_forgotten(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="all") as life:
            fake.hold("cdn")
            await life.sign_in()
            job = await life.status(ASIN, Status.RUNNING)
            await anyio.to_thread.run_sync(fake.wait_held)
            await life.desk.cancel(job.id)
            await life.desk.delete(job.id)
            await life.account.sync(MAIN, full=True)
            assert await life.store.jobs_of_title(ASIN) == []
            assert (await life.store.title(ASIN)).status is TitleStatus.NEW

    run(scene)


def test_what_its_owner_cancelled_before_its_licence_does_not_come_back_when_its_job_is_forgotten(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="all", scheduled=False) as life:
            await life.sign_in()
            await life.desk.cancel((await life.job(ASIN)).id)
            await life.desk.clear([Status.CANCELLED])
            assert (await life.account.sync(MAIN, full=True)).queued == 0
            (job,) = await life.account.download([ASIN])  # whoever asks gets it
            assert job.asin == ASIN

    run(scene)


def test_a_title_that_is_queued_already_is_not_told_once_more(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, scheduled=False) as life:
            await life.sign_in()
            (job,) = await life.account.download([ASIN])
            same = await life.admission.fetch(ASIN, job.name, job.folders[0], JobOptions(), 0)
            assert same.id == job.id
            assert [line.event for line in await life.store.log(job.id)] == ["job.created"]

    run(scene)


# --- asking --------------------------------------------------------------------------------------------------------------


def test_what_can_not_be_had_is_refused_in_its_own_words_and_nothing_is_queued(fake, audio, tmp_path):
    fake.add(Title(asin=NEWER, title="A Podcast", delivery="PodcastParent"))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            for asins, code in (([ASIN, NEWER], "title.podcast"), ([ASIN, "B0NOTHERE1"], "title.missing")):
                with pytest.raises(NeedsAttention) as caught:
                    await life.account.download(asins)
                assert caught.value.code == code
                with pytest.raises(NeedsAttention) as caught:
                    await life.account.convert(asins[1], JobOptions(), 0)
                assert caught.value.code == code
            assert await life.store.jobs_of_title(ASIN) == []

    run(scene)


def test_a_book_that_is_asked_for_is_fetched_first_and_made_as_asked(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            options = JobOptions(naming_scheme="{title}/{title}.m4b")
            job = await life.account.convert(ASIN, options, 7)
            assert (job.kind, job.priority) == (Kind.DOWNLOAD, 7)
            await life.status(ASIN, Status.COMPLETED)
            convert = await life.job(ASIN, Kind.CONVERT)
            assert (convert.options, convert.priority) == (options, 7)
            await life.desk.cancel(convert.id)
            other = JobOptions(naming_scheme="{author}/{title}.m4b")
            again = await life.account.convert(ASIN, other, 0)
            assert (again.kind, again.options) == (Kind.CONVERT, other)
            assert again.id != convert.id
            assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_title_without_a_name_that_fits_a_folder_still_gets_one(fake, audio, tmp_path):
    fake.add(Title(asin=NEWER, title="AC/DC: ../../etc", aaxc=audio))

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            job = await life.fetched(NEWER)
            assert "/" not in job.name

    run(scene)


# --- stops ---------------------------------------------------------------------------------------------------------------


def test_a_stop_does_not_wait_for_ever_for_a_licence(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "_GRACE_SECONDS", 0.05)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            fake.hold("licence")
            await life.account.download([ASIN])
            await anyio.to_thread.run_sync(fake.wait_held)
            with anyio.fail_after(10):
                await life.scheduler.pause()
                await life.status(ASIN, Status.QUEUED)
            assert [outcome for _, outcome in await life.store.licences_of(MAIN, ASIN)] == ["asked"]
            fake.release()
            await life.scheduler.resume()
            await life.status(ASIN, Status.COMPLETED)

    run(scene)


def test_no_secret_of_the_account_lies_in_the_database_or_the_jobs_logs(fake, audio, tmp_path):
    stranger = Account(owner="Eve", customer="amzn1.account.OTHERACCOUNT1")

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in(device=fake.device(account=stranger))
            fake.titles[ASIN].denied = ["RequesterEligibility"]
            await life.account.download([ASIN])
            await life.waits(ASIN, "audible.licence_denied")
            fake.titles[ASIN].denied = None
            life.later = timedelta(days=2)
            life.scheduler.wake()
            await life.status(ASIN, Status.COMPLETED)
        data = b"".join(
            open_.read_bytes() for open_ in (tmp_path / "state").iterdir() if open_.name.startswith("aiom4b.db")
        )
        for secret in [*fake.secrets(), stranger.customer, "Signature"]:
            assert secret.encode() not in data

    run(scene)
