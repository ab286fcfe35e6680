"""From a frame to a job (DESIGN §3): check, open, accept in one commit. Nothing is dropped: what cannot be read is quarantined.

A conversation's messages are taken one after the other; different conversations do not wait for each other. The connection's
reader only puts a frame into its lane.
"""

from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from bus.records import InboundMessage, pack_job
from bus.sealing import BusKey, StateKey
from bus.store import Arrival, Intake, Look, Source, Store, now_ms
from bus.wire import RedisFailed
from crypto.envelope import (
    V1_1,
    Envelope,
    Expected,
    handshake_prekeys,
    open_ratchet,
    parse_envelope,
    verify_signature,
)
from crypto.errors import BadContent, ForgedContent, Reason, Unreadable
from crypto.identity import LocalDevice
from crypto.sessions import DeviceRecord, may_renegotiate, noted
from supervisor.addressing import GROUP, check_addressed
from supervisor.frames import ArtifactResponse, MessageNew
from supervisor.groups import Groups, check_not_stale, sent_ms
from supervisor.lanes import LaneFull, Lanes
from supervisor.metrics import Metrics
from supervisor.own_words import PING, OwnWords, system_event
from supervisor.owners import Owner, Owners
from supervisor.payloads import conversation_kind, inbound_message, message_ms, payload_type_of
from supervisor.prekeys import NO_PREKEYS, Prekeys
from supervisor.rest import RestFailed
from supervisor.sessions import Loaded, Peer, Sessions

MOST_CONFLICTS = 20

MessageFrame = MessageNew | ArtifactResponse

log = structlog.get_logger()


class Waiting:
    """A message on its way in, and its outcome: None when Redis or the relay was away."""

    def __init__(self, frame: MessageFrame, source: Source) -> None:
        self.frame = frame
        self.source = source
        self.done = trio.Event()
        self.outcome: Intake | None = None


async def _at_once(_conversation_id: str) -> None:
    """Where nobody hears acknowledgements."""


class _Opened(msgspec.Struct, frozen=True):
    """A message that was read, and the state that reading it left."""

    payload: dict[str, object]
    record: DeviceRecord
    used_one_time_prekey: int | None

    def __repr__(self) -> str:
        return "_Opened(…)"


