"""Does the real client get from a service what it should, and tell in plain words when it doesn't?"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import traceback
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx
import pytest
import structlog
from audible.aescipher import AESCipher

from aiom4b import logs, redaction
from aiom4b.adapters.audible_api import signin, storage
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.session import Session
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from audible_documents import chapter
from fake_audible import ABOVE_THRESHOLD, FakeAudible, Title, all_to

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASIN = "B00AIOM4B1"
BODY = hashlib.shake_256(b"own").digest(3_500_000)
SIZE = len(BODY)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def audio(tmp_path):
    path = tmp_path / "own.aaxc"
    path.write_bytes(BODY)
    return path


@contextmanager
def service(*titles):
    with FakeAudible(*titles) as fake, all_to(fake.port):
        yield fake


def asked(fake, question, *, identity=None, **facts):
    """Return what a coroutine function says of a session with the service."""

    async def run():
        async with Session(identity or Identity.of(fake.device().identity()), **facts) as session:
            return await question(session)

    return anyio.run(run)


def refused(fake, question, **facts):
    with pytest.raises(Aiom4bError) as caught:
        asked(fake, question, **facts)
    error = caught.value
    assert error.reason.endswith(".")
    assert error.remedy.endswith((".", "`.", "'."))
    return error


# --- signing in and out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mangle",
    [
        str,
        lambda address: f"  '{address}'\n",
        lambda address: f"“{address}”",
        lambda address: f"<{address[:60]}\r\n   {address[60:]}>",
        lambda address: quote(address, safe=""),
        lambda address: address.replace("?", "?openid.mode=id_res&").replace("&", "&amp;"),
    ],
    ids=["plain", "quoted", "typographic", "wrapped", "encoded", "from a web page"],
)
def test_an_owner_signs_in_in_two_steps_however_the_address_was_pasted(mangle):
    with service(Title()) as fake:
        pending = signin.begin("US", with_username=False, now=NOON)
        identity = signin.finish(pending, mangle(fake.sign_in(pending.url)), NOON)
        assert (identity.country, identity.owner, identity.registered) == ("us", "Ada Keeper", NOON)
        assert "iPhone" in identity.device
        assert identity.token_expires > datetime.now(UTC)
        assert asked(fake, lambda session: session.library(page=1), identity=identity).total == 1


def test_an_old_account_signs_in_with_its_user_name():
    with service() as fake:
        pending = signin.begin("de", with_username=True, now=NOON)
        identity = signin.finish(pending, fake.sign_in(pending.url), NOON)
        assert fake.devices[0].with_username
        assert identity.document()["with_username"] is True


def test_an_address_works_once():
    with service() as fake:
        pending = signin.begin("us", with_username=False, now=NOON)
        pasted = fake.sign_in(pending.url)
        signin.finish(pending, pasted, NOON)
        with pytest.raises(NeedsAttention) as caught:
            signin.finish(pending, pasted, NOON)
        assert caught.value.code == "signin.expired"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 403, "message": "Not allowed"}, "signin.refused"),
        ({"html": True}, "audible.unreadable"),
        ({"drop": True}, "audible.network"),
        ({"status": 503}, "signin.refused"),  # audible doesn't tell the status
    ],
)
def test_a_sign_in_that_amazon_does_not_take_can_be_tried_again(fault, code):
    with service() as fake:
        pending = signin.begin("us", with_username=False, now=NOON)
        pasted = fake.sign_in(pending.url)
        fake.fault("register", **fault)
        with pytest.raises(Aiom4bError) as caught:
            signin.finish(pending, pasted, NOON)
        assert caught.value.code == code
        assert signin.finish(pending, pasted, NOON).owner == "Ada Keeper"


def test_signing_out_takes_this_device_off_and_no_other():
    with service(Title()) as fake:
        identity, other = Identity.of(fake.device().identity()), fake.device()
        signin.deregister(identity)
        assert [device.registered for device in fake.devices] == [False, True]
        assert refused(fake, lambda session: session.library(page=1), identity=identity).code == "audible.unauthorized"
        with pytest.raises(NeedsAttention) as caught:
            signin.deregister(identity)
        assert caught.value.code == "audible.unauthorized"
        assert asked(fake, lambda session: session.library(page=1), identity=Identity.of(other.identity())).total == 1


def test_signing_out_without_a_network_is_worth_another_try():
    with service() as fake:
        identity = Identity.of(fake.device().identity())
        fake.fault("token", status=503)
        fake.fault("deregister", drop=True)
        for _ in range(2):
            with pytest.raises(Transient):
                signin.deregister(identity)
        signin.deregister(identity)


def test_files_of_other_programs_sign_in(tmp_path):
    with service(Title()) as fake:
        document = fake.device().identity()
        old = {**document, "login_cookies": document["website_cookies"]}
        del old["website_cookies"]
        plain = json.dumps(document)
        shapes = [
            (plain.encode(), None),
            (json.dumps(old).encode(), None),
            (json.dumps(AESCipher("own password").to_dict(plain)).encode(), "own password"),
            (AESCipher("own password").to_bytes(plain), "own password"),
            (json.dumps(libation(document)).encode(), None),
        ]
        for data, password in shapes:
            identity = storage.imported(data, password, country=None)
            assert (identity.country, identity.owner) == ("us", "Ada Keeper")
            assert identity.document()["website_cookies"]["x-main"] == "own-cookie"
            assert asked(fake, lambda session: session.library(page=1), identity=identity).total == 1


def libation(document, locale="us", key=str):
    return {
        "Cdm": None,
        "Accounts": [
            {
                "AccountId": "ada@example.org",
                "AccountName": document["customer_info"]["name"],
                "LibraryScan": True,
                "DecryptKey": "1a2b3c4d",
                "IdentityTokens": {
                    "LocaleName": locale,
                    "ExistingAccessToken": {
                        "TokenValue": document["access_token"],
                        "Expires": "2026-11-21T13:00:00.1234567Z",
                    },
                    # Libation drops the line breaks.
                    "PrivateKey": {"Value": key(document["device_private_key"].replace("\n", ""))},
                    "AdpToken": {"Value": document["adp_token"]},
                    "RefreshToken": {"Value": document["refresh_token"]},
                    "DeviceSerialNumber": document["device_info"]["device_serial_number"],
                    "DeviceType": document["device_info"]["device_type"],
                    "AmazonAccountId": document["customer_info"]["user_id"],
                    "DeviceName": document["device_info"]["device_name"],
                    "StoreAuthenticationCookie": "own-store-cookie",
                    "Cookies": [{"Key": "x-main", "Value": "own-cookie"}, {"Key": "empty", "Value": None}],
                },
            }
        ],
    }


# --- what is there ----------------------------------------------------------------------------------------------------


def test_a_library_is_listed_page_by_page_and_then_only_as_far_as_it_changed():
    with service() as fake:
        fake.many(5)

        async def question(session):
            pages = [await session.library(page=page, page_size=2) for page in (1, 2, 3)]
            token = pages[0].state_token
            nothing = await session.library(page=1, state_token=token)
            fake.revoke("B100000003")
            return pages, nothing, await session.library(page=1, state_token=token)

        pages, nothing, changed = asked(fake, question)
        assert [len(page.items) for page in pages] == [2, 2, 1]
        assert {page.total for page in pages} == {5}
        assert {item["asin"] for page in pages for item in page.items} == {f"B10000000{n}" for n in range(5)}
        assert (nothing.items, nothing.total, nothing.state_token) == ((), 0, pages[0].state_token)
        assert [(item["asin"], item["status"]) for item in changed.items] == [("B100000003", "Revoked")]


def test_each_marketplace_has_its_own_library_for_the_same_sign_in():
    with service(Title(), Title(asin="B00GERMAN1", market="de")) as fake:
        page = asked(fake, lambda session: session.library(page=1), country="de")
        assert [item["asin"] for item in page.items] == ["B00GERMAN1"]


def test_episodes_are_listed_by_their_podcast():
    with service(
        Title(asin="B00PODCAST", delivery="PodcastParent"),
        Title(asin="B00EPISOD1", delivery="PodcastEpisode", parent="B00PODCAST"),
    ) as fake:
        page = asked(fake, lambda session: session.library(page=1, parent="B00PODCAST"))
        assert [item["asin"] for item in page.items] == ["B00EPISOD1"]
        assert fake.requests["children"] == 1


def test_a_title_comes_with_all_that_metadata_needs():
    with service(Title(isbn="9780000000002", pdf=True)) as fake:
        (item,) = asked(fake, lambda session: session.library(page=1)).items
        assert {"authors", "series", "product_images", "category_ladders", "pdf_url", "customer_rights"} <= item.keys()


def test_companions_are_there_or_none(audio):
    with service(Title(aaxc=audio, pdf=True, annotations=True), Title(asin="B00NOTHIN1", aaxc=audio)) as fake:
        cover = f"https://m.media-amazon.com/images/I/{ASIN}.jpg"

        async def question(session):
            whole = (
                await session.chapters(ASIN),
                await session.annotations(ASIN),
                await session.document(ASIN),
                await session.document(ASIN, f"https://www.audible.com/companion-file/{ASIN}"),
                await session.picture(cover),
            )
            return whole, await session.annotations("B00NOTHIN1"), await session.document("B00NOTHIN1")

        (chapters, annotations, pdf, by_address, picture), no_notes, no_pdf = asked(fake, question)
        assert chapters.keys() == {"content_metadata"}
        assert chapters["content_metadata"].keys() == {"chapter_info", "content_reference"}
        assert chapters["content_metadata"]["chapter_info"]["chapters"][1]["chapters"]
        assert json.loads(annotations)["payload"]["records"]
        assert pdf == by_address
        assert pdf.startswith(b"%PDF")
        assert picture.startswith(b"\xff\xd8")
        assert (no_notes, no_pdf) == (None, None)


def test_a_title_without_audio_has_no_chapters_either():
    with service(Title()) as fake:
        assert asked(fake, lambda session: session.chapters(ASIN)) is None


def test_an_account_tells_its_activation_bytes():
    with service() as fake:
        assert asked(fake, lambda session: session.activation_bytes()) == "1a2b3c4d"


def test_a_page_instead_of_activation_bytes_is_not_printed(capsys):
    with service() as fake:
        fake.fault("activation", html=True)
        assert refused(fake, lambda session: session.activation_bytes()).code == "audible.unreadable"
        assert capsys.readouterr().out == ""


def test_the_older_way_leads_to_the_server_of_the_marketplace(audio):
    with service(Title(aax=audio, market="uk"), Title(asin="B00NOTHIN1", market="uk")) as fake:
        address = asked(fake, lambda session: session.aax_address(ASIN, "LC_64_22050_stereo"), country="uk")
        assert address.startswith("https://cds.audible.co.uk/download?")
        missing = refused(fake, lambda session: session.aax_address("B00NOTHIN1", "LC_64_22050_stereo"))
        assert missing.code == "audible.not_found"


# --- licences ---------------------------------------------------------------------------------------------------------


def test_a_licence_is_kept_as_audible_cli_keeps_it_with_its_keys_open(audio):
    with service(Title(aaxc=audio, pdf=True)) as fake:
        licence = asked(fake, lambda session: session.licence(ASIN, "high"))
        title = fake.titles[ASIN]
        opened = licence.voucher["content_license"]["license_response"]
        assert (opened["key"], opened["iv"]) == (title.key.hex(), title.iv.hex())
        assert licence.voucher["content_license"]["asin"] == ASIN
        assert (licence.kind, licence.content_format, licence.size) == ("aaxc", "AAX_44_128", len(BODY))
        assert timedelta(minutes=59) < licence.expires - datetime.now(UTC) < timedelta(minutes=61)
        assert licence.pdf.startswith("https://www.audible.com/")
        assert licence.chapter_info["chapters"]


def test_less_quality_is_asked_for_when_it_is_wanted(audio):
    with service(Title(aaxc=audio)) as fake:
        assert asked(fake, lambda session: session.licence(ASIN, "normal")).content_format == "AAX_22_64"


def test_an_episode_is_plain_mp3(tmp_path):
    audio = tmp_path / "own.mp3"
    audio.write_bytes(BODY)
    with service(Title(aaxc=audio)) as fake:
        licence = asked(fake, lambda session: session.licence(ASIN, "high"))
        assert (licence.kind, licence.content_format) == ("mp3", "MPEG")


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"denied": ["CustomerThrottled"]}, "audible.customer_throttled"),
        ({"denied": ["RequesterEligibility", "ContentEligibility"]}, "audible.licence_denied"),
        ({"denied": ["GenericError"]}, "audible.licence_denied"),
        ({"denied": []}, "audible.licence_denied"),
        ({"status": "Revoked"}, "audible.licence_denied"),
        ({"aaxc": None}, "audible.no_asset"),
        ({"drm": "Widevine", "address": "https://own.cloudfront.net/own.mpd"}, "audible.protected_streaming"),
        ({"address": "https://own.cloudfront.net/own.mpd?Expires=1"}, "audible.protected_streaming"),
        ({"quality": "M4A_XHE"}, "audible.other_codec"),
        ({"codec": "mp4a.40.42"}, "audible.other_codec"),
        ({"quality": "M4A_EC3", "codec": "ec+3"}, "audible.other_codec"),
        ({"key": b"short"}, "audible.voucher_unreadable"),
    ],
)
def test_a_licence_that_is_not_given_is_told_in_plain_words(audio, facts, code):
    with service(Title(**({"aaxc": audio} | facts))) as fake:
        error = refused(fake, lambda session: session.licence(ASIN, "high"))
        assert error.code == code
        assert fake.account.customer not in repr(error)


def test_a_voucher_opens_only_for_the_device_that_asked_for_it(audio):
    with service(Title(aaxc=audio)) as fake:
        document = fake.device().identity()
        document["device_info"]["device_serial_number"] = "another"
        error = refused(fake, lambda session: session.licence(ASIN, "high"), identity=Identity.of(document))
        assert error.code == "audible.voucher_unreadable"


def test_too_many_licences_mean_a_day_of_rest(audio):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("licence", status=403, message=ABOVE_THRESHOLD)
        error = refused(fake, lambda session: session.licence(ASIN, "high"))
        assert (error.code, error.later) == ("audible.rate", timedelta(hours=24))
        assert isinstance(error, Transient)


# --- what goes wrong on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "later"),
    [
        ({"status": 400}, "audible.refused", None),
        ({"status": 401, "message": "Message could not be authenticated"}, "audible.unauthorized", None),
        ({"status": 403}, "audible.unauthorized", None),
        ({"status": 404}, "audible.not_found", None),
        ({"status": 429, "retry_after": 90}, "audible.rate", timedelta(seconds=90)),
        ({"status": 429}, "audible.rate", None),
        ({"status": 500}, "audible.server", None),
        ({"status": 503, "retry_after": 7200}, "audible.server", timedelta(hours=2)),
        ({"html": True}, "audible.unreadable", None),
        ({"drop": True}, "audible.network", None),
    ],
)
def test_each_way_of_failing_has_its_own_sentence(fault, code, later):
    with service(Title()) as fake:
        fake.fault("library", **fault)
        error = refused(fake, lambda session: session.library(page=1))
        assert (error.code, error.later) == (code, later)
        assert isinstance(error, Transient) == (
            code in {"audible.rate", "audible.server", "audible.unreadable", "audible.network"}
        )


def test_a_host_that_can_not_be_reached_is_a_matter_of_the_network():
    with service(Title()) as fake:
        error = refused(fake, lambda session: session.picture("https://nowhere.example.org/own.jpg"))
        assert error.code == "audible.unreachable"


def test_a_wrong_clock_is_told_from_a_sign_in_that_expired():
    with service(Title()) as fake:
        fake.clock_ahead = timedelta(hours=3)
        error = refused(fake, lambda session: session.library(page=1))
        assert error.code == "audible.clock"
        assert "180 minutes" in error.reason


@pytest.mark.parametrize(
    "address",
    [
        "http://m.media-amazon.com/own.jpg",
        "https://127.0.0.1/own.jpg",
        "https://[::1]/own.jpg",
        "https://localhost/own.jpg",
        "https://own:secret@m.media-amazon.com/own.jpg",
        "https://m.media-amazon.com:8443/own.jpg",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_leads_into_the_house_is_not_opened(address):
    with service() as fake:
        assert refused(fake, lambda session: session.picture(address)).code == "audible.refused"
        assert not fake.log


# --- transfers --------------------------------------------------------------------------------------------------------


def fetched(fake, folder, *, address=None, expected=SIZE, heard=None):
    """Transfer the title's audio into ``folder`` as the service does."""
    path = str(folder / f"{ASIN}-AAX_44_128.aaxc")
    heard = [] if heard is None else heard

    async def question(session):
        where = address or (await session.licence(ASIN, "high")).address
        return await session.transfer(
            where, path, expected=expected, on_bytes=lambda done, total: heard.append((done, total))
        )

    return asked(fake, question)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "downloads"
    made.mkdir()
    return made


