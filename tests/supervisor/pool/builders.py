"""Real workers for a test, on a real Redis, with times that a test can wait for."""

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from bus.records.control import FromWorker, Observation
from bus.records.records import Reply, decode_reply_record, open_reply, pack_job
from bus.steps.recovery import Reclaim
from bus.steps.store import Arrival, Source
from supervisor.pool.pool import Pool
from supervisor.pool.pool_settings import PoolSettings, Waiting, nothing_waits
from supervisor.pool.process import WorkerExit, WorkerProcess
from supervisor.pool.worker_order import WorkerOrder, WorkerTimes
from supervisor.settings.bounds import Bounds
from tests.bus.builders import AGENT, BUS_KEY, PEER, Bus, arrival_of, message_of
from tests.waiting import said_of, waiting_for

PATIENT = WorkerTimes(load_seconds=60, silence_seconds=60, dump_seconds=0.3, terminate_seconds=0.5)
"""For workers that shall live: a busy machine is no reason to kill one."""
QUICK = WorkerTimes(load_seconds=60, silence_seconds=3, dump_seconds=0.5, terminate_seconds=0.5)
"""For those that shall be found hanging."""
WITHIN_SECONDS = 60


def order_of(url: str, *, handler: str = "tests.supervisor.pool.handlers:agent", **changes: object) -> WorkerOrder:
    order = WorkerOrder(
        agent_id=AGENT,
        redis_url=url,
        bus_key=BUS_KEY,
        handler=handler,
        concurrency=4,
        environ=dict(os.environ),
        directory=Path.cwd(),
        times=PATIENT,
    )
    return dataclasses.replace(order, **changes)  # type: ignore[arg-type]  # names and types are the test's concern


@dataclass
class LogLines:
    """A log that is kept."""

    entries: list[Mapping[str, object]] = field(default_factory=list)

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        bound: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        return bound

    def _keep(self, _logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        self.entries.append(dict(event))
        raise structlog.DropEvent

    def events(self) -> list[object]:
        return [entry["event"] for entry in self.entries]

    def of(self, event: str) -> Mapping[str, object]:
        return next(entry for entry in self.entries if entry["event"] == event)


@dataclass
class Supervised:
    """A worker process with what it said and how it ended."""

    process: WorkerProcess
    lines: LogLines
    said: list[FromWorker] = field(default_factory=list)
    exit: WorkerExit | None = None


async def until(condition: Callable[[], object], seconds: float = WITHIN_SECONDS) -> None:
    with waiting_for(said_of(condition), seconds):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def running_worker(order: WorkerOrder, consumer: str = "worker-1") -> AsyncIterator[Supervised]:
    lines = LogLines()
    supervised = Supervised(WorkerProcess(order, consumer, lines.log), lines)

    async def supervise() -> None:
        supervised.exit = await supervised.process.supervise(supervised.said.append)

    supervised.process.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        yield supervised
        nursery.cancel_scope.cancel()


@dataclass
class PoolRun:
    """A pool with what it told."""

    pool: Pool
    lines: LogLines
    exits: list[WorkerExit] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    on_death: Callable[[str], Awaitable[None]] | None = None

    async def worker_ended(self, exited: WorkerExit) -> None:
        self.exits.append(exited)
        if self.on_death is not None:
            await self.on_death(exited.consumer)
        await trio.lowlevel.checkpoint()

    def worker_restarts(self, reason: str) -> None:
        self.restarts.append(reason)

    def observed(self, observation: Observation) -> None:
        self.observations.append(observation)

    @property
    def deaths(self) -> list[tuple[str, bool]]:
        return [(exited.consumer, exited.abnormal) for exited in self.exits]

    def pids(self) -> list[int]:
        return [status.pid for status in self.pool.statuses() if status.pid is not None]


def make_pool(
    order: WorkerOrder, workers: int | Bounds = 1, *, waiting: Waiting = nothing_waits, **changes: object
) -> PoolRun:
    settings = PoolSettings(
        bounds=workers if isinstance(workers, Bounds) else Bounds(workers, workers),
        order=order,
        drain_seconds=5,
        backoff_first_seconds=0.01,
        tend_seconds=0.05,
    )
    settings = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]  # names and types are the test's concern
    lines = LogLines()
    run = PoolRun(None, lines)  # type: ignore[arg-type]  # in the next line
    run.pool = Pool(settings, consumer_of="worker-{}".format, events=run, log=lines.log, waiting=waiting)
    return run


@asynccontextmanager
async def running_pool(
    order: WorkerOrder,
    workers: int | Bounds = 1,
    *,
    waiting: Waiting = nothing_waits,
    bus: Bus | None = None,
    **changes: object,
) -> AsyncIterator[PoolRun]:
    """With a bus, what a dead worker held goes on at once, as under a supervisor."""
    run = make_pool(order, workers, waiting=waiting, **changes)
    if bus is not None:
        run.on_death = partial(release, bus)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.pool.run)
        yield run
        nursery.cancel_scope.cancel()


async def release(bus: Bus, consumer: str) -> None:
    """What the reclaimer does when it hears of a death."""
    for pending in await bus.recovery.pending(bus.recovery.jobs, consumer=consumer):
        await bus.recovery.reclaim(bus.recovery.jobs, pending, Reclaim())


async def ask(bus: Bus, text: str, seq: int = 1, conversation: str = "conversation") -> None:
    """A person's text, straight into the conversation's mailbox."""
    message = msgspec.structs.replace(message_of(seq, conversation), payload={"type": "text", "text": text})
    job = pack_job(message, seq=seq, accepted_ms=1, message_ms=seq, key=BUS_KEY, agent_id=AGENT)
    arrival: Arrival = arrival_of(seq, 0, source=Source.PUSH, conversation=conversation)
    arrival = msgspec.structs.replace(arrival, session=None, peer=PEER)
    assert (await bus.store.accept(arrival, job)).is_new


async def answer(bus: Bus) -> Reply:
    """The next reply that a supervisor would send."""
    with waiting_for("a reply", WITHIN_SECONDS):
        [entry] = await bus.replies.read(1)
    return open_reply(decode_reply_record(entry.fields["r"]), key=BUS_KEY, agent_id=AGENT)


async def text_answer(bus: Bus) -> str:
    return str((await answer(bus)).payload["text"])


def is_gone(pid: int) -> bool:
    """No process of this pid, or only its zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True
