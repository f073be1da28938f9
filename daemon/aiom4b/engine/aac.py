"""What does AAC look like from outside? Its configuration, ADTS headers, and the window sequence that a join must not break."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


_SPECTRAL_REPLICATION = (5, 29)  # HE-AAC, and its second version
USAC = 42
_ESCAPE = 31
_EXPLICIT_RATE = 15
_SYNC_EXTENSION = 0x2B7
_CHANNELS = (0, 1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What comes out of a decoder: ``samples_per_frame`` at ``sample_rate``."""

    sample_rate: int
    channels: int
    samples_per_frame: int


def object_type(config: bytes) -> int:
    """Return the audio object type of an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1); ValueError if it is too short."""
    return _Bits(config).object_type()


def shape(config: bytes) -> Shape:
    """Return what an AudioSpecificConfig promises: HE-AAC need not say that it is HE-AAC, and then gives twice as much.

    Raises ValueError for what is too short or describes its channels elsewhere.
    """
    bits = _Bits(config)
    kind = bits.object_type()
    rate = bits.rate()
    channels = _CHANNELS[bits.take(4) & 7]
    replicated = kind in _SPECTRAL_REPLICATION
    if replicated:
        rate = bits.rate()
        kind = bits.object_type()
    samples = 960 if bits.take(1) else 1024
    if bits.take(1):  # depends on a core coder
        bits.take(14)
    bits.take(1)
    if not replicated and bits.left >= 16 and bits.take(11) == _SYNC_EXTENSION:
        replicated = bits.object_type() in _SPECTRAL_REPLICATION and bits.take(1) == 1
        rate = bits.rate() if replicated else rate
    if replicated and channels == 1:  # it may turn out to be two by parametric stereo, and decoders always give two
        channels = 2
    if not rate or not channels:
        raise ValueError("it tells neither rate nor channels")
    return Shape(sample_rate=rate, channels=channels, samples_per_frame=samples * (2 if replicated else 1))


class _Bits:
    """Bits from the front, the highest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self.left:
            raise ValueError("it is too short")
        self.left -= count
        return self._value >> self.left & ((1 << count) - 1)

    def object_type(self) -> int:
        kind = self.take(5)
        return 32 + self.take(6) if kind == _ESCAPE else kind

    def rate(self) -> int:
        index = self.take(4)
        if index == _EXPLICIT_RATE:
            return self.take(24)
        return SAMPLE_RATES[index] if index < len(SAMPLE_RATES) else 0


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
