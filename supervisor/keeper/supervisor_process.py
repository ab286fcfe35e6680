"""One supervisor process as the keeper sees it: started once, listened to, told and asked things, ended."""

import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
import trio
from structlog import get_logger

from bus.control.messages import ControlAnswer, Request
from host import parent_death
from host.children import Child, Children
from host.code_place import CodePlace
from host.lines import LineReader
from host.log_stream import pipe_to_stderr
from host.unreadable import UNREADABLE
from supervisor.control.keeper_link import (
    CONNECTED,
    PULSE,
    READY,
    STANDBY,
    NumberedAnswer,
    ReportedState,
    from_supervisor,
    question_line,
)

STACKS_SECONDS = 1.0
"""How long a hung supervisor has to write where each thread stands (faulthandler, at SIGQUIT), before it is killed."""


ENDED = ControlAnswer(ok=False, error="the supervisor has ended; the keeper starts it again")


@dataclass(frozen=True)
class SupervisorArguments:
    """What a supervisor's command line is made of."""

    http_fd: int
    control_fd: int
    redis_url: str | None
    python: str
    beside_another: bool = False
    number: int = 1


SupervisorCommand = Callable[[SupervisorArguments], list[str]]


@dataclass(frozen=True)
class SpawnContext:
    """What every generation is started with. `environ` is passed on unread."""

    command: SupervisorCommand
    environ: Mapping[str, str]
    http_socket: socket.socket
    redis_url: str | None
    children: Children
    silence_seconds: float


class Questions:
    """What one supervisor was asked and has not answered yet. `say` sends it a line.

    Each question gets one answer, also when the supervisor ends.
    """

    def __init__(self, say: Callable[[str], Awaitable[None]]) -> None:
        self._say = say
        self._waiting: dict[int, trio.MemorySendChannel[ControlAnswer]] = {}
        self._asked = 0
        self._ended = False

    async def ask(self, request: Request) -> ControlAnswer:
        """Asks and returns the answer, or `ENDED`. How long to wait is the caller's business."""
        if self._ended:
            return ENDED
        self._asked += 1
        number = self._asked
        send, receive = trio.open_memory_channel[ControlAnswer](1)
        self._waiting[number] = send
        try:
            await self._say(question_line(number, request))
            return await receive.receive()
        finally:
            self._waiting.pop(number, None)

    def heard(self, answered: NumberedAnswer) -> None:
        """Gives an answer to whoever asked; one to nobody is passed over, since the asker has left."""
        waiting = self._waiting.pop(answered.number, None)
        if waiting is None:
            return
        try:
            answer = msgspec.json.decode(answered.answer, type=ControlAnswer)
        except UNREADABLE:
            answer = ControlAnswer(ok=False, error="the supervisor's answer cannot be read")
        waiting.send_nowait(answer)

    def end(self) -> None:
        """Answers every open question, and each that comes, with `ENDED`: the supervisor is gone."""
        self._ended = True
        for waiting in self._waiting.values():
            waiting.send_nowait(ENDED)
        self._waiting.clear()


