"""Does a transfer take only what belongs together, whatever a server answers and the disk does?"""

from __future__ import annotations

import errno
import json
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import httpx
import pytest

from aiom4b.adapters import files
from aiom4b.adapters.audible_api.connection import Connection
from aiom4b.adapters.audible_api.identity import Identity
from aiom4b.adapters.audible_api.transfer import transfer
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from audible_account import Account, Device

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ADDRESS = "https://own.cloudfront.net/own.aaxc?Signature=own"
BODY = bytes(range(256)) * 40
AAX = {"content-type": "audio/vnd.audible.aax"}


class Server:
    """Answers what it is told, one answer after another, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def answer(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        return answer(request) if callable(answer) else answer


class Body(httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off with an error."""

    def __init__(self, body, error=None):
        self.body, self.error = body, error

    async def __aiter__(self):
        for start in range(0, len(self.body), 1000):
            yield self.body[start : start + 1000]
        if self.error:
            raise self.error


def whole(etag='"one"', body=BODY, status=200, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = AAX | {"content-length": str(len(body))} | ({"etag": etag} if etag else {}) | named
    return httpx.Response(status, headers=told, stream=Body(body))


def rest(request, *, etag='"one"', body=BODY, shift=0, total=None):
    """Answer the range that was asked for."""
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    told = f"bytes {start + shift}-{len(body) - 1}/{len(body) if total is None else total}"
    return whole(etag, body[start:], 206, content_range=told)


def broken(count=4000, etag='"one"', error=None, **headers):
    told = AAX | {"content-length": str(len(BODY))} | ({"etag": etag} if etag else {}) | headers
    return httpx.Response(200, headers=told, stream=Body(BODY[:count], error or httpx.ReadError("peer went away")))


@asynccontextmanager
async def connected():
    identity = Identity.of(Device(account=Account(), serial="0" * 40).identity())
    async with Connection(identity.authenticator(), "com") as connection:
        yield connection


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "own.aaxc")


@pytest.fixture
def run(path, monkeypatch):
    """Return a function that transfers from a server, and returns what arrived with what it was asked."""

    def run(*answers, expected=None, on_bytes=lambda *_: None):
        server = Server(*answers)

        async def play():
            async with connected() as connection:
                return await transfer(connection, ADDRESS, path, expected=expected, on_bytes=on_bytes, now=lambda: NOON)

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", server.answer)
        return anyio.run(play), server

    return run


def code_of(run, *answers, **facts):
    with pytest.raises(Aiom4bError) as caught:
        run(*answers, **facts)
    assert "Signature" not in f"{caught.value.reason}{caught.value.remedy}"
    return caught.value.code


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_only_bytes_as_they_are_are_asked_for(run, path):
    _, server = run(whole())
    assert server.asked[0].headers["accept-encoding"] == "identity"
    assert "range" not in server.asked[0].headers
    assert content(path) == BODY


def test_a_rest_that_fits_is_added(run, path):
    assert code_of(run, broken()) == "audible.cut_download"
    done, server = run(rest)
    assert server.asked[0].headers["range"] == "bytes=4000-"
    assert done.resumed_at == 4000
    assert content(path) == BODY


@pytest.mark.parametrize(
    "wrong",
    [
        lambda request: rest(request, etag='"two"'),
        lambda request: rest(request, etag=""),
        lambda request: rest(request, shift=1),
        lambda request: rest(request, shift=-1),
        lambda request: rest(request, total=len(BODY) + 1),
        lambda request: rest(request, body=BODY + b"more"),
        lambda request: rest(request, total="*"),
        lambda request: whole(body=BODY[4000:], status=206),
        lambda request: httpx.Response(416, headers=AAX),
    ],
    ids=[
        "other tag",
        "no tag",
        "later",
        "earlier",
        "not to the end",
        "larger",
        "size unknown",
        "no range told",
        "not satisfiable",
    ],
)
@pytest.mark.parametrize("expected", [None, len(BODY)])
def test_a_rest_that_does_not_fit_is_not_added(run, path, wrong, expected):
    run_into_the_cut(run)
    done, server = run(wrong, whole(), expected=expected)
    assert done.resumed_at == 0
    assert "range" not in server.asked[1].headers
    assert content(path) == BODY


def run_into_the_cut(run, **facts):
    assert code_of(run, broken(**facts)) == "audible.cut_download"


def test_a_server_that_knows_no_ranges_sends_all_again(run, path):
    run_into_the_cut(run)
    done, server = run(whole())
    assert len(server.asked) == 1
    assert done.size == len(BODY)
    assert content(path) == BODY


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_a_file_without_a_strong_tag_is_begun_anew(run, path, etag):
    run_into_the_cut(run, etag=etag)
    _, server = run(whole(etag))
    assert "range" not in server.asked[0].headers
    assert content(path) == BODY


@pytest.mark.parametrize(
    "note", ["", "{}", "[]", '{"v": 2}', "x" * 100_000, '{"v":1,"etag":"","size":10240,"synced":4000,"boot":""}']
)
def test_a_note_that_makes_no_sense_is_not_believed(run, path, note):
    run_into_the_cut(run)
    with open(path + ".resume", "w", encoding="utf-8") as file:
        file.write(note)
    _, server = run(whole())
    assert "range" not in server.asked[0].headers
    assert content(path) == BODY


