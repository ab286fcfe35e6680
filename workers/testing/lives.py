"""One life of a worker: its real runner over the bus in memory. It may be killed at each thing that it does there, before it or after it."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from bus.memory.work import MemorySteps
from bus.records.control import Observation
from bus.records.presence import Presence
from bus.records.records import Job
from bus.steps.job_steps import Finished
from bus.steps.thread_steps import Noted
from workers.files.files import FileWay
from workers.files.memory import MemorySpool
from workers.handling.agent import Agent
from workers.handling.asking import OpenTools
from workers.process.logs import Log
from workers.process.runner import Runner, RunnerSettings
from workers.process.vitals import Vitals
from workers.testing.house import House
from workers.testing.mocks import Mocks, with_mocks
from workers.testing.scripted import RUN, ScriptedLLM

ACTS: Final = frozenset(
    {"start", "emit", "emit_to", "emit_card", "note", "bind_wait", "finish", "settle", "fail", "hand_back"}
)
"""What a worker writes: a process that dies is missed only between two of them."""


class Died(BaseException):
    """The worker is gone."""


@dataclass
class Watch:
    """What all lives of a harness's workers have in common: it counts what they do, and kills at one point.

    `dies_at`: the number of the point at which a worker dies, once; it dies before an act at an even one, after it at an odd one.
    """

    house: House
    llm: ScriptedLLM | None = None
    mock_tools: Mocks = field(default_factory=dict)
    dies_at: int | None = None
    points: int = 0
    died: str = ""
    """What was going on when it died, such as `before emit`."""

    failures: list[BaseException] = field(default_factory=list)
    unhandled: list[str] = field(default_factory=list)
    """Types of payloads that no handler takes."""

    observations: list[Observation] = field(default_factory=list)
    log: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    began: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each step that may be done once has begun, by its thread and name."""

    open_once: set[tuple[str, str]] = field(default_factory=set)
    died_in_once: str = ""
    """The step that may be done once in which the worker died."""

    trace: list[str] = field(default_factory=list)
    """What was done at the bus."""

    def failed(self, _job: Job, error: BaseException) -> None:
        """Hears what a handler raised."""
        self.failures.append(error)

    def count(self, metric: str, value: float, labels: Mapping[str, str]) -> None:
        """Hears what the way to files counts."""
        self.observations.append(Observation(metric=metric, labels=dict(labels), value=value))

    def noted(self, job: Job, name: str, answer: object, *, is_once: bool) -> None:
        """Hears that something was noted."""
        if answer is not Noted.NOTED:
            return
        if self.llm is not None:
            self.llm.noted(job.entry_id, name)
        step = (job.thread_id, name)
        if is_once:
            self.began[step] += 1
            self.open_once.add(step)
        else:
            self.open_once.discard(step)


