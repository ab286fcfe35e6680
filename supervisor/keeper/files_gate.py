"""Keeps the file gate: its socket from the first moment on, its process from the first call on, and another one when that has died.

An agent without files has no such process. While there is none a call waits in the socket's queue, so that neither a death nor an upgrade is
more to its caller than a connection that was cut.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
import trio
from structlog import get_logger

from host import parent_death
from host.children import Child, Children, RestartBackoff
from host.code_place import Code
from host.socket_place import socket_path
from supervisor.control.control_socket import listen_control

FILES_SOCKET = "files.sock"
DRAIN_SECONDS = 25.0
"""How long a gate that is told to leave has for its transfers; it bounds itself by a little less."""

BACKLOG = 512
"""Calls that wait while a gate starts: as many as workers may make at once, since a full queue refuses them."""

KNOWN = frozenset(
    {
        *("PATH", "HOME", "TZ", "LANG", "TERM", "NO_COLOR", "TMPDIR", "XDG_RUNTIME_DIR", "JOURNAL_STREAM"),
        *("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"),
        *("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
        *("HASHEE_AGENT_ID", "HASHEE_AGENT_TOKEN", "HASHEE_AGENT_TOKEN_FILE", "HASHEE_BASE_URL", "HASHEE_STATE_DIR"),
        *("HASHEE_PROXY", "HASHEE_PROXY_FILE", "HASHEE_UPLOAD_HOSTS", "HASHEE_LOG_LEVEL", "HASHEE_LOG_FORMAT"),
    }
)
KNOWN_BEGINNINGS = ("LC_", "LD_", "PYTHON", "MALLOC_")

FilesCommand = Callable[[str, int], list[str]]
"""Makes the argument list of a gate, of a Python and the number of the listening socket's descriptor."""


class FilesStatus(msgspec.Struct, frozen=True):
    """`pid` 0: none runs, since nothing called for it. `deaths`: how often one ended otherwise than it should."""

    url: str
    pid: int
    deaths: int


def files_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns what is left of `environ` for a gate: of ours its few settings, and none of the owner's own."""
    return {name: value for name, value in environ.items() if name in KNOWN or name.startswith(KNOWN_BEGINNINGS)}


@dataclass(frozen=True)
class Listening:
    """A listening socket, and the URL by which workers find it."""

    socket: socket.socket
    url: str


def files_socket(state_dir: Path, runtime_dir: Path) -> Listening:
    """Returns the gate's socket, mode 0600 from its first instant. Raises ControlTaken, RuntimeDirectoryUnsafe, OSError."""
    path = socket_path(state_dir / FILES_SOCKET, state_dir, runtime_dir)
    listener = listen_control(path)
    listener.listen(BACKLOG)
    return Listening(listener, f"unix://{quote(os.fsencode(path))}")  # its bytes: not every name is text


class FilesGate:
    """One keeper's gate. Its socket stays the keeper's; each process gets it."""

    def __init__(
        self,
        command: FilesCommand,
        environ: Mapping[str, str],
        *,
        listening: Listening,
        children: Children,
        backoff: RestartBackoff,
        code: Code,
    ) -> None:
        self._command = command
        self._environ = files_environment(environ)
        code.way.note(self._environ)
        self._listener = listening.socket
        self._children = children
        self._backoff = backoff
        self._code = code
        self._child: Child | None = None
        self._replaced = trio.Event()
        self._deaths = 0
        self._log = get_logger()
        self.url = listening.url

    @property
    def status(self) -> FilesStatus:
        """What can be seen of it."""
        return FilesStatus(self.url, 0 if self._child is None else self._child.pid, self._deaths)

    async def run(self) -> None:
        """Starts a gate whenever somebody calls and none is there. Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._listener)
                try:
                    child = self._child = self._start()
                except OSError as problem:
                    self._log.error("files: cannot be started", errno=problem.errno, reason=problem.strerror)
                    await trio.sleep(self._backoff.after_death(0.0))
                    continue
                await self._accompany(child, nursery)

    def replace(self) -> None:
        """Has a gate of the code that is on disk now take the next call; the one that runs ends its transfers and leaves."""
        self._replaced.set()

    async def stop(self, within_seconds: float) -> None:
        """Ends it. Returns when it is gone."""
        if self._child is not None:
            await self._child.end(within_seconds)

    async def _accompany(self, child: Child, nursery: trio.Nursery) -> None:
        """Returns when a child has ended, after a pause where it should not have, or is to be replaced."""
        self._replaced = trio.Event()
        async with trio.open_nursery() as either:
            either.start_soon(_cancel_after, child.ended, either.cancel_scope)
            either.start_soon(_cancel_after, self._replaced, either.cancel_scope)
        self._child = None
        if not child.ended.is_set():
            nursery.start_soon(child.end, DRAIN_SECONDS)
        elif child.returncode not in (0, -signal.SIGTERM):
            self._deaths += 1
            wait_seconds = self._backoff.after_death(trio.current_time() - child.started_at)
            self._log.error("files: died; it is started again", status=child.returncode)
            await trio.sleep(wait_seconds)

    def _start(self) -> Child:
        """Raises OSError."""
        place = self._code.in_use()
        python, descriptor = str(place.python), self._listener.fileno()
        process = subprocess.Popen(
            parent_death.command(os.getpid(), self._command(python, descriptor), python),
            stdin=subprocess.DEVNULL,
            env=self._environ,
            cwd=place.directory,
            pass_fds=(descriptor,),
            process_group=0,
        )
        self._log.info("files: started, since somebody called", pid_of_files=process.pid)
        return self._children.adopt(process)


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
