"""Do names go through JSON without loss, whatever bytes they are?"""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from aiom4b.control.schemas.names import GivenName, all_exactly, all_readable, exactly, shown

ADAPTER = TypeAdapter(GivenName)
NAMES = some.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name).map(os.fsdecode)


@given(NAMES)
def test_a_name_comes_back_from_what_is_told_of_it(name):
    exact = exactly(name)
    told = json.loads(json.dumps({"name_b64": exact} if exact else shown(name), ensure_ascii=False).encode())
    assert ADAPTER.validate_python(told) == name


@given(NAMES)
def test_a_name_that_python_wrote_as_json_is_taken_too(name):
    assert ADAPTER.validate_python(json.loads(json.dumps(name))) == name


@pytest.mark.parametrize("name", ["plain", "\u00e9 \U0001f4d6", "\u05e9\u05dc\u05d5\u05dd"])
def test_a_name_that_can_be_shown_needs_nothing_else(name):
    assert exactly(name) is None
    assert exactly(None) is None


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "\x1b[2J", "a\u202eb"])
def test_a_name_that_can_not_be_shown_as_it_is_has_its_bytes_beside_it(name):
    assert base64.b64decode(exactly(name)) == os.fsencode(name)
    assert all_exactly(["plain", name]) == [base64.b64encode(os.fsencode(one)).decode() for one in ("plain", name)]
    shown(name).encode()


@pytest.mark.parametrize(
    "given",
    ["", "a\0b", "\ud800", 7, None, [], {}, {"name_b64": "%"}, {"name_b64": 7}, {"name_b64": ""}, {"name": "x"},
     {"name_b64": "AA=="}, {"name_b64": "YQ==", "more": 1}, "x" * 4097],
)  # fmt: skip
def test_what_can_be_no_name_is_refused(given):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(given)


def test_no_text_below_is_forgotten():
    assert all_readable({"a\udcff": ["\udcff", ("x\ny", 1, None, {"b": "\x1b"})]}) == {
        "a\\xff": ["\\xff", ["x\ny", 1, None, {"b": "\\x1b"}]]
    }
