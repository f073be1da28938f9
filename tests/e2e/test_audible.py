"""Does the owner's Audible library come here by itself, politely, whatever happens meanwhile? The real process, a fake Audible."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import audible_layouts
import owning
import running as harness
from audible_answers import PDF
from audible_files import decoded
from fake_audible import Account, FakeAudible, Title
from owning import (
    begun,
    bought,
    finished,
    job_of,
    killed,
    leftovers,
    serving,
    signed_in,
    standing,
    taken_over,
    titles,
    until_books,
    until_step,
    until_waits,
)

ALL = '[audible]\nauto_download = "all"\n'
MIB = 1 << 20


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Return a title of a quarter of an hour, with all that can belong to one, and what its plain audio sounds like."""
    title = bought(tmp_path_factory.mktemp("long"), minutes=15, pdf=True, annotations=True)
    return title, decoded(title.plain)


@pytest.fixture(autouse=True)
def _nothing_else_in_the_library(house):
    yield
    assert leftovers(house) == []
    assert house.litter() == []


def sound_of(job):
    return decoded(job["output"])


def stopped_at(service, condition):
    """Let the service stand still as soon as a condition is true."""
    until = time.monotonic() + harness.PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)
    service.signal(signal.SIGSTOP)


# --- the way of a title ----------------------------------------------------------------------------------------------


def test_a_title_comes_from_the_account_to_the_library_and_nothing_is_asked_for_twice(house, tmp_path, long):
    first, second = long[0], bought(tmp_path / "bought", 2)
    with FakeAudible(first.title, second.title) as fake, serving(house, fake) as service:
        address = begun(service)
        assert standing(service)["pending"] is True
        signed = finished(service, fake.sign_in(address)).document["account"]
        assert (signed["owner"], signed["country"], signed["pending"]) == ("Ada Keeper", "us", False)
        service.until(lambda: service.said("library.synced"))
        listed = service.types("audible", "list").document["items"]
        assert {title["asin"]: title["status"] for title in listed} == dict.fromkeys((first.asin, second.asin), "new")

        asked = fake.requests["library"]
        (report,) = service.types("audible", "sync").document["items"]
        assert (report["full"], report["new"], report["changed"]) == (False, 0, 0)
        assert fake.requests["library"] == asked + 1
        fake.change(second.asin, title="Volume the second")
        (report,) = service.types("audible", "sync").document["items"]
        assert (report["full"], report["new"], report["changed"]) == (False, 0, 1)
        assert titles(service)[second.asin]["title"] == "Volume the second"

        fake.fault("cdn", cut=3 * MIB + 77)
        (job,) = service.types("audible", "download", first.asin.lower()).document["jobs"]
        cut = until_waits(service, first.asin, "audible.cut_download")
        assert cut["id"] == job["id"]
        assert titles(service)[first.asin]["status"] == "downloading"
        assert service.types("jobs", "retry", job["id"]).exit == 0
        (made,) = until_books(service, first.asin)
        assert any(line.endswith(f"bytes={3 * MIB + 77}-") for line in fake.log), fake.log
        assert sound_of(made) == long[1]
        book = Path(made["output"])
        assert book.with_suffix(".pdf").read_bytes() == PDF
        assert book.with_suffix(".annotations.json").exists()
        assert (book.parent / "cover.jpg").exists()
        listed = titles(service)[first.asin]
        assert (listed["status"], listed["book"], listed["reason"]) == ("completed", made["output"], None)

        (report,) = service.types("audible", "sync", "--full").document["items"]
        assert (report["full"], report["titles"], report["new"], report["gone"]) == (True, 2, 0, 0)
        again = service.types("audible", "download", first.asin).document["jobs"]
        assert [(one["id"], one["status"]) for one in again] == [(made["id"], "completed")]
        once = {"register", "licence", "metadata", "cover", "pdf", "annotations"}
        assert {name: fake.requests[name] for name in once | {"cdn"}} == dict.fromkeys(once, 1) | {"cdn": 2}

        assert service.types("audible", "logout", "--yes").exit == 0
        assert fake.state()["registered"] == 0
        assert service.types("audible", "status").document["items"] == []
        assert titles(service) == {}
        assert os.listdir(house.root / "state" / "audible") == ["vouchers"]
    assert house.books() == [str(book.relative_to(house.library))]


# --- kill -9 ------------------------------------------------------------------------------------------------------------


