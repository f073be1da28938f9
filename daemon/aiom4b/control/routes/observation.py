"""What is the service doing, and how is it? State, entries, events, health and numbers."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Response, WebSocket

from aiom4b import __version__
from aiom4b.adapters import space
from aiom4b.adapters.files import displayable
from aiom4b.config import PathSettings
from aiom4b.control import metrics as prometheus
from aiom4b.control.metrics import Disk, Reading
from aiom4b.control.routes.parts import Limit, Offset, TheParts, TheService
from aiom4b.control.schemas import answers, names, work
from aiom4b.control.service import Service
from aiom4b.control.streams import EventStream, serve_jobs
from aiom4b.errors import Aiom4bError
from aiom4b.jobs.job import EntryState, Status

root = APIRouter(tags=["watching"])
router = APIRouter(tags=["service"])
sockets = APIRouter()
_MOST_CURRENT = 100
_DAY = timedelta(days=1)


@root.get("/health", responses={503: {"model": answers.HealthDocument, "description": "Degraded, for these reasons."}})
async def health(service: TheService, response: Response) -> answers.HealthDocument:
    """Tell whether the service does what it is for: 200, or 503 with the reasons."""
    found = await service.health()
    response.status_code = 200 if found.ok else 503
    return answers.HealthDocument.of(found)


@root.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(parts: TheParts) -> Response:
    """Tell numbers in the text format of Prometheus."""
    service = parts.service
    reading = Reading(
        jobs=await service.store.counts(),
        running=service.scheduler.running,
        paused=service.scheduler.paused,
        queue_age=await _queue_age(service) or 0.0,
        totals=service.scheduler.totals,
        titles=await service.store.title_counts(),
        licences=len(await service.store.licences_since(service.clock() - _DAY)),
        health=await service.health(),
        disks=[disk for disk, _ in await anyio.to_thread.run_sync(_disks, service.settings().paths)],
        lag=parts.lag.worst,
        uptime=_uptime(service),
    )
    return Response(prometheus.text(reading), media_type=prometheus.CONTENT_TYPE)


@router.get("/status")
async def status(service: TheService) -> answers.StatusDocument:
    """Tell what the service is doing now."""
    found = await service.health()
    running, _ = await service.store.jobs(
        status=[Status.RUNNING], kind=None, limit=_MOST_CURRENT, offset=0, oldest_first=True
    )
    entries = Counter(entry.state for entry in await service.store.entries())
    disks = await anyio.to_thread.run_sync(_disks, service.settings().paths)
    age = await _queue_age(service)
    return answers.StatusDocument(
        version=__version__,
        pid=os.getpid(),
        started=service.started,
        uptime_seconds=round(_uptime(service), 1),
        health=answers.HealthDocument.of(found),
        paused=service.scheduler.paused,
        jobs=await service.store.counts(),
        entries={state: entries[state] for state in EntryState},
        current=[work.JobDocument.of(service.scheduler.live(job)) for job in running],
        queue_age_seconds=None if age is None else round(age, 1),
        workers=found.workers,
        worker_crashes=found.worker_crashes,
        disks=[
            answers.DiskDocument(
                place=disk.place,
                path=displayable(path),
                path_b64=names.exactly(path),
                available=disk.available if disk.size else None,
                size=disk.size or None,
            )
            for disk, path in disks
        ],
        last_event_id=service.events.last_id,
    )


@router.get("/folders")
async def folders(
    service: TheService,
    state: Annotated[list[EntryState] | None, Query(description="Only entries in these states.")] = None,
    limit: Limit = 1000,
    offset: Offset = 0,
) -> work.EntriesDocument:
    """List the files and folders in the source directory, and where each stands."""
    found = [entry for entry in await service.store.entries() if state is None or entry.state in state]
    items = [work.EntryDocument.of(entry) for entry in found[offset : offset + limit]]
    return work.EntriesDocument(items=items, total=len(found), limit=limit, offset=offset)


@router.get(
    "/events",
    tags=["watching"],
    response_class=EventStream,
    status_code=200,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events."}},
)
async def events(
    parts: TheParts,
    last_event_id: Annotated[
        int | None, Header(description="Go on after this event, as browsers do by themselves.")
    ] = None,
    since: Annotated[int | None, Query(description="The same, for those who can't send headers.")] = None,
    ticket: Annotated[str | None, Query(description="In place of the key, on TCP.")] = None,  # noqa: ARG001 - the guard's
) -> EventStream:
    """Follow what happens: server-sent events with rising ids, from now on or after one that was seen.

    Each has ``event``, such as job.progress, and ``data``: job_id, status, step, progress (0 to 100 over the whole job). The
    event ``reset`` says that some were missed: ask for the state, and go on.
    """
    after = since if last_event_id is None else last_event_id
    return EventStream(parts.service.events.since(after), parts.closing)


@sockets.websocket("/ws/jobs")
async def ws_jobs(socket: WebSocket, parts: TheParts, job_id: str | None = None, since: int | None = None) -> None:
    """Follow what happens to jobs, or to one."""
    await serve_jobs(socket, parts.service.events.since(since), job_id, parts.closing)


async def _queue_age(service: Service) -> float | None:
    """Return how long the oldest queued job has been waiting, in seconds; None when there is none."""
    queued, _ = await service.store.jobs(status=[Status.QUEUED], kind=None, limit=1, offset=0, oldest_first=True)
    return max(0.0, (service.clock() - queued[0].created).total_seconds()) if queued else None


def _uptime(service: Service) -> float:
    return (service.clock() - service.started).total_seconds()


def _disks(paths: PathSettings) -> list[tuple[Disk, str]]:
    """Return the file systems under our directories, each with the directory; without those that can't be asked."""
    named = {"source": paths.source, "library": paths.library, "backup": paths.backup, "state": paths.state}
    found = []
    for place, path in named.items():
        if path is not None:
            try:
                volume = space.volume(path)
            except Aiom4bError:
                volume = space.Volume(device=0, available=0, size=0)  # unmounted just now: health tells
            found.append((Disk(place=place, available=volume.available, size=volume.size), path))
    return found
