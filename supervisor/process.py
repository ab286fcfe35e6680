"""One worker process, from its start to its last breath: start, ready, heartbeat, drain, terminate, kill.

It is forked from the main thread (the child's death signal is tied to the thread that forked, TRAPS), has a process group of
its own that ends with it, and is waited for by its pidfd. What it was doing when it ended is in `WorkerExit`.
"""

import enum
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio
from structlog.typing import FilteringBoundLogger

from bus.control import (
    BadControlMessage,
    Drain,
    Drained,
    DumpStacks,
    FromWorker,
    Heartbeat,
    Lines,
    Ready,
    RunningJob,
    Stacks,
    StartFailed,
    Stop,
    ToWorker,
    decode_from_worker,
    encode,
)
from bus.sealing import BusKey
from supervisor.environment import worker_environment

RECEIVE_BYTES = 65536
# After the process has ended, its last words are still in the pipe.
LAST_WORDS_SECONDS = 1.0
REAP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class WorkerTimes:
    """How long a worker may take for what. `load_seconds` counts until its event loop runs, not the wait for Redis."""

    load_seconds: float = 60.0
    silence_seconds: float = 10.0
    dump_seconds: float = 1.0
    terminate_seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class WorkerOrder:
    """What every worker of a pool is started with. `environ` is the supervisor's; it is scrubbed for the worker."""

    agent_id: str
    redis_url: str = field(repr=False)
    bus_key: BusKey
    handler: str
    concurrency: int
    environ: Mapping[str, str] = field(repr=False)
    directory: Path | None = None
    python: str = sys.executable
    times: WorkerTimes = WorkerTimes()


