"""Who may ask, how much, and over what? Sockets, keys, limits and hostile clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing

import anyio
import httpx
import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from aiom4b.config import ApiSettings
from aiom4b.control import guard, listen, server
from aiom4b.control.lag import Lag
from aiom4b.control.listen import handed_over, listeners, unix_listener
from aiom4b.errors import Exit, Fatal, Transient
from controls import KEY, over_tcp, played, refusal, serving

# --- the Unix socket --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
def test_the_socket_is_never_open_to_others_and_ends_up_0660(umask, tmp_path, monkeypatch):
    path = str(tmp_path / "aiom4b.sock")
    bound = []
    chmod = os.chmod
    monkeypatch.setattr(os, "chmod", lambda *args: bound.append(os.lstat(path).st_mode & 0o777) or chmod(*args))
    before = os.umask(umask)
    try:
        listener = unix_listener(path)
    finally:
        os.umask(before)
    with closing(listener):
        assert [mode & ~0o660 for mode in bound] == [0]  # between bind and chmod
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o660
    assert not os.path.lexists(path)


def test_a_folder_made_for_the_socket_is_closed_to_others(tmp_path):
    with closing(unix_listener(str(tmp_path / "run" / "aiom4b" / "aiom4b.sock"))):
        assert os.stat(tmp_path / "run" / "aiom4b").st_mode & 0o007 == 0


def test_the_socket_of_a_process_that_is_gone_is_replaced(tmp_path):
    path = str(tmp_path / "aiom4b.sock")
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    with closing(unix_listener(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_where_somebody_answers_is_left_alone(tmp_path):
    path = str(tmp_path / "aiom4b.sock")
    with closing(unix_listener(path)):
        for busy in (False, True):
            clients = []
            if busy:  # nobody accepts: the queue fills up until a connection has to wait
                while True:
                    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                    clients.append(client)
                    try:
                        client.connect(path)
                    except BlockingIOError:
                        break
            with pytest.raises(Transient) as error:
                unix_listener(path)
            assert (error.value.code, error.value.exit) == ("service.running", Exit.TRY_LATER)
            assert busy or f"process {os.getpid()}" in error.value.reason
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
            for client in clients:
                client.close()


def test_what_is_no_socket_is_never_removed(tmp_path):
    path = tmp_path / "aiom4b.sock"
    path.write_text("mine")
    with pytest.raises(Fatal) as error:
        unix_listener(str(path))
    assert error.value.code == "socket.unusable"
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 108, "file/aiom4b.sock"])
def test_a_path_that_can_hold_no_socket_is_a_setting_to_correct(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal) as error:
        unix_listener(str(tmp_path / name))
    assert (error.value.code, error.value.exit) == ("socket.unusable", Exit.CONFIGURATION)


def test_a_socket_that_somebody_else_has_put_there_meanwhile_stays(tmp_path):
    path = str(tmp_path / "aiom4b.sock")
    ours = unix_listener(path)
    os.rename(path, path + ".old")
    with closing(unix_listener(path)):
        ours.close()
        assert os.path.lexists(path)


def test_sockets_from_systemd_are_taken_over(tmp_path):
    """In a process of its own, since systemd counts descriptors from 3."""
    program = """
