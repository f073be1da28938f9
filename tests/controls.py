"""What stands behind the HTTP interface in tests? The real one on a real socket, with nobody at work in the scheduler."""

from __future__ import annotations

import json
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import httpx

from aiom4b.config import ApiSettings, PathSettings, Settings
from aiom4b.control.listen import listeners
from aiom4b.control.server import Server
from aiom4b.control.service import Health, Reloaded, Service
from aiom4b.jobs.admission import Admission
from aiom4b.jobs.desk import Desk
from aiom4b.jobs.events import Events
from aiom4b.jobs.job import EntryState, Job, Kind, Metrics, SourceEntry, WatcherHealth
from aiom4b.jobs.job import JobOptions as Options
from aiom4b.jobs.scheduler import Scheduler
from aiom4b.jobs.store import Store
from aiom4b.jobs.title import AccountStatus, TitleFacts
from aiom4b.models import Fingerprint, Metadata, Step

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = "correct-horse-battery-staple"
HEALTHY = Health(
    ok=True,
    reasons=(),
    watcher=WatcherHealth(mode="events", state="up", reason="", entries=2, last_scan=3.0),
    workers=2,
    worker_crashes=1,
)


TOTALS = Metrics(
    bytes_in=1000,
    bytes_out=400,
    audio_seconds=7200.0,
    wall_seconds={Step.CONVERT: 60.0, Step.VERIFY: 12.0},
    cpu_seconds={Step.CONVERT: 110.0},
)


class Runner:
    """Leaves nothing behind that would have to be swept."""

    def hold(self, held):
        pass

    async def sweep(self, fingerprint):
        pass


class Account:
    """Audible accounts that note what they are asked (``asked``), and answer with what a test has put there, or raise it."""

    def __init__(self):
        self.asked = []
        self.statuses = ()
        self.address: str | Exception = "https://www.amazon.example/ap/signin?openid.oa2.response_type=code"
        self.signed_in: AccountStatus | Exception = account()
        self.left: Exception | None = None
        self.jobs: tuple[Job, ...] | Exception = ()

    def _answer(self, answer, *asked):
        self.asked.append(asked)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def begin_sign_in(self, profile, country, *, with_username):
        return self._answer(self.address, "begin", profile, country, with_username)

    async def finish_sign_in(self, profile, pasted):
        return self._answer(self.signed_in, "finish", profile, pasted)

    async def import_identity(self, profile, document, password, country):
        return self._answer(self.signed_in, "import", profile, document, password, country)

    async def status(self):
        return self.statuses

    async def sign_out(self, profile, *, forced):
        return self._answer(self.left, "leave", profile, forced)

    def request_sync(self, profile, *, full):
        self._answer(None, "sync", profile, full)

    async def download(self, asins):
        return self._answer(self.jobs, "download", asins)

    async def convert(self, asin, options, priority):
        jobs = self._answer(self.jobs, "convert", asin, options, priority)
        return jobs[0]


class Control:
    """A service that answers at ``path``. ``now``, ``health`` and ``settings`` may be changed while it runs."""

    def __init__(self, folder, api):
        self.source, self.library, self.backup, self.state = (
            str(folder / name) for name in ("source", "library", "backup", "state")
        )
        for place in (self.source, self.library, self.backup, self.state):
            os.makedirs(place, exist_ok=True)
        self.path = str(folder / "run" / "aiom4b.sock")
        self.settings = Settings(
            paths=PathSettings(
                source=self.source, library=self.library, backup=self.backup, state=self.state, socket=self.path
            ),
            api=ApiSettings(**api),
        )
        self.now = NOON
        self.seconds = 1000.0  # what the monotonic clock says
        self.health = HEALTHY
        self.scans = 0
        self.account = Account()
        self.reloaded: Reloaded | Exception = Reloaded(changed=("log.level",), needs_restart=("api.port",))
        self.store: Store
        self.events: Events
        self.scheduler: Scheduler
        self.admission: Admission
        self.desk: Desk
        self.server: Server
        self.serving = anyio.CancelScope()
        self.client: httpx.AsyncClient

    def clock(self):
        return self.now

    async def run(self, *, task_status):
        """Serve until the server stops or ``serving`` is cancelled."""
        with self.serving:
            await self.server.run(task_status=task_status)

    def service(self):
        async def health():
            return self.health

        async def reload():
            if isinstance(self.reloaded, Exception):
                raise self.reloaded
            return self.reloaded

        def scan():
            self.scans += 1

        return Service(
            store=self.store,
            scheduler=self.scheduler,
            admission=self.admission,
            desk=self.desk,
            events=self.events,
            account=self.account,
            settings=lambda: self.settings,
            health=health,
            scan=scan,
            reload=reload,
            started=NOON - timedelta(hours=1),
            clock=self.clock,
        )

    def unix(self, **options):
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self.path), base_url="http://localhost", **options
        )

    async def ask(self, method, path, **options):
        """Ask for a path below /api/v1, or for one that begins with a slash."""
        if "json" in options:  # names may hold surrogates, which httpx can't write
            options["content"] = json.dumps(options.pop("json"))
            options["headers"] = options.get("headers", {}) | {"Content-Type": "application/json"}
        return await self.client.request(method, path if path.startswith("/") else f"/api/v1/{path}", **options)

    async def get(self, path, **options):
        return await self.ask("GET", path, **options)

    async def post(self, path, body=None, **options):
        return await self.ask("POST", path, **options, **({} if body is None else {"json": body}))

    async def add(self, name="Emma", *, number=None, changes=None, **facts):
        """Put a job into the store; ``changes`` are what became of it."""
        facts = {"folders": (os.path.join(self.source, name),), "entry": name, "options": Options()} | facts
        fingerprint = None if number is None else Fingerprint(f"{number:064x}")
        facts = {"kind": Kind.CONVERT} | facts
        job, _ = await self.store.add(name=name, fingerprint=fingerprint, now=self.now, **facts)
        if changes:
            job = await self.store.update(job.id, self.now, **changes)
            assert job is not None
        return job


