"""Is each locked file opened by a key that fits, wherever it was found, and is it said plainly what is missing where none does?"""

from __future__ import annotations

import os
from dataclasses import replace

import anyio
import pytest

import books
import sound
from aiom4b.adapters.files import identity
from aiom4b.adapters.space import SpaceLedger
from aiom4b.engine import probe
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudibleKey, FileTags, Lock, Sidecar, SidecarKind, SourceFile
from aiom4b.steps.backup import backup
from aiom4b.steps.unlock import unlock
from audible_documents import Title
from audible_files import ACTIVATION_BYTES, ASIN, IV, KEY, lock_aax, lock_aaxc, plain_book
from audible_layouts import audible_cli
from factories import source

RIGHT = AudibleKey(key=KEY.hex(), iv=IV.hex())
ACCOUNT = AudibleKey(activation_bytes=ACTIVATION_BYTES.hex())
KEY_FILE = f"Key={KEY.hex()}\nIV={IV.hex()}\n"
ACCOUNT_FILE = f"ActivationBytes={ACTIVATION_BYTES.hex()}\n"
ODD = os.fsdecode(b"B\xfcch \xff")


def key(number):
    return AudibleKey(key=f"{number:032x}", iv=f"{number + 100:032x}")


def key_file(number):
    return f"Key={key(number).key}\nIV={key(number).iv}\n"


class Ring:
    """A ring that tells what it knows to everybody, and remembers who asked."""

    def __init__(self, *known):
        self.known = known
        self.asked = []

    async def keys(self, lock, asin):
        self.asked.append((lock, asin))
        return tuple((f"the ring's number {number}", one) for number, one in enumerate(self.known, 1))


def seen(root, name, asin=ASIN):
    found = probe.examine(os.path.join(root, name), books.LIMITS)
    return SourceFile(
        path=name, identity=found.identity, sha256=found.sha256, audio=found.audio, tags=FileTags(asin=asin)
    )


def put(root, **files):
    for name, content in files.items():
        with open(os.path.join(root, name.replace("_", ".")), "w") as file:
            file.write(content)


def opened(root, *files, ring=None, pool=None, beside=None):
    """Unlock these files (names or SourceFiles) by all that lies in their folder."""
    members = [file if isinstance(file, SourceFile) else seen(root, file) for file in files]
    if beside is None:
        beside = [name for name in sorted(os.listdir(root)) if name not in {file.path for file in members}]
    context = replace(books.context(root, pool), keys=ring or Ring())

    async def run():
        return await unlock(members, str(root), beside, context)

    return anyio.run(run)


def refused(root, *files, **how):
    with pytest.raises(NeedsAttention) as caught:
        opened(root, *files, **how)
    error = caught.value
    for secret in (RIGHT.key, RIGHT.iv, ACCOUNT.activation_bytes, key(1).key, key(1).iv):
        assert secret not in f"{error!r} {error.reason} {error.remedy}"
    return error


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_book(tmp_path_factory.mktemp("plain") / "plain.m4b")


@pytest.fixture
def root(tmp_path, plain):
    lock_aaxc(plain, tmp_path / "a.aaxc")
    return tmp_path


@pytest.fixture
def account_root(tmp_path, plain):
    lock_aax(plain, tmp_path / "a.aax")
    return tmp_path


@pytest.fixture
def silent(tmp_path):
    """A file so quiet that nothing in it is encrypted: the first key that is tried opens it."""
    (tmp_path / "plain.m4a").write_bytes(sound.m4a(sound.silence(2, 22050), 22050))
    lock_aaxc(tmp_path / "plain.m4a", tmp_path / "a.aaxc")
    os.unlink(tmp_path / "plain.m4a")
    return tmp_path


# --- which key ---------------------------------------------------------------------------------------------------------


def test_without_a_locked_file_nothing_is_read_or_tried(tmp_path):
    pool, ring = books.Inline(), Ring(RIGHT)
    file = books.source_file(tmp_path, "a.m4a", sound.m4a(sound.silence(1, 22050), 22050))
    put(tmp_path, a_key=KEY_FILE)
    found = opened(tmp_path, file, pool=pool, ring=ring)
    assert (found.keys, found.from_ring, found.key_files()) == ({}, frozenset(), {})
    assert (pool.calls, ring.asked) == ([], [])


@pytest.mark.parametrize("name", ["a.key", "a.voucher", "Z.KEY", "anything else.key"])
def test_of_several_key_files_the_one_that_fits_is_found_whatever_its_name(root, name):
    for number in range(1, 6):
        put(root, **{f"{number}_key": key_file(number), f"a{number}_voucher": "no key"})
    (root / name).write_text(KEY_FILE)
    found = opened(root, "a.aaxc")
    assert found.keys == {"a.aaxc": RIGHT}
    assert found.key_files() == {}