def names(folder):
    return sorted(os.listdir(folder))


def test_audio_arrives_whole_and_is_told_piece_by_piece(audio, folder):
    heard = []
    with service(Title(aaxc=audio)) as fake:
        done = fetched(fake, folder, heard=heard)
        assert (done.size, done.resumed_at) == (len(BODY), 0)
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY
        assert names(folder) == [f"{ASIN}-AAX_44_128.aaxc"]
        assert heard == sorted(heard)
        assert heard[0] == (0, len(BODY))
        assert heard[-1] == (len(BODY), len(BODY))
        assert len(heard) >= 4
        fetched(fake, folder)
        assert fake.requests["cdn"] == 1  # what is here is not asked for again


def test_a_download_that_was_cut_goes_on_where_it_was(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", cut=2_000_001)
        with pytest.raises(Transient) as caught:
            fetched(fake, folder)
        assert caught.value.code == "audible.cut_download"
        assert str(len(BODY)) in caught.value.reason
        assert names(folder) == [f"{ASIN}-AAX_44_128.aaxc.part", f"{ASIN}-AAX_44_128.aaxc.resume"]
        note = (folder / f"{ASIN}-AAX_44_128.aaxc.resume").read_text()
        assert "http" not in note
        done = fetched(fake, folder)
        assert 1_900_000 < done.resumed_at <= 2_000_001
        assert fake.log[-1].endswith(f"bytes={done.resumed_at}-")
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY
        assert names(folder) == [f"{ASIN}-AAX_44_128.aaxc"]


def test_a_file_that_changed_meanwhile_is_downloaded_afresh(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", cut=2_000_000)
        with pytest.raises(Transient):
            fetched(fake, folder)
        audio.write_bytes(BODY[::-1])
        fake.change(ASIN, edition=2)
        done = fetched(fake, folder)
        assert done.resumed_at == 0
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY[::-1]


def test_a_file_that_became_shorter_is_downloaded_afresh(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", cut=2_000_000)
        with pytest.raises(Transient):
            fetched(fake, folder)
        audio.write_bytes(BODY[:1000])
        done = fetched(fake, folder, expected=1000)
        assert (done.size, done.resumed_at) == (1000, 0)
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY[:1000]


def test_another_size_than_the_licence_names_is_refused_before_a_byte_is_kept(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        with pytest.raises(Transient) as caught:
            fetched(fake, folder, expected=len(BODY) + 1)
        assert caught.value.code == "audible.changed_download"
        assert sum(path.stat().st_size for path in folder.iterdir()) == 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"html": True}, "audible.not_audio"),
        ({"content_type": "text/plain"}, "audible.not_audio"),
        ({"content_type": "application/dash+xml"}, "audible.not_audio"),
        ({"drop": True}, "audible.network"),
        ({"status": 403}, "audible.address_expired"),
        ({"status": 404}, "audible.not_found"),
        ({"status": 503, "retry_after": 60}, "audible.server"),
    ],
)
def test_what_is_no_audio_is_not_kept(audio, folder, fault, code):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", **fault)
        with pytest.raises(Aiom4bError) as caught:
            fetched(fake, folder)
        assert caught.value.code == code
        assert sum(path.stat().st_size for path in folder.iterdir()) == 0
        assert fetched(fake, folder).size == len(BODY)