@dataclass(eq=False)
class Life:
    """One process of a worker; as the runner's bus it is its half of the bus too."""

    name: str
    agent: Agent
    watch: Watch
    concurrency: int
    retry_after_seconds: tuple[float, ...]
    steps: MemorySteps = field(init=False)
    runner: Runner | None = None
    tool_threads: list[trio.CapacityLimiter] = field(default_factory=list)
    held: dict[str, Job] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    is_dead: bool = False
    fenced: Callable[[str], None] = lambda _entry: None
    superseded: Callable[[str], None] = lambda _entry: None

    def __post_init__(self) -> None:
        self.steps = self.watch.house.steps(self.name)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Lives until it is killed or drained. Raises what the agent's lifespan raises."""
        settings = RunnerSettings(
            concurrency=self.concurrency,
            retry_after_seconds=self.retry_after_seconds,
            shows_errors=True,
            seen_seconds=1e9,
        )
        logger = logging.Logger("hashee.test")
        logger.addHandler(_Lines(self.watch.log))
        vitals = Vitals()
        vitals.introduce(consumer=self.name, handler="test:agent", concurrency=self.concurrency)
        try:
            async with self.agent.lifespan(self.watch.llm) as shared:
                self.tool_threads = [one.threads for one in shared if isinstance(one, OpenTools)]
                self.runner = Runner(
                    self.agent,
                    self,
                    settings,
                    vitals=vitals,
                    log=Log(logger),
                    observe=self.watch.observations.append,
                    shared=with_mocks(shared, self.watch.mock_tools),
                    files=FileWay(self.watch.house.gate, MemorySpool(), self.watch.count),
                    tell_failed=self.watch.failed,
                )
                task_status.started()
                with self.scope:
                    await self._runs(self.runner)
        finally:
            self.ended.set()

    async def _runs(self, runner: Runner) -> None:
        try:
            await runner.run()
        except* (Died, Exception):
            if not self.is_dead:
                raise

    def die(self) -> None:
        """Nothing more is done by it."""
        self.is_dead = True
        self.scope.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether it has a job."""
        return bool(self.held)

    @property
    def waits_for_a_thread(self) -> bool:
        """Whether a sync handler or a sync tool runs."""
        handlers = self.runner is not None and self.runner.threads_at_work > 0
        return handlers or any(one.borrowed_tokens for one in self.tool_threads)

    def __getattr__(self, name: str) -> Any:
        step = getattr(self.steps, name)
        return self._acting(name, step) if name in ACTS else step

    def _acting(self, name: str, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def act(job: Job, *arguments: object, **named: object) -> object:
            await trio.lowlevel.checkpoint()
            what = f"{name} {arguments[0]}" if arguments and isinstance(arguments[0], str) else name
            self._point(f"before {what}")
            self.watch.house.changed()
            answer = await step(job, *arguments, **named)
            self.watch.trace.append(what)
            if name == "note":
                self.watch.noted(job, str(arguments[0]), answer, is_once=bool(named.get("in_epoch")))
            if name == "fail" and arguments[0] == "timeout":
                self.watch.failures.append(
                    TimeoutError("a handler ran longer than ten minutes: what does it wait for?")
                )
            if answer is Finished.DONE and arguments and arguments[0] == "no_handler":
                self.watch.unhandled.append(str(job.message.payload.get("type")))
            self.watch.house.changed()
            self._point(f"after {what}")
            return answer

        return act

    def _point(self, at: str) -> None:
        number, self.watch.points = self.watch.points, self.watch.points + 1
        if number == self.watch.dies_at:
            self.watch.died = at
            self.watch.died_in_once = next((name for _, name in self.watch.open_once), "")
            self.die()
        if self.is_dead:
            raise Died

    async def take(self, count: int) -> list[Job]:  # noqa: ARG002 - one at a time
        """Returns the next job."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self.is_dead and (job := await self.steps.take()) is not None:
                return [job]
            await self.watch.house.has_changed.wait()

    async def hear_what_has_come(self) -> None:
        """Asks for its jobs, as a worker does each second: whether a later message has come."""
        lost, superseded = await self.steps.renew(*self.held)
        for entry in lost:
            self.fenced(entry)
        for entry in superseded:
            self.superseded(entry)

    async def stop_taking(self) -> None:
        await trio.lowlevel.checkpoint()

    async def seen(self, presence: Presence | None = None) -> None:  # noqa: ARG002 - nobody looks
        await trio.lowlevel.checkpoint()

    async def is_beside_another_version(self, mine: Presence) -> bool:  # noqa: ARG002 - there is one
        await trio.lowlevel.checkpoint()
        return False

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:
        """Returns when the job's Stop is pressed, or the time is over."""
        with trio.move_on_after(seconds):
            while not await self.steps.stopped(job):
                await self.watch.house.has_changed.wait()

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.watch.house.deltas[stream_id].append(text)
        self.watch.house.changed()

    async def publish_typing(self, job: Job, active: bool) -> None:
        await trio.lowlevel.checkpoint()
        place = self.watch.house.places.get(job.conversation_id)
        if place is not None:
            place.typing.append(active)
            self.watch.house.changed()

    async def publish_abort(self, job: Job) -> None:  # noqa: ARG002 - what was shown of a stream that broke off is no reply
        await trio.lowlevel.checkpoint()

    def hold(self, job: Job) -> None:
        RUN.set(job.entry_id)  # the job's task is started next, and inherits it
        self.held[job.entry_id] = job

    def release(self, job: Job) -> None:
        self.held.pop(job.entry_id, None)
        if self.watch.llm is not None:
            self.watch.llm.run_ended(job.entry_id)
        self.watch.house.changed()

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        self.fenced = callback

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        self.superseded = callback


class _Lines(logging.Handler):
    """Keeps what a worker logs."""

    def __init__(self, lines: list[tuple[str, dict[str, object]]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.getMessage(), dict(getattr(record, "values", {}))))
