"""One agent's core on a real Redis, and people with real keys who talk to it; the relay is a double."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bus.records.keys import REPLIES_GROUP, Keys
from bus.records.records import Reply
from bus.records.sealing import StoreKeys
from bus.steps.jobs import JobStore
from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.outbox import Outbox
from bus.steps.policies import PolicyStore
from bus.steps.recovery import Recovery
from bus.steps.store import Intake, Store
from bus.steps.vault import Vault
from bus.steps.write_count import WriteCount
from bus.transport.client import RedisClient, RedisUnavailable, open_redis
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import RedisStreamReader
from crypto.grants import KeyChangePolicy
from crypto.identity import IdentityKeys, LocalDevice
from host.budgets import IntakeBudgets
from host.instance import Instance
from supervisor.inbound.catchup import Catchup
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.quarantine_retrier import QuarantineRetrier
from supervisor.inbound.reading import FrameReader
from supervisor.observe.metrics import Metrics
from supervisor.outbound.delivery import Delivery
from supervisor.outbound.outbound import Outbound
from supervisor.outbound.recipients import Recipients
from supervisor.outbound.sealer import Sealer
from supervisor.outbound.sent_times import SentTimes
from supervisor.outbound.streams import Streams
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.groups import Groups
from supervisor.peers.members import Members
from supervisor.peers.owners import Owners
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.peers.sessions import Sessions
from supervisor.recovery.time_guard import TimeGuard
from supervisor.recovery.witness import Witness
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.relay.own_words import OwnWords
from supervisor.run.shared_work import shared_work
from tests.supervisor.doubles import FakeConnection, FakeRest
from tests.supervisor.person import AGENT

KEYS = StoreKeys.derive(bytes(range(32)))
IDENTITY = IdentityKeys.generate(os.urandom)
WAIT_SECONDS = 5.0


@dataclass
class Core:
    """The parts of one supervisor that take in and send; `polls_asked` counts."""

    url: str
    client: RedisClient
    rest: FakeRest
    store: Store
    outbox: Outbox
    vault: Vault
    ledger: GrantLedger
    owners: Owners
    groups: Groups
    sessions: Sessions
    prekeys: OwnPrekeys
    inbound: Inbound
    quarantine_retrier: QuarantineRetrier
    catchup: Catchup
    connection: FakeConnection
    outbound: Outbound
    delivery: Delivery
    streams: Streams
    recovery: Recovery
    metrics: Metrics
    instance: Instance
    write_count: WriteCount
    guard: TimeGuard
    policies: PolicyStore
    words: OwnWords
    asked: list[str] = field(default_factory=list)

    @property
    def keys(self) -> Keys:
        return self.store.keys

    @property
    def dead(self) -> DeadLetters:
        return DeadLetters(self.client, self.keys)

    @property
    def quarantine(self) -> Quarantine:
        return Quarantine(self.client, self.keys)

    @property
    def polls_asked(self) -> int:
        return len(self.asked)

    def count(self, name: str, **labels: str) -> float:
        """A counter or gauge as Prometheus would read it."""
        return self.metrics.registry.get_sample_value(f"hashee_{name}", labels) or 0.0

    async def push(self, frame: MessageNew | ArtifactResponse) -> None:
        """A pushed frame, until its lane is done with it."""
        self.inbound.push(frame)
        await self.until_idle()

    async def until_idle(self) -> None:
        """Until nothing is on its way in."""
        with trio.fail_after(WAIT_SECONDS):
            while self.inbound.under_way:
                await trio.sleep(0.001)

    async def until_tried_again(self) -> None:
        """Second chances, until nothing is in quarantine any more."""

        async def is_empty() -> bool:
            return await self.quarantine.count() == 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.quarantine_retrier.run)
            await until(is_empty)
            nursery.cancel_scope.cancel()

    async def polled(self, frame: MessageNew | ArtifactResponse) -> Intake | None:
        """A polled frame, until it has its outcome."""
        with trio.fail_after(WAIT_SECONDS):
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
) -> AsyncIterator[Core]:
    """A supervisor's core; inbound runs, the sending parts when the test starts them (`sending`)."""
    who = instance or Instance.of_this_process()
    async with open_redis(url) as client:
        core = _wire(url, client, rest, who, budgets, rate=send_rate_per_second)
        await core.recovery.make_groups()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.inbound.run)
            try:
                yield core
            finally:
                nursery.cancel_scope.cancel()


