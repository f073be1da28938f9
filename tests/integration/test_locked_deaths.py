"""Is an unlocked book the same to the bit although its worker was killed, or all was cancelled, with half of it written?"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import anyio
import pytest

import books
import dying
from aiom4b.engine.pool import WorkerPool
from aiom4b.errors import Transient
from aiom4b.models import AudibleKey
from aiom4b.steps.convert import convert
from audible_files import IV, KEY, decoded, lock_aaxc, plain_book

KEYS = {"1.aaxc": AudibleKey(key=KEY.hex(), iv=IV.hex())}
DEATHS = {"mux": dying.half_a_mux, "stretches": dying.half_a_hearing, "write_tags": dying.written_and_gone}


class Fated(WorkerPool):
    """Gives the first task of a name to a worker that will be killed in it."""

    def __init__(self, name):
        super().__init__(2)
        self._name = name

    async def run(self, function, *args, **how):
        if function.__name__ == self._name:
            self._name, function = None, DEATHS[self._name]
        return await super().run(function, *args, **how)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Six minutes, and what was made of it undisturbed."""
    return plain_book(tmp_path_factory.mktemp("plain") / "plain.m4b", 6.0, times=60)


@pytest.fixture
def book(tmp_path, plain):
    locked = lock_aaxc(plain, tmp_path / "locked.aaxc")
    return books.source(tmp_path / "in", {"1.aaxc": locked.read_bytes()})


def hashed(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


async def made(book, plan, work, pool, report=lambda _: None):
    os.makedirs(work, exist_ok=True)
    context = replace(books.context(work, pool), report=report)
    return await convert(book, plan, books.receipt(book), KEYS, context, refuse_damage=False)


@pytest.mark.parametrize("name", DEATHS)
def test_a_worker_that_is_killed_in_the_middle_costs_nothing_but_time(tmp_path, plain, book, name):
    plan = books.plan(book)
    seen = []

    async def run():
        pool, other = Fated(name), WorkerPool(2)
        try:
            whole = await made(book, plan, tmp_path / "whole", other)
            with pytest.raises(Transient) as caught:
                await made(book, plan, tmp_path / "work", pool)
            seen.append(caught.value.code)
            again = await made(book, plan, tmp_path / "work", pool)
            return whole, again
        finally:
            pool.close()
            other.close()

    whole, again = anyio.run(run)
    assert seen == ["worker.crashed"]
    assert hashed(again.folder) == hashed(whole.folder)
    assert decoded(again.book) == decoded(plain)


def test_cancelled_while_workers_are_at_it_nothing_of_it_stays(tmp_path, plain, book):
    plan = books.plan(book, segment_frames=40)

    async def run():
        first, second = WorkerPool(2), WorkerPool(2)
        try:
            with anyio.CancelScope() as scope:
                await made(book, plan, tmp_path / "work", first, lambda _: scope.cancel())
            assert scope.cancelled_caught
            return await made(book, plan, tmp_path / "work", second)
        finally:
            first.close()
            second.close()

    draft = anyio.run(run)
    assert decoded(draft.book) == decoded(plain)
    books.prove(book, plan, draft, tmp_path / "work")