def test_killed_at_each_stage_the_next_start_goes_on_and_no_licence_is_asked_for_twice(house, long):
    title, plain = long
    asin, folder = title.asin, house.library / ".aiom4b" / "downloads" / title.asin
    part = folder / f"{asin}-AAX_44_128.aaxc.part"
    podcast = Title(asin="B00PODCAST", title="Sea Talk", subtitle=None, delivery="PodcastParent", chapters=())
    house.set(ALL)
    with FakeAudible(title.title, podcast) as fake, ThreadPoolExecutor() as aside:
        with serving(house, fake) as service:
            address = begun(service)
            service.kill()

        with serving(house, fake) as service:  # while the device is being registered
            assert standing(service)["pending"] is True
            pasted = fake.sign_in(address)
            fake.hold("register")
            answer = aside.submit(finished, service, pasted)
            fake.wait_held()
            killed(service, fake)
            assert answer.result().exit != 0

        with serving(house, fake) as service:  # signed in, and not yet synced
            assert standing(service)["pending"] is True
            assert finished(service, pasted).error["code"] == "signin.expired"
            fake.hold("library")
            assert finished(service, fake.sign_in(begun(service))).exit == 0
            fake.wait_held()
            killed(service, fake)

        fake.hold("children")
        with serving(house, fake) as service:  # in the middle of a listing
            fake.wait_held()
            assert titles(service) == {}
            killed(service, fake)

        fake.hold("cdn")
        with serving(house, fake) as service:  # the voucher is here, and nothing of the audio
            fake.wait_held()
            assert titles(service)[asin]["status"] == "downloading"
            assert not part.exists() or part.stat().st_size == 0
            killed(service, fake)
        voucher = house.root / "state" / "audible" / "vouchers" / f"{asin}.voucher"
        assert stat.S_IMODE(voucher.stat().st_mode) == 0o600

        fake.hold("cdn", after=3 * MIB)
        with serving(house, fake) as service:  # in mid-transfer
            fake.wait_held()
            service.until(lambda: part.stat().st_size >= 2 * MIB)
            killed(service, fake)
        begun_with = part.stat().st_size

        fake.hold("metadata")
        with serving(house, fake) as service:  # what belongs beside the audio is being fetched
            fake.wait_held()
            assert f"bytes={begun_with}-" in fake.log[-2]
            killed(service, fake)
        assert fake.requests["cdn"] == 3

        for steps in (["backup"], ["convert", "verify"]):
            with serving(house, fake) as service:
                until_step(service, asin, *steps)
                service.kill()
            assert house.books() == []

        shutil.copytree(folder, house.root / "download")
        with serving(house, fake) as service:  # published, and not yet on record
            stopped_at(service, house.books)
            service.kill()
        assert leftovers(house)

        with serving(house, fake) as service:
            (made,) = until_books(service, asin)
            assert sound_of(made) == plain
            service.kill()

        shutil.move(house.root / "download", folder)  # on record, and not yet tidied up
        with serving(house, fake) as service:
            assert until_books(service, asin) == [made]
            assert titles(service)[asin]["status"] == "completed"
            assert standing(service)["licences_today"] == 1
            (report,) = service.types("audible", "sync").document["items"]
            assert (report["new"], report["changed"], report["queued"]) == (0, 0, 0)
        assert len(house.books()) == 1
        assert dict(fake.licences) == {asin: 1}
        once = ("metadata", "cover", "pdf", "annotations")
        assert {name: fake.requests[name] for name in once} == dict.fromkeys(once, 1) | {"metadata": 2}
        assert fake.requests["cdn"] == 3


def test_of_several_titles_killed_at_once_only_the_licence_that_was_in_flight_is_asked_for_again(house, tmp_path):
    done = bought(tmp_path / "bought", 1, aax=True)  # a licence for it is refused, and the older route has it
    moving, asking = (bought(tmp_path / "bought", number, minutes=2) for number in (2, 3))
    house.set(ALL)
    with FakeAudible() as fake:
        with serving(house, fake) as service:
            for title in (done, moving, asking):
                fake.hold("licence", asking.asin)
                fake.hold("cdn", moving.asin, after=MIB + 5)
                fake.add(title.title)
            taken_over(service, fake)
            fake.wait_held(2)
            service.until(lambda: job_of(service, done.asin, "convert"))
            assert fake.busiest["licence"] == 1
            killed(service, fake)
        assert dict(fake.licences) == {done.asin: 1, moving.asin: 1, asking.asin: 1}
        with serving(house, fake) as service:
            made = until_books(service, done.asin, moving.asin, asking.asin)
            for job, title in zip(made, (done, moving, asking), strict=True):
                assert sound_of(job) == decoded(title.plain)
            assert standing(service)["licences_today"] == 4
        assert dict(fake.licences) == {done.asin: 1, moving.asin: 1, asking.asin: 2}
        assert (fake.requests["cdn"], fake.requests["cds"], fake.requests["activation"]) == (3, 1, 1)
    assert len(house.books()) == 3


