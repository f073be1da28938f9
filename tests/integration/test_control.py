"""What does the service answer over its socket? Every path, asked by a real HTTP client."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from aiom4b.config import InvalidSettings, Problem
from aiom4b.control.service import Health
from aiom4b.jobs.job import EntryState, Status, WatcherHealth
from aiom4b.jobs.job import Problem as JobProblem
from aiom4b.models import Step
from controls import HEALTHY, NOON, entry, played, refusal

LATIN = os.fsdecode(b"caf\xe9")
TORN = JobProblem(code="source.damaged", message=f"{LATIN} is torn.", remedy="Copy it again.")

# --- jobs -------------------------------------------------------------------------------------------------------------


@played()
async def test_a_folder_that_is_submitted_becomes_a_job_that_can_be_looked_at(control):
    os.mkdir(os.path.join(control.source, "Emma"))
    answer = await control.post("convert", {"folders": ["Emma"], "priority": 7, "again": True, "order": "names"})
    assert answer.status_code == 202
    [job] = answer.json()["jobs"]
    assert job["status"] == "queued"
    assert job["folders"] == [os.path.join(control.source, "Emma")]
    assert job["priority"] == 7
    assert job["options"] == {
        "order": "names",
        "merge": False,
        "naming_scheme": None,
        "output": None,
        "again": True,
    }
    shown = await control.get(f"jobs/{job['id']}")
    assert shown.json() == job
    assert shown.json()["created"] == "2026-11-21T12:00:00Z"


@played()
async def test_several_folders_are_several_jobs_unless_they_are_to_be_merged(control):
    places = [os.path.join(control.source, name) for name in ("One", "Two")]
    for place in places:
        os.mkdir(place)
    apart = await control.post("convert", {"folders": ["One", places[1]]})
    assert [job["folders"] for job in apart.json()["jobs"]] == [[place] for place in places]
    one = await control.post("convert", {"folders": ["One", "Two"], "merge": True, "output": "A/B/B.m4b"})
    assert [job["folders"] for job in one.json()["jobs"]] == [places]
    assert one.json()["jobs"][0]["options"]["output"] == "A/B/B.m4b"


@played()
async def test_one_folder_can_be_posted_as_a_job(control):
    os.mkdir(os.path.join(control.source, "Emma"))
    answer = await control.post("jobs", {"folder": "Emma", "naming_scheme": "{author}/{title}/{title}.m4b"})
    [job] = answer.json()["jobs"]
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert job["options"]["naming_scheme"] == "{author}/{title}/{title}.m4b"


@played()
async def test_what_is_not_in_the_source_is_refused(control):
    os.symlink("/etc", os.path.join(control.source, "link"))
    for folder in ("/etc", "../library", "link", "a/../../x"):
        assert refusal(await control.post("convert", {"folders": [folder]})) == (422, "path.outside")
    assert refusal(await control.post("convert", {"folders": ["Nowhere"]})) == (404, "source.missing")
    assert await control.store.counts() == dict.fromkeys(Status, 0)


@played()
async def test_a_request_that_makes_no_sense_is_refused_with_its_reason(control):
    os.mkdir(os.path.join(control.source, "Emma"))
    for body, word in [
        ({"folders": []}, "folders"),
        ({"folders": ["Emma"], "format": "mp3"}, "format"),
        ({"folders": ["Emma"], "colour": "red"}, "colour"),
        ({"folders": ["a\0b"]}, "folders"),
        ({"folders": ["\ud800"]}, "half a character"),
        ({"folders": [{"name_b64": "§"}]}, "folders"),
        ({"folders": "Emma"}, "folders"),
        ({"folders": ["Emma"], "output": "/x/y.m4b"}, "output"),
        ({"folders": ["Emma"], "output": "x/../../y.m4b"}, "output"),
        ({"folders": ["Emma"], "output": "x/y"}, "output"),
        ({"folders": ["Emma", "Persuasion"], "output": "x/y.m4b"}, "merge"),
        ({"folders": ["Emma"], "priority": 10**30}, "priority"),
    ]:
        answer = await control.post("convert", body)
        assert refusal(answer) == (422, "request.invalid"), body
        assert word in answer.json()["detail"]
    scheme = {"folders": ["Emma"], "naming_scheme": "{nonsense}.m4b"}
    assert refusal(await control.post("convert", scheme)) == (422, "config.template")
    unreadable = await control.ask(
        "POST", "convert", content=b'{"folders": [', headers={"content-type": "application/json"}
    )
    assert refusal(unreadable) == (400, "request.invalid")
    assert await control.store.counts() == dict.fromkeys(Status, 0)


@played()
async def test_a_name_that_is_not_utf_8_goes_in_and_out_without_loss(control):
    os.mkdir(os.path.join(control.source, LATIN))
    exact = base64.b64encode(b"caf\xe9").decode()
    for given in (LATIN, {"name_b64": exact}):
        answer = await control.post("jobs", {"folder": given})
        [job] = answer.json()["jobs"]
        assert job["name"] == "caf\\xe9"
        assert job["name_b64"] == exact
        assert [base64.b64decode(one) for one in job["folders_b64"]] == [
            os.path.join(os.fsencode(control.source), b"caf\xe9")
        ]
    plain = await control.add("Emma")
    assert not [key for key in (await control.get(f"jobs/{plain.id}")).json() if key.endswith("_b64")]


@played()
async def test_jobs_are_listed_by_pages_newest_first_and_by_status(control):
    made = [await control.add(f"Book {number}") for number in range(5)]
    await control.store.update(made[1].id, NOON, status=Status.FAILED, error=TORN, ended=NOON)
    page = (await control.get("jobs", params={"limit": 2, "offset": 1})).json()
    assert [job["name"] for job in page["items"]] == ["Book 3", "Book 2"]
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)
    failed = (await control.get("jobs", params={"status": ["failed", "running"], "kind": "convert"})).json()
    assert [job["name"] for job in failed["items"]] == ["Book 1"]
    assert failed["items"][0]["error"] == {
        "code": "source.damaged",
        "message": "caf\\xe9 is torn.",
        "remedy": "Copy it again.",
    }
    for query in ({"status": "lost"}, {"limit": 0}, {"limit": 1001}, {"offset": -1}, {"offset": 2**70}, {"kind": "x"}):
        assert refusal(await control.get("jobs", params=query)) == (422, "request.invalid")


@played()
async def test_a_job_in_progress_shows_its_newest_progress(control):
    job = await control.add(changes={"status": Status.RUNNING, "progress": 10.0, "step": Step.BACKUP})
    control.scheduler.live = lambda found: found if found.id != job.id else _ahead(found)
    assert (await control.get(f"jobs/{job.id}")).json()["progress"] == 55.5
    assert (await control.get("jobs")).json()["items"][0]["step"] == "convert"
    assert (await control.get("status")).json()["current"][0]["progress"] == 55.5


def _ahead(job):
    return replace(job, progress=55.5, step=Step.CONVERT)


@played()
async def test_the_log_of_a_job_is_told_oldest_first(control):
    job = await control.add()
    await control.store.note(job.id, NOON, "job.started", attempt=1)
    await control.store.note(job.id, NOON, "job.failed", reason=LATIN, files=[LATIN])
    log = (await control.get(f"jobs/{job.id}/log")).json()
    assert log["total"] == 2
    assert log["items"] == [
        {"at": "2026-11-21T12:00:00Z", "event": "job.started", "data": {"attempt": 1}},
        {"at": "2026-11-21T12:00:00Z", "event": "job.failed", "data": {"reason": "caf\\xe9", "files": ["caf\\xe9"]}},
    ]


@played()
async def test_a_job_can_be_cancelled_and_tried_again(control):
    job = await control.add()
    assert (await control.post(f"jobs/{job.id}/cancel")).json()["status"] == "cancelled"
    assert refusal(await control.post(f"jobs/{job.id}/cancel")) == (409, "job.conflict")
    again = await control.post(f"jobs/{job.id}/retry")
    assert (again.status_code, again.json()["status"]) == (202, "queued")


@played()
async def test_order_and_priority_of_a_job_can_be_changed(control):
    job = await control.add()
    for body, order in [
        ({"by": "names"}, "names"),
        ({"by": "tags"}, "tags"),
        ({"files": ["b.mp3", LATIN]}, ["b.mp3", "caf\\xe9"]),
        (["a.mp3", "b.mp3"], ["a.mp3", "b.mp3"]),
    ]:
        answer = await control.post(f"jobs/{job.id}/order", body)
        assert answer.json()["options"]["order"] == order
    assert (await control.store.job(job.id)).options.order == ("a.mp3", "b.mp3")
    for body in ({"by": "colour"}, {}, [], {"files": []}, "names"):
        assert refusal(await control.post(f"jobs/{job.id}/order", body)) == (422, "request.invalid")
    assert (await control.post(f"jobs/{job.id}/priority", {"priority": -3})).json()["priority"] == -3
    assert refusal(await control.post(f"jobs/{job.id}/priority", {})) == (422, "request.invalid")


@played()
async def test_only_ended_jobs_leave_the_history(control):
    waiting = await control.add("One")
    for name, status in (("Two", Status.COMPLETED), ("Three", Status.FAILED), ("Four", Status.CANCELLED)):
        await control.add(name, changes={"status": status, "ended": NOON - timedelta(days=1)})
    assert refusal(await control.ask("DELETE", f"jobs/{waiting.id}")) == (409, "job.conflict")
    assert refusal(await control.post("jobs/clear", {"status": ["queued"]})) == (422, "request.invalid")
    assert (await control.post("jobs/clear", {"older_than_days": 2})).json() == {"cleared": 0}
    assert (await control.post("jobs/clear", {"status": ["failed"], "older_than_days": 0.5})).json() == {"cleared": 1}
    assert (await control.post("jobs/clear")).json() == {"cleared": 2}
    done = await control.add("Five", changes={"status": Status.COMPLETED, "ended": NOON})
    deleted = await control.ask("DELETE", f"jobs/{done.id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert [job["name"] for job in (await control.get("jobs")).json()["items"]] == ["One"]


@played()
async def test_a_job_that_does_not_exist_is_not_found_whatever_is_asked_of_it(control):
    for unknown in ("7c2a8b1e-0000-4000-8000-000000000000", "..", "%2e%2e", "%00", "%FF", "x" * 3000):
        for method, rest in [("GET", ""), ("GET", "/log"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]:
            answer = await control.ask(method, f"jobs/{unknown}{rest}")
            if unknown == "..":
                assert answer.status_code in {404, 405}  # the client takes it for a way upwards
            else:
                assert refusal(answer) == (404, "job.missing"), (method, unknown)
    assert refusal(await control.post("jobs/x/order", {"by": "names"})) == (404, "job.missing")
    assert refusal(await control.post("jobs/x/priority", {"priority": 1})) == (404, "job.missing")
    assert refusal(await control.get("download/x")) == (404, "job.missing")


# --- the service itself -----------------------------------------------------------------------------------------------


@played()
async def test_status_tells_what_the_service_is_doing(control):
    await control.add("One", changes={"status": Status.RUNNING})
    await control.add("Two")
    await control.store.put_entry(entry("One", EntryState.SETTLING))
    control.now = NOON + timedelta(seconds=90)
    control.events.publish("service.paused")
    told = (await control.get("status")).json()
    assert told["pid"] == os.getpid()
    assert told["uptime_seconds"] == 3690
    assert told["health"]["status"] == "ok"
    assert told["health"]["watcher"] == {
        "mode": "events",
        "state": "up",
        "reason": None,
        "entries": 2,
        "last_scan": 3.0,
    }
    assert told["paused"] is False
    assert told["jobs"] == dict.fromkeys(map(str, Status), 0) | {"queued": 1, "running": 1}
    assert told["entries"] == dict.fromkeys(map(str, EntryState), 0) | {"settling": 1}
    assert [job["name"] for job in told["current"]] == ["One"]
    assert told["queue_age_seconds"] == 90
    assert (told["workers"], told["worker_crashes"]) == (2, 1)
    assert {disk["place"]: disk["path"] for disk in told["disks"]} == {
        "source": control.source,
        "library": control.library,
        "backup": control.backup,
        "state": control.state,
    }
    assert all(0 < disk["available"] <= disk["size"] for disk in told["disks"])
    assert told["last_event_id"] == control.events.last_id


@played()
async def test_entries_of_the_source_are_listed_with_their_reasons(control):
    await control.store.put_entry(entry("Emma"))
    await control.store.put_entry(entry(LATIN, EntryState.NEEDS_ATTENTION, problem=TORN))
    await control.store.put_entry(entry("Book 10", EntryState.SETTLING))
    await control.store.put_entry(entry("Book 9", EntryState.SETTLING))
    told = (await control.get("folders")).json()
    assert told["total"] == 4
    assert [one["name"] for one in told["items"]] == ["Book 9", "Book 10", "caf\\xe9", "Emma"]
    torn = told["items"][2]
    assert torn["name_b64"] == base64.b64encode(b"caf\xe9").decode()
    assert torn["state"] == "needs_attention"
    assert torn["error"]["message"] == "caf\\xe9 is torn."
    settling = (await control.get("folders", params={"state": "settling", "limit": 1, "offset": 1})).json()
    assert ([one["name"] for one in settling["items"]], settling["total"]) == (["Book 10"], 2)


@played()
async def test_health_is_200_or_503_with_the_reasons(control):
    answer = await control.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    gone = WatcherHealth(mode="poll", state="degraded", reason="The source is not mounted.", entries=0, last_scan=None)
    control.health = Health(
        ok=False, reasons=("The source is not mounted.",), watcher=gone, workers=2, worker_crashes=0
    )
    answer = await control.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "degraded",
        "reasons": ["The source is not mounted."],
        "watcher": {
            "mode": "poll",
            "state": "degraded",
            "reason": "The source is not mounted.",
            "entries": 0,
            "last_scan": None,
        },
    }


@played()
async def test_metrics_are_what_prometheus_reads(control):
    await control.add("One")
    control.now = NOON + timedelta(seconds=30)
    answer = await control.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["aiom4b_jobs", "queued"] == 1
    assert found["aiom4b_jobs", "failed"] == 0
    assert found["aiom4b_queue_age_seconds",] == 30
    assert found["aiom4b_job_seconds_total", "convert"] == 60
    assert found["aiom4b_job_cpu_seconds_total", "convert"] == 110
    assert found["aiom4b_audio_seconds_total",] == 7200
    assert found["aiom4b_audio_seconds_per_second",] == 100
    assert found["aiom4b_read_bytes_total",] == 1000
    assert found["aiom4b_published_bytes_total",] == 400
    assert found["aiom4b_watcher_up",] == 1
    assert found["aiom4b_worker_restarts_total",] == 1
    assert found["aiom4b_event_loop_lag_seconds",] >= 0
    assert {key[1] for key in found if key[0] == "aiom4b_disk_free_bytes"} == {"source", "library", "backup", "state"}
    control.health = Health(
        ok=False,
        reasons=("x.",),
        watcher=WatcherHealth(**_fields(HEALTHY.watcher) | {"state": "degraded"}),
        workers=1,
        worker_crashes=0,
    )
    assert "aiom4b_watcher_up 0.0" in (await control.get("/metrics")).text


def _fields(value):
    return {name: getattr(value, name) for name in value.__slots__}


@played()
async def test_pausing_resuming_and_scanning(control):
    assert (await control.post("pause")).json() == {"paused": True}
    assert await control.store.flag("paused")
    assert (await control.get("status")).json()["paused"] is True
    assert (await control.post("resume")).json() == {"paused": False}
    answer = await control.post("scan")
    assert (answer.status_code, answer.json()) == (202, {"scanning": True})
    assert control.scans == 1


@played()
async def test_reloading_tells_what_changed_and_what_a_wrong_setting_is(control):
    assert (await control.post("reload")).json() == {"changed": ["log.level"], "needs_restart": ["api.port"]}
    control.reloaded = InvalidSettings([Problem(key="log.level", origin="aiom4b.toml", reason="is too loud")])
    assert refusal(await control.post("reload")) == (422, "config.invalid")


@played()
async def test_an_entry_or_a_fingerprint_can_be_forgotten(control):
    await control.store.put_entry(entry("Emma", fingerprints=("a" * 64, "b" * 64)))
    assert (await control.post("forget", {"what": "Emma"})).json() == {"forgotten": 2}
    assert (await control.post("forget", {"what": "c" * 64})).json() == {"forgotten": 1}
    assert [await control.store.forgotten(letter * 64) for letter in "abcd"] == [True, True, True, False]
    assert refusal(await control.post("forget", {"what": "Nobody"})) == (404, "entry.missing")


@played()
async def test_a_path_that_is_not_there_is_a_problem_like_any_other(control):
    for path in ("/", "/api/v1/nothing", "/api/v2/jobs", "/docs/assets/../../x", "/api/v1/jobs/"):
        assert refusal(await control.get(path)) == (404, "request.unknown_path")
    answer = await control.ask("DELETE", "status")
    assert refusal(answer) == (405, "request.method")
    assert answer.headers["allow"] == "GET"


@played()
async def test_a_failure_that_nobody_thought_of_is_a_problem_too_and_the_service_lives_on(control):
    async def broken():
        raise ZeroDivisionError("a secret of ours")

    counts, control.store.counts = control.store.counts, broken
    answer = await control.get("status")
    assert refusal(answer) == (500, "internal")
    assert "secret" not in answer.text
    control.store.counts = counts
    assert (await control.get("status")).status_code == 200


# --- the description --------------------------------------------------------------------------------------------------


@played()
async def test_the_description_is_complete(control):
    document = (await control.get("/openapi.json")).json()
    asked = {(method, path) for path, methods in document["paths"].items() for method in methods}
    api = {path.removeprefix("/api/v1/") for _, path in asked if path.startswith("/api/v1/")}
    assert api == {
        "status", "folders", "convert", "jobs", "jobs/{id}", "jobs/{id}/log", "jobs/{id}/cancel", "jobs/{id}/retry",
        "jobs/{id}/order", "jobs/{id}/priority", "jobs/clear", "download/{job_id}", "stream/{file_id}", "events",
        "pause", "resume", "scan", "reload", "forget", "ticket", "backups", "backups/{id}/verify", "backups/{id}/restore",
        "library", "library/{asin}", "library/sync", "jobs/download", "jobs/convert", "accounts", "accounts/{profile}",
        "accounts/{profile}/sign-in", "accounts/{profile}/sign-in/finish", "accounts/{profile}/import",
    }  # fmt: skip
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert len(operation.get("description", "")) > 10, where
            problems = {status for status in operation["responses"] if not status.startswith("2") and status != "503"}
            assert "default" in problems, where
            for status in problems:
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"], where
            for status, response in operation["responses"].items():
                if status in {"200", "202"} and "application/json" in response.get("content", {}):
                    assert "$ref" in response["content"]["application/json"]["schema"], where
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or "enum" in schema, name


@played()
async def test_the_documentation_loads_nothing_from_the_internet(control):
    page = (await control.get("/docs")).text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert len(loaded) >= 3
    assert all(address.startswith("/docs/assets/") for address in loaded)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for address in loaded:
        assert len((await control.get(address)).content) > 100
    assert "'/openapi.json'" in page or '"/openapi.json"' in page
