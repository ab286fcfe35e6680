# ruff: noqa: ARG002 - the bus asks for more than a life needs
"""A worker's life: the real runner, each of whose acts at the bus waits until the play lets it go on, or ends the life there."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import trio

from bus.records.presence import Presence
from bus.records.records import Job
from tests.bus.scenes import Worker
from workers import Agent
from workers.process.logs import Log
from workers.process.runner import Runner, RunnerSettings
from workers.process.vitals import Vitals

ACTS = frozenset(
    {"start", "emit", "emit_card", "note", "open_waits", "bind_wait", "finish", "settle", "fail", "hand_back"}
)
SETTINGS = RunnerSettings(concurrency=2, retry_after_seconds=(0, 0, 0))

How = Literal["goes on", "dies after", "is slow"]

EXPECTED = frozenset({"ValueError", "Diverged", "HandlerGone", "TooManyWaits", "OutcomeUnknown", "Died", "LookupError"})
"""By what handlers fail that are as they should be."""


class Died(BaseException):
    """The worker is gone."""


class Witness(Protocol):
    """Who sees what the bus has done."""

    def saw(self, name: str, job: Job, arguments: tuple[object, ...], answer: object) -> None: ...

    def fault(self, what: str) -> None: ...


class Lines(logging.Handler):
    """What a worker logs: a handler that fails by something else than it should is a fault."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    def emit(self, record: logging.LogRecord) -> None:
        error = str(getattr(record, "values", {}).get("exception", ""))
        if error and error not in EXPECTED:
            self._witness.fault(f"{record.getMessage()}: {error} at {record.values['at']}")  # type: ignore[attr-defined]


@dataclass(eq=False)
class Act:
    """What a worker is about to do. `is_fruitless`: it looked for a job, and there was none."""

    name: str
    go: trio.Event = field(default_factory=trio.Event)
    how: How = "goes on"
    is_fruitless: bool = False


@dataclass(eq=False)
class Life:
    """One process of a worker, with one version of the handlers; as the runner's bus it is its half of the bus too."""

    worker: Worker
    agent: Agent
    version: str
    witness: Witness
    parked: list[Act] = field(default_factory=list)
    held: dict[str, Job] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    news: tuple[list[str], list[str]] | None = None
    is_dead: bool = False
    has_ended: bool = False
    fenced: Callable[[str], None] = lambda _entry: None
    superseded: Callable[[str], None] = lambda _entry: None

    def __post_init__(self) -> None:
        logger = logging.Logger("model")
        logger.addHandler(Lines(self.witness))
        self.runner = Runner(self.agent, self, SETTINGS, vitals=Vitals(), log=Log(logger))

    @property
    def name(self) -> str:
        return self.worker.name

    async def run(self) -> None:
        try:
            with self.scope:
                await self.runner.run()
        except* Died:
            pass
        finally:
            self.has_ended = True

    def die(self) -> None:
        """Nothing more is done by it."""
        self.is_dead = True
        self.scope.cancel()
        for act in self.parked:
            act.go.set()

    async def look(self) -> None:
        """It asks for its jobs, as each second: whether they are still its own, and whether a later message has come. It hears that later."""
        self.news = await self.worker.renew(*self.held)

    def hears(self) -> None:
        (lost, superseded), self.news = self.news or ([], []), None
        for entry in lost:
            self.fenced(entry)
        for entry in superseded:
            self.superseded(entry)

    def __getattr__(self, name: str) -> Any:
        step = getattr(self.worker.steps, name)
        return self._acting(name, step) if name in ACTS else step

    def _acting(self, name: str, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def act(job: Job, *arguments: object, **named: object) -> object:
            how = await self._turn(name)
            answer = await step(job, *arguments, **named)
            self.witness.saw(name, job, arguments, answer)
            if how == "dies after":
                self.die()
                raise Died
            if how == "is slow":
                await self._turn(f"{name}, answered")
            return answer

        return act

    async def _turn(self, name: str) -> How:
        await self._alive()
        act = Act(name)
        self.parked.append(act)
        try:
            await act.go.wait()
        finally:
            self.parked.remove(act)
        if self.is_dead:
            raise Died
        return act.how

    async def _alive(self) -> None:
        if self.is_dead:
            raise Died
        await trio.lowlevel.checkpoint()

    async def take(self, count: int) -> list[Job]:
        is_fruitless = False
        while True:
            await self._alive()
            act = Act("take", is_fruitless=is_fruitless)
            self.parked.append(act)
            try:
                await act.go.wait()
            finally:
                self.parked.remove(act)
            await self._alive()
            job = await self.worker.take()
            if job is not None:
                return [job]
            is_fruitless = True

    async def stop_taking(self) -> None:
        await self._alive()

    async def seen(self, presence: Presence | None = None) -> None:
        await self._alive()

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:
        await self._alive()
        await trio.sleep(seconds)

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        await self._alive()

    async def publish_typing(self, job: Job, active: bool) -> None:
        await self._alive()

    async def publish_abort(self, job: Job) -> None:
        await self._alive()

    def hold(self, job: Job) -> None:
        self.held[job.entry_id] = job

    def release(self, job: Job) -> None:
        self.held.pop(job.entry_id, None)

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        self.fenced = callback

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        self.superseded = callback
