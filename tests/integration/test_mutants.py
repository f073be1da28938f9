"""Is every wrong book refused? Wrong as it comes from the encoder, and wrong in the finished file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise

import anyio
import numpy as np
import pytest

import books
import sound
from aiom4b.adapters.records import PieceRecord, Record, SourceRecord
from aiom4b.book import timeline
from aiom4b.engine import aac, encode, inspect, mux, segment
from aiom4b.engine.pool import WorkerPool
from aiom4b.errors import Aiom4bError, NeedsAttention
from aiom4b.models import Chapter, Samples
from aiom4b.steps.verify import prove_again, prove_alone

RATE = 22050
FRAMES = 43
KINDS = {"mono": (1, 32000), "stereo": (2, 64000)}


class Made:
    """A real book and everything that was used to make it."""

    def __init__(self, root, channels, bit_rate):
        voice = sound.speech(22, RATE, channels=channels)
        third = voice.shape[1] // 3
        parts = [voice[:, at * third : (at + 1) * third] for at in range(3)]
        self.root = root
        self.source = books.source(root / "in", [sound.mp3(part, RATE, bit_rate=64000) for part in parts])
        chapters = [Chapter(title=f"{at + 1}", start=Samples(at * third)) for at in range(3)]
        self.plan = books.plan(self.source, segment_frames=FRAMES, bit_rate=bit_rate, chapters=chapters)
        self.work = root / "work"
        self.draft = books.make(self.source, self.plan, self.work)
        self.proof = books.prove(self.source, self.plan, self.draft, self.work)

    def packets(self):
        """Return the packets of each segment, as they lie on the disk."""
        folder = self.work / "segments"
        return [list(aac.without_headers((folder / one.file).read_bytes())) for one in self.draft.segments]


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    return Made(tmp_path_factory.mktemp(request.param), *KINDS[request.param])


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("both"), *KINDS["stereo"])


def test_the_honest_book_is_proved(made):
    proof = made.proof
    assert proof.samples == made.plan.timeline.samples
    assert proof.packets == made.plan.packets
    assert proof.chapters == 3
    assert proof.sound.seconds + proof.sound.quiet + proof.sound.beyond >= 20
    assert proof.joins.seconds + proof.joins.quiet + proof.joins.beyond >= len(made.draft.segments)
    assert proof.sound.snr_median > 12
    again = books.prove(made.source, made.plan, made.draft, made.work)
    assert again == proof


# --- a wrong encoder: the worker's own proof refuses ------------------------------------------------------------------


def whole(chunks):
    """Collect what the encoder is given, so that a mutant may change all of it."""
    return np.concatenate([chunk.copy() for chunk in chunks], axis=1)


def late(pcm):
    return np.concatenate([np.zeros_like(pcm[:, :1024]), pcm[:, :-1024]], axis=1)


def early(pcm):
    return np.concatenate([pcm[:, 1024:], np.zeros_like(pcm[:, :1024])], axis=1)


def halves_swapped(pcm):
    half = pcm.shape[1] // 2048 * 1024
    return np.concatenate([pcm[:, half:], pcm[:, :half]], axis=1)


def muted(pcm):
    return np.zeros_like(pcm)


def noise(pcm):
    return np.random.default_rng(1).uniform(-0.5, 0.5, pcm.shape).astype(np.float32)


def channel_lost(pcm):
    return np.stack([pcm[0], *(0 * side for side in pcm[1:])])


def channels_swapped(pcm):
    return pcm[::-1]


def second_half_silent(pcm):
    pcm = pcm.copy()
    pcm[:, pcm.shape[1] // 2 :] = 0
    return pcm


def too_quiet(pcm):
    return pcm * np.float32(0.3)


def faster(pcm):
    """As if 22.05 kHz were taken for 24 kHz: the chipmunk."""
    at = np.minimum(np.arange(pcm.shape[1]) * 24000 / 22050, pcm.shape[1] - 1)
    return np.stack([np.interp(at, np.arange(pcm.shape[1]), side) for side in pcm]).astype(np.float32)


WRONG = [late, early, halves_swapped, muted, noise, second_half_silent, too_quiet, faster]


def encoding(monkeypatch, mutant):
    """Let the encoder get other sound than the proof expects."""
    real = encode.packets

    def packets(chunks, encoder):
        pcm = np.ascontiguousarray(mutant(whole(chunks)))
        yield from real([pcm], encoder)

    monkeypatch.setattr(encode, "packets", packets)


@pytest.mark.parametrize("mutant", WRONG, ids=lambda mutant: mutant.__name__)
def test_a_worker_refuses_what_a_wrong_encoder_made(made, monkeypatch, tmp_path, mutant):
    encoding(monkeypatch, mutant)
    with pytest.raises(NeedsAttention) as caught:
        books.make(made.source, made.plan, tmp_path)
    assert caught.value.code == "proof.sound"
    assert "second" in caught.value.reason


@pytest.mark.parametrize("mutant", [channel_lost, channels_swapped], ids=lambda mutant: mutant.__name__)
def test_a_worker_refuses_a_lost_channel(stereo, monkeypatch, tmp_path, mutant):
    encoding(monkeypatch, mutant)
    with pytest.raises(NeedsAttention) as caught:
        books.make(stereo.source, stereo.plan, tmp_path)
    assert caught.value.code == "proof.sound"


def test_an_encoder_that_changes_nothing_passes_the_same_road(made, monkeypatch, tmp_path):
    """Guards the tests above: the way that the mutants go refuses nothing by itself."""
    encoding(monkeypatch, lambda pcm: pcm)
    draft = books.make(made.source, made.plan, tmp_path)
    assert [one.packets for one in draft.segments] == [one.packets for one in made.draft.segments]


# --- a tampered file: the finished book is refused --------------------------------------------------------------------


def fake(made, folder, pieces, *, hashes=False, **changes):
    """Mux other packets into a copy of the draft; with ``hashes`` the receipts agree with them. Tags come along."""
    folder.mkdir()
    draft_folder = folder / "draft"
    shutil.copytree(made.draft.folder, draft_folder)
    laid = []
    for number, packets in enumerate(pieces):
        path = folder / f"{number}.aac"
        path.write_bytes(aac.with_headers(packets, RATE, made.plan.encoder.channels))
        laid.append(mux.Piece(path=str(path), packets=len(packets), ours=True))
    name = os.path.basename(made.draft.book)
    places = [0, *accumulate(one.packets for one in laid)]
    known = {
        "stretches": tuple(range(begin, end) for begin, end in pairwise(places)),
        "folder": str(draft_folder),
        "name": name,
        "pieces": tuple(laid),
        "encoder": made.plan.encoder,
        "sample_rate": RATE,
        "block": 1024,
        "priming": Samples(1024),
        "samples": made.plan.timeline.samples,
        "chapters": made.plan.chapters,
    }
    mux.mux(mux.MuxRequest(**(known | changes)))
    copy_tags(made.draft.book, str(draft_folder / name))
    segments = made.draft.segments
    if hashes:
        digests = [hashlib.sha256(b"".join(packets)).hexdigest() for packets in pieces]
        segments = tuple(replace(one, sha256=digest) for one, digest in zip(segments, digests, strict=True))
    return replace(made.draft, folder=str(draft_folder), book=str(draft_folder / name), segments=segments)


def copy_tags(source, target):
    from mutagen.mp4 import MP4

    tagged, bare = MP4(source), MP4(target)
    if bare.tags is None:
        bare.add_tags()
    bare.tags.update(tagged.tags)
    bare.save()


def recoded(made, mutant):
    """Encode the whole book changed, honestly: every packet is legal and every join fits."""
    timeline_pcm, _ = books.read(made.plan.timeline, made.source.files, made.source.root, 0, made.plan.timeline.samples)
    pcm = mutant(timeline_pcm)
    padded = np.ascontiguousarray(np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % 1024))))
    packets = [packet for group in encode.packets([padded], made.plan.encoder) for packet in group]
    return [packets[one.first : one.first + one.packets] for one in made.draft.segments]


def segments_swapped(made):
    pieces = made.packets()
    pieces[2], pieces[5] = pieces[5], pieces[2]
    return pieces


def one_muted(made):
    silent = recoded(made, muted)
    return [silent[4] if number == 4 else packets for number, packets in enumerate(made.packets())]


def one_replaced(made):
    other = recoded(made, noise)
    return [other[6] if number == 6 else packets for number, packets in enumerate(made.packets())]


def one_twice(made):
    pieces = made.packets()
    pieces[3] = pieces[2]
    return pieces


def shifted(made):
    return recoded(made, late)


def wrong_order(made):
    first, second, _third = (part.samples for part in made.plan.timeline.runs[0].parts)
    return recoded(
        made,
        lambda pcm: np.concatenate([pcm[:, first : first + second], pcm[:, :first], pcm[:, first + second :]], axis=1),
    )


def wrong_key(made):
    return recoded(made, noise)


def one_channel(made):
    return recoded(made, channel_lost)


TAMPERED = [segments_swapped, one_muted, one_replaced, one_twice, shifted, wrong_order, wrong_key, one_channel]


def refusal(call):
    with pytest.raises(NeedsAttention) as caught:
        call()
    return caught.value.code


def fits(made, mutant):
    if mutant is one_channel and made.plan.encoder.channels == 1:
        pytest.skip("mono has no other channel")


def record_of(made, draft):
    """Return the record of a published book, for ``aiom4b verify``."""
    return Record(
        id=made.plan.id,
        fingerprint=made.source.fingerprint,
        book=os.path.basename(draft.book),
        sha256=made.proof.sha256,
        size=1,
        published="2024-02-29T12:00:00+00:00",
        tool="test",
        source=made.source.root,
        files=tuple(
            SourceRecord(path=file.path, size=file.identity.size, sha256=file.sha256) for file in made.source.files
        ),
        backup=books.receipt(made.source),
        plan=made.plan,
        bit_rate=draft.bit_rate,
        pieces=tuple(PieceRecord(first=one.first, packets=one.packets, sha256=one.sha256) for one in draft.segments),
        proof=made.proof,
        warnings=(),
    )


def proved_again(made, draft):
    context = books.context(made.work)
    record = record_of(made, draft)
    return anyio.run(partial(prove_again, record, draft.book, made.source.root, books.LIMITS, context))


def test_the_same_packets_muxed_once_more_are_accepted(made, tmp_path):
    """Guards the tests below: the way that the mutants go refuses nothing by itself."""
    draft = fake(made, tmp_path / "f", made.packets())
    proof = books.prove(made.source, made.plan, draft, made.work)
    assert replace(proof, sha256="") == replace(made.proof, sha256="")
    assert proved_again(made, draft).sound.seconds >= 20
    honest = fake(made, tmp_path / "g", recoded(made, lambda pcm: pcm), hashes=True)
    assert books.prove(made.source, made.plan, honest, made.work).joins.snr_median > 8


@pytest.mark.parametrize("mutant", TAMPERED, ids=lambda mutant: mutant.__name__)
def test_a_file_with_other_packets_than_were_made_is_refused(made, tmp_path, mutant):
    fits(made, mutant)
    draft = fake(made, tmp_path / "f", mutant(made))
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)).startswith("proof.")


@pytest.mark.parametrize("mutant", TAMPERED, ids=lambda mutant: mutant.__name__)
def test_a_file_whose_hashes_agree_is_refused_by_its_sound(made, tmp_path, mutant):
    fits(made, mutant)
    draft = fake(made, tmp_path / "f", mutant(made), hashes=True)
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)) in {"proof.sound", "proof.windows"}


@pytest.mark.parametrize("mutant", TAMPERED, ids=lambda mutant: mutant.__name__)
def test_a_published_book_that_was_exchanged_is_refused_by_a_later_look(made, tmp_path, mutant):
    fits(made, mutant)
    draft = fake(made, tmp_path / "f", mutant(made), hashes=True)
    assert refusal(lambda: proved_again(made, draft)) in {"proof.sound", "proof.windows"}


def test_only_a_later_look_hears_what_is_wrong_between_the_joins(made, tmp_path):
    """The first proof trusts the worker for the middle of a segment, and its hash; the later one trusts neither."""
    pieces = made.packets()
    quiet = recoded(made, muted)
    pieces[4][18:22] = quiet[4][18:22]
    assert refusal(
        lambda: books.prove(made.source, made.plan, fake(made, tmp_path / "f", pieces), made.work)
    ).startswith("proof.")
    draft = fake(made, tmp_path / "g", pieces, hashes=True)
    assert refusal(lambda: proved_again(made, draft)) in {"proof.sound", "proof.windows"}


@pytest.mark.parametrize(
    "change",
    [
        {"samples": Samples(-1)},
        {"samples": Samples(+1)},
        {"priming": Samples(2048)},
        {"chapters": 0},
        {"chapters": 1},
        {"chapters": 2},
    ],
    ids=str,
)
def test_a_file_of_another_length_or_with_other_chapters_is_refused(made, tmp_path, change):
    if "samples" in change:
        change = {"samples": Samples(made.plan.timeline.samples + change["samples"])}
    if "chapters" in change:
        one, two, three = made.plan.chapters
        change = {
            "chapters": (
                (one, two),
                (one, replace(two, start=Samples(two.start + 1)), three),
                (one, replace(two, title="Two"), three),
            )[change["chapters"]]
        }
    draft = fake(made, tmp_path / "f", made.packets(), **change)
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)) == "proof.facts"


def test_a_lost_last_packet_is_refused(made, tmp_path):
    pieces = made.packets()
    pieces[-1] = pieces[-1][:-1]
    draft = fake(made, tmp_path / "f", pieces)
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)) == "proof.facts"


def test_lost_tags_are_refused(made, tmp_path):
    from mutagen.mp4 import MP4

    draft = fake(made, tmp_path / "f", made.packets())
    tagged = MP4(draft.book)
    tagged.tags["\xa9nam"] = ["Another Book"]
    tagged.save()
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)) == "proof.tags"


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_rotten_byte_is_refused(made, tmp_path, at):
    draft = fake(made, tmp_path / "f", made.packets())
    with open(draft.book, "r+b") as stream:
        stream.seek(int(os.path.getsize(draft.book) * at))
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 0x10]))
    assert refusal(lambda: books.prove(made.source, made.plan, draft, made.work)) == "proof.packets"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_a_torn_file_is_refused(made, tmp_path, share):
    draft = fake(made, tmp_path / "f", made.packets())
    os.truncate(draft.book, int(os.path.getsize(draft.book) * share))
    with pytest.raises(Aiom4bError) as caught:
        books.prove(made.source, made.plan, draft, made.work)
    assert caught.value.code in {"proof.unreadable", "proof.facts", "proof.packets", "audio.truncated"}


# --- joins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(0, 4), (16, 0), (0, 0)])
def test_a_book_whose_segments_were_made_without_their_neighbours_is_refused(tmp_path, monkeypatch, before, after):
    """Each segment decodes to its source; only the joins are broken, and every decoder swallows that without a word."""
    monkeypatch.setattr(segment, "BEFORE", before)
    monkeypatch.setattr(segment, "AFTER", after)
    pcm = sound.speech(20, RATE) + sound.clicks(20, RATE, every=0.0931, level=0.25)
    source = books.source(tmp_path / "in", [sound.mp3(pcm, RATE, bit_rate=96000)])
    plan = books.plan(source, segment_frames=11, bit_rate=32000)
    draft = books.make(source, plan, tmp_path / "work")
    code = refusal(lambda: books.prove(source, plan, draft, tmp_path / "work"))
    assert code in {"proof.windows", "proof.seams", "proof.sound"}


def test_the_same_book_made_with_its_neighbours_is_proved(tmp_path):
    pcm = sound.speech(20, RATE) + sound.clicks(20, RATE, every=0.0931, level=0.25)
    source = books.source(tmp_path / "in", [sound.mp3(pcm, RATE, bit_rate=96000)])
    plan = books.plan(source, segment_frames=11, bit_rate=32000)
    draft = books.make(source, plan, tmp_path / "work")
    proof = books.prove(source, plan, draft, tmp_path / "work")
    assert proof.joins.seconds >= 9
    assert abs(proof.joins.snr_median - proof.sound.snr_median) < 6


def test_a_segment_that_ends_in_a_pause_does_not_condemn_a_good_book(tmp_path):
    """Once a last block in a pause at -54 dBFS was judged all by itself: the book could never be converted."""
    whole = sound.mp3(sound.speech(15, 44100), 44100, lame_tag=False)
    source = books.source(tmp_path / "in", [whole * 20])
    plan = books.plan(source)
    assert plan.segment_frames % 43 == 1  # a last block that was left over
    draft = books.make(source, plan, tmp_path / "work")
    assert books.prove(source, plan, draft, tmp_path / "work").sound.snr_min > 15


def test_seams_are_refused_by_their_median_alone():
    """Windows may be legal by luck: joins 10 dB worse than the rest are refused all the same."""
    from aiom4b.steps.verify import check_seams

    rest = np.full(100, 30, "<f4").tobytes()
    good, bad = (np.array([value] * 20 + [5], "<f4").tobytes() for value in (28.5, 20.0))
    check_seams("a book", [inspect.RangeReport(ratios=b"", joins=good, elsewhere=rest)])
    with pytest.raises(NeedsAttention) as caught:
        check_seams("a book", [inspect.RangeReport(ratios=b"", joins=bad, elsewhere=rest)])
    assert caught.value.code == "proof.seams"
    few = np.full(3, 20, "<f4").tobytes()
    check_seams(
        "a book", [inspect.RangeReport(ratios=b"", joins=few, elsewhere=rest)]
    )  # one hard second proves nothing


def test_joins_that_fall_into_pauses_by_chance_do_not_condemn_a_good_book():
    """Voice and pauses differ by 30 dB: twenty joins among them once had a median 9 dB lower than the places beside them."""
    from aiom4b.steps.verify import check_seams

    report = inspect.RangeReport(
        ratios=b"",
        joins=np.array([30] * 9 + [60] * 8, "<f4").tobytes(),
        elsewhere=np.array([30] * 8 + [60] * 9, "<f4").tobytes(),
    )
    check_seams("a book", [report])


# --- sources ----------------------------------------------------------------------------------------------------------


def test_files_planned_in_the_wrong_order_do_not_pass_for_the_right_ones(made, tmp_path):
    """The proof compares with the plan's order: a book made in another one is refused."""
    audio = [file.audio for file in made.source.files]
    other = replace(made.plan, timeline=timeline.lay_out(audio, (1, 0, 2), RATE, made.plan.encoder.channels))
    draft = books.make(made.source, other, tmp_path / "work")
    assert refusal(lambda: books.prove(made.source, made.plan, draft, tmp_path / "work")) == "proof.sound"


