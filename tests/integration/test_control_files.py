"""Do books and backups come through the interface whole, and nothing else with them?"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import factories
from aiom4b.adapters import backups, records
from aiom4b.adapters.backup_format import BackupSet, StoredFile, stored_path
from aiom4b.adapters.records import Record
from aiom4b.book import plan as planning
from aiom4b.book.plan import Wishes
from aiom4b.jobs.job import Status
from aiom4b.models import BackupReceipt, BookId, Fingerprint, Proof, Sha256, SoundCheck
from controls import NOON, played, refusal, serving

# --- books ------------------------------------------------------------------------------------------------------------

BOOK = bytes(range(256)) * 1000


def published(control, name="Emma.m4b", content=BOOK):
    path = os.path.join(control.library, "Jane Austen", "Emma", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content)
    return path


async def completed(control, path):
    return await control.add(
        changes={"status": Status.COMPLETED, "output": path, "ended": NOON, "book": BookId("a" * 16)}
    )


@played()
async def test_a_finished_book_is_downloaded_whole_or_in_ranges(control):
    job = await completed(control, published(control))
    whole = await control.get(f"download/{job.id}")
    assert (whole.status_code, whole.content) == (200, BOOK)
    assert whole.headers["content-type"] == "audio/mp4"
    assert whole.headers["content-disposition"] == 'attachment; filename="Emma.m4b"'
    assert whole.headers["accept-ranges"] == "bytes"
    for given, begin, end in [("bytes=0-99", 0, 100), ("bytes=1000-", 1000, None), ("bytes=-5", len(BOOK) - 5, None)]:
        part = await control.get(f"download/{job.id}", headers={"Range": given})
        assert (part.status_code, part.content) == (206, BOOK[begin:end])
        stop = (end or len(BOOK)) - 1
        assert part.headers["content-range"] == f"bytes {begin}-{stop}/{len(BOOK)}"
    several = await control.get(f"download/{job.id}", headers={"Range": "bytes=0-1,10-11"})
    assert several.headers["content-type"].startswith("multipart/byteranges")
    beyond = await control.get(f"download/{job.id}", headers={"Range": f"bytes={len(BOOK)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(BOOK)}")
    tag = whole.headers["etag"]
    same = await control.get(f"download/{job.id}", headers={"Range": "bytes=0-9", "If-Range": tag})
    other = await control.get(f"download/{job.id}", headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (same.status_code, other.status_code) == (206, 200)
    head = await control.ask("HEAD", f"download/{job.id}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(BOOK)), b"")


@played()
async def test_a_name_beyond_ascii_is_downloaded_under_that_name(control):
    job = await completed(control, published(control, os.fsdecode(b"caf\xe9 \xc3\xa9.m4b")))
    answer = await control.get(f"download/{job.id}")
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''caf%5Cxe9%20%C3%A9.m4b"


@played()
async def test_nothing_outside_the_library_is_given_out(control):
    secret = os.path.join(control.state, "secret.m4b")
    Path(secret).write_bytes(b"secret")
    link = os.path.join(control.library, "link.m4b")
    os.symlink(secret, link)
    for path in (secret, link, os.path.join(control.library, "..", "state", "secret.m4b"), control.library + "2/x.m4b"):
        job = await completed(control, path)
        assert refusal(await control.get(f"download/{job.id}")) == (403, "path.outside")
    pipe = os.path.join(control.library, "pipe.m4b")
    os.mkfifo(pipe)
    for path in (pipe, os.path.join(control.library, "gone.m4b"), control.library + "/Folder"):
        os.makedirs(control.library + "/Folder", exist_ok=True)
        job = await completed(control, path)
        assert refusal(await control.get(f"download/{job.id}")) == (404, "book.missing")
    unfinished = await control.add("Persuasion")
    assert refusal(await control.get(f"download/{unfinished.id}")) == (409, "job.no_output")


@pytest.mark.parametrize("id", ["..", "%2e%2e%2fx", "a" * 15, "A" * 16, "0" * 16, "x" * 16])
def test_an_id_that_is_no_books_streams_nothing(id, tmp_path):
    @played()
    async def scene(control):
        assert (await control.get(f"stream/{id}")).status_code == 404

    scene(tmp_path)


@played()
async def test_a_published_book_is_streamed_by_its_id(control):
    path = published(control)
    id = recorded(control, path)
    part = await control.get(f"stream/{id}", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, BOOK[100:200])
    assert part.headers["content-disposition"].startswith("inline")
    assert (await control.ask("HEAD", f"stream/{id}")).headers["content-length"] == str(len(BOOK))
    os.unlink(path)
    assert refusal(await control.get(f"stream/{id}")) == (404, "book.missing")


@played()
async def test_a_record_that_leads_out_of_the_library_streams_nothing(control):
    secret = os.path.join(control.state, "secret.m4b")
    Path(secret).write_bytes(b"secret")
    for path in (secret, os.path.join(control.library, "..", "state", "secret.m4b")):
        id = recorded(control, path)
        assert refusal(await control.get(f"stream/{id}")) == (403, "path.outside")


def recorded(control, path):
    """Record a book as published at ``path``, and return its id."""
    source = factories.source("01.mp3", name="Emma")
    made = planning.plan(source, Wishes())
    check = SoundCheck(seconds=1, quiet=0, beyond=0, snr_min=30.0, snr_median=31.0, worst=0.0)
    proof = Proof(
        against="source", packets=1, samples=1, chapters=1, tags=1, sha256=Sha256("0" * 64), sound=check, joins=check
    )
    record = Record(
        id=made.id,
        fingerprint=source.fingerprint,
        book=os.path.relpath(path, control.library) if "/../" in path else path.removeprefix(control.library + "/"),
        sha256=Sha256("0" * 64),
        size=len(BOOK),
        bit_rate=64_000,
        published=NOON.isoformat(),
        tool="test",
        source=source.root,
        files=(),
        backup=BackupReceipt(root="", copied=False, files=()),
        plan=made,
        pieces=(),
        proof=proof,
        warnings=(),
    )
    records.write(control.library, record)
    return record.id


# --- backups ----------------------------------------------------------------------------------------------------------

CONTENTS = {"CD1/01.mp3": b"first", "02.mp3": b"second", os.fsdecode(b"\xff.jpg"): b"cover"}


def backed_up(control, name="Emma", *, source=None, created=NOON):
    """Make a set as the step does, without the copying."""
    source = os.path.join(control.source, name) if source is None else source
    staged = backups.staging(control.backup, source, name)
    stored = []
    for path, data in CONTENTS.items():
        place = Path(staged, stored_path(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        stored.append(StoredFile(path=path, size=len(data), sha256=sha256, mtime_ns=10**18))
    made = BackupSet(
        root=staged,
        source=source,
        fingerprint=Fingerprint("f" * 64),
        created=created,
        tool="test",
        files=tuple(stored),
    )
    return backups.complete(staged, made, control.backup, name)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


@played()
async def test_backups_are_listed_oldest_first(control):
    newer = backed_up(control)
    older = backed_up(control, os.fsdecode(b"caf\xe9 #1"), created=NOON - timedelta(days=1))
    told = (await control.get("backups")).json()
    assert told["total"] == 2
    assert [one["path"] for one in told["items"]] == [older.root.replace("\udce9", "\\xe9"), newer.root]
    assert told["items"][1] == {
        "id": "Emma_20261121_120000",
        "path": newer.root,
        "source": os.path.join(control.source, "Emma"),
        "created": "2026-11-21T12:00:00Z",
        "fingerprint": "f" * 64,
        "files": 3,
        "bytes": 16,
    }
    assert base64.b64decode(told["items"][0]["path_b64"]) == os.fsencode(older.root)
    second = (await control.get("backups", params={"limit": 1, "offset": 1})).json()
    assert [one["path"] for one in second["items"]] == [newer.root]
    os.rename(control.backup, control.backup + "-gone")
    assert (await control.get("backups")).json()["total"] == 0


@played()
async def test_a_backup_is_verified_file_by_file(control):
    made = backed_up(control)
    id = os.path.basename(made.root)
    assert (await control.post(f"backups/{id}/verify")).json() == {"id": id, "ok": True, "findings": []}
    Path(made.root, "02.mp3").write_bytes(b"rotten")
    Path(made.root, os.fsdecode(b"\xff.jpg")).unlink()
    told = (await control.post(f"backups/{id}/verify")).json()
    assert told["ok"] is False
    assert [finding.partition(":")[0] for finding in told["findings"]] == ["Changed", "Missing"]
    assert refusal(await control.post(f"backups/{id}/restore")) == (422, "backup.damaged")
    assert os.listdir(control.source) == []


@played()
async def test_a_backup_is_restored_where_it_came_from_and_again_without_harm(control):
    id = os.path.basename(backed_up(control).root)
    for _ in range(2):
        answer = await control.post(f"backups/{id}/restore")
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == 3
        assert contents(os.path.join(control.source, "Emma")) == CONTENTS
    [odd] = [one for one in answer.json()["files"] if "name_b64" in one]
    assert base64.b64decode(odd["name_b64"]).endswith(b"/Emma/\xff.jpg")
    Path(control.source, "Emma", "02.mp3").write_bytes(b"somebody's own")
    assert refusal(await control.post(f"backups/{id}/restore")) == (409, "restore.exists")
    assert Path(control.source, "Emma", "02.mp3").read_bytes() == b"somebody's own"


@played()
async def test_a_backup_is_restored_into_the_source_only(control):
    id = os.path.basename(backed_up(control, source="/elsewhere/Emma").root)
    os.symlink(control.library, os.path.join(control.source, "link"))
    assert refusal(await control.post(f"backups/{id}/restore")) == (422, "path.outside")
    for target in ("../library", control.library, "link", "link/below", "/", control.source + "2"):
        assert refusal(await control.post(f"backups/{id}/restore", {"target": target})) == (422, "path.outside")
    assert os.listdir(control.library) == []
    inside = os.path.join(control.source, "New", "Place")
    for target in ("New/Place", inside):
        answer = await control.post(f"backups/{id}/restore", {"target": target})
        assert answer.status_code == 200, answer.text
    assert contents(inside) == CONTENTS


@played()
async def test_a_backup_is_found_by_its_name_and_nothing_else_by_any(control):
    odd = backed_up(control, os.fsdecode(b"caf\xe9 #1?"))
    shown = (await control.get("backups")).json()["items"][0]["id"]
    assert shown == "caf\\xe9 #1?_20261121_120000"
    answer = await control.post(f"backups/{shown.replace('#', '%23').replace('?', '%3F')}/verify")
    assert answer.json()["ok"] is True
    os.mkdir(os.path.join(control.backup, "lost+found"))
    for id in ("%2e%2e", "%2e", ".aiom4b", "nothing", "..%2flibrary", "lost+found"):
        for what in ("verify", "restore"):
            answer = await control.post(f"backups/{id}/{what}")
            status, code = refusal(answer)
            assert code in {"backup.none", "request.unknown_path"}, id
            assert status == (422 if id == "lost+found" else 404)
    assert os.path.isdir(odd.root)


@pytest.mark.parametrize("what", ["verify", "restore"])
def test_work_on_a_backup_does_not_hold_up_the_end(what, tmp_path, monkeypatch):
    begun, stopped = threading.Event(), threading.Event()
    real = backups.damage

    def slow(made, *, on_bytes):
        begun.set()
        assert stopped.wait(30)
        return real(made, on_bytes=on_bytes)

    monkeypatch.setattr(backups, "damage", slow)

    async def run():
        async with serving(tmp_path) as control, anyio.create_task_group() as group:
            id = os.path.basename(backed_up(control).root)

            async def ask():
                assert refusal(await control.post(f"backups/{id}/{what}")) == (503, "service.stopping")

            group.start_soon(ask)
            await anyio.to_thread.run_sync(begun.wait, 30)
            control.server.stop()
            stopped.set()

    anyio.run(run)
    assert os.listdir(tmp_path / "source") == []
