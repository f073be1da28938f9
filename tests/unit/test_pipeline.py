"""What is remembered of a book between its acceptance and its publication, and is it believed only while it is true?"""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

import factories
from aiom4b import pipeline
from aiom4b.models import BackupReceipt, CopiedFile, Fingerprint, Sidecar, SidecarKind, Step
from sets import write

ODD = os.fsdecode(b"CD1/\xff 1.mp3")


@pytest.fixture
def source():
    cover = Sidecar(path="cover.jpg", identity=factories.identity(9), kind=SidecarKind.COVER, sha256="c" * 64)
    file = factories.source_file(ODD, title="One", chapters=[(0, "Dawn"), (1.5, "Noon")])
    made = factories.source(file, "CD1/2.mp3", sidecars=[cover], root=os.fsdecode(b"/in/\xfe"))
    return replace(made, warnings=("Something odd.",))


@pytest.fixture
def library(tmp_path):
    return str(tmp_path)


def journal(library, source):
    return pipeline.FileJournal(pipeline.work_dir(library, source.fingerprint))


def backed_up(library, source, *, copied=True):
    """Record a backup as an unfinished run does, and return where it is."""
    root = write(os.path.join(library, "backups", "Book"), {"1.mp3": b"audio", "backup.json": b"{}"})
    receipt = BackupReceipt(
        root=root, copied=copied, files=(CopiedFile(path="1.mp3", size=len(b"audio"), sha256="a" * 64),)
    )
    os.makedirs(pipeline.work_dir(library, source.fingerprint), exist_ok=True)
    journal(library, source).put(Step.BACKUP, pipeline._BackedUp(receipt=receipt, sidecars=source.sidecars))
    return root


def test_a_source_is_remembered_with_everything_that_was_seen_of_it(library, source):
    pipeline.remember(library, source)
    assert pipeline.remembered(library, source.fingerprint) == source


def test_a_source_that_was_looked_at_again_is_remembered_as_it_is_now(library, source):
    pipeline.remember(library, source)
    moved = replace(source, root="/elsewhere")
    pipeline.remember(library, moved)
    assert pipeline.remembered(library, source.fingerprint) == moved


def test_a_source_that_nobody_accepted_is_not_remembered(library, source):
    assert pipeline.remembered(library, source.fingerprint) is None
    assert os.listdir(library) == []


def test_another_source_in_the_same_place_is_not_taken_for_it(library, source):
    pipeline.remember(library, source)
    alike = Fingerprint(source.fingerprint[:16] + "f" * 48)
    assert pipeline.work_dir(library, alike) == pipeline.work_dir(library, source.fingerprint)
    assert pipeline.remembered(library, alike) is None


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda _: b"", lambda _: b"[1]"])
def test_what_is_torn_or_foreign_is_not_believed(library, source, damage):
    pipeline.remember(library, source)
    path = os.path.join(pipeline.work_dir(library, source.fingerprint), "examine.json")
    with open(path, "rb") as file:
        text = file.read()
    with open(path, "wb") as file:
        file.write(damage(text))
    assert pipeline.remembered(library, source.fingerprint) is None


def test_what_another_version_wrote_is_not_believed(library, source):
    pipeline.remember(library, source)
    path = os.path.join(pipeline.work_dir(library, source.fingerprint), "examine.json")
    with open(path, "rb") as file:
        document = json.load(file)
    with open(path, "w", encoding="ascii") as file:
        json.dump(document | {"v": document["v"] + 1}, file)
    assert pipeline.remembered(library, source.fingerprint) is None


def test_a_recorded_backup_counts_while_its_files_are_there(library, source):
    assert not pipeline.has_backup(library, source.fingerprint)
    root = backed_up(library, source)
    assert pipeline.has_backup(library, source.fingerprint)
    os.truncate(os.path.join(root, "1.mp3"), 3)
    assert not pipeline.has_backup(library, source.fingerprint)


def test_the_source_itself_is_no_backup(library, source):
    backed_up(library, source, copied=False)
    assert not pipeline.has_backup(library, source.fingerprint)
