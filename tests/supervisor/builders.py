"""One agent's core on a real Redis, and people with real keys who talk to it; the relay is a double."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bus.records.keys import Keys
from bus.records.records import Reply
from bus.records.sealing import StoreKeys
from bus.steps.jobs import JobStore
from bus.steps.outbox import RESEND_SECONDS
from bus.steps.policies import Policies
from bus.steps.store import Intake
from bus.steps.write_count import WriteCount
from bus.transport.client import RedisClient, RedisUnavailable, open_redis
from bus.transport.leases import RENEW_SECONDS
from crypto.identity import IdentityKeys, LocalDevice
from host.budgets import IntakeBudgets
from host.instance import Instance
from supervisor.observe.metrics import Metrics
from supervisor.recovery.time_guard import TimeGuard
from supervisor.recovery.witness import Witness
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.relay.poll_wish import PollWish
from supervisor.run.core import CoreSettings, MessageCore
from supervisor.settings.pauses import PAUSES, Pauses
from tests.supervisor.doubles import FakeConnection, FakeRest
from tests.supervisor.person import AGENT
from tests.waiting import said_of, waiting_for

SECRET = bytes(range(32))
KEYS = StoreKeys.derive(SECRET)
IDENTITY = IdentityKeys.generate(os.urandom)
WAIT_SECONDS = 5.0
ASKING_BRIEFLY = Pauses(asking=0.5, asking_again=0.05)
"""For what the relay does not tell: brief, and a hundred times what an answer needs, since what it tells later must come in time too."""


class Core(MessageCore):
    """The message core as the product wires it, on a real Redis, with a relay that the test plays."""

    rest: FakeRest
    connection: FakeConnection

    @property
    def url(self) -> str:
        return self.client.url

    @property
    def keys(self) -> Keys:
        return self.store.keys

    def count(self, name: str, **labels: str) -> float:
        """A counter or gauge as Prometheus would read it."""
        return self.metrics.registry.get_sample_value(f"hashee_{name}", labels) or 0.0

    async def push(self, frame: MessageNew | ArtifactResponse) -> None:
        """A pushed frame, until its lane is done with it."""
        self.inbound.push(frame)
        await self.until_idle()

    async def until_idle(self) -> None:
        """Until nothing is on its way in: in vain once none of it has come in for WAIT_SECONDS, however much it is."""
        while under_way := self.inbound.under_way:
            with waiting_for(f"the first of {under_way} messages to be taken in", WAIT_SECONDS):
                while self.inbound.under_way == under_way:
                    await trio.sleep(0.001)

    async def until_tried_again(self) -> None:
        """Tries the quarantine again, until nothing is in quarantine any more."""

        async def is_empty() -> bool:
            return await self.quarantine.count() == 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.quarantine_retrier.run)
            await until(is_empty)
            nursery.cancel_scope.cancel()

    async def polled(self, frame: MessageNew | ArtifactResponse) -> Intake | None:
        """A polled frame, until it has its outcome."""
        with waiting_for("the polled frame to have its outcome", WAIT_SECONDS):
            return await self.inbound.poll(frame)

    async def quarantined(self, frame: MessageNew | ArtifactResponse) -> str | None:
        """The reason under which a message stands in quarantine."""
        why = await self.client.command("HGET", self.keys.quarantined(frame.message_id), "why")
        return why.decode() if isinstance(why, bytes) else None

    async def jobs(self) -> list[str]:
        """The texts of what is ready to run or waits for its turn, oldest first."""
        entries = await self.client.command("XLEN", self.keys.jobs)
        assert isinstance(entries, int)
        texts: list[str] = []
        async with worker(self, "reader-of-jobs") as jobs:
            while entries:
                [job] = await jobs.take(1)
                texts.append(job.message.text)
                await jobs.finish(job)
                jobs.release(job)
                left = await self.client.command("XLEN", self.keys.jobs)
                assert isinstance(left, int)
                entries = left
        return texts


@asynccontextmanager
async def open_core(
    url: str,
    rest: FakeRest,
    instance: Instance | None = None,
    budgets: IntakeBudgets | None = None,
    *,
    send_rate_per_second: float = 0,
    resend_seconds: float = RESEND_SECONDS,
    pauses: Pauses = PAUSES,
) -> AsyncIterator[Core]:
    """A supervisor's core; inbound runs, the sending parts when the test starts them (`sending`)."""
    state_dir = Path(urlsplit(url).path).parent
    settings = CoreSettings(
        state_dir=state_dir, send_rate_per_second=send_rate_per_second, resend_seconds=resend_seconds, pauses=pauses
    )
    if budgets is not None:
        settings = replace(settings, intake=budgets)
    async with open_redis(url) as client:
        metrics = Metrics()
        core = Core(
            settings,
            client,
            rest,
            FakeConnection(),
            guard_of(client, metrics, state_dir),
            device=LocalDevice(AGENT, AGENT, IDENTITY),
            keys=KEYS,
            instance=instance or Instance.of_this_process(),
            metrics=metrics,
            polls=PollWish(),
        )
        await core.recovery.make_groups()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.inbound.run)
            try:
                yield core
            finally:
                nursery.cancel_scope.cancel()


def guard_of(client: RedisClient, metrics: Metrics, state_dir: Path) -> TimeGuard:
    """Of a private Redis whose state directory this is, with a witness beside it."""
    folder = state_dir / "witness"
    folder.mkdir(mode=0o700, exist_ok=True)
    return TimeGuard(
        client,
        Keys(AGENT),
        WriteCount(),
        metrics,
        state_dir=state_dir,
        is_private=True,
        witness=Witness(folder, AGENT),
    )


@asynccontextmanager
async def sending(core: Core) -> AsyncIterator[None]:
    """Outbound and delivery run; their threads end with the block."""
    core.reader.start()
    core.leases.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.outbound.run)
            nursery.start_soon(core.delivery.run)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await core.taking.give_back(await core.reader.close())
            await core.leases.close()


@asynccontextmanager
async def worker(
    core: Core, name: str = "worker-1", *, renew_seconds: float = RENEW_SECONDS, policies: Policies | None = None
) -> AsyncIterator[JobStore]:
    """A worker's half of the bus."""
    jobs = JobStore(core.url, AGENT, KEYS.bus, name, renew_seconds=renew_seconds, policies=policies)
    await jobs.open()
    try:
        yield jobs
    finally:
        await jobs.close()


async def reply_to_next(core: Core, *texts: str) -> None:
    """A worker takes the next job and answers it with these texts."""
    async with worker(core) as jobs:
        with waiting_for("a job to answer", WAIT_SECONDS):
            [job] = await jobs.take(1)
        for place, text in enumerate(texts):
            await jobs.emit(job, str(place), text_reply(text))
        await jobs.finish(job)
        jobs.release(job)


def text_reply(text: str) -> Reply:
    return Reply(kind="message", content_type="text", payload={"type": "text", "text": text})


def dead_instance() -> Instance:
    """A supervisor of this host that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return Instance(Instance.of_this_process().host, child.pid, 1)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = WAIT_SECONDS) -> None:
    """Asks again and again, of a Redis that can signal nothing here and may be away, until it is so."""
    with waiting_for(said_of(condition), seconds):
        while True:
            with contextlib.suppress(RedisUnavailable):
                if await condition():
                    return
            await trio.sleep(0.005)