def test_an_address_that_expired_is_worth_a_new_one(audio, folder):
    with service(Title(aaxc=audio, lifetime=timedelta(seconds=-5))) as fake:
        with pytest.raises(Transient) as caught:
            fetched(fake, folder)
        assert caught.value.code == "audible.address_expired"


def test_a_title_in_parts_says_so_on_the_older_way(audio, folder):
    with service(Title(aax=audio)) as fake:
        with pytest.raises(NeedsAttention) as caught:
            fetched(fake, folder, address=f"https://cds.audible.com/download?asin={ASIN}", expected=None)
        assert caught.value.code == "audible.not_audio"
        assert "this format" in caught.value.reason


def test_the_older_way_brings_audio_too_without_a_known_size(audio, folder):
    with service(Title(aax=audio)) as fake:
        address = asked(fake, lambda session: session.aax_address(ASIN, "LC_64_22050_stereo"))
        assert fetched(fake, folder, address=address, expected=None).size == len(BODY)


def test_stopping_in_the_middle_keeps_what_has_arrived(audio, folder):
    path = folder / "own.aaxc"
    with service(Title(aaxc=audio)) as fake:
        fake.hold("cdn", after=2_500_000)

        async def stopped(session):
            licence = await session.licence(ASIN, "high")
            with anyio.CancelScope() as scope:
                await session.transfer(
                    licence.address,
                    str(path),
                    expected=len(BODY),
                    on_bytes=lambda done, _: scope.cancel() if done > 2_000_000 else None,
                )
            assert scope.cancelled_caught
            fake.release()
            return await session.transfer(licence.address, str(path), expected=len(BODY), on_bytes=lambda *_: None)

        done = asked(fake, stopped)
        assert done.resumed_at > 2_000_000
        assert path.read_bytes() == BODY


