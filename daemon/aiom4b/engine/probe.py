"""What is this file, judged by its bytes? Its hash, and the exact length and shape of its sound; its name says nothing."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fractions import Fraction

import av

from aiom4b.adapters import files
from aiom4b.engine import aac, boxes, media, mpeg
from aiom4b.engine.aac import Shape
from aiom4b.engine.slices import Slices
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.models import AudioFacts, Codec, Damage, FileIdentity, Lock, Mark, Samples, Sha256

_BLOCK = 1 << 22
_LEAP = 1 << 24  # over a cover; a look at the end of a large file is no reason to read all of it
_TRIAL_PACKETS = 4  # SBR shows in the first or second
_MISSING_FRAMES = 1  # some encoders count the header frame too

# what else people name .mp3: offset, magic, and what it is
_STRANGERS = (
    (0, b"RIFF", "a WAV file"),
    (0, b"RF64", "a WAV file"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"caff", "a Core Audio file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media file"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska file"),
    (0, b"ADIF", "an AAC file without a container"),
)
_NO_SOUND = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"\x1f\x8b\x08", "a compressed archive"),
    (0, b"SQLite f", "a database"),
)
_TEXT = bytes({9, 10, 12, 13, 27} | set(range(32, 127)) | set(range(128, 256)))
_STUB = (b"&awtype=", b"assemble_url=", b"domain=www.audible.")
_TAKE_OUT = "Take the file out of the folder, or copy the right one there."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """``max_file_size`` in bytes: larger files are refused unread."""

    max_file_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What one look at a file gave. ``chapters`` are those of an MP4; an MP3's stand in its tags."""

    identity: FileIdentity
    sha256: Sha256
    audio: AudioFacts
    chapters: tuple[Mark, ...]


class _Hashing(Slices):
    """Slices of an open file, each byte of which is hashed on the way, once and in order."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, size)
        self._hash = hashlib.sha256()
        self._hashed = 0

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), hashing what was not seen before."""
        while self._hashed < start <= self._hashed + _LEAP and self._hash_on():
            pass
        block = super().read(start, stop)
        if start <= self._hashed < stop:  # the scan goes forward: hash while the bytes are at hand
            self._hash.update(memoryview(block)[self._hashed - start :])
            self._hashed = start + len(block)
        return block

    def _hash_on(self) -> bool:
        """Hash one more block; False at the end."""
        block = super().read(self._hashed, min(self._hashed + _BLOCK, len(self)))
        self._hash.update(block)
        self._hashed += len(block)
        return bool(block)

    def sha256(self) -> Sha256:
        """Return the hash of the whole file, reading what nobody has asked for."""
        while self._hash_on():
            pass
        return Sha256(self._hash.hexdigest())


def examine(path: str, limits: ProbeLimits) -> Examined:
    """Look at a file once: what it is, by content alone, and exactly how much sound it holds. Runs in a worker.

    No other file is ever opened because of what stands in this one: FFmpeg sees only MP4s, and only their descriptor.

    Raises NeedsAttention ``file.empty``, ``file.too_large``, ``audio.not_audio``, ``audio.unsupported_codec``,
    ``audio.truncated`` (an MP3 that ends before the length its header declares, an MP4 with a part missing), whatever
    ``mpeg.scan`` and ``boxes.sound_track`` refuse, and what ``files.open_regular`` raises; Transient ``source.changed`` when
    the file was not the same before and after, ``file.io`` when the disk fails. ``path`` is set on all of them.
    """
    descriptor = files.open_regular(path)
    try:
        with files.translated(path, "reading"):
            before = files.identity(os.fstat(descriptor))
            try:
                examined = _examine(path, descriptor, before, limits)
            except NeedsAttention:
                _check_unchanged(path, descriptor, before)  # a verdict on half-written bytes is none
                raise
            _check_unchanged(path, descriptor, before)
            return examined
    except Aiom4bError as error:
        error.path = error.path or path
        raise
    finally:
        os.close(descriptor)


