"""Finds the path of a Unix socket: in the state directory, or in a private folder elsewhere if the path would be too long.

Every process of an agent finds the same path by itself.
"""

import hashlib
import os
import stat
from pathlib import Path

SHORT_DIR = Path("/tmp")  # noqa: S108 - only a folder in it that nobody else can enter
SOCKET_PATH_LIMIT_BYTES = 107  # sockaddr_un holds 108 with the terminator
PRIVATE_MODE = 0o700
OTHERS = 0o077


class RuntimeDirectoryUnsafe(Exception):
    """The directory for the socket cannot be made, belongs to someone else or can be entered by others."""

    def __init__(self, path: Path, problem: str = "") -> None:
        fault = f"cannot be made ({problem})" if problem else "is not a directory that only this user can enter"
        super().__init__(
            f"{path} {fault}; it is needed since the path of a socket in the state directory would be too long: "
            "set HASHEE_STATE_DIR to a shorter one"
        )
        self.path = path


def socket_path(wanted: Path, state_dir: Path, runtime_dir: Path) -> Path:
    """Returns the path of a socket and makes its folder if needed. Raises `RuntimeDirectoryUnsafe`, OSError."""
    path = place_of_socket(wanted, state_dir, runtime_dir)
    if path != wanted:
        _private_folder(path.parent)
    return path


def place_of_socket(wanted: Path, state_dir: Path, runtime_dir: Path) -> Path:
    """Returns `wanted`, or if that is too long its name in a private folder under `runtime_dir` or /tmp. Makes nothing.

    Raises `RuntimeDirectoryUnsafe` if that folder belongs to somebody else, OSError.
    """
    name = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    elsewhere = Path(f"hashee-agent-{name}", wanted.name)
    path = next(path for path in (wanted, runtime_dir / elsewhere, SHORT_DIR / elsewhere) if _fits(path))
    if path != wanted and os.path.lexists(path.parent):
        _refuse_unsafe(path.parent)
    return path


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= SOCKET_PATH_LIMIT_BYTES


def _private_folder(path: Path) -> None:
    try:
        path.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
    except OSError as problem:
        raise RuntimeDirectoryUnsafe(path, os.strerror(problem.errno or 0)) from None
    _refuse_unsafe(path)


def _refuse_unsafe(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError as problem:
        raise RuntimeDirectoryUnsafe(path, os.strerror(problem.errno or 0)) from None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not ours or found.st_mode & OTHERS:
        raise RuntimeDirectoryUnsafe(path)  # in a shared /tmp anyone may have made it
