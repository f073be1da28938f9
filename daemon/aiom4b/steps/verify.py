"""Does the draft hold the whole audio, in order, and everything else that was planned?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import anyio.to_thread
import numpy as np

import aiom4b
from aiom4b.adapters import files, tags
from aiom4b.engine import encode, inspect, pcm, prove
from aiom4b.engine.aac import FRAME_SAMPLES
from aiom4b.engine.inspect import BookFacts, Expected, RangeReport, RangeRequest, Window
from aiom4b.errors import NeedsAttention
from aiom4b.models import (
    BackupReceipt,
    BookPlan,
    Draft,
    Method,
    Proof,
    Samples,
    Segment,
    Sha256,
    Source,
    SourceFile,
)
from aiom4b.steps.context import StepContext, together

_REMEDY = "Nothing was published. Convert the book again; if it happens again, please report it with this message."
_TASKS_A_WORKER = 2
_SEAM_LOSS = 3.0
_FEW = 8


async def verify(source: Source, plan: BookPlan, receipt: BackupReceipt, draft: Draft, context: StepContext) -> Proof:
    """Open the draft afresh and compare it with the plan, the segments and the sources.

    Changes nothing and may be repeated. Raises NeedsAttention ``proof.*`` at the first thing that does not agree.
    """
    cover = os.path.join(draft.folder, "cover.jpg")
    cover_hash = await anyio.to_thread.run_sync(files.hash_file, cover) if os.path.exists(cover) else ""
    facts = await context.work(inspect.facts, draft.book)
    check_facts(plan, facts, draft.book)
    count = await _check_tags(plan, draft.book, cover_hash, context)
    reports = await together(
        [
            partial(context.work, inspect.check_range, request, audio_seconds=_seconds(plan))
            for request in requests(source.files, plan, receipt.root, draft.book, draft.segments, facts, context.pool.size)
        ]
    )
    every = b"".join(one.ratios for one in draft.segments)
    check_seams(plan, every, reports)
    unit = prove.blocks_a_second(plan.timeline.sample_rate) * FRAME_SAMPLES / plan.timeline.sample_rate
    return Proof(
        against="the verified copy" if receipt.copied else "the source",
        packets=facts.packets,
        samples=facts.samples,
        chapters=len(facts.chapters),
        tags=count,
        sha256=Sha256(await anyio.to_thread.run_sync(files.hash_file, draft.book)),
        sound=prove.summary(every, unit),
        joins=prove.summary(b"".join(report.joins for report in reports), 0.0),
    )


def _seconds(plan: BookPlan) -> float:
    return plan.timeline.samples / plan.timeline.sample_rate


def check_facts(plan: BookPlan, facts: BookFacts, path: str) -> None:
    """Compare what a player sees with the plan; raises NeedsAttention ``proof.facts`` with every difference."""
    differences = []

    def same(what: str, found: object, planned: object) -> None:
        if found != planned:
            differences.append(f"{what} {found} instead of {planned}")

    same("a sample rate of", facts.sample_rate, plan.timeline.sample_rate)
    same("a number of channels of", facts.channels, plan.timeline.channels)
    same("a number of packets of", facts.packets, plan.packets)
    same("a length in samples of", facts.samples, plan.timeline.samples)
    same("a number of chapters of", len(facts.chapters), len(plan.chapters))
    if plan.method is Method.ENCODE:
        same("a priming of", facts.priming, FRAME_SAMPLES)
        same("a decoder configuration of", facts.decoder_config.hex(), encode.decoder_config(plan.encoder).hex())
    for found, planned in zip(facts.chapters, plan.chapters, strict=False):
        if found != planned:
            differences.append(f"a chapter {found.title!r} at {found.start} instead of {planned.title!r} at {planned.start}")
            break
    if differences:
        raise NeedsAttention(
            "proof.facts", f"The finished book has {'; '.join(differences)}.", remedy=_REMEDY, path=path
        )


async def _check_tags(plan: BookPlan, book: str, cover_hash: str, context: StepContext) -> int:
    wanted = tags.book_tags(plan.metadata, book_id=plan.id, tool=f"aiom4b {aiom4b.__version__}")
    found = await context.work(tags.read_back, book)
    planned = dict(wanted)
    if cover_hash:
        planned["covr"] = cover_hash
    different = sorted(name for name in planned.keys() | found.keys() if planned.get(name) != found.get(name))
    if different:
        raise NeedsAttention(
            "proof.tags", f"These tags of the finished book are not as planned: {', '.join(different)}.",
            remedy=_REMEDY, path=book,
        )
    return len(planned)


def requests(
    source_files: Sequence[SourceFile],
    plan: BookPlan,
    root: str,
    book: str,
    segments: Sequence[Segment],
    facts: BookFacts,
    workers: int,
) -> list[RangeRequest]:
    """Divide the finished book among the workers: all packets by their hashes, and the sound round every join.

    Joins are those of segments and of files; the first and last second are looked at too.
    """
    share = max(1, -(-len(segments) // (workers * _TASKS_A_WORKER)))
    encoded = plan.method is Method.ENCODE
    windows = _windows(source_files, plan, root) if encoded else []
    wanted = []
    for place in range(0, len(segments), share):
        group = segments[place : place + share]
        first = group[0].first
        stop = group[-1].first + group[-1].packets
        last = place + share >= len(segments)
        wanted.append(
            RangeRequest(
                path=book,
                sample_rate=plan.timeline.sample_rate,
                channels=plan.timeline.channels,
                expected=tuple(Expected(first=one.first, packets=one.packets, sha256=one.sha256) for one in group),
                windows=tuple(one for one in windows if first <= one.first_block and (one.first_block < stop or last)),
                least=prove.floor(plan.encoder.asked, plan.encoder.sample_rate, plan.encoder.channels)
                if encoded
                else None,
                decoder_config=facts.decoder_config,
            )
        )
    return wanted


def _windows(source_files: Sequence[SourceFile], plan: BookPlan, root: str) -> list[Window]:
    line = plan.timeline
    blocks = -(-line.samples // FRAME_SAMPLES)
    second = prove.blocks_a_second(line.sample_rate)
    joins = {first - 1 for first in range(plan.segment_frames, plan.packets, plan.segment_frames)}
    position = 0
    for run in line.runs:
        for part in run.parts:
            position = run.start + part.start * line.sample_rate // run.sample_rate
            joins.add(min(blocks - 1, position // FRAME_SAMPLES))
    joins |= {0, blocks - 1}
    spans: list[list[int]] = []
    for join in sorted(joins):
        begin, end = max(0, join - second // 2), min(blocks, join + second // 2 + 1)
        if spans and begin <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([begin, end])
    windows = []
    ordered = sorted(joins)
    for begin, end in spans:
        stop = min(end * FRAME_SAMPLES, line.samples)
        windows.append(
            Window(
                first_block=begin,
                blocks=end - begin,
                pcm=pcm.request(line, source_files, root, begin * FRAME_SAMPLES, stop),
                joins=tuple(join for join in ordered if begin <= join < end),
            )
        )
    return windows


def check_seams(plan: BookPlan, every: bytes, reports: Sequence[RangeReport]) -> None:
    """Refuse a book whose joins are worse than the rest of it, in the median: then the segments overlap wrongly.

    One join may fall into a hard second; many can't. Raises NeedsAttention ``proof.seams``.
    """
    rest = np.frombuffer(every, "<f4")
    joins = np.frombuffer(b"".join(report.joins for report in reports), "<f4")
    rest, joins = rest[np.isfinite(rest)], joins[np.isfinite(joins)]
    if len(joins) < _FEW or len(rest) < _FEW:
        return
    loss = float(np.median(rest) - np.median(joins))
    if loss > _SEAM_LOSS:
        raise NeedsAttention(
            "proof.seams",
            f"The joins between the pieces of the book are {loss:.1f} dB worse than the rest of it.",
            remedy=_REMEDY,
            path=plan.target,
        )
