"""One worker process, from its start to its last breath: start, ready, heartbeat, drain, terminate, kill.

It has a process group of its own that ends with it, and is waited for without being reaped. What it was doing when it ended, and why it
ended, is in `WorkerExit`.
"""

import enum
import math
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio
from structlog.typing import FilteringBoundLogger

from bus.records.control import (
    Crashed,
    Drain,
    Drained,
    DumpStacks,
    FromWorker,
    Heartbeat,
    Ready,
    RunningJob,
    Stacks,
    StartFailed,
    Stop,
    ToWorker,
    encode,
    from_worker,
)
from host import proc
from host.lines import LineReader
from supervisor.pool.last_words import StderrTail
from supervisor.pool.worker_order import Spawned, WorkerOrder, spawn

RECEIVE_BYTES = 65536
"""One read of a worker's messages."""

LAST_WORDS_SECONDS = 1.0
"""How long after the end of a process we read on: its last words are still in the pipe, which a grandchild may hold open."""

REAP_SECONDS = 5.0
"""A killed process that the kernel has not ended by then waits for a disk; its supervisor waits no longer."""


HELD_SHARE = 0.05
"""Of a processor: a thread that waits for the interpreter asks for it every 5 ms, and has its turn a hundred times in what a silent one has taken by then."""


class Stage(enum.Enum):
    """The stages of a worker's life, each later than the ones before it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    TERMINATING = "terminating"
    KILLED = "killed"
    EXITED = "exited"


_NEXT: Mapping[Stage, frozenset[Stage]] = {
    Stage.STARTING: frozenset(set(Stage) - {Stage.STARTING}),
    Stage.READY: frozenset({Stage.DRAINING, Stage.TERMINATING, Stage.KILLED, Stage.EXITED}),
    Stage.DRAINING: frozenset({Stage.TERMINATING, Stage.KILLED, Stage.EXITED}),
    Stage.TERMINATING: frozenset({Stage.KILLED, Stage.EXITED}),
    Stage.KILLED: frozenset({Stage.EXITED}),
    Stage.EXITED: frozenset(),
}
"""Into which stages each stage may turn; what is asked for otherwise is passed over, since it has happened or comes too late."""


class ExitReason(enum.Enum):
    """Why a worker ended: the closed set for log, status and metrics."""

    DRAINED = "drained"
    CRASHED = "crashed"
    UNUSABLE = "unusable"
    SILENT = "silent"
    HELD = "held"
    SLOW_START = "slow_start"
    OVERRUN = "overrun"
    MEMORY = "memory"
    KILLED = "killed"


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended. `abnormal`: by itself, neither asked nor killed by us, nor for want of a usable handler.

    `running`: by its last heartbeat; `overdue` those of them that were over their limit. `exception` and `at` (`file.py:12`) where
    they are known. `last_words` may carry content: for the control socket alone.
    """

    consumer: str
    pid: int
    returncode: int
    stage: Stage
    reason: ExitReason
    abnormal: bool
    running: tuple[RunningJob, ...]
    overdue: tuple[RunningJob, ...]
    failure: StartFailed | None
    ready_seconds: float
    exception: str = ""
    at: str = ""
    last_words: tuple[str, ...] = ()

    @property
    def is_strike(self) -> bool:
        """Whether it counts against what it was running (DESIGN rule 8): it died by itself, grew beyond what it may hold, or held its interpreter.

        The kernel ends a process for its memory in the first way, we in the second: a message that does it to every worker may not
        do it twenty times, nor one whose regular expression takes years. What is silent without working may lack a processor, and is none.
        """
        return self.abnormal or self.reason in (ExitReason.MEMORY, ExitReason.HELD)


