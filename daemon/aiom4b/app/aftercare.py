"""Whose books are all in the library, and what is done with that source now? Asked whenever a book is published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters.files import displayable
from aiom4b.config import Settings
from aiom4b.errors import Aiom4bError, Transient
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
            if isinstance(event, Event) and event.event == "service.reloaded":
                self._told.clear()
            if not isinstance(event, Event) or event.event in _ASKED_BY:
                await self._look()

    async def _look(self) -> None:
        watch = self._settings().watch
        if watch.after_success == "keep":
            return
        source = self._settings().paths.source
        assert source is not None
        # Can database or source not be read now, it is tried again with the next book.
        with suppress(Aiom4bError):
            # What is in an entry beside its books was not taken, for a reason that only its owner can mend: it stays.
            done = [
                entry
                for entry in await self._store.entries()
                if entry.state is EntryState.DONE
                and entry.problem is None
                and self._told.get(entry.name) != entry.digest
            ]
            if not done:
                return
            survey = await anyio.to_thread.run_sync(snapshot.survey, source)
            self._told = {name: digest for name, digest in self._told.items() if name in survey.entries}
            owners = Counter(name for beside in survey.entries.values() for name in beside)
            for entry in done:
                beside = survey.entries.get(entry.name)
                if beside is not None:
                    # What goes with another entry as well stays for that one: it may hold its key.
                    own = [name for name in beside if owners[name] == 1]
                    await self._care(source, entry, beside, own)

    async def _care(self, source: str, entry: SourceEntry, beside: Sequence[Name], own: Sequence[Name]) -> None:
        settings = self._settings()
        library = settings.paths.library
        assert library is not None
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
        try:
            await dispose(
                os.path.join(source, entry.name),
                settings.watch.after_success,
                books=[os.path.join(library, record.book) for record in made],
                sets=[record.backup.root for record in made if record.backup.copied],
                archive=settings.paths.archive,
                beside=[os.path.join(source, name) for name in own],
            )
            self._told[entry.name] = entry.digest
        except Aiom4bError as error:
            if not isinstance(error, Transient):
                self._told[entry.name] = entry.digest
            log.warning(
                "source.stays",
                entry=displayable(entry.name),
                code=error.code,
                reason=error.reason,
                remedy=error.remedy,
            )
