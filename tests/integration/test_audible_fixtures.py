"""Can the tests of Audible books be trusted? FFmpeg opens the locked files, and the real client takes the fake for the service."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import audible
import av
import httpx
import pytest
from audible import login, register
from audible.aescipher import decrypt_voucher_from_licenserequest as opened
from audible.exceptions import NotFoundError, RatelimitError, ServerError, Unauthorized
from audible.localization import Locale
from mutagen.mp4 import MP4

import aiom4b
import audible_files
import audible_layouts
import audible_strangers
from audible_boxes import top_boxes
from audible_files import ACTIVATION_BYTES, ASIN, ATOMS, IV, KEY, decoded, lock_aax, lock_aaxc, plain_book
from fake_audible import ABOVE_THRESHOLD, Account, FakeAudible, Title, all_to, environment

PACKAGE = Path(aiom4b.__file__).parents[1]
LICENCE = {
    "supported_drm_types": ["Mpeg", "Adrm"],
    "quality": "High",
    "consumption_type": "Download",
    "response_groups": "content_reference,chapter_info,pdf_url",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Return a plain book, and the same as AAXC and as AAX."""
    folder = tmp_path_factory.mktemp("shop")
    plain = plain_book(folder / "plain.m4b")
    return plain, lock_aaxc(plain, folder / "own.aaxc"), lock_aax(plain, folder / "own.aax")


@pytest.fixture
def fake(shop):
    _, aaxc, aax = shop
    with FakeAudible(Title(aaxc=aaxc, aax=aax, pdf=True, annotations=True)) as service, all_to(service.port):
        yield service


def signed_in(fake, market="us"):
    """Return the real client's idea of a device that is registered."""
    return audible.Authenticator.from_dict(fake.device(market).identity())


def with_client(auth, do, **how):
    async def run():
        async with audible.AsyncClient(auth, **how) as client:
            return await do(client)

    return anyio.run(run)


def ask(auth, path, **query):
    """Return what the real client makes of an answer."""
    return with_client(auth, partial(audible.AsyncClient.get, path=path, **query))


def licence(auth, asin=ASIN, **body):
    return with_client(
        auth, partial(audible.AsyncClient.post, path=f"content/{asin}/licenserequest", body=LICENCE | body)
    )


def address_of(document):
    return document["content_license"]["content_metadata"]["content_url"]["offline_url"]


async def saved(client, address, target):
    """Transfer a file until it ends or breaks off."""
    with target.open("wb") as file:
        async with client.session.stream("GET", address, auth=None) as answer:
            async for piece in answer.aiter_bytes():
                file.write(piece)


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ({}, {}),
        ({"edit_list": False}, {"moov_last": True}),
        ({"channels": 2, "chapters": 300}, {"moov_last": True, "wide": True}),
        ({"rate": 44100, "channels": 2}, {"wide": True}),
    ],
    ids=["mono", "no edit list", "300 chapters, moov last", "44100 stereo, co64"],
)
def test_a_locked_book_sounds_as_the_plain_one_to_the_bit(tmp_path, kind, how):
    plain = plain_book(tmp_path / "plain.m4b", 4.0, **kind)
    aaxc = lock_aaxc(plain, tmp_path / "own.aaxc", **how)
    aax = lock_aax(plain, tmp_path / "own.aax", **how)
    sound = decoded(plain)
    assert decoded(aaxc, key=KEY, iv=IV) == sound
    assert decoded(aax, activation_bytes=ACTIVATION_BYTES) == sound
    order = ["ftyp", "mdat", "moov"] if how.get("moov_last") else ["ftyp", "moov", "mdat"]
    for locked, brand in ((aaxc, b"aaxc"), (aax, b"aax ")):
        assert [name.decode() for name, _, _ in top_boxes(locked)] == order
        data = locked.read_bytes()
        assert data[8:12] == brand
        assert (b"co64" in data) is bool(how.get("wide"))
        with av.open(str(locked)) as container:
            assert len(container.chapters()) == kind.get("chapters", 3)


