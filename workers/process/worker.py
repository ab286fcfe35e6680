"""Runs a worker process from its start to its end: opens the bus, runs jobs, and obeys commands to drain or stop.

Commands come from the supervisor's pipe (in a thread), from signals, and from the runner's own end; `Worker` brings them into the
event loop.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import setproctitle
import trio

from bus.records.control import (
    Crashed,
    Drain,
    Drained,
    DumpStacks,
    Heartbeat,
    Observation,
    Ready,
    Stacks,
    StartFailed,
    Stop,
    ToWorker,
)
from bus.settings.shared import SHOWS_ERRORS
from bus.steps.jobs import JobStore
from bus.transport.backoff import Backoff
from bus.transport.lua import Rights
from bus.transport.wire import RedisFailed
from host import stacks
from host.current_directory import current_directory
from host.log_stream import drain_streams
from host.name_lookups import look_names_up_apart
from workers.handling.agent import Agent
from workers.process.control_link import ControlLink
from workers.process.file_way import file_way, sweep_spool
from workers.process.forks import Forks
from workers.process.loading import code_of, owners_files
from workers.process.logs import Log
from workers.process.overrun import OverrunWatch
from workers.process.runner import Runner, RunnerSettings
from workers.process.settings import WorkerSettings
from workers.process.stalls import StallWatch, say_that_it_opens
from workers.process.tracing import JobTracing
from workers.process.vitals import Vitals

EXIT_STOPPED_HARD = 75
EXIT_LAMED = 76
# For threads of the owner's that end by themselves: less than a supervisor takes for a hang.
LAST_THREADS_SECONDS = 2.0
MOST_NAMED = 5
# How often it checks that every thread lives: well within the 15 s of a lease.
LOOK_SECONDS = 1.0
# After a stop at once the process waits no longer for the thread of a sync handler.
STOP_WITHIN_SECONDS = 5.0
# A worker whose handler hangs ends its other jobs within so long, else they are handed back.
OTHERS_SECONDS = 10.0


class Worker:
    """The runner of one process, and what reaches it from outside of the event loop."""

    def __init__(self, settings: WorkerSettings, log: Log, tracing: JobTracing) -> None:
        self._settings = settings
        self._log = log
        self._tracing = tracing
        self._vitals = Vitals()
        self._stalls: StallWatch | None = None
        self._link: ControlLink | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._root: trio.lowlevel.Task | None = None
        self._runner: Runner | None = None
        self._opening = trio.CancelScope()
        self._ending: type[Drain | Stop] | None = None
        self._lock = threading.Lock()
        self._store: JobStore | None = None
        self._overrun: OverrunWatch | None = None
        self._nursery: trio.Nursery | None = None
        self._forks = Forks(self._tell_forked)
        self.exit_code = 0
        self.is_opening = False
        """Whether the owner's lifespan is being entered."""

    @property
    def vitals(self) -> Vitals:
        return self._vitals

    def attach(self, link: ControlLink) -> None:
        """Has messages sent to a supervisor from now on."""
        self._link = link

    def pulse(self, dropped: int) -> Heartbeat:
        """Returns a heartbeat; called by the thread that sends it."""
        beat = self._vitals.heartbeat(dropped, "" if self._store is None else self._store.trouble)
        if self._stalls is not None:
            self._stalls.note(beat.loop_lag_ms)
        self.show_title(len(beat.running))
        return beat

    def show_title(self, running: int = 0) -> None:
        """Sets the process' title, which `ps` shows."""
        name = self._settings.consumer if self._settings.number is None else self._settings.number
        jobs = "1 job" if running == 1 else f"{running} jobs"
        setproctitle.setproctitle(f"hashee-agent: worker {name} ({jobs})")

    def tell(self, message: Ready | Observation | Stacks | Drained | StartFailed | Crashed) -> None:
        """Sends a message to the supervisor, if there is one."""
        if self._link is not None:
            self._link.send(message)

    def _observe(self, metric: str, value: float, **labels: str) -> None:
        self.tell(Observation(metric=metric, labels=labels, value=value))

    def command(self, command: ToWorker) -> None:
        """Takes a command, from any thread."""
        if isinstance(command, DumpStacks):
            self.tell(Stacks(text=stacks.dump(self._root)))
            return
        with self._lock:
            self._ending = type(command) if self._ending is not Stop else Stop
            token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._obey)
            except trio.RunFinishedError:
                return  # the event loop has ended already

    async def run(self, agent: Agent) -> None:
        """Opens the bus, reports that it is ready, and runs jobs until told to end."""
        look_names_up_apart()
        settings = self._settings
        self._vitals.introduce(
            consumer=settings.consumer,
            handler=settings.handler,
            concurrency=settings.concurrency,
            code=code_of(agent, current_directory()),
        )
        self._root = trio.lowlevel.current_root_task()
        self._forks.register()
        self._stalls = StallWatch(self._log)
        self._vitals.watch_loop()
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
        self._obey()
        # The lifespan is outside of the nursery, so that its exceptions do not come in a group.
        if self._link is None:
            self._overrun = OverrunWatch(self._vitals, self._log, self._settings.job_seconds, self._leave)
            self._overrun.start()
        self.is_opening, opening = True, trio.CancelScope()
        trio.lowlevel.spawn_system_task(say_that_it_opens, self._log, trio.lowlevel.current_task(), opening)
        async with agent.lifespan(observe=self._observe) as shared, trio.open_nursery() as nursery:
            self.is_opening, self._nursery = False, nursery
            opening.cancel()
            nursery.start_soon(self._hear_signals)
            nursery.start_soon(self._watch_threads)
            await self._work(agent, shared)
            nursery.cancel_scope.cancel()

    async def _work(self, agent: Agent, shared: tuple[object, ...]) -> None:
        settings = self._settings
        store: JobStore | None = None
        with self._opening:
            store = await self._open_store(agent)
        if store is None:
            self.tell(Drained(handed_back=0))
            return
        files = file_way(settings, self.tell)
        self._runner = Runner(
            agent,
            store,
            RunnerSettings(
                concurrency=settings.concurrency,
                retry_after_seconds=settings.retry_after_seconds,
                job_seconds=settings.job_seconds,
                retries_timeouts=settings.retries_timeouts,
                shows_errors=settings.shows_errors,
            ),
            vitals=self._vitals,
            log=self._log,
            observe=self.tell,
            tracing=self._tracing,
            shared=shared,
            files=files,
            replace_worker=self._be_replaced,
            leave_exhausted=self._leave_exhausted,
        )
        self._store = store
        try:
            self._obey()
            self.tell(_ready(settings))
            if settings.shows_errors:
                self._log.warning(f"worker: {SHOWS_ERRORS}")
            self._log.info("worker: ready", handler=settings.handler, pid=os.getpid())
            if self._overrun is not None:
                self._overrun.jobs_are_taken()
            async with trio.open_nursery() as beside:
                beside.start_soon(sweep_spool, files.spool, store, self._log)
                await self._runner.run()
                beside.cancel_scope.cancel()
        finally:
            self._store = None  # its threads may end now
            with trio.CancelScope(shield=True):
                await store.close()
        self.tell(Drained(handed_back=self._runner.handed_back))

    async def _open_store(self, agent: Agent) -> JobStore:
        settings, backoff, said = self._settings, Backoff(), ""
        while True:
            store = JobStore(
                settings.redis_url,
                settings.agent_id,
                settings.bus_key,
                settings.consumer,
                policies=agent.policies,
                rights=Rights.STAND if settings.has_own_redis else Rights.MAY_CHANGE,
            )
            store.on_trouble(self._say_trouble)
            try:
                await store.open()
            except RedisFailed as error:
                if error.reason != said:
                    self._log.warning("worker: Redis cannot be used, waiting for it", reason=error.reason)
                said = error.reason
                await backoff.wait()
            else:
                return store

    def _say_trouble(self, who: str, reason: str) -> None:
        if reason:
            self._log.warning("worker: a thread cannot do its work in Redis, it tries on", thread=who, reason=reason)
        else:
            self._log.info("worker: a thread does its work in Redis again", thread=who)

    def _tell_forked(self, _error: BaseException | None) -> None:
        self._log.error(
            "worker: a process that its code has forked waits in the event loop, and is ended",
            remedy="what it does may use no chat and no await: end it with os._exit, or use subprocess or multiprocessing",
        )

    async def _watch_threads(self) -> None:
        """Hands back all jobs and ends the worker if one of our threads has ended, which is a defect: another worker takes over."""
        while not (dead := self._dead_threads()):  # noqa: ASYNC110 - a thread that ends tells nobody
            await trio.sleep(LOOK_SECONDS)
        self._log.error("worker: a thread has ended, it leaves for another", threads=dead)
        self.tell(Crashed(exception="ThreadEnded", at=dead[0]))
        self.exit_code = EXIT_LAMED
        self.command(Stop())

    def _be_replaced(self, at: str) -> None:
        """Takes no more jobs, and leaves for another worker when the others have ended: a handler hangs that will not end."""
        self._leave_for_another(Crashed(exception="HandlerHangs", at=at))

    def _leave_exhausted(self, at: str) -> None:
        self._log.error("worker: no file or connection can be opened in it any more, it leaves for another", at=at)
        self._leave_for_another(Crashed(exception="TooManyOpenFiles", at=at))

    def _leave_for_another(self, why: Crashed) -> None:
        self.exit_code = EXIT_LAMED
        self.tell(why)
        self.command(Drain())
        if self._nursery is not None:
            self._nursery.start_soon(self._leave_when_alone)

    async def _leave_when_alone(self) -> None:
        with trio.move_on_after(OTHERS_SECONDS):
            while self._runner is not None and self._runner.running:  # noqa: ASYNC110 - looked at a few times in a worker's life
                await trio.sleep(LOOK_SECONDS / 10)
        self.command(Stop())
        await trio.sleep(LOOK_SECONDS)
        if self._runner is not None:
            self.tell(
                Drained(handed_back=self._runner.handed_back)
            )  # it ends as it was asked to, but for the handler that hangs

    def _leave(self) -> None:
        """Hands back jobs that can be cancelled, then ends the process, whatever blocks the event loop."""
        self.command(Stop())
        time.sleep(STOP_WITHIN_SECONDS)
        drain_streams()
        os._exit(EXIT_STOPPED_HARD)

    def _dead_threads(self) -> list[str]:
        return [
            *([] if self._link is None else self._link.dead_threads),
            *([] if self._store is None else self._store.dead_threads),
            *([] if self._overrun is None else self._overrun.dead_threads),
        ]

    def _obey(self) -> None:
        """Carries out the commands so far, as far as their receivers exist yet; called in the event loop."""
        if self._ending is None:
            return
        self._opening.cancel()
        if self._ending is Stop:
            _exit_soon(STOP_WITHIN_SECONDS, self.exit_code or EXIT_STOPPED_HARD)
        if self._runner is not None:
            (self._runner.stop if self._ending is Stop else self._runner.drain)()

    async def _hear_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            self._forks.hears(signal.SIGTERM, signal.SIGINT)
            async for _signal in signals:
                self.command(Drain() if self._ending is None else Stop())


def _ready(settings: WorkerSettings) -> Ready:
    return Ready(
        handler=settings.handler,
        pid=os.getpid(),
        python=".".join(map(str, sys.version_info[:3])),
        concurrency=settings.concurrency,
        files=owners_files(current_directory()) if settings.report_files else (),
    )


def leave_without_owners_threads(log: Log, code: int) -> None:
    """Has the process end soon, also where threads that the owner's code has begun do not end: Python would wait for them for ever."""

    def owners_threads() -> list[str]:
        return [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]

    def say_and_leave() -> None:
        log.warning(
            "worker: it leaves without threads of the handler's code, which did not end",
            threads=owners_threads()[:MOST_NAMED],
            remedy="end them when `lifespan` ends, or make them daemon=True",
        )
        drain_streams()
        os._exit(code)

    if owners_threads():  # some end by themselves meanwhile, as those of an executor do
        _after(LAST_THREADS_SECONDS, say_and_leave)


def _exit_soon(seconds: float, code: int) -> None:
    def leave() -> None:
        drain_streams()
        os._exit(code)

    _after(seconds, leave)


def _after(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