def test_a_backup_that_is_not_what_the_book_was_made_from_is_no_witness(made, tmp_path):
    shutil.copytree(made.source.root, tmp_path / "backup")
    swap = sorted((tmp_path / "backup").iterdir())
    swap[0].write_bytes(swap[1].read_bytes())
    context = books.context(made.work)
    record = record_of(made, made.draft)
    with pytest.raises(NeedsAttention) as caught:
        anyio.run(partial(prove_again, record, made.draft.book, str(tmp_path / "backup"), books.LIMITS, context))
    assert caught.value.code == "backup.damaged"


def test_without_a_record_a_book_is_only_looked_at(made, tmp_path):
    context = books.context(made.work)
    facts = anyio.run(partial(prove_alone, made.draft.book, context))
    assert (facts.packets, facts.samples) == (made.plan.packets, made.plan.timeline.samples)
    draft = fake(made, tmp_path / "f", made.packets())
    with open(draft.book, "r+b") as stream:
        stream.seek(os.path.getsize(draft.book) // 2)
        stream.write(b"\xff" * 5000)
    assert refusal(lambda: anyio.run(partial(prove_alone, draft.book, context))) == "proof.decode"


# --- segments on the disk ---------------------------------------------------------------------------------------------


def test_a_second_run_makes_no_segment_again_and_gives_the_same_bytes(made, tmp_path):
    shutil.copytree(made.work, tmp_path / "work")
    pool = books.Inline()
    draft = books.make(made.source, made.plan, tmp_path / "work", pool)
    assert "make_segment" not in pool.calls
    assert draft.reused == len(draft.segments) == len(made.draft.segments)
    with open(draft.book, "rb") as one, open(made.draft.book, "rb") as two:
        assert one.read() == two.read()


@pytest.mark.parametrize("harm", ["receipt missing", "receipt torn", "audio missing", "another version"])
def test_a_segment_without_a_good_receipt_is_made_again_and_no_other(made, tmp_path, harm):
    shutil.copytree(made.work, tmp_path / "work")
    folder = tmp_path / "work" / "segments"
    name = made.draft.segments[2].file
    receipt = folder / name.replace(".aac", ".json")
    if harm == "receipt missing":
        receipt.unlink()
    elif harm == "receipt torn":
        receipt.write_bytes(receipt.read_bytes()[:50])
    elif harm == "audio missing":
        (folder / name).unlink()
    else:
        receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"v": 2}))
    pool = books.Inline()
    draft = books.make(made.source, made.plan, tmp_path / "work", pool)
    assert pool.calls.count("make_segment") == 1
    assert draft.segments == made.draft.segments


@pytest.mark.parametrize("harm", ["rotten", "torn", "empty"])
def test_a_segment_that_rotted_on_the_disk_is_noticed_and_made_again_next_time(made, tmp_path, harm):
    shutil.copytree(made.work, tmp_path / "work")
    path = tmp_path / "work" / "segments" / made.draft.segments[1].file
    data = bytearray(path.read_bytes())
    if harm == "rotten":
        data[len(data) // 2] ^= 0x10
    path.write_bytes({"rotten": bytes(data), "torn": bytes(data[:-9]), "empty": b""}[harm])
    with pytest.raises(Aiom4bError) as caught:
        books.make(made.source, made.plan, tmp_path / "work")
    assert type(caught.value).__name__ == "Transient", caught.value
    draft = books.make(made.source, made.plan, tmp_path / "work")
    assert draft.segments == made.draft.segments
    assert draft.reused == len(draft.segments) - 1


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_real_workers_however_many_make_the_same_bytes(made, tmp_path, count):
    pool = WorkerPool(count)
    try:
        draft = books.make(made.source, made.plan, tmp_path, pool)
    finally:
        pool.close()
    assert draft.reused == 0
    with open(draft.book, "rb") as one, open(made.draft.book, "rb") as two:
        assert one.read() == two.read()
