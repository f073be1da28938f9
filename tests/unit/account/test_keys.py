"""Is an account that can't tell its activation bytes left alone for a while, and asked again in time?"""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from aiom4b.account.keys import Keys
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.config import Settings
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.title import Profile
from aiom4b.models import Lock
from fake_audible import FakeAudible

MAIN = Profile("main")


class Audible:
    """Counts how often it is asked for activation bytes; ``answer`` is an error, or they."""

    def __init__(self):
        self.asked = 0
        self.answer = NeedsAttention("audible.unauthorized", "No.", remedy="Sign in.")

    def __call__(self, _identity):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def activation_bytes(self):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(scope="module")
def devices():
    fake = FakeAudible()
    made = [Identity.of(fake.device("us").identity()) for _ in range(2)]
    fake._server.server_close()
    return made


@pytest.fixture
def audible():
    return Audible()


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def keys(tmp_path, audible, clock, devices):
    settings = Settings.model_validate({"paths": {"state": str(tmp_path)}})
    made = Keys(lambda: settings, sessions=audible, monotonic=lambda: clock[0])
    made.profiles.save(MAIN, devices[0])
    return made


def found(keys):
    return [key.activation_bytes for _, key in anyio.run(keys.keys, Lock.AAX, "")]


def test_files_that_wait_for_a_key_do_not_ask_a_deregistered_account_again_and_again(keys, audible, clock):
    for _ in range(20):
        assert found(keys) == []
        clock[0] += 15
    assert audible.asked == 1
    clock[0] += 3600
    assert found(keys) == []
    assert audible.asked == 1  # it stays so until somebody signs in anew
    clock[0] += 6 * 3600
    audible.answer = "1a2b3c4d"
    assert found(keys) == ["1a2b3c4d"]
    assert audible.asked == 2


def test_an_outage_is_over_sooner(keys, audible, clock):
    audible.answer = Transient("audible.server", "Not now.", remedy="Wait.")
    assert found(keys) == found(keys) == []
    clock[0] += 901
    audible.answer = "1a2b3c4d"
    assert found(keys) == ["1a2b3c4d"]
    assert audible.asked == 2


def test_a_damaged_sign_in_is_not_told_at_every_look_and_a_good_one_serves_at_once(
    keys, audible, clock, devices, tmp_path
):
    (tmp_path / "audible" / "main.json").write_text("{")
    with capture_logs() as told:
        for _ in range(120):
            assert found(keys) == []
            clock[0] += 15
    assert [line["event"] for line in told] == ["account.no_activation_bytes"] * 2  # in half an hour
    assert audible.asked == 0
    keys.profiles.save(MAIN, devices[0])
    audible.answer = "1a2b3c4d"
    assert found(keys) == ["1a2b3c4d"]


def test_a_new_sign_in_is_asked_at_once(keys, audible, devices):
    assert found(keys) == []
    keys.profiles.save(MAIN, devices[1])
    audible.answer = "1a2b3c4d"
    assert found(keys) == ["1a2b3c4d"]


def test_what_an_account_has_told_is_kept_with_its_sign_in(keys, audible):
    audible.answer = "1a2b3c4d"
    assert found(keys) == found(keys) == ["1a2b3c4d"]
    assert audible.asked == 1
    assert keys.profiles.load(MAIN).activation_bytes == "1a2b3c4d"
