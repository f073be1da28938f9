"""How does the service live? Locks, database, socket and watcher in order; signals; and an orderly end."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from aiom4b import logs, pipeline
from aiom4b.account.account import Account
from aiom4b.account.keys import Keys
from aiom4b.adapters import files, volumes
from aiom4b.app.aftercare import Aftercare
from aiom4b.app.claims import claimed
from aiom4b.app.directories import prepare_directories
from aiom4b.app.reload import merged
from aiom4b.config import Settings, check_directories
from aiom4b.control.listen import Listener, listeners
from aiom4b.control.server import Server
from aiom4b.control.service import Health, Reloaded, Service
from aiom4b.errors import Aiom4bError, Exit, Fatal, NeedsAttention, Transient
from aiom4b.intake.inbox import Inbox
from aiom4b.jobs import retention
from aiom4b.jobs.admission import Accepted, Admission
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Event, Events
from aiom4b.jobs.job import EntryState, Job, JobId, Kind, Problem, SourceEntry, Status
from aiom4b.jobs.runner import EXAMINING, Runner
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import Asin
from aiom4b.models import Metadata, Name, OrderChoice, Source, now
from aiom4b.steps.context import Resources
from aiom4b.steps.examine import Finding
from aiom4b.systemd import Notifier

DATABASE = "aiom4b.db"
_HOUSEKEEPING_SECONDS = 3600.0
_STATUS_SECONDS = 1.0
_CLOSING_SECONDS = 3.0

_KEYS_MAY_HAVE_COME = ("account.signed_in", "service.reloaded")
_DOING = {Kind.CONVERT: "converting", Kind.DOWNLOAD: "downloading"}

log = structlog.get_logger()


async def serve(load: Callable[[], Settings], *, once: bool) -> Exit:
    """Run the service until a signal ends it, or with ``once`` until all that is there now is worked off.

    ``load`` reads the settings, at the start and at each reload. Raises Fatal and others of ours when it can't start.
    """
    faulthandler.enable()
    notifier = Notifier()
    settings = load()
    _prepare(settings, once=once)
    paths = settings.paths
    with claimed([one for one in (paths.state, paths.library, paths.source) if one is not None]):
        store = await Store.open(os.path.join(paths.state, DATABASE), clock=now)
        try:
            if store.damaged_aside is not None:
                log.warning("database.damaged", aside=store.damaged_aside)
            await _check_volumes(store, settings)
            async with _opened(paths.socket, settings) as sockets:
                return await _Life(load, settings, store, sockets, notifier).run(once=once)
        except ExceptionGroup as error:  # a part of the service can't go on: so neither can the rest
            raise pipeline.understood(error) from error
        finally:
            await store.close()
            notifier.close()


def _prepare(settings: Settings, *, once: bool) -> None:
    """Check the directories; only those in the state directory, and that itself, are made.

    A source that isn't there is waited for, but not with ``once``.
    """
    if settings.paths.source is None:
        raise Fatal(
            "source.unset",
            "It is not known which directory to watch.",
            remedy="Say it with --source DIR, or set paths.source.",
        )
    if once and not os.path.isdir(settings.paths.source):
        raise NeedsAttention(
            "source.missing",
            f"There is no source directory {files.displayable(settings.paths.source)}.",
            remedy="Make it, or mount the volume that holds it, or correct paths.source.",
            path=settings.paths.source,
            exit=Exit.NOT_FOUND,
        )
    with files.translated(settings.paths.state, "making the state directory"):
        os.makedirs(settings.paths.state, mode=0o700, exist_ok=True)
    files.check_writable(settings.paths.state)
    prepare_directories(settings, [])


async def _check_volumes(store: Store, settings: Settings) -> None:
    """Mark library and backup as ours, unless one was ours before and lacks the mark: then its volume isn't mounted."""
    assert settings.paths.library is not None
    for directory in volumes.written(settings):
        known = f"known {directory}"
        if await store.flag(known):
            await volumes.check([directory])
        else:
            await anyio.to_thread.run_sync(volumes.mark, directory)
            await store.set_flag(known, True)


@asynccontextmanager
async def _opened(path: str, settings: Settings) -> AsyncIterator[tuple[Listener, ...]]:
    sockets = listeners(path, settings.api, os.environ)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


@dataclass(frozen=True, slots=True)
class _Records:
    """What the inbox needs of those who do the work and those who keep the records."""

    admission: Admission
    desk: Desk
    store: Store

    async def accept(self, source: Source, entry: Name, /) -> Accepted:
        return await self.admission.accept(source, entry)

    async def withdraw(self, job_id: JobId, problem: Problem, /, *, vanished: bool) -> bool:
        return await self.desk.withdraw(job_id, problem, vanished=vanished)

    async def entries(self) -> Sequence[SourceEntry]:
        return await self.store.entries()

    async def put_entry(self, entry: SourceEntry, /) -> None:
        await self.store.put_entry(entry)

    async def drop_entry(self, name: Name, /) -> None:
        await self.store.drop_entry(name)


