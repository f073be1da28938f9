"""Is a key taken for what it is: the right one wherever it stands, a wrong one never, and the file's own faults told apart?"""

from __future__ import annotations

import errno
from dataclasses import replace

import av
import numpy as np
import pytest

import sound
from aiom4b.engine import media, probe
from aiom4b.engine.unlock import Fit, tried
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import AudibleKey, Lock
from audible_boxes import top_boxes
from audible_files import ACTIVATION_BYTES, IV, KEY, lock_aax, lock_aaxc, plain_book
from books import LIMITS

RATE = 22050
RIGHT = AudibleKey(key=KEY.hex(), iv=IV.hex())
WRONG = AudibleKey(key="00" * 16, iv=IV.hex())
ACCOUNT = AudibleKey(activation_bytes=ACTIVATION_BYTES.hex())
PLAIN_AAC, SAYS_SBR = bytes.fromhex("138856e500"), bytes.fromhex("138856e5a0")  # 22050 Hz in mono; the same with SBR


def facts(path):
    return probe.examine(str(path), LIMITS).audio


def trial(path, *keys, audio=None):
    return tried(str(path), audio or facts(path), keys)


def locked(folder, data):
    """Lock an M4A as AAXC."""
    (folder / "plain.m4a").write_bytes(data)
    return lock_aaxc(folder / "plain.m4a", folder / "locked.aaxc")


def spoiled(path, number):
    """Overwrite a packet with what is no AAC under any key."""
    data = bytearray(path.read_bytes())
    ((_, offset, size),) = places(path, number)
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)


