"""Is PCM made fit for the encoder, and do the same samples give the same packets?"""

from __future__ import annotations

import numpy as np
import pytest

import sound
from aiom4b.engine import encode, segment
from aiom4b.models import Encoder

RATE = 22050


def settings(**facts):
    known = {"bit_rate": 32000, "asked": 32000, "sample_rate": RATE, "channels": 1, "aac_coder": "fast"}
    return Encoder(**(known | facts))


def packets(chunks, encoder=None):
    return [packet for group in encode.packets(chunks, encoder or settings()) for packet in group]


def blocks(pcm):
    return np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % 1024)))


@pytest.mark.parametrize("count", [1, 2, 3, 17, 172, 173])
def test_n_blocks_give_n_plus_one_packets(count):
    assert len(packets([sound.noise(1024 * count / RATE, RATE)])) == count + 1


def test_packets_do_not_depend_on_how_the_sound_is_handed_over():
    pcm = blocks(sound.speech(3, RATE))
    cut = [pcm[:, at : at + 1024 * 5] for at in range(0, pcm.shape[1], 1024 * 5)]
    assert packets([pcm]) == packets(cut) == packets(iter(cut))


def test_packet_k_covers_blocks_k_minus_one_and_k():
    pcm = blocks(sound.speech(2, RATE))
    heard = segment.decoded(segment.decoder(encode.decoder_config(settings())), packets([pcm]), 1)
    delay = heard[:, 1024:]
    error = pcm - delay[:, : pcm.shape[1]]
    assert 10 * np.log10(np.vdot(pcm, pcm) / np.vdot(error, error)) > 10  # shifted by a block it is below 0


def test_the_encoder_leaves_no_name_and_no_version_in_its_packets():
    stream = b"".join(packets([blocks(sound.silence(300 * 1024 / RATE, RATE))]))
    assert b"Lavc" not in stream


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_becomes_silence_and_is_counted(bad):
    pcm = blocks(sound.speech(0.5, RATE))
    whole = pcm.copy()
    pcm[0, 3000:3007] = bad
    assert encode.tame(pcm) == 7
    assert not pcm[0, 3000:3007].any()
    np.testing.assert_array_equal(pcm[0, :3000], whole[0, :3000])
    assert len(packets([pcm])) == pcm.shape[1] // 1024 + 1  # unharmed: one such sample would have ended the encoder


def test_hot_samples_are_clipped_so_that_the_encoder_does_not_turn_the_frame_down():
    voice = sound.speech(4, RATE)
    voice *= 1.6 / np.abs(voice).max()
    hot, tamed = blocks(voice), blocks(voice)
    assert encode.tame(tamed) == 0
    assert np.abs(tamed).max() == np.float32(0.95)
    quiet = np.abs(voice) <= 0.95
    np.testing.assert_array_equal(tamed[:, : voice.shape[1]][quiet], voice[quiet])

    def likeness(pcm):
        encoder = settings(asked=48000)
        heard = segment.decoded(segment.decoder(encode.decoder_config(encoder)), packets([pcm], encoder), 1)
        error = tamed - heard[:, 1024 : 1024 + tamed.shape[1]]
        return 10 * np.log10(np.vdot(tamed, tamed) / np.vdot(error, error))

    assert likeness(tamed) > likeness(hot) + 2


def test_taming_leaves_good_sound_alone():
    pcm = sound.speech(0.5, RATE, channels=2)
    before = pcm.copy()
    assert encode.tame(pcm) == 0
    np.testing.assert_array_equal(pcm, before)


@pytest.mark.parametrize(
    ("rate", "channels", "begins"), [(44100, 1, "1208"), (44100, 2, "1210"), (22050, 1, "1388"), (8000, 1, "1588")]
)
def test_the_decoder_configuration_says_rate_channels_and_no_sbr(rate, channels, begins):
    config = encode.decoder_config(settings(sample_rate=rate, channels=channels))
    assert config.hex() == begins + "56e500"


def test_the_build_names_what_decides_the_bytes_and_is_the_same_each_time():
    encode.build.cache_clear()
    first = encode.build()
    encode.build.cache_clear()
    assert encode.build() == first
    assert "libavcodec" in first
    assert first.startswith("av")
