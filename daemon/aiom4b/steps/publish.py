"""How does a proved book appear in the library? In one visible move, over nothing, and with a record."""

from __future__ import annotations

import os
import unicodedata
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

    Nothing is ever replaced: a name that is taken, if only in another case, gives ``another_name(target, n)`` in the same
    parent folder, and the first free one is taken. Where the very same bytes stand under any of these names already, they are
    the book, and no second copy is made: after a crash, after records were lost, and when a book was made again with nothing
    changed. Raises what the file system says (``files.translated``).
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
    parent = _parent(plan, library)
    for name, file in _names_to_try(plan, another_name):
        if _taken(os.path.join(library, parent), name):
            continue
        with files.translated(os.path.join(library, parent), "publishing the book"):
            _rename_inside(draft, plan, file)
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
    """Return where the library holds the very bytes that were proved, under one of the book's names, or None.

    All of its names, beyond gaps too: the owner may have removed the books that once made this one the third.
    """
    parent = _parent(plan, library)
    there = {_as_seen(entry) for entry in _names(os.path.join(library, parent))}
    for name, file in _names_to_try(plan, another_name):
        if _as_seen(name) in there and _holds(os.path.join(library, parent, name, file), proof.sha256):
            return os.path.join(parent, name, file)
    return None


def _holds(path: str, sha256: Sha256) -> bool:
    """Whether a file has this content. A link or what we may not read is somebody else's: its name is taken, no more."""
    try:
        return os.path.isfile(path) and files.hash_file(path) == sha256
    except NeedsAttention:
        return False


def _parent(plan: BookPlan, library: str) -> str:
    """Return the folder that the book's own folder goes into, as the library spells it."""
    return _as_it_stands(library, os.path.dirname(os.path.dirname(plan.target)))


def _names_to_try(plan: BookPlan, another_name: Callable[[str, int], str]) -> Iterator[tuple[str, str]]:
    """Yield names of the book's folder and its file, the wanted ones first."""
    for number in range(1, _MOST_NAMES):
        target = plan.target if number == 1 else another_name(plan.target, number)
        yield os.path.basename(os.path.dirname(target)), os.path.basename(target)


def _rename_inside(draft: Draft, plan: BookPlan, name: str) -> None:
    """Rename the book within its draft folder, whatever it is called after an earlier try, and the documents named after it."""
    before = next(entry for entry in os.listdir(draft.folder) if entry.endswith(".m4b")).removesuffix(".m4b")
    after = name.removesuffix(".m4b")
    planned = os.path.basename(plan.target).removesuffix(".m4b")
    rests = [".m4b", *(one.name.removeprefix(planned) for one in plan.documents if one.name.startswith(planned))]
    for rest in rests:
        if os.path.lexists(os.path.join(draft.folder, before + rest)):
            os.rename(os.path.join(draft.folder, before + rest), os.path.join(draft.folder, after + rest))


def _as_it_stands(library: str, relative: str) -> str:
    """Return a path of folders as the library spells them: "J. K. Rowling" joins an existing "j. k. rowling"."""
    spelled = ""
    for part in relative.split("/") if relative else ():
        folder = os.path.join(library, spelled)
        match = part
        if not os.path.isdir(os.path.join(folder, part)):
            match = next((entry for entry in _names(folder) if _as_seen(entry) == _as_seen(part)), part)
        spelled = os.path.join(spelled, match)
    return spelled


def _taken(folder: str, name: str) -> bool:
    """Whether a name is used, if only in another spelling that `_as_seen` doesn't tell apart."""
    return any(_as_seen(entry) == _as_seen(name) for entry in _names(folder))


def _as_seen(name: str) -> str:
    """Return a name as systems see it that know no case, or one way of writing an accent: players may run on such."""
    return unicodedata.normalize("NFC", name).casefold()


def _names(folder: str) -> list[str]:
    with files.translated(folder, "reading the folder"):
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
