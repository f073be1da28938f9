"""Where does each file lie on the book's timeline? Rates, channels, joins and exact lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aiom4b.models import AudioFacts, Codec, Part, Run, Samples, Timeline


def common_rate(audio: Sequence[AudioFacts]) -> int:
    """Return the rate that most of the sound has, the higher one of equals: whoever is resampled loses a little."""
    lengths: Counter[int] = Counter()
    for facts in audio:
        lengths[facts.sample_rate] += round(facts.seconds * 1000)
    return max(lengths, key=lambda rate: (lengths[rate], rate))


def lay_out(audio: Sequence[AudioFacts], order: Sequence[int], sample_rate: int, channels: int) -> Timeline:
    """Lay the files one after the other. ``audio`` is indexed by ``order``; lengths are exact.

    Consecutive files of one rate are a run and are resampled as one stream: n samples become ceil(n * to / from).
    """
    runs: list[Run] = []
    position = 0
    index = 0
    while index < len(order):
        rate = audio[order[index]].sample_rate
        parts: list[Part] = []
        length = 0
        while index < len(order) and audio[order[index]].sample_rate == rate:
            facts = audio[order[index]]
            joined = bool(parts) and flows_into(audio[order[index - 1]], facts)
            parts.append(Part(file=order[index], start=Samples(length), samples=facts.samples, joined=joined))
            length += facts.samples
            index += 1
        samples = -(-length * sample_rate // rate)
        runs.append(
            Run(
                sample_rate=rate,
                parts=tuple(parts),
                source_samples=Samples(length),
                start=Samples(position),
                samples=Samples(samples),
            )
        )
        position += samples
    return Timeline(sample_rate=sample_rate, channels=channels, samples=Samples(position), runs=tuple(runs))


def starts(timeline: Timeline) -> tuple[Samples, ...]:
    """Return where each file begins, in playing order, at the book's rate."""
    return tuple(
        Samples(run.start + round(part.start * timeline.sample_rate / run.sample_rate))
        for run in timeline.runs
        for part in run.parts
    )


def flows_into(before: AudioFacts, after: AudioFacts) -> bool:
    """Whether two MP3s were cut from one recording: no padding declared at the border, and the same kind of frames.

    A fresh decoder at such a border clicks (-30 dBFS); one decoder across it is seamless (-96 dBFS).
    """
    return (
        before.codec is Codec.MP3
        and after.codec is Codec.MP3
        and before.end_discard == 0
        and after.start_skip == 0
        and (before.sample_rate, before.channels, before.mpeg_version)
        == (after.sample_rate, after.channels, after.mpeg_version)
    )
