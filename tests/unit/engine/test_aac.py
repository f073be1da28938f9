"""Do ADTS headers come off as they went on, and are broken sequences of windows seen?"""

from __future__ import annotations

import io
import itertools

import av
import numpy as np
import pytest

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
