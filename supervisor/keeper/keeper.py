"""`hashee-agent up`: the main process, which owns what must outlive a supervisor and knows no key.

It holds the state directory's lock, the private Redis and the status page's socket, and has a supervisor run on
them. It never reads a message nor a secret: the environment passes through it unread. When it dies, everything that
it started dies too; when it is asked to stop, it lets the supervisor drain first.
"""

import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio
from structlog import get_logger

from bus.settings.files_place import FILES_URL
from host import embedded
from host.append_only import StoreDamaged, refuse_damaged
from host.budgets import Budgets
from host.children import Children, RestartBackoff
from host.code_place import Code
from supervisor.control.control_socket import control_path, listen_control, serve_control
from supervisor.control.keeper_link import FORWARDED
from supervisor.keeper.answering import KeeperControl
from supervisor.keeper.files_gate import FilesCommand, FilesGate, Listening, files_socket
from supervisor.keeper.notify import Notifier
from supervisor.keeper.redis_server import PrivateRedis, RedisDoesNotStart
from supervisor.keeper.state_directory import listen, make_private, take_lock, unusable
from supervisor.keeper.supervision import (
    EXIT_CONFIGURATION,
    EXIT_FAILURE,
    Supervision,
    SupervisorCommand,
    UpgradeFailed,
)
from supervisor.settings.keeper import KeeperSettings
from supervisor.settings.process_limits import ready_limits

SIGNAL_EXIT_BASE = 128
"""The exit status of whoever is ended by signal N is 128 + N, as shells have it."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Timings:
    """Every duration of the keeper, in seconds."""

    drain_margin: float = 5.0
    redis_patience: float = 2.0
    """How long the supervisor's start waits for a private Redis; one that loads a large file takes longer, and the supervisor waits."""
    redis_stop: float = 10.0
    files_stop: float = 1.0
    """How long the file gate has to leave, when nobody is left who calls it."""
    redis_stop_at_once: float = 2.0
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    healthy_after: float = 60.0
    upgrade: float = 60.0
    status: float = 5.0
    silence: float = 20.0
    sync_interval: float = embedded.SYNC_INTERVAL_SECONDS

    def drain_bound(self, drain_seconds: float) -> float:
        """Returns within how long a supervisor has left, whatever happens: supervisor/run/drain.py may take two fifths more than its time."""
        return drain_seconds * 1.4 + self.drain_margin

    def backoff(self) -> RestartBackoff:
        """Returns the pauses between restarts of one child."""
        return RestartBackoff(self.backoff_base, self.backoff_cap, self.healthy_after)


@dataclass(frozen=True)
class Exit:
    """How the keeper ends: its exit status. `at_once`: it was told twice to stop, and waits for no drain."""

    status: int
    at_once: bool = False


async def run_keeper(
    settings: KeeperSettings,
    command: SupervisorCommand,
    environ: Mapping[str, str],
    timings: Timings | None = None,
    *,
    files_command: FilesCommand | None = None,
) -> int:
    """Runs the agent until it is stopped; returns the exit status. To be called from the main thread.

    `command` makes the supervisor's argument list; `environ` is passed on to it unread.
    `files_command` makes that of its file gate; None: it keeps none. Raises, before anything is
    started: SettingsError, AlreadyRunning, ControlTaken, ServerMissing, StoreDamaged, RuntimeDirectoryUnsafe.
    """
    timings = timings or Timings()
    code = Code.of_this_process(environ)
    make_private(settings.state_dir)
    budgets = Budgets.here(settings.memory_bytes, settings.redis_memory_bytes)
    ready_limits(embedded.most_file_bytes(budgets.redis_bytes) if settings.redis_is_private else 0)
    server = embedded.find_server() if settings.redis_is_private else None
    layout = embedded.prepare(settings.state_dir, settings.runtime_dir)
    lock_fd = take_lock(settings.state_dir)
    try:
        if settings.redis_is_private:
            refuse_damaged(layout.append_only_dir)
        with (
            listen(settings.http_host, settings.http_port) as http_socket,
            _listen_control(settings) as control_socket,
            _listen_files(settings, files_command) as files_listening,
            trio.open_signal_receiver(*STOP_SIGNALS, signal.SIGUSR2, *FORWARDED) as signals,
        ):
            notifier = Notifier.from_environ(environ)
            get_logger().info("keeper: status page and metrics", url=_url(http_socket))
            async with _open_children() as children:
                redis = (
                    None
                    if server is None
                    else PrivateRedis(
                        server,
                        layout,
                        fsync=settings.fsync,
                        most_bytes=budgets.redis_bytes,
                        sync_interval_seconds=timings.sync_interval,
                        lock_fd=lock_fd,
                        children=children,
                        backoff=timings.backoff(),
                        code=code,
                    )
                )
                files = (
                    None
                    if files_command is None or files_listening is None
                    else FilesGate(
                        files_command,
                        environ,
                        listening=files_listening,
                        children=children,
                        backoff=timings.backoff(),
                        code=code,
                    )
                )
                supervision = Supervision(
                    command,
                    environ if files is None else {**environ, FILES_URL.name: files.url},
                    code=code,
                    http_socket=http_socket,
                    redis_url=redis.url if redis is not None else None,
                    children=children,
                    notifier=notifier,
                    backoff=timings.backoff(),
                    upgrade_seconds=timings.upgrade,
                    drain_seconds=timings.drain_bound(settings.drain_seconds),
                    silence_seconds=timings.silence,
                    on_upgrade=None if files is None else files.replace,
                )
                keeper = Keeper(settings, timings, redis, supervision, notifier, files=files)
                ending = await keeper.run(signals, control_socket)
    finally:
        os.close(lock_fd)
    get_logger().info("keeper: ended", status=ending.status)
    return ending.status


