"""What does an AAC packet look like from outside? ADTS headers, and the window sequence that a join must not break."""

from __future__ import annotations

from collections.abc import Iterator

from aiom4b.models import SAMPLE_RATES

_HEADER_BYTES = 7
_LOW_COMPLEXITY = 1  # profile of ADTS: audio object type 2 less one

ONLY_LONG, LONG_START, EIGHT_SHORT, LONG_STOP = range(4)
_MAY_FOLLOW = {
    ONLY_LONG: (ONLY_LONG, LONG_START),
    LONG_START: (EIGHT_SHORT,),
    EIGHT_SHORT: (EIGHT_SHORT, LONG_STOP),
    LONG_STOP: (ONLY_LONG, LONG_START),
}
_SINGLE_CHANNEL, _CHANNEL_PAIR = 0, 1


def with_headers(packets: list[bytes], sample_rate: int, channels: int) -> bytes:
    """Return the packets as an ADTS stream: an ordinary ``.aac`` file."""
    index = SAMPLE_RATES.index(sample_rate)
    first, second = 0xFF, 0xF1  # syncword, MPEG-4, no CRC
    third = _LOW_COMPLEXITY << 6 | index << 2 | channels >> 2
    out = bytearray()
    for packet in packets:
        size = len(packet) + _HEADER_BYTES
        fourth = (channels & 3) << 6 | size >> 11
        out += bytes((first, second, third, fourth, size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC))
        out += packet
    return bytes(out)


def without_headers(stream: bytes) -> Iterator[bytes]:
    """Yield the packets of an ADTS stream that ``with_headers`` made; ValueError where it is torn."""
    position, end = 0, len(stream)
    while position < end:
        if end - position < _HEADER_BYTES or stream[position] != 0xFF or stream[position + 1] != 0xF1:
            raise ValueError(f"no ADTS header at byte {position}")
        size = (stream[position + 3] & 3) << 11 | stream[position + 4] << 3 | stream[position + 5] >> 5
        if size < _HEADER_BYTES or position + size > end:
            raise ValueError(f"ADTS frame at byte {position} is torn")
        yield stream[position + _HEADER_BYTES : position + size]
        position += size


def window_sequence(packet: bytes) -> int | None:
    """Return the window sequence of the packet's first channel, or None when another element comes first.

    Syntax: ISO/IEC 14496-3, raw_data_block, single_channel_element, channel_pair_element, ics_info.
    """
    bits = int.from_bytes(packet[:4].ljust(4, b"\0"), "big")
    element = bits >> 29
    if element == _SINGLE_CHANNEL:  # tag 4, global_gain 8, reserved 1, window_sequence 2
        return bits >> (32 - 18) & 3
    if element == _CHANNEL_PAIR:
        common_window = bits >> 24 & 1
        return bits >> (32 - 11) & 3 if common_window else bits >> (32 - 19) & 3
    return None


def may_follow(earlier: int | None, later: int | None) -> bool:
    """Whether two window sequences may stand one after the other; what can't be read is not judged."""
    return earlier is None or later is None or later in _MAY_FOLLOW[earlier]
