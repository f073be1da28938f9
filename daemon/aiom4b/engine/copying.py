"""Is the sound that is copied whole? All of a source's packets decoded, stretch by stretch, before anything is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import av

from aiom4b.adapters import files
from aiom4b.engine import media, segment
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import FRAME_SAMPLES, AudibleKey, AudioFacts, Name

_REMEDY = "The file is damaged there. Get it again from where it came from."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Packets [first, stop) of an AAC file, which ``key`` opens where it is locked."""

    path: Name
    first: int
    stop: int
    key: AudibleKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """Parts laid end to end, cut into stretches of so many packets. ``audio`` describes the files: one kind for all.

    With ``decode`` each packet has to decode; without it only the hashes are wanted.
    """

    parts: tuple[Part, ...]
    stretches: tuple[int, ...]
    audio: AudioFacts
    decode: bool = True

    @property
    def seconds(self) -> float:
        """Length of the audio that is worked on."""
        return sum(self.stretches) * self.audio.samples_per_frame / self.audio.sample_rate


def parts_of(files_in_order: Sequence[Part], first: int, stop: int) -> tuple[Part, ...]:
    """Return the packets [first, stop) of whole files laid end to end."""
    found, position = [], 0
    for whole in files_in_order:
        begin, end = max(first - position, 0), min(stop - position, whole.stop)
        if begin < end:
            found.append(Part(path=whole.path, first=begin, stop=end, key=whole.key))
        position += whole.stop
    return tuple(found)


def stretches(request: CopyRequest) -> tuple[tuple[str, int], ...]:
    """Return of each stretch the SHA-256 of its packets laid end to end, and their bytes; runs in a worker.

    Raises NeedsAttention ``audio.damaged`` where a packet does not decode, Transient ``source.changed`` where one is missing.
    """
    decoding = _Decoding(request.audio) if request.decode else None
    packets = (packet for part in request.parts for packet in _packets(part))
    found = []
    for length in request.stretches:
        digest = hashlib.sha256()
        count = size = 0
        for path, number, packet in islice(packets, length):
            digest.update(packet)
            size += packet.size
            count += 1
            if decoding is not None:
                decoding.hear(path, number, packet)
        if count < length:
            raise _ended(request.parts[-1].path)
        found.append((digest.hexdigest(), size))
    return tuple(found)


def _packets(part: Part) -> Iterator[tuple[Name, int, av.Packet[Any]]]:
    try:
        if part.key is not None:
            for number, packet in enumerate(media.unlocked(part.path, part.key, part.first, part.stop), part.first):
                yield part.path, number, packet
        else:
            for number, data in media.packets(part.path, part.first, part.stop):
                yield part.path, number, av.Packet(data)
    except (av.error.FFmpegError, ValueError) as error:
        raise _ended(part.path) from error


def _ended(path: Name) -> Transient:
    return Transient(
        "source.changed",
        f"{files.displayable(path)} is not what it was: packets are missing.",
        remedy="Wait until nothing writes to it any more, then try again.",
        path=path,
    )


class _Decoding:
    """Decodes packets one by one and wants sound of one shape from each."""

    def __init__(self, audio: AudioFacts) -> None:
        self._audio = audio
        self._decoder = segment.decoder(audio.decoder_config)
        self._shapes = shapes(audio.samples_per_frame, audio.channels, audio.sample_rate)

    def hear(self, path: Name, number: int, packet: av.Packet[Any]) -> None:
        why = undecodable(self._decoder, packet, self._shapes)
        if why:
            second = number * self._audio.samples_per_frame / self._audio.sample_rate
            raise NeedsAttention(
                "audio.damaged",
                f"{files.displayable(path)} can't be decoded at second {second:.1f}: {why}.",
                remedy=_REMEDY,
                path=path,
            )


def shapes(block: int, channels: int, sample_rate: int) -> set[tuple[int, int, int]]:
    """Return what a decoder may give: samples of a frame, channels, sample rate.

    That of HE-AAC begins with the plain half of it, until it has heard of the other.
    """
    whole = (block, channels, sample_rate)
    if block == FRAME_SAMPLES:
        return {whole}
    return {whole, (block // 2, channels, sample_rate // 2), (block // 2, 1, sample_rate // 2)}


def undecodable(decoder: av.AudioCodecContext, packet: av.Packet[Any], expected: set[tuple[int, int, int]]) -> str:
    """Return why a packet does not decode as it should, "" when it does; an empty set expects nothing of its shape."""
    try:
        frames = decoder.decode(packet)
    except av.error.FFmpegError as error:
        return error.strerror or str(error)
    for frame in frames:
        # Noise sometimes decodes, to channels that the book has not.
        if expected and (frame.samples, frame.layout.nb_channels, frame.sample_rate) not in expected:
            return "its sound has another shape"
    return ""
