"""Is every packet of an MP4 found where its tables say, is its lock known, and is a large index held only once?"""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from aiom4b.engine import boxes, media
from aiom4b.engine.slices import Slices
from aiom4b.errors import NeedsAttention
from aiom4b.models import Lock
from sound import box

FTYP = box(b"ftyp", b"M4A \0\0\0\0")
DATA = len(FTYP) + 8


def numbers(*values, width="I"):
    return struct.pack(f">{len(values)}{width}", *values)


def full(kind, *values):
    """Return a box with a version and flags of 0, and then 32-bit numbers."""
    return box(kind, bytes(4) + numbers(*values))


def index(sizes, in_chunks, places, *, size_of_each=0, width="I", durations=None, entry=b"mp4a", protection=b""):
    """Return a ``moov``: packets of these sizes, ``in_chunks`` of them in each chunk, the chunks at these ``places``."""
    runs = [(at + 1, count, 1) for at, count in enumerate(in_chunks) if not at or in_chunks[at - 1] != count]
    tables = box(b"stsd", bytes(4) + numbers(1) + box(entry, bytes(28) + protection))
    tables += full(b"stts", 1, durations or len(sizes), 1024)
    tables += full(b"stsz", size_of_each, len(sizes), *([] if size_of_each else sizes))
    tables += full(b"stsc", len(runs), *(number for run in runs for number in run))
    tables += box(b"stco" if width == "I" else b"co64", bytes(4) + numbers(len(places)) + numbers(*places, width=width))
    handler = box(b"hdlr", bytes(8) + b"soun" + bytes(12))
    inside = full(b"mdhd", 0, 0, 44100, 0, 0) + handler + box(b"minf", box(b"stbl", tables))
    return box(b"moov", full(b"mvhd", 0, 0, 44100, 0) + box(b"trak", box(b"mdia", inside)))


def laid_out(packets, in_chunks, order, *, gap=0, **options):
    """Return an MP4 whose chunks lie in ``order``, with ``gap`` bytes of something else before each."""
    assert sum(in_chunks) == len(packets)
    firsts = np.cumsum([0, *in_chunks])
    content, places = b"", [0] * len(in_chunks)
    for chunk in order:
        content += b"?" * gap
        places[chunk] = DATA + len(content)
        content += b"".join(packets[firsts[chunk] : firsts[chunk + 1]])
    return FTYP + box(b"mdat", content) + index([*map(len, packets)], in_chunks, places, **options)


def packets_of(count, size=None):
    random = np.random.default_rng(1)
    return [random.bytes(size or int(random.integers(1, 40))) for _ in range(count)]


@pytest.fixture
def read(tmp_path):
    def look(data, first=0, stop=1 << 40):
        path = tmp_path / "book.m4b"
        path.write_bytes(data)
        return list(media.packets(str(path), first, stop))

    return look


IN_CHUNKS = {
    "one chunk": [3000],
    "a chunk each": [1] * 3000,
    "unlike chunks": [1, 1, 700, 700, 5, 1000, 200, 393],
    "chunks with nothing": [0, 1500, 0, 0, 1500],
}


@pytest.mark.parametrize("in_chunks", IN_CHUNKS.values(), ids=IN_CHUNKS)
@pytest.mark.parametrize("gap", [0, 7])
@pytest.mark.parametrize("width", ["I", "Q"])
def test_every_packet_is_found(read, in_chunks, gap, width):
    packets = packets_of(3000)
    data = laid_out(packets, in_chunks, range(len(in_chunks)), gap=gap, width=width)
    assert boxes.sound_track(data).payload_bytes == sum(map(len, packets))
    for first, stop in [(0, 1 << 40), (0, 1), (1, 1025), (1023, 2049), (2999, 3000), (1700, 1700), (3000, 3001)]:
        assert read(data, first, stop) == list(enumerate(packets))[first:stop]


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [0, 4, 3, 2, 1], [1, 2, 3, 4, 0], [0, 3, 1, 4, 2]])
def test_packets_that_lie_in_any_order_are_found(read, order):
    packets = packets_of(3000)
    assert read(laid_out(packets, [300, 300, 300, 1700, 400], order)) == list(enumerate(packets))


def test_packets_that_lie_far_apart_are_read_one_by_one(read, monkeypatch):
    packets = packets_of(50)
    data = laid_out(packets, [10] * 5, [0, 3, 1, 4, 2], gap=10_000)
    lengths = []
    honest = Slices.read

    def noted(self, start, stop):
        lengths.append(stop - start)
        return honest(self, start, stop)

    monkeypatch.setattr(Slices, "read", noted)
    monkeypatch.setattr(media, "_READ_AT_ONCE", 5000)
    assert read(data) == list(enumerate(packets))
    assert max(lengths) < 5000


def test_packets_of_one_size_need_no_table(read):
    packets = packets_of(3000, size=11)
    data = laid_out(packets, [3000], [0], size_of_each=11)
    assert boxes.sound_track(data).payload_bytes == 33000
    assert read(data) == list(enumerate(packets))


@pytest.mark.parametrize("beyond", [0, 1, 1 << 31])
def test_packets_beyond_the_end_of_the_file_are_refused(read, beyond):
    def claiming(size):
        return FTYP + box(b"mdat", bytes(20)) + index([1, size], [2], [DATA])

    left = len(claiming(0)) - DATA - 1
    if not beyond:
        assert len(read(claiming(left))) == 2
        return
    with pytest.raises(NeedsAttention) as caught:
        read(claiming(left + beyond))
    assert caught.value.code == "audio.truncated"


