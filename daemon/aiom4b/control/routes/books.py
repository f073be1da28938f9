"""How is a finished book read? In whole or in ranges, straight from the library, and nothing else from anywhere."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import FileResponse

from aiom4b.adapters import files, records
from aiom4b.control.problems import documented
from aiom4b.control.routes.jobs import Id
from aiom4b.control.routes.parts import TheService
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.models import BookId

router = APIRouter(tags=["books"])
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"audio/mp4": {}}, "description": "The book."},
    206: {"description": "A part of it."},
}


@router.head("/download/{job_id}", include_in_schema=False)
@router.get(
    "/download/{job_id}",
    response_class=FileResponse,
    responses={**_FILE, **documented(403, 404, 409)},
)
async def download(job_id: Id, service: TheService) -> FileResponse:
    """Send the book that a job made, as a file to keep. Knows Range and If-Range."""
    job = await service.desk.known(job_id)
    if job.output is None:
        raise NeedsAttention(
            "job.no_output",
            f"The job is {job.status} and has no book yet.",
            remedy="Wait until its status is completed.",
        )
    return await anyio.to_thread.run_sync(_file, service.settings().paths.library, job.output, "attachment")


@router.head("/stream/{file_id}", include_in_schema=False)
@router.get(
    "/stream/{file_id}",
    response_class=FileResponse,
    responses={**_FILE, **documented(403, 404)},
)
async def stream(file_id: str, service: TheService) -> FileResponse:
    """Send a published book by its id (a job's ``book``), to be played. Knows Range and If-Range."""
    library = service.settings().paths.library
    record = None
    if library is not None and re.fullmatch("[0-9a-f]{16}", file_id):
        record = await anyio.to_thread.run_sync(records.by_id, library, BookId(file_id))
    if library is None or record is None:
        raise _missing("The library has no book of this id.")
    return await anyio.to_thread.run_sync(_file, library, os.path.join(library, record.book), "inline")


def _file(library: str | None, path: str, disposition: Literal["attachment", "inline"]) -> FileResponse:
    """Return the answer that sends a file of the library. Raises NeedsAttention ``path.outside``, ``book.missing``."""
    real = os.path.realpath(path)
    if library is None or not files.lies_in(real, library):
        raise NeedsAttention(
            "path.outside",
            "The book is not in the library, or no longer.",
            remedy="Only books inside paths.library are given out.",
            exit=Exit.NOT_PERMITTED,
        )
    try:
        os.close(files.open_regular(real))
    except NeedsAttention as error:
        if error.exit is Exit.NOT_PERMITTED:
            raise
        raise _missing("The book is not in the library any more.") from error
    return FileResponse(
        real,
        media_type="audio/mp4",
        filename=files.displayable(os.path.basename(real)),
        content_disposition_type=disposition,
        stat_result=os.stat(real),
    )


def _missing(reason: str) -> NeedsAttention:
    return NeedsAttention(
        "book.missing",
        reason,
        remedy="GET /api/v1/jobs shows the books that were made; `aiom4b forget` lets one be made again.",
        exit=Exit.NOT_FOUND,
    )
