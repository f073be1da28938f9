"""Does a licence survive with all that it takes to go on, for nobody else to see?"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aiom4b import redaction
from aiom4b.account.vouchers import Voucher, Vouchers
from aiom4b.jobs.title import Asin, Profile
from aiom4b.models import AudibleKey

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASIN = Asin("B00AIOM4B1")
KEY, IV = "0123456789ABCDEF" * 2, "fedcba9876543210" * 2
VOUCHER = Voucher(
    asin=ASIN,
    profile=Profile("main"),
    kind="aaxc",
    format="AAX_44_128",
    address="https://own.cloudfront.net/bk/own.aaxc?Expires=1&Signature=own-signature",
    expires=NOON + timedelta(hours=1),
    asked=NOON,
    size=1000,
    pdf="https://www.audible.com/companion-file/own-document",
    chapters={"chapters": []},
    document={"content_license": {"asin": ASIN, "license_response": {"key": KEY, "iv": IV, "rules": []}}},
)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def vouchers(tmp_path):
    return Vouchers(str(tmp_path / "audible" / "vouchers"))


def path_of(tmp_path):
    return tmp_path / "audible" / "vouchers" / f"{ASIN}.voucher"


def test_what_is_stored_comes_back_whole(vouchers):
    vouchers.store(VOUCHER)
    assert vouchers.of(ASIN) == VOUCHER
    other = replace(VOUCHER, kind="aax", expires=None, size=None, chapters=None, document={})
    vouchers.store(other)
    assert vouchers.of(ASIN) == other


def test_only_we_may_read_it_even_where_the_folder_was_open_before(vouchers, tmp_path):
    folder = tmp_path / "audible" / "vouchers"
    os.makedirs(folder, 0o777)
    vouchers.store(VOUCHER)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, path_of(tmp_path))] == [0o700, 0o600]


def test_neither_a_repr_nor_a_log_shows_what_is_secret_in_it(vouchers):
    vouchers.store(VOUCHER)
    redaction._secrets.clear()
    found = vouchers.of(ASIN)
    for secret in (KEY, IV, "own-signature", "own-document"):
        assert secret not in repr(found)
    assert (
        redaction.redact(f"<{found.address} {found.key.key} {found.key.iv} {found.pdf}>")
        == "<[redacted] [redacted] [redacted] [redacted]>"
    )


def test_the_key_is_what_the_reply_says_and_hex(vouchers):
    assert VOUCHER.key == AudibleKey(key=KEY.lower(), iv=IV)
    for reply in ({"key": KEY}, {"key": KEY, "iv": "x" * 32}, {"key": KEY[:-1], "iv": IV}, "sealed", None):
        assert replace(VOUCHER, document={"content_license": {"license_response": reply}}).key is None
    assert replace(VOUCHER, document={}).key is None


def test_an_address_serves_until_shortly_before_it_expires(vouchers):
    assert VOUCHER.serves(NOON + timedelta(minutes=49))
    assert not VOUCHER.serves(NOON + timedelta(minutes=50))
    assert replace(VOUCHER, expires=None).serves(NOON + timedelta(days=9))
    assert not VOUCHER.without_address().serves(NOON)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"aiom4b": 1}', b'{"aiom4b": {"v": 2}}'])
def test_a_file_that_nobody_understands_is_no_voucher(content, vouchers, tmp_path):
    vouchers.store(VOUCHER)
    path_of(tmp_path).write_bytes(content)
    assert vouchers.of(ASIN) is None


def test_a_name_that_is_no_asin_leads_nowhere(vouchers, tmp_path):
    vouchers.store(VOUCHER)
    (tmp_path / "audible" / "OUTSIDE123.voucher").write_bytes(path_of(tmp_path).read_bytes())
    assert vouchers.of("../OUTSIDE123") is None
    assert vouchers.of("") is None
    assert vouchers.of(ASIN + "\n") is None