@pytest.mark.parametrize("place", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_chunk_nowhere_on_earth_is_refused(read, place):
    for look in (read, boxes.sound_track):
        with pytest.raises(NeedsAttention) as caught:
            look(FTYP + index([9, 9], [2], [place], width="Q"))
        assert caught.value.code == "audio.truncated"


def test_a_table_of_chunks_that_holds_too_little_is_refused(read):
    with pytest.raises(NeedsAttention, match="chunks"):
        read(FTYP + box(b"mdat", bytes(20)) + index([10, 10], [1], [DATA]))


def test_a_chunk_that_claims_more_packets_than_any_memory_holds_is_no_danger(read):
    assert len(read(FTYP + box(b"mdat", bytes(20)) + index([10, 10], [0xFFFFFFFF], [DATA]))) == 2


@pytest.mark.parametrize("durations", [1, 3])
def test_times_for_other_packets_than_there_are_are_refused(durations):
    with pytest.raises(NeedsAttention, match="time"):
        boxes.sound_track(FTYP + box(b"mdat", bytes(20)) + index([10, 10], [2], [DATA], durations=durations))


def test_a_lock_inside_ordinary_aac_is_seen():
    locked = index([10, 10], [2], [DATA], protection=box(b"sinf", box(b"frma", b"mp4a")))
    with pytest.raises(NeedsAttention) as caught:
        boxes.sound_track(FTYP + box(b"mdat", bytes(20)) + locked)
    assert caught.value.code == "audio.encrypted"


ADRM = box(b"adrm", bytes(96))


def locked(brand=b"aaxc", entry=b"aavd", protection=b"", sizes=(10, 10), **options):
    return (
        box(b"ftyp", brand + bytes(4))
        + box(b"mdat", bytes(20))
        + index(sizes, [len(sizes)], [DATA], entry=entry, protection=protection, **options)
    )


@pytest.mark.parametrize(
    ("brand", "protection", "lock"),
    [
        (b"aaxc", b"", Lock.AAXC),
        (b"aax ", ADRM, Lock.AAX),
        (b"M4B ", ADRM, Lock.AAX),
        (b"aaxc", ADRM, Lock.AAXC),
        (b"aaxc", box(b"free") + box(b"esds", bytes(9)), Lock.AAXC),
        (b"aax ", box(b"esds", bytes(9)) + ADRM, Lock.AAX),
    ],
)
def test_audibles_two_locks_are_known_by_the_brand_and_else_by_the_box_with_the_key(brand, protection, lock):
    track = boxes.sound_track(locked(brand, protection=protection))
    assert (track.lock, track.packets, track.payload_bytes) == (lock, 2, 20)


def test_a_brand_alone_locks_nothing():
    assert boxes.sound_track(locked(b"aaxc", b"mp4a")).lock is None
    assert boxes.sound_track(locked(b"aax ", b"mp4a", ADRM)).lock is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"brand": b"M4B "}, "audio.corrupt"),
        ({"brand": b"aax "}, "audio.corrupt"),
        ({"brand": b"aax ", "protection": ADRM[:-1]}, "audio.corrupt"),
        ({"brand": b"aax ", "protection": box(b"esds", ADRM)}, "audio.corrupt"),
        ({"entry": b"enca"}, "audio.encrypted"),
        ({"entry": b"drms"}, "audio.encrypted"),
        ({"protection": box(b"sinf", bytes(8))}, "audio.encrypted"),
        ({"entry": b"ec-3"}, "audio.unsupported_codec"),
        ({"entry": b"ac-4"}, "audio.unsupported_codec"),
        ({"entry": b"\xff\xfe\0\n"}, "audio.unsupported_codec"),
        ({"sizes": (10, 0)}, "audio.corrupt"),
        ({"sizes": (0, 0)}, "audio.corrupt"),
        ({"durations": 3}, "audio.corrupt"),
    ],
    ids=str,
)
def test_what_is_locked_in_no_known_way_or_can_not_be_counted_is_refused(options, code):
    with pytest.raises(NeedsAttention) as caught:
        boxes.sound_track(locked(**options))
    assert caught.value.code == code
    assert caught.value.remedy


def test_two_descriptions_of_a_locked_track_are_refused():
    data = locked()
    at = data.index(b"aavd") - 4
    entry = data[at : at + 36]
    stsd = data.index(b"stsd") - 4
    twice = data[:stsd] + box(b"stsd", bytes(4) + numbers(2) + entry + entry) + data[at + 36 :]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = twice.index(kind) - 4
        size = int.from_bytes(twice[place : place + 4], "big") + 36
        twice = twice[:place] + numbers(size) + twice[place + 4 :]
    with pytest.raises(NeedsAttention) as caught:
        boxes.sound_track(twice)
    assert caught.value.code == "audio.unsupported_codec"


@pytest.mark.parametrize("lost", [1, 30, 400])
def test_a_locked_file_that_is_still_arriving_is_not_complete(lost):
    with pytest.raises(NeedsAttention) as caught:
        boxes.sound_track(locked()[:-lost])
    assert caught.value.code == "audio.truncated"


def test_boxes_nested_without_end_are_not_followed():
    nest = b""
    for _ in range(3000):
        nest = box(b"mdia", nest)
    with pytest.raises(NeedsAttention) as caught:
        boxes.sound_track(FTYP + box(b"moov", full(b"mvhd", 0, 0, 44100, 0) + box(b"trak", nest)))
    assert caught.value.code == "audio.no_sound"


def test_the_index_of_a_long_book_is_held_only_once():
    """It was copied at each level of boxes, and made into numbers of 64 bits: 180 MB to check a book of 20 hours."""
    count = 300_000
    data = FTYP + box(b"mdat", bytes(count)) + index([1] * count, [count], [DATA])
    tracemalloc.start()
    try:
        boxes.sound_track(data)
        assert sum(sizes.size for _, _, sizes in boxes.packet_places(data, 0, count)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * 4 * count
