"""Where does FFmpeg get to see a file? Here only: an open descriptor, a forced demuxer, and nothing that it could follow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from aiom4b.adapters import files
from aiom4b.engine import boxes
from aiom4b.engine.slices import Slices

_READ_AT_ONCE = 8 << 20


@contextmanager
def open_mp4(path: str, *, as_played: bool = False) -> Iterator[InputContainer]:
    """Open an MP4 by a descriptor of ours; FFmpeg may use that and nothing else, whatever the file asks for.

    With ``as_played`` time stamps follow the edit list, as in a player; without it packets are counted from the first one
    in the file. Raises ``av.error.FFmpegError`` where it can't be read.
    """
    descriptor = files.open_regular(path)
    try:
        options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2"}
        if not as_played:
            options["ignore_editlist"] = "1"
        with av.open("fd:", format="mov", options=options, metadata_errors="replace") as container:
            yield container
    finally:
        os.close(descriptor)


def pcm_of(frames: Sequence[av.AudioFrame], channels: int) -> NDArray[np.float32]:
    """Return planar float frames end to end as [channels, n]; ValueError when one has other channels.

    Joining the planes' bytes costs a fifth of handing each to numpy, which adds up to 5 % of a conversion.
    """
    planes = [(frame.planes, 4 * frame.samples) for frame in frames]
    if any(len(one) != channels for one, _ in planes):
        raise ValueError("a frame has other channels")
    # The buffer of a plane may be longer than its samples: the AAC decoder keeps room for SBR.
    joined = [b"".join([memoryview(one[channel])[:size] for one, size in planes]) for channel in range(channels)]
    return np.frombuffer(b"".join(joined), np.float32).reshape(channels, -1)


def packets(path: str, first: int = 0, stop: int = sys.maxsize) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the packets [first, stop) of an MP4's sound, fewer at its end.

    By the file's own tables: a demuxer would build an index of hundreds of megabytes to reach the middle of a long book.
    """
    descriptor = files.open_regular(path)
    try:
        data = Slices(descriptor, os.fstat(descriptor).st_size)
        for low, offsets, sizes in boxes.packet_places(data, first, stop):
            begin, end = int(offsets.min()), int((offsets + sizes).max())
            # Packets of one stream lie close together, one after the other; where they don't, each is read by itself.
            near = end - begin < _READ_AT_ONCE
            block = data.read(begin, end) if near else b""
            for number, (offset, size) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True), low):
                yield (
                    number,
                    block[offset - begin : offset - begin + size] if near else data.read(offset, offset + size),
                )
    finally:
        os.close(descriptor)