class Inbound:
    """Takes messages in for one agent."""

    def __init__(
        self,
        *,
        store: Store,
        sessions: Sessions,
        owners: Owners,
        groups: Groups,
        prekeys: Prekeys,
        device: LocalDevice,
        bus_key: BusKey,
        state_key: StateKey,
        metrics: Metrics,
        ask_for_poll: Callable[[], None],
        acks_settled: Callable[[str], Awaitable[None]] = _at_once,
    ) -> None:
        """`acks_settled`: returns when the acknowledgements heard for a conversation have taken their place in its sequence."""
        self._acks_settled = acks_settled
        self._store = store
        self._sessions = sessions
        self._owners = owners
        self._groups = groups
        self._prekeys = prekeys
        self._device = device
        self._bus_key = bus_key
        self._state_key = state_key
        self._metrics = metrics
        self._ask_for_poll = ask_for_poll
        self._words = OwnWords(bus_key, device.owner_id)
        self._lanes = Lanes(self._work)
        self.epoch = 0

    @property
    def under_way(self) -> int:
        """Messages that wait or are being opened."""
        return self._lanes.waiting

    def push(self, frame: MessageFrame) -> None:
        """A pushed frame. A full lane passes it over: polling brings it back."""
        try:
            self._lanes.put(frame.conversation_id, Waiting(frame, Source.PUSH))
        except LaneFull:
            self._metrics.frames_dropped.labels("lane_full").inc()
            self._ask_for_poll()

    async def poll(self, frame: MessageFrame) -> Intake | None:
        """A polled frame: what became of it; None when Redis or the relay was away."""
        waiting = Waiting(frame, Source.POLL)
        self._lanes.put(frame.conversation_id, waiting, even_if_full=True)
        await waiting.done.wait()
        return waiting.outcome

    async def run(self) -> None:
        """Take messages in until cancelled."""
        await self._lanes.run()

    async def _work(self, waiting: Waiting) -> None:
        frame = waiting.frame
        try:
            if waiting.source is Source.PUSH:
                await self._acks_settled(frame.conversation_id)
            waiting.outcome = await self._take(frame, waiting.source)
        except RedisFailed:
            self._metrics.frames_dropped.labels("redis_away").inc()
            self._ask_for_poll()
        except RestFailed as error:
            log.warning("message: waits for the relay", message_id=frame.message_id, reason=str(error))
            self._ask_for_poll()
        finally:
            waiting.done.set()

    async def _take(self, frame: MessageFrame, source: Source) -> Intake:
        outcome = await self._open_and_accept(frame, source)
        if outcome is Intake.DUPLICATE:
            self._metrics.duplicates.inc()
        elif not outcome.is_settled:
            self._metrics.frames_dropped.labels("out_of_sequence").inc()
            self._ask_for_poll()
        return outcome

    async def _open_and_accept(self, frame: MessageFrame, source: Source) -> Intake:
        expected = Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
        if frame.sender_id == self._device.owner_id:
            return Intake.DUPLICATE  # our own, by way of another connection
        try:
            envelope = parse_envelope(frame.encrypted_payload, expected)
        except Unreadable as error:
            return await self._quarantine_unsigned(frame, source, error)
        if envelope.v == V1_1:
            return await self._attempt_in_group(frame, source, envelope)
        peer = (envelope.sender_id, envelope.sender_device)
        async with self._sessions.locked([peer]):
            for _ in range(MOST_CONFLICTS):
                outcome = await self._attempt(frame, source, envelope, peer)
                if outcome is not Intake.CONFLICT:
                    return outcome
        raise RedisFailed(f"the session record of {peer} changed {MOST_CONFLICTS} times while it was read")

    async def _attempt(self, frame: MessageFrame, source: Source, envelope: Envelope, peer: Peer) -> Intake:
        """One look, one opening, one commit; CONFLICT when the record changed meanwhile."""
        look = await self._store.look(envelope.conversation_id, peer, envelope.replay_id)
        try:
            owner = await self._authenticate(frame, envelope, look)
        except Unreadable as error:
            return await self._quarantine_unsigned(frame, source, error)
        if look.known:
            return Intake.DUPLICATE
        loaded = self._sessions.looked_up(peer, look)
        arrival = Arrival(
            conversation_id=envelope.conversation_id,
            source=source,
            seq=frame.conversation_seq,
            signed_id=envelope.replay_id,
            message_ms=message_ms(envelope.client_message_id),
            peer=peer,
            session_version=loaded.version,
            epoch=self.epoch,
            kind=conversation_kind(frame),
            person=owner.owner_id,
        )
        if not await self._owners.admits(owner, envelope.sender_device):
            unlisted = Unreadable(Reason.UNKNOWN_SENDER, "not a device of this owner")
            return await self._quarantine(frame, arrival, unlisted)
        try:
            opened = await self._open(envelope, owner, loaded)
        except BadContent as error:
            return await self._quarantine_opened(frame, arrival, loaded, error)
        except Unreadable as error:
            return await self._quarantine_signed(frame, arrival, loaded, error)
        return await self._accept(frame, envelope, arrival, loaded, opened)

    async def _authenticate(self, frame: MessageFrame, envelope: Envelope, look: Look) -> Owner:
        """`to`, conversation pin, grant, pinned key, signature, in the order of PROTOCOL §5.10."""
        check_addressed(frame, envelope, look, self._device.owner_id)
        owner = await self._owners.find_or_refresh(envelope.sender_id)
        if owner is None:
            raise Unreadable(Reason.NO_GRANT, "no relation with this sender")
        verify_signature(envelope, owner.pinned)
        return owner

    async def _open(self, envelope: Envelope, owner: Owner, loaded: Loaded) -> _Opened:
        named = handshake_prekeys(envelope, self._device.device_id)
        prekeys = NO_PREKEYS if named is None else await self._prekeys.find(*named)
        opened = open_ratchet(
            envelope, self._device, owner.pinned, loaded.record, prekeys, epoch=self.epoch, now_ms=now_ms()
        )
        return _Opened(opened.payload, opened.record, opened.used_one_time_prekey)

    async def _accept(
        self, frame: MessageFrame, envelope: Envelope, arrival: Arrival, loaded: Loaded, opened: _Opened
    ) -> Intake:
        write = self._sessions.seal(arrival.peer, loaded, opened.record)
        arrival = msgspec.structs.replace(arrival, session=write, used_one_time_prekey=opened.used_one_time_prekey)
        job, answer = None, b""
        if opened.payload.get("type") != "system":
            job = self._job(inbound_message(frame, envelope, opened.payload), arrival)
        elif system_event(opened.payload) == PING:
            answer = self._words.pong(frame.message_id, arrival.conversation_id, arrival.message_ms)
        outcome = await self._store.accept(arrival, job, answer=answer)
        if outcome.is_new:
            self._sessions.committed(write, opened.record)
        self._count_accepted(outcome, arrival.kind, opened.payload)
        return outcome

    async def _attempt_in_group(self, frame: MessageFrame, source: Source, envelope: Envelope) -> Intake:
        """The way of a message to a group: no session; what cannot be read pins nothing, since its sender may be no member."""
        peer = (envelope.sender_id, envelope.sender_device)
        look = await self._store.look(envelope.conversation_id, peer, envelope.replay_id)
        try:
            check_addressed(frame, envelope, look, self._device.owner_id)
            await self._groups.authenticate(envelope)
        except Unreadable as error:
            return await self._quarantine_unsigned(frame, source, error)
        if look.known:
            return Intake.DUPLICATE
        arrival = Arrival(
            conversation_id=envelope.conversation_id,
            source=source,
            seq=frame.conversation_seq,
            signed_id=envelope.replay_id,
            message_ms=sent_ms(envelope),
            kind="",
        )
        try:
            check_not_stale(envelope, look)
            opened = await self._groups.open(envelope)
        except Unreadable as error:
            return await self._quarantine(frame, arrival, error)
        member = msgspec.structs.replace(arrival, kind=GROUP, person=envelope.to)
        job = None
        if opened.payload.get("type") != "system":
            # Answers are dated by our clock: in a group the sender's might make them stale to everybody else.
            job = self._job(opened.message(frame, envelope), msgspec.structs.replace(member, message_ms=now_ms()))
        outcome = await self._store.accept(member, job)
        self._count_accepted(outcome, GROUP, opened.payload)
        return outcome

    def _count_accepted(self, outcome: Intake, kind: str, payload: dict[str, object]) -> None:
        if outcome.is_new:
            self._metrics.inbound(kind, payload_type_of(payload))
        if outcome is Intake.LATE:
            self._metrics.late.inc()

    def _job(self, message: InboundMessage, arrival: Arrival) -> bytes:
        return pack_job(
            message,
            seq=arrival.seq,
            accepted_ms=now_ms(),
            message_ms=arrival.message_ms,
            key=self._bus_key,
            agent_id=self._device.owner_id,
        )

    # What cannot be read

    async def _quarantine_unsigned(self, frame: MessageFrame, source: Source, error: Unreadable) -> Intake:
        """Nothing of the envelope is authentic: only the relay's message_id names it."""
        arrival = Arrival(
            conversation_id=frame.conversation_id,
            source=source,
            seq=frame.conversation_seq,
            signed_id=b"",
            message_ms=0,
        )
        return await self._quarantine(frame, arrival, error)

    async def _quarantine_signed(
        self, frame: MessageFrame, arrival: Arrival, loaded: Loaded, error: Unreadable
    ) -> Intake:
        """The sender is who they say and the sessions are out of step: a new one, within the limits of PROTOCOL §5.4."""
        now = now_ms()
        if isinstance(error, ForgedContent) or not may_renegotiate(loaded.record, error.reason, now):
            return await self._quarantine(frame, arrival, error)
        record = noted(loaded.record, now)
        write = self._sessions.seal(arrival.peer, loaded, record)
        counted = msgspec.structs.replace(arrival, session=write)
        answer = self._words.renewed(
            frame.message_id, arrival.conversation_id, arrival.message_ms, device_id=arrival.peer[1]
        )
        outcome = await self._quarantine(frame, counted, error, answer=answer)
        if outcome.is_new:
            self._sessions.committed(write, record)
            self._metrics.renegotiations.inc()
            log.warning("session: renewed", owner=arrival.peer[0], device=arrival.peer[1], reason=error.reason.value)
        return outcome

    async def _quarantine_opened(
        self, frame: MessageFrame, arrival: Arrival, loaded: Loaded, error: BadContent
    ) -> Intake:
        """The ratchet has moved although the content is of no use: both are kept (PROTOCOL §5.4)."""
        write = self._sessions.seal(arrival.peer, loaded, error.record)
        moved = msgspec.structs.replace(arrival, session=write, used_one_time_prekey=error.used_one_time_prekey)
        sealed = self._state_key.seal(error.opened_plaintext, "quarantine", self._device.owner_id, frame.message_id)
        outcome = await self._quarantine(frame, moved, error, plaintext=sealed)
        if outcome.is_new:
            self._sessions.committed(write, error.record)
        return outcome

    async def _quarantine(
        self,
        frame: MessageFrame,
        arrival: Arrival,
        error: Unreadable,
        *,
        plaintext: bytes = b"",
        answer: bytes = b"",
    ) -> Intake:
        outcome = await self._store.quarantine(
            arrival,
            message_id=frame.message_id,
            reason=error.reason.value,
            frame=msgspec.json.encode(frame),
            plaintext=plaintext,
            answer=answer,
        )
        if outcome.is_new:
            self._metrics.decrypt_failure.labels(error.reason.value).inc()
            log.warning(
                "message: quarantined",
                message_id=frame.message_id,
                conversation_id=frame.conversation_id,
                reason=error.reason.value,
                detail=error.detail,
            )
        return outcome