class _Life:
    """The parts of one running service, and what joins them."""

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        store: Store,
        sockets: tuple[Listener, ...],
        notifier: Notifier,
    ) -> None:
        self._load = load
        self._settings = settings
        self._store = store
        self._notifier = notifier
        keys = Keys(lambda: self._settings)
        self._resources = Resources.of(settings.encode.workers, keys)
        self._runner = Runner(self._resources, lambda: self._settings, known=self._known)
        self._events = Events(now, store.reserve_event_ids)
        self._admission = Admission(store, self._events, self._runner, lambda: self._settings, clock=now)
        self._account = Account(
            store,
            self._events,
            self._admission,
            self._runner,
            lambda: self._settings,
            keys=keys,
            requeue=self._requeue,
            looked=self._looked,
            clock=now,
        )
        self._scheduler = Scheduler(
            store,
            self._events,
            self._runner,
            self._admission,
            lambda: self._settings,
            clock=now,
            monotonic=time.monotonic,
            fetcher=self._account.fetcher,
        )
        self._desk = Desk(store, self._events, self._runner, self._scheduler, clock=now)
        self._aftercare = Aftercare(store, self._events, lambda: self._settings)
        assert settings.paths.source is not None
        self._inbox = Inbox(
            source=settings.paths.source,
            settings=lambda: self._settings.watch,
            examine=self._examine,
            jobs=_Records(self._admission, self._desk, store),
            publish=self._events.publish,
            clock=now,
            monotonic=time.monotonic,
        )
        self._server = Server(
            Service(
                store=store,
                scheduler=self._scheduler,
                admission=self._admission,
                desk=self._desk,
                events=self._events,
                account=self._account,
                settings=lambda: self._settings,
                health=self._health,
                scan=self._inbox.scan,
                reload=self._reload,
                started=now(),
                clock=now,
            ),
            sockets,
        )
        self._stop = anyio.Event()

    async def run(self, *, once: bool) -> Exit:
        """Live until a signal, or with ``once`` until nothing is left to do."""
        try:
            await self._events.start()
            recovered = await self._store.recover(now())
            log.info("service.starting", recovered=len(recovered), once=once)
            async with anyio.create_task_group() as group:
                await group.start(self._signals)
                async with anyio.create_task_group() as serving:
                    await serving.start(self._server.run)
                    outcome = await self._work(once=once)
                    self._events.close()
                    self._server.stop()
                    serving.cancel_scope.deadline = anyio.current_time() + _CLOSING_SECONDS
                group.cancel_scope.cancel()
            return outcome
        finally:
            self._events.close()
            self._resources.pool.close()

    async def _work(self, *, once: bool) -> Exit:
        """Do what the service is for, until it is stopped or done; what is in work then is kept for the next start."""
        async with anyio.create_task_group() as work:
            work.start_soon(self._scheduler.run, name="scheduler")
            await work.start(self._inbox.run, name="inbox")
            work.start_soon(self._keep_house, name="housekeeping")
            work.start_soon(self._look_for_keys, name="keys")
            work.start_soon(self._aftercare.run, name="aftercare")
            work.start_soon(self._account.run, name="account")
            work.start_soon(self._tell_status, name="status line")
            work.start_soon(self._feed_watchdog, name="watchdog")
            self._notifier.ready()
            log.info("service.ready", source=self._settings.paths.source, library=self._settings.paths.library)
            outcome = await self._until_done() if once else await self._until_stopped()
            self._notifier.stopping()
            log.info("service.stopping")
            work.cancel_scope.cancel()
        return outcome

    async def _until_stopped(self) -> Exit:
        await self._stop.wait()
        return Exit.DONE

    async def _until_done(self) -> Exit:
        """Wait until all that is in the source has been worked off, or until we are stopped."""
        done = False

        async def work_off() -> None:
            nonlocal done
            await self._inbox.quiet()
            await self._scheduler.idle()
            done = True
            self._stop.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work_off)
            await self._stop.wait()
            group.cancel_scope.cancel()
        if not done:
            return Exit.FAILED
        entries = await self._store.entries()
        published = all(entry.state is EntryState.DONE and entry.problem is None for entry in entries)
        return Exit.DONE if published else Exit.FAILED

    # --- what joins the parts ------------------------------------------------------------------------------------------

    async def _examine(self, path: str) -> tuple[Finding, ...]:
        return await self._runner.examine([path], order=OrderChoice.AUTO, merge=False, rank=EXAMINING)

    async def _known(self, asin: str) -> Metadata | None:
        title = await self._store.title(Asin(asin))
        return None if title is None else title.facts.metadata

    async def _looked(self) -> None:
        await self._inbox.quiet()

    async def _requeue(self, job_id: JobId) -> Job:
        return await self._desk.retry(job_id)

    async def _reload(self) -> Reloaded:
        """Read the settings anew and put in force what can be; raises InvalidSettings and keeps the old ones else."""
        new = await anyio.to_thread.run_sync(self._load)
        check_directories(new, [])
        settings, changed, waiting = merged(self._settings, new)
        if "backup.enabled" in changed and settings.backup.enabled:  # a directory that nobody has looked at yet
            prepare_directories(settings, [])
            await _check_volumes(self._store, settings)
        with files.translated(settings.log.file or "", "opening the log file"):
            logs.configure(settings.log.level, settings.log.format, file=settings.log.file)
        self._settings = settings
        log.info("service.reloaded", changed=list(changed), needs_restart=list(waiting))
        self._events.publish("service.reloaded", changed=list(changed), needs_restart=list(waiting))
        self._scheduler.wake()
        self._inbox.scan()
        return Reloaded(changed=changed, needs_restart=waiting)

    async def _health(self) -> Health:
        watcher = self._inbox.health()
        reasons = []
        if watcher.reason:
            reasons.append(watcher.reason)
        missing = await anyio.to_thread.run_sync(volumes.unmarked, volumes.written(self._settings))
        reasons += [f"{files.displayable(path)} is not there: its volume seems not to be mounted." for path in missing]
        try:
            await self._store.check()
        except Aiom4bError as error:
            reasons.append(error.reason)
        return Health(
            ok=not reasons,
            reasons=tuple(reasons),
            watcher=watcher,
            workers=self._resources.pool.size,
            worker_crashes=self._resources.pool.crashes,
        )

    # --- service tasks -------------------------------------------------------------------------------------------------

    async def _signals(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload_by_signal()
                elif self._stop.is_set():
                    self._resources.pool.close()
                    os._exit(128 + number)  # asked twice: now
                else:
                    self._stop.set()

    async def _reload_by_signal(self) -> None:
        self._notifier.reloading()
        try:
            await self._reload()
        except Aiom4bError as error:
            log.error("service.not_reloaded", code=error.code, reason=error.reason, remedy=error.remedy)
        self._notifier.ready()

    async def _look_for_keys(self) -> None:
        """Let locked books look for their keys again when there may be a new one."""
        async for event in self._events.since(None):
            if isinstance(event, Event) and event.event in _KEYS_MAY_HAVE_COME:
                with suppress(Transient):  # the database is busy or its disk fails: they look by themselves, only later
                    await self._desk.look_for_keys()

    async def _keep_house(self) -> None:
        """Once an hour, forget what is too old; whatever hinders that is told, and tried again."""
        while True:
            await anyio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await self._clean()
            except Exception as unforeseen:  # noqa: BLE001 - books go on, and the next hour tries again
                error = pipeline.understood(unforeseen)
                log.warning("housekeeping.failed", code=error.code, reason=error.reason, remedy=error.remedy)

    async def _clean(self) -> None:
        settings = self._settings
        if settings.jobs.history_days:
            ended = [status for status in Status if status.ended]
            await self._desk.clear(ended, timedelta(days=settings.jobs.history_days))
        assert settings.paths.library is not None
        if settings.backup.enabled:
            cleaned = await retention.clean(
                settings.paths.backup,
                settings.paths.library,
                days=settings.backup.retention_days,
                now=now(),
                source=settings.paths.source,
                archive=settings.paths.archive,
            )
            if cleaned.removed:
                log.info(
                    "backups.cleaned", removed=len(cleaned.removed), bytes=sum(one.size for one in cleaned.removed)
                )

    async def _tell_status(self) -> None:
        """Keep the line of `systemctl status` up to date, once a second at most, and only when something happens."""
        events = self._events.since(None)
        while True:
            with suppress(Transient):  # the database is busy or its disk fails: with the next event
                self._notifier.status(await self._status_line())
            await anyio.sleep(_STATUS_SECONDS)
            if await anext(events, None) is None:
                return

    async def _status_line(self) -> str:
        counts = await self._store.counts()
        working = [
            f"{_DOING[job.kind]} “{files.displayable(job.name)}” {job.progress:.0f} %"
            for job in self._scheduler.in_work()
        ]
        waiting = [
            f"{counts[status]} {status}" for status in (Status.QUEUED, Status.WAITING, Status.FAILED) if counts[status]
        ]
        if self._scheduler.paused:
            waiting.insert(0, "paused")
        return " · ".join([*working, *waiting]) or "idle"

    async def _feed_watchdog(self) -> None:
        """Tell systemd that loop, database and workers live: as long as each of them answers."""
        period = self._notifier.watchdog_seconds
        if period is None:
            return
        while True:
            try:
                await self._store.check()
            except Transient as error:  # it may pass within a period or two; if not, systemd starts us anew
                log.warning("database.waiting", code=error.code, reason=error.reason, remedy=error.remedy)
            else:
                if self._resources.pool.healthy():
                    self._notifier.alive()
            await anyio.sleep(period)
