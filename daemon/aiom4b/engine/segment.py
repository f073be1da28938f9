"""How is one segment of a book made? A pure function from source bytes and settings to proved AAC packets."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import av
import numpy as np

from aiom4b.engine import aac, encode, likeness, media, pcm, prove
from aiom4b.engine.encode import Pcm
from aiom4b.engine.pcm import PcmRequest, Reader
from aiom4b.errors import NeedsAttention
from aiom4b.models import FRAME_SAMPLES, BookPlan, Encoder, Flaw, SourceFile

GRID_VERSION = 1
"""Counts up whenever the same request would give other bytes."""

BEFORE, AFTER = 16, 4
"""Blocks encoded before and after a segment and thrown away.

The window decision looks one block ahead and flushing decides without looking: without a block after the last one that a
kept packet covers, windows break at one join in four. Three before are enough to be legal, 16 to sound like the rest.
"""

_CHUNK_BLOCKS = 172  # 4 s: a call for less costs more than it saves in cache


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRequest:
    """Packets ``first`` up to ``first + packets`` of a book, and the PCM (from ``lead`` packets earlier) that they need."""

    first: int
    packets: int
    lead: int
    pcm: PcmRequest
    encoder: Encoder

    @property
    def seconds(self) -> float:
        """Length of the audio that is worked on."""
        return self.pcm.samples / self.encoder.sample_rate

    def key(self) -> str:
        """Return a hash of everything that decides this segment's bytes; paths don't."""
        request = asdict(self)
        for run in request["pcm"]["runs"]:
            for stretch in run["stretches"]:
                for recording in (stretch["recording"], *stretch["before"]):
                    recording["path"] = recording["sha256"]
                    recording["audio"]["decoder_config"] = recording["audio"]["decoder_config"].hex()
                    recording["audio"]["anchors"] = ""
        text = json.dumps([GRID_VERSION, encode.build(), BEFORE, AFTER, request], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSegment:
    """What a worker returns: an ADTS stream, the SHA-256 of the bare packets, their bytes, and the proof.

    ``ratios``: see ``prove.summary``. ``flaws``: frames that could not be decoded; ``bad_samples`` counts NaN and infinite ones.
    """

    adts: bytes
    sha256: str
    payload_bytes: int
    ratios: bytes
    flaws: tuple[Flaw, ...]
    bad_samples: int


def grid(plan: BookPlan, source_files: Sequence[SourceFile], root: str) -> list[SegmentRequest]:
    """Return the requests for all segments of a plan, in order; ``root`` is where the files lie."""
    blocks = -(-plan.timeline.samples // FRAME_SAMPLES)
    requests = []
    for packets in plan.segments:
        first, last = packets.start, packets.stop
        begin, end = max(0, first - BEFORE), min(blocks, last + AFTER)
        stop = min(end * FRAME_SAMPLES, plan.timeline.samples)
        wanted = pcm.request(plan.timeline, source_files, root, begin * FRAME_SAMPLES, stop)
        requests.append(
            SegmentRequest(first=first, packets=len(packets), lead=first - begin, pcm=wanted, encoder=plan.encoder)
        )
    return requests


def make_segment(request: SegmentRequest) -> MadeSegment:
    """Decode, encode and prove one segment; runs in a worker, streams, and holds a few seconds of PCM at most.

    Raises NeedsAttention ``proof.sound`` when the packets do not decode to the sound that they were made from.
    """
    encoder = request.encoder
    reader = Reader()
    taken = _Taken(reader, request)
    hearing = decoder(encode.decoder_config(encoder))
    least = likeness.floor(encoder.asked, encoder.sample_rate, encoder.channels)
    comparison = prove.Comparison(encoder.sample_rate, encoder.channels, least)

    # Local packet j decodes to local block j-1. Of the kept packets [lead, lead + n) all blocks are proved whose both
    # halves this encoder made: the first one, which overlaps with the segment before, is looked at in the finished file.
    keep_from, keep_to = request.lead, request.lead + request.packets
    hear_from = max(keep_from, 1)
    blocks_from, blocks_to = hear_from - 1, keep_to - 1
    kept: list[bytes] = []
    number = 0
    try:
        for packets in encode.packets(taken.chunks(blocks_from, blocks_to), encoder):
            kept += packets[max(0, keep_from - number) : max(0, keep_to - number)]
            sound = _decoded_at_once(hearing, packets[: max(0, keep_to - number)], encoder.channels)
            comparison.hear(sound[:, max(0, hear_from - number) * FRAME_SAMPLES :])
            number += len(packets)
            for piece in taken.due():
                comparison.expect(piece)
        if len(kept) != request.packets:
            raise likeness.Mismatch(0.0, f"the encoder gave {len(kept)} packets instead of {request.packets}")
        ratios = comparison.finish()
    except likeness.Mismatch as mismatch:
        start = (request.first - request.lead + blocks_from) * FRAME_SAMPLES / encoder.sample_rate
        raise NeedsAttention(
            "proof.sound",
            f"What was encoded is not what the source holds: at second {start + mismatch.second:.0f} of the book {mismatch.detail}.",
            remedy='Nothing was published. Check that part of the source by ear; encode.aac_coder = "twoloop" or a higher encode.bitrate may help.',
        ) from mismatch
    digest = hashlib.sha256()
    for packet in kept:
        digest.update(packet)
    return MadeSegment(
        adts=aac.with_headers(kept, encoder.sample_rate, encoder.channels),
        sha256=digest.hexdigest(),
        payload_bytes=sum(map(len, kept)),
        ratios=ratios,
        flaws=reader.flaws,
        bad_samples=taken.bad_samples,
    )


def decoder(config: bytes) -> av.AudioCodecContext:
    """Return an AAC decoder for packets of this AudioSpecificConfig."""
    context = av.CodecContext.create("aac", "r")
    assert isinstance(context, av.AudioCodecContext)
    context.extradata = config
    context.thread_count = 1
    return context


def decoded(decoder: av.AudioCodecContext, packets: Sequence[bytes], channels: int) -> Pcm:
    """Decode AAC packets to one block each; Mismatch when one is none."""
    return _sound(decoder, packets, len(packets), channels)


def _decoded_at_once(decoder: av.AudioCodecContext, packets: Sequence[bytes], channels: int) -> Pcm:
    """Decode the encoder's own packets in one call, which saves a fifth.

    It hears the same, but would not notice packets divided at wrong places: those of a file are decoded one by one.
    """
    joined = [b"".join(packets)] if packets else []  # an empty one would end the stream
    return _sound(decoder, joined, len(packets), channels)


def _sound(decoder: av.AudioCodecContext, pieces: Sequence[bytes], blocks: int, channels: int) -> Pcm:
    frames: list[av.AudioFrame] = []
    try:
        for piece in pieces:
            frames += decoder.decode(av.Packet(piece))
        sound = media.pcm_of(frames, channels)
    except av.error.FFmpegError as error:
        raise likeness.Mismatch(0.0, f"the decoder refuses a packet ({error.strerror})") from error
    except ValueError as error:
        raise likeness.Mismatch(0.0, "the channels are not those that were asked for") from error
    if sound.shape[1] != blocks * FRAME_SAMPLES:
        raise likeness.Mismatch(0.0, "a packet does not decode to one block")
    return sound


class _Taken:
    """Hands PCM to the encoder in whole blocks and keeps what the comparison shall expect."""

    def __init__(self, reader: Reader, request: SegmentRequest) -> None:
        self._reader = reader
        self._request = request
        self._due: deque[Pcm] = deque()
        self.bad_samples = 0

    def chunks(self, blocks_from: int, blocks_to: int) -> Iterator[Pcm]:
        position = 0
        for piece in self._reader.chunks(self._request.pcm, _CHUNK_BLOCKS * FRAME_SAMPLES):
            chunk = piece
            if rest := -chunk.shape[1] % FRAME_SAMPLES:  # the end of the book
                chunk = np.pad(chunk, ((0, 0), (0, rest)))
            self.bad_samples += encode.tame(chunk)
            first = max(0, blocks_from * FRAME_SAMPLES - position)
            last = min(chunk.shape[1], blocks_to * FRAME_SAMPLES - position)
            if first < last:
                self._due.append(chunk[:, first:last])
            position += chunk.shape[1]
            yield chunk

    def due(self) -> Iterator[Pcm]:
        while self._due:
            yield self._due.popleft()
