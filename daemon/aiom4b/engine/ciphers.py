"""How is an AAXC's lock undone? AES for many packets in one call: FFmpeg's own, packet by packet, takes as long as decoding a third of them.

The whole blocks of 16 bytes of each packet are encrypted, chained within the packet (CBC), from the file's iv on; what is left at
its end is in the clear (libavformat/mov.c, `mov_aaxc_crypto`).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from aiom4b.models import AudibleKey

_BLOCK = 16
_CELL = np.dtype(f"V{_BLOCK}")


class Opener:
    """Opens packets with the key of one file; ``key`` is that of an AAXC."""

    def __init__(self, key: AudibleKey) -> None:
        self._iv = np.frombuffer(bytes.fromhex(key.iv), np.uint8)
        self._cipher = Cipher(algorithms.AES(bytes.fromhex(key.key)), modes.ECB()).decryptor()  # noqa: S305 - chained below

    def opened(self, data: bytes, places: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
        """Return a copy of ``data`` in which the packets at these places are open; no two may overlap."""
        blocks = sizes // _BLOCK
        total = int(blocks.sum())
        if not total:
            return data
        before = np.cumsum(blocks) - blocks
        starts = np.repeat(places - _BLOCK * before, blocks) + _BLOCK * np.arange(total)
        clear = bytearray(data)
        cells: NDArray[np.void] = np.ndarray((len(clear) - _BLOCK + 1,), _CELL, buffer=clear, strides=(1,))
        locked = cells[starts].view(np.uint8).reshape(-1, _BLOCK)
        chain = np.empty_like(locked)
        chain[1:] = locked[:-1]
        chain[before[blocks > 0]] = self._iv
        plain = np.frombuffer(self._cipher.update(locked.tobytes()), np.uint8).reshape(-1, _BLOCK) ^ chain
        cells[starts] = plain.reshape(-1).view(_CELL)
        return bytes(clear)