def test_the_key_under_the_files_own_name_is_tried_first(silent):
    put(silent, a_key=key_file(1), b_key=key_file(2), **{"0_key": key_file(3)})
    assert opened(silent, "a.aaxc").keys == {"a.aaxc": key(1)}


def test_the_voucher_of_another_title_is_tried_last(silent, plain):
    """Its name says that it belongs there, its content that it doesn't."""
    other = audible_cli(silent / "aside", plain, Title(asin="B00OTHER01", key=bytes(16), iv=bytes(16)))
    voucher = next(one for one in other.beside if one.suffix == ".voucher")
    voucher.rename(silent / "a.voucher")
    put(silent, z_key=key_file(1))
    names = ["a.voucher", "z.key"]
    assert opened(silent, "a.aaxc", beside=names).keys == {"a.aaxc": key(1)}
    unnamed = seen(silent, "a.aaxc", asin="B00OTHER01")
    assert opened(silent, unnamed, beside=names).keys == {"a.aaxc": AudibleKey(key="00" * 16, iv="00" * 16)}


def test_what_lies_beside_a_file_comes_before_the_ring(silent):
    put(silent, z_key=key_file(1))
    found = opened(silent, "a.aaxc", ring=Ring(key(2)))
    assert (found.keys, found.from_ring) == ({"a.aaxc": key(1)}, frozenset())


def test_a_key_of_the_other_lock_is_not_even_tried(silent, plain):
    put(silent, a_key=ACCOUNT_FILE)
    assert refused(silent, "a.aaxc").code == "audible.key_missing"
    os.unlink(silent / "a.aaxc")
    lock_aax(plain, silent / "a.aax")
    put(silent, a_key=KEY_FILE)
    assert refused(silent, "a.aax").code == "audible.key_missing"


def test_the_ring_is_asked_for_this_lock_and_title(account_root):
    ring = Ring(AudibleKey(activation_bytes="00000000"), ACCOUNT)
    found = opened(account_root, "a.aax", ring=ring)
    assert found.keys == {"a.aax": ACCOUNT}
    assert ring.asked == [(Lock.AAX, ASIN)]


def test_each_of_several_files_has_a_key_of_its_own(tmp_path, plain):
    for number in (1, 2, 3):
        lock_aaxc(plain, tmp_path / f"{number}.aaxc", bytes.fromhex(key(number).key), bytes.fromhex(key(number).iv))
    put(tmp_path, x_key=key_file(3), y_key=key_file(1))
    found = opened(tmp_path, "1.aaxc", "2.aaxc", "3.aaxc", ring=Ring(key(9), key(2)))
    assert found.keys == {f"{number}.aaxc": key(number) for number in (1, 2, 3)}
    assert found.from_ring == {"2.aaxc"}
    assert found.key_files() == {"2.key": key_file(2).encode()}


def test_the_only_locked_file_among_plain_ones_is_opened(root, plain):
    (root / "b.m4b").write_bytes(plain.read_bytes())
    put(root, x_key=KEY_FILE)
    assert opened(root, "a.aaxc", "b.m4b").keys == {"a.aaxc": RIGHT}


def test_names_that_are_not_utf_8_are_no_hindrance(tmp_path, plain):
    lock_aaxc(plain, tmp_path / f"{ODD}.aaxc")
    assert refused(tmp_path, f"{ODD}.aaxc").path == os.path.join(tmp_path, f"{ODD}.aaxc")
    refused(tmp_path, f"{ODD}.aaxc").reason.encode()
    (tmp_path / f"{ODD}.key").write_text(key_file(1))
    error = refused(tmp_path, f"{ODD}.aaxc")
    error.reason.encode()
    assert error.code == "audible.key_wrong"
    found = opened(tmp_path, f"{ODD}.aaxc", ring=Ring(RIGHT), beside=())
    assert found.key_files() == {f"{ODD}.key": KEY_FILE.encode()}
    (tmp_path / f"{ODD}.key").write_text(KEY_FILE)
    assert opened(tmp_path, f"{ODD}.aaxc").keys == {f"{ODD}.aaxc": RIGHT}


@pytest.mark.parametrize("harm", ["link", "pipe", "folder", "gone"])
def test_a_key_file_that_can_not_be_read_is_as_good_as_none(root, harm):
    match harm:
        case "link":
            put(root, elsewhere=KEY_FILE)
            os.symlink("elsewhere", root / "a.key")
        case "pipe":
            os.mkfifo(root / "a.key")
        case "folder":
            (root / "a.key").mkdir()
    assert refused(root, "a.aaxc", beside=["a.key"]).code == "audible.key_missing"


# --- what the backup needs ---------------------------------------------------------------------------------------------


def test_a_key_of_the_ring_is_to_lie_beside_the_file_as_libation_writes_it(root, account_root):
    assert opened(root, "a.aaxc", ring=Ring(RIGHT)).key_files() == {"a.key": KEY_FILE.encode()}
    assert opened(account_root, "a.aax", ring=Ring(ACCOUNT)).key_files() == {"a.key": ACCOUNT_FILE.encode()}


