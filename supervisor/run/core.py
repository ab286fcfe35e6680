"""What a message passes between the connection to the relay and the bus, wired together: what comes in, and what is answered.

The only wiring there is: the supervisor runs this core, and so do the tests, with a relay that they play.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import structlog
import trio

from bus.records.keys import REPLIES_GROUP
from bus.records.sealing import BusKey, StoreKeys
from bus.steps.held import Notes
from bus.steps.letters import DeadLetters, Quarantine
from bus.steps.outbox import RESEND_SECONDS, Outbox
from bus.steps.outside import OutsideMessages
from bus.steps.placing import Placing
from bus.steps.policies import PolicyStore
from bus.steps.questions import OpenQuestions
from bus.steps.recovery import Recovery
from bus.steps.store import MOST_WAITING_IN_ALL, InboundStore
from bus.steps.timers import Timers
from bus.steps.vault import Vault
from bus.steps.work_lease import WorkLease
from bus.transport.client import RedisClient
from bus.transport.leases import LeaseKeeper
from bus.transport.readers import LiveSubscriber, RedisStreamReader
from bus.views.trace import Ledger
from crypto.grants import KeyChangePolicy
from crypto.identity import LocalDevice
from host.budgets import LARGEST_INTAKE_BYTES, UNLIMITED_REDIS_BYTES, Budgets, IntakeBudgets, StoreBudgets
from host.instance import Instance
from supervisor.inbound.catchup import Catchup
from supervisor.inbound.events import Events
from supervisor.inbound.forgotten import ForgottenSends
from supervisor.inbound.held import HeldFetcher
from supervisor.inbound.inbound import Inbound
from supervisor.inbound.overflow import Overflow
from supervisor.inbound.quarantine_retrier import QuarantineRetrier
from supervisor.inbound.reading import FrameReader
from supervisor.inbound.reading_groups import GroupReader
from supervisor.inbound.reading_persons import PersonReader
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces
from supervisor.outbound.acts import Acts
from supervisor.outbound.committing import Committing
from supervisor.outbound.delivery import Delivery
from supervisor.outbound.dispatch import Dispatch, SessionMessages
from supervisor.outbound.from_outside import FromOutside
from supervisor.outbound.outbound import Outbound
from supervisor.outbound.rate_line import RateLine
from supervisor.outbound.recipients import Recipients
from supervisor.outbound.sealer import Sealer
from supervisor.outbound.sender import Sender
from supervisor.outbound.stream_ends import StreamEnds
from supervisor.outbound.stream_replies import StreamReplies
from supervisor.outbound.streams import Streams
from supervisor.outbound.taking import Taking
from supervisor.outbound.turns import Turns
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.groups import Groups
from supervisor.peers.members import Members
from supervisor.peers.owners import Owners
from supervisor.peers.prekeys import OwnPrekeys
from supervisor.peers.relations import Relations
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.peers.sessions import Sessions
from supervisor.recovery.lease_clock import LeaseClock
from supervisor.recovery.reclaimer import Reclaimer
from supervisor.recovery.redis_trouble import say_trouble
from supervisor.recovery.time_guard import TimeGuard
from supervisor.recovery.timer_mover import TimerMover
from supervisor.relay.connection import Connection
from supervisor.relay.frames import (
    ArtifactResponse,
    FromRelay,
    GroupKeyRotated,
    MessageAck,
    MessageError,
    MessageNew,
    MessageRecalled,
    PrekeysLow,
    RelationEstablished,
    RelationRestored,
    RelationRevoked,
    RelationSuspended,
)
from supervisor.relay.own_words import DeclaredWords, OwnWords
from supervisor.relay.pending_acks import PendingAcks
from supervisor.relay.poll_wish import PollWish
from supervisor.relay.relay_clock import RelayClock
from supervisor.relay.relay_date import RelayDate
from supervisor.relay.rest import Rest
from supervisor.settings.pauses import PAUSES, Pauses
from supervisor.settings.supervisor import SupervisorSettings

log = structlog.get_logger()


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class CoreSettings:
    """What of the settings the way of a message depends on. `first_sync_seconds`: how far back the first sync goes."""

    state_dir: Path
    key_change: KeyChangePolicy = KeyChangePolicy.HOLD
    first_sync_seconds: int = 86_400
    send_rate_per_second: float = 0.0
    most_waiting: int = MOST_WAITING_IN_ALL
    counts_strikes: bool = True
    resend_seconds: float = RESEND_SECONDS
    pauses: Pauses = PAUSES
    intake: IntakeBudgets = field(default_factory=lambda: IntakeBudgets.of(LARGEST_INTAKE_BYTES))
    stored: StoreBudgets = field(default_factory=lambda: StoreBudgets.of(UNLIMITED_REDIS_BYTES))

    @classmethod
    def of(cls, settings: SupervisorSettings) -> Self:
        """Those of a whole supervisor, with the budgets of the memory that it may use here."""
        return cls(
            state_dir=settings.state_dir,
            key_change=KeyChangePolicy(settings.key_change),
            first_sync_seconds=settings.first_sync_seconds,
            send_rate_per_second=settings.send_rate_per_second,
            most_waiting=settings.most_waiting,
            counts_strikes=settings.counts_strikes,
            intake=IntakeBudgets.of(Budgets.here(settings.memory_bytes).intake_bytes),
            stored=StoreBudgets.of(settings.redis_memory_bytes or UNLIMITED_REDIS_BYTES),
        )


class MessageCore:
    """Takes frames in and sends replies out, for one agent, as one of its supervisors (`instance`).

    `speaks`: whether this supervisor is the one that tells devices what only one of several should.
    """

    def __init__(
        self,
        settings: CoreSettings,
        client: RedisClient,
        rest: Rest,
        connection: Connection,
        guard: TimeGuard,
        *,
        device: LocalDevice,
        keys: StoreKeys,
        instance: Instance,
        metrics: Metrics,
        polls: PollWish,
        speaks: Callable[[], bool] = _always,
    ) -> None:
        self.client, self.rest, self.connection, self.guard = client, rest, connection, guard
        self.instance, self.metrics, self.polls = instance, metrics, polls
        rest.page_bytes = settings.intake.page_bytes
        guard.on_back = polls.ask
        self.write_count = guard.write_count
        self.relay_clock = RelayClock()
        agent_id = device.owner_id
        self.store = InboundStore(client, agent_id, instance.name, self.write_count, settings.most_waiting)
        self.store.budgets = settings.stored
        self.outbox = Outbox(client, agent_id, instance.name, self.write_count, resend_seconds=settings.resend_seconds)
        names = self.store.keys
        self.policies = PolicyStore(client, names, keys.bus)
        self.words = OwnWords(keys.bus, agent_id)
        self.declared_words = DeclaredWords(self.words, self.policies)
        self.pending_acks = PendingAcks()
        self._wire_peers(settings, device, keys)
        self._wire_outbound(settings, device, keys, speaks)
        self._wire_inbound(settings, device, keys)
        self._wire_rereading(settings)
        self._wire_recovery(settings, keys.bus)

    def heard(self, frame: FromRelay) -> None:
        """A frame of the relay, for the part that it is for. Returns at once."""
        self.events.heard(frame)
        match frame:
            case MessageNew() | ArtifactResponse():
                self.inbound.push(frame)
            case MessageError(client_message_id=""):
                self.acts.heard(frame)
            case MessageAck() | MessageError():
                self.delivery.heard(frame)
            case MessageRecalled():
                self.acts.heard(frame)
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
            case _:
                pass  # read receipts, a stream's error, frames of which only the name is documented: nothing follows from them but an event

    def connected(self, date: RelayDate | None) -> None:
        """A new connection is authenticated: what may have been missed is asked for. Returns at once."""
        self.guard.relay_dated(date)
        if date is not None:
            self.relay_clock.heard(date)
        self.groups.connected()
        self.relations.read_all()
        self.catchup.connected()

    def trace_with(self, traces: MessageTraces) -> None:
        """Before it runs: each part that a message passes tells of it."""
        self.inbound.traces = self.outbound.traces = self.dispatch.traces = self.delivery.traces = traces

    async def prepare(self) -> None:
        """What Redis must have before anything runs. May be repeated. Raises RedisFailed."""
        await self.recovery.make_groups()
        await self.guard.begin()
        wrong = await self.ledger.verify()
        self.metrics.grant_ledger_holds.set(0 if wrong else 1)
        if wrong:
            log.error("grants: the ledger does not hold", reason=wrong, remedy="docs/security.md")

    @asynccontextmanager
    async def threads(self) -> AsyncIterator[None]:
        """The threads that wait in Redis run within the block. What they have read and nobody began goes back at its end."""
        self.reader.on_trouble = self.leases.on_trouble = self.live.on_trouble = say_trouble
        self.leases.start()
        self.live.start()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self.taking.give_back(await self.reader.close())
                await self.leases.close()
                await self.live.close()

    def dead_threads(self) -> list[str]:
        """Which of its threads have ended, which only a defect does: without them nothing is taken, or leases run out."""
        threads = (self.client, self.leases, self.live)
        ended = [thread.thread_name for thread in threads if not thread.is_alive]
        is_deaf = not self.reader.is_alive and not self.taking.has_stopped
        return [*ended, self.reader.thread_name] if is_deaf else ended

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
            self.timer_mover.run,
            self.events.run,
            lambda: self.prekeys.keep(self.metrics),
            self.relations.run,
        ]

    # The wiring

    def _wire_peers(self, settings: CoreSettings, device: LocalDevice, keys: StoreKeys) -> None:
        """Who somebody is, and under which keys."""
        client, rest, metrics, polls, names = self.client, self.rest, self.metrics, self.polls, self.store.keys
        self.triggers = RetryTriggers()
        self.vault = Vault(client, names, keys.state)
        self.ledger = GrantLedger(self.vault, keys.ledger, settings.state_dir)
        self.owners = Owners(
            self.vault,
            self.ledger,
            rest,
            settings.key_change,
            write_count=self.write_count,
            triggers=self.triggers,
            pauses=settings.pauses,
        )
        self.relations = Relations(self.owners, polls, settings.pauses)
        self.sessions = Sessions(self.vault, self.write_count)
        self.prekeys = OwnPrekeys(
            self.vault,
            names.signed_prekeys,
            names.one_time_prekeys,
            device=device,
            rest=rest,
            on_kept=self.sessions.keep_only_dropped_of,
            epoch=lambda: self.write_count.epoch,
            pauses=settings.pauses,
        )
        self.groups = Groups(
            vault=self.vault,
            rest=rest,
            owners=self.owners,
            members=Members(self.vault, rest, settings.key_change),
            device=device,
            metrics=metrics,
            triggers=self.triggers,
            pauses=settings.pauses,
        )

    def _wire_outbound(
        self, settings: CoreSettings, device: LocalDevice, keys: StoreKeys, speaks: Callable[[], bool]
    ) -> None:
        """Reply → acknowledgement."""
        client, connection, guard = self.client, self.connection, self.guard
        instance, metrics, names = self.instance, self.metrics, self.store.keys
        sender = Sender(connection)
        self.streams = Streams(device, keys.bus, connection, self.outbox, metrics, speaks=speaks)
        self.stream_ends = StreamEnds(self.streams, self.outbox, connection, instance, settings.pauses)
        self.outside = OutsideMessages(client, names)
        self.from_outside = FromOutside(self.outside, self.store, self.vault, keys)
        turns = Turns(self.outside)
        self.delivery = Delivery(
            self.outbox,
            connection,
            instance,
            pending=self.pending_acks,
            sender=sender,
            stream_ends=self.stream_ends,
            turns=turns,
            metrics=metrics,
            pauses=settings.pauses,
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
        self.taking = Taking(self.reader, self.leases, self.outbox, connection, settings.pauses)
        self.rate_line = RateLine(metrics, settings.send_rate_per_second)
        recipients = Recipients(self.store, self.owners, self.groups, self.write_count)
        self.dispatch = Dispatch(
            recipients,
            Committing(
                recipients,
                Sealer(self.sessions, self.owners, device, metrics, self.write_count),
                self.outbox,
                guard=guard,
                rate_line=self.rate_line,
                taking=self.taking,
            ),
            sender,
            streams=StreamReplies(self.streams, self.stream_ends, self.outbox, sender),
            session_messages=SessionMessages(self.outbox, self.words),
            turns=turns,
        )
        self.acts = Acts(connection, self.outbox, Ledger(client, names))
        self.outbound = Outbound(
            self.taking,
            self.dispatch,
            self.acts,
            self.outbox,
            connection,
            agent_id=self.store.keys.agent_id,
            keys=keys,
            metrics=metrics,
            pauses=settings.pauses,
        )

    def _wire_inbound(self, settings: CoreSettings, device: LocalDevice, keys: StoreKeys) -> None:
        """Frame → job, or quarantine."""
        client, metrics, polls, names = self.client, self.metrics, self.polls, self.store.keys
        self.quarantine, self.dead = Quarantine(client, names), DeadLetters(client, names)
        questions = OpenQuestions(client, names, keys.bus)
        self.inbound = Inbound(
            store=self.store,
            reader=FrameReader(
                self.store,
                self.sessions,
                of_persons=PersonReader(
                    self.store,
                    sessions=self.sessions,
                    owners=self.owners,
                    prekeys=self.prekeys,
                    forgotten=ForgottenSends(self.sessions, self.write_count, metrics),
                    device=device,
                    keys=keys,
                    write_count=self.write_count,
                ),
                of_groups=GroupReader(
                    self.store,
                    groups=self.groups,
                    policies=self.policies,
                    questions=questions,
                    bus_key=keys.bus,
                ),
                questions=questions,
            ),
            sessions=self.sessions,
            words=self.declared_words,
            metrics=metrics,
            polls=polls,
            triggers=self.triggers,
            pending_acks=self.pending_acks,
            budgets=settings.intake,
        )
        self.overflow = Overflow(self.store, self.quarantine, self.dead, metrics, settings.pauses)

    def _wire_rereading(self, settings: CoreSettings) -> None:
        """What one of several supervisors does at a time, since all would read the same again."""
        client, rest, instance = self.client, self.rest, self.instance
        metrics, polls, names = self.metrics, self.polls, self.store.keys
        lease = partial(WorkLease, client, holder=instance.name, knows_dead=instance.knows_dead)
        self.quarantine_retrier = QuarantineRetrier(
            self.quarantine,
            lease(names.work_lease("retry")),
            self.triggers,
            inbound=self.inbound,
            owners=self.owners,
            rest=rest,
            metrics=metrics,
            pauses=settings.pauses,
        )
        self.held = HeldFetcher(
            self.store,
            lease(names.work_lease("fetch")),
            notes=Notes(client, names),
            inbound=self.inbound,
            rest=rest,
            metrics=metrics,
            is_untold=self.owners.untold.holds_up,
            pauses=settings.pauses,
        )
        self.catchup = Catchup(
            self.store,
            lease(names.work_lease("poll")),
            rest=rest,
            inbound=self.inbound,
            metrics=metrics,
            polls=polls,
            first_sync_seconds=settings.first_sync_seconds,
            pauses=settings.pauses,
        )

    def _wire_recovery(self, settings: CoreSettings, bus_key: BusKey) -> None:
        """What the dead and the silent held, and what is due."""
        client, instance, metrics, names = self.client, self.instance, self.metrics, self.store.keys
        self.recovery = Recovery(client, names, instance.name, knows_dead=instance.knows_dead)
        self.reclaimer = Reclaimer(
            client=client,
            clock=LeaseClock(client, self.store),
            recovery=self.recovery,
            instance=instance,
            words=self.declared_words,
            metrics=metrics,
            shown=self.streams,
            counts_strikes=settings.counts_strikes,
        )
        self.events = Events(
            Placing(client, names),
            self.policies,
            bus_key=bus_key,
            agent_id=names.agent_id,
            metrics=metrics,
            budgets=lambda: self.store.budgets,
        )
        self.timer_mover = TimerMover(
            Timers(client, names, bus_key),
            WorkLease(client, names.work_lease("timers"), holder=instance.name, knows_dead=instance.knows_dead),
            metrics,
            policies=self.policies,
            budgets=lambda: self.store.budgets,
            pauses=settings.pauses,
        )
