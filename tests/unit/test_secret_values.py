"""Does a value that holds a secret keep it to itself, and do the libraries, when all is told that there is to tell?"""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import anyio
import pytest
import structlog

import factories
from aiom4b import logs, redaction
from aiom4b.account import vouchers
from aiom4b.account.keys import Keys
from aiom4b.adapters.audible_api import connection, identity, signin, storage
from aiom4b.adapters.audible_api.connection import Answer
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.licences import Licence
from aiom4b.adapters.audible_api.session import LibraryPage, Session
from aiom4b.adapters.sidecars import FoundKey
from aiom4b.config import Settings
from aiom4b.control.schemas.audible import FinishRequest, ImportRequest
from aiom4b.engine.copying import CopyRequest, Part
from aiom4b.engine.mux import MuxRequest, Piece
from aiom4b.engine.unlock import tried
from aiom4b.jobs.title import Asin, Profile
from aiom4b.models import AudibleKey, Codec, Lock
from aiom4b.steps.unlock import Unlocked
from audible_account import Account, Device
from canaries import Canaries
from fake_audible import FakeAudible, Title, all_to

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = AudibleKey(key="8f1d5a0c7be24936a15c3e90d27f6b48", iv="27c49be8135f0da6e29a714db85c03f6")
BYTES = AudibleKey(activation_bytes="5ec4e7b1")
ADDRESS = "https://own.cloudfront.net/own.aaxc?Expires=1&Signature=5ec4e7-signature"
CODE = "OWNCODE5ec4e7code"
WORD = "own-5ec4e7-password"
DEVICE = Device(account=Account(), serial="5ec4e7" * 7)
DOCUMENT = {"content_license": {"license_response": {"key": KEY.key, "iv": KEY.iv}}}
PART = Part(path="a.aaxc", first=0, stop=9, key=KEY)
PIECE = Piece(path="a.aaxc", packets=9, ours=False, key=KEY)
LICENCE = Licence(
    asin="B00AIOM4B1",
    kind="aaxc",
    content_format="AAX_44_128",
    address=ADDRESS,
    expires=NOON,
    size=9,
    voucher=DOCUMENT,
    pdf=f"{ADDRESS}&pdf",
    chapter_info=None,
)
VOUCHER = vouchers.Voucher(
    asin=Asin("B00AIOM4B1"),
    profile=Profile("main"),
    kind="aaxc",
    format="AAX_44_128",
    address=ADDRESS,
    expires=NOON,
    asked=NOON,
    size=9,
    pdf=f"{ADDRESS}&pdf",
    chapters=None,
    document=DOCUMENT,
)
MUX = MuxRequest(
    folder="/work",
    name="a.m4b",
    pieces=(PIECE,),
    stretches=(range(9),),
    encoder=None,
    sample_rate=44100,
    block=1024,
    priming=1024,
    samples=8192,
    chapters=(),
)


def signed_in():
    return Identity.of(DEVICE.identity()).with_activation_bytes(BYTES.activation_bytes)


VALUES = {
    "Identity": signed_in,
    "PendingSignIn": lambda: replace(signin.begin("us", with_username=False, now=NOON), code_verifier=CODE),
    "Licence": lambda: LICENCE,
    "Voucher": lambda: VOUCHER,
    "AudibleKey": lambda: (KEY, BYTES),
    "FoundKey": lambda: FoundKey(path="a.key", lock=Lock.AAXC, asin="", key=KEY),
    "Part": lambda: PART,
    "CopyRequest": lambda: CopyRequest(parts=(PART,), stretches=(9,), audio=factories.audio_facts(codec=Codec.AAC)),
    "Piece": lambda: PIECE,
    "MuxRequest": lambda: MUX,
    "Unlocked": lambda: Unlocked(keys={"a.aaxc": KEY}, from_ring=frozenset({"a.aaxc"})),
    "a task of a worker": lambda: partial(tried, "a.aaxc", factories.audio_facts(codec=Codec.AAC), (KEY, BYTES)),
    "Settings": lambda: Settings(
        audible={"password": WORD, "activation_bytes": "5ec4e7b1"}, api={"key": f"key {WORD}"}
    ),
    "FinishRequest": lambda: FinishRequest(address=f"{ADDRESS}&code={CODE}"),
    "ImportRequest": lambda: ImportRequest(document=f'{{"key": "{KEY.key}"}}', password=WORD),
    "Answer": lambda: Answer(status=200, headers={"x": WORD}, body=KEY.key.encode()),
    "LibraryPage": lambda: LibraryPage(items=({"pdf_url": ADDRESS},), total=1, left_out=0, state_token="1"),
}
"""What holds secrets and can be sent to another process, by name."""
OBJECTS = {
    "Session": lambda: Session(signed_in()),
    "Keys": lambda: Keys(VALUES["Settings"]),
}


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def canaries():
    found = Canaries()
    found.add("key", KEY.key, KEY.iv, BYTES.activation_bytes)
    found.add("address", "5ec4e7-signature")
    found.add("word", CODE, WORD, DEVICE.serial, *DEVICE.secrets())
    return found


