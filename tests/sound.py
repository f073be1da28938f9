"""What does test audio sound like? Deterministic sound, real MP3s and M4As of it, ways to damage them, and a reference decode.

PCM is ``float32`` of shape ``[channels, samples]``, within ±1, everywhere in the suite. Files are ``bytes``. Every maker is
deterministic, and the encoders remember what they made, so the same sound is encoded once a session.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

PCM = NDArray[np.float32]
LAYOUTS = {1: "mono", 2: "stereo"}
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

_made: dict[tuple[object, ...], bytes] = {}


def _once(key: tuple[object, ...], pcm: PCM, make: Callable[[], bytes]) -> bytes:
    whole = (*key, pcm.shape, hashlib.sha256(np.ascontiguousarray(pcm)).hexdigest())
    if whole not in _made:
        _made[whole] = make()
    return _made[whole]


# --- sound ------------------------------------------------------------------------------------------------------------


def speech(seconds: float, rate: int, *, channels: int = 1, seed: int = 1) -> PCM:
    """Return something like speech: voiced bursts with formants, hisses, short pauses; no two seconds alike.

    Peaks at 0.7. Several channels carry the same voice at different loudness plus a little noise of their own.
    Every whole second holds sound, so a signal-to-noise ratio per second means something.
    """
    total = round(seconds * rate)
    random = np.random.default_rng(seed)
    voice = np.zeros(total)
    at = 0
    while at < total:
        length = min(total - at, int(rate * random.uniform(0.08, 0.28)))
        envelope = np.hanning(length) ** 0.5
        if random.random() < 0.72:
            pitch = random.uniform(90, 210) * (1 + 0.08 * np.linspace(-1, 1, length) * random.choice((-1, 1)))
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            formants = (random.uniform(300, 800), random.uniform(900, 2200), random.uniform(2300, 3200))
            burst = np.zeros(length)
            for harmonic in range(1, 33):
                frequency = harmonic * float(pitch.mean())
                if frequency > 0.45 * rate:
                    break
                strength = sum(np.exp(-(((frequency - f) / 180) ** 2)) for f in formants) + 0.25 / harmonic
                burst += strength * np.sin(harmonic * phase)
        else:
            burst = 0.5 * np.diff(random.standard_normal(length + 1))
        voice[at : at + length] += envelope * burst
        at += length + int(rate * random.uniform(0.0, 0.09))
    voice *= 0.65 / max(1e-9, float(np.abs(voice).max(initial=0.0)))
    pcm = np.stack([voice * (1 - 0.4 * c) + 0.001 * random.standard_normal(total) for c in range(channels)])
    return np.clip(pcm, -0.7, 0.7).astype(np.float32)


def tone(seconds: float, rate: int, *, frequency: float = 440.0, channels: int = 1, level: float = 0.4) -> PCM:
    """Return a sine; in stereo the second channel is a fifth higher, so that swapped or lost channels show."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([level * np.sin(2 * np.pi * frequency * (1 + 0.5 * c) * time) for c in range(channels)]).astype(
        np.float32
    )


def noise(seconds: float, rate: int, *, channels: int = 1, level: float = 0.1, seed: int = 1) -> PCM:
    """Return white noise, uniform within ±``level``."""
    random = np.random.default_rng(seed)
    return random.uniform(-level, level, (channels, round(seconds * rate))).astype(np.float32)


def silence(seconds: float, rate: int, *, channels: int = 1) -> PCM:
    """Return digital silence."""
    return np.zeros((channels, round(seconds * rate)), np.float32)


def clicks(seconds: float, rate: int, *, every: float = 0.25, channels: int = 1, level: float = 0.8) -> PCM:
    """Return silence with one decaying click each ``every`` seconds: shows shifts, and makes encoders switch windows."""
    pcm = silence(seconds, rate, channels=channels)
    click = level * np.exp(-np.arange(64) / 8) * np.where(np.arange(64) % 2, -1, 1)
    for at in range(0, pcm.shape[1] - 64, max(64, round(every * rate))):
        pcm[:, at : at + 64] += click.astype(np.float32)
    return pcm


# --- files ------------------------------------------------------------------------------------------------------------


def mp3(
    pcm: PCM,
    rate: int,
    *,
    bit_rate: int = 64000,
    vbr: int | None = None,
    abr: bool = False,
    joint: bool = True,
    lame_tag: bool = True,
    id3: bytes | None = None,
) -> bytes:
    """Return an MP3 made by LAME: CBR, ABR, or VBR of quality ``vbr`` (0 best … 9).

    ``lame_tag=False`` leaves out the Xing/Info frame, as streamers do. ``id3`` is put in front as it is (see ``id3``).
    ``rate`` (one of MP3_RATES) decides the MPEG version: ≥ 32000 is MPEG-1, ≥ 16000 MPEG-2, below that MPEG-2.5.
    """

    def make() -> bytes:
        target = io.BytesIO()
        options = {"write_xing": "1" if lame_tag else "0", "id3v2_version": "0"}
        with av.open(target, "w", format="mp3", options=options) as container:
            stream = container.add_stream("libmp3lame", rate=rate, layout=LAYOUTS[len(pcm)])
            context = stream.codec_context
            context.format = "fltp"
            context.options = {"abr": str(int(abr)), "joint_stereo": str(int(joint)), "reservoir": "1"}
            if vbr is None:
                context.bit_rate = bit_rate
            else:
                context.options |= {"flags": "+qscale", "global_quality": str(vbr * 118)}
            for frame in _frames(pcm, rate, 1152 if rate >= 32000 else 576):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return target.getvalue()

    return (id3 or b"") + _once(("mp3", rate, bit_rate, vbr, abr, joint, lame_tag), pcm, make)


