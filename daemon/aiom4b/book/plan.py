"""What shall the book be? Everything that decides its bytes, from evidence and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from aiom4b.book import chapters, encoding, metadata, naming, order, timeline
from aiom4b.book.encoding import EncodeWishes
from aiom4b.models import (
    FRAME_SAMPLES,
    BookId,
    BookPlan,
    CoverChoice,
    Document,
    Encoder,
    Method,
    Name,
    OrderChoice,
    Samples,
    Sha256,
    SidecarKind,
    Source,
    Timeline,
)

PLAN_VERSION = 3
_NUMBER_BYTES = len(" (999).pdf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The settings that decide what a book becomes. ``metadata_json`` is auto, always or never.

    ``output`` is the path in the library that its owner asked for, instead of what ``template`` gives.
    """

    order: OrderChoice | tuple[Name, ...] = OrderChoice.AUTO
    encode: EncodeWishes = EncodeWishes()  # noqa: RUF009 - frozen
    template: str = "{author}/{series}/{title}/{title}.m4b"
    output: Name | None = None
    metadata_json: str = "auto"


def plan(source: Source, wishes: Wishes) -> BookPlan:
    """Decide. Raises NeedsAttention where the evidence contradicts itself (``order.contradiction``) or can't be done."""
    playing = order.decide_order(source.files, source.evidence.playlists, wishes.order)
    audio = [file.audio for file in source.files]
    how = encoding.method(audio, wishes.encode)
    warnings: list[str] = list(source.warnings) + list(source.evidence.warnings)
    if how is Method.COPY:
        first = audio[playing.files[0]]
        line, packets = _copied(source, playing.files)
        encoder = Encoder(
            bit_rate=first.bit_rate, asked=0, sample_rate=first.sample_rate, channels=first.channels, aac_coder="copy"
        )
        excess = line.samples - sum(facts.samples for facts in audio)
        if excess:
            locked = any(facts.lock is not None for facts in audio)
            way_out = "" if locked else '; encode.aac_join = "encode" avoids it'
            warnings.append(
                f"Joining {len(audio)} AAC files without encoding them again keeps {1000 * excess / first.sample_rate:.0f} ms"
                f" of padding between them{way_out}."
            )
    else:
        encoder = encoding.encoder(audio, wishes.encode)
        line = timeline.lay_out(audio, playing.files, encoder.sample_rate, encoder.channels)
        packets = -(-line.samples // FRAME_SAMPLES) + 1
    known, doubts = metadata.merge(source, playing)
    warnings += doubts
    found, origin, doubts = chapters.decide(source, playing, timeline.starts(line), line.samples, line.sample_rate)
    warnings += doubts
    target = naming.target(known, wishes.template) if wishes.output is None else naming.as_asked(wishes.output)
    draft = BookPlan(
        id=BookId(""),
        fingerprint=source.fingerprint,
        method=how,
        order=playing,
        timeline=line,
        encoder=encoder,
        segment_frames=encoding.segment_frames(line.samples, encoder.sample_rate),
        packets=packets,
        chapters=found,
        chapters_from=origin,
        metadata=known,
        cover=_cover(source, playing.files),
        target=target,
        write_metadata_json=wishes.metadata_json == "always"
        or (wishes.metadata_json == "auto" and metadata.needs_metadata_json(known)),
        documents=_documents(source, _stem(target)),
        warnings=tuple(dict.fromkeys(warnings)),
    )
    return replace(draft, id=_identity(draft, [source.files[index].sha256 for index in playing.files]))


def _copied(source: Source, playing: tuple[int, ...]) -> tuple[Timeline, int]:
    """Lay out packets that are copied: every file keeps its own priming and padding, but for the very first and last."""
    audio = [source.files[index].audio for index in playing]
    whole = []
    for place, facts in enumerate(audio):
        begin = facts.start_skip if place == 0 else 0
        end = facts.end_discard if place == len(audio) - 1 else 0
        length = facts.frames * facts.samples_per_frame - begin - end
        whole.append(replace(facts, samples=Samples(length)))
    by_index = dict(zip(playing, whole, strict=True))
    ordered = [by_index[index] for index in range(len(source.files))]
    line = timeline.lay_out(ordered, playing, audio[0].sample_rate, audio[0].channels)
    # Packets of which nothing is presented have no place in the book, or the last one would have to last less than nothing.
    unheard = audio[-1].end_discard // audio[-1].samples_per_frame
    return line, sum(facts.frames for facts in audio) - unheard


def _cover(source: Source, playing: tuple[int, ...]) -> CoverChoice | None:
    """A picture beside the audio, the one called cover first; else the first file's own."""
    beside = sorted(
        (sidecar for sidecar in source.sidecars if sidecar.kind is SidecarKind.COVER),
        key=lambda one: (
            one.path.count("/"),
            not _stem(one.path).lower().startswith("cover"),
            not _stem(one.path).lower().startswith(("folder", "front")),
            one.path,
        ),
    )
    if beside:
        return CoverChoice(path=beside[0].path, embedded=False, sha256=beside[0].sha256)
    for index in playing:
        if source.files[index].tags.cover:
            file = source.files[index]
            return CoverChoice(path=file.path, embedded=True, sha256=Sha256(file.tags.cover))
    return None


def _documents(source: Source, stem: str) -> tuple[Document, ...]:
    """Name a companion PDF and a listener's annotations after the book; of several PDFs each keeps its own name as well."""
    kept = [one.path for one in source.sidecars if one.kind is SidecarKind.DOCUMENT]
    notes = [one.path for one in source.sidecars if one.kind is SidecarKind.ANNOTATIONS]
    documents: dict[str, Document] = {}
    for path in kept:
        name = stem if len(kept) == 1 else naming.clean_name(f"{stem} - {_stem(path)}", reserve=_NUMBER_BYTES)
        shown, number = name, 1
        while shown.casefold() in documents:
            number += 1
            shown = f"{name} ({number})"
        documents[shown.casefold()] = Document(path=path, name=f"{shown}.pdf")
    return (*documents.values(), *(Document(path=path, name=f"{stem}.annotations.json") for path in notes[:1]))


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _identity(plan_without_id: BookPlan, contents: Sequence[Sha256]) -> BookId:
    """Hash what decides the book's bytes, so that the same book made again has the same id. Warnings don't.

    ``contents`` are the files in playing order: files of one length that changed their names give a plan that differs in
    nothing else, and another book.
    """
    decisive = asdict(replace(plan_without_id, warnings=()))
    text = json.dumps([PLAN_VERSION, decisive, *contents], sort_keys=True, default=str)
    return BookId(hashlib.sha256(text.encode()).hexdigest()[:16])
