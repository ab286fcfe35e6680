"""What a supervisor is made of, wired together: each part gets what it needs through its constructor.

Also the only place where a frame of the relay meets the part that it is for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from bus.records.keys import REPLIES_GROUP, Keys
from bus.records.sealing import StoreKeys
from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.outbox import Outbox
from bus.steps.policies import PolicyStore
from bus.steps.recovery import Recovery
from bus.steps.slots import SlotStore
from bus.steps.store import Store
from bus.steps.vault import Vault
from bus.steps.write_count import WriteCount
from bus.transport.client import RedisClient
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import LiveSubscriber, RedisStreamReader
from bus.transport.wire import RedisFailed
from bus.views.backlog import Backlog
from bus.views.overview import Overview
from crypto.grants import KeyChangePolicy
from crypto.identity import LocalDevice
from host.budgets import UNLIMITED_REDIS_BYTES, Budgets, IntakeBudgets, StoreBudgets
from host.instance import Instance
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.overflow import Overflow
from supervisor.inbound.reading import FrameReader
from supervisor.observe.health import Check
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
from supervisor.peers.relations import Relations
from supervisor.peers.sessions import Sessions
from supervisor.peers.twins import TwinWatch
from supervisor.pool.process import WorkerExit
from supervisor.pool.workforce import Workforce
from supervisor.recovery.reclaimer import Reclaimer
from supervisor.recovery.redis_trouble import say_trouble
from supervisor.recovery.redis_watch import RedisWatch
from supervisor.recovery.time_guard import open_guard
from supervisor.relay.connection import Connection, RelayAddress
from supervisor.relay.frames import (
    ArtifactResponse,
    FromRelay,
    GroupKeyRotated,
    MessageAck,
    MessageError,
    MessageNew,
    PrekeysLow,
    RelationEstablished,
    RelationRestored,
    RelationRevoked,
    RelationSuspended,
)
from supervisor.relay.own_words import OwnWords
from supervisor.relay.relay_date import RelayDate
from supervisor.relay.rest import Rest
from supervisor.relay.slots import ConnectionSlot
from supervisor.run.readiness import bus_check, prekeys_check, relay_check
from supervisor.run.shared_work import shared_work
from supervisor.run.starting import Patience
from supervisor.run.survey import Survey
from supervisor.settings.config import SupervisorSettings

log = structlog.get_logger()


class Parts:
    """The parts of one supervisor; made by `open_parts`."""

    def __init__(
        self,
        *,
        settings: SupervisorSettings,
        client: RedisClient,
        rest: Rest,
        device: LocalDevice,
        address: RelayAddress,
        keys: StoreKeys,
        instance: Instance,
        metrics: Metrics,
    ) -> None:
        names = Keys(settings.agent_id)
        self._client = client
        self.metrics = metrics
        self.write_count = WriteCount()
        self.store = Store(client, settings.agent_id, instance.name, self.write_count, settings.most_waiting)
        self.store.budgets = StoreBudgets.of(settings.redis_memory_bytes or UNLIMITED_REDIS_BYTES)
        intake = IntakeBudgets.of(Budgets.here(settings.memory_bytes).intake_bytes)
        rest.page_bytes = intake.page_bytes
        self.outbox = Outbox(client, settings.agent_id, instance.name, self.write_count)
        self.guard = open_guard(settings, client, names, self.write_count, metrics=metrics, store_keys=keys)
        self.guard.on_back = self._ask_for_poll
        policies = PolicyStore(client, names, keys.bus)
        words = OwnWords(keys.bus, settings.agent_id)
        sent_times = SentTimes()
        vault = Vault(client, names, keys.state)
        self.slots = ConnectionSlot(
            SlotStore(client, names, settings.max_connections), instance, ask_for_poll=self._ask_for_poll
        )
        self.connection = Connection(address, metrics, self.slots)
        self.ledger = GrantLedger(vault, keys.ledger, settings.state_dir)
        self.owners = Owners(
            vault,
            self.ledger,
            rest,
            KeyChangePolicy(settings.key_change),
            write_count=self.write_count,
            on_change=self._on_grant_changed,
        )
        self.relations = Relations(self.owners, on_read=self._ask_for_poll)
        sessions = Sessions(vault, self.write_count)
        self.prekeys = OwnPrekeys(
            vault,
            names.signed_prekeys,
            names.one_time_prekeys,
            device=device,
            rest=rest,
            on_kept=sessions.keep_only_dropped_of,
            epoch=lambda: self.write_count.epoch,
        )
        self.twins = TwinWatch(self.prekeys, rest, device=device, metrics=metrics, speaks=lambda: self.slots.speaks)
        self.groups = Groups(
            vault=vault,
            rest=rest,
            owners=self.owners,
            members=Members(vault, rest, KeyChangePolicy(settings.key_change)),
            device=device,
            metrics=metrics,
            on_key=self._on_group_key,
        )
        self.sealer = Sealer(sessions, self.owners, device, metrics, self.write_count)
        self.streams = Streams(
            device, keys.bus, self.connection, self.outbox, metrics, speaks=lambda: self.slots.speaks
        )
        self.delivery = Delivery(
            self.outbox, self.connection, instance, sent_times=sent_times, streams=self.streams, metrics=metrics
        )
        self.inbound = Inbound(
            store=self.store,
            reader=FrameReader(
                store=self.store,
                sessions=sessions,
                owners=self.owners,
                groups=self.groups,
                prekeys=self.prekeys,
                device=device,
                keys=keys,
                write_count=self.write_count,
                metrics=metrics,
            ),
            sessions=sessions,
            policies=policies,
            words=words,
            metrics=metrics,
            ask_for_poll=self._ask_for_poll,
            on_session=self._on_session,
            acks_settled=self.delivery.settled,
            budgets=intake,
        )
        self.overview = Overview(client, names)
        self.redis_watch = RedisWatch(
            client,
            metrics,
            self.inbound.hold,
            settings.redis_trust,
            probe=names.probe(instance.name),
            limited=self._on_redis_limit,
            own_limit_bytes=settings.redis_memory_bytes or UNLIMITED_REDIS_BYTES,
            kept_bytes=self.overview.kept_bytes,
        )
        self.overflow = Overflow(self.store, Quarantine(client, names), DeadLetters(client, names), metrics)
        first = settings.first_sync_seconds
        self.quarantine_retrier, self.held, self.catchup = shared_work(
            client, instance, self.store, self.inbound, self.owners, rest=rest, metrics=metrics, sync_seconds=first
        )
        self.reader = RedisStreamReader(client, stream=names.replies, group=REPLIES_GROUP, consumer=instance.name)
        self.leases = LeaseKeeper(
            client.url,
            client.scripts,
            stream=names.replies,
            group=REPLIES_GROUP,
            consumer=instance.name,
            interrupted=names.interrupted,
        )
        self.live = LiveSubscriber(client, names.live_channel, self.streams.heard)
        self.outbound = Outbound(
            store=self.store,
            outbox=self.outbox,
            reader=self.reader,
            leases=self.leases,
            keys=keys,
            recipients=Recipients(self.store, self.owners, self.groups, self.write_count),
            sealer=self.sealer,
            streams=self.streams,
            connection=self.connection,
            metrics=metrics,
            guard=self.guard,
            sent_times=sent_times,
            send_rate_per_second=settings.send_rate_per_second,
        )
        self.recovery = Recovery(client, names, instance.name, knows_dead=instance.knows_dead)
        self.reclaimer = Reclaimer(
            client=client,
            store=self.store,
            recovery=self.recovery,
            instance=instance,
            policies=policies,
            words=words,
            metrics=metrics,
            counts_strikes=settings.counts_strikes,
            end_stream=self.streams.job_lost,
        )
        self.workforce = Workforce(
            settings,
            redis_url=client.url,
            bus_key=keys.bus,
            overview=self.overview,
            instance=instance,
            metrics=metrics,
            on_death=self._on_worker_death,
        )
        self.pool = self.workforce.pool
        self.survey = Survey(
            backlog=Backlog(client, names),
            overview=self.overview,
            workforce=self.workforce,
            slots=self.slots,
            store=self.store,
            metrics=metrics,
            instance=instance.name,
            redis_faults=lambda: self.redis_watch.faults,
            redis_clock_ahead_ms=lambda: self.redis_watch.clock_ahead_ms,
            backup_max_age_seconds=settings.backup_max_age_seconds,
        )

    async def prepare(self, failed: Patience) -> None:
        """What Redis must have before anything starts; waits for it."""
        while True:
            try:
                await self.recovery.make_groups()
                await self.guard.begin()
                wrong = await self.ledger.verify()
            except RedisFailed as error:
                await failed(error)
            else:
                self.metrics.grant_ledger_holds.set(0 if wrong else 1)
                if wrong:
                    log.error("grants: the ledger does not hold", reason=wrong, remedy="docs/security.md")
                return

    def tasks(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs from start to end."""
        return [
            self.inbound.run,
            lambda: self.quarantine_retrier.run(self.catchup.caught_up),
            self.overflow.run,
            self.held.run,
            self.guard.run,
            self.groups.run,
            self.catchup.run,
            self.outbound.run,
            self.streams.run,
            self.delivery.run,
            self.reclaimer.run,
            lambda: self.prekeys.keep(self.metrics),
            self.twins.run,
            self.relations.run,
            self.redis_watch.run,
            self.slots.run,
            self._keep_connected,
            self.survey.run,
        ]

    def checks(self) -> tuple[Check, ...]:
        """What must hold for readiness, each with its reason."""
        return (
            relay_check(self.connection, self.slots),
            prekeys_check(self.prekeys),
            self.twins.check(),
            self.catchup.check(),
            self.redis_watch.check(),
            bus_check(self.leases, self.reader, self.live),
            *self.survey.checks(),
        )

    def dead_threads(self) -> list[str]:
        """Which of our threads have ended, which only a defect does: without them nothing is taken, or leases run out."""
        threads = (self._client, self.leases, self.live)
        ended = [thread.thread_name for thread in threads if not thread.is_alive]
        is_deaf = not self.reader.is_alive and not self.outbound.has_stopped_taking
        return [*ended, self.reader.thread_name] if is_deaf else ended

    # Tasks

    async def _keep_connected(self) -> None:
        await self.slots.wait_until_fit(self.workforce.wait_until_ready)
        await self.connection.run(self._on_frame, self._on_connected)

    # Frames and events

    def _on_frame(self, frame: FromRelay) -> None:
        match frame:
            case MessageNew() | ArtifactResponse():
                self.inbound.push(frame)
            case MessageAck() | MessageError():
                self.delivery.heard(frame)
            case RelationEstablished() | RelationRestored():
                self.relations.note(frame.payload, "active")
            case RelationSuspended():
                self.relations.note(frame.payload, "suspended")
            case RelationRevoked():
                self.relations.note(frame.payload, "revoked")
            case GroupKeyRotated():
                self.groups.rotated(frame)
            case PrekeysLow():
                self.prekeys.refill_soon()

    def _ask_for_poll(self) -> None:
        self.catchup.ask()

    def _on_connected(self, date: RelayDate | None) -> None:
        self.guard.relay_dated(date)
        self.groups.connected()
        self.relations.read_all()
        self.catchup.connected()

    def _on_grant_changed(self, owner_id: str) -> None:
        self.quarantine_retrier.owner_changed(owner_id)

    def _on_group_key(self, group_id: str) -> None:
        self.quarantine_retrier.group_key_came(group_id)

    def _on_session(self, owner_id: str, session: bytes) -> None:
        self.quarantine_retrier.session_began(owner_id, session)

    def _on_redis_limit(self, most_bytes: int) -> None:
        if most_bytes > 0:
            self.store.budgets = StoreBudgets.of(most_bytes)

    async def _on_worker_death(self, exited: WorkerExit) -> None:
        overran = frozenset(job.entry_id for job in exited.overdue)
        await self.reclaimer.worker_died(exited.consumer, by_itself=exited.abnormal, overran=overran)


@asynccontextmanager
async def open_parts(
    *,
    settings: SupervisorSettings,
    client: RedisClient,
    rest: Rest,
    device: LocalDevice,
    address: RelayAddress,
    keys: StoreKeys,
    instance: Instance,
    metrics: Metrics,
    failed: Patience,
) -> AsyncIterator[Parts]:
    """The parts, once Redis has what they need, their threads started; the threads end with the block."""
    parts = Parts(
        settings=settings,
        client=client,
        rest=rest,
        device=device,
        address=address,
        keys=keys,
        instance=instance,
        metrics=metrics,
    )
    await parts.prepare(failed)
    parts.reader.on_trouble = parts.leases.on_trouble = parts.live.on_trouble = say_trouble
    parts.leases.start()
    parts.live.start()
    try:
        yield parts
    finally:
        with trio.CancelScope(shield=True):
            await parts.outbound.give_back(await parts.reader.close())
            await parts.leases.close()
            await parts.live.close()
