"""Is any range of a file, bit for bit, the same range of the whole file decoded from its start?"""

from __future__ import annotations

import functools
import tempfile

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import books
import sound
from aiom4b.engine import decode, mpeg
from aiom4b.errors import NeedsAttention

SECONDS = 4.3
KINDS = {
    "cbr": (44100, 1, {"bit_rate": 64000}),
    "vbr": (44100, 1, {"vbr": 6}),
    "joint stereo": (44100, 2, {"bit_rate": 96000}),
    "stereo abr": (48000, 2, {"abr": True, "bit_rate": 112000, "joint": False}),
    "mpeg-2": (22050, 1, {"bit_rate": 32000}),
    "mpeg-2 starved": (24000, 2, {"bit_rate": 8000}),  # leans on the reservoir of very many earlier frames
    "mpeg-2.5": (8000, 1, {"bit_rate": 16000}),
    "without a lame tag": (32000, 1, {"lame_tag": False}),
}


@functools.cache
def mp3_of(kind):
    rate, channels, facts = KINDS[kind]
    return sound.mp3(sound.speech(SECONDS, rate, channels=channels), rate, **facts)


@functools.cache
def kept(kind):
    """Return (root, file, whole) for a kind of MP3: examined, and decoded by FFmpeg's own demuxer and decoder."""
    root = tempfile.mkdtemp()
    _folders.append(root)
    data = mp3_of(kind)
    return root, books.source_file(root, "a.mp3", data), sound.decoded(data)


_folders: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def folders():
    yield
    import shutil

    kept.cache_clear()
    while _folders:
        shutil.rmtree(_folders.pop())


def read(root, file, start, stop, before=()):
    decoder = decode.Decoder()
    pieces = list(decoder.read(decode.stretch(str(root), file, start, stop, before)))
    return np.concatenate([np.empty((file.audio.channels, 0), np.float32), *pieces], axis=1), len(decoder.flaws)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_file_is_what_ffmpeg_makes_of_it(kind):
    root, file, whole = kept(kind)
    mine, flaws = read(root, file, 0, file.audio.samples)
    assert flaws == 0
    np.testing.assert_array_equal(mine, whole)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_range_is_bit_for_bit_that_range_of_the_whole(kind, data):
    root, file, whole = kept(kind)
    start = data.draw(st.integers(0, file.audio.samples))
    stop = data.draw(st.integers(start, min(file.audio.samples, start + 30000)))
    mine, flaws = read(root, file, start, stop)
    assert flaws == 0
    np.testing.assert_array_equal(mine, whole[:, start:stop])


@pytest.mark.parametrize("at", [0, 1, 575, 576, 577, 1151, 1152, 1153])
def test_a_range_may_begin_anywhere_in_a_frame(at):
    root, file, whole = kept("vbr")
    start = 100 * 1152 - file.audio.start_skip + at
    np.testing.assert_array_equal(read(root, file, start, start + 1)[0], whole[:, start : start + 1])


def test_a_starved_file_needs_the_frames_before_the_range(monkeypatch):
    """Guards the test above: with few frames before, the same ranges come out wrong, and nothing is raised."""
    root, file, whole = kept("mpeg-2 starved")
    monkeypatch.setattr(decode, "PREROLL_FRAMES", 2)
    start = 70000
    assert not np.array_equal(read(root, file, start, start + 3000)[0], whole[:, start : start + 3000])


def test_junk_between_frames_costs_nothing(tmp_path):
    clean = mp3_of("cbr")
    places = books.frame_places(clean)
    dirty = clean
    for number in (150, 90, 40):
        dirty = sound.with_junk(dirty, b"\0" * 700 + b"\xff\xfb" + b"junk" * 99, places[number][0])
    dirty = sound.id3(sound.id3_text("TIT2", "One"), padding=3000) + dirty + sound.apev2() + sound.id3v1()
    file = books.source_file(tmp_path, "a.mp3", dirty)
    whole = kept("cbr")[2]
    assert file.audio.samples == whole.shape[1]
    for start, stop in [(0, whole.shape[1]), (40 * 1152, 41 * 1152), (89 * 1152 - 5, 160 * 1152 + 5)]:
        mine, flaws = read(tmp_path, file, start, min(stop, whole.shape[1]))
        assert flaws == 0
        np.testing.assert_array_equal(mine, whole[:, start:stop])


