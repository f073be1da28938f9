"""What can the service be told? To pause, go on, look around, take new settings, and make a book once more."""

from __future__ import annotations

import re

from fastapi import APIRouter

from aiom4b.control.problems import documented
from aiom4b.control.routes.parts import TheParts, TheService
from aiom4b.control.schemas import answers, names, requests
from aiom4b.control.tickets import SECONDS
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.models import Fingerprint

router = APIRouter(tags=["service"])


@router.post("/pause")
async def pause(service: TheService) -> answers.PausedDocument:
    """Begin no job, and let those in progress stand still, until told to go on; restarts included."""
    await service.scheduler.pause()
    return answers.PausedDocument(paused=service.scheduler.paused)


@router.post("/resume")
async def resume(service: TheService) -> answers.PausedDocument:
    """Begin jobs again."""
    await service.scheduler.resume()
    return answers.PausedDocument(paused=service.scheduler.paused)


@router.post("/scan", status_code=202)
async def scan(service: TheService) -> answers.ScanDocument:
    """Look through the whole source directory now instead of when it is due."""
    service.scan()
    return answers.ScanDocument()


@router.post("/reload", responses=documented(422))
async def reload(service: TheService) -> answers.ReloadedDocument:
    """Read the settings again. If anything is wrong with them, the old ones stay in force, all of them."""
    done = await service.reload()
    return answers.ReloadedDocument(changed=list(done.changed), needs_restart=list(done.needs_restart))


@router.post("/forget", responses=documented(404))
async def forget(request: requests.ForgetRequest, service: TheService) -> answers.ForgottenDocument:
    """Let an entry of the source, or a fingerprint, be converted again although the library has its book."""
    entry = await service.store.entry(request.what)
    if entry is not None:
        fingerprints = entry.fingerprints
    elif re.fullmatch("[0-9a-f]{64}", request.what):
        fingerprints = (Fingerprint(request.what),)
    else:
        raise NeedsAttention(
            "entry.missing",
            f"The source directory has no entry {names.shown(request.what)}, and it is no fingerprint either.",
            remedy="GET /api/v1/folders or `aiom4b list` shows all entries.",
            exit=Exit.NOT_FOUND,
        )
    for fingerprint in fingerprints:
        await service.desk.forget(fingerprint)
    return answers.ForgottenDocument(forgotten=len(fingerprints))


@router.post("/ticket")
async def ticket(parts: TheParts) -> answers.TicketDocument:
    """Get a ticket for one stream of events, for browsers on TCP: `/api/v1/events?ticket=…` or `/ws/jobs?ticket=…`."""
    return answers.TicketDocument(ticket=parts.tickets.issue(), expires_seconds=SECONDS)
