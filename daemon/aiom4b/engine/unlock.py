"""Does this key open this Audible file? Tried on packets from all over it, since a wrong one gives noise and no error."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import av
from av.container import InputContainer

from aiom4b.adapters import files
from aiom4b.engine import media, segment
from aiom4b.engine.aac import Shape
from aiom4b.models import AudibleKey, AudioFacts

_PLACES = 4
_PACKETS = 48
_TELLING_BYTES = 64
"""Only whole blocks of 16 bytes are encrypted: a packet of silence can be all in the clear, and says nothing of the key."""
_ENOUGH = 12
"""So many packets of noise that all decode don't happen: one in three to one in ten does."""


class Fit(StrEnum):
    """What a key makes of a file."""

    OPENS = "opens"
    WRONG = "wrong"
    DAMAGED = "damaged"  # it opens one place of it and not another
    OTHER_SHAPE = "other_shape"  # HE-AAC that calls itself plain AAC


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The best that any of the keys made of the file, and which of them that was. ``second`` is where it could not be decoded."""

    fit: Fit
    which: int
    second: float = 0.0


_RANK = (Fit.OPENS, Fit.OTHER_SHAPE, Fit.DAMAGED, Fit.WRONG)


def tried(path: str, audio: AudioFacts, keys: tuple[AudibleKey, ...]) -> Trial:
    """Try keys on a locked file until one opens it; ``keys`` holds at least one. Runs in a worker.

    That it opens here is no proof: that is given by decoding all of it. Raises what `files.open_regular` and
    `files.translated` raise.
    """
    trials = []
    for which, key in enumerate(keys):
        fit, second = _fit(path, audio, key)
        if fit is Fit.OPENS:
            return Trial(fit=fit, which=which)
        trials.append(Trial(fit=fit, which=which, second=second))
    return min(trials, key=lambda trial: _RANK.index(trial.fit))


def _fit(path: str, audio: AudioFacts, key: AudibleKey) -> tuple[Fit, float]:
    try:
        with media.open_mp4(path, key=key) as container:
            return _decoded(container, audio)
    except av.error.FFmpegError as error:
        if error.errno is not None and error.errno in errno.errorcode:  # FFmpeg's own are far above
            with files.translated(path, "reading"):
                raise OSError(error.errno, os.strerror(error.errno)) from error
        return Fit.WRONG, 0.0  # activation bytes are checked against a sum in the file before anything is read


def _decoded(container: InputContainer, audio: AudioFacts) -> tuple[Fit, float]:
    promised = Shape(sample_rate=audio.sample_rate, channels=audio.channels, samples_per_frame=audio.samples_per_frame)
    good = 0
    broken: list[float] = []
    for place in range(_PLACES):
        at = audio.frames * place // _PLACES
        decoded, failed, other = _listen(container, audio, at, promised)
        if other:
            return Fit.OTHER_SHAPE, at * audio.samples_per_frame / audio.sample_rate
        if failed:
            broken.append(at * audio.samples_per_frame / audio.sample_rate)
        elif decoded >= _ENOUGH:
            good += 1
    if not broken:
        return Fit.OPENS, 0.0
    return (Fit.DAMAGED if good else Fit.WRONG), broken[0]


def _listen(container: InputContainer, audio: AudioFacts, at: int, promised: Shape) -> tuple[int, bool, bool]:
    """Return how many telling packets from number ``at`` on decode, whether one does not, and whether all have another shape."""
    stream = container.streams.audio[0]
    assert stream.time_base is not None
    if at:
        position = at * audio.samples_per_frame / audio.sample_rate
        with suppress(av.error.FFmpegError):  # where time stamps lie, whatever comes next is as good
            container.seek(round(position / stream.time_base), stream=stream, backward=True)
    decoder = segment.decoder(audio.decoder_config)
    decoded = seen = others = 0
    for packet in container.demux(stream):
        if not packet.size or seen >= _PACKETS:
            break
        seen += 1
        try:
            frames = decoder.decode(av.Packet(bytes(packet)))
        except av.error.FFmpegError:
            return decoded, True, False
        if packet.size < _TELLING_BYTES:
            continue
        for frame in frames:
            shape = Shape(
                sample_rate=frame.sample_rate, channels=len(frame.layout.channels), samples_per_frame=frame.samples
            )
            if shape == promised:
                decoded += 1
            elif shape.samples_per_frame == 2 * promised.samples_per_frame:
                others += 1
            else:
                return decoded, True, False
    return decoded, False, others >= _ENOUGH and not decoded
