"""How does a proved book appear in the library? In one visible move, over nothing, and with a record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import anyio.to_thread

from aiom4b.adapters import files, records
from aiom4b.adapters.records import PieceRecord, Record, SourceRecord
from aiom4b.errors import NeedsAttention
from aiom4b.models import BackupReceipt, BookPlan, Draft, Proof, Publication, Sha256, Source
from aiom4b.steps.context import TOOL, StepContext

_MOST_NAMES = 1000


async def publish(
    source: Source,
    plan: BookPlan,
    receipt: BackupReceipt,
    draft: Draft,
    proof: Proof,
    context: StepContext,
    *,
    library: str,
    another_name: Callable[[str, int], str],
) -> Publication:
    """Move the draft's folder into the library and write the book's record.

    Nothing is ever replaced: a name that is taken, if only in another case, gives ``another_name(target, n)``. Where the very
    same bytes stand under one of these names already, they are the book, and no second copy is made: after a crash, after
    records were lost, and when a book was made again with nothing changed. Raises what the file system says
    (``files.translated``).
    """
    return await anyio.to_thread.run_sync(
        _publish,
        source,
        plan,
        receipt,
        draft,
        proof,
        library,
        another_name,
        context.clock().isoformat(timespec="seconds"),
    )


def _publish(
    source: Source,
    plan: BookPlan,
    receipt: BackupReceipt,
    draft: Draft,
    proof: Proof,
    library: str,
    another_name: Callable[[str, int], str],
    now: str,
) -> Publication:
    book, already = _move(plan, draft, proof, library, another_name)
    path = os.path.join(library, book)
    records.write(
        library,
        Record(
            id=plan.id,
            fingerprint=plan.fingerprint,
            book=book,
            sha256=proof.sha256,
            size=os.stat(path).st_size,
            bit_rate=draft.bit_rate,
            published=now,
            tool=TOOL,
            source=source.root,
            files=tuple(
                SourceRecord(path=file.path, size=file.identity.size, sha256=file.sha256) for file in source.files
            ),
            backup=receipt,
            plan=plan,
            pieces=tuple(
                PieceRecord(first=one.first, packets=one.packets, sha256=one.sha256) for one in draft.segments
            ),
            proof=proof,
            warnings=plan.warnings + draft.warnings,
        ),
    )
    return Publication(id=plan.id, book=path, sha256=proof.sha256, already=already)


def _move(
    plan: BookPlan, draft: Draft, proof: Proof, library: str, another_name: Callable[[str, int], str]
) -> tuple[str, bool]:
    """Give the draft its place; return the book's path relative to the library, and whether it was there before."""
    if (found := find_same(plan, proof, library, another_name)) is not None:
        return found, os.path.lexists(draft.folder)
    for parent, name, file in _places(plan, library, another_name):
        if _taken(os.path.join(library, parent), name):
            continue
        with files.translated(os.path.join(library, parent), "publishing the book"):
            _rename_inside(draft, file)
            files.make_directories(os.path.join(library, parent))
            try:
                files.publish(draft.folder, os.path.join(library, parent, name))
            except FileExistsError:
                continue  # somebody was quicker
        return os.path.join(parent, name, file), False
    raise NeedsAttention(
        "library.taken",
        f"All names for the book are taken: {plan.target}.",
        remedy="Tidy up the books of that name in the library.",
        path=os.path.join(library, plan.target),
    )


def find_same(plan: BookPlan, proof: Proof, library: str, another_name: Callable[[str, int], str]) -> str | None:
    """Return where the library holds the very bytes that were proved, under one of the book's names, or None."""
    for parent, name, file in _places(plan, library, another_name):
        path = os.path.join(library, parent, name, file)
        if _holds(path, proof.sha256):
            return os.path.join(parent, name, file)
        if not os.path.lexists(os.path.join(library, parent, name)):
            return None  # names are tried in this order: it can't be further on
    return None


def _holds(path: str, sha256: Sha256) -> bool:
    """Whether a file has this content. A link or what we may not read is somebody else's: its name is taken, no more."""
    try:
        return os.path.isfile(path) and files.hash_file(path) == sha256
    except NeedsAttention:
        return False


def _places(plan: BookPlan, library: str, another_name: Callable[[str, int], str]) -> Iterator[tuple[str, str, str]]:
    """Yield the names to try: the parent folder as the library spells it, the book's folder, its file."""
    for number in range(1, _MOST_NAMES):
        target = plan.target if number == 1 else another_name(plan.target, number)
        parent, name = os.path.split(os.path.dirname(target))
        yield _as_it_stands(library, parent), name, os.path.basename(target)


def _rename_inside(draft: Draft, name: str) -> None:
    """Rename the book within its draft folder, whatever it is called after an earlier try."""
    for entry in os.listdir(draft.folder):
        if entry.endswith(".m4b"):
            os.rename(os.path.join(draft.folder, entry), os.path.join(draft.folder, name))


def _as_it_stands(library: str, relative: str) -> str:
    """Return a path of folders as the library spells them: "J. K. Rowling" joins an existing "j. k. rowling"."""
    spelled = ""
    for part in relative.split("/") if relative else ():
        folder = os.path.join(library, spelled)
        match = part
        if not os.path.isdir(os.path.join(folder, part)):
            match = next((entry for entry in _names(folder) if entry.casefold() == part.casefold()), part)
        spelled = os.path.join(spelled, match)
    return spelled


def _taken(folder: str, name: str) -> bool:
    """Whether a name is used, also in another case: players on other systems can't tell them apart."""
    return any(entry.casefold() == name.casefold() for entry in _names(folder))


def _names(folder: str) -> list[str]:
    with files.translated(folder, "reading the folder"):
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
