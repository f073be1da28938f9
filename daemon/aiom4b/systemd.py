"""What does systemd hear from us? Ready, stopping, a status line, and signs of life; nothing where it doesn't listen."""

from __future__ import annotations

import os
import time

import sdnotify

_STATUS_BYTES = 200


class Notifier:
    """Speaks to the service manager that started us, by sd_notify(3). Without one every call is quiet."""

    def __init__(self) -> None:
        # Without an address the library would lose its socket.
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        self._told = ""
        # Workers must not speak in our name, nor inherit a watchdog.
        os.environ.pop("NOTIFY_SOCKET", None)
        self._period = _watchdog_period()

    @property
    def watchdog_seconds(self) -> float | None:
        """How often a sign of life is wanted: half of what systemd waits for, or None if it doesn't."""
        return self._period

    def ready(self) -> None:
        """Tell that the socket answers and the watcher stands."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Tell that we are ending."""
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """Tell that settings are being read anew; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """Show one line in `systemctl status`, cut to 200 bytes; the same line is not sent twice."""
        if line != self._told:
            self._told = line
            short = line.replace("\n", " ").encode("utf-8", "backslashreplace")[:_STATUS_BYTES]
            self._send("STATUS=" + short.decode("utf-8", "ignore"))

    def close(self) -> None:
        """Say nothing any more."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _send(self, text: str) -> None:
        if self._notifier is not None:
            # The library encodes Latin-1 and swallows what that can't hold: so it is given the bytes of UTF-8 as Latin-1.
            self._notifier.notify(text.encode().decode("latin-1"))


def _watchdog_period() -> float | None:
    """Read what systemd set for this very process (sd_watchdog_enabled(3))."""
    interval, process = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not interval.isdecimal() or (process and process != str(os.getpid())):
        return None
    return int(interval) / 2_000_000
