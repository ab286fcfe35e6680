"""Runs `hashee-agent …` as a process of its own that need not import everything first: forked from one that has, and does nothing else.

What an import or an interpreter's start decides (names in the current directory, the locale, `-P`) such a process does not show; tests of
that start Python themselves (tests/host/test_entrance.py, tests/supervisor/keeper/test_locales.py, tests/supervisor/cli/keys/test_docs.py).
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0
LARGEST_WISH_BYTES = 100_000

Done = subprocess.CompletedProcess[str]


class Forks:
    """The process that forks. It ends with this one, by the end of their socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.forking", str(theirs.fileno())],
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._sending = Lock()

    def run(self, wish: bytes, streams: tuple[BinaryIO, BinaryIO, BinaryIO], seconds: float) -> int:
        """Returns the exit status; negative, as in `subprocess`, if a signal has ended it. Raises subprocess.TimeoutExpired."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs, self._sending:
                socket.send_fds(self._socket, [wish], [*(stream.fileno() for stream in streams), theirs.fileno()])
            ours.settimeout(seconds)
            if not (began := ours.recv(32)):
                raise RuntimeError("tests.forking has ended, or could not fork")
            pid = int(began)
            try:
                return int(ours.recv(32))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(json.loads(wish)["argv"], seconds) from None


@functools.cache
def _forks() -> Forks:
    return Forks()


def run_command(
    *arguments: str,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    seconds: float = PATIENCE_SECONDS,
) -> Done:
    """Runs a command to its end, in a session of its own, with nothing in its environment but this."""
    argv = ["hashee-agent", *arguments]
    wish = json.dumps({"argv": argv, "environ": dict(environ), "cwd": str(cwd or Path.cwd())}).encode()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        given.write(stdin)
        given.seek(0)
        status = _forks().run(wish, (given, said, complained), seconds)
        said.seek(0)
        complained.seek(0)
        return Done(argv, status, said.read().decode(), complained.read().decode())
