"""Is a book of copied packets the same whatever happened on the way, and does it hold nothing that was not listened to?"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import anyio
import pytest

import books
import sound
from aiom4b.adapters.files import identity
from aiom4b.adapters.space import SpaceLedger, Volume
from aiom4b.engine import media, unlock
from aiom4b.engine.pool import Rank
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import AudibleKey, Method, Progress, Sidecar, SidecarKind
from aiom4b.steps.convert import convert
from audible_files import ACTIVATION_BYTES, IV, KEY, decoded, lock_aax, lock_aaxc, plain_book
from factories import source

RIGHT = AudibleKey(key=KEY.hex(), iv=IV.hex())
OTHER = AudibleKey(key="ab" * 16, iv="cd" * 16)
PACKETS = 131


class Pool(books.Inline):
    """Calls ``before(number of the call, function)`` before each task."""

    def __init__(self, before):
        super().__init__()
        self._before = before

    async def run(self, function, *args, **how):
        await self._before(len(self.calls), function)
        return await super().run(function, *args, **how)


def dying(number):
    """A pool whose worker dies during that task."""

    async def before(call, function):
        if call == number:
            raise Transient("worker.crashed", f"A worker died during {function.__name__}.", remedy="Try again.")

    return Pool(before)


def made(book, plan, work, keys, *, pool=None, report=None):
    os.makedirs(work, exist_ok=True)
    context = books.context(work, pool)
    if report:
        context = replace(context, report=report)

    async def run():
        return await convert(book, plan, books.receipt(book), keys, context, refuse_damage=False)

    return anyio.run(run)


def content(folder):
    """The hash of each file of a draft, by its name."""
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def planned(book, **how):
    plan = books.plan(book, segment_frames=20, **how)
    assert plan.method is Method.COPY
    return plan


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_book(tmp_path_factory.mktemp("plain") / "plain.m4b")


@pytest.fixture
def book(tmp_path, plain):
    """One locked file, and what lies beside it."""
    return locked_book(tmp_path / "in", plain)


def locked_book(root, *plain_books):
    keys = (RIGHT, OTHER)
    files = {}
    for number, (one, key) in enumerate(zip(plain_books, keys, strict=False), 1):
        locked = lock_aaxc(one, one.with_suffix(".locked"), bytes.fromhex(key.key), bytes.fromhex(key.iv))
        files[f"{number}.aaxc"] = locked.read_bytes()
    made = books.source(root, files)
    for name, text in (("notes.pdf", b"%PDF-1.4"), ("x-annotations.json", b"{}")):
        (root / name).write_bytes(text)
    kinds = {"notes.pdf": SidecarKind.DOCUMENT, "x-annotations.json": SidecarKind.ANNOTATIONS}
    beside = [Sidecar(path=name, identity=identity(os.stat(root / name)), kind=kind) for name, kind in kinds.items()]
    return source(*made.files, name="A Book", root=str(root), sidecars=beside)


KEYS = {"1.aaxc": RIGHT, "2.aaxc": OTHER}


def test_a_locked_book_becomes_what_it_was_locked_from(tmp_path, plain, book):
    plan = planned(book)
    draft = made(book, plan, tmp_path / "work", KEYS)
    assert decoded(draft.book) == decoded(plain)
    assert [data for _, data in media.packets(draft.book)] == [data for _, data in media.packets(str(plain))]
    proof = books.prove(book, plan, draft, tmp_path / "work")
    assert (proof.packets, proof.samples) == (PACKETS, plan.timeline.samples)
    assert [one.packets for one in draft.segments] == [20] * 6 + [11]


def test_the_same_book_from_any_lock_and_place_has_the_same_bytes(tmp_path, plain, book):
    """All but the id, which is that of the locked files' content."""
    plan = planned(book)
    drafts = [made(book, plan, tmp_path / "one", KEYS)]
    for number, (lock, key) in enumerate(
        ((lock_aax, AudibleKey(activation_bytes=ACTIVATION_BYTES.hex())), (lock_aaxc, RIGHT)), 1
    ):
        folder = tmp_path / f"other {number}"
        folder.mkdir()
        lock(plain, folder / "1.aaxc", moov_last=True, wide=True)
        for name in ("notes.pdf", "x-annotations.json"):
            (folder / name).write_bytes((tmp_path / "in" / name).read_bytes())
        other = replace(book, root=str(folder))
        drafts.append(made(other, plan, tmp_path / f"work {number}", {"1.aaxc": key}))
    assert content(drafts[0].folder) == content(drafts[1].folder) == content(drafts[2].folder)