def test_such_a_file_opens_the_book_again(root):
    ((name, content),) = opened(root, "a.aaxc", ring=Ring(RIGHT)).key_files().items()
    (root / name).write_bytes(content)
    assert opened(root, "a.aaxc").keys == {"a.aaxc": RIGHT}


def test_no_name_that_is_taken_is_given_to_a_key(tmp_path, plain):
    """A wrong a.key beside the book stopped its backup: "File exists"."""
    lock_aaxc(plain, tmp_path / "a.aaxc")
    lock_aax(plain, tmp_path / "a.aax")
    put(tmp_path, a_key=key_file(1))
    (tmp_path / "a.aaxc.key").write_text(key_file(2))
    found = opened(tmp_path, "a.aaxc", "a.aax", ring=Ring(RIGHT, ACCOUNT))
    names = found.key_files()
    assert sorted(names.values()) == sorted([KEY_FILE.encode(), ACCOUNT_FILE.encode()])
    assert not names.keys() & set(os.listdir(tmp_path))
    (tmp_path / "a.aax").unlink()
    for name in names:
        assert name.endswith(".key")
    alone = opened(tmp_path, "a.aaxc", ring=Ring(RIGHT))
    assert len(alone.key_files()) == 1


def test_a_wrong_key_beside_a_book_that_the_ring_opens_is_backed_up_with_the_right_one(account_root):
    put(account_root, a_key="ActivationBytes=00000000\n")
    file = seen(account_root, "a.aax")
    found = opened(account_root, file, ring=Ring(ACCOUNT))
    wrong = identity(os.stat(account_root / "a.key"))
    destination = account_root / "backups"
    destination.mkdir()

    async def run():
        return await backup(
            source(
                file, root=str(account_root), sidecars=[Sidecar(path="a.key", identity=wrong, kind=SidecarKind.KEY)]
            ),
            str(destination),
            now=books.context(account_root).clock(),
            limiter=anyio.CapacityLimiter(1),
            ledger=SpaceLedger(),
            report=lambda _: None,
            extras=found.key_files(),
        )

    receipt = anyio.run(run)
    again = opened(receipt.root, file)
    assert (again.keys, again.from_ring) == ({"a.aax": ACCOUNT}, frozenset())


# --- what is said ------------------------------------------------------------------------------------------------------


def test_without_a_key_it_is_said_what_to_provide(root, account_root):
    error = refused(root, "a.aaxc")
    assert (error.code, error.path) == ("audible.key_missing", str(root / "a.aaxc"))
    assert ".voucher" in error.remedy
    assert "by itself" in error.remedy
    error = refused(account_root, "a.aax")
    assert "activation_bytes" in error.remedy


def test_the_file_whose_key_is_missing_is_named_among_those_that_have_theirs(tmp_path, plain):
    lock_aaxc(plain, tmp_path / "1.aaxc")
    lock_aax(plain, tmp_path / "2.aax")
    put(tmp_path, **{"1_key": KEY_FILE})
    error = refused(tmp_path, "1.aaxc", "2.aax")
    assert (error.code, error.path) == ("audible.key_missing", str(tmp_path / "2.aax"))


def test_a_wrong_key_is_named_by_where_it_came_from(root):
    put(root, a_key=key_file(1))
    error = refused(root, "a.aaxc", ring=Ring(key(2)))
    assert error.code == "audible.key_wrong"
    assert "a.key" in error.reason
    assert "the ring's number 1" in error.reason


def test_a_damaged_file_is_not_called_locked(root):
    put(root, a_key=KEY_FILE, b_key=key_file(1))
    data = bytearray((root / "a.aaxc").read_bytes())
    data[-900:] = bytes(900)
    (root / "a.aaxc").write_bytes(data)
    error = refused(root, "a.aaxc")
    assert error.code == "audio.damaged"
    assert "second 5" in error.reason or "second 4" in error.reason


def test_he_aac_that_does_not_say_so_is_called_what_it_is(root):
    plain_config, says_sbr = bytes.fromhex("138856e500"), bytes.fromhex("138856e5a0")
    promised = seen(root, "a.aaxc")
    (root / "a.aaxc").write_bytes((root / "a.aaxc").read_bytes().replace(plain_config, says_sbr))
    put(root, a_key=KEY_FILE)
    claims = replace(promised, audio=replace(promised.audio, decoder_config=says_sbr))
    error = refused(root, claims)
    assert error.code == "audio.unsupported_codec"
    assert "HE-AAC" in error.reason


def test_a_file_that_went_away_since_it_was_examined_is_told(root):
    put(root, a_key=KEY_FILE)
    file = seen(root, "a.aaxc")
    os.unlink(root / "a.aaxc")
    assert refused(root, file, beside=["a.key"]).code == "file.missing"
