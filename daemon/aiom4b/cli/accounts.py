"""Who is signed in at Audible? `aiom4b audible login`, `finish`, `import`, `status` and `logout`."""

from __future__ import annotations

import base64
import os
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, BinaryIO

import typer

from aiom4b.cli import output
from aiom4b.cli.client import Document, asking
from aiom4b.cli.options import Json, Socket
from aiom4b.cli.wording import ago, ahead, columns, explained, moment
from aiom4b.errors import Exit, NeedsAttention

Profile = Annotated[
    str, typer.Option(metavar="NAME", help="Which account, where there are several; letters, digits, - and _.")
]
Country = Annotated[
    str,
    typer.Option(metavar="CC", help="The market: us, uk, de, fr, ca, it, au, in, jp, es or br.", show_default=False),
]
_MOST_BYTES = 150_000  # of a file with accounts; what the service takes at once, in base64
_LONGEST_ADDRESS = 16_384


def login(
    *,
    country: Country,
    profile: Profile = "main",
    username: Annotated[
        bool, typer.Option("--username", help="With the name of an old Audible account (us, uk and de), not Amazon's.")
    ] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Begin to sign in: prints the address to open in a browser. Your password goes to Amazon only."""
    check_profile(profile)
    with asking(socket, json=json) as client:
        wanted = {"country": country.lower(), "with_username": username}
        address = client.post(f"accounts/{profile}/sign-in", wanted)["address"]
        if json:
            output.print_json({"ok": True, "profile": profile, "address": address})
            return
        output.talk("1. Open this address in a browser, on any machine, and sign in:\n")
        output.print_text(address)
        output.talk(
            "\n2. The browser then shows a page that can't be found. That is as it should be: copy its whole address.\n"
            f"3. Run `{_finishing(profile)}` within a few minutes, and paste the address there."
        )


def finish(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]", help="Better not given here, where others see it: it is asked for, or read from stdin."
        ),
    ] = None,
    *,
    profile: Profile = "main",
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Finish to sign in with the address of the page that could not be found.

    Without URL the address is read from standard input, so that it stands in no history and no list of processes.
    """
    check_profile(profile)
    with asking(socket, json=json) as client:
        if url is None and _at_a_terminal() and not json:
            output.talk("Paste the address, then press Enter:")
        given = (url if url is not None else _read_address()).encode(errors="replace").decode()
        address = "".join(given.split())  # some terminals break long lines where they are copied
        if not address:
            raise NeedsAttention(
                "signin.no_address",
                "There is no address.",
                remedy="Copy all of the browser's address bar after you have signed in, and paste it.",
                exit=Exit.USAGE,
            )
        account = client.post(f"accounts/{profile}/sign-in/finish", {"address": address}, errand=True)
        _tell_signed_in(account, json=json)


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="audible-cli's file, or Libation's AccountsSettings.json.")
    ],
    *,
    profile: Profile = "main",
    country: Annotated[
        str | None, typer.Option(metavar="CC", help="The market, where the file has several accounts.")
    ] = None,
    password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the password of an encrypted file on its first line.")
    ] = None,
    password_prompt: Annotated[
        bool, typer.Option("--password-prompt", help="Ask for the password of an encrypted file.")
    ] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Take over the sign-in of audible-cli or Libation. They share it from then on: `logout` ends it for both."""
    check_profile(profile)
    if password_file is not None and password_prompt:
        raise typer.BadParameter("can't be given together with --password-file", param_hint="--password-prompt")
    with asking(socket, json=json) as client:
        body: Document = {"country": country.lower() if country else None}
        content = _content(file)
        try:
            body["document"] = content.decode()
        except UnicodeDecodeError:
            body["document_b64"] = base64.b64encode(content).decode("ascii")
        if password_file is not None:
            body["password"] = _first_line(password_file)
        elif password_prompt:
            body["password"] = typer.prompt("Password of the file", hide_input=True, err=True)
        account = client.post(f"accounts/{profile}/import", body, errand=True)
        _tell_signed_in(account, json=json)


def status(*, socket: Socket = None, json: Json = False) -> None:
    """Show each account: who it is, how old the sign-in is, what Audible was asked for, and what is throttled."""
    with asking(socket, json=json) as client:
        answer = client.get("accounts")
        if json:
            output.print_json({"ok": True, **answer})
            return
        now = datetime.now(UTC)
        blocks = ["\n".join(columns(_facts(account, now))) for account in answer["items"]]
        if blocks:
            output.print_text("\n\n".join(blocks))
        else:
            output.talk("Nobody is signed in. `aiom4b audible login --country CC` begins.")


def logout(
    *,
    profile: Profile = "main",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even where Audible can't be told; the device then stays in Amazon's list.")
    ] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Sign out: Audible forgets this device, and this machine the account. Books, backups and other devices stay."""
    check_profile(profile)
    with asking(socket, json=json) as client:
        if not yes:
            if json or not _at_a_terminal():
                raise NeedsAttention(
                    "signin.unconfirmed",
                    "Signing out has to be confirmed.",
                    remedy="Add --yes.",
                    exit=Exit.USAGE,
                )
            if not typer.confirm(f"Sign out {profile}?", err=True):
                raise typer.Exit(Exit.FAILED)
        client.delete(f"accounts/{profile}" + ("?forced=true" if force else ""), errand=True)
        if json:
            output.print_json({"ok": True, "profile": profile})
        else:
            output.print_text(f"signed out: {profile}")


