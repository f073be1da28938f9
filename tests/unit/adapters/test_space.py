"""Is space promised only once?"""

from __future__ import annotations

import os

import pytest

from aiom4b.adapters.space import SpaceLedger, Volume, kept_free, volume
from aiom4b.errors import Transient

MIB = 1 << 20
GIB = 1 << 30


def of(available, device=1, size=100 * GIB):
    return Volume(device=device, available=available, size=size)


@pytest.mark.parametrize(
    ("size", "kept"),
    [(10 * GIB, 256 * MIB), (100 * GIB, GIB), (2 * MIB, 2 * MIB // 20), (5 * GIB, 256 * MIB)],
)
def test_some_space_is_never_used_up_and_tiny_file_systems_stay_usable(size, kept):
    assert kept_free(of(0, size=size)) == kept


def test_what_is_promised_to_one_is_not_promised_to_another():
    ledger = SpaceLedger(lambda _: of(GIB + 100))
    with ledger.reserve("/a", 70):
        with pytest.raises(Transient) as caught, ledger.reserve("/b", 40):
            pytest.fail("promised twice")
        assert caught.value.code == "space.full"
        assert "10 more are needed" in caught.value.reason
        with ledger.reserve("/b", 30):
            pass
    with ledger.reserve("/b", 100):
        pass


def test_a_promise_ends_with_the_work_that_failed():
    ledger = SpaceLedger(lambda _: of(GIB + 100))
    with pytest.raises(ZeroDivisionError), ledger.reserve("/a", 100):
        raise ZeroDivisionError
    with ledger.reserve("/a", 100):
        pass


def test_file_systems_are_counted_apart():
    ledger = SpaceLedger(lambda path: of(GIB + 100, device=len(path)))
    with ledger.reserve("/a", 100), ledger.reserve("/bb", 100):
        pass


def test_a_file_system_that_does_not_tell_its_size_refused_every_book(tmp_path, monkeypatch):
    def of_blocks(number):
        return lambda _: os.statvfs_result((4096, 4096, number, number, number, 0, 0, 0, 0, 255))

    ledger = SpaceLedger()
    monkeypatch.setattr(os, "statvfs", of_blocks(0))
    with ledger.reserve(str(tmp_path), 900 * MIB), ledger.reserve(str(tmp_path), MIB):
        monkeypatch.setattr(os, "statvfs", of_blocks(GIB // 4096))
        with pytest.raises(Transient) as caught, ledger.reserve(str(tmp_path), 100 * MIB):
            pytest.fail("what was promised before was forgotten")
        assert f"{901 * MIB} of them set aside" in caught.value.reason


def test_a_path_to_be_made_counts_on_the_file_system_it_will_lie_on(tmp_path):
    found = volume(str(tmp_path / "not" / "yet" / "there"))
    assert found.device == os.stat(tmp_path).st_dev
    assert 0 <= found.available <= found.size