def shown(value):
    """Return all that Python says of a value: its texts, and the errors and tracebacks that it appears in."""
    said = [repr(value), str(value), f"{value}", repr([value]), repr({"a": value})]
    for misuse in (
        lambda value: pickle.dumps((value, lambda: 0)),
        lambda value: value.nothing_of_that_name,
        lambda value: value < 1,
        lambda value: value(),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, its text counts
            misuse(value)
        said += [str(caught.value), repr(caught.value)]
        said += traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    return "\n".join(said).encode()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_says_nothing_of_the_secret_in_it(canaries, name):
    value = VALUES[name]()
    assert canaries.found_in(pickle.dumps(value)), "there is no secret in it"
    assert canaries.found_in(shown(value)) == set()


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_says_nothing_of_the_secret_in_it(canaries, name):
    assert canaries.found_in(shown(OBJECTS[name]())) == set()


def test_settings_that_are_refused_say_nothing_of_what_was_given(canaries):
    for wrong in ({"audible": {"pasword": WORD}}, {"audible": {"activation_bytes": KEY.key}}, {"api": {"key": [WORD]}}):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - pydantic's own, of any kind
            Settings.model_validate(wrong)
        assert canaries.found_in("".join(traceback.format_exception(caught.value)).encode()) == set()


# --- what libraries tell -----------------------------------------------------------------------------------------------


def told_at_debug(tmp_path, canaries):
    """Return what is logged while somebody signs in, asks for everything and signs out, with asyncio's debugging on."""
    audio = tmp_path / "own.aaxc"
    audio.write_bytes(bytes(5000))
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("aiom4b").level
    levels = {name: logging.getLogger(name).level for name in ("audible", "httpx", "httpcore")}

    async def everything(signed):
        async with Session(signed) as session:
            await session.library(page=1)
            licence = await session.licence("B00AIOM4B1", "high")
            await session.activation_bytes()
            await session.transfer(licence.address, str(tmp_path / "a"), expected=5000, on_bytes=lambda *_: None)
            return licence

    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logs.configure("debug", "json", stream)
        with FakeAudible(Title(aaxc=audio)) as fake, all_to(fake.port):
            pending = signin.begin("us", with_username=False, now=NOON)
            signed = signin.finish(pending, fake.sign_in(pending.url), NOON)
            canaries.add("verifier", pending.code_verifier)
            canaries.add("token", *fake.secrets())
            licence = anyio.run(everything, signed, backend_options={"debug": True})
            signin.deregister(signed)
            canaries.add("address", licence.address)
            canaries.add("token", *fake.secrets())
    finally:
        root.handlers[:], level, ours = before
        root.setLevel(level)
        logging.getLogger("aiom4b").setLevel(ours)
        structlog.reset_defaults()
        for name, one in levels.items():
            logging.getLogger(name).setLevel(one)
    return stream.getvalue().encode()


def test_what_speaks_to_audible_says_nothing_at_debug(tmp_path, canaries, monkeypatch):
    monkeypatch.setattr(redaction, "redact", lambda text: text)  # so that only the libraries' own silence counts
    told = told_at_debug(tmp_path, canaries)
    assert b'"logger": "asyncio"' in told
    assert canaries.found_in(told) == set()


def test_the_search_would_find_what_they_said_if_nobody_kept_them_quiet(tmp_path, canaries, monkeypatch):
    for module in (connection, identity, signin, storage):
        monkeypatch.setattr(module, "quieten", lambda: None)
    monkeypatch.setattr(redaction, "redact", lambda text: text)
    assert {"address", "token"} <= canaries.found_in(told_at_debug(tmp_path, canaries))