def check_profile(name: str | None) -> None:
    """Refuse what can't be the name of an account; raises ``typer.BadParameter``."""
    if name is not None and not re.fullmatch("[A-Za-z0-9_-]{1,64}", name):
        raise typer.BadParameter("takes letters, digits, - and _", param_hint="--profile")


def _finishing(profile: str) -> str:
    return "aiom4b audible finish" + (f" --profile {profile}" if profile != "main" else "")


def _tell_signed_in(account: Document, *, json: bool) -> None:
    if json:
        output.print_json({"ok": True, "account": account})
        return
    output.print_text(f"signed in: {account['profile']}, {account['owner'] or 'unnamed'} ({account['country']})")
    output.talk("The library is looked through now; `aiom4b audible list` shows it.")


def _at_a_terminal() -> bool:
    return _stdin().isatty()


def _stdin() -> BinaryIO:
    return sys.stdin.buffer


def _read_address() -> str:
    stdin = _stdin()
    given = stdin.readline(_LONGEST_ADDRESS) if stdin.isatty() else stdin.read(_LONGEST_ADDRESS)
    return given.decode(errors="replace")


def _content(path: str) -> bytes:
    """Return what stands in a file with accounts; raises what `translated` raises, NeedsAttention ``authfile.too_large``."""
    from aiom4b.adapters.files import translated

    with translated(os.path.abspath(path), "reading"), open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NeedsAttention(
            "authfile.too_large",
            f"{path} is too large for a file with accounts.",
            remedy="Name audible-cli's file of one account, or Libation's AccountsSettings.json.",
            path=path,
        )
    return content


def _first_line(path: str) -> str:
    try:
        return _content(path).decode().split("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise NeedsAttention(
            "authfile.password", f"The password in {path} is not UTF-8.", remedy="Save the file as UTF-8.", path=path
        ) from None  # its cause would hold the password


def _facts(account: Document, now: datetime) -> list[tuple[str, str]]:
    """Return label and text for each line about an account."""
    lines = [("profile", str(account["profile"]))]
    if account["device"]:
        lines.append(("account", f"{account['owner'] or 'unnamed'}, market {account['country']}"))
        lines.append(("device", account["device"] + _past(", registered ", account["registered"], now)))
        lines.append(("token", _token(account["token_expires"], now)))
        lines.append(("stored", "encrypted" if account["encrypted"] else "not encrypted (audible.password)"))
        lines.append(("titles", str(account["titles"])))
        synced = _past("", account["last_sync"], now) or "never"
        lines.append(("synced", synced + _past("; the whole library ", account["last_full_sync"], now)))
        lines.append(("licences", f"{account['licences_today']} of {account['licences_allowed']} in 24 hours"))
    if account["pending"]:
        lines.append(("sign-in", f"begun; `{_finishing(account['profile'])}` completes it"))
    for pause in account["pauses"]:
        until = datetime.fromisoformat(pause["until"])
        if until <= now:
            continue
        lines.append(("waits", f"{pause['cause']}, until {moment(pause['until'])} ({ahead(until, now)})"))
        lines += [("", line) for line in _with_code(pause["error"])]
    if account["error"]:
        lines += [("problem" if not place else "", line) for place, line in enumerate(_with_code(account["error"]))]
    return lines


def _with_code(problem: Document) -> list[str]:
    return explained({**problem, "message": f"{problem['message']} [{problem['code']}]"}, 0)


def _past(before: str, at: str | None, now: datetime) -> str:
    return "" if at is None else f"{before}{moment(at)} ({ago(datetime.fromisoformat(at), now)})"


def _token(expires: str | None, now: datetime) -> str:
    if expires is None:
        return "none yet; it is fetched when it is needed"
    at = datetime.fromisoformat(expires)
    return f"ends {ahead(at, now)}; it is renewed when it is needed" if at > now else "renewed when it is needed"
