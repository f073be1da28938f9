"""Where does FFmpeg get to see a file? Here only: an open descriptor, a forced demuxer, and nothing that it could follow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from aiom4b.adapters import files
from aiom4b.engine import boxes
from aiom4b.engine.slices import Slices
from aiom4b.models import AudibleKey

if TYPE_CHECKING:
    from aiom4b.engine.ciphers import Opener

_READ_AT_ONCE = 8 << 20


@contextmanager
def open_mp4(path: str, *, as_played: bool = False, key: AudibleKey | None = None) -> Iterator[InputContainer]:
    """Open an MP4 by a descriptor of ours; FFmpeg may use that and nothing else, whatever the file asks for.

    With ``as_played`` time stamps follow the edit list, as in a player; without it packets are counted from the first one
    in the file. ``key`` opens an Audible file; with a wrong one, or none, it looks the same and its packets are noise. Raises
    ``av.error.FFmpegError`` where it can't be read.
    """
    descriptor = files.open_regular(path)
    try:
        options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2"}
        if not as_played:
            options["ignore_editlist"] = "1"
        with av.open("fd:", format="mov", options=options | _key_options(key), metadata_errors="replace") as container:
            yield container
    finally:
        os.close(descriptor)


def _key_options(key: AudibleKey | None) -> dict[str, str]:
    if key is None:
        return {}
    if key.activation_bytes:
        return {"activation_bytes": key.activation_bytes}
    return {"audible_key": key.key, "audible_iv": key.iv}


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


def unlocked(path: str, key: AudibleKey, first: int = 0, stop: int = sys.maxsize) -> Iterator[av.Packet[Any]]:
    """Yield the packets [first, stop) of an Audible file's sound, opened by its key; fewer at its end.

    Raises what `packets` raises for an AAXC; for an AAX, whose key lies in the file and only FFmpeg finds it,
    ``av.error.FFmpegError``, and ValueError where there is no packet ``first`` or one is cut off.
    """
    if first >= stop:
        return
    if key.key:
        from aiom4b.engine.ciphers import Opener  # late: OpenSSL is of no use to most books

        yield from (av.Packet(data) for _, data in packets(path, first, stop, Opener(key)))
        return
    at = _place(path, first) if first else None
    # Where time stamps lie, and lead past the packet, the way to it begins at the first one.
    for leap in dict.fromkeys((first, 0)):
        with open_mp4(path, key=key) as container:
            reached = False
            for packet in islice(_from(container, at, leap), stop - first):
                if packet.is_corrupt:
                    raise ValueError("the file ends within a packet")
                reached = True
                yield packet
            if reached or at is None:
                return
    raise ValueError(f"packet {first} is not where the index says")


def _from(container: InputContainer, at: int | None, leap: int) -> Iterator[av.Packet[Any]]:
    """Demux from the packet at byte ``at`` on (None: the first), looking for it from about packet ``leap`` on."""
    stream = container.streams.audio[0]
    if leap:
        with suppress(av.error.FFmpegError):
            container.seek(leap * (stream.duration or 0) // max(1, stream.frames), stream=stream, backward=True)
    packets = (packet for packet in container.demux(stream) if packet.size)  # the last one only tells the end
    return dropwhile(lambda packet: at is not None and packet.pos != at, packets)


def _place(path: str, number: int) -> int:
    descriptor = files.open_regular(path)
    try:
        data = Slices(descriptor, os.fstat(descriptor).st_size)
        for _, offsets, _ in boxes.packet_places(data, number, number + 1):
            return int(offsets[0])
    finally:
        os.close(descriptor)
    raise ValueError(f"there is no packet {number}")


def packets(
    path: str, first: int = 0, stop: int = sys.maxsize, opener: Opener | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the packets [first, stop) of an MP4's sound, fewer at its end; ``opener`` opens locked ones.

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
            if opener is not None and near:
                block = opener.opened(block, offsets - begin, sizes)
            for number, (offset, size) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True), low):
                if near:
                    yield number, block[offset - begin : offset - begin + size]
                    continue
                packet = data.read(offset, offset + size)
                yield (
                    number,
                    packet if opener is None else opener.opened(packet, np.zeros(1, np.int64), np.array([size])),
                )
    finally:
        os.close(descriptor)