def m4a(
    pcm: PCM,
    rate: int,
    *,
    bit_rate: int = 64000,
    chapters: Sequence[tuple[float, str]] = (),
    tags: dict[str, str] | None = None,
    codec: str = "aac",
    movie_timescale: int | None = None,
    fragmented: bool = False,
    container_format: str = "ipod",
) -> bytes:
    """Return an MP4 of the sound with its exact length in the edit list and the last packet's duration.

    ``chapters`` are (start in seconds, title). ``movie_timescale`` is the sample rate unless given. ``codec`` may be any that FFmpeg encodes into the container ("alac").
    """

    def make() -> bytes:
        target = io.BytesIO()
        options = {"movie_timescale": str(movie_timescale or rate)}
        if fragmented:
            options["movflags"] = "frag_keyframe+empty_moov"
        with av.open(target, "w", format=container_format, options=options) as container:
            stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(pcm)])
            context = stream.codec_context
            context.bit_rate = bit_rate
            context.format = "fltp" if codec == "aac" else context.codec.audio_formats[0]
            context.options = {"flags": "+bitexact"} | ({"aac_coder": "fast"} if codec == "aac" else {})
            container.metadata.update(tags or {})
            if chapters:
                container.set_chapters(_chapters(chapters, pcm.shape[1], rate))
            for frame in _frames(pcm, rate, 1024):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return target.getvalue()

    key = ("m4a", rate, bit_rate, tuple(chapters), tuple(sorted((tags or {}).items())), codec, movie_timescale)
    return _once((*key, fragmented, container_format), pcm, make)


def _frames(pcm: PCM, rate: int, size: int) -> list[av.AudioFrame]:
    frames = []
    for at in range(0, pcm.shape[1], size):
        block = np.ascontiguousarray(pcm[:, at : at + size], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=LAYOUTS[len(pcm)])
        frame.sample_rate = rate
        frame.pts = at
        frame.time_base = Fraction(1, rate)
        frames.append(frame)
    return frames


def _chapters(chapters: Sequence[tuple[float, str]], samples: int, rate: int) -> list[dict[str, object]]:
    starts = [round(start * rate) for start, _ in chapters]
    stops = [*starts[1:], samples]
    return [
        {"id": number, "start": start, "end": stop, "time_base": Fraction(1, rate), "metadata": {"title": title}}
        for number, (start, stop, (_, title)) in enumerate(zip(starts, stops, chapters, strict=True))
    ]


def id3(frames: bytes = b"", *, padding: int = 0, footer: bool = False) -> bytes:
    """Return an ID3v2.4 tag around ready-made ``frames`` (see ``id3_text``)."""
    size = len(frames) + padding
    four = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    head = b"\x04\0" + (b"\x10" if footer else b"\0") + four
    return b"ID3" + head + frames + bytes(padding) + (b"3DI" + head if footer else b"")


def id3_text(name: str, text: str) -> bytes:
    """Return one ID3v2.4 text frame ("TIT2", "TALB", "TRCK" …) in UTF-8; short texts only (below 126 bytes)."""
    body = b"\x03" + text.encode()
    assert len(body) < 128
    return name.encode() + struct.pack(">I", len(body)) + b"\0\0" + body


def id3v1() -> bytes:
    """Return the 128 bytes of an ID3v1 tag."""
    return b"TAG" + b"Title".ljust(30, b"\0") + bytes(94) + b"\xff"


def apev2(body: bytes = b"\xff\xfb\x90\x00 not audio") -> bytes:
    """Return an APEv2 tag with header and footer; its body may look like audio."""
    head = b"APETAGEX" + struct.pack("<II", 2000, len(body) + 32) + struct.pack("<I", 1)
    return head + b"\0\0\0\xa0" + bytes(8) + body + head + b"\0\0\0\x80" + bytes(8)


def box(kind: bytes, content: bytes = b"") -> bytes:
    """Return a box of an MP4."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


# --- damage -----------------------------------------------------------------------------------------------------------


def cut(data: bytes, at: float) -> bytes:
    """Return the front of a file: ``at`` is a share of it (0.5 = half), or a number of bytes from 1 on, negative from the end."""
    return data[: round(at * len(data)) if 0 < at < 1 else int(at)]


def with_junk(data: bytes, junk: bytes, at: int) -> bytes:
    """Return the file with ``junk`` put in at byte ``at``."""
    return data[:at] + junk + data[at:]


# --- reference --------------------------------------------------------------------------------------------------------


def packets(data: bytes, *, format: str = "mp3") -> list[tuple[bytes, int, int]]:
    """Return what FFmpeg's demuxer makes of a file: (payload, samples to skip at its start, samples to drop at its end)."""
    found = []
    with av.open(io.BytesIO(data), format=format, metadata_errors="replace") as container:
        for packet in container.demux(audio=0):
            if packet.size:
                skip = drop = 0
                for side in packet.iter_sidedata():
                    if side.data_type == "skip_samples":
                        skip, drop = struct.unpack_from("<II", bytes(side))
                found.append((bytes(packet), skip, drop))
    return found


def decoded(data: bytes, *, format: str = "mp3") -> PCM:
    """Return the sound of a file as FFmpeg's own demuxer and decoder give it, with declared delay and padding removed.

    Of an MP4 the end is not trimmed: FFmpeg gives whole frames there.
    """
    with av.open(io.BytesIO(data), format=format, metadata_errors="replace") as container:
        pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(pieces, axis=1).astype(np.float32)
