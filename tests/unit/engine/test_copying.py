"""Are the packets that are copied all there, in order, each decoded, and is a locked file read from wherever a range begins?"""

from __future__ import annotations

import hashlib
import os
import struct
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sound
from aiom4b.engine import copying, media, probe
from aiom4b.engine.copying import CopyRequest, Part, parts_of, stretches
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.models import AudibleKey
from audible_boxes import box, tree
from audible_files import ACTIVATION_BYTES, IV, KEY, lock_aax, lock_aaxc, plain_book
from books import LIMITS

RATE = 22050
RIGHT = AudibleKey(key=KEY.hex(), iv=IV.hex())
WRONG = AudibleKey(key="00" * 16, iv=IV.hex())
ACCOUNT = AudibleKey(activation_bytes=ACTIVATION_BYTES.hex())


def facts(path):
    return probe.examine(str(path), LIMITS).audio


def packets(path):
    return [data for _, data in media.packets(str(path))]


def opened(path, first=0, stop=1 << 40, key=RIGHT):
    return [bytes(packet) for packet in media.unlocked(str(path), key, first, stop)]


def summed(data):
    return hashlib.sha256(b"".join(data)).hexdigest(), sum(map(len, data))


def whole(path, key=None):
    return Part(path=str(path), first=0, stop=facts(path).frames, key=key)


def wanted(*files, lengths, audio=None, **options):
    parts = parts_of(files, 0, sum(lengths))
    return CopyRequest(parts=parts, stretches=lengths, audio=audio or facts(files[0].path), **options)


def refused(kind, request):
    with pytest.raises(kind) as caught:
        stretches(request)
    return caught.value


