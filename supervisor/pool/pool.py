"""Keeps the workers running: what ends is started again, later and later while it keeps ending, and everything ends in a drain.

Each place in the pool is a task of its own, so that one that crashes for ever takes nothing from the others. A worker is replaced
(worn, or by new code) only when its successor takes jobs. Deaths are told at once, so that a dead worker's jobs go on without
waiting for their leases.
"""

import random
from collections.abc import Callable
from functools import partial

import trio
from structlog.typing import FilteringBoundLogger

from bus.records.control import FromWorker, Heartbeat, Observation, Ready, StartFailed
from host.children import RestartBackoff
from host.strays import become_subreaper, end_strays, reap_soon
from supervisor.pool.autoscale import Autoscale, Load
from supervisor.pool.crash_loop import CrashLoop, CrashLoopStatus, death_of
from supervisor.pool.places import Life, Place, WorkerStatus, status_of, use_of, why_not
from supervisor.pool.pool_settings import RELOAD, HandlerUnusable, PoolEvents, PoolSettings, Waiting, nothing_waits
from supervisor.pool.process import ExitReason, Stage, WorkerExit, WorkerProcess
from supervisor.pool.recycling import Worn, drawn_limits, is_too_large, worn_out
from supervisor.pool.worker_order import WorkerOrder, module_files
from supervisor.settings.bounds import Bounds

