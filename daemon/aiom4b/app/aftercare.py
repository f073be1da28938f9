"""Whose books are all in the library, and what is done with that source now? Asked whenever a book is published."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters.files import displayable
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError
from aiom4b.intake import snapshot
from aiom4b.jobs.disposal import dispose
from aiom4b.jobs.events import Event, Events
from aiom4b.jobs.job import EntryState, SourceEntry
from aiom4b.jobs.store import Store
from aiom4b.models import Name

_ASKED_BY = ("job.completed", "entry.changed", "service.reloaded")

log = structlog.get_logger()


class Aftercare:
    """Carries out ``watch.after_success``. An entry is taken on when it is done and looks as it did when it was examined."""

    def __init__(self, store: Store, events: Events, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._events = events
        self._settings = settings
        self._told: dict[Name, str] = {}  # the digest for which it was told why an entry stays

    async def run(self) -> None:
        """Work until cancelled; what was not done when the service last ended is done at the start."""
        events = self._events.since(None)
        await self._look()
        async for event in events:
            if not isinstance(event, Event) or event.event in _ASKED_BY:
                await self._look()

    async def _look(self) -> None:
        watch = self._settings().watch
        if watch.after_success == "keep":
            return
        with suppress(
            Aiom4bError
        ):  # the database or the source can't be read now: with the next book it is tried again
            for entry in await self._store.entries():
                if entry.state is EntryState.DONE and self._told.get(entry.name) != entry.digest:
                    await self._care(entry)

    async def _care(self, entry: SourceEntry) -> None:
        settings = self._settings()
        source, library = settings.paths.source, settings.paths.library
        assert source is not None
        assert library is not None
        survey = await anyio.to_thread.run_sync(snapshot.survey, source)
        beside = survey.entries.get(entry.name)
        if beside is None:
            return
        found = await anyio.to_thread.run_sync(snapshot.take, source, entry.name, beside)
        if found is None or found.digest != entry.digest:
            return
        records = [
            await anyio.to_thread.run_sync(pipeline.already_published, library, fingerprint)
            for fingerprint in entry.fingerprints
        ]
        made = [record for record in records if record is not None]
        if not made or len(made) < len(records):
            return
        self._told[entry.name] = entry.digest
        try:
            await dispose(
                os.path.join(source, entry.name),
                settings.watch.after_success,
                books=[os.path.join(library, record.book) for record in made],
                sets=[record.backup.root for record in made if record.backup.copied],
                archive=settings.paths.archive,
                beside=[os.path.join(source, name) for name in beside],
            )
        except Aiom4bError as error:
            log.warning(
                "source.stays",
                entry=displayable(entry.name),
                code=error.code,
                reason=error.reason,
                remedy=error.remedy,
            )
