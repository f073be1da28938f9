"""Does our opening of an AAXC give what FFmpeg's gives, whatever the packets look like?"""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

import audible_files
from aiom4b.engine import media
from aiom4b.engine.ciphers import Opener
from aiom4b.models import AudibleKey

KEY = AudibleKey(key=audible_files.KEY.hex(), iv=audible_files.IV.hex())


def locked(packet):
    """Return a packet as the format says: whole blocks chained from the iv on, the rest in the clear."""
    whole = len(packet) // 16 * 16
    cipher = Cipher(algorithms.AES(audible_files.KEY), modes.CBC(audible_files.IV)).encryptor()
    return cipher.update(packet[:whole]) + packet[whole:]


@given(st.lists(st.tuples(st.binary(max_size=90), st.binary(max_size=20)), min_size=1, max_size=12))
def test_packets_of_any_size_with_anything_between_them_are_opened_and_nothing_else_is_touched(pieces):
    data = b"".join(gap + locked(packet) for packet, gap in pieces)
    places, at = [], 0
    for packet, gap in pieces:
        places.append(at + len(gap))
        at += len(gap) + len(packet)
    opened = Opener(KEY).opened(data, np.array(places), np.array([len(packet) for packet, _ in pieces]))
    assert opened == b"".join(gap + packet for packet, gap in pieces)


@pytest.mark.parametrize(("first", "stop"), [(0, 10**6), (5, 9), (120, 10**6)])
def test_ffmpeg_opens_the_same_packets_to_the_same_bytes(tmp_path, first, stop):
    plain = audible_files.plain_book(tmp_path / "plain.m4b", 4.0, rate=44100, channels=2)
    path = str(audible_files.lock_aaxc(plain, tmp_path / "a.aaxc"))
    with media.open_mp4(path, key=KEY) as container:
        by_ffmpeg = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert [bytes(packet) for packet in media.unlocked(path, KEY, first, stop)] == by_ffmpeg[first:stop]


def test_packets_that_lie_far_apart_are_opened_one_by_one(tmp_path, monkeypatch):
    plain = audible_files.plain_book(tmp_path / "plain.m4b", 4.0)
    path = str(audible_files.lock_aaxc(plain, tmp_path / "a.aaxc"))
    together = [bytes(packet) for packet in media.unlocked(path, KEY)]
    monkeypatch.setattr(media, "_READ_AT_ONCE", 1)
    assert [bytes(packet) for packet in media.unlocked(path, KEY)] == together