def test_the_long_file_of_a_benchmark_is_the_same_packets_again(tmp_path):
    plain = plain_book(tmp_path / "plain.m4b", 2.0, times=5, chapters=[(0.0, "One"), (7.5, "Two")])
    locked = lock_aaxc(plain, tmp_path / "own.aaxc")
    assert decoded(locked, key=KEY, iv=IV) == decoded(plain)
    with av.open(str(plain)) as container:
        stream = container.streams.audio[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(10.0, abs=0.5)


def test_without_its_edit_list_the_priming_is_heard(tmp_path):
    lengths = []
    for edit_list in (True, False):
        with av.open(str(plain_book(tmp_path / "plain.m4b", edit_list=edit_list))) as container:
            lengths.append(container.streams.audio[0].duration)
    assert lengths[1] - lengths[0] == 1024


@pytest.mark.parametrize(
    "secrets",
    [{}, {"key": IV, "iv": IV}, {"key": KEY, "iv": KEY}],
    ids=["no key", "wrong key", "wrong initialisation vector"],
)
def test_without_the_right_key_an_aaxc_is_noise(shop, secrets):
    with pytest.raises(av.error.FFmpegError):
        decoded(shop[1], **secrets)


@pytest.mark.parametrize("secrets", [{}, {"activation_bytes": b"\x01\x02\x03\x04"}], ids=["none", "another account's"])
def test_without_the_right_activation_bytes_an_aax_is_noise(shop, secrets):
    with pytest.raises(av.error.FFmpegError):
        decoded(shop[2], **secrets)


@pytest.mark.parametrize("number", [1, 2], ids=["aaxc", "aax"])
def test_a_locked_book_tells_all_but_its_sound_without_a_key(shop, number):
    tags = MP4(shop[number])
    assert {atom: tags[atom][0] for atom in ATOMS} == dict(ATOMS)
    assert bytes(tags["covr"][0]).startswith(b"\xff\xd8")
    assert [chapter.title for chapter in tags.chapters] == ["Chapter 1", "Chapter 2", "Chapter 3"]


def test_a_cut_book_is_missing_its_end(shop, tmp_path):
    cut = audible_files.cut(shop[1], 0.5, tmp_path / "own.aaxc")
    with pytest.raises(AssertionError, match="runs past its end"):
        top_boxes(cut)


def test_strangers_are_what_they_are_called():
    names = {}
    for make in (audible_strangers.usac, audible_strangers.dolby_digital_plus, audible_strangers.cenc):
        with av.open(io.BytesIO(make()), format="mp4") as container:
            context = container.streams.audio[0].codec_context
            names[make.__name__] = (context.name, context.profile)
    assert names["usac"] == ("aac", "xHE-AAC")
    assert names["dolby_digital_plus"][0] == "eac3"
    assert names["cenc"] == ("aac", "LC")
    assert b"enca" in audible_strangers.cenc()
    assert b"ac-4" in audible_strangers.dolby_ac4()
    assert b"moof" in audible_strangers.dash()
    assert b"sidx" in audible_strangers.dash()
    assert audible_strangers.aa()[4:8] == b"\x57\x90\x75\x36"
    assert b"product_id=" in audible_strangers.adh()


# --- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", audible_layouts.NAME_MODES)
def test_audible_cli_puts_a_voucher_beside_that_opens_the_book(shop, tmp_path, mode):
    dropped = audible_layouts.audible_cli(tmp_path, shop[0], mode=mode)
    voucher = json.loads(dropped.audio.with_suffix(".voucher").read_bytes())["content_license"]["license_response"]
    assert decoded(dropped.audio, key=bytes.fromhex(voucher["key"]), iv=bytes.fromhex(voucher["iv"])) == decoded(
        shop[0]
    )
    assert len(dropped.beside) == 5


def test_libation_writes_the_keys_down_as_text(shop, tmp_path):
    dropped = audible_layouts.libation(tmp_path, shop[0])
    text = next(path for path in dropped.beside if path.suffix == ".key").read_text()
    key, iv = (bytes.fromhex(line.partition("=")[2]) for line in text.splitlines())
    assert dropped.audio.suffix == ".Aaxc"
    assert decoded(dropped.audio, key=key, iv=iv) == decoded(shop[0])
    old = audible_layouts.libation(tmp_path / "old", shop[0], aax=True)
    text = next(path for path in old.beside if path.suffix == ".key").read_text()
    found = bytes.fromhex(text.strip().removeprefix("ActivationBytes="))
    assert decoded(old.audio, activation_bytes=found) == decoded(shop[0])


def test_old_programs_leave_nothing_beside_or_a_wrong_name(shop, tmp_path):
    for name in ("TheLighthouseUnabridged_ep6.aax", "The Lighthouse.mp4"):
        dropped = audible_layouts.old_app(tmp_path, shop[0], name)
        assert (dropped.audio.name, dropped.beside) == (name, ())
        assert decoded(dropped.audio, activation_bytes=ACTIVATION_BYTES) == decoded(shop[0])
    misnamed = audible_layouts.misnamed_aaxc(tmp_path, shop[0])
    assert misnamed.audio.suffix == ".AAX"
    assert misnamed.audio.read_bytes()[8:12] == b"aaxc"


def test_a_shelf_holds_books_of_their_own_each_with_its_key(tmp_path):
    books = audible_layouts.shelf(tmp_path / "flat", tmp_path / "aside")
    assert {path.parent for book in books for path in (book.audio, *book.beside)} == {tmp_path / "flat"}
    for book in books:
        assert decoded(book.audio, key=book.title.key, iv=book.title.iv) == decoded(book.plain)
    assert len({decoded(book.plain) for book in books}) == 3
    with pytest.raises(av.error.FFmpegError):
        decoded(books[0].audio, key=books[1].title.key, iv=books[1].title.iv)


# --- the service: signing in -------------------------------------------------------------------------------------------


def begun(market="us", *, with_username=False):
    """Return what the real client's first step gives: the verifier, its address, the serial, the domain."""
    place = Locale(market)
    verifier = login.create_code_verifier()
    address, serial = login.build_oauth_url(
        market, place.domain, place.market_place_id, verifier, with_username=with_username
    )
    return verifier, address, serial, place.domain


def code_in(pasted):
    return login.extract_code_from_url(httpx.URL(pasted))


def test_the_real_client_walks_from_sign_in_to_sign_out(fake, shop, tmp_path):
    verifier, address, serial, domain = begun()
    made = register.register(code_in(fake.sign_in(address)), verifier, domain, serial)
    auth = audible.Authenticator.from_dict({**made, "locale_code": "us", "with_username": False})
    before = auth.access_token
    auth.refresh_access_token(force=True)
    assert auth.access_token != before
    assert auth.get_activation_bytes() == ACTIVATION_BYTES.hex()
    groups = "contributors,media,series,customer_rights,pdf_url"

    async def fetched(client):
        listed = await client.get("library", response_groups=groups, image_sizes="500,1215", num_results=50)
        (item,) = listed["items"]
        assert item["narrators"][0]["name"] == "Noa Reader"
        chapters = await client.get(
            f"content/{ASIN}/metadata", chapter_titles_type="Tree", response_groups="chapter_info"
        )
        assert [one["title"] for one in chapters["content_metadata"]["chapter_info"]["chapters"]][1] == "Part One"
        granted = await client.post(f"content/{ASIN}/licenserequest", body=LICENCE)
        voucher = opened(auth, granted)
        fake.fault("cdn", cut=10_000)
        target = tmp_path / "own.aaxc"
        with pytest.raises(httpx.RemoteProtocolError):
            await saved(client, address_of(granted), target)
        have = target.stat().st_size
        assert 0 < have <= 10_000
        rest = await client.session.get(address_of(granted), auth=None, headers={"Range": f"bytes={have}-"})
        assert rest.status_code == 206
        with target.open("ab") as file:
            file.write(rest.content)
        picture = await client.session.get(item["product_images"]["1215"], auth=None)
        assert picture.content.startswith(b"\xff\xd8")
        document = await client.session.get(item["pdf_url"], follow_redirects=True)
        assert document.content.startswith(b"%PDF")
        sidecar = "https://cde-ta-g7g.amazon.com/FionaCDEServiceEngine/sidecar"
        notes = await client.get(sidecar, type="AUDI", key=ASIN)
        assert notes["payload"]["key"] == ASIN
        return target, voucher

    target, voucher = with_client(auth, fetched)
    assert target.read_bytes() == shop[1].read_bytes()
    secrets = {name: bytes.fromhex(voucher[name]) for name in ("key", "iv")}
    assert decoded(target, **secrets) == decoded(shop[0])
    auth.deregister_device()
    with pytest.raises(Unauthorized, match="could not be authenticated"):
        ask(auth, "library")
    assert fake.licences == {ASIN: 1}
    assert fake.state()["registered"] == 0
    told = json.dumps(fake.state())
    assert not [secret for secret in [*fake.secrets(), auth.refresh_token] if secret in told]


def test_a_device_is_registered_by_who_began_and_only_once(fake):
    verifier, address, serial, domain = begun()
    code = code_in(fake.sign_in(address))
    for wrong in (
        (code, b"guessed", domain, serial),
        (code, verifier, domain, "0" * 40),
        ("", verifier, domain, serial),
    ):
        with pytest.raises(Exception, match="invalid or has expired"):
            register.register(*wrong)
    assert register.register(code, verifier, domain, serial)["device_info"]["device_serial_number"] == serial
    with pytest.raises(Exception, match="invalid or has expired"):
        register.register(code, verifier, domain, serial)
    assert fake.requests["register"] == 5


def test_an_older_account_signs_in_by_its_own_pages(fake):
    verifier, address, serial, domain = begun("de", with_username=True)
    made = register.register(code_in(fake.sign_in(address)), verifier, domain, serial, with_username=True)
    auth = audible.Authenticator.from_dict({**made, "locale_code": "de", "with_username": True})
    auth.refresh_access_token(force=True)
    assert fake.log == ["POST api.audible.de/auth/register", "POST api.audible.de/auth/token"]


def test_only_what_its_device_has_signed_lately_is_answered(fake):
    auth, other = signed_in(fake), signed_in(fake)
    assert ask(auth, "library")["items"]
    other.adp_token = auth.adp_token.replace("{enc:", "{enc:A")
    with pytest.raises(Unauthorized):
        ask(other, "library")

    async def tampered(client):
        request = client.session.build_request("GET", "https://api.audible.com/1.0/library?num_results=5")
        auth._apply_signing_auth_flow(request)
        request.url = request.url.copy_set_param("num_results", 6)
        return await client.session.send(request, auth=None)

    assert with_client(auth, tampered).status_code == 403
    fake.clock_ahead = timedelta(hours=3)
    with pytest.raises(Unauthorized) as caught:
        ask(auth, "library")
    told = datetime.strptime(caught.value.response.headers["date"], "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=UTC)
    assert told - datetime.now(UTC) > timedelta(hours=2)


def test_a_voucher_opens_only_with_the_device_that_asked(fake):
    auth, other = signed_in(fake), signed_in(fake)
    granted = licence(auth)
    assert opened(auth, granted)["key"] == KEY.hex()
    with pytest.raises(Exception, match=r"Failed to (parse|decode)"):
        opened(other, granted)


# --- the service: the library ------------------------------------------------------------------------------------------


def listed(auth, **query):
    """Return the titles, how many there are in all, and the state token."""
    answer = ask(auth, "library", response_callback=lambda response: response.raise_for_status(), **query)
    return (
        [item["title"] for item in answer.json()["items"]],
        int(answer.headers["total-count"]),
        answer.headers["state-token"],
    )


def test_a_large_library_comes_in_pages(fake):
    fake.many(1200)
    auth = signed_in(fake)
    pages = [listed(auth, num_results=500, page=page) for page in (1, 2, 3)]
    assert [len(titles) for titles, _, _ in pages] == [500, 500, 201]
    assert {total for _, total, _ in pages} == {1201}
    assert len({title for titles, _, _ in pages for title in titles}) == 1201
    assert fake.requests["library"] == 3


def test_a_delta_tells_what_changed_and_what_was_taken_back(fake):
    auth = signed_in(fake)
    _, _, token = listed(auth)
    assert listed(auth, state_token=token) == ([], 0, token)
    fake.add(Title(asin="B00NEW0001", title="New"))
    titles, total, later = listed(auth, state_token=token)
    assert (titles, total) == (["New"], 1)
    assert len(later) == 13
    fake.revoke("B00NEW0001")
    changed = ask(auth, "library", state_token=later)["items"]
    assert [(item["title"], item["status"]) for item in changed] == [("New", "Revoked")]
    assert listed(auth)[0] == ["The Lighthouse"]


def test_parts_and_episodes_come_by_their_parent(fake):
    fake.add(
        Title(asin="B00PARENT1", title="Long", delivery="MultiPartBook"),
        Title(asin="B00PART001", title="Long, part 1", delivery="AudioPart", parent="B00PARENT1"),
        Title(asin="B00PODCAST", title="Talk", delivery="PodcastParent"),
        Title(asin="B00EPISODE", title="Talk 1", delivery="PodcastEpisode", parent="B00PODCAST"),
    )
    auth = signed_in(fake)
    assert sorted(listed(auth)[0]) == ["Long", "Talk", "The Lighthouse"]
    assert listed(auth, parent_asin="B00PARENT1")[0] == ["Long, part 1"]
    assert listed(auth, parent_asin="B00PODCAST")[0] == ["Talk 1"]
    assert (fake.requests["library"], fake.requests["children"]) == (1, 2)


def test_each_market_and_each_customer_has_titles_of_its_own(fake):
    other = Account(owner="Bo Writer", customer="amzn1.account.OWNTESTACCOUNT2")
    fake.add(
        Title(asin="B00GERMAN1", title="Der Leuchtturm", market="de"),
        Title(asin="B00OTHER01", title="Private", owners=[other.customer]),
    )
    assert listed(signed_in(fake, "de"))[0] == ["Der Leuchtturm"]
    assert listed(signed_in(fake))[0] == ["The Lighthouse"]
    theirs = audible.Authenticator.from_dict(fake.device(account=other).identity())
    assert sorted(listed(theirs)[0]) == ["Private", "The Lighthouse"]


def test_an_item_has_only_what_was_asked_for(fake):
    auth = signed_in(fake)
    assert "authors" not in ask(auth, "library")["items"][0]
    item = ask(auth, f"library/{ASIN}", response_groups="contributors,media", image_sizes="1215")["item"]
    assert item["authors"]
    assert list(item["product_images"]) == ["1215"]
    assert "series" not in item


# --- the service: licences and transfers -------------------------------------------------------------------------------


def test_who_can_take_protected_streams_gets_them(fake):
    granted = licence(signed_in(fake), supported_drm_types=["Adrm", "Widevine"])["content_license"]
    assert granted["drm_type"] == "Widevine"
    assert "license_response" not in granted
    assert ".mpd" in json.dumps(granted)


def test_a_denied_licence_comes_with_status_200(fake):
    fake.change(ASIN, denied=["CustomerThrottled"])
    refused = licence(signed_in(fake))["content_license"]
    assert refused["status_code"] == "Denied"
    assert [reason["rejectionReason"] for reason in refused["license_denial_reasons"]] == ["CustomerThrottled"]
    assert fake.licences[ASIN] == 1


@pytest.mark.parametrize(
    "facts", [{"aaxc": None}, {"released": "2100-01-01T00:00:00+00:00"}], ids=["streaming only", "not released"]
)
def test_what_has_no_asset_is_not_found(fake, facts):
    fake.change(ASIN, **facts)
    with pytest.raises(NotFoundError) as caught:
        licence(signed_in(fake))
    assert caught.value.response.json()["error_code"] == "000307"


def test_an_episode_that_is_a_plain_mp3_comes_without_a_voucher(fake, tmp_path):
    episode = audible_layouts.podcast(tmp_path).title
    fake.add(episode)
    auth = signed_in(fake)
    granted = licence(auth, episode.asin)
    assert granted["content_license"]["drm_type"] == "Mpeg"
    assert "license_response" not in granted["content_license"]
    answer = httpx.get(address_of(granted))
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content == episode.aaxc.read_bytes()


def test_an_address_expires_by_the_clock_of_the_service(fake):
    auth = signed_in(fake)
    address = address_of(licence(auth))
    assert httpx.head(address).status_code == 200
    fake.clock_ahead = timedelta(hours=2)
    assert httpx.get(address).status_code == 403


def test_a_changed_file_has_another_tag(fake, shop):
    address = address_of(licence(signed_in(fake)))
    before = httpx.head(address).headers["etag"]
    assert httpx.get(address, headers={"Range": "bytes=5-9"}).content == shop[1].read_bytes()[5:10]
    fake.change(ASIN, edition=2)
    assert httpx.head(address).headers["etag"] != before
    changed = httpx.get(address, headers={"Range": "bytes=5-", "If-Range": before})
    assert (changed.status_code, changed.content) == (200, shop[1].read_bytes())
    assert httpx.get(address, headers={"Range": "bytes=99999999-"}).status_code == 416


def test_the_older_route_leads_to_an_aax(fake, shop):
    async def fetched(client):
        place = "https://cde-ta-g7g.amazon.com/FionaCDEServiceEngine/FSDownloadContent"
        query = {"type": "AUDI", "currentTransportMethod": "WIFI", "key": ASIN, "codec": "LC_64_22050_stereo"}
        return await client.session.head(place, params=query)

    answer = with_client(signed_in(fake), fetched)
    assert answer.status_code == 302
    assert httpx.get(answer.headers["location"]).content == shop[2].read_bytes()


# --- the service: when things go wrong ---------------------------------------------------------------------------------


def test_faults_come_as_often_as_they_were_ordered_and_in_order(fake):
    auth = signed_in(fake)
    fake.fault("library", status=429, retry_after=7, times=2)
    fake.fault("library", status=503)
    fake.fault("licence", status=403, message=ABOVE_THRESHOLD)
    for _ in range(2):
        with pytest.raises(RatelimitError) as caught:
            ask(auth, "library")
        assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(ServerError):
        ask(auth, "library")
    assert ask(auth, "library")["items"]
    with pytest.raises(Unauthorized, match="above threshold"):
        licence(auth)


def test_html_and_silence_come_as_they_do_from_broken_gateways(fake):
    auth = signed_in(fake)
    fake.fault("library", html=True)
    fake.fault("metadata", drop=True)
    assert ask(auth, "library").startswith("<html>")
    with pytest.raises(audible.exceptions.RequestError):
        ask(auth, f"content/{ASIN}/metadata")
    fake.fault("cdn", content_type="text/html")
    assert httpx.head(address_of(licence(auth))).headers["content-type"] == "text/html"


def test_a_registration_ended_elsewhere_ends_its_tokens_too(fake):
    auth = signed_in(fake)
    fake.deregister()
    with pytest.raises(Unauthorized):
        ask(auth, "library")
    with pytest.raises(httpx.HTTPStatusError):
        auth.refresh_access_token(force=True)


def test_what_is_held_waits_and_shows_how_many_ask_at_once(fake):
    auths = [signed_in(fake), signed_in(fake)]
    fake.hold("licence")
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(licence, auth) for auth in auths]
        fake.wait_held(2)
        assert not any(answer.done() for answer in answers)
        fake.release()
        assert [answer.result()["content_license"]["status_code"] for answer in answers] == ["Granted"] * 2
    assert fake.busiest["licence"] == 2
    licence(auths[0])
    assert fake.state()["held"] == []


def test_a_mistake_of_the_fake_is_told_when_it_ends(tmp_path):
    fake = FakeAudible(Title(aaxc=tmp_path / "missing.aaxc"))
    with pytest.raises(FileNotFoundError), fake, all_to(fake.port), pytest.raises(audible.exceptions.RequestError):
        licence(signed_in(fake))


# --- other processes ---------------------------------------------------------------------------------------------------

_DOWNLOADS = """
import asyncio, json, sys, audible
auth = audible.Authenticator.from_dict(json.load(sys.stdin))
async def main():
    async with audible.AsyncClient(auth) as client:
        granted = await client.post(sys.argv[1], body=json.loads(sys.argv[2]))
        address = granted["content_license"]["content_metadata"]["content_url"]["offline_url"]
        async with client.session.stream("GET", address, auth=None) as answer:
            with open(sys.argv[3], "wb") as file:
                async for piece in answer.aiter_bytes():
                    file.write(piece)
                    file.flush()
                    print("some", flush=True)
asyncio.run(main())
"""


def other_process(port, *words):
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    return subprocess.Popen(
        [sys.executable, *words],
        env=kept | environment(port, PACKAGE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_another_process_finds_the_fake_and_may_die_in_the_middle(shop, tmp_path):
    plain = plain_book(tmp_path / "plain.m4b", 8.0, times=20)
    aaxc = lock_aaxc(plain, tmp_path / "own.aaxc")
    with FakeAudible(Title(aaxc=aaxc)) as fake, ExitStack() as ends:
        fake.hold("cdn", after=400_000)
        target = tmp_path / "fetched"
        words = ("-c", _DOWNLOADS, f"content/{ASIN}/licenserequest", json.dumps(LICENCE), str(target))
        process = ends.enter_context(other_process(fake.port, *words))
        ends.callback(process.kill)
        json.dump(fake.device().identity(), process.stdin)
        process.stdin.close()
        fake.wait_held()
        assert process.stdout.readline() == "some\n"
        process.kill()
        process.wait()
        assert 0 < target.stat().st_size <= 400_000
        fake.release()
        with all_to(fake.port):
            rest = httpx.get(address_of(licence(signed_in(fake))), headers={"Range": "bytes=400000-"})
        assert rest.content == aaxc.read_bytes()[400_000:]
        assert fake.licences == {ASIN: 2}


def test_another_process_orders_faults_and_reads_the_counts(fake):
    here = f"http://127.0.0.1:{fake.port}/__fake__"
    httpx.post(f"{here}/fault", json={"route": "library", "status": 503}).raise_for_status()
    with pytest.raises(ServerError):
        ask(signed_in(fake), "library")
    httpx.post(f"{here}/change", json={"asin": ASIN, "denied": ["CustomerThrottled"]}).raise_for_status()
    assert fake.titles[ASIN].denied == ["CustomerThrottled"]
    assert httpx.get(f"{here}/state").json()["requests"] == {"library": 1}
    assert httpx.post(f"{here}/secrets").status_code == 404
    assert httpx.post(f"{here}/fault", json={"route": "nowhere"}).status_code == 400


def test_no_request_goes_to_any_other_machine(fake):
    with pytest.raises(httpx.ConnectError, match="can't be reached from a test"):
        httpx.get("https://example.org/")
    done = other_process(fake.port, "-c", "import httpx; httpx.get('https://pypi.org/')")
    talk, _ = done.communicate(timeout=30)
    assert "pypi.org can't be reached from a test" in talk
