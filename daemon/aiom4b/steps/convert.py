"""How does a plan become a draft? Segments by all cores, one durable file each, then one book."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
from pydantic import TypeAdapter, ValidationError

from aiom4b.adapters import copies, covers, files, sidecars, tags
from aiom4b.engine import copying, mux, segment
from aiom4b.engine.mux import Muxed, MuxRequest, Piece
from aiom4b.engine.segment import MadeSegment, SegmentRequest
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import (
    FRAME_SAMPLES,
    BackupReceipt,
    BookPlan,
    Codec,
    CoverChoice,
    Draft,
    Method,
    Progress,
    Samples,
    Segment,
    Sha256,
    Source,
    Step,
)
from aiom4b.steps.context import TOOL, Keys, StepContext, both, needs_own_worker, together

_SEGMENT = TypeAdapter(Segment)
_TASKS_A_WORKER = 4  # the first ones share their core with the one that writes the book
_COVER_BYTES = 64 * 1024 * 1024
_EXTRAS_BYTES = 8 * 1024 * 1024  # cover, twice, and what a file system needs around the files


async def convert(
    source: Source, plan: BookPlan, receipt: BackupReceipt, keys: Keys, context: StepContext, *, refuse_damage: bool
) -> Draft:
    """Make the book in the work directory; nothing outside it is written. ``keys`` open what is locked.

    Repeating it makes only the segments that are not there yet. Raises what workers raise: ``proof.sound`` when a segment
    does not sound like its source, ``worker.*`` when a process died, ``space.full``; with ``refuse_damage``
    ``audio.damaged`` for flaws that the examination found and for frames that can't be decoded.
    """
    with context.ledger.reserve(context.work_dir, _bytes_needed(source, plan)):
        return await _convert(source, plan, receipt, keys, context, refuse_damage=refuse_damage)


async def _convert(
    source: Source, plan: BookPlan, receipt: BackupReceipt, keys: Keys, context: StepContext, *, refuse_damage: bool
) -> Draft:
    if refuse_damage and (scars := [file for file in source.files if file.audio.damage]):
        first = scars[0]
        raise _damaged(
            f"{files.displayable(first.path)} is damaged: {first.audio.damage[0].detail}"
            + (f"; so are {len(scars) - 1} more files." if len(scars) > 1 else "."),
            source.root,
        )
    folder = os.path.join(context.work_dir, "draft")
    segments_folder = os.path.join(context.work_dir, "segments")
    await anyio.to_thread.run_sync(_fresh, folder, segments_folder)
    warnings: list[str] = []
    kept: list[tuple[Segment, bool]] = []
    if plan.method is Method.ENCODE:
        kept = await _encode(source, plan, receipt, context, segments_folder)
        warnings += _flaws([one for one, _ in kept], source, refuse=refuse_damage)
        pieces = [
            Piece(path=os.path.join(segments_folder, one.file), packets=one.packets, ours=True) for one, _ in kept
        ]
        written = await _mux(source, plan, folder, pieces, context)
    else:
        pieces = _pieces(source, plan, receipt, keys)
        # Neither needs the other: while one core writes the book, all the others listen to what goes into it.
        heard, written = await both(
            partial(_listen, source, plan, pieces, context), partial(_mux, source, plan, folder, pieces, context)
        )
        kept = [(one, False) for one in heard]
    segments = tuple(one for one, _ in kept)
    await anyio.to_thread.run_sync(_check_pieces, segments, written, segments_folder)
    name = os.path.basename(plan.target)
    cover = await _cover(plan.cover, receipt.root, source, context, warnings)
    if cover is not None:
        await anyio.to_thread.run_sync(files.write_durably, os.path.join(folder, "cover.jpg"), cover)
    atoms = tags.book_tags(plan.metadata, book_id=plan.id, tool=TOOL)
    await context.work(
        tags.write_tags,
        os.path.join(folder, name),
        atoms,
        cover,
        audio_seconds=plan.timeline.seconds,
        single_use=needs_own_worker(plan.packets),
    )
    if plan.write_metadata_json:
        document = sidecars.metadata_json(plan.metadata)
        await anyio.to_thread.run_sync(files.write_durably, os.path.join(folder, "metadata.json"), document)
    for one in plan.documents:
        copying_it = partial(
            copies.copy_verified,
            os.path.join(receipt.root, one.path),
            os.path.join(folder, one.name),
            on_bytes=lambda _: anyio.from_thread.check_cancelled(),
        )
        await anyio.to_thread.run_sync(copying_it, limiter=context.copies)
    await anyio.to_thread.run_sync(files.fsync_tree, folder)
    payload = sum(one.payload_bytes for one in segments)
    return Draft(
        id=plan.id,
        folder=folder,
        book=os.path.join(folder, name),
        segments=segments,
        reused=sum(found for _, found in kept),
        bit_rate=round(payload * 8 / plan.timeline.seconds),
        warnings=tuple(warnings),
    )


def _pieces(source: Source, plan: BookPlan, receipt: BackupReceipt, keys: Keys) -> list[Piece]:
    playing = [source.files[index] for index in plan.order.files]
    counts = [file.audio.frames for file in playing]
    counts[-1] = plan.packets - sum(counts[:-1])  # an edit list may hide packets at the end
    return [
        Piece(path=os.path.join(receipt.root, file.path), packets=count, ours=False, key=keys.get(file.path))
        for file, count in zip(playing, counts, strict=True)
    ]


def _bytes_needed(source: Source, plan: BookPlan) -> int:
    """Return what the book takes while it is made: its segments and itself, at a bit rate that may overshoot by a fifth."""
    sizes = {one.path: one.identity.size for one in source.sidecars}
    documents = sum(sizes[one.path] for one in plan.documents)
    audio = 1.2 * plan.encoder.bit_rate * plan.timeline.seconds / 8 + 16 * plan.packets
    return int(audio * (2 if plan.method is Method.ENCODE else 1)) + documents + _EXTRAS_BYTES


def _flaws(segments: Sequence[Segment], source: Source, *, refuse: bool) -> list[str]:
    """Tell of each file how many of its frames became silence, and where the first is."""
    found = {flaw for one in segments for flaw in one.flaws}  # a frame beside a join was met by both segments
    warnings = [
        f"{files.displayable(file.path)}: {len(seconds)} frames can't be decoded and became silence, the first at second"
        f" {seconds[0]:.1f}."
        for file in source.files
        if (seconds := sorted(flaw.second for flaw in found if flaw.sha256 == file.sha256))
    ]
    if warnings and refuse:
        raise _damaged(" ".join(warnings), source.root)
    if bad := sum(one.bad_samples for one in segments):
        warnings.append(f"{bad} samples of the source were no numbers and became silence.")
    return warnings


def _damaged(reason: str, root: str) -> NeedsAttention:
    return NeedsAttention(
        "audio.damaged",
        reason,
        remedy='Get the damaged files again, or set encode.on_damage = "report" to convert them as they are.',
        path=root,
    )


def _fresh(folder: str, segments_folder: str) -> None:
    """Empty the draft's folder and make both; finished segments stay."""
    with files.translated(folder, "preparing the work directory"):
        if os.path.lexists(folder):
            shutil.rmtree(folder)
        os.makedirs(folder)
        os.makedirs(segments_folder, exist_ok=True)