class SupervisorProcess:
    """A running supervisor and the keeper's end of its line; made by `start_generation`."""

    def __init__(
        self,
        child: Child,
        control: trio.SocketStream,
        on_state: Callable[["SupervisorProcess", ReportedState], None],
        silence_seconds: float,
    ) -> None:
        self.ready_at: float | None = None
        self.serving = trio.Event()
        """Set when it is ready, and connected or a standby."""
        self.last_words = ""
        self.ended = trio.Event()
        self.status = 0
        """Its exit status once it has ended."""
        self._child = child
        self._control = control
        self._on_state = on_state
        self._silence_seconds = silence_seconds
        self._pulse_at: float | None = None
        self._questions = Questions(self.say)
        self._lines = LineReader(from_supervisor, self._say_passed_over)
        self._saying = trio.Lock()
        self._log = get_logger()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def passed_over(self) -> int:
        """How many of its messages this release does not know, and has passed over."""
        return self._lines.passed_over

    async def run(self) -> None:
        """Listens until the supervisor has ended. Cancelled, it kills it."""
        try:
            async with self._control, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._watch)
                self.status = await self._child.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._questions.end()
            await self._child.kill()
            self.ended.set()

    async def say(self, line: str) -> None:
        """Sends it a line; logs when that does not work."""
        try:
            async with self._saying:
                await self._control.send_all(f"{line}\n".encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._log.warning("supervisor: could not be told", line=line.partition(" ")[0], pid_of_supervisor=self.pid)

    async def ask(self, request: Request) -> ControlAnswer:
        """Asks it a request of the control socket. Returns its answer."""
        return await self._questions.ask(request)

    async def kill(self) -> None:
        await self._child.kill()

    async def end_within(self, seconds: float) -> bool:
        """Waits so long for its end, then kills it. Returns whether it ended by itself."""
        with trio.move_on_after(seconds):
            await self.ended.wait()
            return True
        await self.kill()
        return False

    async def _listen(self) -> None:
        try:
            while data := await self._control.receive_some():
                for message in self._lines.feed(data):
                    if isinstance(message, ReportedState):
                        self._hear(message)
                    else:
                        self._questions.heard(message)
        except trio.BrokenResourceError:
            self._log.error("supervisor: its line is broken", pid_of_supervisor=self.pid)

    def _say_passed_over(self, tag: str) -> None:
        self._log.warning("supervisor: a message was passed over, not known here", tag=tag, pid_of_supervisor=self.pid)

    async def _watch(self) -> None:
        """Ends a supervisor that says nothing any more, after it has shown where its threads stand; the keeper starts another."""
        tick = self._silence_seconds / 8
        before = trio.current_time()
        while True:
            await trio.sleep(tick)
            now = trio.current_time()
            if self._pulse_at is not None and now - before > 2 * tick:
                self._pulse_at = now  # we were asleep ourselves: what it said meanwhile is still unread
            before = now
            if self._pulse_at is not None and now - self._pulse_at > self._silence_seconds:
                break
        self._log.error("supervisor: hangs, is ended", pid_of_supervisor=self.pid, seconds=self._silence_seconds)
        self._child.send_signal(signal.SIGQUIT)
        await trio.sleep(STACKS_SECONDS)
        await self.kill()

    def _hear(self, state: ReportedState) -> None:
        if state.state == PULSE:
            self._pulse_at = trio.current_time()
            if self.last_words == state.detail:
                return
            self.last_words = state.detail
            self._on_state(self, state)
            return
        self.last_words = f"{state.state}: {state.detail}" if state.detail else state.state
        if state.state == READY and self.ready_at is None:
            self.ready_at = trio.current_time()
        if state.state in (CONNECTED, STANDBY):
            self.serving.set()
        self._on_state(self, state)


def start_generation(
    shop: SpawnContext,
    on_state: Callable[[SupervisorProcess, ReportedState], None],
    *,
    place: CodePlace,
    beside_another: bool,
    number: int,
) -> SupervisorProcess:
    """Starts a supervisor from this place, in a process group of its own, with its two sockets. Raises OSError.

    It dies with this process. Its descriptor 0 (`keeper_link.STACKS`) is a pipe that takes stacks and never makes it wait.
    """
    python = str(place.python)
    ours, theirs = socket.socketpair()
    http_fd = shop.http_socket.fileno()
    stacks = pipe_to_stderr()
    try:
        with theirs:
            arguments = SupervisorArguments(http_fd, theirs.fileno(), shop.redis_url, python, beside_another, number)
            process = subprocess.Popen(
                parent_death.command(os.getpid(), shop.command(arguments), python),
                stdin=stacks,
                env=shop.environ,
                cwd=place.directory,
                pass_fds=(http_fd, theirs.fileno()),
                process_group=0,
            )
    except OSError:
        ours.close()
        raise
    finally:
        os.close(stacks)
    control = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    return SupervisorProcess(shop.children.adopt(process), control, on_state, shop.silence_seconds)
