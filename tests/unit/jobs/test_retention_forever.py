"""Whatever happens in whatever order, no cleaning takes the last good copy of anything."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aiom4b.adapters import backups
from aiom4b.jobs import retention
from crashes import killed_at
from sets import NOW, Shelf, fingerprint, make, rot

NAMES = st.sampled_from("AB")
COVERS = st.sampled_from([b"red", b"blue"])


def book(name, cover):
    return {"1.mp3": b"audio of " + name.encode(), "2.jpg": cover + name.encode()}


KNOWN = {data for name in "AB" for cover in (b"red", b"blue") for data in book(name, cover).values()}


class Backups(RuleBasedStateMachine):
    """Sources come, change and go; sets are made and rot; clocks jump; cleaning runs, or dies on its way."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.shelf = Shelf(self.root, self.patch)
        self.now = NOW
        self.safe = []

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.root)

    def whole(self):
        """Return the known contents of every place that holds some: sources, archived ones, sets, and sets moved aside."""
        sets = [path for path in self.root.glob("backups/*") if path.is_dir() and path.name != ".aiom4b"]
        aside = self.root.glob("backups/.aiom4b/.trash-*")
        kept = [path for path in (*sets, *aside) if (path / "backup.json").exists()]
        places = [*self.root.glob("source/*"), *self.root.glob("archive/*"), *kept]
        return [KNOWN & {file.read_bytes() for file in place.iterdir()} for place in places]

    def live_on(self):
        """Note what is safe, after the world has done its part: from here on it must stay so."""
        self.safe = self.whole()

    # --- what the world does ------------------------------------------------------------------------------------------

    @rule(name=NAMES, cover=COVERS)
    def drop(self, name, cover):
        self.shelf.drop(name, book(name, cover))
        self.live_on()

    @rule(name=NAMES)
    def lose(self, name):
        shutil.rmtree(os.path.join(self.shelf.source, name), ignore_errors=True)
        self.live_on()

    @rule(name=NAMES)
    def archive(self, name):
        if (source := self.root / "source" / name).exists():
            (place,) = [place for n in range(9) if not (place := self.root / "archive" / _numbered(name, n)).exists()][
                :1
            ]
            source.rename(place)
        self.live_on()

    @rule(names=st.lists(NAMES, min_size=1, max_size=3), cover=COVERS)
    def back_up(self, names, cover):
        for name in names:
            made = make(self.shelf.backups, os.path.join(self.shelf.source, name), book(name, cover), created=self.now)
            self.shelf.publish(made)
            self.now += timedelta(days=1)
        self.live_on()

    @rule(which=st.integers(0, 9), file=st.sampled_from(["1.mp3", "2.jpg"]))
    def rot(self, which, file):
        sets = backups.list_sets(self.shelf.backups)
        if sets:
            rot(sets[which % len(sets)], file)
        self.live_on()

    @rule(name=NAMES)
    def take_from_the_library(self, name):
        self.shelf.published.discard(fingerprint(book(name, b"red")))

    # --- what we do ---------------------------------------------------------------------------------------------------

    @rule(days=st.sampled_from([0, 40]))
    def clean(self, days):
        self.now += timedelta(days=days)
        self.clean_at(self.now)

    @rule(days=st.sampled_from([-400, -1, 400]))
    def clean_with_a_wrong_clock(self, days):
        self.clean_at(self.now + timedelta(days=days))

    def clean_at(self, now):
        places = {"source": self.shelf.source, "archive": self.shelf.archive}

        async def run():
            await retention.clean(self.shelf.backups, self.shelf.library, days=30, now=now, **places)

        anyio.run(run)

    @rule(call=st.integers(1, 30))
    def clean_and_die(self, call):
        with killed_at(call):
            self.clean(40)

    # --- what must be true --------------------------------------------------------------------------------------------

    @invariant()
    def whatever_was_safe_is_safe_in_one_place(self):
        now = self.whole()
        assert all(any(one <= other for other in now) for one in self.safe)

    @invariant()
    def no_set_is_half_removed(self):
        for made in backups.list_sets(self.shelf.backups):
            assert not any(finding.startswith("Missing") for finding in backups.verify_set(made.root))


def _numbered(name, number):
    return name if number == 0 else f"{name} ({number + 1})"


Backups.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCleaning = Backups.TestCase