def test_after_a_power_cut_only_what_was_synced_counts(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", cut=2_000_000)
        with pytest.raises(Transient):
            fetched(fake, folder)
        note_path = folder / f"{ASIN}-AAX_44_128.aaxc.resume"
        note = json.loads(note_path.read_text()) | {"boot": "another", "synced": 1_000_000}
        note_path.write_text(json.dumps(note))
        part = folder / f"{ASIN}-AAX_44_128.aaxc.part"
        part.write_bytes(part.read_bytes()[:1_000_000] + bytes(1_000_000))  # blocks that never reached the disk
        done = fetched(fake, folder)
        assert done.resumed_at == 1_000_000
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY


def test_a_killed_process_lost_nothing_that_it_wrote(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fake.fault("cdn", cut=2_000_000)
        with pytest.raises(Transient):
            fetched(fake, folder)
        note_path = folder / f"{ASIN}-AAX_44_128.aaxc.resume"
        note_path.write_text(json.dumps(json.loads(note_path.read_text()) | {"synced": 0}))
        assert fetched(fake, folder).resumed_at > 1_900_000


def test_a_part_without_its_note_is_not_trusted(audio, folder):
    (folder / f"{ASIN}-AAX_44_128.aaxc.part").write_bytes(b"whose?" * 1000)
    with service(Title(aaxc=audio)) as fake:
        assert fetched(fake, folder).resumed_at == 0
        assert (folder / f"{ASIN}-AAX_44_128.aaxc").read_bytes() == BODY


def test_a_crash_before_the_last_move_asks_nobody(audio, folder):
    with service(Title(aaxc=audio)) as fake:
        fetched(fake, folder)
        whole = folder / f"{ASIN}-AAX_44_128.aaxc"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        note = {"v": 1, "etag": '"own"', "size": len(BODY), "synced": len(BODY), "boot": boot}
        whole.with_name(whole.name + ".resume").write_text(json.dumps(note))
        whole.rename(whole.with_name(whole.name + ".part"))
        assert fetched(fake, folder).resumed_at == len(BODY)
        assert fake.requests["cdn"] == 1
        assert names(folder) == [whole.name]


def test_no_server_of_audio_or_pictures_gets_a_word_of_the_account(audio, folder, monkeypatch):
    seen = []
    with service(Title(aaxc=audio, aax=audio, pdf=True)) as fake:
        inner = httpx.AsyncHTTPTransport.handle_async_request

        async def watched(self, request):
            seen.append(request)
            return await inner(self, request)

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", watched)
        fetched(fake, folder)
        address = asked(fake, lambda session: session.aax_address(ASIN, "LC_64_22050_stereo"))
        fetched(fake, folder / "..", address=address, expected=None)
        asked(fake, lambda session: session.picture("https://m.media-amazon.com/images/I/own.jpg"))
        monkeypatch.undo()
    told = {
        request.url.host: {name for name in request.headers if name.startswith(("x-a", "cookie"))} for request in seen
    }
    assert told["api.audible.com"]
    assert told["cde-ta-g7g.amazon.com"]
    for host in ("d1ownfake0000.cloudfront.net", "cds.audible.com", "m.media-amazon.com"):
        assert told[host] == set()


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_shows_in_values_errors_or_logs_at_debug(audio, tmp_path, folder):
    stream = io.StringIO()
    before = list(logging.getLogger().handlers), logging.getLogger().level
    shown = []

    def failing(call):
        try:
            call()
        except Aiom4bError as error:
            shown.extend([str(error), repr(error), error.remedy, "".join(traceback.format_exception(error))])

    try:
        logs.configure("debug", "json", stream)
        with service(Title(aaxc=audio, aax=audio, pdf=True, annotations=True)) as fake:
            pending = signin.begin("us", with_username=False, now=NOON)
            pasted = fake.sign_in(pending.url)
            shown.append(repr(pending))
            failing(lambda: signin.finish(pending, pasted.replace("authorization_code", "other"), NOON))
            identity = signin.finish(pending, pasted, NOON)
            failing(lambda: signin.finish(pending, pasted, NOON))
            storage.save(str(tmp_path / "own.json"), identity, "own password")
            identity = storage.load(str(tmp_path / "own.json"), "own password")
            failing(lambda: storage.load(str(tmp_path / "own.json"), "wrong password"))
            shown.append(repr(identity))

            async def everything(session):
                shown.append(repr(session))
                licence = await session.licence(ASIN, "high")
                page = await session.library(page=1)
                shown.extend([repr(licence), repr(page)])
                await session.activation_bytes()
                await session.aax_address(ASIN, "LC_64_22050_stereo")
                await session.annotations(ASIN)
                await session.document(ASIN)
                fake.fault("cdn", cut=2_000_000)
                try:
                    await session.transfer(
                        licence.address, str(folder / "own.aaxc"), expected=len(BODY), on_bytes=lambda *_: None
                    )
                except Transient as error:
                    shown.extend([repr(error), "".join(traceback.format_exception(error))])
                return licence

            licence = asked(fake, everything, identity=identity)
            for status in (400, 403, 404, 429, 500):
                message = f"{identity.document()['access_token']} of [{fake.account.customer}] at {licence.address}"
                fake.fault("library", status=status, message=message.replace("{", "{{").replace("}", "}}"))
                failing(lambda: asked(fake, lambda session: session.library(page=1), identity=identity))
            fake.change(ASIN, denied=["GenericError"])
            failing(lambda: asked(fake, lambda session: session.licence(ASIN, "high"), identity=identity))
            fake.change(ASIN, denied=None, key=b"short")
            failing(lambda: asked(fake, lambda session: session.licence(ASIN, "high"), identity=identity))
            signin.deregister(identity)
            failing(lambda: signin.deregister(identity))
            secrets = [*fake.secrets(), fake.account.customer, pending.code_verifier, licence.address]
            secrets += [identity.document()["device_info"]["device_serial_number"], "own password"]
    finally:
        logging.getLogger().handlers[:], _ = before
        logging.getLogger().setLevel(before[1])
        structlog.reset_defaults()
    written = "\n".join([*shown, stream.getvalue()])
    assert len(shown) > 30
    assert [secret for secret in secrets if secret in written] == []
    assert os.listdir(folder)
    for path in folder.iterdir():
        if path.suffix == ".resume":
            assert not any(secret.encode() in path.read_bytes() for secret in secrets)


def test_the_registered_secrets_are_hidden_from_our_own_logs_too(audio):
    with service(Title(aaxc=audio)) as fake:
        device = fake.device()
        identity = Identity.of(device.identity())
        licence = asked(fake, lambda session: session.licence(ASIN, "high"), identity=identity)
        asked(fake, lambda session: session.activation_bytes(), identity=identity)
        opened = licence.voucher["content_license"]["license_response"]
        for secret in (*device.secrets(), opened["key"], opened["iv"], device.account.customer):
            assert secret not in redaction.redact(f"said {secret} aloud")


def test_a_session_can_be_used_in_loop_after_loop():
    with service(Title()) as fake:
        identity = Identity.of(fake.device().identity())
        for _ in range(2):
            assert asyncio.run(_total(identity)) == 1


async def _total(identity):
    async with Session(identity) as session:
        return (await session.library(page=1)).total


def test_chapters_may_be_any(audio):
    with service(Title(aaxc=audio, chapters=(chapter("Only", 0, 6000),))) as fake:
        found = asked(fake, lambda session: session.chapters(ASIN))
        assert len(found["content_metadata"]["chapter_info"]["chapters"]) == 1