@asynccontextmanager
async def serving(folder, **api):
    """Run the interface on a socket below ``folder``; keywords are its ApiSettings."""
    control = Control(folder, api)
    control.store = await Store.open(os.path.join(control.state, "aiom4b.db"))
    control.events = Events(control.clock, control.store.reserve_event_ids)
    await control.events.start()
    runner = Runner()
    control.admission = Admission(control.store, control.events, runner, lambda: control.settings, clock=control.clock)
    control.scheduler = Scheduler(
        control.store,
        control.events,
        runner,
        control.admission,
        lambda: control.settings,
        clock=control.clock,
        monotonic=lambda: control.seconds,
    )
    control.scheduler.totals = TOTALS
    control.desk = Desk(control.store, control.events, runner, control.scheduler, clock=control.clock)
    try:
        control.server = Server(
            control.service(),
            listeners(control.path, control.settings.api, {}),
            monotonic=lambda: control.seconds,
        )
        async with anyio.create_task_group() as group, control.unix(timeout=20) as control.client:
            await group.start(control.run)
            yield control
            control.server.stop()
    finally:
        control.events.close()
        await control.store.close()


@asynccontextmanager
async def over_tcp(folder, **api):
    """Run the interface on TCP too, and give a client of it that has no key yet."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with (
        serving(folder, host="127.0.0.1", port=port, key=KEY, **api) as control,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        control.port = port
        yield control, client


def played(**api):
    """Run an async test with a service that answers; keywords are its ApiSettings."""

    def decorate(scene):
        def test(tmp_path):
            async def run():
                with anyio.fail_after(60):
                    async with serving(tmp_path, **api) as control:
                        await scene(control)

            anyio.run(run)

        test.__name__, test.__doc__ = scene.__name__, scene.__doc__
        return test

    return decorate


def account(profile="main", **facts):
    """Return how an account stands."""
    made = AccountStatus(
        profile=profile,
        pending=False,
        country="de",
        owner="Jane",
        device="Jane's Audible for iPhone",
        registered=NOON - timedelta(days=20),
        token_expires=NOON + timedelta(minutes=40),
        encrypted=True,
        titles=412,
        last_sync=NOON - timedelta(minutes=5),
        last_full_sync=NOON - timedelta(days=2),
        licences_today=3,
        licences_allowed=50,
        pauses=(),
        problem=None,
    )
    return replace(made, **facts)


def title_facts(asin="B07EXAMPLE", **facts):
    """Return what a library told of a title; ``metadata`` are fields of its metadata."""
    metadata = {"title": "Emma", "authors": ("Jane Austen",), "narrators": ("A Reader",), "asin": asin}
    made = TitleFacts(
        asin=asin,
        metadata=Metadata(**(metadata | facts.pop("metadata", {}))),
        runtime_minutes=547,
        cover="https://images.example/1215.jpg",
        purchased=NOON - timedelta(days=9),
        released=NOON - timedelta(days=99),
        item={"asin": asin, "title": "Emma"},
        unavailable=None,
    )
    return replace(made, **facts)


def entry(name, state=EntryState.DONE, **facts):
    """Return an entry of the source."""
    made = SourceEntry(
        name=name,
        digest="d",
        state=state,
        problem=None,
        fingerprints=(Fingerprint("a" * 64),),
        jobs=(),
        files=3,
        size=30,
        changed=NOON,
    )
    return replace(made, **facts)


def refusal(answer):
    """Return status and code of a problem, which must be a whole one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "remedy"}
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    assert problem["remedy"]
    return answer.status_code, problem["code"]
