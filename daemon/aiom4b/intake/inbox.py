"""Which entries of the source are complete? The service that looks, waits, examines and hands over."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from aiom4b import pipeline
from aiom4b.adapters import mounts
from aiom4b.adapters.files import displayable
from aiom4b.config import WatchSettings
from aiom4b.errors import Aiom4bError, Transient
from aiom4b.intake import root, settle, snapshot, verdict
from aiom4b.intake.entries import Entries, Jobs
from aiom4b.intake.handover import Handover
from aiom4b.intake.root import Place, Root
from aiom4b.intake.settle import Settling
from aiom4b.intake.snapshot import Snapshot, Survey
from aiom4b.intake.watcher import Publish, Watcher
from aiom4b.jobs.job import EntryState, SourceEntry, WatcherHealth
from aiom4b.models import Clock, Name
from aiom4b.steps.examine import Finding

_BATCH = 32  # entries looked at before anything else gets its turn
_POLL_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_RECORD_SECONDS = 5.0  # how often a copy in progress is written to the database
_EVENT_SECONDS = 3.0  # how late an event may come
_LONGEST_PAUSE = 3600.0
_MOST_FAILURES = 5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """When an entry that still looks like ``digest`` is to be examined once more; ``failures`` counts those in a row."""

    digest: str
    at: float
    failures: int = 0


class Inbox:
    """Watches one source, reads it and never writes to it.

    ``examine`` says what an entry (absolute path) holds. ``monotonic`` is seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        *,
        source: str,
        settings: Callable[[], WatchSettings],
        examine: Callable[[str], Awaitable[tuple[Finding, ...]]],
        jobs: Jobs,
        publish: Publish,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._source = os.path.abspath(source)
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._entries = Entries(jobs, publish)
        self._watcher = Watcher(
            self._source, standing=self._standing, touched=self._touched, publish=publish, monotonic=monotonic
        )
        self._handover = Handover(
            source=self._source, settings=settings, examine=examine, jobs=jobs, entries=self._entries, clock=clock
        )
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._root: Root | None = None
        self._fresh = False  # the watch has just begun: what came before it came without events
        self._present: Mapping[Name, tuple[Name, ...]] = {}
        self._settling: dict[Name, Settling] = {}
        self._due: dict[Name, float] = {}
        self._again: dict[Name, _Again] = {}
        self._busy: dict[Name, anyio.CancelScope] = {}
        self._recorded_at: dict[Name, float] = {}
        self._unheard: dict[Name, float] = {}
        self._announced: dict[Name, float] = {}  # heard of, and not yet seen
        self._scanned: float | None = None
        self._surveyed = -math.inf
        self._survey_at = -math.inf
        self._scan_at = -math.inf

    # --- what others ask of it -----------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; ``started`` after the first look. A source that is missing or goes away is waited for."""
        await self._entries.refresh()
        started = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._watcher.run, name="intake watcher")
            while True:
                self._wake = anyio.Event()
                due = await self._turn(group)
                if not started:
                    started = True
                    task_status.started()
                with anyio.move_on_after(max(0.0, due - self._monotonic())):
                    await self._wake.wait()

    def scan(self) -> None:
        """Look through everything now, also at what was refused or could not be looked at: settings or rights may be others."""
        now = self._monotonic()
        for name, settling in self._settling.items():
            if _is_refused(self._entries.get(name)):
                self._again.setdefault(name, _Again(digest=settling.digest, at=now))
        for name, again in self._again.items():
            self._again[name] = replace(again, at=now)
        self._look_everywhere()

    async def quiet(self) -> None:
        """Return once everything that is there now has become jobs, or is done, refused or parked with a reason."""
        while self._scanned is None:
            await self._moved.wait()
        names = set(self._present)
        while any(self._is_pending(name) for name in names & set(self._present)):
            await self._moved.wait()

    def health(self) -> WatcherHealth:
        """Return how well the source is watched."""
        reason = self._watcher.reason
        return WatcherHealth(
            mode=self._watcher.mode,
            state="degraded" if reason else "up",
            reason=reason,
            entries=len(self._present),
            last_scan=None if self._scanned is None else self._monotonic() - self._scanned,
        )

    def _is_pending(self, name: Name) -> bool:
        record = self._entries.get(name)
        if name in self._busy or record is None or record.state in {EntryState.SETTLING, EntryState.READY}:
            return True
        settling = self._settling.get(name)
        return name not in self._again if settling is None else not settle.is_known(record, settling.digest)

    # --- when to look --------------------------------------------------------------------------------------------------

    def _standing(self) -> None:
        self._fresh = True
        self._look_everywhere()

    def _look_everywhere(self) -> None:
        self._scan_at = self._monotonic()
        self._wake.set()

    def _touched(self, names: frozenset[Name]) -> None:
        now = self._monotonic()
        for name in names:
            self._unheard.pop(name, None)
            owners = (
                [name] if name in self._present else [one for one, beside in self._present.items() if name in beside]
            )
            for owner in owners:
                looked = self._settling[owner].seen if owner in self._settling else -math.inf
                self._due[owner] = max(now, looked + self._pace())
            if not owners:
                self._announced[name] = now
                self._survey_at = min(self._survey_at, max(now, self._surveyed + self._pace()))
        self._wake.set()

    def _pace(self) -> float:
        """Return the seconds between two looks at one thing: a busy copy has events all the time."""
        return min(1.0, self._settings().settle_seconds / 4)

    async def _turn(self, group: anyio.abc.TaskGroup) -> float:
        """Do what is due, a batch at most, and return when something is due again."""
        now = self._monotonic()
        if now >= min(self._scan_at, self._survey_at):
            await self._survey(everything=now >= self._scan_at)
        if (late := next((name for name, at in self._unheard.items() if now >= at), None)) is not None:
            self._unheard.clear()
            self._watcher.deaf(late)
        due = sorted((at, os.fsencode(name), name) for name, at in self._due.items() if at <= now)[:_BATCH]
        if due:
            await self._look([name for _, _, name in due], group)
        self._moved.set()
        self._moved = anyio.Event()
        return min(self._scan_at, self._survey_at, *self._due.values(), *self._unheard.values())

    async def _survey(self, *, everything: bool) -> None:
        """Look at the top level: is the source there, what has come, what has gone."""
        settings = self._settings()
        now = self._surveyed = self._monotonic()
        self._survey_at = math.inf
        if everything:
            self._scan_at = math.inf  # whoever asks from now on wants another
        fresh, self._fresh = self._fresh, False
        retry = now + min(_RETRY_SECONDS, settings.settle_seconds)
        try:
            found = await anyio.to_thread.run_sync(snapshot.survey, self._source, abandon_on_cancel=True)
            mode = await anyio.to_thread.run_sync(_mode, self._source, settings.mode)
        except Aiom4bError as error:
            self._watcher.trouble("source", error)
            self._scan_at = min(self._scan_at, retry)
            return
        if everything:
            await self._entries.refresh()
        known = self._present if self._scanned is not None else self._entries.names()
        place = root.place(self._root, found, entries=len(known))
        if place is Place.UNMOUNTED:
            self._watcher.trouble("source", _unmounted(self._source, len(known)))
            self._scan_at = min(self._scan_at, retry)
            return
        heard = self._root is not None and self._watcher.hears and not fresh and place is Place.SAME
        self._root = root.root_of(found)
        if place is Place.REPLACED or self._watcher.has("source"):
            self._watcher.listen_anew()
        self._watcher.trouble("source", None)
        self._watcher.set_mode(mode)
        await self._compare(found, everything=everything, heard=heard)
        if everything:
            self._scanned = now
            often = min(settings.rescan_seconds, _POLL_SECONDS)
            self._scan_at = min(self._scan_at, now + (settings.rescan_seconds if self._watcher.hears else often))

    async def _compare(self, found: Survey, *, everything: bool, heard: bool) -> None:
        now = self._monotonic()
        for name in (self._entries.names() | set(self._present)) - set(found.entries):
            await self._gone(name)
        for name, beside in found.entries.items():
            new = name not in self._present
            if everything or new or beside != self._present[name]:
                self._due[name] = min(now, self._due.get(name, now))
            if new and heard and name not in self._announced:
                self._unheard[name] = now + _EVENT_SECONDS
        self._present = found.entries
        # What came while we looked is for the next survey.
        self._announced = {name: at for name, at in self._announced.items() if at >= self._surveyed}

    # --- one entry -----------------------------------------------------------------------------------------------------

    async def _look(self, names: Sequence[Name], group: anyio.abc.TaskGroup) -> None:
        wanted = {name: self._present.get(name, ()) for name in names}
        began = self._monotonic()
        seen = await anyio.to_thread.run_sync(snapshot.look, self._source, wanted, abandon_on_cancel=True)
        for name, found in seen.items():
            self._due[name] = math.inf
            if found is None:
                # Gone, or the whole source is: the top level tells.
                self._survey_at = min(self._survey_at, self._surveyed + self._pace())
            elif isinstance(found, Aiom4bError):
                await self._failed(name, None, found)
            else:
                await self._judge(name, found, began, group)

    async def _judge(self, name: Name, found: Snapshot, began: float, group: anyio.abc.TaskGroup) -> None:
        """Decide what a look at an entry means: nothing new, still settling, or to be examined."""
        settings = self._settings()
        now = self._monotonic()
        first = name not in self._settling
        settling = settle.seen(self._settling.get(name), found.digest, began, now, settings.settle_seconds)
        self._settling[name] = settling
        again = self._again.get(name)
        if again is not None and again.digest != found.digest:
            again = None
            del self._again[name]
        record = self._entries.get(name)
        if record is not None and settle.is_known(record, found.digest):
            if again is None and record.state is EntryState.INCOMPLETE:
                left = settle.patience_left(record, self._clock(), settings.incomplete_hours)
                again = self._again[name] = _Again(digest=found.digest, at=now + left)
            elif again is None and first and record.state is EntryState.NEEDS_ATTENTION and not record.jobs:
                # It may have been mended while we were not running.
                again = self._again[name] = _Again(digest=found.digest, at=now + settings.settle_seconds)
            if again is None or not _is_refused(record):
                self._again.pop(name, None)
                return
        elif record is None or not snapshot.same_shape(record.digest, found.digest):
            record = await self._changed(name, found, record)
        due = max(settling.quiet_from(settings.settle_seconds), again.at if again is not None else -math.inf)
        if name in self._busy:
            return
        if now < due or not settling.is_quiet(settings.settle_seconds):
            # Looks in between show how long a copy pauses, and what no event tells.
            self._due[name] = (
                due if again is not None else min(due, now + max(self._pace(), settings.settle_seconds / 4))
            )
            return
        if record.state is EntryState.SETTLING:
            await self._entries.put(
                replace(record, state=EntryState.READY, digest=found.digest, files=len(found.paths), size=found.size)
            )
        self._busy[name] = anyio.CancelScope()
        group.start_soon(self._take, name, found, name=f"examine {displayable(name)}")

    async def _changed(self, name: Name, found: Snapshot, record: SourceEntry | None) -> SourceEntry:
        """Let an entry settle that is new or not what it was; what was begun with it ends."""
        if name in self._busy:
            self._busy[name].cancel()
        if record is not None and record.jobs:
            await self._entries.withdraw(record.jobs, verdict.CHANGED)
        settling = replace(_unseen(name, found.digest, self._clock()), files=len(found.paths), size=found.size)
        now = self._monotonic()
        if (
            record is None
            or record.state is not EntryState.SETTLING
            or now >= self._recorded_at.get(name, -math.inf) + _RECORD_SECONDS
        ):
            self._recorded_at[name] = now
            await self._entries.put(settling)
        else:
            self._entries.note(settling)
        return settling

    async def _gone(self, name: Name) -> None:
        if name in self._busy:
            self._busy[name].cancel()
        for of_entries in (self._settling, self._due, self._again, self._recorded_at, self._unheard):
            of_entries.pop(name, None)
        record = self._entries.get(name)
        if record is not None:
            log.info("entry.gone", entry=displayable(name))
            await self._entries.withdraw(record.jobs, verdict.VANISHED, vanished=True)
            await self._entries.drop(name)

    async def _take(self, name: Name, found: Snapshot) -> None:
        """Let a quiet entry be examined and handed over, and note when to try again."""
        try:
            with self._busy[name]:
                held = await self._handover.take(name, found, self._present.get(name, ()))
                self._again.pop(name, None)
                if held:
                    later = self._monotonic() + self._settings().settle_seconds
                    self._again[name] = _Again(digest=found.digest, at=later)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other entries go on
            await self._failed(name, found.digest, pipeline.understood(error))
        finally:
            del self._busy[name]
            if name in self._present:
                self._due[name] = self._monotonic()
            self._wake.set()

    async def _failed(self, name: Name, digest: str | None, error: Aiom4bError) -> None:
        """Note that an entry could not be looked at (``digest`` None) or examined; both are tried again and again."""
        record = self._entries.get(name)
        before = self._again.get(name)
        failures = 1 + (before.failures if before is not None else 0)
        later = self._monotonic() + min(_RETRY_SECONDS * 2.0 ** min(failures, 20), _LONGEST_PAUSE)
        known = digest or (record.digest if record is not None else "")
        self._again[name] = _Again(digest=known, at=later, failures=failures)
        if digest is None:
            self._due[name] = later
        log.warning("entry.failed", entry=displayable(name), code=error.code, reason=error.reason, failures=failures)
        if record is not None and record.jobs and digest is None:
            return  # what was begun with it goes on, or fails with a reason of its own
        passing = isinstance(error, Transient) and failures < _MOST_FAILURES
        # The state of one with jobs follows them, and the books that were not handed over would be lost: it stays ready.
        halfway = record is not None and bool(record.jobs)
        await self._entries.put(
            replace(
                record or _unseen(name, known, self._clock()),
                digest=known,
                state=EntryState.READY if passing or halfway else EntryState.NEEDS_ATTENTION,
                problem=verdict.problem_of(name, error),
            )
        )


def _is_refused(record: SourceEntry | None) -> bool:
    states = {EntryState.NEEDS_ATTENTION, EntryState.REJECTED, EntryState.INCOMPLETE}
    return record is not None and record.state in states and not record.jobs


def _mode(source: str, wanted: Literal["auto", "events", "poll"]) -> Literal["events", "poll"]:
    if wanted != "auto":
        return wanted
    try:
        kind = mounts.kind_of(source)
    except Aiom4bError as error:
        log.warning("mounts.unknown", reason=error.reason)
        return "poll"
    return "events" if mounts.sends_events(kind) else "poll"


def _unseen(name: Name, digest: str, now: datetime) -> SourceEntry:
    return SourceEntry(
        name=name,
        digest=digest,
        state=EntryState.SETTLING,
        problem=None,
        fingerprints=(),
        jobs=(),
        files=0,
        size=0,
        changed=now,
    )


def _unmounted(source: str, entries: int) -> Transient:
    return Transient(
        "source.unmounted",
        f"{displayable(source)} is empty although {entries} entries were there: its volume seems not to be mounted.",
        remedy="Mount it. If it was emptied on purpose, nothing needs to be done: with the next entry all goes on.",
        path=source,
    )
