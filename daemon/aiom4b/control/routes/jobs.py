"""What can be done with jobs? Asking for books, looking, and changing one's mind."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Body, Path, Query, Response

from aiom4b.book import naming
from aiom4b.control.problems import documented
from aiom4b.control.routes.parts import Limit, Offset, TheService
from aiom4b.control.schemas import answers, requests, work
from aiom4b.control.service import Service
from aiom4b.jobs.job import Job, JobId, Kind, Status
from aiom4b.models import Metadata

router = APIRouter(tags=["jobs"])
Id = Annotated[JobId, Path(description="The job's id.")]


@router.post("/convert", status_code=202, responses=documented(404, 422))
async def convert(request: requests.ConvertRequest, service: TheService) -> work.AcceptedDocument:
    """Queue folders of the source directory, whatever is known of them: a job for each, or one for all with ``merge``."""
    return await _submitted(service, request.folders, request)


@router.post("/jobs", status_code=202, responses=documented(404, 422))
async def create(request: requests.JobRequest, service: TheService, response: Response) -> work.AcceptedDocument:
    """Queue one folder of the source directory."""
    accepted = await _submitted(service, [request.folder], request)
    response.headers["Location"] = f"/api/v1/jobs/{accepted.jobs[0].id}"
    return accepted


@router.get("/jobs")
async def jobs(
    service: TheService,
    status: Annotated[list[Status] | None, Query(description="Only jobs of these statuses.")] = None,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.")] = None,
    id: Annotated[str, Query(pattern="^[0-9a-f-]{0,36}$", description="Only jobs whose id begins like this.")] = "",
    limit: Limit = 100,
    offset: Offset = 0,
) -> work.JobsDocument:
    """List jobs, the newest first."""
    found, total = await service.store.jobs(status=status, kind=kind, beginning=id, limit=limit, offset=offset)
    return work.JobsDocument(items=[told(service, job) for job in found], total=total, limit=limit, offset=offset)


@router.post("/jobs/clear")
async def clear(service: TheService, request: requests.ClearRequest | None = None) -> answers.ClearedDocument:
    """Remove ended jobs from the history. Books and backups stay, and nothing is converted again for it."""
    wanted = request or requests.ClearRequest()
    age = timedelta(days=wanted.older_than_days)
    return answers.ClearedDocument(cleared=await service.desk.clear(wanted.status, age))


@router.get("/jobs/{id}", responses=documented(404))
async def job(id: Id, service: TheService) -> work.JobDocument:
    """Tell everything about one job."""
    return told(service, await service.desk.known(id))


@router.delete("/jobs/{id}", status_code=204, responses=documented(404, 409))
async def delete(id: Id, service: TheService) -> None:
    """Remove an ended job from the history. Its book and its backup stay."""
    await service.desk.delete(id)


@router.get("/jobs/{id}/log", responses=documented(404))
async def log(id: Id, service: TheService) -> work.LogDocument:
    """Tell what happened to a job, the oldest first; the newest 200 lines are kept."""
    await service.desk.known(id)
    lines = await service.store.log(id)
    return work.LogDocument(items=[work.LogLineDocument.of(line) for line in lines], total=len(lines))


@router.post("/jobs/{id}/cancel", responses=documented(404, 409))
async def cancel(id: Id, service: TheService) -> work.JobDocument:
    """End a job, even in the middle of its work. What it leaves is tidied up; nothing of the source is touched."""
    return told(service, await service.desk.cancel(id))


@router.post("/jobs/{id}/retry", status_code=202, responses=documented(404, 409))
async def retry(id: Id, service: TheService) -> work.JobDocument:
    """Queue a job again that failed, was cancelled or is waiting."""
    return told(service, await service.desk.retry(id))


@router.post("/jobs/{id}/order", responses=documented(404, 409))
async def order(
    id: Id,
    request: Annotated[
        requests.OrderRequest,
        Body(description='{"by": "names" | "tags" | "auto"}, {"files": […]}, or just the list of files'),
    ],
    service: TheService,
) -> work.JobDocument:
    """Say in which order a job's files play: by names, by tags, or all of them listed."""
    return told(service, await service.desk.set_order(id, requests.wanted_order(request)))


@router.post("/jobs/{id}/priority", responses=documented(404, 409))
async def priority(id: Id, request: requests.PriorityRequest, service: TheService) -> work.JobDocument:
    """Say how urgent a job is."""
    return told(service, await service.desk.set_priority(id, request.priority))


def told(service: Service, found: Job) -> work.JobDocument:
    """Return a job as it is told, with its newest progress."""
    return work.JobDocument.of(service.scheduler.live(found))


async def _submitted(service: Service, folders: list[str], wishes: requests.BookWishes) -> work.AcceptedDocument:
    await check_scheme(wishes.naming_scheme)
    made = await service.admission.submit(folders, wishes.options(), wishes.priority)
    return work.AcceptedDocument(jobs=[told(service, one) for one in made])


async def check_scheme(template: str | None) -> None:
    """Tell now rather than by a failed job that a template can't name any book; raises NeedsAttention ``config.template``."""
    if template is not None:
        await anyio.to_thread.run_sync(naming.target, Metadata(title="Title", authors=("Author",)), template)