def _wire(
    url: str,
    client: RedisClient,
    rest: FakeRest,
    instance: Instance,
    budgets: IntakeBudgets | None,
    *,
    rate: float,
) -> Core:
    metrics, names = Metrics(), Keys(AGENT)
    device = LocalDevice(AGENT, AGENT, IDENTITY)
    write_count, state_dir = WriteCount(), Path(urlsplit(url).path).parent
    store, vault = Store(client, AGENT, instance.name, write_count), Vault(client, names, KEYS.state)
    outbox = Outbox(client, AGENT, instance.name, write_count)
    policies, words, sent_times = PolicyStore(client, names, KEYS.bus), OwnWords(KEYS.bus, AGENT), SentTimes()
    (state_dir / "witness").mkdir(mode=0o700, exist_ok=True)
    witness = Witness(state_dir / "witness", AGENT)
    guard = TimeGuard(client, names, write_count, metrics, state_dir=state_dir, is_private=True, witness=witness)
    ledger = GrantLedger(vault, KEYS.ledger, state_dir)
    owners = Owners(
        vault,
        ledger,
        rest,
        KeyChangePolicy.HOLD,
        write_count=write_count,
        on_change=lambda owner_id: retrier.owner_changed(owner_id),  # noqa: PLW0108 - it is made below
    )
    sessions = Sessions(vault, write_count)
    prekeys = OwnPrekeys(
        vault,
        names.signed_prekeys,
        names.one_time_prekeys,
        device=device,
        rest=rest,
        on_kept=sessions.keep_only_dropped_of,
        epoch=lambda: write_count.epoch,
    )
    members = Members(vault, rest, KeyChangePolicy.HOLD)
    groups = Groups(
        vault=vault,
        rest=rest,
        owners=owners,
        members=members,
        device=device,
        metrics=metrics,
        on_key=lambda group_id: retrier.group_key_came(group_id),  # noqa: PLW0108 - it is made below
    )
    connection, asked = FakeConnection(), list[str]()
    reader = FrameReader(
        store=store,
        sessions=sessions,
        owners=owners,
        groups=groups,
        prekeys=prekeys,
        device=device,
        keys=KEYS,
        write_count=write_count,
        metrics=metrics,
    )
    streams = Streams(device, KEYS.bus, connection, outbox, metrics)
    delivery = Delivery(outbox, connection, instance, sent_times=sent_times, streams=streams, metrics=metrics)
    inbound = Inbound(
        store=store,
        reader=reader,
        sessions=sessions,
        policies=policies,
        words=words,
        metrics=metrics,
        ask_for_poll=lambda: asked.append("poll"),
        on_session=lambda owner_id, session: retrier.session_began(owner_id, session),  # noqa: PLW0108 - it is made below
        acks_settled=delivery.settled,
        budgets=budgets,
    )
    retrier, _, catchup = shared_work(
        client, instance, store, inbound, owners, rest=rest, metrics=metrics, sync_seconds=86400
    )
    stream = {"stream": names.replies, "group": REPLIES_GROUP, "consumer": instance.name}
    outbound = Outbound(
        store=store,
        outbox=outbox,
        reader=RedisStreamReader(client, **stream),
        leases=LeaseKeeper(client.url, client.scripts, **stream, interrupted=names.interrupted),
        keys=KEYS,
        recipients=Recipients(store, owners, groups, write_count),
        sealer=Sealer(sessions, owners, device, metrics, write_count),
        streams=streams,
        connection=connection,
        metrics=metrics,
        guard=guard,
        sent_times=sent_times,
        send_rate_per_second=rate,
    )
    return Core(
        url=url,
        client=client,
        rest=rest,
        store=store,
        outbox=outbox,
        vault=vault,
        ledger=ledger,
        owners=owners,
        groups=groups,
        sessions=sessions,
        prekeys=prekeys,
        inbound=inbound,
        quarantine_retrier=retrier,
        catchup=catchup,
        connection=connection,
        outbound=outbound,
        delivery=delivery,
        streams=streams,
        recovery=Recovery(client, names, instance.name, knows_dead=instance.knows_dead),
        metrics=metrics,
        instance=instance,
        write_count=write_count,
        guard=guard,
        policies=policies,
        words=words,
        asked=asked,
    )


@asynccontextmanager
async def sending(core: Core) -> AsyncIterator[None]:
    """Outbound and delivery run; their threads end with the block."""
    reader, leases = core.outbound._reader, core.outbound._leases
    reader.start()
    leases.start()
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
            await core.outbound.give_back(await reader.close())
            await leases.close()


@asynccontextmanager
async def worker(core: Core, name: str = "worker-1") -> AsyncIterator[JobStore]:
    """A worker's half of the bus."""
    jobs = JobStore(core.url, AGENT, KEYS.bus, name)
    await jobs.open()
    try:
        yield jobs
    finally:
        await jobs.close()


async def reply_to_next(core: Core, *texts: str) -> None:
    """A worker takes the next job and answers it with these texts."""
    async with worker(core) as jobs:
        with trio.fail_after(WAIT_SECONDS):
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
    with trio.fail_after(seconds):
        while True:
            with contextlib.suppress(RedisUnavailable):
                if await condition():
                    return
            await trio.sleep(0.005)
