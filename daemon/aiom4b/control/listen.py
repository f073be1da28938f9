"""Where does the service listen? On sockets that we bind or that systemd hands over, never open to more than they should be."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiom4b.adapters.files import displayable
from aiom4b.config import ApiSettings
from aiom4b.errors import Aiom4bError, Exit, Fatal, Transient

MODE = 0o660
"""Of the Unix socket: its owner and its group may ask."""
_BACKLOG = 128
_FIRST_HANDED_OVER = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket that listens. ``made`` is the path, device and inode of a socket file of ours, None for any other."""

    socket: socket.socket
    made: tuple[str, int, int] | None = None

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        name = self.socket.getsockname()
        if isinstance(name, tuple):
            return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        return displayable(name)

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still ours."""
        self.socket.close()
        if self.made is not None:
            path, device, inode = self.made
            with suppress(OSError):  # gone already: that is all we want
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == (device, inode):
                    os.unlink(path)


def listeners(path: str, api: ApiSettings, environ: MutableMapping[str, str]) -> tuple[Listener, ...]:
    """Return everything to listen on: what systemd hands over, else a Unix socket at ``path``; and TCP if switched on.

    Call it while holding the lock of the state directory: the file of a service that is gone is removed. Raises Transient
    ``service.running`` (exit 75) when somebody answers at ``path``, Fatal ``socket.unusable`` when nobody can, and Fatal
    ``api.unusable`` and ``api.key_missing`` about TCP.
    """
    opened: list[Listener] = []
    try:
        opened += handed_over(environ) or [unix_listener(path)]
        if any(one.socket.family != socket.AF_UNIX for one in opened) and api.key is None:
            raise Fatal(
                "api.key_missing",
                "systemd hands over a network socket, which would be open to anybody: there is no api.key.",
                remedy="Set api.key, better as a systemd credential than in the file; or listen on a path only.",
            )
        opened += tcp_listeners(api)
    except Aiom4bError:
        for one in opened:
            one.close()
        raise
    return tuple(opened)


def handed_over(environ: MutableMapping[str, str]) -> list[Listener]:
    """Return the sockets that systemd opened for us (sd_listen_fds(3)); children shall not take them for theirs."""
    ours = environ.get("LISTEN_PID") == str(os.getpid())
    count = environ.get("LISTEN_FDS", "0")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    if not ours or not count.isdecimal():
        return []
    found = []
    for descriptor in range(_FIRST_HANDED_OVER, _FIRST_HANDED_OVER + int(count)):
        os.set_inheritable(descriptor, False)
        handed = socket.socket(fileno=descriptor)
        if handed.type != socket.SOCK_STREAM or not handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise Fatal(
                "socket.unusable",
                f"File descriptor {descriptor}, handed over by systemd, is not a listening stream socket.",
                remedy="Use ListenStream= and Accept=no in the .socket unit.",
            )
        handed.setblocking(False)
        found.append(Listener(socket=handed))
    return found


def unix_listener(path: str) -> Listener:
    """Return a Unix socket at ``path``, in the mode `MODE` from its first moment. Raises as `listeners` does."""
    try:
        # A folder that others can't enter, where we have to make it; systemd and the login make better ones.
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        _remove_stale(path)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Linux gives the file the mode of the socket less the umask, so that there is no moment when it is open to
            # all, and the umask, which belongs to every thread, stays as it is. Some umasks take too much away.
            os.fchmod(ours.fileno(), MODE)
            ours.bind(path)
            os.chmod(path, MODE)
            status = os.lstat(path)
            ours.listen(_BACKLOG)
        except BaseException:
            ours.close()
            raise
    except OSError as error:
        raise Fatal(
            "socket.unusable",
            f"The service can't listen at {displayable(path)}: {error.strerror or error}.",
            remedy="Set paths.socket to a path of at most 107 bytes in a folder that the service may write to.",
            path=path,
        ) from error
    return Listener(socket=ours, made=(path, status.st_dev, status.st_ino))


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone. Raises Transient ``service.running``, and OSError."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(0, "something else is there, which is not ours to remove")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            owner = "another process"  # so many are waiting there that we can't even get in the queue
        else:
            owner = f"process {_pid(probe)}"
    raise Transient(
        "service.running",
        f"Another service answers at {displayable(path)} already: {owner}.",
        remedy="Stop that one first, or give this one a socket, state, source and library of its own.",
        path=path,
        exit=Exit.TRY_LATER,
    )


def _pid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")


def tcp_listeners(api: ApiSettings) -> list[Listener]:
    """Return a socket for each address of ``api.host``; none if it is empty. Raises Fatal ``api.unusable``."""
    if not api.host:
        return []
    opened: list[Listener] = []
    try:
        for family, address in _addresses(api):
            ours = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            opened.append(Listener(socket=ours))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            ours.bind(address)
            ours.listen(_BACKLOG)
    except OSError as error:
        for one in opened:
            one.close()
        raise Fatal(
            "api.unusable",
            f"The service can't listen at {api.host}, port {api.port}: {error.strerror or error}.",
            remedy="Check api.host and api.port, and that no other program uses that port.",
        ) from error
    return opened


def _addresses(api: ApiSettings) -> Iterable[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    found = socket.getaddrinfo(api.host, api.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return dict.fromkeys((family, address) for family, _, _, _, address in found)
