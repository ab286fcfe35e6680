"""One keeper per state directory, and one owner of the status page's port: what is taken before anything is started.

The lock is a flock, so that it ends with its holders and no stale file can prevent a start. Redis inherits its
descriptor: as long as one of ours still writes these files, nobody else starts on them.
"""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from supervisor.config import HTTP_HOST, HTTP_PORT, STATE_DIR, SettingsError

LOCK_NAME = "lock"
LOCK_PATIENCE_SECONDS = 3.0  # a killed keeper's Redis needs a moment to be gone
LOCK_POLL_SECONDS = 0.05
LISTEN_BACKLOG = 128
PRIVATE_MODE = 0o700


class AlreadyRunning(Exception):
    """Another keeper, or its Redis, holds this state directory."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"another hashee-agent (pid {holder}) is running on this state directory")


def make_private(path: Path) -> None:
    """The directory exists, mode 0700, and is ours to write. Raises SettingsError."""
    try:
        path.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
        path.chmod(PRIVATE_MODE)
    except OSError as problem:
        raise SettingsError(STATE_DIR.name, f"a directory that can be written ({problem.strerror})") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(STATE_DIR.name, "a directory that can be written")


def take_lock(state_dir: Path, patience_seconds: float = LOCK_PATIENCE_SECONDS) -> int:
    """The lock's descriptor, held until it is closed here and in every child that inherited it.

    Raises `AlreadyRunning`.
    """
    descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                raise AlreadyRunning(holder) from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


def listen(host: str, port: int) -> socket.socket:
    """The status page's listening socket. Raises SettingsError that names the port or the host."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise SettingsError(HTTP_HOST.name, HTTP_HOST.expectation) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except OSError as problem:
        listener.close()
        raise _cannot_listen(problem, port) from None
    return listener


def _cannot_listen(problem: OSError, port: int) -> SettingsError:
    if problem.errno == errno.EADDRINUSE:
        return SettingsError(HTTP_PORT.name, f"a free port ({port} is in use), or 0 for any")
    if problem.errno == errno.EACCES:
        return SettingsError(HTTP_PORT.name, f"a port that this user may listen on ({port} is not)")
    return SettingsError(HTTP_HOST.name, f"an address of this machine ({problem.strerror})")
