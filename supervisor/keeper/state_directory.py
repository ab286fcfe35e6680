"""One keeper per state directory, and one owner of the status page's port: what is taken before anything is started.

The lock is a flock, so that it ends with its holders and no stale file can prevent a start. Redis inherits its
descriptor: as long as one of ours still writes these files, nobody else starts on them.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path

from bus.settings.reader import SettingsError
from bus.settings.shared import STATE_DIR
from host.own_folder import fault_of_own_folder
from host.redis_folder import DATA_FOLDER
from supervisor.settings.table import HTTP_HOST, HTTP_PORT

LOCK_NAME = "lock"
LOCK_PATIENCE_SECONDS = 3.0
"""A killed keeper's Redis, which holds the lock too, needs a moment to be gone."""

LOCK_POLL_SECONDS = 0.05
LISTEN_BACKLOG = 128
"""Connections that wait for the status page: Python's own default, and the kernel's former bound."""

PRIVATE_MODE = 0o700
OTHERS = 0o077


class AlreadyRunning(Exception):
    """Raised when another keeper, or its Redis, holds this state directory."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"another hashee-agent (pid {holder}) is running on this state directory: stop it with `hashee-agent stop`, "
            f"or give this one a {STATE_DIR.name} of its own"
        )


def make_private(path: Path) -> None:
    """Makes the directory, so that only we can enter it. Raises SettingsError that says what helps."""
    refuse_unusable(path)
    try:
        path.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
    except OSError as problem:
        raise unusable(f"{path}: {problem.strerror}") from None
    if _mode(path) & (PRIVATE_MODE | OTHERS) == PRIVATE_MODE:
        return
    try:
        path.chmod(PRIVATE_MODE)
        why = "does not keep mode 0700"
    except OSError as problem:
        why = f"refuses mode 0700 ({problem.strerror})"
    if (mode := _mode(path)) & (PRIVATE_MODE | OTHERS) != PRIVATE_MODE:
        raise unusable(f"the file system of {path} {why}, it stays {mode:04o}: name one on a local disk")


def refuse_unusable(path: Path) -> None:
    """Raises SettingsError where `make_private` certainly would. Changes nothing."""
    fault = fault_of_own_folder(path)
    if fault is not None:
        raise unusable(fault)
    for one in (path / name for name in (LOCK_NAME, DATA_FOLDER)):
        if os.path.lexists(one) and not os.access(one, os.R_OK | os.W_OK):
            whose = f"{one} belongs to uid {one.lstat().st_uid}, and this process is uid {os.geteuid()}"
            raise unusable(f"{whose}, as after a start by root: chown -R {os.geteuid()} {path}")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def unusable(what: str) -> SettingsError:
    """Returns the error of a state directory. `what`: what is wrong with it, and what helps."""
    return SettingsError(STATE_DIR.name, f"a directory that this user can write and nobody else can enter ({what})")


def take_lock(state_dir: Path, patience_seconds: float = LOCK_PATIENCE_SECONDS) -> int:
    """Takes the lock. Returns its descriptor: it is held until that is closed here and in every child that inherited it.

    Raises `AlreadyRunning`; SettingsError where the file system has no locks.
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
        except OSError as problem:
            os.close(descriptor)
            why = f"the file system of {state_dir} gives no lock ({problem.strerror})"
            raise unusable(f"{why}: name one on a local disk") from None
        else:
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except OSError as problem:
                os.close(descriptor)
                raise OSError(problem.errno, problem.strerror, str(state_dir / LOCK_NAME)) from None
            return descriptor


def listen(host: str, port: int) -> socket.socket:
    """Returns the status page's listening socket. Raises SettingsError that names the port or the host."""
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
