"""Does a secret of the owner's show anywhere? The real service at DEBUG, through everything that happens to it, and its end.

One life is lived once (`lived`): sign-ins, downloads, dropped books, failures of all kinds, crashes. Then each channel through
which something came out is searched for everything that is secret, in every spelling.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from audible.aescipher import AESCipher
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

import audible_account
import audible_layouts as layouts
import running as harness
from audible_documents import Title
from audible_files import lock_aax, lock_aaxc, plain_book
from canaries import Canaries, Evidence, Watch, holds
from fake_audible import ABOVE_THRESHOLD, Account, FakeAudible, environment
from household import PROGRAM, Answer, House, answer, real_program
from running import Service, descendants

pytestmark = pytest.mark.timeout(300)  # the first test lives the life of all

MARK = "Kanarienvogel"
"""No secret: it is in every path and name, and so shows which channels were really looked into."""
WITH_CORE_DUMPS = 'ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@"'
SETTINGS = """
[log]
level = "debug"
file = "{log}"
[api]
host = "127.0.0.1"
port = {port}
"""
CHANNELS = {
    "stderr",
    "log file",
    "database",
    "files",
    "cmdline",
    "environ",
    "answers",
    "refusals",
    "events",
    "WebSocket",
    "command line",
    "dump of a crash",
}
REFUSALS = {
    "accounts/main/sign-in/finish": {b"request.invalid", b"signin.expired"},
    "accounts/broken/import": {
        b"authfile.encrypted",
        b"authfile.incomplete",
        b"authfile.unknown",
        b"authfile.wrong_password",
        b"request.invalid",
        b"signin.country",
    },
    "accounts/second": {b"audible.network", b"audible.server", b"audible.unreadable"},
    "TCP": {b"request.unauthorized"},
}
"""What was asked in vain, and the codes that were answered."""
JSON = {"Content-Type": "application/json"}
PASSWORD, KEY_OF_API, THEIR_PASSWORD = (f"{name}-{secrets.token_urlsafe(24)}" for name in ("own", "api", "their"))


class Life:
    """What is lived, what came out of it, and what is secret in it."""

    def __init__(self, root: Path) -> None:
        self.house = House(root, real_program)
        self.state = root / "state"
        self.evidence = Evidence()
        self.canaries = Canaries()
        self.log = root / "own.log"
        self.temporary = root / "tmp"
        self.aside = root / "aside"
        for folder in (self.state, self.temporary, self.aside):
            folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.house.set(SETTINGS.format(log=self.log, port=self.port))
        credentials = root / "credentials"
        credentials.mkdir(mode=0o700)
        (credentials / "audible.password").write_text(PASSWORD)
        (credentials / "api.key").write_text(KEY_OF_API)
        self.canaries.add("password", PASSWORD, THEIR_PASSWORD)
        self.canaries.add("key of the API", KEY_OF_API)
        self.more = {
            "CREDENTIALS_DIRECTORY": str(credentials),
            "TMPDIR": str(self.temporary),
            "AIOM4B_WATCH__SETTLE_SECONDS": str(harness.SETTLE),
        }
        self.ada = Account(customer=f"amzn1.account.A{secrets.token_hex(12).upper()}", activation_bytes=os.urandom(4))
        self.bo = Account(
            owner="Bo Second",
            customer=f"amzn1.account.B{secrets.token_hex(12).upper()}",
            activation_bytes=os.urandom(4),
        )
        for account in (self.ada, self.bo):
            self.canaries.add("customer", account.customer)
            self.canaries.add("activation bytes", account.activation_bytes)
        self._plain = 0

    # --- what there is -------------------------------------------------------------------------------------------------

    def title(self, asin: str, word: str, **facts) -> Title:
        """Return a title with a key of its own."""
        title = Title(
            asin=asin,
            title=f"{MARK} {word}",
            subtitle=None,
            series=(),
            key=os.urandom(16),
            iv=os.urandom(16),
            owners=(self.ada.customer,),
            **facts,
        )
        self.canaries.add(f"key of {word}", title.key, title.iv)
        return title

    def plain(self, title: Title, **how) -> Path:
        """Return an unlocked book of a title, unlike any other."""
        self._plain += 1
        names = {"CDEK": title.asin} | dict.fromkeys(("©nam", "©alb", "@sti"), title.title)
        return plain_book(self.aside / f"{title.asin}.m4b", 6.0, seed=self._plain, atoms=names, cover=False, **how)

    def learn(self, fake: FakeAudible) -> None:
        """Keep in mind what the devices and sign-ins hold by now."""
        for device in fake.devices:
            self.canaries.add("access token", device.access_token)
            self.canaries.add("refresh token", device.refresh_token)
            self.canaries.add("signing token", device.adp_token)
            lines = device.identity()["device_private_key"].splitlines()[1:-1]
            self.canaries.add("private key", lines[0], lines[len(lines) // 2], lines[-2])
            self.canaries.add("serial number", device.serial)
        self.canaries.add("cookie", "own-cookie", "own-store-cookie", "000-0000000-0000000")
        self.canaries.add("address", "own-signature")

    # --- how it runs ---------------------------------------------------------------------------------------------------

    @contextmanager
    def serving(self, fake: FakeAudible, name: str, **more: str) -> Iterator[Service]:
        """Start the service as systemd does: its stderr is the journal's. It may dump core, as far as it is concerned."""
        journal = self.house.root / f"{name}.journal"
        with journal.open("wb") as stream:
            status = os.fstat(stream.fileno())
            process = subprocess.Popen(
                ["sh", "-c", WITH_CORE_DUMPS, *PROGRAM, "run", *harness.places(self.house)],
                env=self.environment(fake, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}", **more),
                cwd=self.house.root,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        before = len(self.log.read_bytes()) if self.log.exists() else 0
        service = _Serving(self.house, process, self.log, before)
        try:
            service.until(lambda: service.said("service.ready"))
            yield service
        finally:
            service.http.close()
            service.kill()
            self.evidence.add("stderr", name, journal.read_bytes())
            self.note_database()

    def environment(self, fake: FakeAudible, **more: str) -> dict[str, str]:
        given = self.house.environment()
        return given | environment(fake.port, given["PYTHONPATH"]) | self.more | more

    def types(self, *words: str, given: bytes = b"", service: bool = True, as_text: bool = False) -> Answer:
        """Type a command, and keep what came of it."""
        asked = [*words, *(("--socket", str(harness.socket(self.house))) if service else ())]
        done = subprocess.run(
            [*PROGRAM, *asked, *(() if as_text else ("--json",))],
            env=self.house.environment() | self.more,
            cwd=self.house.root,
            input=given,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if "login" not in words:  # it prints the address to open, which tells the serial number
            self.evidence.add("command line", " ".join(words[:3]), done.stdout)
        self.evidence.add("command line", " ".join(words[:3]), done.stderr)
        return answer(done.returncode, done.stdout, done.stderr)

    def note_database(self) -> None:
        """Keep the database as it is by now, with what has not been merged into it."""
        for path in self.state.glob("aiom4b.db*"):
            self.evidence.add("database", path.name, path.read_bytes())

    # --- where it writes -----------------------------------------------------------------------------------------------

    def may_hold_secrets(self, path: Path) -> bool:
        """Whether a file is in a place for secrets: a folder for its owner only, or beside locked audio."""
        inside = path.relative_to(self.house.root).parts
        if inside[:2] == ("state", "audible"):
            return stat.S_IMODE((self.state / "audible").stat().st_mode) == 0o700
        beside_audio = inside[0] == "backups" or inside[:3] == ("library", ".aiom4b", "downloads")
        return beside_audio and re.fullmatch(r"(?i).*\.(voucher|key)|\.aiom4b-\w+\.tmp", path.name) is not None

    def is_apart(self, path: Path) -> bool:
        """Whether a file is the owner's own, or of a channel of its own."""
        inside = path.relative_to(self.house.root).parts
        own = inside[0] in {"drops", "aside", "home", "credentials"}
        return own or inside[:-1] == ("state",) or path.suffix in {".journal", ".log"}

    # --- what it answers -----------------------------------------------------------------------------------------------

    def ask_everything(self, service: Service) -> None:
        """Ask for everything that can be asked for, on the socket; some of it over TCP, with the right key and a wrong one."""
        jobs = service.jobs()
        ids = {
            "asin": [title["asin"] for title in service.ask("library", limit=1000)["items"]],
            "id": [job["id"] for job in jobs],
            "job_id": [job["id"] for job in jobs],
            "file_id": [job["book"] for job in jobs if job.get("book")],
        }
        described = service.http.get("http://localhost/openapi.json").json()
        streams = {"/api/v1/events"}
        for path, methods in described["paths"].items():
            if "get" in methods and path not in streams:
                name = "".join(re.findall(r"{(\w+)}", path))
                for one in ids[name] if name else [""]:
                    asked = path.replace(f"{{{name}}}", one)
                    self.told(service.http.get(f"http://localhost{asked}"), path)
        for key in (KEY_OF_API, f"wrong-{KEY_OF_API}"):
            self.told(httpx.get(f"http://127.0.0.1:{self.port}/api/v1/accounts", headers={"X-API-Key": key}), "TCP")

    def told(self, answer: httpx.Response, path: str) -> httpx.Response:
        """Keep an answer."""
        head = repr(sorted(answer.headers.items())).encode()
        self.evidence.add("refusals" if answer.is_error else "answers", path, head + b"\n" + answer.content)
        return answer


class _Serving(Service):
    """A service that is heard through its log file, from where that stands at its start."""

    def __init__(self, house: House, process: subprocess.Popen, told: Path, before: int) -> None:
        super().__init__(house, process, told)
        self._before = before

    def talk(self) -> str:
        said = self._told.read_bytes()[self._before :] if self._told.exists() else b""
        lines = said.decode(errors="backslashreplace").splitlines(keepends=True)
        return "".join(line for line in lines if line.endswith("}\n") and '"logger": "peewee"' not in line)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.talk().splitlines()]

    def until(self, condition, seconds=harness.PATIENCE):
        def seldom():  # at DEBUG each question costs many lines
            time.sleep(0.1)
            return condition()

        return super().until(seldom, seconds / 5)


@contextmanager
def overheard(life: Life, service: Service) -> Iterator[None]:
    """Keep all that the event stream says meanwhile."""

    def listen() -> None:
        with suppress(httpx.TransportError), service.http.stream("GET", "events", timeout=None) as answered:
            for number, line in enumerate(answered.iter_lines()):
                life.evidence.add("events", f"{service.pid} {number}", line.encode())

    def listen_otherwise() -> None:
        address = "ws://localhost/api/v1/ws/jobs"
        with suppress(ConnectionClosed), unix_connect(str(harness.socket(life.house)), address) as connection:
            for number, message in enumerate(connection):
                life.evidence.add("WebSocket", f"{service.pid} {number}", str(message).encode())

    listeners = [threading.Thread(target=one) for one in (listen, listen_otherwise)]
    for one in listeners:
        one.start()
    yield
    for one in listeners:
        one.join(10)
        assert not one.is_alive()


# --- one life ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """Live it, once for all tests."""
    life = Life(tmp_path_factory.mktemp(MARK))
    watch = Watch(life.evidence, life.house.root, private=life.may_hold_secrets, apart=life.is_apart)
    sealed = audible_account.Device.sealed
    with pytest.MonkeyPatch.context() as patch, FakeAudible(account=life.ada) as fake, watch:

        def seal(device, asin, voucher):
            text = sealed(device, asin, voucher)
            life.canaries.add("licence", text)
            return text

        patch.setattr(audible_account.Device, "sealed", seal)
        with life.serving(fake, "first") as service, overheard(life, service):
            sign_in(life, fake, service)
            drop(life)
            fetch(life, fake, service)
            fail(life, fake, service)
            settle(life, service)
            look_around(life, service)
            lose_a_worker(life, service)
            life.learn(fake)
            crash(life, service, signal.SIGSEGV)
        with life.serving(fake, "second", PYTHONASYNCIODEBUG="1") as service, overheard(life, service):
            sign_out(life, fake, service)
            life.ask_everything(service)
            life.learn(fake)
            crash(life, service, signal.SIGABRT)
        convert_by_hand(life)
    life.evidence.add("log file", life.log.name, life.log.read_bytes())
    watch.look()
    assert watch.rounds > 20
    return life


def sign_in(life: Life, fake: FakeAudible, service: Service) -> None:
    """Sign in three accounts: by stdin, by argument, and by a file; with every mistake that can be made."""
    for profile in ("main", "second"):
        address = life.types("audible", "login", "--country", "us", "--profile", profile).document["address"]
        pending = json.loads((life.state / "audible" / f"{profile}.pending.json").read_bytes())
        life.canaries.add("code verifier", pending["code_verifier"])
        account = life.ada if profile == "main" else life.bo
        pasted = fake.sign_in(address, account)
        life.canaries.add("authorization code", audible_account.code_of(pasted))
        if profile == "main":
            finish = f"accounts/{profile}/sign-in/finish"
            foreign = pasted.replace("OWNCODE", "ANOTHER")
            life.canaries.add("authorization code", audible_account.code_of(foreign))
            for body in (
                {"address": foreign},
                {"adress": pasted},
                {"address": [pasted]},
                {"address": f"x{pasted}\ud800"},
            ):
                content = json.dumps(body).encode()
                assert life.told(service.http.post(finish, content=content, headers=JSON), finish).is_error
            assert life.told(service.http.post(finish, content=content[:-2], headers=JSON), finish).is_error
            fake.fault("register", status=400, message=f"{pasted} {pending['code_verifier']}")
            assert life.types("audible", "finish", given=pasted.encode()).exit != 0
            assert life.types("audible", "finish", given=pasted.encode()).exit == 0
        else:
            assert life.types("audible", "finish", pasted, "--profile", profile).exit == 0
        life.learn(fake)
    take_over(life, fake, service)


def take_over(life: Life, fake: FakeAudible, service: Service) -> None:
    """Import the sign-in of another program: encrypted, with a wrong password, cut off, damaged, malformed."""
    device = fake.device(account=life.bo)
    life.learn(fake)
    whole = json.dumps(device.identity())
    encrypted = json.dumps(AESCipher(THEIR_PASSWORD, kdf_iterations=1000).to_dict(whole))
    document = life.aside / "auth.json"
    document.write_text(encrypted)
    password = life.aside / "password"
    password.write_text(THEIR_PASSWORD + "\n")
    words = ("audible", "import", str(document), "--profile", "old", "--password-file", str(password))
    assert life.types(*words).exit == 0
    token, key = (secrets.token_hex(40) for _ in range(2))
    life.canaries.add("damaged sign-in", token, key)
    path = "accounts/broken/import"
    for body in (
        {"document": encrypted, "password": f"{THEIR_PASSWORD}!"},
        {"document": encrypted},
        {"document": whole[:-9]},
        {"document": whole.replace('"Mg==', f'"{token}')[:-1] + f', "adp_token": "{token}"}}'},
        {"document": json.dumps(device.identity() | {"access_token": token})},
        {
            "document": json.dumps(
                device.identity() | {"device_private_key": f"-----BEGIN RSA PRIVATE KEY-----\n{key}\n"}
            )
        },
        {"document": json.dumps(device.identity() | {"device_info": [token], "customer_info": key})},
        {"document": json.dumps({"Accounts": [{"IdentityTokens": {"AdpToken": token, "PrivateKey": key}}]})},
        {"document": {"adp_token": token}},
        {"document_b64": token + "é"},
        {"dokument": whole, "pasword": THEIR_PASSWORD},
        {"document": whole, "password": [THEIR_PASSWORD]},
    ):
        answer = life.told(service.http.post(path, json=body), path)
        assert answer.is_error, (list(body), answer.text)


def drop(life: Life) -> None:
    """Drop books with keys that fit, that don't, that are malformed, and with none."""
    drops = life.house.drops
    voucher = life.title("B00VOUCHER", "Voucher")
    layouts.audible_cli(drops / f"{MARK} Voucher", life.plain(voucher), voucher)
    for number, (word, text) in enumerate(
        {
            "Key": "Key={key}\nIV={iv}\n",
            "Wrong": "Key={wrong}\nIV={iv}\n",
            "Short": "Key={wrong}0\nIV={iv}\n",
            "Letters": '{{"content_license": {{"license_response": {{"key": "{wrong}g", "iv": ["{iv}"]}}}}}}',
        }.items()
    ):
        title, wrong = life.title(f"B00DROPPE{number}", word), os.urandom(16)
        life.canaries.add("wrong key", wrong)
        folder = drops / f"{MARK} {word}"
        folder.mkdir()
        lock_aaxc(life.plain(title), folder / "book.aaxc", title.key, title.iv)
        suffix = "voucher" if word == "Letters" else "key"
        (folder / f"book.{suffix}").write_text(
            text.format(key=title.key.hex().upper(), iv=title.iv.hex(), wrong=wrong.hex())
        )
    old = life.title("B00OLDAAX1", "Old")
    (drops / f"{MARK} Old").mkdir()
    lock_aax(life.plain(old), drops / f"{MARK} Old" / "old.aax", life.ada.activation_bytes)


def fetch(life: Life, fake: FakeAudible, service: Service) -> None:
    """Download titles; what is denied comes last, since that makes the account pause."""
    new = life.title("B00NEWAAXC", "New", pdf=True, annotations=True)
    new.aaxc = lock_aaxc(life.plain(new), life.aside / "new.aaxc", new.key, new.iv)
    older = life.title("B00OLDERAX", "Older")
    older.aax = lock_aax(life.plain(older), life.aside / "older.aax", life.ada.activation_bytes)
    denied = life.title("B00DENIED1", "Denied", denied=["RequesterEligibility"])
    above = life.title("B00ABOVE01", "Above")
    fake.add(new, older, denied, above)
    fake.fault("licence", asin=above.asin, times=9, status=403, message=ABOVE_THRESHOLD)
    fake.hold("cdn", asin=new.asin, after=2000)
    assert life.types("audible", "sync", "--profile", "main").exit == 0
    asins = [title.asin for title in (new, older, denied, above)]
    assert life.types("audible", "download", *asins).exit == 0
    fake.wait_held()
    life.ask_everything(service)
    fake.release()


def fail(life: Life, fake: FakeAudible, service: Service) -> None:
    """Let requests for the library fail in all ways, by answers that repeat what they were asked."""
    device = next(device for device in fake.devices if device.account is life.bo)
    echo = f"Customer [{{customer}}] {device.account.customer} {device.access_token} key={device.serial}"
    for fault in (
        {"status": 401, "message": echo},
        {"status": 400, "message": f"{echo} x-adp-token: {device.refresh_token}"},
        {"status": 429, "message": echo, "retry_after": 5},
        {"status": 500, "message": echo},
        {"html": True},
        {"drop": True},
    ):
        fake.fault("library", **fault)
        asked = fake.requests["library"]
        service.tell("library/sync", {"profile": "second", "full": True})
        service.until(lambda asked=asked: fake.requests["library"] > asked)
        service.until(lambda: failed(life.told(service.http.get("accounts"), "accounts").json()))


def failed(accounts: dict) -> bool:
    """Whether the last sync of the second account failed."""
    return any(one["error"] for one in accounts["items"] if one["profile"] == "second")


def settle(life: Life, service: Service) -> None:
    """Wait until every book has come to its end, or waits for its owner."""
    books = ("Voucher", "Key", "Old")
    for word in books:
        service.until_state(f"{MARK} {word}", "done")
    for word in ("Wrong", "Short", "Letters"):
        service.until_job(f"{MARK} {word}", "waiting")
    titles = {"New": "completed", "Older": "completed"}
    for word, status in titles.items():
        service.until(
            lambda word=word, status=status: any(
                one["title"] == f"{MARK} {word}" and one["status"] == status
                for one in service.ask("library", limit=100)["items"]
            )
        )
    service.until(lambda: len(service.said("account.paused")) >= 1)


def look_around(life: Life, service: Service) -> None:
    """Type every command that shows something."""
    commands = [
        ("audible", "status"),
        ("audible", "list"),
        ("status",),
        ("list",),
        ("jobs", "list"),
        *(("jobs", "log", job["id"]) for job in service.jobs()[:4]),
        *(("jobs", "show", job["id"]) for job in service.jobs()[:2]),
    ]
    with ThreadPoolExecutor(3) as several:
        for told in several.map(lambda words: life.types(*words), commands):
            assert told.document is not None, told
    assert life.types("audible", "status", as_text=True).exit == 0
    for words in (("config", "show", "--origin"), ("backups", "list", "--backup", str(life.house.backup))):
        assert life.types(*words, service=False).exit == 0
    life.ask_everything(service)


def lose_a_worker(life: Life, service: Service) -> None:
    """Let a worker crash while it holds a key."""
    long = life.title("B00LONGONE", "Long")
    plain = life.plain(long, times=250)
    folder = life.aside / "long"
    folder.mkdir()
    lock_aaxc(plain, folder / "long.aaxc", long.key, long.iv)
    (folder / "long.key").write_text(f"Key={long.key.hex()}\nIV={long.iv.hex()}\n")
    folder.rename(life.house.drops / f"{MARK} Long")
    service.until(lambda: (job := service.job(f"{MARK} Long")) and job["step"] in {"convert", "verify"})
    for pid in (service.pid, *descendants(service.pid)):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits), limits

    def shot() -> bool:  # more than once, if one was idle
        for pid in descendants(service.pid):
            if holds(pid, long.key.hex()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSEGV)
        return "killed by SIGSEGV" in service.talk()

    service.until(shot)


