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
    extradata: bytes | None = None,
    fragmented: bool = False,
    container_format: str = "ipod",
) -> bytes:
    """Return an MP4 of the sound with its exact length in the edit list and the last packet's duration.

    ``chapters`` are (start in seconds, title). ``movie_timescale`` is the sample rate unless given. ``extradata`` replaces the
    encoder's AudioSpecificConfig. ``codec`` may be any that FFmpeg encodes into the container ("alac").
    """

    def make() -> bytes:
        target = io.BytesIO()
        options = {"movie_timescale": str(movie_timescale or rate)}
        if fragmented:
            options["movflags"] = "frag_keyframe+empty_moov"
        with av.open(target, "w", format=container_format, options=options) as container:
            encoder = av.CodecContext.create(codec, "w")
            encoder.sample_rate = rate
            encoder.layout = LAYOUTS[len(pcm)]
            encoder.format = encoder.codec.audio_formats[0] if codec != "aac" else "fltp"
            encoder.bit_rate = bit_rate
            encoder.time_base = Fraction(1, rate)
            encoder.options = {"flags": "+bitexact+global_header"} | ({"aac_coder": "fast"} if codec == "aac" else {})
            encoder.open()
            stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(pcm)])
            stream.codec_context.bit_rate = bit_rate
            stream.codec_context.format = encoder.format
            stream.codec_context.options = dict(encoder.options)
            if extradata is not None:
                stream.codec_context.extradata = extradata
            container.metadata.update(tags or {})
            if chapters:
                container.set_chapters(_chapters(chapters, pcm.shape[1], rate))
            for frame in _frames(pcm, rate, 1024):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return target.getvalue()

    key = ("m4a", rate, bit_rate, tuple(chapters), tuple(sorted((tags or {}).items())), codec, movie_timescale)
    return _once((*key, extradata, fragmented, container_format), pcm, make)