class WorkerProcess:
    """Made by the pool, one for each process start."""

    def __init__(self, order: WorkerOrder, consumer: str, log: FilteringBoundLogger, number: int = 1) -> None:
        """`number`: its place in the pool, for people."""
        self.consumer = consumer
        self.stage = Stage.STARTING
        self.ready: Ready | None = None
        self.heartbeat: Heartbeat | None = None
        self.failure: StartFailed | None = None
        self.drained: Drained | None = None
        self.crashed: Crashed | None = None
        self.began_at = trio.current_time()
        self.last_words = StderrTail()
        self._order = order
        self._number = number
        self._log = log.bind(worker=consumer)
        self._heard_at = math.inf  # an interpreter that has said nothing yet may take as long as an import
        self._ready_at: float | None = None
        self._running_since: dict[str, float] = {}
        self._reason: ExitReason | None = None
        self._stacks = trio.Event()
        self._ended = trio.Event()
        self._heard_all = trio.Event()
        self._lines = LineReader(from_worker, self._say_passed_over)
        self._spawned: Spawned | None = None
        self._pipe: trio.socket.SocketType | None = None
        self._sender: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._spawned is None else self._spawned.process.pid

    @property
    def passed_over(self) -> int:
        """How many of its messages this release does not know, and has passed over."""
        return self._lines.passed_over

    @property
    def loop_runs(self) -> bool:
        """Whether its imports are done and its event loop has begun; before, it cannot have a job."""
        return self.heartbeat is not None and self.heartbeat.loop_lag_ms is not None

    def start(self) -> None:
        """Forks and executes the worker; to be called from the main thread. Raises OSError."""
        self._spawned = spawn(self._order, self.consumer, self._number)
        self.began_at = trio.current_time()
        self._sender = self._spawned.control
        self._sender.setblocking(False)
        self._pipe = trio.socket.from_stdlib_socket(self._sender)

    async def supervise(self, tell: Callable[[FromWorker], None]) -> WorkerExit:
        """Gives each message to `tell` and ends the worker if it hangs. Returns how it ended, once it is gone and reaped.

        Cancelled, it kills the worker and whatever that has started.
        """
        spawned = self._running
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.last_words.read, spawned.stderr_fd)
                nursery.start_soon(self._receive, tell)
                nursery.start_soon(self._watch)
                await spawned.end.wait()
                self._ended.set()
                with trio.move_on_after(LAST_WORDS_SECONDS):
                    await self._heard_all.wait()
                nursery.cancel_scope.cancel()
        finally:
            returncode = await self._bury()
        return self._exit(returncode)

    def drain(self) -> None:
        """Asks it to finish what runs and to exit."""
        if self._advance(Stage.DRAINING):
            self._send(Drain())

    def stop(self) -> None:
        """Asks it to hand back what runs and to exit at once."""
        if self._advance(Stage.TERMINATING):
            self._send(Stop())

    def dump_stacks(self) -> None:
        """Asks where its threads stand; the answer goes to the log."""
        self._send(DumpStacks())

    def terminate(self) -> None:
        """Sends SIGTERM, which a worker that drains already takes as `stop`."""
        if self._advance(Stage.TERMINATING):
            self._signal(signal.SIGTERM)

    def kill(self, reason: ExitReason = ExitReason.KILLED) -> None:
        """Sends SIGKILL to the process and its group. `reason`: why, unless another reason is known."""
        if self._advance(Stage.KILLED):
            self._reason = self._reason or reason
            self._kill_group()

    # The pipe

    async def _receive(self, tell: Callable[[FromWorker], None]) -> None:
        try:
            while data := await self._connection.recv(RECEIVE_BYTES):
                if b"\n" in data:
                    self._heard_at = trio.current_time()  # Whatever it says: a whole line is a sign of life.
                for message in self._lines.feed(data):
                    self._hear(message, tell)
        except OSError:
            pass  # Its end was closed with something of ours unread: it is gone.
        self._heard_all.set()

    def _say_passed_over(self, tag: str) -> None:
        self._log.warning("worker: a message was passed over, not known here", tag=tag)

    def _hear(self, message: FromWorker, tell: Callable[[FromWorker], None]) -> None:
        match message:
            case Ready():
                self.ready = message
                self._ready_at = self._heard_at
                if self.stage is Stage.STARTING:
                    self._advance(Stage.READY)
            case Heartbeat():
                self.heartbeat = message
                self._note_running(message)
            case Crashed():
                self.crashed = message
            case StartFailed():
                self.failure = message
            case Drained():
                self.drained = message
            case Stacks():
                self._log.warning("worker: stacks", stacks=message.text)
                self._stacks.set()
        tell(message)

    def _send(self, message: ToWorker) -> None:
        if self._sender is None:
            return
        try:
            self._sender.send(encode(message))
        except (BlockingIOError, OSError) as error:
            # Full means that it does not read; the watch deals with that.
            self._log.info("worker: could not be told", message=type(message).__name__, error=type(error).__name__)

    # The watch

    async def _watch(self) -> None:
        times = self._order.times
        tick = min(1.0, times.silence_seconds / 4)
        before = trio.current_time()
        last_word, worked = self._heard_at, _Work(self._running.process.pid)
        while True:
            await trio.sleep(tick)
            now = trio.current_time()
            if now - before > 2 * tick:
                self._heard_at = max(self._heard_at, now)  # we were asleep: what it said meanwhile is still unread
            before = now
            if self._heard_at != last_word:
                last_word, worked = self._heard_at, _Work(self._running.process.pid)
            reason = self._hangs(now)
            if reason is not None:
                break
        if reason is ExitReason.SILENT and worked.is_busy():
            reason = ExitReason.HELD
        self._reason = reason
        self._log.error(
            "worker: hangs, is ended",
            reason=reason.value,
            silent_seconds=round(max(0.0, now - self._heard_at), 1),
            overdue=[job.job_id for job in self._overdue(now)],
        )
        await self._end_a_hung_one()

    def _hangs(self, now: float) -> ExitReason | None:
        times = self._order.times
        if now - self._heard_at > times.silence_seconds:
            return ExitReason.SILENT
        if self.stage is Stage.STARTING and not self.loop_runs and now - self.began_at > times.load_seconds:
            return ExitReason.SLOW_START
        if self._overdue(now) or (
            times.job_seconds and self._loop_lag_seconds > times.job_seconds + times.grace_seconds
        ):
            return ExitReason.OVERRUN
        return None

    def _overdue(self, now: float) -> tuple[RunningJob, ...]:
        """Returns the jobs that run for longer than they may, by when heartbeats first named them: a worker's clock may be set."""
        times = self._order.times
        if not times.job_seconds or self.heartbeat is None:
            return ()
        latest = now - times.job_seconds - times.grace_seconds
        return tuple(job for job in self.heartbeat.running if self._running_since.get(job.entry_id, now) < latest)

    def _note_running(self, beat: Heartbeat) -> None:
        since = self._running_since
        self._running_since = {job.entry_id: since.get(job.entry_id, self._heard_at) for job in beat.running}

    @property
    def _loop_lag_seconds(self) -> float:
        return (self.heartbeat.loop_lag_ms or 0.0) / 1000 if self.heartbeat is not None else 0.0

    async def _end_a_hung_one(self) -> None:
        times = self._order.times
        self.dump_stacks()
        with trio.move_on_after(times.dump_seconds):
            await self._stacks.wait()
        if not self._stacks.is_set():
            # The interpreter lets no thread run: faulthandler answers this one without it, on descriptor 2.
            self._signal(signal.SIGQUIT)
            with trio.move_on_after(times.dump_seconds):
                await self._ended.wait()
            self._log.warning("worker: stacks", stacks=self.last_words.stacks())
        self.terminate()
        with trio.move_on_after(times.terminate_seconds):
            await self._ended.wait()
        self.kill()

    # The process

    async def _bury(self) -> int:
        """Kills what is left of its group, reaps it, closes its descriptors. Returns its exit status, -N for signal N."""
        spawned = self._running
        with trio.CancelScope(shield=True):
            if self.stage is not Stage.EXITED and not self._ended.is_set():
                self._advance(Stage.KILLED)
            # Before it is reaped: until then its pid is the name of its group and of nobody else.
            self._kill_group()
            with trio.move_on_after(REAP_SECONDS):
                await spawned.end.wait()
            code = spawned.process.poll()
        spawned.end.close()
        self._connection.close()
        self._sender = None
        return -signal.SIGKILL if code is None else code

    def _exit(self, returncode: int) -> WorkerExit:
        stage = self.stage
        self._advance(Stage.EXITED)
        # One that a person has sent SIGTERM drains and says so.
        by_itself = stage in {Stage.STARTING, Stage.READY} or (stage is Stage.DRAINING and returncode != 0)
        abnormal = by_itself and self.failure is None and self.drained is None and self._reason is None
        now = trio.current_time()
        return WorkerExit(
            consumer=self.consumer,
            pid=self._running.process.pid,
            returncode=returncode,
            stage=stage,
            reason=self._why(stage, abnormal=abnormal),
            abnormal=abnormal,
            running=self.heartbeat.running if self.heartbeat else (),
            overdue=self._overdue(now),
            failure=self.failure,
            ready_seconds=0.0 if self._ready_at is None else now - self._ready_at,
            exception=_exception(self.crashed, returncode),
            at=self.crashed.at if self.crashed else self.last_words.place(),
            last_words=self.last_words.shown(),
        )

    def _why(self, stage: Stage, *, abnormal: bool) -> ExitReason:
        if self._reason is not None:
            return self._reason
        if abnormal:
            return ExitReason.CRASHED
        if self.failure is not None:
            return ExitReason.UNUSABLE
        return ExitReason.KILLED if stage is Stage.KILLED else ExitReason.DRAINED

    def _advance(self, to: Stage) -> bool:
        """Moves it into a later stage. Returns False if it is there or beyond."""
        if to not in _NEXT[self.stage]:
            return False
        self.stage = to
        return True

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self._running.process.pid, number)  # nobody else reaps it: the pid is its own
        except ProcessLookupError:
            return  # It was faster.

    def _kill_group(self) -> None:
        try:
            os.killpg(self._running.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    @property
    def _running(self) -> Spawned:
        if self._spawned is None:
            raise RuntimeError("this worker was not started")
        return self._spawned

    @property
    def _connection(self) -> trio.socket.SocketType:
        if self._pipe is None:
            raise RuntimeError("this worker was not started")
        return self._pipe


class _Work:
    """How much of a processor a process takes from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began, self._cpu_seconds = trio.current_time(), proc.cpu_seconds(pid)

    def is_busy(self) -> bool:
        """Returns whether it took so much that each of its threads would have had its turn, if the interpreter had let it."""
        seconds = proc.cpu_seconds(self._pid) - self._cpu_seconds
        return seconds > HELD_SHARE * (trio.current_time() - self._began)


def _exception(crashed: Crashed | None, returncode: int) -> str:
    """Returns the exception's type, or the signal's name, or nothing."""
    if crashed is not None:
        return crashed.exception
    try:
        return signal.Signals(-returncode).name if returncode < 0 else ""
    except ValueError:
        return f"signal {-returncode}"