def laid_out(plain, out, in_chunks, order):
    """Write a plain book anew, its packets in such chunks, and those in such an order; the index last."""
    found = packets(plain)
    assert sum(in_chunks) == len(found)
    firsts = [0, *accumulate(in_chunks)]
    data = plain.read_bytes()
    at = data.index(b"moov") - 4
    moov = tree(b"moov", data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")])
    sound_track, *texts = [track for track in moov.kids if track.kind == b"trak"]
    moov.kids = [kid for kid in moov.kids if kid not in texts]  # their chunks are not kept
    table = sound_track.at(b"mdia", b"minf", b"stbl")
    head = box(b"ftyp", b"M4B \0\0\0\0")
    content, offsets = b"", [0] * len(in_chunks)
    for chunk in order:
        offsets[chunk] = len(head) + 8 + len(content)
        content += b"".join(found[firsts[chunk] : firsts[chunk + 1]])
    runs = b"".join(struct.pack(">III", at, count, 1) for at, count in enumerate(in_chunks, 1))
    table.at(b"stsc").data = bytes(4) + struct.pack(">I", len(in_chunks)) + runs
    chunks = next(kid for kid in table.kids if kid.kind in {b"stco", b"co64"})
    chunks.kind, chunks.data = b"stco", bytes(4) + struct.pack(f">{len(offsets) + 1}I", len(offsets), *offsets)
    Path(out).write_bytes(head + box(b"mdat", content) + moov.written())
    return Path(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("copying")


@pytest.fixture(scope="module")
def plain(place):
    """Six seconds, 131 packets."""
    return plain_book(place / "plain.m4b")


@pytest.fixture(scope="module")
def book(place, plain):
    return lock_aaxc(plain, place / "book.aaxc")


# --- from packet to packet of a locked file ----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(ends=st.tuples(st.integers(0, 140), st.integers(0, 140)))
def test_any_range_of_a_locked_file_is_that_of_the_plain_one(plain, book, ends):
    first, stop = sorted(ends)
    inside = packets(plain)[first:stop]
    if 131 <= first < stop:
        with pytest.raises(ValueError, match="packet"):
            opened(book, first, stop)
    else:
        assert opened(book, first, stop) == inside


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("moov_last", [False, True], ids=["index first", "index last"])
@pytest.mark.parametrize(("lock", "key"), [(lock_aaxc, RIGHT), (lock_aax, ACCOUNT)], ids=["aaxc", "aax"])
def test_a_range_is_found_however_the_file_is_laid_out(tmp_path, plain, lock, key, moov_last, wide):
    path = lock(plain, tmp_path / "book", moov_last=moov_last, wide=wide)
    for first in (0, 1, 77, 130):
        assert opened(path, first, key=key) == packets(plain)[first:]


CHUNKS = {
    "in order": ([40, 1, 50, 40], [0, 1, 2, 3]),
    "one each": ([1] * 131, range(131)),
    "backwards": ([40, 1, 50, 40], [3, 2, 1, 0]),
    "the first at the end": ([40, 1, 50, 40], [1, 2, 3, 0]),
    "mixed": ([10] * 13 + [1], [5, 1, 9, 0, 13, 2, 3, 8, 4, 12, 6, 7, 11, 10]),
}


@pytest.mark.parametrize(("in_chunks", "order"), CHUNKS.values(), ids=CHUNKS)
def test_a_range_is_found_wherever_the_chunks_lie_and_whatever_is_in_the_middle_of_one(
    tmp_path, plain, in_chunks, order
):
    """Looking for a packet ended at the first one that lay behind it in the file."""
    path = lock_aaxc(laid_out(plain, tmp_path / "plain.m4b", in_chunks, order), tmp_path / "book.aaxc", moov_last=True)
    for first, stop in [(0, 131), (1, 3), (40, 41), (41, 42), (57, 95), (130, 131)]:
        assert opened(path, first, stop) == packets(plain)[first:stop]


@pytest.mark.parametrize("ticks", [(0, 0), (1, 1), (1024, 0), (50_000, 1), ((1 << 31) - 1, 1), ((1 << 32) - 1, 7)])
def test_a_table_of_times_that_lies_hides_no_packet(tmp_path, plain, book, ticks):
    """With times that are all the same, FFmpeg leads to the last packet: "packets are missing"."""
    data = bytearray(book.read_bytes())
    at = data.index(b"stts") + 12
    for entry, value in enumerate(ticks):
        struct.pack_into(">I", data, at + 4 + 8 * entry, value)
    path = tmp_path / "book.aaxc"
    path.write_bytes(data)
    for first in (0, 1, 64, 129, 130):
        assert opened(path, first) == packets(plain)[first:]


def test_packets_too_short_to_be_encrypted_come_as_they_are(tmp_path):
    data = sound.m4a(
        np.concatenate([sound.silence(2, RATE), sound.noise(2, RATE), sound.silence(1, RATE)], axis=1), RATE
    )
    (tmp_path / "plain.m4a").write_bytes(data)
    path = lock_aaxc(tmp_path / "plain.m4a", tmp_path / "book.aaxc")
    short = [size < 16 for size in map(len, packets(tmp_path / "plain.m4a"))]
    assert any(one != two for one, two in pairwise(short))
    for first in (0, 20, 60):
        assert opened(path, first) == packets(tmp_path / "plain.m4a")[first:]


@pytest.mark.parametrize("first", [131, 132, 1 << 30])
def test_there_is_no_packet_after_the_last(book, first):
    assert opened(book, first) == []


def test_a_reader_who_stops_early_leaves_nothing_open(book):
    before = os.listdir("/proc/self/fd")
    reading = media.unlocked(str(book), RIGHT, 50)
    next(reading)
    reading.close()
    assert os.listdir("/proc/self/fd") == before


# --- laid end to end ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), ends=st.tuples(st.integers(0, 75), st.integers(0, 75))
)
def test_parts_cover_exactly_what_was_asked_for(lengths, ends):
    first, stop = sorted(ends)
    files = [Part(path=str(at), first=0, stop=length, key=RIGHT) for at, length in enumerate(lengths)]
    every = [(file.path, number) for file in files for number in range(file.stop)]
    parts = parts_of(files, first, stop)
    assert [(part.path, number) for part in parts for number in range(part.first, part.stop)] == every[first:stop]
    assert all(part.first < part.stop and part.key is RIGHT for part in parts)


def test_each_stretch_is_hashed_for_itself(plain, book):
    lengths = (1, 60, 69, 1)
    places = [0, *accumulate(lengths)]
    expected = tuple(summed(packets(plain)[first:stop]) for first, stop in pairwise(places))
    assert stretches(wanted(whole(plain), lengths=lengths)) == expected
    assert stretches(wanted(whole(book, RIGHT), lengths=lengths)) == expected


def test_stretches_run_over_the_ends_of_files_each_with_its_key(tmp_path, plain, book):
    other = plain_book(tmp_path / "other.m4b", 4.0, seed=2)
    key = AudibleKey(key="ab" * 16, iv="cd" * 16)
    locked = lock_aaxc(other, tmp_path / "other.aaxc", bytes.fromhex(key.key), bytes.fromhex(key.iv))
    every = packets(plain) + packets(other)
    files = [whole(book, RIGHT), whole(locked, key)]
    request = CopyRequest(parts=parts_of(files, 100, 180), stretches=(20, 50, 10), audio=facts(book))
    assert stretches(request) == (summed(every[100:120]), summed(every[120:170]), summed(every[170:180]))
    assert request.seconds == pytest.approx(80 * 1024 / RATE)


def test_a_packet_that_does_not_decode_is_named_by_file_and_second(tmp_path, plain):
    data = bytearray(plain.read_bytes())
    damaged = packets(plain)[70]
    at = data.index(damaged)
    data[at : at + len(damaged)] = b"\xff" * len(damaged)
    path = tmp_path / "second.m4b"
    path.write_bytes(data)
    error = refused(NeedsAttention, wanted(whole(plain), whole(path), lengths=(200, 62)))
    assert (error.code, error.path) == ("audio.damaged", str(path))
    assert f"second {70 * 1024 / RATE:.1f}" in error.reason
    every = packets(plain) + packets(path)
    hashes = stretches(wanted(whole(plain), whole(path), lengths=(200, 62), decode=False))
    assert hashes == (summed(every[:200]), summed(every[200:]))


def test_the_second_is_that_of_the_locked_file_wherever_the_range_begins(tmp_path, plain):
    data = bytearray(plain.read_bytes())
    damaged = packets(plain)[70]
    at = data.index(damaged)
    data[at : at + len(damaged)] = b"\xff" * len(damaged)
    (tmp_path / "plain.m4b").write_bytes(data)
    path = lock_aaxc(tmp_path / "plain.m4b", tmp_path / "book.aaxc")
    part = Part(path=str(path), first=65, stop=80, key=RIGHT)
    error = refused(NeedsAttention, CopyRequest(parts=(part,), stretches=(15,), audio=facts(path)))
    assert f"second {70 * 1024 / RATE:.1f}" in error.reason


def test_a_wrong_key_is_found_out_by_decoding_and_not_shown(book):
    error = refused(NeedsAttention, wanted(whole(book, WRONG), lengths=(131,)))
    assert error.code == "audio.damaged"
    assert WRONG.key not in error.reason + error.remedy


def test_sound_of_another_shape_is_no_sound_of_the_book(tmp_path, plain):
    stereo = plain_book(tmp_path / "stereo.m4b", 2.0, channels=2)
    request = CopyRequest(parts=(whole(stereo),), stretches=(10,), audio=facts(plain))
    assert refused(NeedsAttention, request).code == "audio.damaged"


@pytest.mark.parametrize("key", [None, RIGHT], ids=["plain", "locked"])
def test_packets_that_are_missing_mean_that_the_file_changed(plain, book, key):
    path = book if key else plain
    part = Part(path=str(path), first=0, stop=132, key=key)
    error = refused(Transient, CopyRequest(parts=(part,), stretches=(132,), audio=facts(path)))
    assert (error.code, error.path) == ("source.changed", str(path))


@pytest.mark.parametrize("key", [None, RIGHT], ids=["plain", "locked"])
@pytest.mark.parametrize("first", [0, 50])
@pytest.mark.parametrize("harm", ["shorter", "empty", "another", "gone"])
def test_a_file_that_changed_after_it_was_examined_is_refused(tmp_path, plain, book, key, first, harm):
    path = tmp_path / "book"
    path.write_bytes((book if key else plain).read_bytes())
    audio = facts(path)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes({"shorter": path.read_bytes()[:-9000], "empty": b"", "another": b"no book" * 9999}[harm])
    part = Part(path=str(path), first=first, stop=131, key=key)
    with pytest.raises(Aiom4bError) as caught:
        stretches(CopyRequest(parts=(part,), stretches=(131 - first,), audio=audio))
    assert caught.value.code in {"source.changed", "audio.truncated", "audio.corrupt", "file.missing"}


def test_no_repr_shows_a_key(book):
    shown = repr(wanted(whole(book, RIGHT), lengths=(131,)))
    assert RIGHT.key not in shown
    assert RIGHT.iv not in shown


# --- shapes ------------------------------------------------------------------------------------------------------------


def test_he_aac_may_begin_with_its_plain_half():
    assert copying.shapes(1024, 2, 44100) == {(1024, 2, 44100)}
    assert copying.shapes(2048, 2, 44100) == {(2048, 2, 44100), (1024, 2, 22050), (1024, 1, 22050)}


@pytest.mark.parametrize("channels", [1, 2])
def test_he_aac_is_heard_at_its_full_rate(tmp_path, channels):
    made = plain_book(tmp_path / "plain.m4b", channels=channels)
    config = facts(made).decoder_config
    data = made.read_bytes().replace(config, config[:2] + bytes.fromhex("56e5a0"))
    for path, key in ((made, None), (tmp_path / "book.aaxc", RIGHT)):
        made.write_bytes(data)
        if key:
            lock_aaxc(made, path)
        assert facts(path).samples_per_frame == 2048
        assert stretches(wanted(whole(path, key), lengths=(131,))) == (summed(packets(made)),)


def test_whatever_shape_is_expected_an_error_stays_an_error():
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = bytes.fromhex("138856e500")
    assert copying.undecodable(decoder, av.Packet(b"\xff" * 50), set())
