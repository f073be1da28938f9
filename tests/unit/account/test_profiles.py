"""Are the sign-ins kept apart, private, and whole?"""

from __future__ import annotations

import os
import stat

import pytest

from aiom4b.account.profiles import Profiles, checked
from aiom4b.adapters.audible_api import signin
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.title import Profile
from aiom4b.models import now
from fake_audible import FakeAudible

MAIN, OTHER = Profile("main"), Profile("other-2_B")


@pytest.fixture(scope="module")
def identities():
    """Return the sign-ins of two devices."""
    fake = FakeAudible()
    made = [Identity.of(fake.device(market).identity()) for market in ("de", "uk")]
    fake._server.server_close()
    return made


@pytest.fixture
def profiles(tmp_path):
    return Profiles(str(tmp_path / "state" / "audible"), None)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_sign_in_comes_back_under_its_name_and_nobody_else_can_read_it(profiles, identities, tmp_path):
    assert profiles.names() == ()
    for profile, identity in zip((OTHER, MAIN), identities, strict=True):
        profiles.save(profile, identity)
    assert profiles.names() == (MAIN, OTHER)
    assert (profiles.load(OTHER).country, profiles.load(MAIN).country) == ("de", "uk")
    assert profiles.load(MAIN).document() == identities[1].document()
    assert profiles.signed_in(MAIN)
    assert not profiles.encrypted(MAIN)
    folder = tmp_path / "state" / "audible"
    assert sorted(os.listdir(folder)) == ["main.json", "other-2_B.json"]
    assert (mode(folder), mode(folder / "main.json")) == (0o700, 0o600)


def test_a_password_encrypts_what_is_saved_and_opens_it_again(identities, tmp_path):
    folder = str(tmp_path / "audible")
    sealed = Profiles(folder, "own password")
    sealed.save(MAIN, identities[0])
    assert sealed.encrypted(MAIN)
    assert "adp_token" not in (tmp_path / "audible" / "main.json").read_text()
    assert sealed.load(MAIN).document() == identities[0].document()
    for password, code in ((None, "authfile.encrypted"), ("another one", "authfile.wrong_password")):
        with pytest.raises(NeedsAttention) as caught:
            Profiles(folder, password).load(MAIN)
        assert caught.value.code == code
    assert "own password" not in repr(sealed)


def test_a_sign_in_between_its_steps_is_kept_until_it_is_done(profiles, identities):
    with pytest.raises(NeedsAttention) as caught:
        profiles.pending(MAIN)
    assert caught.value.code == "signin.not_begun"
    first, second = (signin.begin("de", with_username=False, now=now()) for _ in range(2))
    profiles.save_pending(MAIN, first)
    profiles.save_pending(MAIN, second)
    assert profiles.pending(MAIN) == second
    assert profiles.waits(MAIN)
    assert (profiles.names(), profiles.signed_in(MAIN)) == ((MAIN,), False)
    profiles.save(MAIN, identities[0])
    assert not profiles.waits(MAIN)
    assert profiles.names() == (MAIN,)


def test_a_profile_is_forgotten_whole_and_alone(profiles, identities):
    for profile in (MAIN, OTHER):
        profiles.save(profile, identities[0])
        profiles.save_pending(profile, signin.begin("de", with_username=False, now=now()))
    for _ in range(2):
        profiles.remove(MAIN)
        assert profiles.names() == (OTHER,)
    assert (profiles.signed_in(OTHER), profiles.waits(OTHER)) == (True, True)
    with pytest.raises(NeedsAttention) as caught:
        profiles.load(MAIN)
    assert (caught.value.code, caught.value.exit) == ("profile.missing", Exit.NOT_FOUND)
    assert "--profile main" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../main", "main.pending", "a b", "ä", "x" * 65, "a\n", "-" * 65]
)
def test_no_name_leads_out_of_the_folder(profiles, name):
    with pytest.raises(NeedsAttention) as caught:
        checked(name)
    assert (caught.value.code, caught.value.exit) == ("profile.invalid", Exit.USAGE)
    for call in (profiles.load, profiles.remove, profiles.pending, profiles.signed_in, profiles.waits):
        with pytest.raises(NeedsAttention) as caught:
            call(Profile(name))
        assert caught.value.code == "profile.invalid"


def test_good_names_are_taken_as_they_are():
    for name in ("main", "DE_2", "a-b", "x" * 64):
        assert checked(name) == name


def test_what_lies_beside_is_no_profile(profiles, identities, tmp_path):
    profiles.save(MAIN, identities[0])
    folder = tmp_path / "state" / "audible"
    (folder / "vouchers").mkdir()
    for name in ("a b.json", "notes.txt", ".aiom4b-0123456789abcdef.tmp", "x.y.json"):
        (folder / name).write_text("{}")
    assert profiles.names() == (MAIN,)


def test_a_password_that_is_given_later_encrypts_what_was_stored_in_the_clear(identities, tmp_path):
    folder = str(tmp_path / "audible")
    Profiles(folder, None).save(MAIN, identities[0])
    sealed = Profiles(folder, "own password")
    assert sealed.seal() == (MAIN,)
    assert "adp_token" not in (tmp_path / "audible" / "main.json").read_text()
    assert sealed.load(MAIN).document() == identities[0].document()
    assert mode(tmp_path / "audible" / "main.json") == 0o600
    assert sealed.seal() == ()
    assert Profiles(folder, None).seal() == ()