def _check_unchanged(path: str, descriptor: int, before: FileIdentity) -> None:
    """Compare both what we read and what the name stands for now: FFmpeg opens the name once more."""
    if files.identity(os.fstat(descriptor)) != before or files.identity(os.lstat(path)) != before:
        raise _changed(f"{files.displayable(path)} changed while it was read.")


def _changed(reason: str) -> Transient:
    return Transient(
        "source.changed", reason, remedy="It is read again as soon as it stays the same; nothing is to be done."
    )


def _examine(path: str, descriptor: int, identity: FileIdentity, limits: ProbeLimits) -> Examined:
    if not identity.size:
        raise NeedsAttention("file.empty", "This file is empty.", remedy=_TAKE_OUT)
    if identity.size > limits.max_file_size:
        raise NeedsAttention(
            "file.too_large",
            f"This file has {identity.size} bytes, more than the {limits.max_file_size} that are allowed.",
            remedy="Raise the limit in the settings if the file is meant to be that large.",
        )
    data = _Hashing(descriptor, identity.size)
    chapters: tuple[Mark, ...] = ()
    if _is_adts(data):
        raise _unsupported("This is AAC without a container; only MP3 and AAC in MP4 are supported.")
    if _is_mp4(data[:512]):
        audio, chapters = _mp4(path, data)
    else:
        audio = mpeg.scan(data)
        _refuse_truncated(path, audio)
    return Examined(identity=identity, sha256=data.sha256(), audio=audio, chapters=chapters)


def _is_mp4(head: bytes) -> bool:
    """Whether the file is an MP4; False leaves MP3 to be tried. Raises what ``examine`` says for anything recognised."""
    if head[4:8] in {b"ftyp", b"moov", b"mdat"}:
        return True
    if head[4:8] == b"\x57\x90\x75\x36":
        raise NeedsAttention(
            "audio.unsupported_codec",
            "This is an Audible book in the old format .aa, which Audible itself gave up in 2020.",
            remedy="Download the book from Audible again: it comes as AAX or AAXC.",
        )
    if any(word in head for word in _STUB):
        raise NeedsAttention(
            "audio.not_audio",
            "This is a stub of Audible's download helper (.adh): an order to download the book, without any sound.",
            remedy="Download the book itself from Audible, as AAX or AAXC.",
        )
    for at, magic, what in _STRANGERS:
        if head.startswith(magic, at):
            raise _unsupported(f"This is {what}; only MP3 and AAC in MP4 are supported.")
    for at, magic, what in _NO_SOUND:
        if head.startswith(magic, at):
            raise NeedsAttention("audio.not_audio", f"This is {what}, not sound.", remedy=_TAKE_OUT)
    if not head.translate(None, _TEXT):
        raise NeedsAttention("audio.not_audio", "This is a text, not sound.", remedy=_TAKE_OUT)
    return False