class Keeper:
    """Keeps the order: Redis starts before the supervisor, unless it loads for long, and ends after it."""

    def __init__(
        self,
        settings: KeeperSettings,
        timings: Timings,
        redis: PrivateRedis | None,
        supervision: Supervision,
        notifier: Notifier,
        *,
        files: FilesGate | None,
    ) -> None:
        self._settings = settings
        self._timings = timings
        self._redis = redis
        self._supervision = supervision
        self._notifier = notifier
        self._files = files
        self._supervising = False
        self._draining = False
        self._work_nursery: trio.Nursery | None = None
        self._ending = Exit(0)
        self._without_redis = Exit(EXIT_FAILURE)
        self._log = get_logger()

    async def run(self, signals: AsyncIterator[int], control_socket: socket.socket) -> Exit:
        """Starts everything and obeys signals and requests until all has ended. Returns how."""
        async with trio.open_nursery() as redis_nursery:
            redis_nursery.start_soon(serve_control, control_socket, self._control().answer)  # until Redis has ended too
            if self._files is not None:
                redis_nursery.start_soon(self._files.run)  # until those who call it have ended
            if self._notifier.watchdog_seconds is not None:
                redis_nursery.start_soon(self._say_alive, self._notifier.watchdog_seconds / 3)
            async with trio.open_nursery() as nursery:
                self._work_nursery = nursery
                nursery.start_soon(self._obey_signals, signals, nursery)
                self._ending = await self._work(redis_nursery)
                nursery.cancel_scope.cancel()
            if self._files is not None:
                await self._files.stop(self._timings.files_stop)
            if self._redis is not None:
                at_once = self._timings.redis_stop_at_once
                await self._redis.stop(at_once if self._ending.at_once else self._timings.redis_stop)
            redis_nursery.cancel_scope.cancel()
        return self._ending

    def _control(self) -> KeeperControl:
        return KeeperControl(
            ask=self._supervision.ask,
            stop=self._stop_as_asked,
            upgrade=self._supervision.begin_upgrade,
            last_upgrade=lambda: self._supervision.last_upgrade,
            passed_over=lambda: self._supervision.passed_over,
            state=lambda: "draining" if self._draining else "running" if self._supervising else "starting",
            files=lambda: None if self._files is None else self._files.status,
            redis="given" if self._redis is None else "private",
            patience_seconds=self._timings.status,
        )

    async def _work(self, redis_nursery: trio.Nursery) -> Exit:
        if self._redis is None:
            self._supervising = True
            return Exit(await self._supervision.run())
        ending: Exit | None = None
        async with trio.open_nursery() as nursery:
            answers = trio.Event()
            nursery.start_soon(self._start_redis, self._redis, redis_nursery, answers, nursery.cancel_scope)
            with trio.move_on_after(self._timings.redis_patience):
                await answers.wait()
            self._supervising = True  # it says to whoever asks that it waits for a Redis that still loads
            ending = Exit(await self._supervision.run())
            nursery.cancel_scope.cancel()
        return ending or self._without_redis

    async def _start_redis(
        self, redis: PrivateRedis, nursery: trio.Nursery, answers: trio.Event, everything: trio.CancelScope
    ) -> None:
        try:
            await redis.start()
        except StoreDamaged as problem:  # starting again does not help
            self._without_redis = Exit(EXIT_CONFIGURATION)
            self._log.error("redis: does not start", why=str(problem))
            everything.cancel()
            return
        except (RedisDoesNotStart, OSError) as problem:
            self._log.error("redis: does not start", why=str(problem))
            everything.cancel()
            return
        answers.set()
        nursery.start_soon(redis.keep)
        nursery.start_soon(redis.watch_files)

    async def _say_alive(self, every_seconds: float) -> None:
        """Tells systemd's watchdog again and again that the loop turns: it ends a keeper whose loop does not."""
        while True:
            self._notifier.alive()
            await trio.sleep(every_seconds)

    async def _obey_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            received = signal.Signals(number)
            if received in FORWARDED:
                await self._supervision.forward(received)
            elif received is signal.SIGUSR2:
                self._upgrade_as_asked()
            elif self._draining:
                self._log.warning("keeper: ends at once", signal=received.name)
                self._ending = Exit(SIGNAL_EXIT_BASE + number, at_once=True)
                nursery.cancel_scope.cancel()
            else:
                self._stop(received.name, nursery)

    def _upgrade_as_asked(self) -> None:
        try:
            self._supervision.begin_upgrade()  # it tells of its end by itself
        except UpgradeFailed as failed:
            self._log.warning("keeper: no upgrade", reason=str(failed))

    def _stop_as_asked(self) -> float:
        if not self._draining and self._work_nursery is not None:
            self._stop("stop", self._work_nursery)
        return self._timings.drain_bound(self._settings.drain_seconds) + self._timings.redis_stop

    def _stop(self, asked_by: str, nursery: trio.Nursery) -> None:
        bound = self._timings.drain_bound(self._settings.drain_seconds)
        self._log.info("keeper: draining; again to end at once", asked_by=asked_by, at_most_seconds=bound)
        self._notifier.stopping("draining", bound + self._timings.redis_stop)
        self._draining = True
        if self._supervising:
            nursery.start_soon(self._drain, bound)
        else:
            nursery.cancel_scope.cancel()

    async def _drain(self, bound_seconds: float) -> None:
        """Lets the supervisor drain, and kills it after `bound_seconds`; to be cancelled when it has ended."""
        with trio.move_on_after(bound_seconds):
            await self._supervision.drain()
            await trio.sleep_forever()
        self._log.error("keeper: the drain took too long and was cut")
        await self._supervision.kill()


