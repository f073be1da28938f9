"""Are sign-ins kept so that nobody else reads them, and others' files understood or refused in plain words?"""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from datetime import UTC, datetime

import pytest
from audible.aescipher import AESCipher

from aiom4b import redaction
from aiom4b.adapters import files
from aiom4b.adapters.audible_api import signin, storage
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.errors import NeedsAttention
from audible_account import Account, Device

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SEALED = {"Value": "AAAA", "IsEncrypted": True}


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def document():
    return Device(account=Account(), serial="0" * 40).identity()


@pytest.fixture
def identity(document):
    return Identity.of(document, registered=NOON)


def code_of(call, *args, **kwargs):
    with pytest.raises(NeedsAttention) as caught:
        call(*args, **kwargs)
    assert caught.value.remedy.endswith((".", "`."))
    return caught.value.code


@pytest.mark.parametrize("password", [None, "own password"])
def test_what_was_saved_is_loaded(tmp_path, identity, password):
    path = str(tmp_path / "main.json")
    storage.save(path, identity.with_activation_bytes("1a2b3c4d"), password)
    loaded = storage.load(path, password)
    assert loaded == identity.with_activation_bytes("1a2b3c4d")
    assert (loaded.registered, loaded.activation_bytes) == (NOON, "1a2b3c4d")
    assert storage.is_encrypted(path) == bool(password)
    if password:
        assert b"adp_token" not in (tmp_path / "main.json").read_bytes()


def test_a_password_costs_who_guesses_it_as_much_as_the_format_allows(tmp_path, identity):
    path = tmp_path / "main.json"
    storage.save(str(path), identity, "own password")
    salt = base64.b64decode(json.loads(path.read_text())["salt"])
    assert int.from_bytes(salt[1:3], "big") == 65535


def test_no_other_user_can_read_a_sign_in_at_any_moment(tmp_path, identity, monkeypatch):
    seen = []
    create = files.create

    def watched(path, mode=0o666):
        descriptor = create(path, mode)
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(files, "create", watched)
    before = os.umask(0)
    try:
        for _ in range(2):  # also in place of an older one
            storage.save(str(tmp_path / "main.json"), identity, None)
        storage.save_pending(str(tmp_path / "main.pending.json"), signin.begin("us", with_username=False, now=NOON))
    finally:
        os.umask(before)
    assert seen == [0o600] * 3
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600] * 2


def test_a_wrong_or_missing_password_is_told(tmp_path, identity):
    path = str(tmp_path / "main.json")
    storage.save(path, identity, "own password")
    assert code_of(storage.load, path, None) == "authfile.encrypted"
    assert code_of(storage.load, path, "wrong password") == "authfile.wrong_password"


def test_one_wrong_password_in_256_leaves_a_padding_that_looks_right(monkeypatch, identity):
    sealed = json.dumps(AESCipher("own").to_dict(json.dumps(identity.document()))).encode()
    for garbage in ("\x00\x17garbage", "{", "[" * 100_000):
        monkeypatch.setattr(AESCipher, "from_dict", lambda *_, garbage=garbage: garbage)
        assert code_of(storage.imported, sealed, "own", country=None) == "authfile.wrong_password"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"{}",
        b"[]",
        b"null",
        b"\x00" * 64,
        b'{"Accounts": 3}',
        b'{"access_token": "x"}',
        b"$\x00\x00$" + b"x" * 29,  # no whole blocks
        b"[" * 200_000,
        b"x" * 5_000_000,
        json.dumps({"salt": 1, "iv": 2, "ciphertext": 3}).encode(),
    ],
)
def test_what_is_no_sign_in_is_refused(data):
    assert code_of(storage.imported, data, "password", country=None) == "authfile.unknown"