def places(path, *numbers):
    with av.open(str(path), format="mp4", options={"ignore_editlist": "1"}) as container:
        found = [(number, packet.pos, packet.size) for number, packet in enumerate(container.demux(audio=0))]
    return [one for one in found if one[0] in numbers]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Six seconds, 131 packets."""
    return plain_book(tmp_path_factory.mktemp("plain") / "plain.m4b")


@pytest.fixture
def book(tmp_path, plain):
    return lock_aaxc(plain, tmp_path / "book.aaxc")


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("moov_last", [False, True], ids=["index first", "index last"])
@pytest.mark.parametrize(("lock", "key"), [(lock_aaxc, RIGHT), (lock_aax, ACCOUNT)], ids=["aaxc", "aax"])
def test_the_right_key_opens_a_file_however_it_is_laid_out(tmp_path, plain, lock, key, moov_last, wide):
    path = lock(plain, tmp_path / "book", moov_last=moov_last, wide=wide)
    assert [kind for kind, _, _ in top_boxes(path)].index(b"mdat") == (1 if moov_last else 2)
    assert trial(path, key).fit is Fit.OPENS


def test_of_several_keys_the_one_that_fits_is_named(book):
    others = [AudibleKey(key=f"{number:032x}", iv=IV.hex()) for number in range(3)]
    found = trial(book, *others, RIGHT, *others)
    assert (found.fit, found.which) == (Fit.OPENS, 3)


@pytest.mark.parametrize(
    "key",
    [
        AudibleKey(key=IV.hex(), iv=KEY.hex()),
        AudibleKey(key=KEY.hex(), iv="00" * 16),
        AudibleKey(key=KEY[::-1].hex(), iv=IV.hex()),
        WRONG,
    ],
    ids=["key and iv exchanged", "another iv", "reversed", "another key"],
)
def test_a_wrong_key_is_told_as_wrong(book, key):
    assert trial(book, key) == trial(book, key, key)
    assert trial(book, key).fit is Fit.WRONG


def test_activation_bytes_of_another_account_are_wrong(tmp_path, plain):
    path = lock_aax(plain, tmp_path / "book.aax")
    assert trial(path, AudibleKey(activation_bytes="00000000")).fit is Fit.WRONG
    assert trial(path, AudibleKey(activation_bytes="1a2b3c4e"), ACCOUNT).which == 1


def test_keys_as_ffmpeg_gets_them_may_be_in_upper_case(book):
    assert trial(book, AudibleKey(key=KEY.hex().upper(), iv=IV.hex().upper())).fit is Fit.OPENS


def test_silence_says_nothing_of_a_key_and_what_is_behind_it_does(tmp_path):
    """Packets of less than 16 bytes are all in the clear: the first half of this book opens with any key."""
    pcm = np.concatenate([sound.silence(6, RATE), sound.speech(6, RATE)], axis=1)
    path = locked(tmp_path, sound.m4a(pcm, RATE))
    sizes = [size for _, _, size in places(path, *range(100))]
    assert max(sizes) < 16
    assert trial(path, WRONG).fit is Fit.WRONG
    assert trial(path, RIGHT).fit is Fit.OPENS


def test_a_file_that_is_all_in_the_clear_is_opened_by_any_key(tmp_path):
    path = locked(tmp_path, sound.m4a(sound.silence(3, RATE), RATE))
    assert trial(path, WRONG).fit is Fit.OPENS


@pytest.mark.parametrize("samples", [1, 1024, 5000])
def test_a_file_of_very_few_packets_is_opened_too(tmp_path, samples):
    path = locked(tmp_path, sound.m4a(sound.noise(samples / RATE, RATE), RATE))
    assert facts(path).frames <= 6
    assert trial(path, RIGHT).fit is Fit.OPENS
    assert trial(path, WRONG).fit is Fit.WRONG


def test_a_place_that_is_damaged_is_no_fault_of_the_key(book):
    spoiled(book, 120)
    found = trial(book, WRONG, RIGHT)
    assert (found.fit, found.which) == (Fit.DAMAGED, 1)
    assert found.second == pytest.approx(98 * 1024 / RATE)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["says so", "says so first", "parametric stereo"])
def test_he_aac_that_says_so_is_opened(tmp_path, channels, kind):
    """Of one channel decoders make two; the right key was called wrong for it."""
    path = lock_aaxc(plain_book(tmp_path / "plain.m4b", channels=channels), tmp_path / "book.aaxc")
    config = facts(path).decoder_config
    if kind == "says so":
        other = config[:2] + SAYS_SBR[2:]
    else:
        bits = f"{5 if kind == 'says so first' else 29:05b}0111{channels:04b}010000010000"
        other = int(bits.ljust(40, "0"), 2).to_bytes(5, "big")
    path.write_bytes(path.read_bytes().replace(config, other))
    assert facts(path).samples_per_frame == 2048
    assert trial(path, RIGHT).fit is Fit.OPENS
    assert trial(path, WRONG).fit is Fit.WRONG


def test_he_aac_that_calls_itself_plain_is_told_from_a_wrong_key(tmp_path, book):
    book.write_bytes(book.read_bytes().replace(PLAIN_AAC, SAYS_SBR))
    audio = facts(book)
    claims = replace(audio, samples_per_frame=1024, sample_rate=RATE)
    assert trial(book, WRONG, RIGHT, audio=claims).fit is Fit.OTHER_SHAPE
    assert trial(book, WRONG, RIGHT, audio=claims).which == 1


@pytest.mark.parametrize("ticks", [0, 1, 50_000, (1 << 31) - 1, (1 << 32) - 1])
def test_a_table_of_times_that_lies_hides_neither_a_right_nor_a_wrong_key(book, ticks):
    data = bytearray(book.read_bytes())
    at = data.index(b"stts") + 12
    assert int.from_bytes(data[at - 4 : at], "big") == 2
    for entry in range(2):
        data[at + 4 + 8 * entry : at + 8 + 8 * entry] = ticks.to_bytes(4, "big")
    book.write_bytes(data)
    assert trial(book, WRONG).fit is Fit.WRONG
    assert trial(book, RIGHT).fit is Fit.OPENS


def test_times_that_lead_into_silence_do_not_hide_a_wrong_key(tmp_path):
    pcm = np.concatenate([sound.speech(2, RATE), sound.silence(4, RATE)], axis=1)
    path = locked(tmp_path, sound.m4a(pcm, RATE))
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 12
    for entry in range(int.from_bytes(data[at - 4 : at], "big")):
        data[at + 4 + 8 * entry : at + 8 + 8 * entry] = bytes(4)
    path.write_bytes(data)
    assert trial(path, WRONG).fit is Fit.WRONG
    assert trial(path, RIGHT).fit is Fit.OPENS


def test_a_disk_that_fails_was_called_a_wrong_key(book, monkeypatch):
    audio = facts(book)

    def fails(*_, **__):
        raise av.error.FFmpegError(errno.EIO, "as FFmpeg says")

    monkeypatch.setattr(media, "open_mp4", fails)
    with pytest.raises(Transient) as caught:
        trial(book, RIGHT, audio=audio)
    assert (caught.value.code, caught.value.path) == ("file.io", str(book))


def test_a_file_that_went_away_is_told_as_such(book):
    audio = facts(book)
    book.unlink()
    with pytest.raises(NeedsAttention) as caught:
        trial(book, RIGHT, audio=audio)
    assert caught.value.code == "file.missing"


def test_a_locked_file_is_measured_without_its_key(tmp_path, plain, book):
    known, unlocked = facts(book), facts(plain)
    assert known == replace(unlocked, lock=Lock.AAXC)
    assert facts(lock_aax(plain, tmp_path / "book.aax")) == replace(unlocked, lock=Lock.AAX)