@pytest.mark.parametrize("start", [1152 * 20, 1152 * 98])
def test_a_damaged_frame_becomes_silence_and_is_counted(tmp_path, start):
    clean = bytearray(mp3_of("without a lame tag"))
    places = books.frame_places(bytes(clean))
    offset, size = places[start // 1152 + 5]
    clean[offset + 4 : offset + size] = b"\xff" * (size - 4)  # the header stays: big_values too big
    file = books.source_file(tmp_path, "a.mp3", bytes(clean))
    whole = kept("without a lame tag")[2]
    assert file.audio.samples == whole.shape[1]
    mine, flaws = read(tmp_path, file, start, start + 1152 * 20)
    assert mine.shape[1] == 1152 * 20
    assert flaws >= 1
    assert not mine[:, 1152 * 5 : 1152 * 6].any()
    np.testing.assert_array_equal(mine[:, : 1152 * 4], whole[:, start : start + 1152 * 4])
    end = slice(start + 1152 * 15, start + 1152 * 20)
    np.testing.assert_array_equal(mine[:, 1152 * 15 :], whole[:, end])  # it heals


@pytest.mark.parametrize("kind", ["joint stereo", "mpeg-2 starved", "without a lame tag"])
@pytest.mark.parametrize("numbers", [(10,), (63,), (64,), (100, 119, 120)])
def test_damage_costs_what_it_costs_when_every_frame_is_decoded_by_itself(tmp_path, kind, numbers):
    dirty = bytearray(mp3_of(kind))
    for number in numbers:
        offset, size = books.frame_places(bytes(dirty))[number]
        dirty[offset + 4 : offset + size] = b"\xff" * (size - 4)
    file = books.source_file(tmp_path, "a.mp3", bytes(dirty))
    decoder = av.CodecContext.create("mp3float", "r")
    expected, bad = [], 0
    for offset, size in books.frame_places(bytes(dirty)):
        try:
            expected.append(decoder.decode(av.Packet(bytes(dirty[offset : offset + size])))[0].to_ndarray())
        except av.error.FFmpegError:
            expected.append(np.zeros((file.audio.channels, file.audio.samples_per_frame), np.float32))
            bad += 1
    whole = np.concatenate(expected, axis=1)[:, file.audio.start_skip :][:, : file.audio.samples]
    mine, flaws = read(tmp_path, file, 0, file.audio.samples)
    assert flaws == bad >= 1
    np.testing.assert_array_equal(mine, whole)


def test_damage_before_a_range_is_not_counted_in_it(tmp_path):
    clean = bytearray(mp3_of("without a lame tag"))
    offset, size = books.frame_places(bytes(clean))[60]
    clean[offset + 4 : offset + size] = b"\xff" * (size - 4)
    file = books.source_file(tmp_path, "a.mp3", bytes(clean))
    counts = [read(tmp_path, file, at * 1152, (at + 40) * 1152)[1] for at in (0, 40, 80)]
    assert counts[0] == counts[2] == 0
    assert counts[1] > 0


def test_frames_that_are_gone_since_the_look_are_an_error_not_silence(tmp_path):
    data = mp3_of("cbr")
    file = books.source_file(tmp_path, "a.mp3", data)
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(NeedsAttention) as caught:
        read(tmp_path, file, 0, file.audio.samples)
    assert caught.value.code == "audio.changed"
    assert caught.value.path == str(tmp_path / "a.mp3")


def test_a_file_that_turns_from_stereo_to_mono_keeps_its_length_and_level(tmp_path):
    left = sound.speech(1, 32000)
    stereo = sound.mp3(np.repeat(left, 2, axis=0), 32000, lame_tag=False, bit_rate=96000)
    mono = sound.mp3(left, 32000, lame_tag=False, bit_rate=96000)
    file = books.source_file(tmp_path, "a.mp3", stereo + mono)
    whole, flaws = read(tmp_path, file, 0, file.audio.samples)
    half = file.audio.samples // 2
    assert (whole.shape, flaws) == ((2, file.audio.samples), 0)
    first, second = (np.sqrt(np.mean(part**2)) for part in (whole[:, :half], whole[:, half:]))
    assert abs(20 * np.log10(first / second)) < 0.2


# --- files cut from one recording -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "bit_rate", "number"), [(32000, 64000, 20), (32000, 64000, 110), (8000, 8000, 40)])
def test_untagged_pieces_of_one_recording_join_as_if_never_cut(tmp_path, rate, bit_rate, number):
    data = sound.mp3(sound.speech(SECONDS, rate), rate, lame_tag=False, bit_rate=bit_rate)
    at = books.frame_places(data)[number][0]
    one, two = (books.source_file(tmp_path, name, part) for name, part in (("1.mp3", data[:at]), ("2.mp3", data[at:])))
    whole = sound.decoded(data)
    border = one.audio.samples
    assert border + two.audio.samples == whole.shape[1]
    for length in (1, 1152, two.audio.samples):
        mine, flaws = read(tmp_path, two, 0, length, before=[one])
        np.testing.assert_array_equal(mine, whole[:, border : border + length])
        assert flaws == 0
    # a little further in, the previous file's frames may still be in the reservoir
    later = 5 * two.audio.samples_per_frame
    mine, _ = read(tmp_path, two, later, two.audio.samples, before=[one])
    np.testing.assert_array_equal(mine, whole[:, border + later :])


def test_without_the_file_before_the_same_border_clicks(tmp_path):
    data = mp3_of("without a lame tag")
    at = books.frame_places(data)[60][0]
    one, two = (books.source_file(tmp_path, name, part) for name, part in (("1.mp3", data[:at]), ("2.mp3", data[at:])))
    alone, _ = read(tmp_path, two, 0, 2000)
    assert not np.array_equal(alone, sound.decoded(data)[:, one.audio.samples : one.audio.samples + 2000])


def test_a_second_file_far_from_its_border_does_not_read_the_first(tmp_path):
    _, file, _ = kept("cbr")
    far = decode.stretch("/nowhere", file, 120 * 1152, 121 * 1152, [file])
    near = decode.stretch("/nowhere", file, 90 * 1152, 91 * 1152, [file])
    assert far.before == ()
    assert len(near.before) == 1


def test_only_one_anchor_of_the_index_travels_to_a_worker():
    _, file, _ = kept("cbr")
    wanted = decode.stretch("/r", file, 150 * 1152, 160 * 1152)
    number, offset = wanted.recording.anchor
    assert wanted.recording.audio.anchors == b""
    assert number == (150 - decode.PREROLL_FRAMES) // mpeg.ANCHOR_FRAMES * mpeg.ANCHOR_FRAMES
    assert offset == books.frame_places(mp3_of("cbr"))[number][0]


# --- AAC --------------------------------------------------------------------------------------------------------------


@functools.cache
def aac_parts():
    pcm = sound.speech(6.01, 22050)
    return pcm, sound.m4a(pcm, 22050)


@pytest.mark.parametrize("start", [0, 1, 1023, 1024, 20000, 100000])
def test_a_range_of_aac_lies_where_a_player_has_it(tmp_path, start):
    pcm, data = aac_parts()
    file = books.source_file(tmp_path, "a.m4a", data)
    assert file.audio.samples == pcm.shape[1]
    stop = min(start + 30000, file.audio.samples)
    mine, flaws = read(tmp_path, file, start, stop)
    assert (mine.shape, flaws) == ((1, stop - start), 0)
    spectrum = np.fft.rfft(mine[0], 1 << 17) * np.conj(np.fft.rfft(pcm[0, start:stop], 1 << 17))
    assert int(np.argmax(np.fft.irfft(spectrum))) == 0  # no lag
    error = mine - pcm[:, start:stop]
    assert np.vdot(error, error) < 0.1 * np.vdot(mine, mine)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_range_of_aac_is_that_range_of_the_whole(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp()
    file = books.source_file(root, "range.m4a", aac_parts()[1])
    whole, _ = read(root, file, 0, file.audio.samples)
    start = data.draw(st.integers(0, file.audio.samples))
    stop = data.draw(st.integers(start, file.audio.samples))
    np.testing.assert_array_equal(read(root, file, start, stop)[0], whole[:, start:stop])


def test_the_last_sample_of_an_aac_file_is_the_sources_last(tmp_path):
    file = books.source_file(tmp_path, "a.m4a", aac_parts()[1])
    assert read(tmp_path, file, file.audio.samples - 1, file.audio.samples)[0].shape == (1, 1)
    with pytest.raises(NeedsAttention, match="less than"):
        read(tmp_path, file, 0, file.audio.samples + 5000)


def test_a_damaged_aac_packet_becomes_silence_and_is_counted(tmp_path):
    _, data = aac_parts()
    with av.open(str(books_file(tmp_path, data))) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    broken = bytearray(data)
    offset, size = packets[50]
    broken[offset : offset + size] = b"\xff" * size
    file = books.source_file(tmp_path, "a.m4a", bytes(broken))
    mine, flaws = read(tmp_path, file, 0, file.audio.samples)
    assert flaws == 1
    assert mine.shape[1] == file.audio.samples


def books_file(folder, data):
    path = folder / "raw.m4a"
    path.write_bytes(data)
    return path