# --- what is here already -----------------------------------------------------------------------------------------------


def test_for_a_library_that_is_here_no_licence_is_ever_asked_for(house, tmp_path):
    house.set(ALL)
    dropped = audible_layouts.shelf(house.drops / "Old downloads", tmp_path / "plain", 3)
    asins = [one.title.asin for one in dropped]
    with FakeAudible(*(one.title for one in dropped)) as fake:
        with serving(house, fake) as service:  # signed in before anybody has looked at what lies in the source
            taken_over(service, fake)
            service.until(lambda: service.said("library.synced"))
            until_books(service, *asins)
            (report,) = service.types("audible", "sync", "--full").document["items"]
            assert (report["titles"], report["queued"]) == (3, 0)
            assert {title["status"] for title in titles(service).values()} == {"completed"}
        for _ in range(2):
            for path in (house.root / "state").glob("aiom4b.db*"):
                path.unlink()
            with serving(house, fake) as service:
                (report,) = service.types("audible", "sync").document["items"]
                assert report["queued"] == 0
                assert {title["status"] for title in titles(service).values()} == {"completed"}
                assert service.types("audible", "download", "--new").document["jobs"] == []
            shutil.rmtree(house.drops / "Old downloads", ignore_errors=True)  # the library alone is left by the end
        assert dict(fake.licences) == {}
        assert not fake.requests["cdn"]
    assert len(house.books()) == 3


# --- keys that are missing ----------------------------------------------------------------------------------------------


def test_locked_books_without_a_key_wait_with_the_reason_and_go_on_by_themselves_once_it_is_there(house, tmp_path):
    plain = {number: bought(tmp_path / "bought", number).plain for number in (1, 2, 3)}
    shapes = {number: Title(asin=f"B00OWNED{number:02}", title=f"Volume {number}", subtitle=None) for number in plain}
    in_folder = audible_layouts.audible_cli(house.drops / "Folder", plain[1], shapes[1])
    loose = audible_layouts.audible_cli(house.drops, plain[2], shapes[2])
    old = audible_layouts.old_app(house.drops / "Old", plain[3])
    for one in (in_folder, loose):
        for path in one.beside:
            if path.suffix == ".voucher":
                path.rename(tmp_path / path.name)
    with FakeAudible() as fake, serving(house, fake) as service:
        for asin in plain:
            job = until_waits(service, f"B00OWNED{asin:02}", "audible.key_missing", "convert")
            shown = owning.read(service, "jobs", "show", job["id"][:8])
            assert "audible.key_missing" in shown
            assert "no key for it is known" in shown
            assert "The service then goes on by itself." in shown
        listed = service.types("list").document["items"]
        assert {entry["error"]["code"] for entry in listed} == {"audible.key_missing"}
        assert {"Folder", loose.audio.name, "Old"} == {entry["name"] for entry in listed}
        assert house.books() == []
        for one in (in_folder, loose):
            shutil.copy(tmp_path / f"{one.audio.stem}.voucher", one.audio.parent)
        taken_over(service, fake)
        made = until_books(service, *(f"B00OWNED{number:02}" for number in plain))
        for job, number in zip(made, plain, strict=True):
            assert sound_of(job) == decoded(plain[number])
        assert fake.requests["activation"] == 1
        assert dict(fake.licences) == {}
        assert old.audio.exists()
    assert len(house.books()) == 3


# --- bad answers --------------------------------------------------------------------------------------------------------