def _is_adts(data: _Hashing) -> bool:
    """Whether the file begins with two frames of AAC without a container; their layer bits are 0, which no MP3 has."""
    head = data[:7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return data[size : size + 2] == head[:2]


def _unsupported(reason: str) -> NeedsAttention:
    return NeedsAttention("audio.unsupported_codec", reason, remedy="Convert it to MP3 or AAC in MP4 first.")


def _refuse_truncated(path: str, audio: AudioFacts) -> None:
    declared = audio.declared_frames
    if declared is not None and declared - audio.frames > _MISSING_FRAMES:
        seconds = audio.samples_per_frame / audio.sample_rate
        raise NeedsAttention(
            "audio.truncated",
            f"{files.displayable(os.path.basename(path))} ends at second {audio.frames * seconds:.1f}, "
            f"but its header declares {declared * seconds:.1f} seconds.",
            remedy="Copy the file again from where it came from; if it is the same there, it was never complete.",
        )


def _mp4(path: str, data: _Hashing) -> tuple[AudioFacts, tuple[Mark, ...]]:
    track = boxes.sound_track(data)
    if track.lock is not None:
        # Nobody decodes a locked file yet: what its index promises and doesn't hold would be missed only when the book is made.
        for _ in boxes.packet_places(data, 0, track.packets):
            pass
    try:
        with media.open_mp4(path) as container:
            stream = container.streams.audio[0]
            config = bytes(stream.codec_context.extradata or b"")
            shape = _shape(path, stream, config, track.lock)
            chapters = tuple(
                Mark(
                    start_us=round(chapter["start"] * Fraction(chapter["time_base"] or 0) * 1_000_000),
                    title=str(chapter["metadata"].get("title", "")),
                )
                for chapter in container.chapters()
            )
    except (av.error.FFmpegError, IndexError) as error:
        raise NeedsAttention(
            "audio.corrupt",
            f"This MP4 can't be read: {error}.",
            remedy="Copy the file again from where it came from.",
        ) from error
    return _aac_facts(track, shape, config), chapters


def _shape(path: str, stream: av.AudioStream, config: bytes, lock: Lock | None) -> Shape:
    """Return what really comes out of the decoder; of a locked file what it promises, to be compared once it is opened."""
    try:
        if config and aac.object_type(config) == aac.USAC:
            raise NeedsAttention(
                "audio.unsupported_codec",
                "The sound of this MP4 is coded as xHE-AAC (USAC), which can't be put into an audiobook that all players play.",
                remedy="Get the book in its ordinary form (AAC-LC), or convert it first.",
            )
        promised = aac.shape(config) if lock is not None else None
    except ValueError as error:
        raise NeedsAttention(
            "audio.corrupt",
            f"The configuration of this MP4's sound is damaged: {error}.",
            remedy="Copy the file again from where it came from.",
        ) from error
    if stream.codec_context.name != "aac" or not config:
        raise _unsupported(f"The sound of this MP4 is coded as {stream.codec_context.name}; only AAC is supported.")
    shape = promised or _heard(path, config)
    if shape is None:
        raise NeedsAttention(
            "audio.corrupt",
            "The beginning of this MP4 can't be decoded.",
            remedy="Copy the file again from where it came from.",
        )
    if shape.samples_per_frame not in {1024, 2048}:
        raise _unsupported(f"This AAC has {shape.samples_per_frame} samples a frame, which is not supported.")
    return shape


def _heard(path: str, config: bytes) -> Shape | None:
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = config
    shape = None
    for _, packet in media.packets(path, 0, _TRIAL_PACKETS):
        for frame in decoder.decode(av.Packet(packet)):
            shape = Shape(
                sample_rate=frame.sample_rate, channels=len(frame.layout.channels), samples_per_frame=frame.samples
            )
    return shape


def _aac_facts(track: boxes.Track, shape: Shape, config: bytes) -> AudioFacts:
    total = track.packets * shape.samples_per_frame

    def samples(ticks: int) -> int:
        return min(total, round(Fraction(ticks) * shape.sample_rate / track.timescale))

    # A table of durations may trim the last packet. One that is further off is wrong: what no edit hides is all kept.
    trusted = total - shape.samples_per_frame < samples(track.length)
    start = samples(track.start)
    stop = samples(track.stop) if trusted or track.stop < track.length else total
    damage = []
    if not trusted:
        detail = f"the packets last {track.length / track.timescale:.1f} s by the file's table, and really {total / shape.sample_rate:.1f} s"
        damage.append(Damage(code="mp4.wrong_durations", second=0.0, detail=detail))
    if track.other_sound:
        detail = f"{track.other_sound} more sound tracks are in the file; the first one counts"
        damage.append(Damage(code="mp4.other_sound", second=0.0, detail=detail))
    return AudioFacts(
        codec=Codec.AAC,
        sample_rate=shape.sample_rate,
        channels=shape.channels,
        frames=track.packets,
        samples_per_frame=shape.samples_per_frame,
        start_skip=Samples(start),
        end_discard=Samples(total - stop),
        samples=Samples(stop - start),
        bit_rate=round(track.payload_bytes * 8 * shape.sample_rate / total),
        declared_frames=None,
        gapless=track.edited,
        mpeg_version=0,
        decoder_config=config,
        anchors=b"",
        damage=tuple(damage),
        lock=track.lock,
    )
