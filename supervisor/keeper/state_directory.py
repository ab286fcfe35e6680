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

from bus.settings.places import CONTROL_SOCKET
from bus.settings.reader import SettingsError
from bus.settings.shared import STATE_DIR
from host.own_folder import fault_of_own_folder
from host.redis_folder import APPEND_ONLY_FOLDER, DATA_FOLDER, LOG_FILE, MANIFEST_FILE, REDIS_SOCKET, VERSION_FILE
from supervisor.settings.table import HTTP_HOST, HTTP_PORT

LOCK_NAME = "lock"
LOCK_PATIENCE_SECONDS = 3.0
"""A killed keeper's Redis, which holds the lock too, needs a moment to be gone."""

LOCK_POLL_SECONDS = 0.05
LISTEN_BACKLOG = 128
"""Connections that wait for the status page: Python's own default, and the kernel's former bound."""

FILE, FOLDER, NAME = "a file", "a folder", "a socket"
OURS = {
    LOCK_NAME: FILE,
    DATA_FOLDER: FOLDER,
    f"{DATA_FOLDER}/{LOG_FILE}": FILE,
    f"{DATA_FOLDER}/{VERSION_FILE}": FILE,
    f"{DATA_FOLDER}/{REDIS_SOCKET}": NAME,
    f"{DATA_FOLDER}/{APPEND_ONLY_FOLDER}": FOLDER,
    f"{DATA_FOLDER}/{APPEND_ONLY_FOLDER}/{MANIFEST_FILE}": FILE,
    "store.secret": FILE,
    "store.secret.next": FILE,
    "restore.journal": FILE,
    "restoring": FOLDER,
    "redis-seen.json": FILE,
    "grants.head": FILE,
    "files.key": FILE,
    "files.counts": FILE,
    CONTROL_SOCKET: NAME,
    "files.sock": NAME,
}
"""What stands where in a state directory, by the names that the rooms above spell (tests/supervisor/settings/test_state_place.py compares them).
Of a socket that is left any file is removed, but no folder."""

KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO, which nobody writes into"),
    (stat.S_ISSOCK, "a socket"),
)
UNENTERED = frozenset({errno.EACCES, errno.EPERM})

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
    for name, kind in OURS.items():
        refused = _unused(path / name, path) if name in (LOCK_NAME, DATA_FOLDER) else None
        if (fault := refused or _misplaced(path / name, kind)) is not None:
            raise unusable(fault)


def _unused(one: Path, state_dir: Path) -> str | None:
    """Returns what is to be said where this user may not use what stands there; else None."""
    if not os.path.lexists(one) or os.access(one, os.R_OK | os.W_OK):
        return None
    found, us = one.lstat(), os.geteuid()
    if found.st_uid != us:
        return f"{one} belongs to uid {found.st_uid}, and this process is uid {us}, as after a start by root: chown -R {us} {state_dir}"
    if stat.S_ISLNK(found.st_mode):
        return None  # to nothing
    return f"{one} has mode {stat.S_IMODE(found.st_mode):04o}, in which its owner cannot use it: chmod u+rwX {one}"


def _misplaced(path: Path, kind: str) -> str | None:
    """Returns what is to be said where something else stands under one of our names, which would hold up whoever opens it; else None."""
    if not os.path.lexists(path):
        return None
    try:
        mode = (path.lstat() if kind == NAME else path.stat()).st_mode
    except OSError as problem:
        if problem.errno in UNENTERED:  # told by who reads it
            return None
        return f"{path} is a link to nothing ({problem.strerror}): move it away"
    is_right = {FILE: stat.S_ISREG(mode), FOLDER: stat.S_ISDIR(mode), NAME: not stat.S_ISDIR(mode)}[kind]
    return None if is_right else f"{path} is {_what(mode)}, where the agent keeps {kind}: move it away"


def _what(mode: int) -> str:
    return next((what for is_it, what in KINDS if is_it(mode)), "a device")


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
