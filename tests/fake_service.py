"""A stand-in for the service: HTTP over a real Unix socket, with answers that a test can change while it runs."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

NOW = "2026-03-01T09:00:00+00:00"


def job(name="Emma", **facts):
    """Return a job as the service tells it."""
    return {
        "id": str(uuid.uuid4()),
        "kind": "convert",
        "status": "queued",
        "name": name,
        "folders": [f"/drop/{name}"],
        "entry": name,
        "fingerprint": None,
        "asin": None,
        "options": {"order": "auto", "merge": False, "naming_scheme": None, "output": None, "again": False},
        "priority": 0,
        "attempts": 0,
        "not_before": None,
        "step": None,
        "progress": 0.0,
        "eta_seconds": None,
        "output": None,
        "book": None,
        "backup": None,
        "error": None,
        "created": NOW,
        "started": None,
        "ended": None,
        "updated": NOW,
        "metrics": {
            "bytes_in": 0,
            "bytes_out": 0,
            "audio_seconds": 0.0,
            "wall_seconds": {},
            "cpu_seconds": {},
            "peak_memory": 0,
        },
    } | facts


def status(**facts):
    """Return how the service is, as it tells itself."""
    return {
        "version": "0.1.0",
        "pid": 7,
        "started": NOW,
        "uptime_seconds": 7300.0,
        "health": {
            "status": "ok",
            "reasons": [],
            "watcher": {"mode": "events", "state": "up", "reason": None, "entries": 3, "last_scan": 2.0},
        },
        "paused": False,
        "jobs": {"queued": 2, "running": 1, "waiting": 0},
        "entries": {"settling": 1, "needs_attention": 2},
        "current": [],
        "queue_age_seconds": None,
        "workers": 2,
        "worker_crashes": 0,
        "disks": [{"place": "source", "path": "/drop", "available": 5_000_000, "size": 10_000_000}],
        "last_event_id": 0,
    } | facts


def problem(code="space.full", message="The disk is full.", remedy="Make room."):
    return {"code": code, "message": message, "remedy": remedy}


def entry(name="Emma", **facts):
    """Return an entry of the source as the service tells it."""
    return {
        "name": name,
        "state": "settling",
        "error": None,
        "files": 3,
        "size": 3_400_000,
        "jobs": [],
        "changed": NOW,
    } | facts


class FakeService(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers at ``path``. ``jobs`` are newest first; ``answers`` by (method, path below /api/v1) stand in for all else.

    An answer is (status, document or bytes), or a function of the request's query that returns one.
    ``requests`` holds what was asked: (method, path, query, body). ``tell`` sends an event to every open stream.
    """

    daemon_threads = False
    block_on_close = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.path = str(path)
        self.jobs: list[dict] = []
        self.answers: dict[tuple[str, str], object] = {}
        self.requests: list[tuple[str, str, dict, object]] = []
        self.asked_after: list[str | None] = []
        self.opened = threading.Semaphore(0)
        self.refuse_streams = False
        self._streams: list[queue.SimpleQueue] = []
        self._events = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def tell(self, event: str, **data: object) -> None:
        self._events += 1
        text = f"id: {self._events}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
        self.send(text.encode())

    def send(self, text: bytes) -> None:
        for stream in self._streams:
            stream.put(text)

    def end_streams(self) -> None:
        for stream in self._streams:
            stream.put(None)
        self._streams = []

    def change(self, job: dict, event: str | None = None, **facts: object) -> None:
        """Change a job, and tell of it."""
        job |= facts
        if event:
            self.tell(event, job_id=job["id"], status=job["status"], step=job["step"], progress=job["progress"])

    def stop(self) -> None:
        self.end_streams()
        self.shutdown()
        self.server_close()
        self._thread.join()
        Path(self.path).unlink()

    def handle_error(self, request, client_address):
        pass  # a client that has what it wanted

    def answer(self, method: str, path: str, query: dict, body: object):
        self.requests.append((method, path, query, body))
        if (method, path) in self.answers:
            given = self.answers[method, path]
            return given(query) if callable(given) else given
        if (method, path) == ("GET", "jobs"):
            offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
            wanted = query.get("status")
            found = [job for job in self.jobs if wanted is None or job["status"] in wanted]
            found = [job for job in found if job["id"].startswith(query.get("id", [""])[0])]
            items = found[offset : offset + limit]
            return 200, {"items": items, "total": len(found), "limit": limit, "offset": offset}
        parts = path.split("/")
        known = {job["id"]: job for job in self.jobs}
        if parts[0] == "jobs" and len(parts) > 1 and parts[1] in known:
            return 200, known[parts[1]]
        return refusal(404, "job.missing", "There is no such job.", "Look at the list.")


def refusal(status: int, code: str, detail: str, remedy: str):
    return status, {
        "type": "about:blank",
        "title": "No",
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeService

    def address_string(self):
        return "socket"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/api/v1/events":
            self._stream()
        else:
            self._answered("GET")

    def do_POST(self):
        self._answered("POST")

    def do_DELETE(self):
        self._answered("DELETE")

    def _answered(self, method):
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        assert url.path.startswith("/api/v1/")
        status, document = self.server.answer(method, url.path.removeprefix("/api/v1/"), parse_qs(url.query), body)
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self):
        if self.server.refuse_streams:
            self.close_connection = True
            return
        heard: queue.SimpleQueue = queue.SimpleQueue()
        self.server.asked_after.append(self.headers.get("Last-Event-ID"))
        self.server._streams.append(heard)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.opened.release()
        while (text := heard.get()) is not None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")
