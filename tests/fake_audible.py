"""What does Audible answer? A stand-in on 127.0.0.1 that the real client takes for the service: signed requests, real vouchers.

    with FakeAudible(Title(aaxc=…)) as fake, all_to(fake.port):
        pasted = fake.sign_in(address)

It checks what the service checks (signature and its date, code verifier, who registered) and counts what may be counted:
``licences`` by title, ``requests`` by route (see `_ROUTES`), ``busiest`` how many at once. `fault` and `hold` make it misbehave.
Another process reaches the same through ``/__fake__/…``; run as a program it serves a small library to try by hand.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import audible
from audible.localization import LOCALE_TEMPLATES

import audible_account
import audible_documents as documents
import audible_files
from audible_account import Account, Device, SignIn
from audible_answers import Answer
from audible_documents import Document, Title
from audible_http import Request, Server
from loopback.audible_loopback import PORT, all_to

__all__ = ["Account", "Device", "FakeAudible", "Title", "all_to", "environment"]

ABOVE_THRESHOLD = "Customer [{customer}] is above threshold for content license grant count"
_PATIENCE = 60.0
_MARKETS = {place["domain"]: place["country_code"] for place in LOCALE_TEMPLATES.values()}

_ASIN = r"(?P<asin>\w+)"
_ROUTES = {
    "register": r"POST api\.(amazon|audible)\.(?P<tld>[a-z.]+)/auth/register",
    "token": r"POST api\.(amazon|audible)\.[a-z.]+/auth/token",
    "deregister": r"POST api\.(amazon|audible)\.[a-z.]+/auth/deregister",
    "profile": r"GET api\.(amazon|audible)\.[a-z.]+/user/profile",
    "library": r"GET api\.audible\.(?P<tld>[a-z.]+)/1\.0/library",
    "item": rf"GET api\.audible\.(?P<tld>[a-z.]+)/1\.0/library/{_ASIN}",
    "catalog": rf"GET api\.audible\.(?P<tld>[a-z.]+)/1\.0/catalog/products/{_ASIN}",
    "metadata": rf"GET api\.audible\.(?P<tld>[a-z.]+)/1\.0/content/{_ASIN}/metadata",
    "licence": rf"POST api\.audible\.(?P<tld>[a-z.]+)/1\.0/content/{_ASIN}/licenserequest",
    "aax": r"(HEAD|GET) cde-ta-g7g\.amazon\.com/FionaCDEServiceEngine/FSDownloadContent",
    "annotations": r"GET cde-ta-g7g\.amazon\.com/FionaCDEServiceEngine/sidecar",
    "cds": r"(HEAD|GET) cds\.audible\.(?P<tld>[a-z.]+)/download",
    "cdn": rf"(HEAD|GET) \w+\.cloudfront\.net/bk/{_ASIN}/own\.\w+",
    "cover": rf"GET m\.media-amazon\.com/images/I/{_ASIN}\..*",
    "pdf": rf"GET www\.audible\.(?P<tld>[a-z.]+)/companion-file/{_ASIN}",
    "activation": r"GET www\.audible\.com/license/token",
}
"""The routes by name. ``children`` are requests for the library of a ``parent_asin``; they are counted apart."""
_OPEN_TO_ALL = {"register", "token", "deregister", "profile", "cds", "cdn", "cover"}


def environment(port: int, package: str | Path) -> dict[str, str]:
    """Return what a process needs in its environment to find the fake; ``package`` is where its other modules are."""
    here = Path(__file__).parent / "loopback"
    return {PORT: str(port), "PYTHONPATH": os.pathsep.join((str(here), str(package)))}


@dataclass(kw_only=True)
class Fault:
    """What the next ``times`` requests of a route get, of one title or any.

    A ``status`` with a ``message`` (and Retry-After), ``html`` with 200, no answer at all (``drop``), or, of a transfer, a
    ``content_type`` of its own, or an end after ``cut`` bytes.
    """

    route: str
    times: int = 1
    asin: str = ""
    status: int = 0
    message: str = ""
    retry_after: int | str | None = None
    html: bool = False
    drop: bool = False
    cut: int | None = None
    content_type: str = ""


@dataclass
class _Hold:
    route: str
    asin: str
    after: int


class FakeAudible:
    """One service with its customers. All of its memory is here, and outlives the processes that are tested.

    ``clock_ahead`` is how far its clock is ahead of ours. ``log`` holds method, host and path of each request, no secret.
    """

    def __init__(self, *titles: Title, account: Account | None = None, port: int = 0) -> None:
        self.account = account or Account()
        self.titles: dict[str, Title] = {}
        self.devices: list[Device] = []
        self.licences: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.busiest: Counter[str] = Counter()
        self.log: list[str] = []
        self.clock_ahead = timedelta()
        self.sign_ins: dict[str, SignIn] = {}
        self.state_token = 1_700_000_000_000
        self._faults: list[Fault] = []
        self._holds: list[_Hold] = []
        self._held: list[str] = []
        self._busy: Counter[str] = Counter()
        self._state = threading.Condition()
        self._server = Server(self._answer, lambda: self.clock_ahead, port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-audible")
        self.add(*titles)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.end()
        self._thread.join()
        for failure in self._server.failures:  # else a mistake of the fake looks like a broken connection
            raise failure

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_ahead

    # --- what is there -------------------------------------------------------------------------------------------------

    def add(self, *titles: Title) -> None:
        """Put titles into the library; a later one with the same ASIN takes its place."""
        for title in titles:
            title.changed = self._next_token()
            self.titles[title.asin] = title

    def many(self, number: int) -> None:
        """Put many titles into the library, without audio."""
        self.add(*(Title(asin=f"B1{n:08}", title=f"Volume {n}", subtitle=None) for n in range(number)))

    def change(self, asin: str, **facts: object) -> Title:
        """Change fields of a title, and let the next sync notice."""
        title = self.titles[asin]
        documents.change(title, facts)
        title.changed = self._next_token()
        return title

    def revoke(self, asin: str) -> None:
        """Take a title back."""
        self.change(asin, status="Revoked")

    def device(self, market: str = "us", account: Account | None = None) -> Device:
        """Register a device without the two steps: ``device().identity()`` is what an auth file of it holds."""
        made = Device(account=account or self.account, serial=os.urandom(20).hex(), market=market)
        self.devices.append(made)
        return made

    def sign_in(self, address: str, account: Account | None = None) -> str:
        """Open the address of a sign-in as its owner would in a browser; returns the address to paste. It is good for once."""
        pasted, allowed = audible_account.signed_in(address, account or self.account)
        self.sign_ins[audible_account.code_of(pasted)] = allowed
        return pasted

    def deregister(self) -> None:
        """End all registrations, as the owner can on the web site."""
        for device in self.devices:
            device.registered = False

    def secrets(self) -> list[str]:
        """Return texts that may show nowhere: tokens, keys, the codes of sign-ins."""
        found = [text for device in self.devices for text in device.secrets()]
        found += [value.hex() for title in self.titles.values() for value in (title.key, title.iv)]
        return [*found, *self.sign_ins, "own-signature", "own-cookie", "own-store-cookie"]

    def _next_token(self) -> int:
        self.state_token += 1
        return self.state_token

    # --- how it misbehaves ---------------------------------------------------------------------------------------------

    def fault(self, route: str, **facts: Any) -> None:
        """Let the next requests of a route go wrong (see `Fault`)."""
        assert route == "children" or route in _ROUTES, route
        with self._state:
            self._faults.append(Fault(route=route, **facts))

    def hold(self, route: str = "cdn", asin: str = "", after: int = 0) -> None:
        """Let requests of a route wait until `release`: a transfer after so many bytes, others before they are answered."""
        with self._state:
            self._holds.append(_Hold(route, asin, after))

    def wait_held(self, number: int = 1, seconds: float = 20.0) -> None:
        """Wait until so many requests are being held."""
        with self._state:
            assert self._state.wait_for(lambda: len(self._held) >= number, seconds), self.log

    def release(self) -> None:
        """Let all go on; returns once nothing is held any more, so that the next hold finds only its own."""
        with self._state:
            self._holds.clear()
            self._state.notify_all()
            assert self._state.wait_for(lambda: not self._held, _PATIENCE), self._held

    def state(self) -> Document:
        """Return what another process may want to know, without secrets."""
        return {
            "licences": dict(self.licences),
            "requests": dict(self.requests),
            "busiest": dict(self.busiest),
            "held": list(self._held),
            "registered": sum(device.registered for device in self.devices),
            "log": list(self.log),
        }

    # --- one request -----------------------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> None:
        if request.path.startswith("/__fake__/"):
            self._told(request)
            return
        found = ((name, re.fullmatch(pattern, request.what)) for name, pattern in _ROUTES.items())
        name, match = next(((name, match) for name, match in found if match), ("unknown", None))
        names = match.groupdict() if match else {}
        asin = names.get("asin") or request.query.get("key") or request.query.get("asin") or ""
        if name == "library" and "parent_asin" in request.query:
            name, asin = "children", request.query["parent_asin"]
        with self._state:
            self.requests[name] += 1
            self.licences.update([asin] if name == "licence" else ())
            self.log.append(f"{request.what} {request.headers.get('range', '')}".rstrip())
            self._busy[name] += 1
            self.busiest[name] = max(self.busiest[name], self._busy[name])
            fault = next((one for one in self._faults if one.route == name and one.asin in {"", asin}), None)
            if fault:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
        try:
            if name not in {"cdn", "cds"}:
                self.wait(name, asin)
            if fault and self._went_wrong(request, fault):
                return
            device = self._device(request)
            if device is None and name not in _OPEN_TO_ALL:
                request.send(403, {"message": "Message could not be authenticated"})
                return
            market = _MARKETS.get(names.get("tld") or "com", "us")
            Answer(self, request, device, asin, market, fault).give(name)
        finally:
            with self._state:
                self._busy[name] -= 1

    def _device(self, request: Request) -> Device | None:
        """Return who asks: by a signature that is not older than ten minutes, or by a token."""
        for device in self.devices:
            if not device.registered:
                continue
            if request.headers.get("x-amz-access-token") == device.access_token:
                return device
            if request.headers.get("x-adp-token") == device.adp_token:
                signature = request.headers.get("x-adp-signature", "")
                at = device.signed_at(request.method, request.target, request.body, signature)
                return device if at and abs(at - self.now()) < timedelta(minutes=10) else None
        return None

    def _went_wrong(self, request: Request, fault: Fault) -> bool:
        if fault.drop:
            request.hang_up()
        elif fault.html:
            request.send(200, b"<html><body>Sorry! Something went wrong.</body></html>", "text/html")
        elif fault.status:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            message = fault.message or {403: "Message could not be authenticated", 429: "Rate exceeded"}.get(
                fault.status
            )
            message = (message or "Something is wrong").format(customer=self.account.customer)
            request.send(fault.status, {"message": message}, **headers)
        else:
            return False
        return True

    def hold_after(self, route: str, asin: str) -> int | None:
        """Return after how many bytes a transfer is to wait, None if it isn't."""
        hold = self._hold_of(route, asin)
        return None if hold is None else hold.after

    def wait(self, route: str, asin: str) -> None:
        """Wait while a request is being held."""
        if self._hold_of(route, asin):
            with self._state:
                self._held.append(asin)
                self._state.notify_all()
                self._state.wait_for(lambda: not self._hold_of(route, asin), _PATIENCE)
                self._held.remove(asin)
                self._state.notify_all()

    def _hold_of(self, route: str, asin: str) -> _Hold | None:
        return next((one for one in self._holds if one.route == route and one.asin in {"", asin}), None)

    def _told(self, request: Request) -> None:
        """Obey another process: ``POST /__fake__/<method>`` with its arguments as a document, ``GET /__fake__/state``."""
        name = request.path.rpartition("/")[2]
        allowed = {"fault", "hold", "release", "change", "revoke", "deregister", "sign_in", "state", "many"}
        if name not in allowed:
            request.send(404, {"message": f"one of {sorted(allowed)}"})
            return
        try:
            answer = getattr(self, name)(**json.loads(request.body or b"{}"))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            request.send(400, {"message": repr(error)})
            return
        request.send(200, answer if isinstance(answer, dict | str) else {})


def main() -> None:
    """Serve a small library until the process is ended."""
    with tempfile.TemporaryDirectory() as folder:
        plain = audible_files.plain_book(Path(folder, "plain.m4b"))
        locked = audible_files.lock_aaxc(plain, Path(folder, "own.aaxc"))
        old = audible_files.lock_aax(plain, Path(folder, "own.aax"))
        titles = [
            Title(aaxc=locked, aax=old, pdf=True, annotations=True),
            Title(asin="B00AIOM4B2", title="The Old Lighthouse", aax=old),
        ]
        with FakeAudible(*titles) as fake:
            print(f"A fake of Audible (client {audible.__version__}) answers at 127.0.0.1:{fake.port}.")
            print("Let the service's processes find it with this in their environment:")
            for name, value in environment(fake.port, Path(__file__).parents[1] / "daemon").items():
                print(f"  {name}={value}")
            print("What a browser would do, for the address that `aiom4b audible login` prints:")
            print(f"""  curl -s http://127.0.0.1:{fake.port}/__fake__/sign_in -d '{{"address": "…"}}'""")
            threading.Event().wait()


if __name__ == "__main__":
    main()
