"""How does a test own Audible books with the real service? It starts that against the fake, signs in as an owner does, and buys.

What is asked for is typed as people do, in processes of their own, and looked at over the socket, which is quicker; a kill
ends the service and all its workers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiom4b
import audible_files
import fake_audible
from fake_audible import Account, FakeAudible, Title
from household import PROGRAM, Answer, House, real_program
from running import Service, running, socket

PACKAGE = Path(aiom4b.__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Bought:
    """A title of the fake's library, and the plain book that its audio was made from."""

    title: Title
    plain: Path

    @property
    def asin(self) -> str:
        return self.title.asin


def bought(folder: Path, number: int = 1, *, aax: bool = False, minutes: float = 0.1, **facts) -> Bought:
    """Make a title with audio and keys of its own; ``facts`` are fields of `Title`. 20 kB a second where it is long."""
    asin, name = f"B00OWNED{number:02}", f"Volume {number}"
    folder.mkdir(exist_ok=True)
    long = {"rate": 44100, "channels": 2, "times": round(10 * minutes)} if minutes > 0.1 else {}
    atoms = {"CDEK": asin, "©nam": name, "©alb": name, "@sti": name}
    plain = audible_files.plain_book(folder / f"{asin}.m4b", seed=number, atoms=atoms, **long)
    key, iv = bytes([number]) * 16, bytes([100 + number]) * 16
    title = Title(**{"asin": asin, "title": name, "subtitle": None, "key": key, "iv": iv} | facts)
    if aax:
        title.aax = audible_files.lock_aax(plain, folder / f"{asin}.aax")
    else:
        title.aaxc = audible_files.lock_aaxc(plain, folder / f"{asin}.aaxc", key, iv)
    return Bought(title=title, plain=plain)


@contextmanager
def serving(house: House, fake: FakeAudible) -> Iterator[Service]:
    """Start the service so that the fake is all it knows of the internet; it ends in order unless it was killed."""
    with running(house, environment=fake_audible.environment(fake.port, PACKAGE)) as service:
        yield service


def killed(service: Service, fake: FakeAudible) -> None:
    """End the service as a power cut does, while the fake holds what it holds; afterwards that holds nothing."""
    service.kill()
    fake.release()


# --- signing in --------------------------------------------------------------------------------------------------------


def begun(service: Service, profile: str = "main") -> str:
    """Begin to sign in, and return the address to open."""
    answer = service.types("audible", "login", "--country", "us", "--profile", profile)
    assert answer.exit == 0, answer
    return answer.document["address"]


def finished(service: Service, pasted: str, profile: str = "main") -> Answer:
    """Finish to sign in: the address is pasted into standard input."""
    words = ["audible", "finish", "--profile", profile, "--socket", str(socket(service.house)), "--json"]
    return real_program(service.house, words, input=f"{pasted}\n".encode())


def signed_in(service: Service, fake: FakeAudible, profile: str = "main", account: Account | None = None) -> None:
    """Sign in in two steps, and wait until the library is known."""
    before = len(service.said("library.synced"))
    answer = finished(service, fake.sign_in(begun(service, profile), account), profile)
    assert answer.exit == 0, answer
    service.until(lambda: len(service.said("library.synced")) > before)


def taken_over(service: Service, fake: FakeAudible, profile: str = "main", account: Account | None = None) -> None:
    """Sign in with a file of audible-cli; the library is looked through from then on."""
    file = service.house.root / f"{profile}.json"
    file.write_text(json.dumps(fake.device(account=account).identity()))
    answer = service.types("audible", "import", str(file), "--profile", profile)
    assert answer.exit == 0, answer


# --- asking ------------------------------------------------------------------------------------------------------------


def titles(service: Service) -> dict[str, dict]:
    """Return what is told of the titles of the library, by ASIN."""
    return {title["asin"]: title for title in service.ask("library")["items"]}


def standing(service: Service, profile: str = "main") -> dict:
    """Return how an account stands."""
    return next(account for account in service.ask("accounts")["items"] if account["profile"] == profile)


def read(service: Service, *words: str) -> str:
    """Return what ``aiom4b …`` shows a person, as one line."""
    shown = [*PROGRAM, *words, "--socket", str(socket(service.house))]
    done = subprocess.run(shown, env=service.house.environment(), capture_output=True, check=True, timeout=60)
    return " ".join(done.stdout.decode().split())


def job_of(service: Service, asin: str, kind: str = "download") -> dict | None:
    """Return the newest job of a title."""
    found = [job for job in service.jobs() if job["asin"] == asin and job["kind"] == kind]
    return found[-1] if found else None


def until_waits(service: Service, asin: str, code: str, kind: str = "download") -> dict:
    """Return the job of a title once it waits for this reason."""

    def waiting() -> dict | None:
        job = job_of(service, asin, kind)
        return job if job and job["status"] == "waiting" and job["error"]["code"] == code else None

    return service.until(waiting)


def until_step(service: Service, asin: str, *steps: str) -> dict:
    """Return the job that makes the book of a title, in the middle of one of these steps."""

    def there() -> dict | None:
        job = job_of(service, asin, "convert")
        return job if job and job["status"] == "running" and job["step"] in steps else None

    return service.until(there)


def until_books(service: Service, *asins: str) -> list[dict]:
    """Return the jobs that made these titles' books once they all are there and nothing is left of their downloads."""

    def made() -> list[dict] | None:
        found = [job_of(service, asin, "convert") for asin in asins]
        done = all(job and job["status"] == "completed" for job in found)
        return [job for job in found if job] if done and not leftovers(service.house) else None

    return service.until(made)


def leftovers(house: House) -> list[str]:
    """Return what lies in the folder of downloads."""
    place = house.library / ".aiom4b" / "downloads"
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))