async def _encode(
    source: Source, plan: BookPlan, receipt: BackupReceipt, context: StepContext, folder: str
) -> list[tuple[Segment, bool]]:
    """Return all segments in order, each with whether it was there already."""
    requests = segment.grid(plan, source.files, receipt.root)
    total = plan.timeline.samples
    packets_done = 0

    async def one(request: SegmentRequest) -> tuple[Segment, bool]:
        nonlocal packets_done
        key = request.key()
        found = await anyio.to_thread.run_sync(_found, folder, key)
        if found is None:
            made = await context.work(segment.make_segment, request, audio_seconds=request.seconds)
            kept = await anyio.to_thread.run_sync(_keep, folder, key, request, made)
        else:
            kept = found
        packets_done += request.packets
        context.report(Progress(step=Step.CONVERT, done=total * packets_done // plan.packets, total=total))
        return kept, found is not None

    return await together([partial(one, request) for request in requests])


def _keep(folder: str, key: str, request: SegmentRequest, made: MadeSegment) -> Segment:
    """Write a segment, then its receipt: a segment without one does not count."""
    kept = Segment(
        first=request.first,
        packets=request.packets,
        file=f"{key}.aac",
        sha256=Sha256(made.sha256),
        payload_bytes=made.payload_bytes,
        ratios=made.ratios,
        flaws=made.flaws,
        bad_samples=made.bad_samples,
    )
    files.write_durably(os.path.join(folder, kept.file), made.adts, replace=True)
    document = json.dumps({"v": 1, "segment": _SEGMENT.dump_python(kept)}).encode("ascii")
    files.write_durably(os.path.join(folder, f"{key}.json"), document, replace=True)
    return kept


def _found(folder: str, key: str) -> Segment | None:
    """Return the segment of this key if it is there; its bytes are judged when they are put into the book."""
    try:
        with open(os.path.join(folder, f"{key}.json"), "rb") as stream:
            document = json.load(stream)
        if document["v"] != 1 or not os.path.exists(os.path.join(folder, f"{key}.aac")):
            return None
        return _SEGMENT.validate_python(document["segment"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None  # missing or torn: it is made again


async def _listen(source: Source, plan: BookPlan, pieces: Sequence[Piece], context: StepContext) -> list[Segment]:
    """Decode every packet that is copied, on all cores, and describe the stretches of the book."""
    audio = source.files[plan.order.files[0]].audio
    whole = [copying.Part(path=one.path, first=0, stop=one.packets, key=one.key) for one in pieces]
    share = max(1, -(-len(plan.segments) // (context.pool.size * _TASKS_A_WORKER)))
    groups = [plan.segments[place : place + share] for place in range(0, len(plan.segments), share)]
    done = 0

    async def one(group: Sequence[range]) -> list[Segment]:
        nonlocal done
        request = copying.CopyRequest(
            parts=copying.parts_of(whole, group[0].start, group[-1].stop),
            stretches=tuple(map(len, group)),
            audio=audio,
        )
        made = await context.work(copying.stretches, request, audio_seconds=request.seconds)
        done += sum(request.stretches)
        total = plan.timeline.samples
        context.report(Progress(step=Step.CONVERT, done=total * done // plan.packets, total=total))
        return [
            Segment(
                first=stretch.start,
                packets=len(stretch),
                file="",
                sha256=Sha256(sha256),
                payload_bytes=size,
                ratios=b"",
                flaws=(),
                bad_samples=0,
            )
            for stretch, (sha256, size) in zip(group, made, strict=True)
        ]

    return [segment for segments in await together([partial(one, group) for group in groups]) for segment in segments]


async def _mux(
    source: Source, plan: BookPlan, folder: str, pieces: Sequence[Piece], context: StepContext
) -> tuple[Muxed, ...]:
    try:
        return await context.work(
            mux.mux,
            _mux_request(source, plan, folder, tuple(pieces)),
            audio_seconds=plan.timeline.seconds,
            single_use=True,
        )
    except Transient as error:
        if error.code == "segment.damaged" and error.path is not None:
            await anyio.to_thread.run_sync(os.unlink, error.path)  # so that the next attempt makes it anew
        raise


def _mux_request(source: Source, plan: BookPlan, folder: str, pieces: tuple[Piece, ...]) -> MuxRequest:
    first = source.files[plan.order.files[0]].audio
    encoded = plan.method is Method.ENCODE
    return MuxRequest(
        folder=folder,
        name=os.path.basename(plan.target),
        pieces=pieces,
        stretches=plan.segments,
        encoder=plan.encoder if encoded else None,
        sample_rate=plan.timeline.sample_rate,
        block=FRAME_SAMPLES if encoded else first.samples_per_frame,
        priming=Samples(FRAME_SAMPLES) if encoded else first.start_skip,
        samples=plan.timeline.samples,
        chapters=plan.chapters,
    )


def _check_pieces(segments: Sequence[Segment], written: Sequence[Muxed], folder: str) -> None:
    """Refuse packets that are others in the book than in their proof; a rotten segment file is removed, to be made anew."""
    for kept, piece in zip(segments, written, strict=True):
        if kept.sha256 != piece.sha256:
            what = kept.file or f"the packets from {kept.first} on"
            if kept.file:
                os.unlink(os.path.join(folder, kept.file))
            raise Transient(
                "segment.damaged",
                f"What was proved reads differently now: {what}.",
                remedy="Try again: it is made anew. Check disk and memory of the machine if it happens again.",
                path=folder,
            )


async def _cover(
    choice: CoverChoice | None, root: str, source: Source, context: StepContext, warnings: list[str]
) -> bytes | None:
    """Return the cover as a sane JPEG, or None with a warning: a bad picture never stops a book."""
    if choice is None:
        return None
    path = os.path.join(root, choice.path)
    codec = next((file.audio.codec for file in source.files if file.path == choice.path), None)
    try:
        cover = await context.work(sane_cover, path, codec)
    except NeedsAttention as error:
        warnings.append(f"The cover {choice.path} was left out: {error.reason}")
        return None
    if cover is not None:
        warnings += cover.warnings
    return cover.jpeg if cover is not None else None


def sane_cover(path: str, codec: Codec | None) -> covers.Cover | None:
    """Read the picture in a file, or with ``codec`` the one in an audio file's tags; runs in a worker."""
    if codec is not None:
        data = tags.embedded_cover(path, codec)
    else:
        with open(files.open_regular(path), "rb") as stream:
            data = stream.read(_COVER_BYTES)
    return covers.sane_jpeg(data) if data is not None else None
