"""Real workers for a test, on a real Redis, with times that a test can wait for."""

import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog
import trio

from bus.control import FromWorker, Observation
from bus.records import Reply, decode_reply_record, open_reply, pack_job
from bus.store import Arrival, Source
from supervisor.pool import Pool, PoolSettings
from supervisor.process import WorkerExit, WorkerOrder, WorkerProcess, WorkerTimes
from tests.bus.builders import AGENT, BUS_KEY, PEER, Bus, arrival_of, message_of

QUICK = WorkerTimes(load_seconds=20, silence_seconds=2.5, dump_seconds=0.3, terminate_seconds=0.5)
WITHIN_SECONDS = 20


def order_of(url: str, *, handler: str = "tests.pool.handlers:agent", **changes: object) -> WorkerOrder:
    order = WorkerOrder(
        agent_id=AGENT,
        redis_url=url,
        bus_key=BUS_KEY,
        handler=handler,
        concurrency=4,
        environ=dict(os.environ),
        directory=Path.cwd(),
        times=QUICK,
    )
    return dataclasses.replace(order, **changes)  # type: ignore[arg-type]  # names and types are the test's concern


@dataclass
class Lines:
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
    lines: Lines
    said: list[FromWorker] = field(default_factory=list)
    exit: WorkerExit | None = None


async def until(condition: Callable[[], object], seconds: float = WITHIN_SECONDS) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def running_worker(order: WorkerOrder, consumer: str = "worker-1") -> AsyncIterator[Supervised]:
    lines = Lines()
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
    lines: Lines
    deaths: list[tuple[str, bool]] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)


def make_pool(
    order: WorkerOrder, workers: int = 1, *, drain_seconds: float = 5, backoff_last_seconds: float = 30
) -> PoolRun:
    deaths: list[tuple[str, bool]] = []
    observations: list[Observation] = []

    async def on_death(consumer: str, abnormal: bool) -> None:
        await trio.lowlevel.checkpoint()
        deaths.append((consumer, abnormal))

    lines = Lines()
    settings = PoolSettings(
        workers=workers,
        order=order,
        drain_seconds=drain_seconds,
        backoff_first_seconds=0.01,
        backoff_last_seconds=backoff_last_seconds,
    )
    pool = Pool(
        settings,
        consumer_of="worker-{}".format,
        on_death=on_death,
        on_observation=observations.append,
        log=lines.log,
    )
    return PoolRun(pool, lines, deaths, observations)


@asynccontextmanager
async def running_pool(
    order: WorkerOrder, workers: int = 1, *, drain_seconds: float = 5, backoff_last_seconds: float = 30
) -> AsyncIterator[PoolRun]:
    run = make_pool(order, workers, drain_seconds=drain_seconds, backoff_last_seconds=backoff_last_seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.pool.run)
        yield run
        nursery.cancel_scope.cancel()


async def ask(bus: Bus, text: str, seq: int = 1, conversation: str = "conversation") -> None:
    """A person's text, straight into the conversation's mailbox."""
    message = msgspec.structs.replace(message_of(seq, conversation), payload={"type": "text", "text": text})
    job = pack_job(message, seq=seq, accepted_ms=1, message_ms=seq, key=BUS_KEY, agent_id=AGENT)
    arrival: Arrival = arrival_of(seq, 0, source=Source.PUSH, conversation=conversation)
    arrival = msgspec.structs.replace(arrival, session=None, peer=PEER)
    assert (await bus.store.accept(arrival, job)).is_new


async def answer(bus: Bus) -> Reply:
    """The next reply that a supervisor would send."""
    with trio.fail_after(WITHIN_SECONDS):
        [entry] = await bus.replies.read(1)
    return open_reply(decode_reply_record(entry.fields["r"]), key=BUS_KEY, agent_id=AGENT)


async def text_answer(bus: Bus) -> str:
    return str((await answer(bus)).payload["text"])


def is_gone(pid: int) -> bool:
    """No process of this pid, or only its zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True
