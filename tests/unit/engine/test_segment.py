"""Is a segment a pure function of its sources, does the grid leave nothing out, and do segments fit together?"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

import books
import sound
from aiom4b.book import timeline
from aiom4b.engine import aac, encode, likeness, prove, segment
from aiom4b.errors import NeedsAttention
from aiom4b.models import FRAME_SAMPLES

RATE = 22050
FRAMES = 43  # two seconds: many joins in little sound


@pytest.fixture(scope="module")
def voice():
    return sound.speech(26, RATE)


@pytest.fixture(scope="module")
def book(tmp_path_factory, voice):
    """Return (source, plan): two MP3s, 26 s, a join every two seconds."""
    root = tmp_path_factory.mktemp("book")
    half = voice.shape[1] // 2
    made = books.source(root, [sound.mp3(voice[:, :half], RATE), sound.mp3(voice[:, half:], RATE)])
    return made, books.plan(made, segment_frames=FRAMES)


@pytest.fixture(scope="module")
def made(book):
    source, plan = book
    return [segment.make_segment(request) for request in segment.grid(plan, source.files, source.root)]


def packets_of(made):
    return [packet for one in made for packet in aac.without_headers(one.adts)]


def heard(packets, encoder):
    """Decode packets of a whole book as a player does: without the first block."""
    return segment.decoded(segment.decoder(encode.decoder_config(encoder)), packets, encoder.channels)[
        :, FRAME_SAMPLES:
    ]


def wanted(source, plan):
    samples = books.read(plan.timeline, source.files, source.root, 0, plan.timeline.samples)[0]
    return np.pad(samples, ((0, 0), (0, -samples.shape[1] % FRAME_SAMPLES)))


def test_packets_divided_at_wrong_places_are_no_packets(made, book):
    first, second, third = packets_of(made)[20:23]
    assert heard([first, second, third], book[1].encoder).shape == (1, 2 * FRAME_SAMPLES)
    with pytest.raises(likeness.Mismatch):
        heard([first, second + third[:9], third[9:]], book[1].encoder)


@pytest.mark.parametrize("frames", [1, 7, 43, 100, 10_000])
def test_the_grid_holds_every_packet_once(book, frames):
    source, plan = book
    plan = replace(plan, segment_frames=frames)
    grid = segment.grid(plan, source.files, source.root)
    covered = [number for one in grid for number in range(one.first, one.first + one.packets)]
    assert covered == list(range(plan.packets))
    assert plan.packets == -(-plan.timeline.samples // 1024) + 1


def test_the_grid_encodes_blocks_around_each_segment_and_stays_inside_the_book(book):
    source, plan = book
    grid = segment.grid(plan, source.files, source.root)
    assert grid[0].lead == 0
    for one in grid[1:]:
        assert one.lead == segment.BEFORE
    for one in grid[:-2]:
        assert one.pcm.samples == (one.lead + one.packets + segment.AFTER) * 1024
    last = grid[-1]
    assert (last.first - last.lead) * 1024 + last.pcm.samples == plan.timeline.samples


def test_the_grid_does_not_depend_on_the_machine(book, monkeypatch):
    source, plan = book
    before = [one.key() for one in segment.grid(plan, source.files, source.root)]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [one.key() for one in segment.grid(plan, source.files, source.root)] == before


def test_segments_together_are_the_whole_book(book, made):
    source, plan = book
    packets = packets_of(made)
    assert len(packets) == plan.packets
    sound_of_it = heard(packets, plan.encoder)
    expected = wanted(source, plan)
    assert sound_of_it.shape == expected.shape
    assert [one.payload_bytes for one in made] == [sum(map(len, aac.without_headers(one.adts))) for one in made]
    for one in made:
        assert one.sha256 == hashlib.sha256(b"".join(aac.without_headers(one.adts))).hexdigest()
        assert (one.flaws, one.bad_samples) == ((), 0)


def test_a_segment_made_again_has_the_same_bytes(book, made):
    source, plan = book
    request = segment.grid(plan, source.files, source.root)[3]
    again = segment.make_segment(request)
    assert again == made[3]


def test_a_segment_made_alone_has_the_same_bytes_as_in_a_row(book, made):
    source, plan = book
    backwards = [segment.make_segment(one) for one in reversed(segment.grid(plan, source.files, source.root)[-3:])]
    assert backwards[::-1] == made[-3:]


def test_every_second_but_the_overlap_with_the_segment_before_is_proved(book, made):
    source, plan = book
    for one, request in zip(made, segment.grid(plan, source.files, source.root), strict=True):
        ratios = np.frombuffer(one.ratios, "<f4")
        blocks = request.packets - 1
        assert len(ratios) == -(-blocks // prove.blocks_a_second(RATE))
        assert (ratios[np.isfinite(ratios)] > 6).all()


# --- joins ------------------------------------------------------------------------------------------------------------

TRANSIENT = {
    "clicks": lambda rate, channels: sound.clicks(20, rate, every=0.0371, channels=channels),
    "speech": lambda rate, channels: sound.speech(20, rate, channels=channels),
    "mix": lambda rate, channels: (
        sound.speech(20, rate, channels=channels) + sound.clicks(20, rate, every=0.0931, channels=channels, level=0.25)
    ),
}


def joined(tmp_path, pcm, rate, bit_rate, frames):
    source = books.source(tmp_path, [sound.mp3(pcm, rate, bit_rate=128000)])
    plan = books.plan(source, segment_frames=frames, bit_rate=bit_rate)
    return source, plan, segment.grid(plan, source.files, source.root)


def illegal(packets):
    sequences = [aac.window_sequence(packet) for packet in packets]
    assert None not in sequences
    return [number for number, pair in enumerate(itertools.pairwise(sequences), 1) if not aac.may_follow(*pair)]


@pytest.mark.parametrize("kind", TRANSIENT)
@pytest.mark.parametrize(("rate", "channels", "bit_rate"), [(44100, 2, 96000), (22050, 1, 32000)])
def test_windows_follow_each_other_legally_across_every_join(tmp_path, kind, rate, channels, bit_rate):
    pcm = TRANSIENT[kind](rate, channels)
    _, plan, grid = joined(tmp_path, pcm, rate, bit_rate, 11)
    packets = packets_of([segment.make_segment(one) for one in grid])
    assert len(packets) == plan.packets
    assert len(grid) >= 39
    assert not illegal(packets)


def test_without_blocks_after_a_segment_windows_break(tmp_path, monkeypatch):
    """Guards the test above: this is what the blocks after are for."""
    monkeypatch.setattr(segment, "AFTER", 0)
    _, plan, grid = joined(tmp_path, TRANSIENT["mix"](44100, 1), 44100, 64000, 11)
    broken = illegal(packets_of([segment.make_segment(one) for one in grid]))
    assert broken
    assert {number % plan.segment_frames for number in broken} <= {0}  # at joins and nowhere else


def test_joins_sound_as_good_as_the_rest(tmp_path):
    pcm = sound.speech(30, RATE)
    source, plan, grid = joined(tmp_path, pcm, RATE, 32000, 11)
    got = heard(packets_of([segment.make_segment(one) for one in grid]), plan.encoder)
    low, low_got = (likeness._low(pcm, 4)[0].reshape(-1, 256) for pcm in (wanted(source, plan), got))
    blocks, power = np.square(low - low_got).sum(axis=1), np.square(low).sum(axis=1)
    loud = power > np.median(power) / 10
    ratio = 10 * np.log10(power / np.maximum(blocks, 1e-9))
    at_join = np.zeros(len(ratio), bool)
    at_join[[one.first - 1 for one in grid[1:]]] = True
    assert (at_join & loud).sum() > 30
    assert np.median(ratio[at_join & loud]) > np.median(ratio[~at_join & loud]) - 1.0


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_does_not_change_with_where_the_files_lie(book, tmp_path):
    source, plan = book
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(source.root, elsewhere)
    here = [one.key() for one in segment.grid(plan, source.files, source.root)]
    assert [one.key() for one in segment.grid(plan, source.files, str(elsewhere))] == here
    assert len(set(here)) == len(here)


@pytest.mark.parametrize(
    "change",
    [
        {"bit_rate": 48000},
        {"asked": 40000},
        {"aac_coder": "twoloop"},
        {"channels": 2},
    ],
)
def test_the_key_changes_with_the_encoders_settings(book, change):
    source, plan = book
    other = replace(plan, encoder=replace(plan.encoder, **change))
    keys = {one.key() for one in segment.grid(plan, source.files, source.root)}
    assert keys.isdisjoint(one.key() for one in segment.grid(other, source.files, source.root))


def test_the_key_changes_with_the_content_of_a_file_and_only_where_it_is_read(book):
    source, plan = book
    other = replace(source.files[1], sha256="0" * 64)
    before = [one.key() for one in segment.grid(plan, source.files, source.root)]
    after = [one.key() for one in segment.grid(plan, [source.files[0], other], source.root)]
    same = [one == two for one, two in zip(before, after, strict=True)]
    assert same[0]
    assert not same[-1]
    assert same == sorted(same, reverse=True)


def test_the_key_changes_with_the_file_that_warms_the_decoder_up(tmp_path):
    data = sound.mp3(sound.speech(9, RATE), RATE, lame_tag=False)
    at = books.frame_places(data)[130][0]
    source = books.source(tmp_path, [data[:at], data[at:]])
    plan = books.plan(source, segment_frames=FRAMES)
    assert plan.timeline.runs[0].parts[1].joined
    near, far = (segment.grid(plan, source.files, source.root)[number] for number in (3, -1))
    assert [len(one.pcm.runs[0].stretches) for one in (near, far)] == [1, 1]
    other = segment.grid(plan, [replace(source.files[0], sha256="0" * 64), source.files[1]], source.root)
    assert other[3].key() != near.key()
    assert other[-1].key() == far.key()


@pytest.mark.parametrize("name", ["BEFORE", "AFTER", "GRID_VERSION"])
def test_the_key_changes_with_the_recipe(book, monkeypatch, name):
    source, plan = book
    before = segment.grid(plan, source.files, source.root)[0].key()
    monkeypatch.setattr(segment, name, 99)
    assert segment.grid(plan, source.files, source.root)[0].key() != before


def test_the_key_changes_with_the_machine_and_the_libraries(book, monkeypatch):
    source, plan = book
    before = segment.grid(plan, source.files, source.root)[0].key()
    monkeypatch.setattr(encode, "build", lambda: "another processor")
    assert segment.grid(plan, source.files, source.root)[0].key() != before


def test_the_key_changes_with_the_order_of_the_files(book):
    source, plan = book
    audio = [file.audio for file in source.files]
    swapped = replace(plan, timeline=timeline.lay_out(audio, (1, 0), RATE, 1))
    one = {request.key() for request in segment.grid(plan, source.files, source.root)}
    two = {request.key() for request in segment.grid(swapped, source.files, source.root)}
    assert one.isdisjoint(two)


# --- odd sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_do_not_end_the_conversion_and_are_counted(tmp_path, monkeypatch, bad):
    source = books.source(tmp_path, [sound.mp3(sound.speech(5, RATE), RATE)])
    plan = books.plan(source, segment_frames=1000)
    real = segment.Reader.read

    def read(self, request):
        for number, piece in enumerate(real(self, request)):
            poisoned = piece.copy()
            if number == 1:
                poisoned[0, 100:111] = bad
            yield poisoned

    monkeypatch.setattr(segment.Reader, "read", read)
    (request,) = segment.grid(plan, source.files, source.root)
    one = segment.make_segment(request)
    assert one.bad_samples == 11
    assert len(list(aac.without_headers(one.adts))) == plan.packets


def test_a_recording_far_too_loud_is_encoded_and_proved(tmp_path):
    voice = sound.speech(6, RATE)
    loud = np.clip(voice * 4, -1, 1)
    source = books.source(tmp_path, [sound.mp3(loud, RATE, bit_rate=128000)])
    peak = np.abs(books.read(books.plan(source).timeline, source.files, source.root, 0, 100000)[0]).max()
    assert peak > 0.95
    plan = books.plan(source, segment_frames=FRAMES)
    for request in segment.grid(plan, source.files, source.root):
        ratios = np.frombuffer(segment.make_segment(request).ratios, "<f4")
        assert (ratios[np.isfinite(ratios)] > 10).all()


def test_frames_that_became_silence_are_reported_with_the_segment(tmp_path):
    data = bytearray(sound.mp3(sound.speech(6, RATE), RATE, lame_tag=False))
    offset, size = books.frame_places(bytes(data))[100]
    data[offset + 4 : offset + size] = b"\xff" * (size - 4)
    source = books.source(tmp_path, [bytes(data)])
    plan = books.plan(source, segment_frames=1000)
    (request,) = segment.grid(plan, source.files, source.root)
    assert segment.make_segment(request).flaws


@pytest.mark.parametrize("samples", [100, 500, 1023, 1024, 1025, 3000])
def test_a_book_of_a_few_samples_is_a_book(tmp_path, samples):
    source = books.source(tmp_path, [sound.mp3(sound.tone(samples / RATE, RATE), RATE)])
    plan = books.plan(source)
    assert plan.timeline.samples == samples
    (request,) = segment.grid(plan, source.files, source.root)
    assert len(list(aac.without_headers(segment.make_segment(request).adts))) == plan.packets


def test_packets_that_do_not_decode_are_refused(book, monkeypatch):
    source, plan = book
    real = encode.packets

    def broken(chunks, encoder):
        for packets in real(chunks, encoder):
            yield [b"\xff" * 20 if number == 5 else packet for number, packet in enumerate(packets)]

    monkeypatch.setattr(encode, "packets", broken)
    with pytest.raises(NeedsAttention) as caught:
        segment.make_segment(segment.grid(plan, source.files, source.root)[1])
    assert caught.value.code == "proof.sound"


def test_an_encoder_that_swallows_a_packet_is_refused(book, monkeypatch):
    source, plan = book
    real = encode.packets
    monkeypatch.setattr(encode, "packets", lambda chunks, encoder: (one[:-1] for one in real(chunks, encoder)))
    with pytest.raises(NeedsAttention) as caught:
        segment.make_segment(segment.grid(plan, source.files, source.root)[-1])
    assert caught.value.code == "proof.sound"


def test_a_short_remainder_belongs_to_the_segment_before(book):
    _, plan = book
    for packets, lengths in (
        (1293, [323, 323, 323, 324]),
        (1292 + 79, [323] * 3 + [402]),
        (1292 + 80, [323] * 4 + [80]),
    ):
        found = replace(plan, packets=packets, segment_frames=323).segments
        assert [len(one) for one in found] == lengths
        assert [one.start for one in found] == [323 * number for number in range(len(lengths))]
    (only,) = replace(plan, packets=3, segment_frames=323).segments
    assert only == range(3)
