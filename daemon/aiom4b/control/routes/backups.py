"""What can be done with backups from outside? Listing, verifying, and bringing one back into the source directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path

from aiom4b.adapters import backups
from aiom4b.adapters.backup_format import BackupSet
from aiom4b.adapters.files import displayable, lies_in, translated
from aiom4b.control.problems import documented
from aiom4b.control.routes.parts import Limit, Offset, Parts, TheParts, TheService
from aiom4b.control.schemas import answers, names, requests
from aiom4b.errors import Exit, NeedsAttention, Transient

router = APIRouter(tags=["backups"])
Id = Annotated[str, Path(description="The name of the backup's folder.")]


@router.get("/backups")
async def list_backups(service: TheService, limit: Limit = 100, offset: Offset = 0) -> answers.BackupsDocument:
    """List the complete backups, the oldest first."""
    directory = service.settings().paths.backup
    found = await anyio.to_thread.run_sync(_sets, directory)
    items = [answers.BackupDocument.of(made) for made in found[offset : offset + limit]]
    return answers.BackupsDocument(items=items, total=len(found), limit=limit, offset=offset)


@router.post("/backups/{id}/verify", responses=documented(404))
async def verify(id: Id, parts: TheParts) -> answers.VerifiedDocument:
    """Read every file of a backup from the disk and compare it. Answers when that is done."""
    path = await anyio.to_thread.run_sync(_place, parts.service.settings().paths.backup, id)
    findings = await _worked(parts, backups.verify_set, path)
    return answers.VerifiedDocument(id=id, ok=not findings, findings=[displayable(one) for one in findings])


@router.post("/backups/{id}/restore", responses=documented(404, 409, 422))
async def restore(id: Id, parts: TheParts, request: requests.RestoreRequest | None = None) -> answers.RestoredDocument:
    """Copy a backup back, verified, over nothing that is there already. Answers when that is done; safe to repeat.

    Only into the source directory: whoever may ask for books may put a source back, but not write wherever the service
    may. `aiom4b backups restore` writes wherever its user may.
    """
    paths = parts.service.settings().paths
    path = await anyio.to_thread.run_sync(_place, paths.backup, id)
    made = await anyio.to_thread.run_sync(backups.read_set, path)
    asked = request.target if request is not None else None
    target = await anyio.to_thread.run_sync(_target, paths.source, asked, made)
    restored = await _worked(parts, backups.restore_set, path, target)
    files = [answers.NameDocument(name=displayable(one), name_b64=names.exactly(one)) for one in restored]
    return answers.RestoredDocument(files=files, total=len(files))


class _StoppingError(Exception):
    """None of ours, which would be taken for a file that can't be read."""


async def _worked(parts: Parts, work: Callable[..., tuple[str, ...]], *places: str) -> tuple[str, ...]:
    """Read a backup in a thread, and give up when the server stops: a thread can't be cancelled, and keeps the process."""

    def go_on(_: int) -> None:
        if parts.closing.is_set():
            raise _StoppingError

    try:
        return await anyio.to_thread.run_sync(partial(work, *places, on_bytes=go_on))
    except _StoppingError as error:
        raise Transient(
            "service.stopping",
            "The service stopped before the backup was worked through.",
            remedy="Ask again when it runs; what is restored already stays.",
        ) from error


def _sets(directory: str) -> tuple[BackupSet, ...]:
    return backups.list_sets(directory) if os.path.isdir(directory) else ()


def _place(directory: str, id: str) -> str:
    """Return the folder of a backup. It is looked for among the names that are there, so that no id leads elsewhere."""
    names: list[str] = []
    if os.path.isdir(directory):
        with translated(directory, "reading the folder"):
            names = [name for name in os.listdir(directory) if not name.startswith(".")]
    found = [name for name in names if name == id] or [name for name in names if displayable(name) == id]
    if len(found) != 1:
        raise NeedsAttention(
            "backup.none",
            f"There is no backup {displayable(id)}.",
            remedy="GET /api/v1/backups or `aiom4b backups list` shows them all.",
            exit=Exit.NOT_FOUND,
        )
    return os.path.join(directory, found[0])


def _target(source: str | None, asked: str | None, made: BackupSet) -> str:
    """Return the folder to restore into; raises NeedsAttention ``path.outside``."""
    target = os.path.join(source or "/", asked if asked is not None else made.source)
    if source is None or not lies_in(target, source):
        raise NeedsAttention(
            "path.outside",
            f"{displayable(target)} is not in the source directory.",
            remedy="Name a folder inside the source directory, or use `aiom4b backups restore`, which takes any.",
        )
    return os.path.normpath(target)
