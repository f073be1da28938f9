"""The command line inside the test's own process, with one pool of workers for all tests."""

from __future__ import annotations

import os

import anyio
import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner

from aiom4b import redaction
from aiom4b.cli.main import app as command_line
from aiom4b.engine.pool import WorkerPool
from aiom4b.steps import context
from household import House, answer


class _Shared(WorkerPool):
    """A pool that outlives the calls that use it."""

    def close(self):
        pass

    def really_close(self):
        super().close()


@pytest.fixture(scope="session")
def engine():
    """Return a running event loop, and the pool that belongs to it."""
    with start_blocking_portal() as portal:
        pool = _Shared(2)
        yield portal, pool
        portal.call(pool.really_close)


@pytest.fixture
def house(tmp_path, monkeypatch, engine):
    """Return a house whose program runs right here."""
    portal, pool = engine
    place = House(tmp_path, _inside)
    for name in list(os.environ):
        if name.startswith(("AIOM4B_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(anyio, "run", portal.call)
    monkeypatch.setattr(context, "WorkerPool", lambda *_, **__: pool)
    monkeypatch.setattr(redaction, "_secrets", [])
    yield place
    structlog.reset_defaults()


def _inside(house, words):
    result = CliRunner().invoke(command_line, list(words), catch_exceptions=False)
    return answer(result.exit_code, result.stdout_bytes, result.stderr_bytes)
