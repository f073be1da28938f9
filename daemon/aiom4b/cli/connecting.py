"""Where does the service answer? The usual places of its socket, and what it means when nobody is there."""

from __future__ import annotations

import os
import socket

from aiom4b.errors import Exit, NeedsAttention, Transient

VARIABLE = "AIOM4B_PATHS__SOCKET"
SYSTEM_SOCKET = "/run/aiom4b/aiom4b.sock"
_START = "Start it with `systemctl start aiom4b`, or `aiom4b run` in a terminal; --socket names another place."


def usual_places() -> tuple[str, ...]:
    """Return where the service of this user and that of the system would be, without a look at the settings."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = (os.path.join(runtime, "aiom4b", "aiom4b.sock"),) if os.path.isabs(runtime) else ()
    return (*own, SYSTEM_SOCKET)


def connect(place: str, timeout: float) -> socket.socket | None:
    """Return a connection, or None where nobody listens.

    Raises NeedsAttention ``service.not_permitted`` (exit 77) and ``service.socket``, Transient ``service.silent``.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(place)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        return None
    except PermissionError as error:
        connection.close()
        raise NeedsAttention(
            "service.not_permitted",
            f"You may not talk to the service at {place}.",
            remedy="Become a member of the group that owns the socket (usually aiom4b), and log in again.",
            path=place,
            exit=Exit.NOT_PERMITTED,
        ) from error
    except BlockingIOError as error:  # its queue of connections is full
        connection.close()
        raise silent() from error
    except OSError as error:
        connection.close()
        raise NeedsAttention(
            "service.socket",
            f"The socket {place} can't be used: {error.strerror or error}.",
            remedy="Name the service's socket with --socket; its path may have 107 bytes at most.",
            path=place,
        ) from error
    return connection


def silent() -> Transient:
    """Return the error of a service that is there and doesn't answer."""
    return Transient(
        "service.silent",
        "The service doesn't answer.",
        remedy="Try again; if that doesn't help, look into its log and restart it.",
    )


def configured_place(tried: tuple[str, ...]) -> str:
    """Return ``paths.socket`` of the settings. Raises Transient ``service.absent`` if they are broken."""
    from aiom4b.config import InvalidSettings, load

    try:
        return load(None, {}).paths.socket
    except InvalidSettings as error:
        raise absent(tried, " The settings can't be read either: `aiom4b config check` shows why.") from error


def absent(places: tuple[str, ...], further: str = "") -> Transient:
    """Return the error of a service that answers at none of these places."""
    where = " or ".join(dict.fromkeys(places))
    reason = f"No service answers at {where}.{further}"
    return Transient("service.absent", reason, remedy=_START, exit=Exit.NO_DAEMON)