def crash(life: Life, service: Service, number: int) -> None:
    """Let the service itself crash."""
    life.note_database()
    family = descendants(service.pid)
    service.signal(number)
    assert service.ended() == -number
    harness.until_gone(family)
    told = (life.house.root / ("first.journal" if number == signal.SIGSEGV else "second.journal")).read_bytes()
    life.evidence.add("dump of a crash", signal.Signals(number).name, told[told.index(b"Fatal Python error") :])


def sign_out(life: Life, fake: FakeAudible, service: Service) -> None:
    """Sign out all accounts, with failures."""
    device = next(device for device in fake.devices if device.account is life.bo)
    for fault in ({"status": 500, "message": device.refresh_token}, {"html": True}, {"drop": True}):
        fake.fault("token", **fault)
        path = "accounts/second"
        assert life.told(service.http.delete(path), path).is_error
        life.learn(fake)
    for profile in ("main", "second"):
        assert life.types("audible", "logout", "--yes", "--profile", profile).exit == 0
    fake.deregister()
    assert life.told(service.http.delete("accounts/old?forced=true"), "accounts/old").status_code == 204
    life.learn(fake)
    assert not any(device.registered for device in fake.devices)


def convert_by_hand(life: Life) -> None:
    """Convert without the service: with the activation bytes of the settings, and with a wrong key."""
    title = life.title("B00BYHAND1", "Hand")
    folder = life.house.drops / f"{MARK} Hand"
    folder.mkdir()
    lock_aax(life.plain(title), folder / "hand.aax", life.bo.activation_bytes)
    (life.house.root / "credentials" / "audible.activation_bytes").write_text(life.bo.activation_bytes.hex())
    words = life.house.words(str(folder), str(life.house.drops / f"{MARK} Wrong"))[:-1]
    answer = life.types(*words, service=False)
    codes = [book.get("error", {}).get("code", "") for book in answer.document["books"]]
    assert codes == ["", "audible.key_wrong"], answer
    life.types("config", "show", service=False)


