"""Facts about `aiom4b audible …`, with a stand-in that answers at a real Unix socket, and with the real interface."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import threading
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from aiom4b import redaction
from aiom4b.cli import accounts, audible, client, following
from aiom4b.cli.main import app
from aiom4b.cli.stream import Event
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.job import Kind
from aiom4b.jobs.title import SyncState
from controls import NOON, serving, title_facts
from controls import account as account_value
from fake_service import FakeService, job, problem, refusal

ADDRESS = "https://www.amazon.de/ap/maplanding?openid.oa2.authorization_code=ANcanarycode&openid.mode=id_res"
SECRET = "canary-canary-canary"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine of its own: no service and no settings of whoever runs the tests are seen."""
    for name in list(os.environ):
        if name.upper().startswith(("AIOM4B_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("aiom4b.cli.connecting.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    monkeypatch.setattr(redaction, "_secrets", [])


@pytest.fixture
def service(tmp_path, monkeypatch):
    path = tmp_path / "s.sock"
    monkeypatch.setenv("AIOM4B_PATHS__SOCKET", str(path))
    place = FakeService(path)
    yield place
    place.stop()


def type_(*words: str, stdin: str | bytes | None = None):
    return CliRunner().invoke(app, ["audible", *words], input=stdin, catch_exceptions=False)


def document(*words: str, stdin: str | bytes | None = None):
    done = type_(*words, "--json", stdin=stdin)
    assert done.stderr == ""
    return done.exit_code, json.loads(done.stdout)


def refused(*words: str, stdin: str | bytes | None = None):
    code, told = document(*words, stdin=stdin)
    assert told["ok"] is False
    return code, told["error"]["code"]


def account(profile="main", **facts):
    """Return an account as the service tells it."""
    now = datetime.now(UTC)
    return {
        "profile": profile,
        "pending": False,
        "country": "de",
        "owner": "Jane",
        "device": "Jane's Audible for iPhone",
        "registered": "2026-03-01T09:00:00Z",
        "token_expires": (now + timedelta(minutes=40, seconds=30)).isoformat(),
        "encrypted": True,
        "titles": 412,
        "last_sync": (now - timedelta(minutes=5, seconds=30)).isoformat(),
        "last_full_sync": (now - timedelta(days=2, hours=1)).isoformat(),
        "licences_today": 3,
        "licences_allowed": 50,
        "pauses": [],
        "error": None,
    } | facts


def title(asin="B07EXAMPLE", **facts):
    """Return a title as the service tells it."""
    return {
        "asin": asin,
        "profile": "main",
        "status": "new",
        "reason": None,
        "title": "Emma",
        "authors": ["Jane Austen"],
        "runtime_minutes": 547,
    } | facts


def report(profile="main", **facts):
    found = {"full": False, "titles": 412, "new": 0, "changed": 0, "gone": 0, "queued": 0, "requests": 1}
    return {"profile": profile} | found | facts


# --- every command ------------------------------------------------------------------------------------------------------

EVERY = [
    ("login", "--country", "de"),
    ("finish", ADDRESS),
    ("import", __file__),
    ("status",),
    ("logout", "--yes"),
    ("sync",),
    ("sync", "--no-wait"),
    ("list",),
    ("download", "B07EXAMPLE"),
    ("download", "--new"),
]


@pytest.mark.parametrize("words", EVERY)
def test_every_command_says_how_to_start_a_service_that_is_not_there(tmp_path, words):
    assert refused(*words, "--socket", str(tmp_path / "none")) == (3, "service.absent")
    told = type_(*words, "--socket", str(tmp_path / "none"))
    assert (told.exit_code, told.stdout) == (3, "")
    assert "systemctl start aiom4b" in told.stderr


@pytest.mark.parametrize("words", EVERY)
def test_what_the_service_refuses_is_told_with_its_remedy_and_exit_code(service, words):
    for status, code, exit in [
        (404, "profile.missing", 4),
        (422, "audible.unauthorized", 1),
        (503, "audible.rate", 75),
        (422, "request.invalid", 2),
    ]:
        answer = refusal(status, code, "It can't be done.", "Do something else.")
        service.answer = lambda *_, answer=answer: answer
        assert refused(*words) == (exit, code)
        told = type_(*words)
        assert (told.exit_code, "Do something else." in told.stderr) == (exit, True)


@pytest.mark.parametrize("profile", ["", "a b", "../main", "x" * 65, "ü", "main\n"])
def test_a_name_that_no_account_can_have_is_refused_before_anything_is_asked(service, profile):
    for words in EVERY:
        if words[0] in {"status", "download"}:
            continue
        told = type_(*words, "--profile", profile)
        assert told.exit_code == 2, words
        assert "letters, digits, - and _" in " ".join(told.stderr.replace("│", "").split())
    assert service.requests == []


# --- signing in -----------------------------------------------------------------------------------------------------------


def test_login_prints_the_address_alone_and_says_what_to_do_with_it(service):
    service.answers["POST", "accounts/main/sign-in"] = 200, {"address": "https://www.amazon.de/ap/signin?a=b&c=d"}
    told = type_("login", "--country", "DE")
    assert (told.exit_code, told.stdout) == (0, "https://www.amazon.de/ap/signin?a=b&c=d\n")
    assert "browser" in told.stderr
    assert "`aiom4b audible finish`" in told.stderr
    assert service.requests[-1][3] == {"country": "de", "with_username": False}
    address = {"ok": True, "profile": "main", "address": "https://www.amazon.de/ap/signin?a=b&c=d"}
    assert document("login", "--country", "de") == (0, address)


def test_login_of_another_account_names_it_in_what_comes_next(service):
    service.answers["POST", "accounts/uk_2/sign-in"] = 200, {"address": "https://x"}
    told = type_("login", "--country", "uk", "--profile", "uk_2", "--username")
    assert "`aiom4b audible finish --profile uk_2`" in told.stderr
    assert service.requests[-1][3] == {"country": "uk", "with_username": True}


def test_login_needs_a_country(service):
    assert type_("login").exit_code == 2
    assert service.requests == []


def test_the_address_of_a_sign_in_is_not_taken_for_a_secret():
    """Hidden in part it would be of no use; it holds none: only the hash of what proves that we began."""
    from audible import login
    from audible.localization import Locale

    for country, with_username in (("de", False), ("uk", True), ("jp", False)):
        market = Locale(country)
        address, _ = login.build_oauth_url(
            country_code=country,
            domain=market.domain,
            market_place_id=market.market_place_id,
            code_verifier=login.create_code_verifier(),
            with_username=with_username,
        )
        assert redaction.redact(address) == address


@pytest.mark.parametrize("given", [ADDRESS + "\n", f"  {ADDRESS[:70]}\n{ADDRESS[70:]}  \r\n"])
def test_finish_reads_the_address_from_standard_input_even_if_it_was_broken(service, given):
    service.answers["POST", "accounts/main/sign-in/finish"] = 200, account()
    told = type_("finish", stdin=given)
    assert (told.exit_code, told.stdout) == (0, "signed in: main, Jane (de)\n")
    assert service.requests[-1][3] == {"address": ADDRESS}
    assert "canarycode" not in told.output


def test_finish_takes_the_address_as_an_argument_too(service):
    service.answers["POST", "accounts/other/sign-in/finish"] = 200, account("other")
    code, told = document("finish", ADDRESS, "--profile", "other")
    assert (code, told["account"]["profile"]) == (0, "other")
    assert service.requests[-1][3] == {"address": ADDRESS}


@pytest.mark.parametrize("given", ["", "\n \n"])
def test_finish_without_an_address_asks_nothing(service, given):
    assert refused("finish", stdin=given) == (2, "signin.no_address")
    assert refused("finish", given) == (2, "signin.no_address")
    assert service.requests == []


def test_finish_survives_bytes_that_are_no_address(service):
    service.answers["POST", "accounts/main/sign-in/finish"] = refusal(422, "signin.address", "No.", "Copy it.")
    assert refused("finish", os.fsdecode(b"caf\xe9")) == (1, "signin.address")
    assert service.requests[-1][3] == {"address": "caf?"}
    assert refused("finish", stdin=b"caf\xe9") == (1, "signin.address")
    assert service.requests[-1][3] == {"address": "caf\ufffd"}


def test_finish_asks_for_the_address_on_a_terminal(service, monkeypatch):
    service.answers["POST", "accounts/main/sign-in/finish"] = 200, account()
    master, terminal = pty.openpty()
    with open(terminal, "rb") as stdin, open(master, "w") as keyboard:
        monkeypatch.setattr(accounts, "_stdin", lambda: stdin)
        keyboard.write(ADDRESS + "\n")
        keyboard.flush()
        told = type_("finish")
    assert told.exit_code == 0
    assert "Paste the address" in told.stderr
    assert service.requests[-1][3] == {"address": ADDRESS}


def test_a_sign_in_is_given_minutes(service, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 0.05)

    def slow(_):
        threading.Event().wait(0.3)
        return 200, account()

    for method, path in [
        ("POST", "accounts/main/sign-in/finish"),
        ("POST", "accounts/main/import"),
        ("DELETE", "accounts/main"),
    ]:
        service.answers[method, path] = slow
    for words in (("finish", ADDRESS), ("import", __file__), ("logout", "--yes")):
        assert type_(*words).exit_code == 0, words
    service.answers["GET", "accounts"] = slow
    assert type_("status").exit_code == 75


def test_import_hands_over_a_file_as_text_or_bytes(service, tmp_path):
    service.answers["POST", "accounts/main/import"] = 200, account()
    plain, packed, password = tmp_path / "a.json", tmp_path / "b.auth", tmp_path / "password"
    plain.write_text('{"a": "é"}')
    packed.write_bytes(b"$\xff\0")
    password.write_text(f"{SECRET} \r\nsecond line")
    told = type_("import", str(plain))
    assert (told.exit_code, told.stdout) == (0, "signed in: main, Jane (de)\n")
    assert service.requests[-1][3] == {"country": None, "document": '{"a": "é"}'}
    told = type_("import", str(packed), "--password-file", str(password), "--country", "UK")
    assert service.requests[-1][3] == {
        "country": "uk", "document_b64": base64.b64encode(b"$\xff\0").decode(), "password": f"{SECRET} "
    }  # fmt: skip
    assert SECRET not in told.output
    told = type_("import", str(plain), "--password-prompt", stdin=f"{SECRET}\n")
    assert service.requests[-1][3]["password"] == SECRET
    assert SECRET not in told.output


def test_import_refuses_what_can_not_be_read(service, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 200_000)
    (tmp_path / "latin").write_bytes(b"caf\xe9-canary")
    assert refused("import", str(tmp_path / "none")) == (4, "file.missing")
    assert refused("import", str(tmp_path))[0] == 1
    assert refused("import", str(tmp_path / "large")) == (1, "authfile.too_large")
    assert refused("import", __file__, "--password-file", str(tmp_path / "none")) == (4, "file.missing")
    assert refused("import", __file__, "--password-file", str(tmp_path / "latin")) == (1, "authfile.password")
    assert "canary" not in type_("import", __file__, "--password-file", str(tmp_path / "latin")).output
    assert type_("import", __file__, "--password-file", "x", "--password-prompt").exit_code == 2
    assert service.requests == []


def test_logout_wants_to_be_sure(service):
    service.answers["DELETE", "accounts/main"] = 204, b""
    assert refused("logout") == (2, "signin.unconfirmed")
    assert type_("logout").exit_code == 2  # nobody at a terminal
    assert service.requests == []
    assert type_("logout", "--yes").stdout == "signed out: main\n"
    assert document("logout", "--yes") == (0, {"ok": True, "profile": "main"})
    assert service.requests[-1][:3] == ("DELETE", "accounts/main", {})
    type_("logout", "--yes", "--force")
    assert service.requests[-1][:3] == ("DELETE", "accounts/main", {"forced": ["true"]})


@pytest.mark.parametrize(("key", "exit"), [("y", 0), ("n", 1)])
def test_logout_asks_on_a_terminal(service, monkeypatch, key, exit):
    service.answers["DELETE", "accounts/main"] = 204, b""
    monkeypatch.setattr(accounts, "_at_a_terminal", lambda: True)
    assert type_("logout", stdin=f"{key}\n").exit_code == exit
    assert len(service.requests) == 1 - exit


# --- how accounts stand ---------------------------------------------------------------------------------------------------


def test_status_tells_how_each_account_stands(service):
    until = (datetime.now(UTC) + timedelta(hours=18, minutes=1)).isoformat()
    over = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    throttled = {"cause": "throttled", "until": until, "failures": 2, "error": problem("a.b", "Too much.", "Wait.")}
    items = [
        account(pauses=[throttled, throttled | {"cause": "rate", "until": over}], error=problem("a.c", "Old.", "Renew.")),
        account(
            "uk", pending=True, device="", owner="", registered=None, token_expires=None, last_sync=None,
            last_full_sync=None
        ),
        account("fr", encrypted=False, owner="", token_expires=None, last_sync=None, last_full_sync=None, titles=1),
    ]  # fmt: skip
    service.answers["GET", "accounts"] = 200, {"items": items, "total": 3}
    told = type_("status")
    assert told.exit_code == 0
    blocks = [
        ["|".join(re.split("  +", line, maxsplit=1)) for line in block.splitlines()]
        for block in told.stdout.split("\n\n")
    ]
    first = dict(line.split("|") for line in blocks[0] if line[0] != "|")
    assert first["profile"] == "main"
    assert first["account"] == "Jane, market de"
    assert first["device"].startswith("Jane's Audible for iPhone, registered 2026-03-01 ")
    assert first["token"] == "ends in 40 min; it is renewed when it is needed"
    assert first["stored"] == "encrypted"
    assert first["titles"] == "412"
    assert first["synced"].endswith("(2 d ago)")
    assert "(5 min ago); the whole library" in first["synced"]
    assert first["licences"] == "3 of 50 in 24 hours"
    assert first["waits"].startswith("throttled, until ")
    assert first["waits"].endswith("(in 18 h)")
    assert blocks[0][-5:] == [
        blocks[0][-5],
        "|Too much. [a.b]",
        "|remedy: Wait.",
        "problem|Old. [a.c]",
        "|remedy: Renew.",
    ]
    assert blocks[1] == ["profile|uk", "sign-in|begun; `aiom4b audible finish --profile uk` completes it"]
    last = dict(line.split("|") for line in blocks[2])
    assert (last["account"], last["synced"]) == ("unnamed, market de", "never")
    assert last["stored"] == "not encrypted (audible.password)"
    assert document("status") == (0, {"ok": True, "items": items, "total": 3})


def test_nobody_signed_in_is_no_data(service):
    service.answers["GET", "accounts"] = 200, {"items": [], "total": 0}
    told = type_("status")
    assert (told.exit_code, told.stdout) == (0, "")
    assert "aiom4b audible login" in told.stderr


# --- the library ----------------------------------------------------------------------------------------------------------


def test_titles_are_listed_with_the_reason_of_each_that_can_not_be_had(service):
    titles = [
        title(),
        title(
            "B000000002", status="unavailable", title="日本", authors=[], runtime_minutes=0,
            reason=problem("title.unreleased", "Not yet.", "Wait."),
        ),
    ]  # fmt: skip
    service.answers["GET", "library"] = 200, {"items": titles, "total": 2, "limit": 100, "offset": 0}
    assert type_("list").stdout.splitlines() == [
        "B07EXAMPLE  new          9:07  Emma – Jane Austen",
        "B000000002  unavailable  0:00  日本",
        "            Not yet.",
        "            remedy: Wait.",
    ]
    assert document("list")[1] == {"ok": True, "items": titles, "total": 2, "limit": 100, "offset": 0}
    titles[1]["profile"] = "uk"
    assert type_("list").stdout.splitlines()[0] == "B07EXAMPLE  main  new          9:07  Emma – Jane Austen"


def test_titles_are_searched_and_paged(service):
    service.answers["GET", "library"] = 200, {"items": [title()], "total": 7, "limit": 1, "offset": 2}
    words = ("--status", "new", "--search", "jane & emma", "--profile", "uk", "--limit", "1", "--offset", "2")
    told = type_("list", *words)
    assert "3 to 3 of 7 titles; --offset shows more." in told.stderr
    assert service.requests[-1][2] == {
        "status": ["new"], "search": ["jane & emma"], "profile": ["uk"], "limit": ["1"], "offset": ["2"]
    }  # fmt: skip
    service.answers["GET", "library"] = 200, {"items": [], "total": 0, "limit": 1, "offset": 2}
    assert (type_("list").stdout, type_("list").stderr) == ("", "There are no such titles.\n")
    assert type_("list", "--status", "lost").exit_code == 2
    assert type_("list", "--limit", "0").exit_code == 2
    assert type_("list", "--limit", "501").exit_code == 2


def test_titles_cannot_drive_the_terminal(service):
    items = [title(title="\x1b[2J\u202eEmma\n<b>", authors=["\x07"])]
    service.answers["GET", "library"] = 200, {"items": items, "total": 1, "limit": 1, "offset": 0}
    told = type_("list")
    assert not set("\x1b\x07\u202e") & set(told.output)
    assert "<b>" in told.stdout


def test_titles_are_downloaded_by_name_or_all_that_are_new(service):
    queued = job("Emma", kind="download", asin="B07EXAMPLE", id="abcd0111-0000-4000-8000-000000000000")
    service.answers["POST", "jobs/download"] = 202, {"jobs": [queued]}
    told = type_("download", "b07example", "B000000002")
    assert (told.exit_code, told.stdout) == (0, "queued: Emma (abcd0111)\n")
    assert service.requests[-1][3] == {"asins": ["B07EXAMPLE", "B000000002"]}
    assert document("download", "--new") == (0, {"ok": True, "jobs": [queued]})
    assert service.requests[-1][3] == {"new": True}
    service.answers["POST", "jobs/download"] = 202, {"jobs": []}
    assert (type_("download", "--new").stdout, type_("download", "--new").stderr) == ("", "There is nothing new.\n")
    before = len(service.requests)
    assert type_("download").exit_code == 2
    assert type_("download", "B07EXAMPLE", "--new").exit_code == 2
    assert len(service.requests) == before


def test_thousands_of_new_titles_may_take_minutes_to_queue(service, monkeypatch):
    service.answers["POST", "jobs/download"] = 202, {"jobs": []}
    given = []

    def connect(place, timeout):
        given.append(timeout)
        return connected(place, timeout)

    connected = client.connect
    monkeypatch.setattr(client, "connect", connect)
    assert type_("download", "--new").exit_code == 0
    assert given == [client.ERRAND_TIMEOUT]


# --- syncing --------------------------------------------------------------------------------------------------------------


def syncing(service, *words, profiles=("main",)):
    """Type `aiom4b audible sync` in a thread; return it once it has asked, and what it will answer."""
    asked = threading.Semaphore(0)

    def answer(_):
        asked.release()
        return 202, {"profiles": list(profiles), "full": "--full" in words}

    service.answers["POST", "library/sync"] = answer
    answers = []
    thread = threading.Thread(target=lambda: answers.append(type_("sync", *words)))
    thread.start()
    assert asked.acquire(timeout=10)
    return thread, answers, asked


def ended(thread, answers):
    thread.join(timeout=10)
    assert not thread.is_alive()
    return answers[0]


def test_sync_waits_for_what_each_account_has(service):
    thread, answers, _ = syncing(service, profiles=("main", "uk"))
    service.tell("library.synced", **report("other"))
    service.tell("library.synced", **report("uk", titles=1, new=1, queued=1))
    service.tell("library.synced", **report())
    told = ended(thread, answers)
    assert (told.exit_code, told.stdout.splitlines()) == (
        0,
        ["main: 412 titles, nothing new", "uk: 1 title, 1 new, 1 queued"],
    )
    assert service.requests[-1][3] == {"full": False}


def test_sync_says_why_it_could_not(service):
    thread, answers, _ = syncing(service, "--json", "--profile", "main")
    service.tell("library.not_synced", profile="main", full=False, problem=problem("audible.unauthorized"))
    told = ended(thread, answers)
    assert told.exit_code == 1
    assert json.loads(told.stdout) == {
        "ok": False,
        "items": [{"profile": "main", "error": problem("audible.unauthorized")}],
        "total": 1,
    }
    assert service.requests[-1][3] == {"full": False, "profile": "main"}
    thread, answers, _ = syncing(service)
    service.tell("library.not_synced", profile="main", full=False, problem=problem("audible.network", "No.", "Wait."))
    told = ended(thread, answers)
    assert told.stdout == ""
    assert "main: No. [audible.network]" in told.stderr
    assert "Wait." in told.stderr


def test_a_full_sync_is_not_answered_by_another_that_was_under_way(service, monkeypatch):
    def heard(*_, **__):
        yield []
        yield [Event(id=1, event="library.synced", data=report(new=7))]
        yield [Event(id=2, event="library.synced", data=report(full=True, new=3))]
        pytest.fail("nothing more was to be waited for")

    monkeypatch.setattr(audible, "batches", heard)
    service.answers["POST", "library/sync"] = 202, {"profiles": ["main"], "full": True}
    assert type_("sync", "--full").stdout == "main: 412 titles, 3 new\n"
    assert service.requests[-1][3] == {"full": True}


def test_a_sync_is_asked_for_again_when_the_service_was_away(service, monkeypatch):
    monkeypatch.setattr(following.time, "sleep", lambda _: None)
    thread, answers, asked = syncing(service, "--json")
    assert service.opened.acquire(timeout=10)
    service.end_streams()
    assert service.opened.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    service.tell("library.synced", **report())
    assert ended(thread, answers).exit_code == 0


def test_a_sync_is_asked_for_again_when_events_were_missed(service):
    thread, answers, asked = syncing(service)
    service.tell("reset")
    assert asked.acquire(timeout=10)
    service.tell("library.synced", **report())
    assert ended(thread, answers).exit_code == 0


def test_sync_need_not_be_waited_for(service):
    service.answers["POST", "library/sync"] = 202, {"profiles": ["main", "uk"], "full": True}
    assert type_("sync", "--no-wait", "--full").stdout == "syncing: main, uk\n"
    assert document("sync", "--no-wait") == (0, {"ok": True, "profiles": ["main", "uk"], "full": True})


# --- jobs -----------------------------------------------------------------------------------------------------------------


def test_downloads_are_told_from_conversions(service):
    fetched = job(
        "Emma", kind="download", asin="B07EXAMPLE", status="completed", output="/l/.aiom4b/downloads/B07EXAMPLE",
        id="abcd0111-0000-4000-8000-000000000000",
    )  # fmt: skip
    service.jobs = [fetched, job("Emma", asin="B07EXAMPLE", id="11111111-0000-4000-8000-000000000000")]
    lines = CliRunner().invoke(app, ["jobs", "list"]).stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["Emma (download)", "Emma"]
    shown = CliRunner().invoke(app, ["jobs", "show", "abcd"]).stdout.splitlines()
    facts = dict(line.split(maxsplit=1) for line in shown)
    assert (facts["kind"], facts["ASIN"]) == ("download", "B07EXAMPLE")
    assert facts["files"] == "/l/.aiom4b/downloads/B07EXAMPLE"
    assert "book" not in facts
    shown = CliRunner().invoke(app, ["jobs", "show", "1111"]).stdout.splitlines()
    assert not [line for line in shown if line.startswith("kind")]


# --- against the real interface ---------------------------------------------------------------------------------------------


def asked(scene):
    """Run a test with the real interface, and ``ask`` to type a command in a thread beside it."""

    def test(tmp_path, monkeypatch):
        async def run():
            with anyio.fail_after(60):
                async with serving(tmp_path) as control:
                    monkeypatch.setenv("AIOM4B_PATHS__SOCKET", control.path)

                    async def ask(*words, stdin=None):
                        return await anyio.to_thread.run_sync(lambda: type_(*words, stdin=stdin))

                    await scene(control, ask)

        with capture_logs():  # the service's lines would get among the answers, in one process
            anyio.run(run)

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


@asked
async def test_a_newcomer_signs_in_looks_around_fetches_and_leaves(control, ask):
    assert "audible login" in (await ask("status")).stderr
    assert (await ask("sync", "--json")).exit_code == Exit.NOT_FOUND
    assert (await ask("login", "--country", "DE")).stdout == control.account.address + "\n"
    told = await ask("finish", stdin=ADDRESS)
    assert (told.exit_code, told.stdout) == (0, "signed in: main, Jane (de)\n")
    control.account.statuses = (account_value(),)
    assert "account   Jane, market de" in (await ask("status")).stdout
    state = SyncState(last_sync=NOON, last_full_sync=NOON)
    await control.store.put_titles("main", [title_facts()], NOON, whole=True, state=state)

    def sync(profile, *, full):
        control.events.publish("library.synced", **report(profile or "main", full=full, new=1, titles=1))

    control.account.request_sync = sync
    assert (await ask("sync", "--full")).stdout == "main: 1 title, 1 new\n"
    assert (await ask("sync", "--profile", "main")).stdout == "main: 1 title, 1 new\n"
    assert (await ask("list", "--search", "austen")).stdout == "B07EXAMPLE  new  9:07  Emma – Jane Austen\n"
    queued = await control.add("Emma", kind=Kind.DOWNLOAD, asin="B07EXAMPLE", entry=None)
    control.account.jobs = (queued,)
    assert (await ask("download", "--new")).stdout == f"queued: Emma ({queued.id[:8]})\n"
    assert (await ask("list", "--status", "downloading")).stdout.startswith("B07EXAMPLE")
    assert (await ask("logout", "--yes")).stdout == "signed out: main\n"
    assert [one[0] for one in control.account.asked] == ["begin", "finish", "download", "leave"]


@asked
async def test_a_file_is_taken_over_and_nothing_of_it_shows(control, ask):
    path = os.path.join(control.state, "auth.json")
    await anyio.Path(path).write_text(json.dumps({"access_token": f"Atna|{SECRET}"}))
    told = await ask("import", path, "--country", "de", "--json")
    assert (told.exit_code, SECRET in told.output) == (0, False)
    [taken] = control.account.asked
    assert json.loads(taken[2]) == {"access_token": f"Atna|{SECRET}"}
    control.account.signed_in = NeedsAttention("authfile.password", f"Atna|{SECRET} is wrong.", remedy="Look.")
    told = await ask("import", path, "--json")
    assert (told.exit_code, SECRET in told.output) == (1, False)
