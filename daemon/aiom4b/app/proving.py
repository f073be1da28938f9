"""Is a published book still what it was? Proved again, long after, against its backup."""

from __future__ import annotations

import os
from dataclasses import dataclass

import anyio
import anyio.to_thread

from aiom4b.adapters import backups, files, records, tags
from aiom4b.adapters.records import Record
from aiom4b.app.keyring import SettledKeys
from aiom4b.config import Settings
from aiom4b.engine.inspect import BookFacts
from aiom4b.engine.pool import Rank
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.models import Name, Proof
from aiom4b.steps.context import Resources, StepContext
from aiom4b.steps.examine import probe_limits
from aiom4b.steps.verify import prove_again, prove_alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a later look at a published book showed. ``proof`` is None when nothing was there to compare it with.

    ``unchanged``: the file is, byte for byte, the one that was published; None when that isn't known. ``missing`` says in
    words what would have been needed for a full proof.
    """

    book: Name
    proof: Proof | None
    facts: BookFacts | None
    unchanged: bool | None
    missing: str


async def verify_book(book: str, backup_dir: str | None, settings: Settings) -> Verified:
    """Prove a published book again against its backup; without record or backup look at the file alone.

    Raises NeedsAttention ``proof.*`` when it is not what it should be, ``book.missing`` when there is no such file.
    """
    path = os.path.abspath(book)
    if not os.path.isfile(path):
        raise NeedsAttention(
            "book.missing",
            f"There is no book {files.displayable(path)}.",
            remedy="Give the path of an .m4b file.",
            path=path,
            exit=Exit.NOT_FOUND,
        )
    resources = Resources.of(settings.encode.workers, SettledKeys(settings))
    try:
        context = resources.context(os.path.dirname(path), Rank(), lambda _: None)
        record = await _record_of(path, context)
        root, missing = await anyio.to_thread.run_sync(_backup_of, record, backup_dir)
        unchanged = None
        if record is not None:
            unchanged = await anyio.to_thread.run_sync(files.hash_file, path) == record.sha256
        if record is None or root is None:
            facts = await prove_alone(path, context)
            return Verified(book=path, proof=None, facts=facts, unchanged=unchanged, missing=missing)
        proof = await prove_again(record, path, root, probe_limits(settings), context)
        return Verified(book=path, proof=proof, facts=None, unchanged=unchanged, missing="")
    except NeedsAttention as error:
        if error.code.startswith("proof."):
            error.remedy = "Put a good copy of the book in its place, or convert its source once more with --again."
        raise
    finally:
        resources.pool.close()


async def _record_of(book: str, context: StepContext) -> Record | None:
    """Find the record of a book: by the id in its tags, in the library that holds it."""
    identity = await context.work(tags.book_id_of, book)
    if identity is None:
        return None
    folder = os.path.dirname(book)
    while folder != os.path.dirname(folder):
        if os.path.isdir(records.folder(folder)):
            return await anyio.to_thread.run_sync(records.by_id, folder, identity)
        folder = os.path.dirname(folder)
    return None


def _backup_of(record: Record | None, backup_dir: str | None) -> tuple[str | None, str]:
    """Return where the sources of a book lie, or None and what is missing."""
    if record is None:
        return None, "The library has no record of this book."
    if backup_dir is not None:
        for made in reversed(backups.list_sets(backup_dir)):
            if made.fingerprint == record.fingerprint:
                return made.root, ""
        return None, f"There is no backup of this book's source in {files.displayable(backup_dir)}."
    if all(os.path.isfile(os.path.join(record.backup.root, file.path)) for file in record.files):
        return record.backup.root, ""
    return None, f"The backup {files.displayable(record.backup.root)} is not there."