def test_several_locked_files_are_joined_each_with_its_key(tmp_path, plain):
    second = plain_book(tmp_path / "second.m4b", 4.0, seed=2)
    book = locked_book(tmp_path / "in", plain, second)
    plan = planned(book, chapters=())
    draft = made(book, plan, tmp_path / "work", KEYS)
    packets = [data for path in (plain, second) for _, data in media.packets(str(path))]
    assert [data for _, data in media.packets(draft.book)] == packets
    books.prove(book, plan, draft, tmp_path / "work")


@pytest.mark.parametrize("keys", [{"1.aaxc": OTHER}, {"1.aaxc": AudibleKey(key=RIGHT.iv, iv=RIGHT.key)}])
def test_noise_is_never_made_a_book(tmp_path, book, keys):
    with pytest.raises(NeedsAttention) as caught:
        made(book, planned(book), tmp_path / "work", keys)
    assert caught.value.code == "audio.damaged"
    assert OTHER.key not in caught.value.reason


def test_without_its_key_a_locked_file_is_never_made_a_book(tmp_path, book):
    with pytest.raises(NeedsAttention) as caught:
        made(book, planned(book), tmp_path / "work", {})
    assert caught.value.code == "audio.damaged"


# --- interrupted -------------------------------------------------------------------------------------------------------


def test_a_worker_may_die_at_any_task_and_the_next_draft_is_bit_for_bit_the_same(tmp_path, book):
    plan = planned(book)
    pool = books.Inline()
    expected = content(made(book, plan, tmp_path / "whole", KEYS, pool=pool).folder)
    assert {"stretches", "mux", "write_tags"} <= set(pool.calls)
    for number in range(len(pool.calls)):
        work = tmp_path / f"work {number}"
        with pytest.raises(Transient) as caught:
            made(book, plan, work, KEYS, pool=dying(number))
        assert caught.value.code == "worker.crashed"
        draft = made(book, plan, work, KEYS)
        assert content(draft.folder) == expected
        assert draft.reused == 0


def test_what_a_dead_worker_left_in_the_draft_is_gone(tmp_path, book):
    work = tmp_path / "work"
    os.makedirs(work / "draft" / "below")
    (work / "draft" / "A Book.m4b").write_bytes(b"half a book")
    (work / "draft" / "below" / "litter").write_bytes(b"x")
    plan = planned(book)
    draft = made(book, plan, work, KEYS)
    assert set(os.listdir(draft.folder)) == {
        os.path.basename(plan.target),
        "cover.jpg",
        *(one.name for one in plan.documents),
    } - ({"cover.jpg"} if plan.cover is None else set())


@pytest.mark.parametrize("name", ["stretches", "mux", "write_tags"])
def test_cancelled_in_the_middle_it_goes_on_as_if_nothing_had_been(tmp_path, book, name):
    plan = planned(book)
    expected = content(made(book, plan, tmp_path / "whole", KEYS).folder)
    reached = []

    async def run():
        with anyio.CancelScope() as scope:

            async def before(call, function):
                if function.__name__ == name and not reached:
                    reached.append(call)
                    scope.cancel()
                    await anyio.sleep_forever()

            context = books.context(tmp_path / "work", Pool(before))
            await convert(book, plan, books.receipt(book), KEYS, context, refuse_damage=False)
        assert scope.cancelled_caught

    os.makedirs(tmp_path / "work")
    anyio.run(run)
    assert reached
    assert content(made(book, plan, tmp_path / "work", KEYS).folder) == expected


def test_the_space_that_was_set_aside_is_given_back_by_whoever_fails(tmp_path, book):
    free = (1 << 30) + (64 << 20)
    ledger = SpaceLedger(lambda _: Volume(device=1, available=free, size=100 << 30))
    taken = []

    async def before(call, function):
        with pytest.raises(Transient), ledger.reserve("/", free - (1 << 30)):
            pass
        taken.append(call)
        raise Transient("worker.crashed", "It died.", remedy="Try again.")

    context = replace(books.context(tmp_path / "work", Pool(before)), ledger=ledger)
    os.makedirs(tmp_path / "work")

    async def run():
        await convert(book, planned(book), books.receipt(book), KEYS, context, refuse_damage=False)

    with pytest.raises(Transient):
        anyio.run(run)
    assert taken
    with ledger.reserve("/", free - (1 << 30)):
        pass


