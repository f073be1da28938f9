"""Is a book ever taken before it is complete? A fixed sample of what the soak command does at any length."""

from __future__ import annotations

from benchmarks.soak import soak
from drops import METHODS


def test_slow_copies_of_every_kind_are_never_taken_before_they_are_complete(tmp_path):
    result = soak(str(tmp_path), copies=30, seed=7, settle=0.5, at_once=30)
    assert result.wrong == []
    assert result.taken == 30
    assert set(result.by_method) == set(METHODS) - {"real rsync"}