# What a handler left behind is killed; its end is waited for no longer than this.
STRAYS_SECONDS = 1.0
# Told deaths wait for Redis; at the end of a drain they do not wait for ever.
LAST_DEATHS_SECONDS = 5.0


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
        self._order = settings.order
        self.bounds = settings.bounds
        self._target = settings.bounds.least
        self._autoscale = Autoscale(settings.autoscale)
        self._crash_loop = CrashLoop(settings.crash_loop)
        self._places: dict[int, Place] = {}
        self._lives: list[Life] = []
        self._nursery: trio.Nursery | None = None
        self._deaths: trio.Nursery | None = None
        self._rolling = trio.Lock()
        self._reported: set[StartFailed] = set()
        self._failed_files: set[str] = set()
        self._was_ready = False
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
        return sum(life.is_ready for life in self._lives)

    @property
    def target(self) -> int:
        """How many there should be."""
        return self._target

    @property
    def crash_loop(self) -> CrashLoopStatus | None:
        """None while there is none."""
        return self._crash_loop.status(trio.current_time())

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Every worker process that there is now, by its place."""
        now = trio.current_time()
        return tuple(status_of(life, now) for life in sorted(self._lives, key=lambda life: life.number))

    def is_worker(self, pid: int) -> bool:
        """Whether this child of ours is one that is waited for."""
        return any(life.process.pid == pid for life in self._lives)

    def handler_files(self) -> tuple[str, ...]:
        """From where the workers' code came, as far as they were asked to report it."""
        files = {file for life in self._lives if life.process.ready for file in life.process.ready.files}
        return tuple(sorted(files | self._failed_files | set(module_files(self._order))))

    async def wait_until_ready(self, count: int = 1) -> None:
        """Until `count` workers take jobs."""
        while self.ready < count:
            await self._changed.wait()

    # Life of the pool

    async def run(self) -> None:
        """Until drained. Raises HandlerUnusable if no worker could ever start. Cancelled, it kills all workers."""
        become_subreaper()
        async with trio.open_nursery() as deaths:
            self._deaths = deaths
            try:
                with self._everything:
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        nursery.start_soon(self._tend)
                        self._fit()
            finally:
                self._nursery = None
                self._ended.set()
            deaths.cancel_scope.deadline = trio.current_time() + LAST_DEATHS_SECONDS
        if self._everything.cancelled_caught:
            raise HandlerUnusable(next(place.failure for place in self._places.values() if place.failure))

    async def drain(self) -> None:
        """No new jobs; what runs has `drain_seconds`, then it is stopped, then killed. Returns when all are gone."""
        self._draining.set()
        for place in self._places.values():
            place.wake()
        for life in self._lives:
            life.retire()
        with self._patience:
            self._patience.deadline = trio.current_time() + self._settings.drain_seconds
            await self._ended.wait()
        for life in self._lives:
            self._log.warning("worker: does not drain, stopped", worker=life.process.consumer)
            life.process.stop()
        with trio.move_on_after(self._order.times.terminate_seconds):
            await self._ended.wait()
        for life in self._lives:
            life.process.kill()
        await self._ended.wait()

    def dump_stacks(self) -> None:
        """Ask every worker where it stands; the answers go to the log."""
        for life in self._lives:
            life.process.dump_stacks()

    def hurry(self) -> None:
        """A drain waits no longer for what runs."""
        self._patience.cancel()

    # Size

    def scale(self, bounds: Bounds) -> None:
        """From now on so many workers. One that goes finishes what it runs."""
        self.bounds = bounds
        self._resize(bounds.clamp(self._target))

    def _resize(self, target: int) -> None:
        if target != self._target:
            self._log.info("workers: number", before=self._target, now=target)
        self._target = target
        self._autoscale = Autoscale(self._settings.autoscale)
        self._fit()

    def _fit(self) -> None:
        if self._nursery is None or self.is_draining:
            return
        while len(self._places) < self._target:
            place = Place(self._free_number(), self._new_backoff())
            self._places[place.number] = place
            self._nursery.start_soon(self._keep, place)
        for place in sorted(self._places.values(), key=use_of)[: len(self._places) - self._target]:
            del self._places[place.number]
            place.leave()

    def _free_number(self) -> int:
        taken = self._places.keys() | {life.number for life in self._lives}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    async def _tend(self) -> None:
        """Once a second: the right number, and none that is worn."""
        while not self.is_draining:
            with trio.move_on_after(self._settings.tend_seconds):
                await self._draining.wait()
                return
            if not self.bounds.is_fixed:
                await self._follow_load()
            for place in list(self._places.values()):
                life = place.life
                if life is not None and (why := self._worn(life)) and not self._rolling.locked():
                    await self._recycle(place, life, why)

    async def _follow_load(self) -> None:
        ready = [life for life in self._lives if life.is_ready]
        load = Load(
            waiting=await self._waiting(),
            busy=sum(len(life.process.heartbeat.running) for life in ready if life.process.heartbeat),
            slots=sum(life.order.concurrency for life in ready),
            starting=len(self._places) - len(ready),
        )
        now = trio.current_time()
        self._autoscale, wanted = self._autoscale.step(now, self.bounds, self._target, load, self._order.concurrency)
        if wanted != self._target:
            self._resize(wanted)

    # Replacing

    def _worn(self, life: Life) -> Worn | None:
        now, beat = trio.current_time(), life.process.heartbeat
        if not life.is_ready or beat is None or now < life.rest_until:
            return None
        return worn_out(life.limits, beat, now - life.process.began_at)

    async def _recycle(self, place: Place, life: Life, why: Worn) -> None:
        async with self._rolling:
            self._log.info("worker: is replaced", worker=life.process.consumer, reason=why.value)
            failed = await self._replace(place, self._order, why.value)
            if failed is not None:
                self._log.error("worker: its successor does not come up, it stays", reason=failed)
                life.rest_until = trio.current_time() + self._settings.backoff_last_seconds

    async def reload(self, order: WorkerOrder) -> str | None:
        """New code and settings, one worker after the other; no job is interrupted.

        None, or why not: then those that were not replaced stay as they are. With the first successor that takes jobs the order
        holds for all that are started from then on.
        """
        async with self._rolling:
            replaced, self._reported, self._failed_files = 0, set(), set()
            for place in list(self._places.values()):
                if place.left:
                    continue
                failed = await self._replace(place, order, RELOAD)
                if self.is_draining:
                    return "the supervisor ends"
                if failed is not None:
                    kept = len(self._places) - replaced
                    self._log.error("reload: failed, the old workers stay", reason=failed, replaced=replaced, kept=kept)
                    return failed
                self._order, replaced = order, replaced + 1
            self._order = order
            self._crash_loop.forget()
            self._log.info("reload: done", workers=replaced)
            return None

    async def _replace(self, place: Place, order: WorkerOrder, reason: str) -> str | None:
        """None once a successor has taken over; else why it has not, and the former worker was not touched."""
        successor = self._begin(place.number, order, is_successor=True)
        if successor is None:
            return "the system has no process to give"
        await successor.settled.wait()
        if successor.exit is not None:
            return why_not(successor.exit)
        if place.left or self.is_draining:
            successor.retire()
            return None
        place.take_over(successor)
        self._events.worker_restarts(reason)
        return None

    # Places

    async def _keep(self, place: Place) -> None:
        while not (self.is_draining or place.left):
            if place.life is None:
                place.life = self._begin(place.number, self._order, is_successor=False)
            life = place.life
            if life is not None:
                await life.ended.wait()
                if place.life is not life:
                    continue  # Its successor has taken over.
                place.life = None
            if self.is_draining or place.left:
                return
            exited = None if life is None else life.exit
            await place.pause(self._pause_seconds(place, exited))
            if place.life is None and not (self.is_draining or place.left):
                self._events.worker_restarts("fork" if exited is None else exited.reason.value)

    def _pause_seconds(self, place: Place, exited: WorkerExit | None) -> float:
        seconds = place.backoff.after_death(0.0 if exited is None else exited.ready_seconds)
        if self.crash_loop is None:
            return seconds
        return max(seconds, self._settings.backoff_last_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load

    def _new_backoff(self) -> RestartBackoff:
        settings = self._settings
        return RestartBackoff(settings.backoff_first_seconds, settings.backoff_last_seconds, settings.healthy_seconds)

    # Lives

    def _begin(self, number: int, order: WorkerOrder, *, is_successor: bool) -> Life | None:
        """A process, supervised from its first instant; None if it could not be forked."""
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
        self._lives.append(life)
        self._nursery.start_soon(self._live, life)
        return life

    async def _live(self, life: Life) -> None:
        try:
            life.exit = await life.process.supervise(partial(self._hear, life))
            self._consider(life, life.exit)
        finally:
            strays = end_strays(lambda name: name == life.process.consumer, group=life.process.pid)
            self._lives.remove(life)
            life.settled.set()
            life.ended.set()
            self._notify()
        await reap_soon(strays, STRAYS_SECONDS)

    def _hear(self, life: Life, message: FromWorker) -> None:
        match message:
            case Ready():
                self._was_ready = True
                if (place := self._places.get(life.number)) is not None and place.life is life:
                    place.failure = None
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
                    at=f"{message.file}:{message.line}",
                    error=message.last_line,
                )

    def _consider(self, life: Life, exited: WorkerExit) -> None:
        """What an end means for the pool."""
        if self._deaths is not None:
            self._deaths.start_soon(self._events.worker_ended, exited)
        if exited.reason in {ExitReason.DRAINED, ExitReason.KILLED}:
            return
        if exited.last_words:
            self.last_words = exited.last_words
        if exited.failure is None:
            self._log.error(
                "worker: died",
                worker=exited.consumer,
                status=exited.returncode,
                reason=exited.reason.value,
                exception=exited.exception,
                at=exited.at,
                running=len(exited.running),
            )
        if life.is_successor or self.is_draining:
            return
        self._count_death(exited)
        if exited.failure is not None:
            self._note_failure(life.number, exited.failure)

    def _count_death(self, exited: WorkerExit) -> None:
        if self._crash_loop.note(trio.current_time(), death_of(exited)):
            self._log.error("workers: crash loop, started again slowly from now on", why=str(self.crash_loop))

    def _note_failure(self, number: int, failure: StartFailed) -> None:
        if (place := self._places.get(number)) is not None:
            place.failure = failure
        if self._was_ready or self._settings.waits_for_code:
            return
        if self._places and all(place.failure is not None for place in self._places.values()):
            self._everything.cancel()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
