"""Keeps the workers running: what ends is started again, later and later while it keeps ending, and everything ends in a drain.

What is to be done is decided in supervisor/pool/roster.py; here it is done: processes are started, heard, asked to go and buried. A
worker is replaced (worn, or by new code) only when its successor takes jobs. Deaths are told at once, so that a dead worker's jobs go
on without waiting for their leases.
"""

from collections.abc import Callable
from functools import partial

import trio
from structlog.typing import FilteringBoundLogger

from bus.records.control import FromWorker, Heartbeat, Observation, Ready, StartFailed
from host.strays import become_subreaper, end_strays, reap_soon
from supervisor.pool.crash_loop import CrashLoopStatus, Death
from supervisor.pool.places import Life, Place, WorkerStatus, status_of, why_not
from supervisor.pool.pool_settings import RELOAD, HandlerUnusable, PoolEvents, PoolSettings, Waiting, nothing_waits
from supervisor.pool.process import ExitReason, Stage, WorkerExit, WorkerProcess
from supervisor.pool.recycling import Worn, drawn_limits, is_too_large
from supervisor.pool.roster import ORDERED, Roster, Todo
from supervisor.pool.worker_order import WorkerOrder, module_files
from supervisor.settings.bounds import Bounds

STRAYS_SECONDS = 1.0
"""What a handler left behind is killed, and its end is waited for no longer than this."""

LAST_DEATHS_SECONDS = 5.0
"""A death that is told waits for Redis; at the end of a drain no longer than this: then the leases run out by themselves."""


