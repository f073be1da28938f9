"""Do ADTS headers come off as they went on, are broken sequences of windows seen, and does a configuration keep its promise?"""

from __future__ import annotations

import io
import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sound
from aiom4b.engine import aac, encode
from aiom4b.models import Encoder

LEGAL = {
    (aac.ONLY_LONG, aac.ONLY_LONG),
    (aac.ONLY_LONG, aac.LONG_START),
    (aac.LONG_START, aac.EIGHT_SHORT),
    (aac.EIGHT_SHORT, aac.EIGHT_SHORT),
    (aac.EIGHT_SHORT, aac.LONG_STOP),
    (aac.LONG_STOP, aac.ONLY_LONG),
    (aac.LONG_STOP, aac.LONG_START),
}


def encoded(pcm, rate, bit_rate=64000):
    channels = len(pcm)
    settings = Encoder(bit_rate=bit_rate, asked=bit_rate, sample_rate=rate, channels=channels, aac_coder="fast")
    whole = np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % 1024)))
    return [packet for group in encode.packets([whole], settings) for packet in group]


def test_packets_come_back_from_an_adts_stream_as_they_went_in():
    packets = [b"", b"x", b"\xff\xf1" * 50, bytes(8184)]
    stream = aac.with_headers(packets, 44100, 2)
    assert list(aac.without_headers(stream)) == packets
    assert len(stream) == sum(map(len, packets)) + 7 * len(packets)