# --- a source that doesn't stay as it is -------------------------------------------------------------------------------


def test_a_file_that_was_exchanged_between_trial_and_conversion_is_not_published_as_noise(tmp_path, plain, book):
    path = os.path.join(book.root, "1.aaxc")
    assert unlock.tried(path, book.files[0].audio, (RIGHT,)).fit is unlock.Fit.OPENS
    lock_aaxc(plain_book(tmp_path / "other.m4b", seed=9), path, bytes(16), bytes(16))
    with pytest.raises((NeedsAttention, Transient)) as caught:
        made(book, planned(book), tmp_path / "work", KEYS)
    assert caught.value.code in {"audio.damaged", "source.changed"}


@pytest.mark.parametrize("call", [1, 2, 5, 7])
def test_packets_that_nobody_listened_to_do_not_get_into_the_book(tmp_path, book, call):
    """What is heard and what is written are read apart: they may be of two files."""
    other = lock_aaxc(plain_book(tmp_path / "other.m4b", seed=9), tmp_path / "other.aaxc")

    async def before(number, _):
        if number == call:
            os.replace(other, os.path.join(book.root, "1.aaxc"))

    with pytest.raises(Transient) as caught:
        made(book, planned(book), tmp_path / "work", KEYS, pool=Pool(before))
    assert not other.exists()
    assert caught.value.code == "segment.damaged"


def test_a_file_that_became_shorter_is_a_source_that_changed(tmp_path, book):
    os.truncate(os.path.join(book.root, "1.aaxc"), os.stat(os.path.join(book.root, "1.aaxc")).st_size - 4000)
    with pytest.raises((Transient, NeedsAttention)) as caught:
        made(book, planned(book), tmp_path / "work", KEYS)
    assert caught.value.code in {"source.changed", "audio.truncated"}


# --- what lies beside the book -----------------------------------------------------------------------------------------


def test_documents_lie_beside_the_book_under_its_name(tmp_path, book):
    plan = planned(book)
    draft = made(book, plan, tmp_path / "work", KEYS)
    assert [one.path for one in plan.documents] == ["notes.pdf", "x-annotations.json"]
    for one in plan.documents:
        with (
            open(os.path.join(draft.folder, one.name), "rb") as copy,
            open(os.path.join(book.root, one.path), "rb") as original,
        ):
            assert copy.read() == original.read()
    assert not [name for name in os.listdir(draft.folder) if name.startswith(".")]


def test_a_document_that_went_away_is_told(tmp_path, book):
    os.unlink(os.path.join(book.root, "notes.pdf"))
    with pytest.raises(NeedsAttention) as caught:
        made(book, planned(book), tmp_path / "work", KEYS)
    assert caught.value.code == "file.missing"


def test_progress_rises_to_the_whole(tmp_path, book):
    plan = planned(book)
    heard: list[Progress] = []
    made(book, plan, tmp_path / "work", KEYS, report=heard.append)
    assert [one.done for one in heard] == sorted(one.done for one in heard)
    assert heard[-1].done == heard[-1].total == plan.timeline.samples
    assert len(heard) > 3


def test_no_task_carries_a_key_that_shows(tmp_path, book):
    shown = []

    class Telling(books.Inline):
        async def run(self, function, *args, rank=Rank(), **how):  # noqa: B008 - as in the pool
            shown.append(repr(args))
            return await super().run(function, *args, rank=rank, **how)

    made(book, planned(book), tmp_path / "work", KEYS, pool=Telling())
    assert shown
    assert not any(secret in text for text in shown for secret in (RIGHT.key, RIGHT.iv))


def test_a_book_of_one_packet_is_copied_too(tmp_path):
    (tmp_path / "plain.m4a").write_bytes(sound.m4a(sound.noise(1 / 22050, 22050), 22050))
    book = locked_book(tmp_path / "in", tmp_path / "plain.m4a")
    assert book.files[0].audio.frames <= 2
    plan = planned(book)
    draft = made(book, plan, tmp_path / "work", KEYS)
    assert decoded(draft.book) == decoded(tmp_path / "plain.m4a")
    books.prove(book, plan, draft, tmp_path / "work")
