"""How does PCM become AAC packets? FFmpeg's native encoder, deterministic and without a trace of time or version."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from functools import cache

import av
import numpy as np
from numpy.typing import NDArray

from aiom4b.models import FRAME_SAMPLES, Encoder

Pcm = NDArray[np.float32]
"""float32 samples, [channels, n], full scale ±1."""

CEILING = np.float32(0.95)
"""The encoder turns whole frames down that peak above 0.95, which costs up to 14 dB of signal-to-noise; so we clip first."""


def _open(encoder: Encoder) -> av.AudioCodecContext:
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = encoder.sample_rate
    context.layout = layout_name(encoder.channels)
    context.format = "fltp"
    context.bit_rate = encoder.asked
    context.thread_count = 1
    # Without bitexact the encoder writes its version into a filler element every 256 frames, counted from its own start.
    context.options = {"aac_coder": encoder.aac_coder, "flags": "+bitexact"}
    context.open()
    return context


def layout_name(channels: int) -> str:
    """Return FFmpeg's name for one or two channels."""
    return {1: "mono", 2: "stereo"}[channels]


def decoder_config(encoder: Encoder) -> bytes:
    """Return the AudioSpecificConfig that the encoder announces: five bytes that also say "no SBR", which ADTS can't."""
    context = _open(encoder)
    return bytes(context.extradata or b"")


def packets(chunks: Iterable[Pcm], encoder: Encoder) -> Iterator[list[bytes]]:
    """Encode PCM; yields for each chunk the packets that it completed, and after the last chunk the rest.

    Every chunk must be whole blocks of 1024 samples. Of n blocks come n + 1 packets: packet k covers blocks k-1 and k.
    Many blocks go into one call because each call costs 11 µs, a tenth of the encoding of a block.
    """
    context = _open(encoder)
    layout = layout_name(encoder.channels)
    position = 0
    for chunk in chunks:
        assert chunk.shape[1] % FRAME_SAMPLES == 0
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk), format="fltp", layout=layout)
        frame.sample_rate = encoder.sample_rate
        frame.pts = position
        position += chunk.shape[1]
        yield [bytes(packet) for packet in context.encode(frame)]
    yield [bytes(packet) for packet in context.encode(None)]


def tame(chunk: Pcm) -> int:
    """Make a chunk fit for the encoder, in place: clip to the ceiling, silence what is no number. Returns how many were none.

    One NaN or infinity kills the encoder.
    """
    bad = 0
    if not np.isfinite(chunk).all():
        bad = int(np.count_nonzero(~np.isfinite(chunk)))
        np.nan_to_num(chunk, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.clip(chunk, -CEILING, CEILING, out=chunk)
    return bad


@cache
def build() -> str:
    """Name everything besides input and settings that decides the encoder's bytes: versions, architecture, CPU features.

    Float paths differ between CPUs (three variants of the AAC stream were seen), so segments made on one type of machine
    are not mixed with another's.
    """
    libraries = ",".join(
        f"{name}{'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items())
    )
    features = ""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            flags = next((line for line in info if line.startswith(("flags", "Features"))), "")
        wanted = {"sse2", "sse4_2", "avx", "avx2", "fma", "avx512f", "asimd", "neon"}
        features = ",".join(sorted(wanted & set(flags.split())))
    except OSError:
        features = "unknown"
    return f"av{av.__version__};{libraries};{platform.machine()};{features}"
