"""Who should work in a pool, who does, and who comes next: every decision of the pool, none of its IO.

Each method changes all of the state at once and returns what is to be done; supervisor/pool/pool.py does it. Nothing here waits, forks,
signals, logs or counts, so that a test can walk it with workers that are none.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from bus.records.control import StartFailed
from host.children import RestartBackoff
from supervisor.pool.autoscale import Autoscale, Load
from supervisor.pool.crash_loop import CrashLoop, CrashLoopStatus, Death, death_of
from supervisor.pool.places import Life, Place, use_of
from supervisor.pool.pool_settings import PoolSettings
from supervisor.pool.process import ExitReason, WorkerExit
from supervisor.pool.recycling import Worn, worn_out
from supervisor.pool.worker_order import WorkerOrder
from supervisor.settings.bounds import Bounds

FORK = "fork"
"""Why a worker is started anew after the system had no process to give: a label of the restart metric."""

ORDERED = frozenset({ExitReason.DRAINED, ExitReason.KILLED})
"""How a worker ends that was told to."""


@dataclass(frozen=True)
class Todo:
    """What is to be done: start a worker in each place of `start`, let each life of `retire` finish and go, count `restarts`."""

    start: tuple[Place, ...] = ()
    retire: tuple[Life, ...] = ()
    restarts: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerEnd:
    """What the end of a worker means: whether it died (else it went as it was told), whether a crash loop begins with it,
    and whether the pool gives up, since no worker could ever start.
    """

    is_death: bool = False
    begins_crash_loop: bool = False
    is_hopeless: bool = False


@dataclass(eq=False)
class Roster:
    """The places of one pool and the lives in and beside them. Times are those of the caller's clock, in seconds."""

    settings: PoolSettings
    uniform: Callable[[float, float], float] = random.uniform
    places: dict[int, Place] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    is_draining: bool = False

    def __post_init__(self) -> None:
        self.order: WorkerOrder = self.settings.order
        self.bounds: Bounds = self.settings.bounds
        self.target = self.bounds.least
        self._autoscale = Autoscale(self.settings.autoscale)
        self._crash_loop = CrashLoop(self.settings.crash_loop)
        self._was_ready = False
        self.not_begun: Death | None = None
        """How the last worker ended that ended before it took jobs; None once another one takes them."""

    @property
    def ready(self) -> list[Life]:
        """Returns who takes jobs."""
        return [life for life in self.lives if life.is_ready]

    @property
    def hopeless(self) -> StartFailed | None:
        """Returns why the worker of some place could not be started at last, None where each could."""
        return next((place.failure for place in self.places.values() if place.failure), None)

    def crash_loop(self, now: float) -> CrashLoopStatus | None:
        """Returns the crash loop that goes on now, None without one."""
        return self._crash_loop.status(now)

    # Size

    def assign(self, now: float) -> Todo:
        """Makes as many places as are wanted. Returns who is to start now and who is to go."""
        if self.is_draining:
            return Todo()
        while len(self.places) < self.target:
            number = self._free_number()
            self.places[number] = Place(number, self._new_backoff(), start_at=now)
        leaving = sorted(self.places.values(), key=use_of)[: len(self.places) - self.target]
        for place in leaving:
            del self.places[place.number]
            place.left = True
        start = tuple(place for place in self.places.values() if place.life is None and place.start_at <= now)
        return Todo(
            start=start,
            retire=tuple(place.life for place in leaving if place.life is not None),
            restarts=tuple(place.ended_by for place in start if place.ended_by),
        )

    def due_at(self) -> float:
        """Returns when the next pause of a place is over, inf without one: until then `assign` gives nothing new by itself."""
        return min((place.start_at for place in self.places.values() if place.life is None), default=inf)

    def resize(self, target: int) -> None:
        """Wants so many places from the next `assign` on, and forgets what autoscaling remembered."""
        self.target = target
        self._autoscale = Autoscale(self.settings.autoscale)

    def scale(self, bounds: Bounds) -> None:
        """Sets other bounds; the number of places changes only as far as they demand it."""
        self.bounds = bounds
        self.resize(bounds.clamp(self.target))

    def follow(self, now: float, waiting: int) -> None:
        """Wants as many places as the load asks for, within the bounds. `waiting`: how many jobs no worker has taken."""
        ready = self.ready
        load = Load(
            waiting=waiting,
            busy=sum(len(life.process.heartbeat.running) for life in ready if life.process.heartbeat),
            slots=sum(life.order.concurrency for life in ready),
            starting=len(self.places) - len(ready),
        )
        self._autoscale, wanted = self._autoscale.step(now, self.bounds, self.target, load, self.order.concurrency)
        if wanted != self.target:
            self.resize(wanted)

    def drain(self) -> Todo:
        """Starts nobody any more. Returns all who are to go."""
        self.is_draining = True
        return Todo(retire=tuple(self.lives))

    # Lives

    def began(self, life: Life) -> None:
        """Notes a new process: in its place, or beside whoever works there, as its successor."""
        self.lives.append(life)
        place = self.places.get(life.number)
        if not life.is_successor and place is not None:
            place.life = life

    def not_forked(self, place: Place, now: float) -> None:
        """Has the place tried again after a pause, since the system had no process to give."""
        self._pause(place, now, ready_seconds=0.0, ended_by=FORK)

    def became_ready(self, life: Life) -> None:
        """Notes that a worker takes jobs, so that the handler can be used."""
        self._was_ready, self.not_begun = True, None
        place = self.places.get(life.number)
        if place is not None and place.life is life:
            place.failure = None

    def died(self, life: Life, exited: WorkerExit, now: float) -> WorkerEnd:
        """Judges the end of a worker, which stays in the list until it is `buried`. Returns what its end means."""
        if exited.reason in ORDERED:
            return WorkerEnd()
        is_death = exited.failure is None
        if life.is_successor or self.is_draining:
            return WorkerEnd(is_death)
        begins = self._crash_loop.note(now, death_of(exited))
        if not exited.ready_seconds:
            self.not_begun = death_of(exited)
        place = self.places.get(life.number)
        if exited.failure is not None and place is not None:
            place.failure = exited.failure
        is_hopeless = (
            exited.failure is not None
            and not (self._was_ready or self.settings.waits_for_code)
            and bool(self.places)
            and all(place.failure is not None for place in self.places.values())
        )
        return WorkerEnd(is_death, begins, is_hopeless)

    def buried(self, life: Life, now: float) -> None:
        """Takes the worker off the list; its place, if it had one, is filled again after a pause."""
        self.lives.remove(life)
        place = self.places.get(life.number)
        if place is None or place.life is not life:
            return  # the pool has become smaller, or its successor works there
        place.life = None
        if life.exit is not None:
            self._pause(place, now, ready_seconds=life.exit.ready_seconds, ended_by=life.exit.reason.value)

    def _pause(self, place: Place, now: float, *, ready_seconds: float, ended_by: str) -> None:
        seconds = place.backoff.after_death(ready_seconds)
        if self.crash_loop(now) is not None:
            seconds = max(seconds, self.settings.backoff_last_seconds * self.uniform(0.5, 1.0))  # spreads load
        place.start_at, place.ended_by = now + seconds, ended_by

    # Replacing

    def worn(self, place: Place, now: float) -> Worn | None:
        """Returns why the worker of this place is to be replaced, None if it is not, or rests after a successor did not come up."""
        life = place.life
        if life is None or not life.is_ready or life.process.heartbeat is None or now < life.rest_until:
            return None
        return worn_out(life.limits, life.process.heartbeat, now - life.process.began_at)

    def rest(self, life: Life, now: float) -> None:
        """Lets a worker rest whose successor did not come up: for a while it does not count as worn."""
        life.rest_until = now + self.settings.backoff_last_seconds

    def succeed(self, place: Place, successor: Life, reason: str) -> Todo:
        """Gives the place to a successor that takes jobs. Returns who is to go: the former, or itself where nobody is wanted any more."""
        if place.left or self.is_draining:
            return Todo(retire=(successor,))
        former, place.life = place.life, successor
        successor.is_successor = False
        return Todo(retire=() if former is None else (former,), restarts=(reason,))

    def reloaded(self, order: WorkerOrder) -> None:
        """Starts all with this order from now on, and forgets earlier deaths, which say nothing about the new code."""
        self.order, self.not_begun = order, None
        self._crash_loop.forget()

    def _free_number(self) -> int:
        taken = self.places.keys() | {life.number for life in self.lives}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def _new_backoff(self) -> RestartBackoff:
        settings = self.settings
        return RestartBackoff(settings.backoff_first_seconds, settings.backoff_last_seconds, settings.healthy_seconds)