# --- what came out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", sorted(CHANNELS - {"cmdline"}))
def test_no_secret_shows(lived, channel):
    assert lived.evidence.found(lived.canaries, channel) == {}


def test_no_secret_stands_in_a_list_of_processes_but_where_the_owner_typed_it(lived):
    found = lived.evidence.found(lived.canaries, "cmdline")
    assert list(found.values()) == [
        {"authorization code"}
    ]  # `aiom4b audible finish URL`, which says that it is better not given
    (pid,) = found
    assert b"\0finish\0" in lived.evidence.seen("cmdline", pid)


def test_every_channel_was_looked_into(lived):
    mark = Canaries()
    mark.add("mark", MARK)
    mark.add("mark", "Current thread 0x", "authfile.")
    assert lived.evidence.channels == CHANNELS | {"private files"}
    assert {channel for channel in CHANNELS if not lived.evidence.found(mark, channel)} == set()
    for number in (signal.SIGSEGV, signal.SIGABRT):
        assert b"Current thread 0x" in lived.evidence.seen("dump of a crash", number.name)
    for logger in (b"peewee", b"asyncio"):
        assert b'"logger": "%s"' % logger in lived.evidence.seen("log file", "own.log")
        assert re.search(rb'^<7>.*"logger": "%s"' % logger, lived.evidence.seen("stderr", "first"), re.MULTILINE)
    for asked, codes in REFUSALS.items():
        assert set(re.findall(rb'"code": "([a-z._]+)"', lived.evidence.seen("refusals", asked))) == codes


