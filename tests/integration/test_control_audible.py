"""What does the service answer about Audible? Every path, asked by a real HTTP client, with accounts that only note it."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from aiom4b import redaction
from aiom4b.control import guard
from aiom4b.errors import Exit, NeedsAttention, Transient
from aiom4b.jobs.job import JobOptions, Kind, Status
from aiom4b.jobs.job import Problem as JobProblem
from aiom4b.jobs.title import Cause, Pause, SyncState
from aiom4b.models import SeriesEntry
from controls import KEY, NOON, account, over_tcp, played, refusal, serving, title_facts

LATIN = os.fsdecode(b"caf\xe9")
DENIED = JobProblem(code="audible.licence_denied", message=f"No {LATIN}.", remedy="Look at the title's page.")
SECRET = "canary-canary-canary"


async def known(control, *facts, profile="main", at=NOON):
    """Put titles into the library."""
    state = SyncState(last_sync=at, last_full_sync=at)
    await control.store.put_titles(profile, facts, at, whole=False, state=state)


async def listed(control, **query):
    answer = await control.get("library", params=query)
    assert answer.status_code == 200, answer.text
    return [title["asin"] for title in answer.json()["items"]]


# --- the library --------------------------------------------------------------------------------------------------------


@played()
async def test_a_title_is_told_as_it_stands(control):
    series = (SeriesEntry(name="Novels", part="4"),)
    await known(control, title_facts(metadata={"series": series, "description": "A\nB", "genres": ("Classics",)}))
    answer = await control.get("library")
    assert (answer.json()["total"], answer.json()["limit"], answer.json()["offset"]) == (1, 100, 0)
    [title] = answer.json()["items"]
    assert title == {
        "asin": "B07EXAMPLE",
        "profile": "main",
        "status": "new",
        "reason": None,
        "title": "Emma",
        "subtitle": "",
        "authors": ["Jane Austen"],
        "narrators": ["A Reader"],
        "series": [{"name": "Novels", "part": "4"}],
        "publisher": "",
        "language": "",
        "year": "",
        "runtime_minutes": 547,
        "cover": "https://images.example/1215.jpg",
        "purchased": "2026-11-12T12:00:00Z",
        "released": "2026-08-14T12:00:00Z",
        "files": None,
        "book": None,
        "job": None,
        "first_seen": "2026-11-21T12:00:00Z",
        "changed": "2026-11-21T12:00:00Z",
    }
    whole = (await control.get("library/B07EXAMPLE")).json()
    more = {"description": "A\nB", "genres": ["Classics"], "isbn": "", "copyright": ""}
    assert whole == title | more | {"item": {"asin": "B07EXAMPLE", "title": "Emma"}}


@played()
async def test_a_title_that_nobody_has_is_not_found(control):
    await known(control, title_facts(), profile="other")
    for path in ("B000000000", "%00", "..", "B07EXAMPLE/", "B07EXAMPLE?profile=main", "caf%e9"):
        assert (await control.get(f"library/{path}")).status_code == 404, path
    assert refusal(await control.get("library/B000000000")) == (404, "title.missing")
    assert (await control.get("library/B07EXAMPLE?profile=other")).status_code == 200


@played()
async def test_titles_are_listed_by_pages_and_by_all_that_can_be_asked(control):
    for number in range(5):
        facts = title_facts(
            f"B00000000{number}", metadata={"title": f"Book {number}"}, purchased=NOON - timedelta(days=number)
        )
        await known(control, facts, at=NOON + timedelta(hours=number))
    await known(control, title_facts("B0OTHER000", purchased=None, unavailable=DENIED), profile="uk_2")
    page = (await control.get("library", params={"limit": 2, "offset": 1})).json()
    assert [title["asin"] for title in page["items"]] == ["B000000001", "B000000002"]
    assert (page["total"], page["limit"], page["offset"]) == (6, 2, 1)
    assert await listed(control, search="book 3") == ["B000000003"]
    assert await listed(control, search="b000000004") == ["B000000004"]
    assert await listed(control, search="%' OR 1=1 --") == []
    assert await listed(control, profile="uk_2") == ["B0OTHER000"]
    assert await listed(control, status="unavailable") == ["B0OTHER000"]
    assert await listed(control, status="completed") == []
    [gone] = (await control.get("library", params={"profile": "uk_2"})).json()["items"]
    assert gone["reason"] == {
        "code": "audible.licence_denied", "message": "No caf\\xe9.", "remedy": "Look at the title's page."
    }  # fmt: skip


@played()
async def test_only_what_changed_since_a_time_in_any_zone(control):
    await known(control, title_facts("B000000001"))
    await known(control, title_facts("B000000002"), at=NOON + timedelta(hours=2))
    for since in ("2026-11-21T13:00:00Z", "2026-11-21T13:00:00.000+00:00", "2026-11-21T18:30:00+05:30"):
        assert await listed(control, since=since) == ["B000000002"], since
    assert await listed(control, since="2026-11-21T14:30:00Z") == []
    for wrong in (
        "2026-11-21T13:00:00",
        "2026-11-21T13:00:00 02:00",  # a plus that nobody has escaped
        "yesterday",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "",
    ):
        assert refusal(await control.get("library", params={"since": wrong})) == (422, "request.invalid"), wrong


@played()
async def test_a_question_that_makes_no_sense_is_refused(control):
    for query in (
        {"limit": 0},
        {"limit": 1001},
        {"limit": 10**30},
        {"offset": -1},
        {"offset": 2**70},
        {"status": "lost"},
        {"profile": "../main"},
        {"profile": "a\n"},
        {"profile": ""},
        {"search": "x" * 201},
    ):
        assert refusal(await control.get("library", params=query)) == (422, "request.invalid"), query
    assert await listed(control, search="\0") == []
    assert (await control.get("/api/v1/library?search=%ff%ed%a0%80")).status_code == 200


@played()
async def test_what_strangers_wrote_into_a_title_stays_text(control):
    html = "<script>alert(1)</script>\x1b[2J\u202e\ud800"
    facts = title_facts(
        metadata={"title": html, "authors": (LATIN,), "description": "<b>" + LATIN},
        cover="javascript:\udce9",
        item={"title": html, LATIN: [float("nan"), {"a": LATIN}]},
    )
    await known(control, title_facts())
    stored = replace(await control.store.title("B07EXAMPLE"), facts=facts)

    async def title(*_):
        return stored

    async def titles(**_):
        return [stored], 1

    control.store.title, control.store.titles = title, titles
    answer = await control.get("library/B07EXAMPLE")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told["title"] == r"<script>alert(1)</script>\x1b[2J\u202e\ud800"
    assert told["authors"] == ["caf\\xe9"]
    assert told["description"] == "<b>caf\\xe9"
    assert told["item"] == {"title": told["title"], "caf\\xe9": [None, {"a": "caf\\xe9"}]}
    assert (await control.get("library")).json()["items"][0]["cover"] == "javascript:\\xe9"


@played()
async def test_names_of_files_are_told_exactly(control):
    await known(control, title_facts())
    await control.store.title_downloaded("B07EXAMPLE", f"/library/{LATIN}/B07EXAMPLE")
    title = (await control.get("library/B07EXAMPLE")).json()
    assert (title["status"], title["files"]) == ("downloaded", "/library/caf\\xe9/B07EXAMPLE")
    assert base64.b64decode(title["files_b64"]) == b"/library/caf\xe9/B07EXAMPLE"
    assert "book_b64" not in title


@played()
async def test_the_item_of_a_title_shows_no_secret_even_if_there_should_be_one(control):
    item = {"asin": "B07EXAMPLE", "access_token": SECRET, "x": [{"adp_token": SECRET}, f"Atna|{SECRET}"]}
    await known(control, title_facts(item=item))
    for path in ("library/B07EXAMPLE", "library"):
        answer = await control.get(path)
        assert answer.status_code == 200
        assert SECRET not in answer.text


@played()
async def test_a_sync_is_begun_at_once(control):
    control.account.statuses = (account("main"), account("uk", country="uk"))
    for body, profiles, full in [
        (None, ["main", "uk"], False),
        ({"full": True}, ["main", "uk"], True),
        ({"profile": "uk"}, ["uk"], False),
    ]:
        answer = await control.post("library/sync", body)
        assert (answer.status_code, answer.json()) == (202, {"profiles": profiles, "full": full})
    assert control.account.asked == [("sync", None, False), ("sync", None, True), ("sync", "uk", False)]


@played()
async def test_there_is_no_sync_without_an_account(control):
    assert refusal(await control.post("library/sync")) == (404, "audible.no_account")
    control.account.statuses = (account("new", pending=True, device=""),)  # nobody yet
    assert refusal(await control.post("library/sync")) == (404, "audible.no_account")
    control.account.statuses = (account("main", pending=True), *control.account.statuses)
    assert (await control.post("library/sync")).json()["profiles"] == ["main"]
    control.account.asked.clear()
    assert refusal(await control.post("library/sync", {"profile": "uk"})) == (404, "profile.missing")
    for body in ({"profile": "../main"}, {"profile": ""}, {"full": "perhaps"}, {"quick": True}, []):
        assert refusal(await control.post("library/sync", body)) == (422, "request.invalid"), body
    assert control.account.asked == []


# --- jobs -------------------------------------------------------------------------------------------------------------


@played()
async def test_titles_are_downloaded_one_several_or_all_new_ones(control):
    job = await control.add("Emma", kind=Kind.DOWNLOAD, asin="B07EXAMPLE", entry=None)
    control.account.jobs = (job,)
    for body, asins in [
        ({"asin": "B07EXAMPLE"}, ["B07EXAMPLE"]),
        ({"asins": ["B07EXAMPLE", "B000000001", "B07EXAMPLE"]}, ["B07EXAMPLE", "B000000001"]),
        ({"new": True}, None),
    ]:
        answer = await control.post("jobs/download", body)
        assert answer.status_code == 202
        [told] = answer.json()["jobs"]
        assert (told["kind"], told["asin"], told["name"]) == ("download", "B07EXAMPLE", "Emma")
        assert control.account.asked.pop() == ("download", asins)
    assert (await control.get(f"jobs/{job.id}")).json()["asin"] == "B07EXAMPLE"
    assert [job["asin"] for job in (await control.get("jobs?kind=download")).json()["items"]] == ["B07EXAMPLE"]
    control.account.jobs = ()
    assert (await control.post("jobs/download", {"new": True})).json() == {"jobs": []}


@played()
async def test_a_job_without_a_title_has_no_asin(control):
    job = await control.add("Emma")
    assert (await control.get(f"jobs/{job.id}")).json()["asin"] is None


@played()
async def test_a_download_of_nothing_in_particular_is_refused(control):
    for body in (
        {},
        {"asins": []},
        {"asin": "B07EXAMPLE", "new": True},
        {"asin": "B07EXAMPLE", "asins": ["B000000001"]},
        {"new": False},
        {"asin": "b07example"},
        {"asin": "B07EXAMPLE\n"},
        {"asin": "../../etc/"},
        {"asin": "B07EXAMPL\ud800"},
        {"asins": ["B07EXAMPLE"] * 1001},
        {"asin": "B07EXAMPLE", "quality": "high"},
        [],
    ):
        assert refusal(await control.post("jobs/download", body)) == (422, "request.invalid"), body
    assert control.account.asked == []


@played()
async def test_the_book_of_a_title_is_made(control):
    job = await control.add("Emma", asin="B07EXAMPLE", entry=None)
    control.account.jobs = (job,)
    body = {"asin": "B07EXAMPLE", "format": "m4b", "naming_scheme": "{author}/{title}/{title}.m4b", "priority": 3}
    answer = await control.post("jobs/convert", body)
    assert (answer.status_code, [told["id"] for told in answer.json()["jobs"]]) == (202, [job.id])
    options = JobOptions(naming_scheme="{author}/{title}/{title}.m4b")
    assert control.account.asked == [("convert", "B07EXAMPLE", options, 3)]
    for wrong, code in [
        ({"asin": "B07EXAMPLE", "format": "mp3"}, "request.invalid"),
        ({"asin": "B07EXAMPLE", "naming_scheme": "{nonsense}.m4b"}, "config.template"),
        ({"asin": "B07EXAMPLE", "naming_scheme": "x" * 1001}, "request.invalid"),
        ({"format": "m4b"}, "request.invalid"),
    ]:
        assert refusal(await control.post("jobs/convert", wrong)) == (422, code), wrong
    assert len(control.account.asked) == 1


@played()
async def test_what_an_account_refuses_is_a_problem_with_its_own_code(control):
    for error, status in [
        (NeedsAttention("title.missing", "No such title.", remedy="Sync.", exit=Exit.NOT_FOUND), 404),
        (NeedsAttention("audible.unauthorized", f"No {LATIN}.", remedy="Sign in."), 422),
        (NeedsAttention("title.here", "There is one.", remedy="Nothing."), 409),
        (Transient("audible.rate", "Too much.", remedy="Wait.", later=timedelta(minutes=5)), 503),
    ]:
        control.account.jobs = control.account.signed_in = control.account.address = control.account.left = error
        for method, path, body in [
            ("POST", "jobs/download", {"new": True}),
            ("POST", "jobs/convert", {"asin": "B07EXAMPLE"}),
            ("POST", "accounts/main/sign-in", {"country": "de"}),
            ("POST", "accounts/main/sign-in/finish", {"address": "x"}),
            ("POST", "accounts/main/import", {"document": "{}"}),
            ("DELETE", "accounts/main", None),
        ]:
            answer = await control.ask(method, path, **({} if body is None else {"json": body}))
            assert refusal(answer) == (status, error.code), path


# --- accounts -----------------------------------------------------------------------------------------------------------


@played()
async def test_accounts_are_told_with_what_is_throttled(control):
    assert (await control.get("accounts")).json() == {"items": [], "total": 0}
    pause = Pause(cause=Cause.THROTTLED, until=NOON + timedelta(hours=18), failures=2, problem=DENIED)
    waiting = account("uk", pending=True, country="", device="", registered=None, token_expires=None, last_sync=None)
    control.account.statuses = (account(pauses=(pause,), owner=LATIN, problem=DENIED), waiting)
    told = (await control.get("accounts")).json()
    assert told["total"] == 2
    problem = {"code": "audible.licence_denied", "message": "No caf\\xe9.", "remedy": "Look at the title's page."}
    assert told["items"][0] == {
        "profile": "main",
        "pending": False,
        "country": "de",
        "owner": "caf\\xe9",
        "device": "Jane's Audible for iPhone",
        "registered": "2026-11-01T12:00:00Z",
        "token_expires": "2026-11-21T12:40:00Z",
        "encrypted": True,
        "titles": 412,
        "last_sync": "2026-11-21T11:55:00Z",
        "last_full_sync": "2026-11-19T12:00:00Z",
        "licences_today": 3,
        "licences_allowed": 50,
        "pauses": [{"cause": "throttled", "until": "2026-11-22T06:00:00Z", "failures": 2, "error": problem}],
        "error": problem,
    }
    assert (told["items"][1]["pending"], told["items"][1]["registered"]) == (True, None)


@played()
async def test_a_sign_in_takes_two_steps(control):
    answer = await control.post("accounts/main/sign-in", {"country": "de"})
    assert (answer.status_code, answer.json()) == (200, {"address": control.account.address})
    await control.post("accounts/old_uk-2/sign-in", {"country": "uk", "with_username": True})
    pasted = "https://www.amazon.de/ap/maplanding?openid.oa2.authorization_code=ANcode"
    answer = await control.post("accounts/main/sign-in/finish", {"address": pasted})
    assert (answer.status_code, answer.json()["owner"]) == (200, "Jane")
    assert control.account.asked == [
        ("begin", "main", "de", False),
        ("begin", "old_uk-2", "uk", True),
        ("finish", "main", pasted),
    ]


@played()
async def test_the_file_of_another_program_is_taken_over_as_text_or_bytes(control):
    for body, expected in [
        ({"document": '{"a": "é"}'}, ('{"a": "é"}'.encode(), None, None)),
        (
            {"document_b64": base64.b64encode(b"$\xff\x00").decode(), "password": SECRET, "country": "uk"},
            (b"$\xff\x00", SECRET, "uk"),
        ),
    ]:
        answer = await control.post("accounts/main/import", body)
        assert (answer.status_code, answer.json()["profile"]) == (200, "main")
        assert SECRET not in answer.text
        assert control.account.asked.pop() == ("import", "main", *expected)


@played()
async def test_a_request_about_an_account_that_makes_no_sense_is_refused_without_repeating_it(control):
    for path, body in [
        ("sign-in", {"country": "Germany" + SECRET}),
        ("sign-in", {"country": "DE"}),
        ("sign-in", {}),
        ("sign-in", {"country": "de", "with_username": SECRET}),
        ("sign-in/finish", {"address": ""}),
        ("sign-in/finish", {"address": [SECRET]}),
        ("sign-in/finish", {"address": SECRET * 1000}),
        ("sign-in/finish", {"address": SECRET + "\ud800"}),
        ("import", {}),
        ("import", {"document": SECRET, "document_b64": SECRET}),
        ("import", {"document": {"access_token": SECRET}}),
        ("import", {"document_b64": SECRET + "é"}),
        ("import", {"document_b64": "§"}),
        ("import", {"document_b64": 7}),
        ("import", {"document": SECRET + "\ud800"}),
        ("import", {"document": "{}", "password": SECRET + "\udce9"}),
        ("import", {"document": "{}", "password": [SECRET]}),
        ("import", {"document": "{}", "country": "xx" + SECRET}),
    ]:
        answer = await control.post(f"accounts/main/{path}", body)
        assert refusal(answer) == (422, "request.invalid"), body
        assert SECRET not in answer.text
    for profile in ("a b", "..%2fmain", "%00", "x" * 65, "caf%e9", "%0a", "main%0a"):
        answer = await control.post(f"accounts/{profile}/sign-in", {"country": "de"})
        assert answer.status_code in {404, 422}, profile
        assert (await control.ask("DELETE", f"accounts/{profile}")).status_code in {404, 422}, profile
    assert control.account.asked == []


@played()
async def test_a_file_that_can_be_none_is_not_even_taken_in(control):
    answer = await control.post("accounts/main/import", {"document": SECRET + "x" * guard.MOST_BYTES})
    assert refusal(answer) == (413, "request.too_large")
    assert SECRET not in answer.text
    torn = await control.ask("POST", "accounts/main/import", content=b'{"document": "' + SECRET.encode())
    assert refusal(torn)[0] in {400, 422}
    assert SECRET not in torn.text
    assert control.account.asked == []


@played()
async def test_signing_out_answers_with_nothing(control):
    answer = await control.ask("DELETE", "accounts/main")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await control.ask("DELETE", "accounts/main?forced=true")).status_code == 204
    assert control.account.asked == [("leave", "main", False), ("leave", "main", True)]
    assert refusal(await control.ask("DELETE", "accounts/main?forced=perhaps")) == (422, "request.invalid")


def test_who_signs_in_or_out_is_on_record_but_not_with_what(tmp_path):
    async def run():
        async with serving(tmp_path) as control:
            with structlog.testing.capture_logs() as logs:
                await control.post("accounts/main/sign-in/finish", {"address": SECRET})
                await control.post("accounts/main/import", {"document": SECRET, "password": SECRET})
                await control.ask("DELETE", "accounts/main")
                control.account.signed_in = ZeroDivisionError(SECRET)
                await control.post("accounts/main/sign-in/finish", {"address": SECRET})
        return logs

    logs = anyio.run(run)
    asked = [log for log in logs if log["event"] == "control.request"]
    assert [(log["method"], log["path"]) for log in asked][:3] == [
        ("POST", "/api/v1/accounts/main/sign-in/finish"),
        ("POST", "/api/v1/accounts/main/import"),
        ("DELETE", "/api/v1/accounts/main"),
    ]
    assert all((log["uid"], log["pid"]) == (os.getuid(), os.getpid()) for log in asked)
    assert SECRET not in json.dumps(asked)


def test_on_tcp_accounts_and_library_need_the_key(tmp_path):
    async def run():
        async with over_tcp(tmp_path) as (control, client):
            for method, path in [
                ("GET", "library"),
                ("GET", "accounts"),
                ("POST", "accounts/main/sign-in"),
                ("POST", "accounts/main/import"),
                ("DELETE", "accounts/main"),
            ]:
                answer = await client.request(method, f"/api/v1/{path}")
                assert refusal(answer) == (401, "request.unauthorized"), path
            assert control.account.asked == []
            headers = {"X-API-Key": KEY}
            assert (await client.delete("/api/v1/accounts/main", headers=headers)).status_code == 204

    anyio.run(run)


# --- numbers ----------------------------------------------------------------------------------------------------------


@played()
async def test_titles_and_licences_are_counted_for_prometheus(control):
    await known(control, title_facts("B000000001"), title_facts("B000000002", unavailable=DENIED))
    await control.add("Emma", kind=Kind.DOWNLOAD, asin="B000000001", entry=None, changes={"status": Status.RUNNING})
    await control.store.note_licence("main", "B000000001", NOON - timedelta(hours=25), "granted")
    await control.store.note_licence("main", "B000000001", NOON - timedelta(hours=23), "granted")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families((await control.get("/metrics")).text)
        for sample in family.samples
    }
    assert found["aiom4b_titles", "downloading"] == 1
    assert found["aiom4b_titles", "unavailable"] == 1
    assert found["aiom4b_titles", "new"] == 0
    assert found["aiom4b_audible_licences_per_day",] == 1


@pytest.fixture(autouse=True)
def nothing_secret_is_left_behind(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])
