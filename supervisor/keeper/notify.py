"""Tells systemd how the service does (sd_notify(3)). Only the keeper speaks: it is the main process, and NotifyAccess=main holds.

Without NOTIFY_SOCKET nothing is sent. A socket that does not take a datagram at once is no reason to wait or to fail:
a service must not hang on whoever watches it.
"""

import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

STATUS_LIMIT_CHARACTERS = 200
"""`systemctl status` shows one line."""

WATCHER_VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})


@dataclass(frozen=True)
class Notifier:
    """`address` is a path, or "@name" in the abstract namespace; None where nobody asked to be told.

    `watchdog_seconds`: within it systemd must hear `alive` again and again, or it ends the service; None: no watchdog.
    """

    address: str | None
    watchdog_seconds: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Notifier":
        """Returns the notifier that systemd's variables ask for; without them one that sends nothing."""
        usec = environ.get("WATCHDOG_USEC", "")
        is_asked = re.fullmatch("[1-9][0-9]{3,17}", usec)  # 0: nobody asks, and no loop shall turn without a pause
        return cls(environ.get("NOTIFY_SOCKET") or None, int(usec) / 1_000_000 if is_asked else None)

    def ready(self, status: str) -> None:
        self._send("READY=1", _status_line(status))

    def status(self, status: str) -> None:
        self._send(_status_line(status))

    def alive(self) -> None:
        """Tells the watchdog that the loop which calls this turns."""
        self._send("WATCHDOG=1")

    def reloading(self, status: str) -> None:
        """Tells that a reload begins; `ready` is to be called when it is over."""
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_usec}", _status_line(status))

    def stopping(self, status: str, extend_seconds: float) -> None:
        """Tells that the service stops, which may take that long: systemd extends its own limit by it."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(extend_seconds * 1_000_000)}", _status_line(status))

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        message = "\n".join(lines).encode()
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.setblocking(False)
            sender.sendto(message, address)


def _status_line(status: str) -> str:
    return "STATUS=" + " ".join(status.split())[:STATUS_LIMIT_CHARACTERS]
