"""What is left of real books and their sources, months later: never less than one verified copy of the audio."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio

from aiom4b.adapters import backups
from aiom4b.jobs import disposal, retention
from household import picture, tracks


def made(house, name, seed):
    answer = house.convert(house.drop(name, tracks(2, album=name, first_seed=seed) | {"cover.jpg": picture()}))
    assert answer.exit == 0, answer.document
    return answer.book


def clean(house, days, **places):
    later = datetime.now(UTC) + timedelta(days=days)
    return anyio.run(partial(retention.clean, str(house.backup), str(house.library), days=30, now=later, **places))


def dispose(house, book, after):
    return anyio.run(
        partial(
            disposal.dispose,
            book["source"],
            after,
            books=[book["output"]],
            sets=[book["backup"]],
            archive=str(house.root / "archive"),
        )
    )


def test_of_a_published_book_either_its_source_or_its_backup_goes_and_never_both(house):
    removed, kept, _ = (made(house, name, seed) for seed, name in ((1, "Emma"), (5, "Persuasion"), (9, "Newest")))
    assert dispose(house, removed, "remove").kept == ()
    assert sorted(os.listdir(house.drops)) == ["Newest", "Persuasion"]
    assert clean(house, 29).removed == ()
    for _ in range(3):
        clean(house, 40)
    assert not os.path.exists(kept["backup"])
    assert backups.verify_set(removed["backup"]) == ()
    (doubt,) = dispose(house, kept, "remove").kept
    assert doubt.path == kept["backup"]
    assert os.path.isdir(kept["source"])
    assert house.convert(kept["source"]).book["already"] is True
    assert house.run("verify", removed["output"], "--json").exit == 0


def test_the_backup_of_an_archived_source_may_go(house):
    archived, _ = made(house, "Emma", 1), made(house, "Newest", 5)
    (house.root / "archive").mkdir()
    assert dispose(house, archived, "archive").archived == str(house.root / "archive" / "Emma")
    assert clean(house, 40).removed == ()
    places = {"source": str(house.drops), "archive": str(house.root / "archive")}
    assert [one.root for one in clean(house, 40, **places).removed] == [archived["backup"]]
