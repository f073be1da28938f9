"""Do those who watch hear everything, in order, and do they let us go? Real clients on the real socket."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager

import anyio
import pytest
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aiom4b.control import streams
from controls import played, refusal, serving


class Stream:
    """Reads server-sent events."""

    def __init__(self, response):
        self.response = response
        self.lines = response.aiter_lines()

    async def frame(self):
        """Return the next frame: its fields, a comment under ""."""
        found = {}
        while line := await anext(self.lines):
            field, _, value = line.partition(":")
            found[field] = value.removeprefix(" ")
        return found

    async def events(self, count):
        found = []
        while len(found) < count:
            frame = await self.frame()
            if "event" in frame:
                found.append((int(frame["id"]), frame["event"], json.loads(frame["data"])))
        return found


@asynccontextmanager
async def watching(control, **options):
    async with control.client.stream("GET", "/api/v1/events", **options) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        yield Stream(response)


def told(control, *names):
    for name in names:
        control.events.publish(name, job_id="j", status="running", step="convert", progress=12.5)


@played()
async def test_events_arrive_with_rising_ids_and_their_data(control):
    async with watching(control) as stream:
        told(control, "job.started", "job.progress")
        control.events.publish("entry.changed", name=os.fsdecode(b"caf\xe9\nx"), state="done", problem=None)
        first, second, third = await stream.events(3)
    assert [first[1], second[1], third[1]] == ["job.started", "job.progress", "entry.changed"]
    assert first[0] + 1 == second[0] == third[0] - 1
    assert first[2] == {
        "job_id": "j",
        "status": "running",
        "step": "convert",
        "progress": 12.5,
        "at": "2026-11-21T12:00:00+00:00",
    }
    assert third[2]["name"] == "caf\\xe9\nx"


@played()
async def test_what_happens_after_the_request_is_heard_even_if_the_stream_is_not_read_yet(control):
    async with watching(control) as stream:
        told(control, *["job.progress"] * 50)
        assert len(await stream.events(50)) == 50


@played()
async def test_a_watcher_goes_on_where_it_was(control):
    told(control, "job.created", "job.started", "job.completed")
    last = control.events.last_id
    async with watching(control, headers={"Last-Event-ID": str(last - 2)}) as stream:
        assert [event[:2] for event in await stream.events(2)] == [(last - 1, "job.started"), (last, "job.completed")]
    async with watching(control, params={"since": last - 1}) as stream:
        assert [event[:2] for event in await stream.events(1)] == [(last, "job.completed")]


@played()
async def test_a_watcher_that_was_away_too_long_is_told_to_look_anew(control):
    for _ in range(11):
        told(control, *["job.progress"] * 100)
        await control.store.check()  # in between, new ids are reserved
    last = control.events.last_id
    for id in (last - 1050, last + 7, 0, -5, 10**30):
        async with watching(control, headers={"Last-Event-ID": str(id)}) as stream:
            assert await stream.events(1) == [(last, "reset", {})]
            told(control, "job.completed")
            last += 1
            assert (await stream.events(1))[0][:2] == (last, "job.completed")


@played()
async def test_an_id_that_is_none_is_refused(control):
    assert refusal(await control.get("events", headers={"Last-Event-ID": "yesterday"})) == (422, "request.invalid")


def test_silence_is_broken_by_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PING_SECONDS", 0.05)

    @played()
    async def scene(control):
        async with watching(control) as stream:
            assert list(await stream.frame()) == [""]
            assert list(await stream.frame()) == [""]

    scene(tmp_path)


@played()
async def test_a_watcher_that_reads_nothing_holds_up_nobody_and_misses_nothing_unawares(control):
    reader, writer = await asyncio.open_unix_connection(control.path, limit=1024)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    async with watching(control) as stream:
        for _ in range(40):
            for _ in range(100):
                control.events.publish("job.progress", job_id="j" * 300, status="running", step="convert", progress=1.0)
            assert len(await stream.events(100)) == 100
    with anyio.fail_after(5):
        assert (await control.get("status")).status_code == 200
    data = b""
    with anyio.fail_after(10):
        while b"event: reset" not in data[-5000:]:
            data += await reader.read(65536)
    assert len(data) < 3_000_000
    writer.close()
    await writer.wait_closed()


# --- WebSocket --------------------------------------------------------------------------------------------------------


def socket(control, path="/ws/jobs", **options):
    return unix_connect(control.path, f"ws://localhost{path}", compression=None, **options)


@pytest.mark.parametrize("path", ["/ws/jobs", "/api/v1/ws/jobs"])
def test_jobs_are_followed_over_a_websocket(path, tmp_path):
    @played()
    async def scene(control):
        async with socket(control, path) as client:
            told(control, "job.started")
            control.events.publish("entry.changed", name="Emma", state="done", problem=None)
            told(control, "job.completed")
            first, second = json.loads(await client.recv()), json.loads(await client.recv())
        assert first == {
            "id": second["id"] - 2,
            "event": "job.started",
            "at": "2026-11-21T12:00:00+00:00",
            "data": {"job_id": "j", "status": "running", "step": "convert", "progress": 12.5},
        }
        assert second["event"] == "job.completed"

    scene(tmp_path)


@played()
async def test_one_job_can_be_followed_alone_and_from_an_event_on(control):
    start = control.events.last_id
    for id in ("a", "b", "a"):
        control.events.publish("job.progress", job_id=id, status="running", step="convert", progress=1.0)
    async with socket(control, f"/ws/jobs?job_id=b&since={start}") as client:
        control.events.publish("job.completed", job_id="a", status="completed", step="publish", progress=100.0)
        control.events.publish("job.completed", job_id="b", status="completed", step="publish", progress=100.0)
        heard = [json.loads(await client.recv()) for _ in range(2)]
    assert [(one["event"], one["data"]["job_id"]) for one in heard] == [("job.progress", "b"), ("job.completed", "b")]
    async with socket(control, "/ws/jobs?since=999999999") as client:
        assert json.loads(await client.recv())["event"] == "reset"


@played()
async def test_what_a_websocket_client_says_is_ignored_but_not_without_limit(control):
    async with socket(control) as client:
        await client.send("hello")
        await client.send(b"\xff\x00")
        told(control, "job.started")
        assert json.loads(await client.recv())["event"] == "job.started"
        await client.send("x" * 10_000)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd.code == 1009
    with pytest.raises(InvalidStatus) as refused:
        await socket(control, "/ws/books").__aenter__()
    assert refused.value.response.status_code in {403, 404}


# --- leaving ----------------------------------------------------------------------------------------------------------


@played()
async def test_a_watcher_that_left_is_forgotten(control):
    tasks = control.server._uvicorn.server_state.tasks
    async with watching(control), socket(control):
        assert len(tasks) == 2
    await control.client.aclose()
    with anyio.fail_after(5):
        while tasks:
            told(control, "job.progress")
            await anyio.sleep(0.01)


async def all_of(client):
    async for _ in client:
        pass


def test_open_streams_end_within_a_second_of_stopping(tmp_path):
    async def run():
        async with serving(tmp_path) as control, watching(control) as stream, socket(control) as client:
            # And two that will not leave by themselves: one that never reads, one in the middle of a request.
            _, deaf = await asyncio.open_unix_connection(control.path, limit=1024)
            deaf.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _, slow = await asyncio.open_unix_connection(control.path)
            slow.write(b"POST /api/v1/convert HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            for _ in range(50):
                for _ in range(20):
                    told(control, "job.progress" + "." * 2000)
                assert (await control.get("/health")).status_code == 200
            before = time.monotonic()
            control.server.stop()
            async for _ in stream.lines:
                pass  # it ends as it should: httpx raises for one that is cut off
            with pytest.raises(ConnectionClosed):
                await all_of(client)
            assert client.close_code == 1012
        seconds = time.monotonic() - before
        for writer in (deaf, slow):
            writer.close()
        return seconds

    assert anyio.run(run) < 2.5
    assert not os.path.lexists(tmp_path / "run" / "aiom4b.sock")


def test_streams_end_in_good_order_when_the_server_is_cancelled(tmp_path):
    async def run():
        async with serving(tmp_path) as control, watching(control) as stream, socket(control) as client:
            control.serving.cancel()
            async for _ in stream.lines:
                pass
            with pytest.raises(ConnectionClosed):
                await all_of(client)
            assert client.close_code == 1012

    anyio.run(run)
    assert not os.path.lexists(tmp_path / "run" / "aiom4b.sock")


@played()
async def test_streams_end_when_there_are_no_more_events(control):
    async with watching(control) as stream, socket(control) as client:
        told(control, "job.started")
        control.events.close()
        assert (await stream.events(1))[0][1] == "job.started"
        async for _ in stream.lines:
            pass
        with pytest.raises(ConnectionClosed):
            await all_of(client)
        assert client.close_code == 1012
    assert (await control.get("status")).status_code == 200