class Pool:
    """The workers of one supervisor."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        consumer_of: Callable[[int], str],
        events: PoolEvents,
        log: FilteringBoundLogger,
        waiting: Waiting = nothing_waits,
    ) -> None:
        """`consumer_of` names the worker of start number 1, 2, …: a name is never used twice."""
        self._settings = settings
        self._consumer_of = consumer_of
        self._events = events
        self._waiting = waiting
        self._log = log
        self.roster = Roster(settings)
        self._nursery: trio.Nursery | None = None
        self._deaths: trio.Nursery | None = None
        self._rolling = trio.Lock()
        self._reported: set[StartFailed] = set()
        self._failed_files: set[str] = set()
        self._changed = trio.Event()
        self._draining = trio.Event()
        self._ended = trio.Event()
        self._patience = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._starts = 0
        self.last_words: tuple[str, ...] = ()
        """What the last worker that died wrote; may carry content."""
        self.start_problem = ""
        """Why the latest worker could not even be forked; empty where it was."""

    @property
    def ready(self) -> int:
        """How many workers take jobs."""
        return len(self.roster.ready)

    @property
    def target(self) -> int:
        """How many there should be."""
        return self.roster.target

    @property
    def bounds(self) -> Bounds:
        """Returns between which numbers the target may move."""
        return self.roster.bounds

    @property
    def not_begun(self) -> Death | None:
        """Returns how the last worker ended that could not begin, None once another one has begun."""
        return self.roster.not_begun

    @property
    def crash_loop(self) -> CrashLoopStatus | None:
        """Returns the crash loop that goes on now, None without one."""
        return self.roster.crash_loop(trio.current_time())

    @property
    def is_draining(self) -> bool:
        """Whether nobody is started any more."""
        return self.roster.is_draining

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Returns every worker process that there is now, by its place."""
        now = trio.current_time()
        return tuple(status_of(life, now) for life in sorted(self.roster.lives, key=lambda life: life.number))

    def is_worker(self, pid: int) -> bool:
        """Returns whether this child of ours is one that is waited for."""
        return any(life.process.pid == pid for life in self.roster.lives)

    def handler_files(self) -> tuple[str, ...]:
        """Returns from which files the workers' code came, as far as they were asked to report it, and where it should be."""
        files = {file for life in self.roster.lives if life.process.ready for file in life.process.ready.files}
        return tuple(sorted(files | self._failed_files | set(module_files(self.roster.order))))

    async def wait_until_ready(self, count: int = 1) -> None:
        """Waits until `count` workers take jobs."""
        while self.ready < count:
            await self._changed.wait()

    # Life of the pool

    async def run(self) -> None:
        """Runs until drained. Raises HandlerUnusable if no worker could ever start. Cancelled, it kills all workers."""
        become_subreaper()
        async with trio.open_nursery() as deaths:
            self._deaths = deaths
            try:
                with self._everything:
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        nursery.start_soon(self._tend)
                        nursery.start_soon(self._staff)
            finally:
                self._nursery = None
                self._ended.set()
            deaths.cancel_scope.deadline = trio.current_time() + LAST_DEATHS_SECONDS
        if self._everything.cancelled_caught and self.roster.hopeless is not None:
            raise HandlerUnusable(self.roster.hopeless)

    async def drain(self) -> None:
        """Lets nobody take new jobs; what runs has `drain_seconds`, then it is stopped, then killed. Returns when all are gone."""
        self._do(self.roster.drain())
        self._draining.set()
        self._notify()
        with self._patience:
            self._patience.deadline = trio.current_time() + self._settings.drain_seconds
            await self._ended.wait()
        for life in self.roster.lives:
            self._log.warning("worker: does not drain, stopped", worker=life.process.consumer)
            life.process.stop()
        with trio.move_on_after(self.roster.order.times.terminate_seconds):
            await self._ended.wait()
        for life in self.roster.lives:
            life.process.kill()
        await self._ended.wait()

    def dump_stacks(self) -> None:
        """Asks every worker where its threads stand; the answers go to the log."""
        for life in self.roster.lives:
            life.process.dump_stacks()

    def hurry(self) -> None:
        """Ends the patience of a drain: what still runs is stopped now."""
        self._patience.cancel()

    # Size

    def scale(self, bounds: Bounds) -> None:
        """Makes the pool so large from now on. A worker that goes finishes what it runs."""
        before = self.target
        self.roster.scale(bounds)
        self._resized(before)

    def _resized(self, before: int) -> None:
        if self.target != before:
            self._log.info("workers: number", before=before, now=self.target)
        if self._nursery is not None:
            self._do(self.roster.assign(trio.current_time()))
            self._notify()

    async def _staff(self) -> None:
        """Keeps every place filled, until the drain."""
        while not self.is_draining:
            self._do(self.roster.assign(trio.current_time()))
            changed = self._changed
            with trio.move_on_at(self.roster.due_at()):
                await changed.wait()

    def _do(self, todo: Todo) -> None:
        for reason in todo.restarts:
            self._events.worker_restarts(reason)
        for life in todo.retire:
            life.retire()
        for place in todo.start:
            if self._begin(place.number, self.roster.order, is_successor=False) is None:
                self.roster.not_forked(place, trio.current_time())

    async def _tend(self) -> None:
        """Sees once a second to it that the number is right and that none is worn."""
        while not self.is_draining:
            with trio.move_on_after(self._settings.tend_seconds):
                await self._draining.wait()
                return
            if not self.bounds.is_fixed:
                before, waiting = self.target, await self._waiting()
                self.roster.follow(trio.current_time(), waiting)
                if self.target != before:
                    self._resized(before)
            for place in list(self.roster.places.values()):
                why = self.roster.worn(place, trio.current_time())
                if place.life is not None and why is not None and not self._rolling.locked():
                    await self._recycle(place, place.life, why)

    # Replacing

    async def _recycle(self, place: Place, life: Life, why: Worn) -> None:
        async with self._rolling:
            self._log.info("worker: is replaced", worker=life.process.consumer, reason=why.value)
            failed = await self._replace(place, self.roster.order, why.value)
            if failed is not None:
                self._log.error("worker: its successor does not come up, it stays", reason=failed)
                self.roster.rest(life, trio.current_time())

    async def reload(self, order: WorkerOrder) -> str | None:
        """Gives the workers new code and settings, one after the other; no job is interrupted. Returns None, or why it failed.

        Then those that were not replaced stay as they are. With the first successor that takes jobs the order holds for all that are
        started from then on.
        """
        async with self._rolling:
            replaced, self._reported, self._failed_files = 0, set(), set()
            for place in list(self.roster.places.values()):
                if place.left:
                    continue
                failed = await self._replace(place, order, RELOAD)
                if self.is_draining:
                    return "the supervisor ends"
                if failed is not None:
                    kept = len(self.roster.places) - replaced
                    self._log.error("reload: failed, the old workers stay", reason=failed, replaced=replaced, kept=kept)
                    return failed
                self.roster.order, replaced = order, replaced + 1
            self.roster.reloaded(order)
            self._log.info("reload: done", workers=replaced)
            return None

    async def _replace(self, place: Place, order: WorkerOrder, reason: str) -> str | None:
        """Returns None once a successor has taken over; else why it has not, and the former worker was not touched."""
        successor = self._begin(place.number, order, is_successor=True)
        if successor is None:
            why = self.start_problem or "the pool has ended"
            return f"no process could be started: {why}; the limits are ulimit -u, ulimit -n and memory"
        await successor.settled.wait()
        if successor.exit is not None:
            return why_not(successor.exit)
        self._do(self.roster.succeed(place, successor, reason))
        return None

    # Lives

    def _begin(self, number: int, order: WorkerOrder, *, is_successor: bool) -> Life | None:
        """Starts a process, supervised from its first instant. Returns None if it could not be forked."""
        if self._nursery is None:
            return None
        self._starts += 1
        process = WorkerProcess(order, self._consumer_of(self._starts), self._log, number)
        try:
            process.start()
        except OSError as error:
            self.start_problem = str(error.strerror)
            self._log.error("worker: cannot be started", number=number, error=error.strerror)
            return None
        self.start_problem = ""
        life = Life(process, number, order, drawn_limits(self._settings.recycle), is_successor)
        self.roster.began(life)
        self._nursery.start_soon(self._live, life)
        return life

    async def _live(self, life: Life) -> None:
        try:
            life.exit = await life.process.supervise(partial(self._hear, life))
            self._consider(life, life.exit)
        finally:
            strays = end_strays(lambda name: name == life.process.consumer, group=life.process.pid)
            self.roster.buried(life, trio.current_time())
            life.settled.set()
            life.ended.set()
            self._notify()
        await reap_soon(strays, STRAYS_SECONDS)

    def _hear(self, life: Life, message: FromWorker) -> None:
        match message:
            case Ready():
                self.roster.became_ready(life)
                life.settled.set()
                self._notify()
            case Heartbeat() if is_too_large(life.limits, message) and life.process.stage is not Stage.KILLED:
                self._log.error("worker: too large, killed", worker=life.process.consumer, rss_bytes=message.rss_bytes)
                life.process.kill(ExitReason.MEMORY)
            case Observation():
                self._events.observed(message)
            case StartFailed() if message not in self._reported:
                self._reported.add(message)
                self._failed_files.add(message.file)
                self._log.error(
                    "worker: cannot use the handler",
                    handler=life.order.handler,
                    exception=message.exception,
                    at=f"{message.file}:{message.line}" if message.file else "",
                    error=message.last_line,
                )

    def _consider(self, life: Life, exited: WorkerExit) -> None:
        """Tells of an end, and does what it means for the pool."""
        if self._deaths is not None:
            self._deaths.start_soon(self._events.worker_ended, exited)
        if exited.last_words and exited.reason not in ORDERED:
            self.last_words = exited.last_words
        verdict = self.roster.died(life, exited, trio.current_time())
        if verdict.is_death:
            self._log.error(
                "worker: died",
                worker=exited.consumer,
                status=exited.returncode,
                reason=exited.reason.value,
                exception=exited.exception,
                at=exited.at,
                running=len(exited.running),
            )
        if verdict.begins_crash_loop:
            self._log.error("workers: crash loop, started again slowly from now on", why=str(self.crash_loop))
        if verdict.is_hopeless:
            self._everything.cancel()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