def test_each_refusal_waits_with_its_reason_and_remedy_and_nobody_asks_again_before_its_time(house, tmp_path):
    names = ("denied", "throttled", "rate")
    accounts = {name: Account(owner=name, customer=f"amzn1.account.OWN{name.upper()}1") for name in names}
    books = {
        name: bought(tmp_path / "bought", number, owners=(accounts[name].customer,))
        for number, name in enumerate(names, 1)
    }
    books["denied"].title.denied = ["RequesterEligibility"]
    books["throttled"].title.denied = ["CustomerThrottled"]
    codes = {
        "denied": "audible.licence_denied",
        "throttled": "audible.customer_throttled",
        "rate": "audible.rate",
    }
    with FakeAudible(*(book.title for book in books.values())) as fake, serving(house, fake) as service:
        fake.fault("licence", asin=books["rate"].asin, status=429, retry_after=3600)
        for name in names:
            taken_over(service, fake, name, accounts[name])
        service.until(lambda: len(titles(service)) == len(names))
        service.types("audible", "download", "--new")
        for name, code in codes.items():
            job = until_waits(service, books[name].asin, code)
            assert datetime.fromisoformat(job["not_before"]) > datetime.now(UTC) + timedelta(minutes=50)
            shown = owning.read(service, "jobs", "show", job["id"][:8])
            for text in (code, *(" ".join(job["error"][part].split()) for part in ("message", "remedy"))):
                assert text in shown
        told = owning.read(service, "audible", "status")
        for name in ("throttled", "rate"):  # the other one concerns its title, these the account
            (pause,) = standing(service, name)["pauses"]
            assert (pause["cause"], pause["error"]["code"]) == (name, codes[name])
            for part in pause["error"].values():
                assert part in told
        assert "`aiom4b audible logout`, then `aiom4b audible login`" in told
        assert {job["status"] for job in service.jobs()} == {"waiting"}
        assert dict(fake.licences) == {book.asin: 1 for book in books.values()}
        assert not fake.requests["cdn"]

        # The registration is renewed, as the remedy says.
        books["throttled"].title.denied = None
        signed_in(service, fake, "throttled", accounts["throttled"])
        until_books(service, books["throttled"].asin)
        assert standing(service, "throttled")["pauses"] == []
        assert fake.licences[books["throttled"].asin] == 2


def test_what_is_not_released_yet_is_not_asked_for_and_a_trouble_of_audibles_own_is_waited_for(house, tmp_path):
    later = bought(tmp_path / "bought", 1, released=datetime.now(UTC) + timedelta(days=30))
    now = bought(tmp_path / "bought", 2)
    house.set(ALL)
    with FakeAudible(later.title, now.title) as fake, serving(house, fake) as service:
        fake.fault("library", html=True)
        taken_over(service, fake)
        service.until(lambda: service.said("library.not_synced"))
        problem = standing(service)["error"]
        assert (problem["code"], "a web page" in problem["message"]) == ("audible.unreadable", True)
        told = owning.read(service, "audible", "status")
        for part in problem.values():
            assert part in told
        fake.fault("licence", status=502)
        assert service.types("audible", "sync").exit == 0
        waiting = until_waits(service, now.asin, "audible.server")
        assert (waiting["attempts"], standing(service)["pauses"][0]["cause"]) == (0, "outage")
        assert standing(service)["error"] is None
        listed = titles(service)[later.asin]
        assert (listed["status"], listed["reason"]["code"]) == ("unavailable", "title.not_released")
        refused = service.types("audible", "download", later.asin)
        assert (refused.exit, refused.error["code"]) == (1, "title.not_released")
        assert dict(fake.licences) == {now.asin: 1}
        assert fake.requests["library"] == 2


def test_a_device_that_was_deregistered_says_so_and_goes_on_after_a_new_sign_in(house, tmp_path):
    book = bought(tmp_path / "bought")
    with FakeAudible(book.title) as fake, serving(house, fake) as service:
        signed_in(service, fake)
        fake.deregister()
        service.types("audible", "download", book.asin)
        job = until_waits(service, book.asin, "audible.unauthorized")
        assert "`aiom4b audible logout`, then `aiom4b audible login`" in job["error"]["remedy"]
        assert standing(service)["error"]["code"] == "audible.unauthorized"
        failed = service.types("audible", "sync").document["items"][0]
        assert failed["error"]["code"] == "audible.unauthorized"
        asked = dict(fake.requests)
        assert service.types("audible", "logout", "--yes").exit == 0
        assert service.types("audible", "status").document["items"] == []
        assert fake.requests == asked | {"token": 1}
        signed_in(service, fake)
        until_books(service, book.asin)
        assert standing(service)["error"] is None
        assert dict(fake.licences) == {book.asin: 2}


def test_a_clock_that_is_wrong_is_named_and_once_it_is_right_the_title_comes(house, tmp_path):
    book = bought(tmp_path / "bought")
    with FakeAudible(book.title) as fake, serving(house, fake) as service:
        taken_over(service, fake)
        service.until(lambda: service.said("library.synced"))
        fake.clock_ahead = timedelta(hours=1)
        service.types("audible", "download", book.asin)
        job = until_waits(service, book.asin, "audible.clock")
        assert "differs from Audible's by 60 minutes" in job["error"]["message"]
        assert "timedatectl" in owning.read(service, "jobs", "show", job["id"][:8])
        failed = service.types("audible", "sync").document["items"][0]
        assert failed["error"]["code"] == standing(service)["error"]["code"] == "audible.clock"
        assert fake.requests["licence"] == 1
        fake.clock_ahead = timedelta()
        assert service.types("jobs", "retry", job["id"]).exit == 0
        until_books(service, book.asin)