class Stage(enum.Enum):
    """Where a worker's life stands."""

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


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended. `abnormal`: by itself, neither asked nor killed by us, nor for want of a usable handler."""

    consumer: str
    pid: int
    returncode: int
    stage: Stage
    abnormal: bool
    running: tuple[RunningJob, ...]
    failure: StartFailed | None
    ready_seconds: float


class WorkerProcess:
    """Made by the pool, one for each process start."""

    def __init__(self, order: WorkerOrder, consumer: str, log: FilteringBoundLogger) -> None:
        self.consumer = consumer
        self.stage = Stage.STARTING
        self.ready: Ready | None = None
        self.heartbeat: Heartbeat | None = None
        self.failure: StartFailed | None = None
        self.drained: Drained | None = None
        self._order = order
        self._log = log.bind(worker=consumer)
        self._began_at = self._heard_at = trio.current_time()
        self._ready_at: float | None = None
        self._stacks = trio.Event()
        self._ended = trio.Event()
        self._heard_all = trio.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._pipe: trio.socket.SocketType | None = None
        self._sender: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._popen is None else self._popen.pid

    def start(self) -> None:
        """Fork and execute; from the main thread. Raises OSError."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a worker is forked from the main thread, or it dies with the thread that did")
        ours, theirs = socket.socketpair()
        key_reader, key_writer = os.pipe()
        try:
            with theirs:
                os.write(key_writer, self._order.bus_key.export())
                self._popen = self._fork(theirs.fileno(), key_reader)
            self._pidfd = os.pidfd_open(self._popen.pid)
        except OSError:
            ours.close()
            self._abandon()
            raise
        finally:
            os.close(key_reader)
            os.close(key_writer)
        self._began_at = self._heard_at = trio.current_time()
        ours.setblocking(False)
        self._sender = ours
        self._pipe = trio.socket.from_stdlib_socket(ours)

    async def supervise(self, tell: Callable[[FromWorker], None]) -> WorkerExit:
        """Give each message to `tell`, end the worker if it falls silent; returns when it is gone and reaped.

        Cancelled, it kills the worker and whatever that has started.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, tell)
                nursery.start_soon(self._watch)
                await trio.lowlevel.wait_readable(self._pidfd)
                self._ended.set()
                with trio.move_on_after(LAST_WORDS_SECONDS):
                    await self._heard_all.wait()
                nursery.cancel_scope.cancel()
        finally:
            returncode = await self._bury()
        return self._exit(returncode)

    def drain(self) -> None:
        """Ask it to finish what runs and to exit."""
        if self._advance(Stage.DRAINING):
            self._send(Drain())

    def stop(self) -> None:
        """Ask it to hand back what runs and to exit at once."""
        if self._advance(Stage.TERMINATING):
            self._send(Stop())

    def dump_stacks(self) -> None:
        """Ask where it stands; the answer goes to the log."""
        self._send(DumpStacks())

    def terminate(self) -> None:
        """SIGTERM: to one that drains already, the same as `stop`."""
        if self._advance(Stage.TERMINATING):
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and its group."""
        if self._advance(Stage.KILLED):
            self._kill_group()

    # The pipe

    async def _receive(self, tell: Callable[[FromWorker], None]) -> None:
        lines = Lines()
        try:
            while data := await self._connection.recv(RECEIVE_BYTES):
                for line in lines.feed(data):
                    self._hear(decode_from_worker(line), tell)
        except OSError:
            pass  # Its end was closed with something of ours unread: it is gone.
        except BadControlMessage as error:
            self._log.error("worker: spoke nonsense", error=str(error))
            self.kill()
        self._heard_all.set()

    def _hear(self, message: FromWorker, tell: Callable[[FromWorker], None]) -> None:
        self._heard_at = trio.current_time()
        match message:
            case Ready():
                self.ready = message
                self._ready_at = self._heard_at
                if self.stage is Stage.STARTING:
                    self._advance(Stage.READY)
            case Heartbeat():
                self.heartbeat = message
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
        while True:
            await trio.sleep(tick)
            now = trio.current_time()
            if now - before > 2 * tick:
                self._heard_at = now  # We were asleep ourselves: what it said meanwhile is still unread.
            before = now
            if now - self._heard_at > times.silence_seconds:
                self._log.error("worker: silent", seconds=round(now - self._heard_at, 1))
                break
            is_loading = self.heartbeat is None or self.heartbeat.loop_lag_ms is None
            if self.stage is Stage.STARTING and is_loading and now - self._began_at > times.load_seconds:
                self._log.error("worker: does not come up", seconds=round(now - self._began_at, 1))
                break
        await self._end_a_hung_one()

    async def _end_a_hung_one(self) -> None:
        times = self._order.times
        self.dump_stacks()
        with trio.move_on_after(times.dump_seconds):
            await self._stacks.wait()
        if not self._stacks.is_set():
            # The interpreter lets no thread run: faulthandler answers this one without it, on stderr.
            self._signal(signal.SIGQUIT)
            with trio.move_on_after(times.dump_seconds):
                await self._ended.wait()
        self.terminate()
        with trio.move_on_after(times.terminate_seconds):
            await self._ended.wait()
        self.kill()

    # The process

    def _fork(self, control_fd: int, bus_key_fd: int) -> subprocess.Popen[bytes]:
        order = self._order
        # -P: a `workers` in the current directory must not be taken for ours.
        command = [order.python, "-P", "-m", "workers", "--handler", order.handler]
        command += ["--concurrency", str(order.concurrency), "--consumer", self.consumer]
        command += ["--control-fd", str(control_fd), "--bus-key-fd", str(bus_key_fd)]
        command += ["--parent-pid", str(os.getpid())]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(control_fd, bus_key_fd),
            env=worker_environment(order.environ, agent_id=order.agent_id, redis_url=order.redis_url),
            cwd=order.directory,
            process_group=0,
        )

    def _abandon(self) -> None:
        """A child that cannot be waited for must not live."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    async def _bury(self) -> int:
        """Kill what is left of its group, reap it, close its descriptors."""
        with trio.CancelScope(shield=True):
            if self.stage is not Stage.EXITED and not self._ended.is_set():
                self._advance(Stage.KILLED)
            # Before it is reaped: until then its pid is the name of its group and of nobody else.
            self._kill_group()
            with trio.move_on_after(REAP_SECONDS):
                await trio.lowlevel.wait_readable(self._pidfd)
            code = self._process.poll()
        os.close(self._pidfd)
        self._connection.close()
        self._sender = None
        return -signal.SIGKILL if code is None else code

    def _exit(self, returncode: int) -> WorkerExit:
        stage = self.stage
        self._advance(Stage.EXITED)
        by_itself = stage in {Stage.STARTING, Stage.READY} or (stage is Stage.DRAINING and returncode != 0)
        now = trio.current_time()
        return WorkerExit(
            consumer=self.consumer,
            pid=self._process.pid,
            returncode=returncode,
            stage=stage,
            # One that a person has sent SIGTERM drains and says so.
            abnormal=by_itself and self.failure is None and self.drained is None,
            running=self.heartbeat.running if self.heartbeat else (),
            failure=self.failure,
            ready_seconds=0.0 if self._ready_at is None else now - self._ready_at,
        )

    def _advance(self, to: Stage) -> bool:
        """Into a later stage; False if it is there or beyond."""
        if to not in _NEXT[self.stage]:
            return False
        self.stage = to
        return True

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # It was faster.

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise RuntimeError("this worker was not started")
        return self._popen

    @property
    def _connection(self) -> trio.socket.SocketType:
        if self._pipe is None:
            raise RuntimeError("this worker was not started")
        return self._pipe