def test_a_whole_part_of_another_size_than_the_licence_names_is_not_published(run, path):
    run_into_the_cut(run)
    with open(path + ".part", "r+b") as file:
        file.write(BODY)
    done, server = run(whole('"two"', BODY[:5000]), expected=5000)
    assert "range" not in server.asked[0].headers
    assert done.size == 5000
    assert content(path) == BODY[:5000]


def test_a_part_longer_than_its_file_is_begun_anew(run, path):
    run_into_the_cut(run)
    with open(path + ".part", "ab") as file:
        file.write(BODY * 2)
    _, server = run(whole())
    assert "range" not in server.asked[0].headers
    assert content(path) == BODY


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (whole(content_type="text/html"), "audible.not_audio"),
        (whole(content_type="application/octet-stream"), "audible.not_audio"),
        (whole(content_type=""), "audible.not_audio"),
        (httpx.Response(204, headers=AAX), "audible.unreadable"),
        (httpx.Response(410), "audible.address_expired"),
        (httpx.Response(500), "audible.server"),
    ],
)
def test_what_is_no_audio_is_refused(run, answer, code, tmp_path):
    assert code_of(run, answer) == code
    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) == 0


def test_a_part_that_nobody_asked_for_is_refused(run):
    assert code_of(run, whole(status=206, content_range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}")) == "audible.unreadable"


def test_more_than_the_licence_names_is_not_written_on_and_on(run, path):
    answer = httpx.Response(200, headers=AAX | {"transfer-encoding": "chunked"}, stream=Body(BODY))
    assert code_of(run, answer, expected=3000) == "audible.changed_download"
    assert not os.path.exists(path)


def test_a_compressed_answer_can_not_be_counted_and_is_refused(run):
    answer = httpx.Response(200, headers=AAX | {"content-encoding": "gzip"}, stream=Body(b""))
    assert code_of(run, answer) == "audible.not_audio"


def test_a_server_that_falls_silent_is_a_matter_of_the_network(run, path):
    assert code_of(run, broken(error=httpx.ReadTimeout("slow"))) == "audible.network"
    assert os.path.getsize(path + ".part") == 4000


def test_less_than_announced_is_not_published(run, path):
    answer = httpx.Response(200, headers=AAX | {"content-length": str(len(BODY))}, stream=Body(BODY[:10]))
    assert code_of(run, answer) == "audible.cut_download"
    assert not os.path.exists(path)


def test_without_an_announced_size_that_of_the_licence_counts(run, path):
    def answer():
        return httpx.Response(200, headers=AAX | {"transfer-encoding": "chunked"}, stream=Body(BODY))

    assert code_of(run, answer(), expected=len(BODY) + 1) == "audible.cut_download"
    assert run(answer(), expected=len(BODY))[0].size == len(BODY)


def test_a_finished_file_of_another_size_stays_and_is_told(run, path):
    with open(path, "wb") as file:
        file.write(b"own")
    assert code_of(run, expected=4) == "audible.changed_download"
    assert content(path) == b"own"
    assert run(expected=3)[0].size == 3


def test_a_full_disk_keeps_what_fits_and_goes_on_when_there_is_room(run, path, monkeypatch):
    write_all, room = files.write_all, [5000]

    def full(descriptor, data):
        taken = min(len(data), room[0])
        write_all(descriptor, memoryview(data)[:taken])
        room[0] -= taken
        if taken < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(Transient) as caught:
        run(whole())
    assert caught.value.code == "space.full"
    assert not os.path.exists(path)
    monkeypatch.setattr(files, "write_all", write_all)
    done, _ = run(lambda request: rest(request) if "range" in request.headers else whole())
    assert done.size == len(BODY)
    assert content(path) == BODY


def test_the_note_names_neither_address_nor_key(run, path):
    run_into_the_cut(run)
    with open(path + ".resume", encoding="utf-8") as file:
        note = json.load(file)
    assert note.keys() == {"v", "etag", "size", "synced", "boot"}
    assert (note["etag"], note["size"], note["synced"]) == ('"one"', len(BODY), 4000)


def test_a_link_in_the_place_of_the_part_is_not_followed(run, path, tmp_path):
    os.symlink(tmp_path / "elsewhere", path + ".part")
    with pytest.raises(NeedsAttention):
        run(whole())
    assert not (tmp_path / "elsewhere").exists()


def test_progress_is_told_from_what_was_here(run):
    heard = []
    run_into_the_cut(run)
    run(rest, on_bytes=lambda done, total: heard.append((done, total)))
    assert heard[0] == (4000, len(BODY))
    assert heard[-1] == (len(BODY), len(BODY))


def test_who_listens_may_end_the_work(run, path):
    def enough(done, _total):
        if done:
            raise KeyError("enough")

    with pytest.raises(KeyError):
        run(whole(), on_bytes=enough)
    assert run()[0].size == len(BODY)  # all of it had arrived: nobody is asked
    assert content(path) == BODY