@pytest.mark.parametrize(
    "change",
    [
        {"adp_token": None},
        {"adp_token": "{enc:x}"},
        {"adp_token": 7},
        {"device_private_key": None},
        {"device_private_key": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"},
        {"device_private_key": 7},
        {"access_token": "no token"},
        {"device_info": None},
        {"device_info": {"device_type": "own"}},
        {"customer_info": {}},
        {"website_cookies": {"own": 7}},
        {"expires": "never"},
    ],
)
def test_a_sign_in_that_can_not_be_used_is_refused_without_showing_it(document, change):
    with pytest.raises(NeedsAttention) as caught:
        storage.imported(json.dumps(document | change).encode(), None, country=None)
    assert caught.value.code == "authfile.incomplete"
    assert "Atna|" not in repr(caught.value)


@pytest.mark.parametrize("between", ["", "\\n", "\r\n", " "])
def test_a_key_whose_line_breaks_were_lost_is_mended(document, between):
    whole = document["device_private_key"]
    data = json.dumps(document | {"device_private_key": whole.strip().replace("\n", between)}).encode()
    assert storage.imported(data, None, country=None).document()["device_private_key"] == whole


def test_a_file_that_is_far_too_large_is_not_looked_into(document):
    data = json.dumps(document | {"own": "x" * storage.LARGEST}).encode()
    assert code_of(storage.imported, data, None, country=None) == "authfile.unknown"


def test_a_file_decides_nothing_but_who_signs_in(document, tmp_path):
    strange = document | {"filename": str(tmp_path / "taken"), "encryption": "json", "crypter": 1, "own": [1]}
    identity = storage.imported(json.dumps(strange).encode(), None, country=None)
    assert not {"filename", "encryption", "crypter", "own"} & identity.document().keys()
    assert identity.authenticator().filename is None


def test_a_file_without_a_marketplace_takes_the_one_that_is_named(document):
    del document["locale_code"]
    data = json.dumps(document).encode()
    assert storage.imported(data, None, country="DE").country == "de"
    assert code_of(storage.imported, data, None, country=None) == "signin.country"
    assert code_of(storage.imported, data, None, country="xx") == "signin.country"


def test_what_is_asked_of_an_identity_does_not_wear_it_out(identity):
    before = identity.document()
    identity.authenticator()
    identity.document().clear()
    assert identity.document() == before


def test_times_that_are_none_are_not_known(document):
    for expires in (1e300, None):
        assert Identity.of(document | {"expires": expires}).token_expires is None
    assert Identity.of(document | {"aiom4b": {"registered": "once"}}).registered is None
    assert Identity.of(document | {"aiom4b": 7}).registered is None


def test_activation_bytes_that_are_none_are_forgotten(document):
    assert Identity.of(document | {"activation_bytes": "1A2B3C4D"}).activation_bytes == "1a2b3c4d"
    for wrong in ("", "xyz", 7, "1a2b3c4d5e"):
        assert Identity.of(document | {"activation_bytes": wrong}).activation_bytes == ""


# --- Libation ---------------------------------------------------------------------------------------------------------


def account(document, locale="us", **tokens):
    found = {
        "LocaleName": locale,
        "ExistingAccessToken": {"TokenValue": document["access_token"], "Expires": "2026-11-21T13:00:00Z"},
        "PrivateKey": {"Value": document["device_private_key"]},
        "AdpToken": {"Value": document["adp_token"]},
        "RefreshToken": {"Value": document["refresh_token"]},
        "DeviceSerialNumber": "0" * 40,
        "DeviceType": "A2CZJZGLK2JJVM",
        "AmazonAccountId": "amzn1.account.OWN",
        "DeviceName": "Own device",
        "StoreAuthenticationCookie": "own",
        "Cookies": [],
    }
    return {"AccountName": "Ada", "DecryptKey": "1A2B3C4D", "IdentityTokens": found | tokens}


def settings(*accounts):
    return json.dumps({"Accounts": list(accounts)}).encode()


def test_an_account_of_libation_becomes_ours(document):
    identity = storage.imported(settings(account(document, "pre-amazon - germany")), None, country=None)
    assert (identity.country, identity.owner, identity.device) == ("de", "Ada", "Own device")
    assert identity.activation_bytes == "1a2b3c4d"
    assert identity.token_expires == datetime(2026, 11, 21, 13, tzinfo=UTC)
    assert identity.document()["with_username"] is True


def test_of_several_accounts_of_libation_the_country_chooses(document):
    both = settings(account(document, "us"), account(document, "germany"), {"IdentityTokens": None})
    assert code_of(storage.imported, both, None, country=None) == "authfile.several"
    assert storage.imported(both, None, country="de").country == "de"
    assert code_of(storage.imported, both, None, country="fr") == "authfile.none"
    twice = settings(account(document), account(document))
    assert code_of(storage.imported, twice, None, country="us") == "authfile.several"
    assert code_of(storage.imported, settings(), None, country=None) == "authfile.none"


@pytest.mark.parametrize(
    "tokens",
    [
        {"AdpToken": SEALED},
        {"PrivateKey": SEALED},
        {"ExistingAccessToken": {"TokenValue": "x", "IsEncrypted": True}},
        {"Cookies": [{"Key": "x-main", "Value": SEALED}]},
    ],
)
def test_tokens_that_libation_sealed_are_not_taken_for_tokens(document, tokens):
    assert code_of(storage.imported, settings(account(document, **tokens)), None, country=None) == "authfile.encrypted"


@pytest.mark.parametrize(
    "tokens", [{"AdpToken": None}, {"PrivateKey": None}, {"DeviceSerialNumber": None}, {"AmazonAccountId": None}]
)
def test_an_account_of_libation_that_lacks_something_is_refused(document, tokens):
    assert code_of(storage.imported, settings(account(document, **tokens)), None, country=None) == "authfile.incomplete"


# --- between the two steps --------------------------------------------------------------------------------------------


def test_a_sign_in_waits_for_its_second_step_over_a_restart(tmp_path):
    path = str(tmp_path / "main.pending.json")
    pending = signin.begin("us", with_username=False, now=NOON)
    storage.save_pending(path, pending)
    redaction._secrets.clear()
    assert storage.load_pending(path) == pending
    assert pending.code_verifier not in redaction.redact(pending.code_verifier)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"v": 2}', b'{"v": 1, "began": "x"}', b'{"v": 1, "began": "2026-11-21"}']
)
def test_a_sign_in_that_can_not_be_read_has_to_be_begun_again(tmp_path, data):
    path = tmp_path / "main.pending.json"
    path.write_bytes(data)
    assert code_of(storage.load_pending, str(path)) == "signin.not_begun"


def test_no_sign_in_waits_where_none_was_begun(tmp_path):
    assert code_of(storage.load_pending, str(tmp_path / "none.json")) == "signin.not_begun"
    assert code_of(storage.load, str(tmp_path / "none.json"), None) == "file.missing"


def test_a_pipe_is_no_sign_in(tmp_path):
    os.mkfifo(tmp_path / "main.json")
    done = []
    thread = threading.Thread(
        target=lambda: done.append(code_of(storage.load, str(tmp_path / "main.json"), None)), daemon=True
    )
    thread.start()
    thread.join(10)
    assert done == ["file.not_regular"]
