"""Does the draft hold the whole audio, in order, and everything else that was planned?"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from functools import partial

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from aiom4b.adapters import files, tags
from aiom4b.adapters.records import Record
from aiom4b.engine import copying, encode, inspect, likeness, pcm, probe, prove
from aiom4b.engine.inspect import BookFacts, Expected, RangeReport, RangeRequest, Window
from aiom4b.engine.probe import ProbeLimits
from aiom4b.errors import NeedsAttention
from aiom4b.models import (
    FRAME_SAMPLES,
    BackupReceipt,
    BookPlan,
    Draft,
    FileTags,
    Method,
    Progress,
    Proof,
    Sha256,
    Source,
    SourceFile,
    Step,
)
from aiom4b.steps.context import TOOL, StepContext, needs_own_worker, together
from aiom4b.steps.unlock import unlock

_REMEDY = "Nothing was published. Convert the book again; if it happens again, please report it with this message."
_TASKS_A_WORKER = 2
_PACKETS_HEARD = 8
_SEAM_LOSS = 3.0
_FEW = 8
_DEVIATIONS = 3.0  # one good book in 700, of those whose medians happen to lie apart


async def verify(source: Source, plan: BookPlan, receipt: BackupReceipt, draft: Draft, context: StepContext) -> Proof:
    """Open the draft afresh and compare it with the plan, the segments and the sources.

    Changes nothing and may be repeated. Raises NeedsAttention ``proof.*`` at the first thing that does not agree.
    """
    cover = os.path.join(draft.folder, "cover.jpg")
    cover_hash = await anyio.to_thread.run_sync(files.hash_file, cover) if os.path.exists(cover) else ""
    facts = await context.work(inspect.facts, draft.book, single_use=needs_own_worker(plan.packets))
    check_facts(plan, facts, draft.book)
    if plan.method is Method.COPY:
        _check_configuration(source.files[plan.order.files[0]].audio.decoder_config, facts, draft.book)
    count = await _check_tags(plan, draft.book, cover_hash, context)
    pieces = [Expected(first=one.first, packets=one.packets, sha256=one.sha256) for one in draft.segments]
    windows = join_windows(source.files, plan, receipt.root) if plan.method is Method.ENCODE else []
    block = _block(plan, source.files)
    # What is copied was decoded packet by packet before; here it is enough that its packets are divided where they were.
    some = _PACKETS_HEARD if plan.method is Method.COPY else 0
    reports = await _check_ranges(plan, draft.book, pieces, windows, facts, block, context, decode=some)
    every = b"".join(one.ratios for one in draft.segments)
    check_seams(draft.book, reports)
    return Proof(
        against="the verified copy" if receipt.copied else "the source",
        packets=facts.packets,
        samples=facts.samples,
        chapters=len(facts.chapters),
        tags=count,
        sha256=Sha256(await anyio.to_thread.run_sync(files.hash_file, draft.book)),
        sound=prove.summary(every, _unit(plan)),
        joins=prove.summary(b"".join(report.ratios for report in reports), 0.0),
    )


def _block(plan: BookPlan, source_files: Sequence[SourceFile]) -> int:
    """Return how many samples a packet of the book holds."""
    copied = plan.method is Method.COPY
    return source_files[plan.order.files[0]].audio.samples_per_frame if copied else FRAME_SAMPLES


def _unit(plan: BookPlan) -> float:
    return prove.blocks_a_second(plan.timeline.sample_rate) * FRAME_SAMPLES / plan.timeline.sample_rate


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
            differences.append(
                f"a chapter {found.title!r} at {found.start} instead of {planned.title!r} at {planned.start}"
            )
            break
    if differences:
        raise NeedsAttention(
            "proof.facts", f"The finished book has {'; '.join(differences)}.", remedy=_REMEDY, path=path
        )


def _check_configuration(of_source: bytes, facts: BookFacts, path: str) -> None:
    if facts.decoder_config != of_source:
        raise NeedsAttention(
            "proof.facts",
            f"The finished book has a decoder configuration of {facts.decoder_config.hex()} instead of {of_source.hex()}.",
            remedy=_REMEDY,
            path=path,
        )


async def _check_tags(plan: BookPlan, book: str, cover_hash: str, context: StepContext) -> int:
    wanted = tags.book_tags(plan.metadata, book_id=plan.id, tool=TOOL)
    found = await context.work(tags.read_back, book)
    planned = dict(wanted)
    if cover_hash:
        planned["covr"] = cover_hash
    different = sorted(name for name in planned.keys() | found.keys() if planned.get(name) != found.get(name))
    if different:
        raise NeedsAttention(
            "proof.tags",
            f"These tags of the finished book are not as planned: {', '.join(different)}.",
            remedy=_REMEDY,
            path=book,
        )
    return len(planned)


async def _check_ranges(
    plan: BookPlan,
    book: str,
    pieces: Sequence[Expected],
    windows: Sequence[Window],
    facts: BookFacts,
    block: int,
    context: StepContext,
    *,
    decode: int = 0,
) -> list[RangeReport]:
    """Divide the finished book among the workers: all packets by their hashes, the sound in the windows, or by ``decode`` packets."""
    share = max(1, -(-len(pieces) // (context.pool.size * _TASKS_A_WORKER)))
    encoder = plan.encoder
    least = likeness.floor(encoder.asked, encoder.sample_rate, encoder.channels)
    requests = []
    for place in range(0, len(pieces), share):
        group = pieces[place : place + share]
        stop = plan.packets if place + share >= len(pieces) else group[-1].first + group[-1].packets
        requests.append(
            RangeRequest(
                path=book,
                sample_rate=plan.timeline.sample_rate,
                channels=plan.timeline.channels,
                block=block,
                expected=tuple(group),
                windows=tuple(one for one in windows if group[0].first <= one.first_block < stop),
                least=least if plan.method is Method.ENCODE else None,
                decode=decode,
                decoder_config=facts.decoder_config,
            )
        )
    done = 0

    async def check(request: RangeRequest) -> RangeReport:
        nonlocal done
        report = await context.work(inspect.check_range, request, audio_seconds=plan.timeline.seconds)
        done += 1
        context.report(Progress(step=Step.VERIFY, done=done, total=len(requests)))
        return report

    context.report(Progress(step=Step.VERIFY, done=0, total=len(requests)))
    return await together([partial(check, one) for one in requests])


def join_windows(source_files: Sequence[SourceFile], plan: BookPlan, root: str) -> list[Window]:
    """Return a second round every join of segments and of files, and round the beginning and end of the book."""
    line = plan.timeline
    blocks = -(-line.samples // FRAME_SAMPLES)
    second = prove.blocks_a_second(line.sample_rate)
    segments = {one.start - 1 for one in plan.segments[1:]}
    places = segments | {0, blocks - 1}
    for run in line.runs:
        for part in run.parts:
            position = run.start + part.start * line.sample_rate // run.sample_rate
            places.add(min(blocks - 1, position // FRAME_SAMPLES))
    spans: list[tuple[int, int]] = []
    for place in sorted(places):
        begin, end = max(0, place - second // 2), min(blocks, place + second // 2 + 1)
        if spans and begin <= spans[-1][1]:
            begin, _ = spans.pop()
        spans.append((begin, end))
    # Only the joins of segments are ours to answer for: between two files the source itself may jump.
    return [
        _window(source_files, plan, root, begin, end, tuple(sorted(one for one in segments if begin <= one < end)))
        for begin, end in spans
    ]


def _window(
    source_files: Sequence[SourceFile], plan: BookPlan, root: str, begin: int, end: int, joins: tuple[int, ...] = ()
) -> Window:
    stop = min(end * FRAME_SAMPLES, plan.timeline.samples)
    wanted = pcm.request(plan.timeline, source_files, root, begin * FRAME_SAMPLES, stop)
    return Window(first_block=begin, blocks=end - begin, pcm=wanted, joins=joins)


def check_seams(path: str, reports: Sequence[RangeReport]) -> None:
    """Refuse a book whose segment joins are worse, in the median, than places beside them: then segments overlap wrongly.

    One join may fall into a hard moment; many can't. A voice with pauses has places that differ by 30 dB, so a few of them
    have medians apart by chance (4 to 15 dB in good books): the difference must be beyond chance too, by the rank-sum test of
    Mann and Whitney. Raises NeedsAttention ``proof.seams``.
    """
    joins = np.frombuffer(b"".join(report.joins for report in reports), "<f4")
    elsewhere = np.frombuffer(b"".join(report.elsewhere for report in reports), "<f4")
    joins, elsewhere = joins[np.isfinite(joins)], elsewhere[np.isfinite(elsewhere)]
    if len(joins) < _FEW or len(elsewhere) < _FEW:
        return
    loss = float(np.median(elsewhere) - np.median(joins))
    if loss > _SEAM_LOSS and _beyond_chance(joins, elsewhere):
        raise NeedsAttention(
            "proof.seams",
            f"The joins between the pieces of the book are {loss:.1f} dB worse than what is beside them.",
            remedy='Nothing was published. Try encode.aac_coder = "twoloop" or another encode.bitrate, and please report it.',
            path=path,
        )


def _beyond_chance(lower: NDArray[np.float32], higher: NDArray[np.float32]) -> bool:
    above = np.searchsorted(np.sort(lower), higher, side="left").sum()  # pairs in which the one is above the other
    pairs = len(lower) * len(higher)
    deviation = math.sqrt(pairs * (len(lower) + len(higher) + 1) / 12)
    return bool(above - pairs / 2 > _DEVIATIONS * deviation)


async def prove_again(record: Record, book: str, root: str, limits: ProbeLimits, context: StepContext) -> Proof:
    """Prove a published book against the backup in ``root``: every second of it, not only the joins.

    Tags may have been edited since; the audio, its length and its chapters may not. Raises NeedsAttention ``proof.*`` when
    the book is not what its record says, ``backup.damaged`` when the backup isn't, and what `unlock` raises.
    """
    plan = record.plan
    seen = await together(
        [partial(context.work, probe.examine, os.path.join(root, file.path), limits) for file in record.files]
    )
    for file, now in zip(record.files, seen, strict=True):
        if now.sha256 != file.sha256:
            raise NeedsAttention(
                "backup.damaged",
                f"{files.displayable(file.path)} in the backup is not what the book was made from.",
                remedy="Use another backup of this source.",
                path=root,
            )
    source_files = [
        SourceFile(path=file.path, identity=now.identity, sha256=now.sha256, audio=now.audio, tags=FileTags())
        for file, now in zip(record.files, seen, strict=True)
    ]
    facts = await context.work(inspect.facts, book, single_use=needs_own_worker(plan.packets))
    check_facts(plan, facts, book)
    pieces = [Expected(first=one.first, packets=one.packets, sha256=one.sha256) for one in record.pieces]
    if plan.method is Method.COPY:
        await _check_sources(record, source_files, root, context)
    windows = [
        _window(source_files, plan, root, first, min(first + plan.segment_frames, plan.packets - 1))
        for first in range(0, plan.packets - 1, plan.segment_frames)
        if plan.method is Method.ENCODE
    ]
    block = _block(plan, source_files)
    every = sys.maxsize if plan.method is Method.COPY else 0
    reports = await _check_ranges(plan, book, pieces, windows, facts, block, context, decode=every)
    return Proof(
        against="the backup",
        packets=facts.packets,
        samples=facts.samples,
        chapters=len(facts.chapters),
        tags=0,
        sha256=Sha256(await anyio.to_thread.run_sync(files.hash_file, book)),
        sound=prove.summary(b"".join(report.ratios for report in reports), _unit(plan)),
        joins=record.proof.joins,
    )


async def _check_sources(record: Record, source_files: Sequence[SourceFile], root: str, context: StepContext) -> None:
    playing = [source_files[index] for index in record.plan.order.files]
    opened = await unlock(playing, root, (), context)
    parts = tuple(
        copying.Part(
            path=os.path.join(root, file.path), first=0, stop=file.audio.frames, key=opened.keys.get(file.path)
        )
        for file in playing
    )
    lengths = tuple(one.packets for one in record.pieces)
    request = copying.CopyRequest(parts=parts, stretches=lengths, audio=playing[0].audio, decode=False)
    found = await context.work(copying.stretches, request, audio_seconds=request.seconds, single_use=True)
    digests = tuple(sha256 for sha256, _ in found)
    if tuple(one.sha256 for one in record.pieces) != digests:
        raise NeedsAttention(
            "proof.packets",
            "The backup's audio is not what the book was copied from.",
            remedy="Use another backup of this source.",
            path=root,
        )


async def prove_alone(book: str, context: StepContext) -> BookFacts:
    """Look at a book of which nothing else is known: it opens, and all of its audio decodes without an error.

    That says nothing of what it should hold. Raises NeedsAttention ``proof.*``.
    """
    facts = await context.work(inspect.facts, book, single_use=True)
    whole = RangeRequest(
        path=book,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        block=None,
        expected=(Expected(first=0, packets=facts.packets, sha256=""),),
        windows=(),
        least=None,
        decode=sys.maxsize,
        decoder_config=facts.decoder_config,
    )
    await context.work(inspect.check_range, whole, audio_seconds=facts.samples / max(1, facts.sample_rate))
    return facts
