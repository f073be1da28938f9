"""How does a test get from sound to a book? The steps of the house, in this process, without a pool of workers."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import numpy as np

import factories
from aiom4b.adapters.space import SpaceLedger
from aiom4b.book import plan as planning
from aiom4b.book.encoding import EncodeWishes
from aiom4b.book.plan import Wishes
from aiom4b.engine import mpeg, pcm, probe, worker
from aiom4b.engine.encode import Pcm
from aiom4b.engine.pool import Rank
from aiom4b.engine.probe import ProbeLimits
from aiom4b.models import BackupReceipt, BookPlan, Draft, FileTags, OrderChoice, Proof, Source, SourceFile
from aiom4b.steps.context import StepContext
from aiom4b.steps.convert import convert
from aiom4b.steps.verify import verify

LIMITS = ProbeLimits(max_file_size=1 << 30)


class Inline:
    """A pool whose one worker is this process, so that its insides can be replaced; arguments still travel pickled."""

    size = 2

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def run(self, function, *args, rank=Rank(), audio_seconds=0.0, single_use=False, meter=None):  # noqa: B008 - as in the pool
        self.calls.append(function.__name__)
        outcome = worker.run(*pickle.loads(pickle.dumps((function, args))))
        await asyncio.sleep(0)
        if isinstance(outcome, worker.Failed):
            raise outcome.error()
        if meter is not None:
            meter(outcome.usage)
        return outcome.value


class Ring:
    """A key ring that holds what it is given, by ASIN."""

    def __init__(self, **known):
        self.known = known

    async def keys(self, lock, asin):
        key = self.known.get(asin)
        return () if key is None else (("the ring", key),)


def context(work_dir, pool=None) -> StepContext:
    return StepContext(
        work_dir=str(work_dir),
        pool=pool or Inline(),
        rank=Rank(),
        copies=anyio.CapacityLimiter(1),
        ledger=SpaceLedger(),
        keys=Ring(),
        clock=lambda: datetime(2024, 2, 29, 12, tzinfo=UTC),
        report=lambda _: None,
    )


def source_file(root, name: str, data: bytes) -> SourceFile:
    """Write a file below ``root`` and examine it as the house does."""
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(data)
    found = probe.examine(path, LIMITS)
    return SourceFile(path=name, identity=found.identity, sha256=found.sha256, audio=found.audio, tags=FileTags())


def source(root, contents: Mapping[str, bytes] | Sequence[bytes]) -> Source:
    """Write files ("01.mp3", "02.mp3" … unless named) below ``root``: a book in the order given."""
    if not isinstance(contents, Mapping):
        contents = {f"{number:02}.mp3": data for number, data in enumerate(contents, 1)}
    return factories.source(
        *(source_file(root, name, data) for name, data in contents.items()), name="A Book", root=str(root)
    )


def plan(
    book: Source,
    *,
    segment_frames: int | None = None,
    encoder: Mapping[str, object] | None = None,
    chapters=None,
    **wishes,
) -> BookPlan:
    """Plan a book in the order of its names; keywords are ``EncodeWishes``. A short grid gives many joins quickly."""
    made = planning.plan(book, Wishes(order=OrderChoice.NAMES, encode=EncodeWishes(**wishes)))
    if segment_frames:
        made = replace(made, segment_frames=segment_frames)
    if encoder:
        made = replace(made, encoder=replace(made.encoder, **encoder))
    if chapters:
        made = replace(made, chapters=tuple(chapters))
    return made


def receipt(book: Source) -> BackupReceipt:
    return BackupReceipt(root=book.root, copied=True, files=())


def make(book: Source, made: BookPlan, work_dir, pool=None) -> Draft:
    """Convert in ``work_dir``."""
    os.makedirs(work_dir, exist_ok=True)

    async def run():
        return await convert(book, made, receipt(book), {}, context(work_dir, pool), refuse_damage=False)

    return anyio.run(run)


def prove(book: Source, made: BookPlan, draft: Draft, work_dir, pool=None) -> Proof:
    async def run():
        return await verify(book, made, receipt(book), draft, context(work_dir, pool))

    return anyio.run(run)


def read(made, files: Sequence[SourceFile], root, start: int, stop: int) -> tuple[Pcm, int]:
    """Return the timeline's samples [start, stop), and how many frames became silence."""
    reader = pcm.Reader()
    wanted = pcm.request(made, files, str(root), start, stop)
    pieces = list(reader.read(pickle.loads(pickle.dumps(wanted))))
    return np.concatenate([np.empty((made.channels, 0), np.float32), *pieces], axis=1), len(reader.flaws)


def frame_places(data: bytes) -> list[tuple[int, int]]:
    """Return (offset, size) of every audio frame of an MP3 (a Xing frame is none)."""
    facts = mpeg.scan(data)
    return mpeg.frames(data, int.from_bytes(facts.anchors[:8], "little"), facts.frames)