import os, socket, sys
from aiom4b.config import ApiSettings
from aiom4b.control.listen import listeners
os.dup2(int(sys.argv[2]), 3)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
[one] = listeners(sys.argv[1] + ".other", ApiSettings(), environ)
assert environ == {} and not os.path.lexists(sys.argv[1] + ".other")
assert one.socket.fileno() == 3 and not os.get_inheritable(3)
one.socket.setblocking(True)
one.socket.accept()[0].sendall(b"hello")
one.close()
assert os.path.lexists(sys.argv[1])
"""
    path = str(tmp_path / "handed.sock")
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(path)
        ours.listen()
        child = subprocess.Popen([sys.executable, "-c", program, path, str(ours.fileno())], pass_fds=[ours.fileno()])
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(path)
            assert client.recv(100) == b"hello"
        assert child.wait(30) == 0


def test_sockets_meant_for_another_process_are_not_taken():
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
    assert handed_over(environ) == []
    assert environ == {}


def test_a_network_socket_from_systemd_needs_a_key_too(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as ours:
        handed = listen.Listener(socket=ours)
        monkeypatch.setattr(listen, "handed_over", lambda environ: [handed])
        with pytest.raises(Fatal) as error:
            listeners("/nowhere", ApiSettings(), {})
    assert error.value.code == "api.key_missing"


# --- TCP --------------------------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_is_told_and_the_unix_socket_is_closed_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = ApiSettings(host="127.0.0.1", port=taken.getsockname()[1], key=KEY)
        with pytest.raises(Fatal) as error:
            listeners(str(tmp_path / "s"), api, {})
    assert error.value.code == "api.unusable"
    assert not os.path.lexists(tmp_path / "s")


def tcp(**api):
    """Run an async test with a service on TCP, and a client that has no key yet."""

    def decorate(scene):
        def test(tmp_path):
            async def run():
                with anyio.fail_after(60):
                    async with over_tcp(tmp_path, **api) as (control, client):
                        await scene(control, client)

            anyio.run(run)

        test.__name__, test.__doc__ = scene.__name__, scene.__doc__
        return test

    return decorate


@tcp()
async def test_on_tcp_nothing_is_told_or_done_without_the_key(control, client):
    for headers in (
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "\u00e9" * 10},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Cookie": f"key={KEY}"},
    ):
        for method, path in [
            ("GET", "/health"),
            ("GET", "/metrics"),
            ("GET", "/api/v1/status"),
            ("POST", "/api/v1/pause"),
        ]:
            headers_sent = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = await client.request(method, path, headers=headers_sent)
            assert refusal(answer) == (401, "request.unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    answer = await client.get("/api/v1/events", params={"key": KEY})
    assert refusal(answer) == (401, "request.unauthorized")
    assert control.scheduler.paused is False
    assert (await control.get("status")).status_code == 200  # the Unix socket needs no key


@tcp()
async def test_on_tcp_the_key_opens_everything_in_either_header(control, client):
    for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer  {KEY}"}):
        assert (await client.get("/api/v1/status", headers=headers)).status_code == 200
        assert (await client.get("/health", headers=headers)).status_code == 200


@tcp()
async def test_the_description_is_open_since_it_holds_no_secret_and_browsers_send_no_key(control, client):
    for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
        assert (await client.get(path)).status_code == 200
    assert refusal(await client.get("/docs/../api/v1/status"))[0] in {401, 404}
    assert refusal(await client.get("/docs/%2e%2e/api/v1/status"))[0] in {401, 404}


@tcp()
async def test_a_name_that_is_not_ours_is_refused_so_that_no_page_can_point_its_own_at_us(control, client):
    key = {"X-API-Key": KEY}
    for host in ("evil.example", f"evil.example:{control.port}", "127.0.0.1.evil.example", "", "[::1", "x y"):
        answer = await client.get("/api/v1/status", headers=key | {"Host": host})
        assert answer.status_code in {400, 421}, host
    assert refusal(await client.get("/docs", headers={"Host": "evil.example"})) == (421, "request.host")
    names = ("localhost", f"LOCALHOST:{control.port}", "192.168.1.7", "[::1]:80", socket.gethostname())
    for host in names:
        assert (await client.get("/api/v1/status", headers=key | {"Host": host})).status_code == 200, host


@tcp()
async def test_a_ticket_opens_one_stream_for_a_short_while(control, client):
    async def ticket():
        answer = await client.post("/api/v1/ticket", headers={"X-API-Key": KEY})
        assert answer.json()["expires_seconds"] == 30
        return answer.json()["ticket"]

    first = await ticket()
    assert refusal(await client.get("/api/v1/status", params={"ticket": first}))[0] == 401
    async with client.stream("GET", "/api/v1/events", params={"ticket": first}) as answer:
        assert answer.status_code == 200
    assert refusal(await client.get("/api/v1/events", params={"ticket": first})) == (401, "request.unauthorized")
    async with connect(f"ws://127.0.0.1:{control.port}/ws/jobs?ticket={await ticket()}") as heard:
        control.events.publish("job.started", job_id="j")
        assert json.loads(await heard.recv())["event"] == "job.started"
    late = await ticket()
    control.seconds += 30.1
    assert refusal(await client.get("/api/v1/events", params={"ticket": late}))[0] == 401
    assert refusal(await client.post("/api/v1/ticket"))[0] == 401


@tcp()
async def test_a_websocket_without_key_or_ticket_is_refused_before_it_opens(control, client):
    address = f"ws://127.0.0.1:{control.port}/ws/jobs"
    for url in (address, f"{address}?ticket=x", f"{address}?ticket=a&ticket=b"):
        with pytest.raises(InvalidStatus) as error:
            await connect(url).__aenter__()
        assert error.value.response.status_code == 401
        assert json.loads(error.value.response.body)["code"] == "request.unauthorized"
    async with connect(address, additional_headers={"X-API-Key": KEY}):
        pass


@tcp(cors_origins=("https://books.example",))
async def test_pages_of_the_listed_origins_may_ask(control, client):
    ask = {"Origin": "https://books.example", "Access-Control-Request-Method": "POST"}
    before = await client.options(
        "/api/v1/convert", headers=ask | {"Access-Control-Request-Headers": "x-api-key,content-type"}
    )
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://books.example"
    for key, status in ((KEY, 200), ("wrong", 401)):
        answer = await client.get("/api/v1/status", headers={"Origin": "https://books.example", "X-API-Key": key})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://books.example"
    other = await client.get("/api/v1/status", headers={"Origin": "https://evil.example", "X-API-Key": KEY})
    assert "access-control-allow-origin" not in other.headers
    proxied = await client.get("/api/v1/status", headers={"Host": "books.example", "X-API-Key": KEY})
    assert proxied.status_code == 200


@tcp()
async def test_no_page_may_ask_unless_its_origin_is_listed(control, client):
    headers = {"Origin": "https://books.example", "X-API-Key": KEY}
    answer = await client.get("/api/v1/status", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


# --- audit ------------------------------------------------------------------------------------------------------------


def test_every_changing_request_leaves_who_asked(tmp_path):
    async def run():
        async with over_tcp(tmp_path) as (control, client):
            with structlog.testing.capture_logs() as logs:
                await control.get("status")
                await control.post("pause")
                await control.ask("DELETE", "jobs/nothing")
                await client.post("/api/v1/resume", headers={"X-API-Key": KEY})
                await client.post("/api/v1/resume?ticket=secret", headers={"X-API-Key": "wrong"})
        return logs

    logs = anyio.run(run)
    asked = [
        {key: value for key, value in line.items() if key not in {"log_level", "event"}}
        for line in logs
        if line["event"] == "control.request"
    ]
    me = {"uid": os.getuid(), "pid": os.getpid()}
    assert asked[:2] == [
        {"method": "POST", "path": "/api/v1/pause", "status": 200, **me},
        {"method": "DELETE", "path": "/api/v1/jobs/nothing", "status": 404, **me},
    ]
    assert asked[2].pop("client").startswith("127.0.0.1:")
    assert asked[2:] == [{"method": "POST", "path": "/api/v1/resume", "status": 200}]
    [refused] = [line for line in logs if line["event"] == "control.refused"]
    assert (refused["code"], refused["path"]) == ("request.unauthorized", "/api/v1/resume")
    assert "secret" not in str(logs)
    assert "wrong" not in str(logs)


def test_another_process_is_named_by_its_own_number(tmp_path):
    async def run():
        async with serving(tmp_path) as control:
            program = (
                "import socket,os,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
                "s.sendall(b'POST /api/v1/pause HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n');"
                "assert b'200 OK' in s.recv(999); print(os.getpid())"
            )
            with structlog.testing.capture_logs() as logs:
                done = await anyio.run_process([sys.executable, "-c", program, control.path])
        return int(done.stdout), logs

    pid, logs = anyio.run(run)
    assert [line["pid"] for line in logs if line["event"] == "control.request"] == [pid]


# --- limits -----------------------------------------------------------------------------------------------------------


@played()
async def test_a_body_beyond_the_limit_is_refused_however_it_comes(control):
    big = b'{"folders": ["' + b"x" * guard.MOST_BYTES + b'"]}'

    async def chunks():
        for start in range(0, len(big), 1000):
            yield big[start : start + 1000]

    for content in (big, chunks()):
        answer = await control.ask("POST", "convert", content=content, headers={"Content-Type": "application/json"})
        assert refusal(answer) == (413, "request.too_large")
    fits = json.dumps({"folders": ["x" * (guard.MOST_BYTES - 20)]}).encode()
    assert refusal(await control.ask("POST", "convert", content=fits))[0] == 422
    assert (await control.get("status")).status_code == 200


async def raw(control, *pieces):
    """Send bytes, each piece after the answer to the one before, and return all that comes back until the end."""
    reader, writer = await asyncio.open_unix_connection(control.path)
    found = b""
    try:
        with anyio.fail_after(10):
            for piece in pieces[:-1]:
                writer.write(piece)
                found += await reader.read(65536)
            writer.write(pieces[-1])
            return found + await reader.read()
    except ConnectionError:
        return found
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/convert HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws/jobs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=range(11),
)
def test_garbage_is_refused_and_harms_nobody(data, tmp_path):
    @played()
    async def scene(control):
        answer = await raw(control, data)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        assert (await control.get("status")).status_code == 200

    scene(tmp_path)


def test_who_is_slow_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)

    @played()
    async def scene(control):
        begun = time.monotonic()
        assert await raw(control, b"") == b""
        assert await raw(control, b"GET /health HTTP/1.1\r\nHost:") == b""
        first = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await raw(control, first, b"GET /")).startswith(b"HTTP/1.1 200")
        body = await raw(control, b"POST /api/v1/convert HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert body.startswith(b"HTTP/1.1 408")
        assert b"request.slow" in body
        assert time.monotonic() - begun < 8
        # What takes long but has been asked properly is not slow.
        async with control.client.stream("GET", "/api/v1/events") as stream:
            await anyio.sleep(0.5)
            control.events.publish("job.started", job_id="j")
            lines = stream.aiter_lines()
            assert (await anext(lines)) == "event: job.started"

    scene(tmp_path)


def test_a_crowd_of_idle_clients_keeps_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 20)

    @played()
    async def scene(control):
        async with control.client.stream("GET", "/api/v1/events") as stream:
            idlers = [await asyncio.open_unix_connection(control.path) for _ in range(100)]
            connections = control.server._uvicorn.server_state.connections
            with anyio.fail_after(5):
                while len(connections) > 21:
                    await control.store.check()
                async with control.unix() as fresh:
                    assert (await fresh.get("/api/v1/status")).status_code == 200
            assert len(connections) <= 21
            control.events.publish("job.started", job_id="j")
            assert (await anext(stream.aiter_lines())) == "event: job.started"  # who has asked something stays
            for _, writer in idlers:
                writer.close()

    scene(tmp_path)


def test_more_at_once_than_there_is_room_for_are_told_to_come_later(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)

    @played()
    async def scene(control):
        async with control.unix() as other, anyio.create_task_group() as group:
            for _ in range(3):
                opened = anyio.Event()
                group.start_soon(_watch, other, opened)
                with anyio.fail_after(5):
                    await opened.wait()
            assert (await control.get("status")).status_code == 503
            group.cancel_scope.cancel()

    scene(tmp_path)


async def _watch(client, opened):
    async with client.stream("GET", "/api/v1/events") as answer:
        assert answer.status_code == 200
        opened.set()
        async for _ in answer.aiter_raw():
            pass


@played()
async def test_a_client_that_hangs_up_in_the_middle_harms_nobody(control):
    for data in (
        b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v1/scan HTTP/1.1\r\nContent-Length: 9\r\n",
    ):
        for _ in range(10):
            _, writer = await asyncio.open_unix_connection(control.path)
            writer.write(data)
            writer.transport.abort()
    assert (await control.get("status")).status_code == 200
    assert control.scans == 0


# --- the end ----------------------------------------------------------------------------------------------------------


def test_an_answer_in_progress_is_finished_and_then_no_more_are_given(tmp_path):
    async def run():
        async with serving(tmp_path) as control:
            asked, answer = anyio.Event(), anyio.Event()

            async def slowly(*_):
                asked.set()
                await answer.wait()
                return []

            async def ask():
                assert (await control.get("folders")).status_code == 200
                found.set()

            found = anyio.Event()
            control.store.entries = slowly
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await asked.wait()
                control.server.stop()
                answer.set()
            assert found.is_set()
        with pytest.raises(httpx.ConnectError):
            async with control.unix() as late:
                await late.get("/health")

    anyio.run(run)


def test_signals_stay_with_the_service(tmp_path):
    async def run():
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        async with serving(tmp_path):
            return before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    assert anyio.run(run)


def test_the_client_needs_nothing_of_the_servers_libraries():
    program = "import sys, aiom4b.cli.main, aiom4b.cli.client; print([m for m in sys.modules if m.startswith(('fastapi', 'uvicorn', 'aiom4b.control'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"[]"


def test_a_busy_event_loop_shows_in_the_numbers(tmp_path):
    async def run():
        seconds = iter([0.0, 1.25, 2.0, 3.0])
        lag = Lag(lambda: next(seconds, 99.0))
        assert lag.worst == 0
        with anyio.move_on_after(2.5):
            await lag.measure()
        return lag.worst

    assert anyio.run(run) == pytest.approx(0.25)
