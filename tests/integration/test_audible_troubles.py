"""Does a trouble at Audible, at an account or on the disk cost no more than itself? The real account against a fake of Audible."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from aiom4b import redaction
from aiom4b.account.vouchers import Vouchers
from aiom4b.adapters import files
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.job import Status
from aiom4b.jobs.title import Asin, Cause, Profile, TitleStatus
from downloading import MAIN, at_work, run
from fake_audible import Account, FakeAudible, Title, all_to

ASIN = Asin("B00AIOM4B1")
MANY = [Asin(f"B00AIOM4C{n}") for n in range(6)]
BODY = hashlib.shake_256(b"own").digest(300_000)
EVE = Account(owner="Eve Keeper", customer="amzn1.account.OTHERACCOUNT1", activation_bytes=bytes.fromhex("0badcafe"))


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


def document(device):
    return json.dumps(device.identity()).encode()


async def passed(life, job):
    """Let the time of a waiting job come, and return once it was tried again."""
    life.later += job.not_before - life.clock() + timedelta(seconds=1)
    life.scheduler.wake()

    async def again():
        found = await life.store.job(job.id)
        return found.updated > job.updated and found.status in {Status.WAITING, Status.COMPLETED, Status.FAILED}

    await life.until(again)


# --- what belongs beside the audio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "retry_after": 7 * 86400}], ids=["500", "429"])
def test_a_book_is_not_kept_for_ever_by_notes_that_audible_never_gives(fault, fake, tmp_path):
    fake.titles[ASIN].lifetime = timedelta(days=30)
    fake.fault("annotations", times=10_000, **fault)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.account.download([ASIN])
            started = life.clock()
            for _ in range(12):
                job = await life.status(ASIN, Status.WAITING, Status.COMPLETED)
                if job.status is Status.COMPLETED:
                    break
                await passed(life, job)
            assert job.status is Status.COMPLETED
            # Hours of trouble are waited out, days are not.
            assert timedelta(hours=1) < life.clock() - started < timedelta(hours=12)
            assert fake.requests["annotations"] > 5
            (line,) = [line for line in await life.store.log(job.id) if line.event == "title.warning"]
            assert line.data["code"] in {"audible.server", "audible.rate"}
            assert f"{ASIN}.pdf" in life.files(ASIN)
        assert fake.licences == {ASIN: 1}

    run(scene)


# --- what a licence costs ------------------------------------------------------------------------------------------------


def test_a_state_disk_that_takes_no_voucher_costs_no_licence(fake, tmp_path, monkeypatch):
    write_all = files.write_all

    def full(descriptor, data):
        if "/vouchers/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        write_all(descriptor, data)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            monkeypatch.setattr(files, "write_all", full)
            await life.account.download([ASIN])
            for _ in range(3):
                job = await life.waits(ASIN, "space.full")
                await passed(life, job)
            assert fake.licences[ASIN] == 0
            assert await life.store.licences_of(MAIN, ASIN) == []
            monkeypatch.setattr(files, "write_all", write_all)
            await passed(life, await life.waits(ASIN, "space.full"))
            await life.status(ASIN, Status.COMPLETED)
            assert os.listdir(Path(life.state, "audible", "vouchers")) == [f"{ASIN}.voucher"]
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_a_state_disk_that_fills_while_audible_answers_costs_one_licence(fake, tmp_path, monkeypatch):
    def full(*_):
        raise Transient("space.full", "The disk is full.", remedy="Make room.")

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            with monkeypatch.context() as patched:
                patched.setattr(Vouchers, "store", full)
                await life.account.download([ASIN])
                for _ in range(3):
                    job = await life.waits(ASIN, "space.full")
                    await passed(life, job)
                job = await life.waits(ASIN, "space.full")
            await passed(life, job)
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences == {ASIN: 1}

    run(scene)


def test_an_outage_costs_none_of_the_days_licences(fake, audio, tmp_path, monkeypatch):
    fake.add(*(Title(asin=asin, aaxc=audio) for asin in MANY))
    tried = []

    async def unreachable(_self, request, **_):
        tried.append(request)
        raise httpx.ConnectError("[Errno -3] Temporary failure in name resolution", request=request)

    async def scene():
        async with at_work(tmp_path, fake, daily_licences=len(MANY)) as life:
            await life.sign_in()
            with monkeypatch.context() as patched:
                patched.setattr(httpx.AsyncClient, "send", unreachable)
                await life.account.download(MANY)
                for asin in MANY:
                    await life.waits(asin, "audible.unreachable")
                for _ in range(2):
                    await passed(life, await life.job(MANY[0]))
                (account,) = await life.account.status()
                assert account.licences_today == 0
                assert [pause.cause for pause in account.pauses] == [Cause.NETWORK]
                assert len(tried) <= 3  # one try for all of the account's titles
            life.later += timedelta(hours=1)
            life.scheduler.wake()
            for asin in MANY:
                await life.status(asin, Status.COMPLETED)
            (account,) = await life.account.status()
            assert account.licences_today == len(MANY)
            assert await life.store.pauses(MAIN) == ()

    run(scene)


def test_a_network_that_loses_answers_leaves_the_account_alone_for_a_while(fake, audio, tmp_path):
    fake.add(*(Title(asin=asin, aaxc=audio) for asin in MANY))
    fake.fault("licence", drop=True, times=100)

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.account.download(MANY)
            for asin in MANY:
                await life.waits(asin, "audible.network")
            (account,) = await life.account.status()
            # It may have been given, though we did not hear of it.
            assert (account.licences_today, fake.requests["licence"]) == (1, 1)

    run(scene)


def test_a_library_is_not_used_up_on_vouchers_that_this_device_can_not_open(fake, audio, tmp_path):
    fake.add(*(Title(asin=asin, aaxc=audio) for asin in MANY))
    device = fake.device()

    async def scene():
        async with at_work(tmp_path, fake, auto_download="all") as life:
            wrong = device.identity()
            wrong["device_info"]["device_serial_number"] = "f" * 40
            await life.account.import_identity(MAIN, json.dumps(wrong).encode(), None, None)
            for asin in [ASIN, *MANY]:
                await life.waits(asin, "audible.voucher_unreadable")
            assert fake.licences.total() == 1
            (account,) = await life.account.status()
            assert [pause.cause for pause in account.pauses] == [Cause.VOUCHERS]
            assert TitleStatus.UNAVAILABLE not in {
                title.status for title in (await life.store.titles(limit=9, offset=0))[0]
            }
            # The remedy: all goes on with a sign-in that can open them, the refused one too.
            await life.account.import_identity(MAIN, document(fake.device()), None, None)
            for asin in [ASIN, *MANY]:
                await life.status(asin, Status.COMPLETED)
            (account,) = await life.account.status()
            assert account.pauses == ()
        assert fake.licences.total() == 2 + len(MANY)

    run(scene)


def test_one_title_with_a_damaged_voucher_does_not_keep_the_others_for_ever(fake, audio, tmp_path):
    fake.add(*(Title(asin=asin, aaxc=audio) for asin in MANY))
    fake.titles[ASIN].key = b"short"

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            await life.account.download([ASIN])
            refused = await life.waits(ASIN, "audible.voucher_unreadable")
            await life.account.download(MANY)
            for asin in MANY:
                other = await life.waits(asin, "audible.voucher_unreadable")
                assert other.not_before < refused.not_before
            life.later += other.not_before - life.clock() + timedelta(minutes=1)
            life.scheduler.wake()
            for asin in MANY:
                await life.status(asin, Status.COMPLETED)
            assert (await life.job(ASIN)).status is Status.WAITING
            assert await life.store.pauses(MAIN) == ()

    run(scene)


def test_an_address_that_is_refused_after_a_jump_of_the_clock_is_told_and_no_book_of_nothing_made(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in()
            life.account.fetcher._clock = lambda: life.clock() + timedelta(hours=2)
            fake.fault("cdn", status=403, times=2)
            await life.account.download([ASIN])
            await life.waits(ASIN, "audible.address_expired")
            life.account.fetcher._clock = life.clock
            await life.desk.retry((await life.job(ASIN)).id)
            await life.status(ASIN, Status.COMPLETED)
        assert fake.licences == {ASIN: 2}

    run(scene)


# --- whose account it is -------------------------------------------------------------------------------------------------


def test_another_account_does_not_take_the_place_of_one_that_is_signed_in(fake, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download="new") as life:
            await life.account.import_identity(MAIN, document(fake.device()), None, None)
            await life.account.sync(MAIN, full=True)
            state = await life.store.sync_state(MAIN)

            async def refused(call):
                with pytest.raises(NeedsAttention) as caught:
                    await call
                assert caught.value.code == "profile.other_account"
                (account,) = await life.account.status()
                assert (account.owner, account.country) == ("Ada Keeper", "us")

            await refused(life.account.import_identity(MAIN, document(fake.device(account=EVE)), None, None))
            await refused(life.account.import_identity(MAIN, document(fake.device("de")), None, None))
            await refused(life.account.begin_sign_in(MAIN, "de", with_username=False))
            registered = len(fake.devices)
            address = await life.account.begin_sign_in(MAIN, "us", with_username=False)
            await refused(life.account.finish_sign_in(MAIN, fake.sign_in(address, EVE)))
            # Its own device, and what was registered for nothing.
            assert [device.registered for device in fake.devices[registered:]] == [False]
            assert fake.devices[0].registered
            assert (await life.store.sync_state(MAIN)).state_token == state.state_token
            # The same account may sign in anew, and another one once this one is logged out.
            await life.account.import_identity(MAIN, document(fake.device()), None, None)
            await life.account.sign_out(MAIN)
            account = await life.account.import_identity(MAIN, document(fake.device(account=EVE)), None, None)
            assert account.owner == "Eve Keeper"
            await life.account.sync(MAIN, full=True)
            assert not (await life.store.title(ASIN)).came_later

    run(scene)


def test_an_aax_file_comes_by_the_account_that_has_it_now_with_the_key_of_that_account(fake, audio, tmp_path):
    fake.add(Title(asin=ASIN, aax=audio))
    first, second = Profile("a"), Profile("b")

    async def scene():
        async with at_work(tmp_path, fake) as life:
            await life.sign_in(first)
            fake.fault("cds", drop=True)
            await life.account.download([ASIN])
            job = await life.waits(ASIN, "audible.network")
            await life.account.sign_out(first)
            await life.sign_in(second, fake.device(account=EVE))
            await passed(life, job)
            await life.status(ASIN, Status.COMPLETED)
            (key,) = [name for name in life.files(ASIN) if name.endswith(".key")]
            assert Path(life.folder(ASIN), key).read_text() == "ActivationBytes=0badcafe\n"
            assert life.keys.vouchers.of(ASIN).profile == second
        assert fake.licences == {ASIN: 1}

    run(scene)


# --- what is fetched by itself -------------------------------------------------------------------------------------------


def test_titles_that_audible_refuses_do_not_keep_others_from_being_fetched_by_themselves(fake, audio, tmp_path):
    refused, others = MANY[:2], MANY[2:4]
    fake.titles.clear()
    fake.add(*(Title(asin=asin, aaxc=audio, denied=["RequesterEligibility"]) for asin in refused))

    async def scene():
        async with at_work(tmp_path, fake, auto_download="all", daily_licences=2) as life:
            await life.sign_in()
            for asin in refused:
                await life.waits(asin, "audible.licence_denied")
            fake.add(*(Title(asin=asin, aaxc=audio) for asin in others))
            report = await life.account.sync(MAIN, full=True)
            assert report.queued == len(others)
            # These wait for the budget, and no more than a day's are open.
            fake.add(*(Title(asin=asin, aaxc=audio) for asin in MANY[4:]))
            assert (await life.account.sync(MAIN, full=True)).queued == 0

    run(scene)


@pytest.mark.parametrize("wanted", ["new", "all"])
def test_a_podcast_does_not_fill_the_line_with_its_episodes(wanted, fake, audio, tmp_path):
    async def scene():
        async with at_work(tmp_path, fake, auto_download=wanted, scheduled=False) as life:
            await life.sign_in()
            fake.add(
                Title(asin="B00PODCAST", title="The Show", delivery="PodcastParent"),
                *(Title(asin=f"B0EPISODE{n}", delivery="PodcastEpisode", parent="B00PODCAST") for n in range(5)),
                Title(asin=MANY[0], aaxc=audio),
            )
            report = await life.account.sync(MAIN, full=False)
            assert (report.new, report.queued) == (7, 1)
            assert await life.job(MANY[0]) is not None
            # Whoever asks for one gets it.
            (job,) = await life.account.download([Asin("B0EPISODE1")])
            assert job.asin == "B0EPISODE1"

    run(scene)