def test_secrets_lie_only_where_nobody_else_may_read(lived):
    found = lived.evidence.found(lived.canaries, "private files")
    folders = {Path(path).relative_to(lived.house.root).parts[0] for path in found}
    assert folders == {"state", "library", "backups"}
    names = set().union(*found.values())
    assert {"code verifier", "key of New", "key of Voucher", "key of Key", "activation bytes", "address"} <= names
    assert not names & {"access token", "refresh token", "signing token", "private key", "cookie"}  # they lie encrypted


def test_a_crash_leaves_no_memory_behind(lived):
    assert list(lived.house.root.rglob("core*")) == []
    assert [path for path in lived.temporary.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("secret", ["Atna|3f9c0d1b2a", os.urandom(16), "k" * 70 + "v" * 70])
def test_the_search_finds_a_secret_in_every_spelling(secret):
    canaries = Canaries()
    canaries.add("it", secret)
    text = secret if isinstance(secret, str) else secret.hex()
    data = text.encode()
    spelled = {
        "plain": data,
        "JSON": json.dumps({"a": text}).encode(),
        "Base64": base64.b64encode(b"xy" + data + b"z"),
        "UTF-16": b"\xff\xfe" + text.encode("utf-16-le"),
        "big-endian UTF-16": text.encode("utf-16-be"),
        "hexadecimal": b"0" + data.hex().encode(),
        "quoted": str(httpx.URL("https://x", params={"a": text})).encode(),
        "the front": data[: len(data) - len(data) // 2] if len(data) > 100 else data,
        "the end": data[len(data) // 2 :] if len(data) > 100 else data,
    } | ({"bytes": secret, "repr": repr(secret).encode()} if isinstance(secret, bytes) else {})
    assert [name for name, form in spelled.items() if not canaries.found_in(b"some" + form + b"thing")] == []
    assert canaries.found_in(os.urandom(10_000)) == set()
