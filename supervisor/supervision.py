"""One supervisor after the other: started, listened to, started again with a backoff, asked to drain.

The keeper's half of the line in keeper_link.py. Only this file decides whether a dead supervisor gets a successor:
always, unless it was draining, or refused its configuration before one was ever ready.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import trio
from structlog import get_logger

from bus import parent_death
from supervisor.control_socket import Answer, Request
from supervisor.keeper_children import Backoff, Child, Children
from supervisor.keeper_link import DRAIN, State, decode
from supervisor.line import Lines, LineTooLong
from supervisor.notify import WATCHER_VARIABLES, Notifier
from supervisor.questions import ENDED, Questions

EXIT_CONFIGURATION = 78
EXIT_FAILURE = 1


@dataclass(frozen=True)
class SupervisorArguments:
    """What a supervisor's command line is made of."""

    http_fd: int
    control_fd: int
    redis_url: str | None


SupervisorCommand = Callable[[SupervisorArguments], list[str]]


class Supervision:
    """`environ` is passed on unread, without what only the keeper may answer (systemd's sockets)."""

    def __init__(
        self,
        command: SupervisorCommand,
        environ: Mapping[str, str],
        *,
        http_socket: socket.socket,
        redis_url: str | None,
        children: Children,
        notifier: Notifier,
        backoff: Backoff,
    ) -> None:
        self._command = command
        self._environ = {name: value for name, value in environ.items() if name not in WATCHER_VARIABLES}
        self._http_socket = http_socket
        self._redis_url = redis_url
        self._children = children
        self._notifier = notifier
        self._backoff = backoff
        self._child: Child | None = None
        self._control: trio.SocketStream | None = None
        self._questions: Questions | None = None
        self._ready_at: float | None = None
        self._ever_ready = False
        self._draining = trio.Event()
        self._saying = trio.Lock()
        self._log = get_logger()

    async def run(self) -> int:
        """The keeper's exit status: when the drain is over, or 78 when the configuration was refused."""
        while True:
            status = await self._run_once()
            if self._draining.is_set():
                return 0 if status == 0 else EXIT_FAILURE
            if status == EXIT_CONFIGURATION and not self._ever_ready:
                return EXIT_CONFIGURATION
            healthy_seconds = 0.0 if self._ready_at is None else trio.current_time() - self._ready_at
            wait_seconds = self._backoff.after_death(healthy_seconds)
            self._notifier.status(f"the supervisor ended with status {status}; it is started again")
            self._log.error("supervisor: died; it is started again", status=status, in_seconds=round(wait_seconds, 2))
            with trio.move_on_after(wait_seconds):
                await self._draining.wait()
                return 0

    async def drain(self) -> None:
        """Asks the running one to drain; no other is started."""
        self._draining.set()
        await self._say(DRAIN)

    async def forward(self, number: signal.Signals) -> None:
        """Over the line, not as a signal: TTIN would stop a supervisor that does not listen to it yet."""
        await self._say(f"signal {number.name}")

    async def ask(self, request: Request) -> Answer:
        """What the running supervisor answers to a request of the control socket."""
        return ENDED if self._questions is None else await self._questions.ask(request)

    async def kill(self) -> None:
        if self._child is not None:
            await self._child.kill()

    async def _say(self, line: str) -> None:
        if self._control is None:
            return
        try:
            async with self._saying:
                await self._control.send_all(f"{line}\n".encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._log.warning("supervisor: could not be told", line=line.partition(" ")[0])

    async def _run_once(self) -> int:
        """Its exit status; EXIT_FAILURE when the system has no process to give."""
        self._ready_at = None
        try:
            child, ours = self._start()
        except OSError as problem:
            self._log.error("supervisor: cannot be started", errno=problem.errno)
            return EXIT_FAILURE
        control = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        questions = Questions(self._say)
        self._child, self._control, self._questions = child, control, questions
        try:
            async with control, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, control, questions)
                status = await child.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._control = None
            questions.end()
            await child.kill()
        return status

    def _start(self) -> tuple[Child, socket.socket]:
        """In a process group of its own, with the two sockets; it dies with this process. Raises OSError."""
        ours, theirs = socket.socketpair()
        http_fd = self._http_socket.fileno()
        try:
            with theirs:
                arguments = SupervisorArguments(http_fd, theirs.fileno(), self._redis_url)
                process = subprocess.Popen(
                    parent_death.command(os.getpid(), self._command(arguments)),
                    stdin=subprocess.DEVNULL,
                    env=self._environ,
                    pass_fds=(http_fd, theirs.fileno()),
                    process_group=0,
                )
        except OSError:
            ours.close()
            raise
        return self._children.adopt(process), ours

    async def _listen(self, control: trio.SocketStream, questions: Questions) -> None:
        lines = Lines()
        try:
            while data := await control.receive_some():
                for line in lines.feed(data):
                    message = decode(line)
                    if isinstance(message, State):
                        self._hear(message)
                    else:
                        questions.heard(message)
        except (trio.BrokenResourceError, LineTooLong, msgspec.DecodeError):
            self._log.error("supervisor: its line is broken")

    def _hear(self, state: State) -> None:
        status = f"{state.state}: {state.detail}" if state.detail else state.state
        if state.state == "ready" and self._ready_at is None:
            self._ready_at = trio.current_time()
            self._ever_ready = True
            self._notifier.ready(status)
        else:
            self._notifier.status(status)