@asynccontextmanager
async def _open_children() -> AsyncGenerator[Children]:
    async with trio.open_nursery() as nursery:
        children = Children(nursery)
        nursery.start_soon(children.reap_strangers_on_signal)
        try:
            yield children
        finally:
            children.kill_all_now()
            nursery.cancel_scope.cancel()


def _listen_control(settings: KeeperSettings) -> socket.socket:
    """Raises ControlTaken; SettingsError where no socket can be made in the state directory (some mounts have none)."""
    path = control_path(settings.state_dir, settings.runtime_dir)
    try:
        return listen_control(path)
    except OSError as problem:
        why = f"no Unix socket can be made at {path} ({problem.strerror})"
        raise unusable(f"{why}: name a directory on a local disk, in a container a volume") from None


@contextmanager
def _listen_files(settings: KeeperSettings, command: FilesCommand | None) -> Generator[Listening | None]:
    """Yields the file gate's socket; None where it stands elsewhere, or nobody wants one. Raises as `_listen_control`."""
    if command is None or not settings.has_own_files:
        yield None
        return
    try:
        listening = files_socket(settings.state_dir, settings.runtime_dir)
    except OSError as problem:
        raise unusable(f"no Unix socket for files can be made in {settings.state_dir} ({problem.strerror})") from None
    with listening.socket:
        yield listening


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if listener.family == socket.AF_INET6 else f"http://{host}:{port}/"