@pytest.mark.parametrize("rate", [7350, 8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_segment_on_disk_is_an_ordinary_aac_file_for_others(rate, channels):
    pcm = sound.speech(0.5, rate, channels=channels)
    packets = encoded(pcm, rate, 24000)
    with av.open(io.BytesIO(aac.with_headers(packets, rate, channels)), format="aac") as container:
        frames = list(container.decode(audio=0))
    assert {(frame.sample_rate, frame.layout.nb_channels) for frame in frames} == {(rate, channels)}
    assert len(frames) == len(packets)


@pytest.mark.parametrize("lost", [1, 6, 7, 8, 20])
def test_a_torn_adts_stream_is_noticed(lost):
    stream = aac.with_headers([b"a" * 20, b"b" * 20], 44100, 1)
    with pytest.raises(ValueError, match="ADTS"):
        list(aac.without_headers(stream[:-lost]))


@pytest.mark.parametrize("at", [0, 1, 4, 5])
def test_a_bit_rotten_header_is_noticed(at):
    stream = bytearray(aac.with_headers([b"a" * 20, b"b" * 20], 44100, 1))
    stream[at] ^= 0x40
    with pytest.raises(ValueError, match="ADTS"):
        list(aac.without_headers(bytes(stream)))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_window_sequences_of_real_packets_are_read(channels):
    pcm = sound.clicks(3, 44100, every=0.17, channels=channels) + sound.noise(3, 44100, channels=channels, level=0.001)
    sequences = [aac.window_sequence(packet) for packet in encoded(pcm, 44100, 64000 * channels)]
    assert set(sequences) == {aac.ONLY_LONG, aac.LONG_START, aac.EIGHT_SHORT, aac.LONG_STOP}
    assert all(aac.may_follow(*pair) for pair in itertools.pairwise(sequences))


def test_a_packet_that_begins_with_another_element_is_not_judged():
    fill = bytes([6 << 5, 0, 0, 0])
    assert aac.window_sequence(fill) is None
    assert aac.may_follow(None, aac.LONG_STOP)
    assert aac.may_follow(aac.LONG_START, None)


@pytest.mark.parametrize("earlier", range(4))
@pytest.mark.parametrize("later", range(4))
def test_only_the_standards_transitions_are_legal(earlier, later):
    assert aac.may_follow(earlier, later) == ((earlier, later) in LEGAL)


# --- what a configuration promises -------------------------------------------------------------------------------------


def bits(*fields):
    """Pack (width, value) pairs, filled up to whole bytes."""
    text = "".join(f"{value:0{width}b}" for width, value in fields)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


PLAIN = ((5, 2), (4, 7), (4, 1), (1, 0), (1, 0), (1, 0))  # AAC-LC, 22050 Hz, one channel, frames of 1024


@pytest.mark.parametrize("rate", aac.SAMPLE_RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_configuration_of_our_own_encoder_promises_what_it_does(rate, channels):
    settings = Encoder(bit_rate=24000, asked=24000, sample_rate=rate, channels=channels, aac_coder="fast")
    config = encode.decoder_config(settings)
    assert aac.object_type(config) == 2
    assert aac.shape(config) == aac.Shape(sample_rate=rate, channels=channels, samples_per_frame=1024)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (PLAIN, (22050, 1, 1024)),
        ((*PLAIN[:3], (1, 1), *PLAIN[4:]), (22050, 1, 960)),
        ((*PLAIN[:4], (1, 1), (14, 99), (1, 0)), (22050, 1, 1024)),
        ((*PLAIN[:4], (1, 1), (14, 99), (1, 0), (11, 0x2B7), (5, 5), (1, 1), (4, 4)), (44100, 2, 2048)),
        (((5, 2), (4, 15), (24, 12345), (4, 2), (3, 0)), (12345, 2, 1024)),
        (((5, 2), (4, 4), (4, 7), (3, 0)), (44100, 8, 1024)),
        (((5, 5), (4, 7), (4, 2), (4, 4), (5, 2), (3, 0)), (44100, 2, 2048)),
        (((5, 5), (4, 7), (4, 1), (4, 4), (5, 2), (3, 0)), (44100, 2, 2048)),
        (((5, 29), (4, 7), (4, 1), (4, 4), (5, 2), (3, 0)), (44100, 2, 2048)),
        (((5, 5), (4, 7), (4, 2), (4, 15), (24, 44100), (5, 2), (3, 0)), (44100, 2, 2048)),
        ((*PLAIN, (11, 0x2B7), (5, 5), (1, 1), (4, 4)), (44100, 2, 2048)),
        ((*PLAIN, (11, 0x2B7), (5, 5), (1, 0)), (22050, 1, 1024)),
        ((*PLAIN, (11, 0x2B7), (5, 1), (1, 1), (4, 4)), (22050, 1, 1024)),
        ((*PLAIN, (11, 0x123), (5, 5), (1, 1), (4, 4)), (22050, 1, 1024)),
    ],
)
def test_a_configuration_promises_rate_channels_and_the_length_of_frames(fields, expected):
    assert aac.shape(bits(*fields)) == aac.Shape(
        sample_rate=expected[0], channels=expected[1], samples_per_frame=expected[2]
    )


@pytest.mark.parametrize("fields", [PLAIN, ((5, 5), (4, 7), (4, 1), (4, 4), (5, 2), (3, 0))])
def test_a_promise_is_what_the_decoder_keeps(fields):
    """Of one channel with spectral replication decoders make two."""
    config = bits(*fields)
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = config
    (frame,) = decoder.decode(av.Packet(encoded(sound.tone(0.5, 22050), 22050)[5]))
    promised = aac.shape(config)
    assert (frame.sample_rate, frame.layout.nb_channels, frame.samples) == (
        promised.sample_rate,
        promised.channels,
        promised.samples_per_frame,
    )


def test_the_type_behind_the_escape_is_read():
    assert aac.object_type(bits((5, 31), (6, 10))) == aac.USAC
    assert aac.object_type(b"\xff\xff") == 95


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"\x13",
        bits((5, 2), (4, 13), (4, 1), (3, 0)),
        bits((5, 2), (4, 7), (4, 0), (3, 0)),
        bits((5, 2), (4, 15), (24, 0), (4, 1), (3, 0)),
        bits((5, 5), (4, 7), (4, 2), (4, 14), (5, 2), (3, 0)),
    ],
    ids=["nothing", "a byte", "no such rate", "channels elsewhere", "a rate of nothing", "no such other rate"],
)
def test_a_configuration_that_promises_nothing_is_refused(config):
    with pytest.raises(ValueError, match="it "):
        aac.shape(config)


def test_the_type_of_an_empty_configuration_is_refused():
    with pytest.raises(ValueError, match="short"):
        aac.object_type(b"")


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_whatever_stands_in_a_configuration_it_is_a_shape_or_a_value_error(config):
    try:
        found = aac.shape(config)
    except ValueError:
        return
    assert found.sample_rate > 0
    assert found.channels in {1, 2, 3, 4, 5, 6, 8}
    assert found.samples_per_frame in {960, 1024, 1920, 2048}
