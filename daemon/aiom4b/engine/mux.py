"""How do packets become an .m4b? One track with exact length, hidden priming and chapters to the sample."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer

from aiom4b.adapters import files
from aiom4b.engine import aac, encode, media
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import AudibleKey, Chapter, Encoder, Name, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Packets to be laid one after the other: an ADTS segment of ours (``ours``), or the first packets of an AAC source.

    ``key`` opens that source where it is locked.
    """

    path: Name
    packets: int
    ours: bool
    key: AudibleKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxRequest:
    """What goes into the file. ``priming`` samples are hidden at the start; ``samples`` are presented after them.

    ``stretches`` are the packets of the book, in the portions whose hashes are wanted.

    ``encoder`` is None where packets are copied: then codec settings come from the first source. ``block`` is the length of
    a packet in samples.
    """

    folder: Name
    name: str
    pieces: tuple[Piece, ...]
    stretches: tuple[range, ...]
    encoder: Encoder | None
    sample_rate: int
    block: int
    priming: Samples
    samples: Samples
    chapters: tuple[Chapter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Muxed:
    """What went in: of a stretch the SHA-256 of its bare packets laid end to end, and their bytes."""

    packets: int
    sha256: str
    payload_bytes: int


def mux(request: MuxRequest) -> tuple[Muxed, ...]:
    """Write ``folder/name``; runs in a worker that ends afterwards, since a long book leaves it with much memory.

    The bytes depend on the request alone: no dates, no versions. The file is not yet flushed to disk. Raises Transient
    ``segment.damaged`` with the ``path`` of a segment that is torn, ``source.changed``, ``space.full``.
    """
    with files.translated(request.folder, "writing the book"):
        try:
            return _mux(request)
        except av.error.FFmpegError as error:
            if error.errno is not None and error.errno in errno.errorcode:  # FFmpeg's own codes are far above
                raise OSError(error.errno, os.strerror(error.errno)) from error
            raise NeedsAttention(
                "mux.failed",
                f"The book could not be put together: {error.strerror}.",
                remedy="Try again; if it happens again, please report it with this message.",
                path=request.folder,
            ) from error


def _mux(request: MuxRequest) -> tuple[Muxed, ...]:
    """Do what `mux` does; raises FFmpegError too, also from the end of the block, where the container is closed."""
    with ExitStack() as stack:
        folder = os.open(request.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        # By descriptor: a library's path may hold bytes or colons that FFmpeg reads otherwise.
        container = stack.enter_context(
            av.open(
                f"file:/proc/self/fd/{folder}/{request.name}",
                "w",
                format="ipod",
                # With the movie's clock at the sample rate, duration and chapters are exact; the default rounds to
                # milliseconds.
                options={
                    "movflags": "+faststart",
                    "movie_timescale": str(request.sample_rate),
                    "fflags": "+bitexact",
                },
            )
        )
        stream = _stream(request, container, stack)
        container.set_chapters(_chapters(request))
        return _write(request, container, stream)


def _stream(request: MuxRequest, container: OutputContainer, stack: ExitStack) -> av.AudioStream:
    if request.encoder is None:
        source = stack.enter_context(media.open_mp4(request.pieces[0].path, key=request.pieces[0].key))
        stream = container.add_stream_from_template(source.streams.audio[0])
    else:
        # The muxer takes AudioSpecificConfig and priming from an opened encoder of the same settings.
        stream = container.add_stream(
            "aac", rate=request.sample_rate, layout=encode.layout_name(request.encoder.channels)
        )
        stream.codec_context.bit_rate = request.encoder.bit_rate
    assert isinstance(stream, av.AudioStream)
    stream.time_base = Fraction(1, request.sample_rate)
    return stream


def _chapters(request: MuxRequest) -> list[av.container.Chapter]:
    ends = [chapter.start for chapter in request.chapters[1:]] + [request.samples]
    clock = Fraction(1, request.sample_rate)
    return [
        {"id": number, "start": chapter.start, "end": end, "time_base": clock, "metadata": {"title": chapter.title}}
        for number, (chapter, end) in enumerate(zip(request.chapters, ends, strict=True))
    ]


def _write(request: MuxRequest, container: OutputContainer, stream: av.AudioStream) -> tuple[Muxed, ...]:
    clock = Fraction(1, request.sample_rate)
    position = -request.priming
    data = (one for piece in request.pieces for one in _checked(piece))
    last = request.stretches[-1][-1]
    written = []
    for stretch in request.stretches:
        digest = hashlib.sha256()
        payload = count = 0
        for number, packet in zip(stretch, data, strict=False):
            digest.update(packet)
            payload += packet.size
            packet.stream = stream
            packet.time_base = clock
            packet.pts = packet.dts = position
            packet.duration = request.block if number < last else request.samples - position
            position += request.block
            container.mux_one(packet)
            count += 1
        written.append(Muxed(packets=count, sha256=digest.hexdigest(), payload_bytes=payload))
    # A piece that holds more than it should shows only when somebody asks for more.
    assert next(data, None) is None, "the stretches leave packets out"
    return tuple(written)


def _checked(piece: Piece) -> Iterator[av.Packet[Any]]:
    """Yield the packets of a piece; Transient ``segment.damaged`` (a segment of ours) or ``source.changed`` unless all are there."""
    count = 0
    try:
        for data in _packets(piece):
            count += 1
            if count > piece.packets:
                break
            yield data
        if count != piece.packets:
            more = "more" if count > piece.packets else f"{count}"
            raise ValueError(f"it holds {more} packets instead of {piece.packets}")
    except ValueError as error:
        raise Transient(
            "segment.damaged" if piece.ours else "source.changed",
            f"{piece.path} is not what it was: {error}.",
            remedy="Try again: what is damaged is made anew. Check the disk if it happens again.",
            path=piece.path,
        ) from error


def _packets(piece: Piece) -> Iterator[av.Packet[Any]]:
    if piece.ours:
        with open(files.open_regular(piece.path), "rb") as stream:
            for data in aac.without_headers(stream.read()):
                yield av.Packet(data)
    elif piece.key is not None:
        yield from media.unlocked(piece.path, piece.key, 0, piece.packets)
    else:
        for _, data in media.packets(piece.path, 0, piece.packets):
            yield av.Packet(data)
