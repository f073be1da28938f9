"""Which samples does a source file hold in this range? Exact ranges, bit-identical to decoding from the start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import av
import numpy as np

from aiom4b.adapters import files
from aiom4b.engine import media, mpeg
from aiom4b.engine.encode import Pcm
from aiom4b.engine.slices import Slices
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudioFacts, Codec, Flaw, Name, Samples, Sha256, SourceFile

PREROLL_FRAMES = 96
"""MP3 frames decoded before a range and thrown away. A frame may lean on the bit reservoir of up to 82 earlier ones."""
_PREROLL_PACKETS = 8  # AAC overlaps with one packet; SBR carries its state somewhat further

_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A source file as a worker needs it. ``audio.anchors`` is empty: ``anchor`` is the one to start from.

    ``anchor`` = (number of a frame, its byte offset), at or before the first frame that is needed.
    """

    path: Name
    sha256: Sha256
    audio: AudioFacts
    anchor: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Samples ``start`` up to ``stop`` of a recording, counted as a player presents them.

    ``before`` are the files that flow into this one without declared gaps, in playing order: their last frames warm the
    decoder up. One may be too short for that, hence several.
    """

    recording: Recording
    start: Samples
    stop: Samples
    before: tuple[Recording, ...]


def stretch(root: str, file: SourceFile, start: int, stop: int, before: Sequence[SourceFile] = ()) -> Stretch:
    """Prepare samples [start, stop) of a file below ``root`` for a worker; only as much of the index goes along as is needed.

    ``before``: the files that flow into this one, in playing order; there may be more of them than are needed.
    """
    first = _first_frame(file.audio, start)
    warming: list[Recording] = []
    missing = PREROLL_FRAMES - first
    for one in reversed(before):
        if missing <= 0:
            break
        warming.insert(0, _recording(root, one, max(0, one.audio.frames - missing)))
        missing -= one.audio.frames
    return Stretch(
        recording=_recording(root, file, max(0, first - PREROLL_FRAMES)),
        start=Samples(start),
        stop=Samples(stop),
        before=tuple(warming),
    )


def _recording(root: str, file: SourceFile, frame: int) -> Recording:
    anchor = (0, 0)
    if file.audio.codec is Codec.MP3:
        number = frame // mpeg.ANCHOR_FRAMES
        offset = int.from_bytes(file.audio.anchors[number * 8 : number * 8 + 8], "little")
        anchor = (number * mpeg.ANCHOR_FRAMES, offset)
    return Recording(
        path=os.path.join(root, file.path),
        sha256=file.sha256,
        audio=replace(file.audio, anchors=b"", damage=()),
        anchor=anchor,
    )


def _first_frame(audio: AudioFacts, start: int) -> int:
    return (audio.start_skip + start) // audio.samples_per_frame


class Decoder:
    """Reads stretches one after the other; ``flaws`` are the frames that could not be decoded and became silence."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []

    def read(self, wanted: Stretch) -> Iterator[Pcm]:
        """Yield the stretch in pieces of some thousand samples, with the recording's own rate and channels."""
        audio = wanted.recording.audio
        pieces = self._mp3(wanted) if audio.codec is Codec.MP3 else self._aac(wanted)
        first = _first_frame(audio, wanted.start)
        drop = audio.start_skip + wanted.start - first * audio.samples_per_frame
        left = wanted.stop - wanted.start
        for piece in pieces:
            kept = piece[:, drop : drop + left]
            drop = max(0, drop - piece.shape[1])
            left -= kept.shape[1]
            if kept.shape[1]:
                yield kept
        if left:
            raise NeedsAttention(
                "audio.changed",
                f"{wanted.recording.path} gave {left} samples less than its frames promise.",
                remedy="Copy the file again from where it came from, then convert the book again.",
                path=wanted.recording.path,
            )

    def _mp3(self, wanted: Stretch) -> Iterator[Pcm]:
        """Yield all samples of the frames that the stretch touches."""
        audio = wanted.recording.audio
        first = _first_frame(audio, wanted.start)
        last = -(-(audio.start_skip + wanted.stop) // audio.samples_per_frame)
        warm = max(0, first - PREROLL_FRAMES)
        packets = [packet for one in wanted.before for packet in _mp3_frames(one, one.anchor[0], one.audio.frames)]
        unheard = len(packets) + first - warm
        packets += _mp3_frames(wanted.recording, warm, last)
        decoder = _mp3_decoder()
        for begin in range(0, len(packets), _BATCH):
            batch = packets[begin : begin + _BATCH]
            frames = self._decode_at_once(decoder, batch, audio.samples_per_frame)
            if frames is None:
                decoder = _mp3_decoder()
                for packet in packets[max(0, begin - PREROLL_FRAMES) : begin]:
                    self._decode(decoder, packet, audio.samples_per_frame)
                frames = [self._decode(decoder, packet, audio.samples_per_frame) for packet in batch]
            drop = max(0, unheard - begin)
            if drop < len(frames):
                yield self._pcm(frames[drop:], wanted.recording, first + begin + drop - unheard)

    def _decode_at_once(
        self, decoder: av.AudioCodecContext, packets: Sequence[bytes], samples: int
    ) -> Sequence[av.AudioFrame | None] | None:
        """Decode MP3 frames in one call, which saves a seventh; None when one of them is bad, for then it isn't known which."""
        try:
            frames = decoder.decode(av.Packet(b"".join(packets)))
        except av.error.FFmpegError:
            return None
        whole = len(frames) == len(packets) and all(frame.samples == samples for frame in frames)
        return frames if whole else None

    def _decode(self, decoder: av.AudioCodecContext, packet: bytes, samples: int) -> av.AudioFrame | None:
        """Decode one packet; None when nothing whole came out."""
        try:
            frames = decoder.decode(av.Packet(packet))
        except av.error.FFmpegError:
            return None
        return frames[0] if len(frames) == 1 and frames[0].samples == samples else None

    def _pcm(self, frames: Sequence[av.AudioFrame | None], recording: Recording, first: int) -> Pcm:
        """Return the frames from number ``first`` on end to end, silence for those that are missing."""
        audio = recording.audio
        whole = [frame for frame in frames if frame is not None]
        try:
            if len(whole) == len(frames):
                return media.pcm_of(whole, audio.channels)
        except ValueError:  # old collections switch between mono and stereo inside a file
            pass
        pieces = []
        for number, frame in enumerate(frames, first):
            if frame is None:
                second = (number * audio.samples_per_frame - audio.start_skip) / audio.sample_rate
                self.flaws.append(Flaw(sha256=recording.sha256, second=round(max(0.0, second), 2)))
                pieces.append(np.zeros((audio.channels, audio.samples_per_frame), np.float32))
            else:
                sound = media.pcm_of([frame], len(frame.planes))
                alike = sound.shape[0] == audio.channels
                pieces.append(sound if alike else np.repeat(sound.mean(axis=0, keepdims=True), audio.channels, axis=0))
        return np.concatenate(pieces, axis=1, dtype=np.float32)

    def _aac(self, wanted: Stretch) -> Iterator[Pcm]:
        """Yield all samples of the packets that the stretch touches."""
        audio = wanted.recording.audio
        first = _first_frame(audio, wanted.start)
        last = -(-(audio.start_skip + wanted.stop) // audio.samples_per_frame)
        decoder = av.CodecContext.create("aac", "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.extradata = audio.decoder_config
        warm = max(0, first - _PREROLL_PACKETS)
        for number, packet in media.packets(wanted.recording.path, warm, last):
            frame = self._decode(decoder, packet, audio.samples_per_frame)
            if number >= first:
                yield self._pcm([frame], wanted.recording, number)


def _mp3_decoder() -> av.AudioCodecContext:
    decoder = av.CodecContext.create("mp3float", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    return decoder


def _mp3_frames(recording: Recording, start: int, stop: int) -> Iterator[bytes]:
    """Yield the frames [start, stop) of an MP3 as they stand in the file."""
    number, offset = recording.anchor
    descriptor = files.open_regular(recording.path)
    try:
        data = Slices(descriptor, os.fstat(descriptor).st_size)
        places = mpeg.frames(data, offset, stop - number)[start - number :]
        if not places:
            return
        begin = places[0][0]
        block = data.read(begin, sum(places[-1]))
    finally:
        os.close(descriptor)
    for position, size in places:
        yield block[position - begin : position - begin + size]
