"""From a frame to a job (DESIGN §3): check, open, accept in one commit. Nothing is dropped: what cannot be read is quarantined.

A conversation's messages are taken one after the other in a lane of their own kind; lanes are many, so that conversations do
not wait for each other. The connection's reader only puts a frame into its lane.
"""

import zlib
from collections.abc import Callable

import msgspec
import structlog
import trio

from bus.client import RedisUnavailable
from bus.records import InboundMessage, pack_job
from bus.sealing import BusKey, StateKey
from bus.store import Arrival, Intake, Look, SessionWrite, Source, Store, now_ms
from crypto.envelope import (
    Envelope,
    Expected,
    check_recipient,
    handshake_prekeys,
    open_ratchet,
    parse_envelope,
    verify_signature,
)
from crypto.errors import BadContent, Reason, Unreadable
from crypto.identity import LocalDevice
from crypto.sessions import DeviceRecord
from supervisor.frames import ArtifactResponse, MessageNew
from supervisor.metrics import Metrics
from supervisor.owners import Owner, Owners
from supervisor.payloads import conversation_kind, inbound_message, message_ms, payload_type_of
from supervisor.prekeys import NO_PREKEYS, Prekeys
from supervisor.rest import RestFailed
from supervisor.sessions import Loaded, Peer, Sessions

LANES = 64
LANE_LENGTH = 256
MOST_CONFLICTS = 20

MessageFrame = MessageNew | ArtifactResponse

log = structlog.get_logger()


class Polled:
    """A polled message under way: its outcome, None when Redis or the relay was away."""

    def __init__(self, frame: MessageFrame) -> None:
        self.frame = frame
        self.done = trio.Event()
        self.outcome: Intake | None = None


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
        prekeys: Prekeys,
        device: LocalDevice,
        bus_key: BusKey,
        state_key: StateKey,
        metrics: Metrics,
        ask_for_poll: Callable[[], None],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._owners = owners
        self._prekeys = prekeys
        self._device = device
        self._bus_key = bus_key
        self._state_key = state_key
        self._metrics = metrics
        self._ask_for_poll = ask_for_poll
        self._lanes = [trio.open_memory_channel[Polled | MessageFrame](LANE_LENGTH) for _ in range(LANES)]
        self.epoch = 0
        self.under_way = 0
        """Messages in lanes or being opened."""

    def push(self, frame: MessageFrame) -> None:
        """A pushed frame. A full lane passes it over: polling brings it back."""
        try:
            self._lane(frame).send_nowait(frame)
        except trio.WouldBlock:
            self._metrics.frames_dropped.labels("lane_full").inc()
            self._ask_for_poll()
        else:
            self.under_way += 1

    async def poll(self, frame: MessageFrame) -> Polled:
        """A polled frame, into its lane; wait on `done` for its outcome."""
        polled = Polled(frame)
        self.under_way += 1
        await self._lane(frame).send(polled)
        return polled

    async def run(self) -> None:
        """Work the lanes until cancelled."""
        async with trio.open_nursery() as nursery:
            for _, lane in self._lanes:
                nursery.start_soon(self._work, lane)

    def _lane(self, frame: MessageFrame) -> trio.MemorySendChannel[Polled | MessageFrame]:
        return self._lanes[zlib.crc32(frame.conversation_id.encode()) % LANES][0]

    async def _work(self, lane: trio.MemoryReceiveChannel[Polled | MessageFrame]) -> None:
        async for item in lane:
            polled = item if isinstance(item, Polled) else None
            frame = item.frame if isinstance(item, Polled) else item
            outcome: Intake | None = None
            try:
                outcome = await self._take(frame, Source.POLL if polled else Source.PUSH)
            except RedisUnavailable:
                self._metrics.frames_dropped.labels("redis_away").inc()
                self._ask_for_poll()
            except RestFailed as error:
                log.warning("message: waits for the relay", message_id=frame.message_id, reason=str(error))
                self._ask_for_poll()
            finally:
                self.under_way -= 1
                if polled:
                    polled.outcome = outcome
                    polled.done.set()

    async def _take(self, frame: MessageFrame, source: Source) -> Intake:
        outcome = await self._open_and_accept(frame, source)
        if outcome is Intake.DUPLICATE:
            self._metrics.duplicates.inc()
        elif outcome is Intake.GAP:
            self._metrics.frames_dropped.labels("out_of_sequence").inc()
            self._ask_for_poll()
        return outcome

    async def _open_and_accept(self, frame: MessageFrame, source: Source) -> Intake:
        expected = Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
        if frame.sender_id == self._device.owner_id:
            return Intake.DUPLICATE  # our own, by way of another connection
        try:
            envelope = parse_envelope(frame.encrypted_payload, expected)
            check_recipient(envelope, self._device.owner_id)
        except Unreadable as error:
            return await self._quarantine_unsigned(frame, source, error)
        peer = (envelope.sender_id, envelope.sender_device)
        async with self._sessions.locked([peer]):
            for _ in range(MOST_CONFLICTS):
                outcome = await self._attempt(frame, source, envelope, peer)
                if outcome is not Intake.CONFLICT:
                    return outcome
        raise RedisUnavailable(f"the session record of {peer} changed {MOST_CONFLICTS} times while it was read")

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
            epoch=self.epoch,
            kind=conversation_kind(frame),
            person=owner.owner_id,
        )
        try:
            opened = await self._open(envelope, owner, loaded)
        except BadContent as error:
            return await self._quarantine_opened(frame, arrival, loaded, error)
        except Unreadable as error:
            return await self._quarantine(frame, arrival, error)
        return await self._accept(frame, envelope, arrival, loaded, opened)

    async def _authenticate(self, frame: MessageFrame, envelope: Envelope, look: Look) -> Owner:
        """Conversation pin, grant, pinned key, signature, in the order of PROTOCOL §5.10."""
        if look.kind is not None and (look.kind != conversation_kind(frame) or look.person != envelope.sender_id):
            raise Unreadable(Reason.NOT_FOR_US, "another person or kind than this conversation's")
        owner = await self._owners.find_or_refresh(envelope.sender_id)
        if owner is None:
            raise Unreadable(Reason.NO_GRANT, "no relation with this sender")
        if not owner.is_active:
            raise Unreadable(Reason.NO_GRANT, f"the sender's relation is {owner.status}")
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
        peer = arrival.peer
        arrival = msgspec.structs.replace(
            arrival,
            session=self._sessions.seal(peer, loaded, opened.record),
            used_one_time_prekey=opened.used_one_time_prekey,
        )
        job = None
        if opened.payload.get("type") != "system":
            job = self._job(inbound_message(frame, envelope, opened.payload), arrival)
        outcome = await self._store.accept(arrival, job)
        if outcome.is_new:
            self._sessions.committed(peer, loaded, opened.record)
            self._metrics.inbound(arrival.kind, payload_type_of(opened.payload))
            if outcome is Intake.LATE:
                self._metrics.late.inc()
        return outcome

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

    async def _quarantine_opened(
        self, frame: MessageFrame, arrival: Arrival, loaded: Loaded, error: BadContent
    ) -> Intake:
        """The ratchet has moved although the content is of no use: both are kept (PROTOCOL §5.4)."""
        session: SessionWrite = self._sessions.seal(arrival.peer, loaded, error.record)
        moved = msgspec.structs.replace(arrival, session=session, used_one_time_prekey=error.used_one_time_prekey)
        sealed = self._state_key.seal(error.opened_plaintext, "quarantine", self._device.owner_id, frame.message_id)
        outcome = await self._quarantine(frame, moved, error, sealed)
        if outcome.is_new:
            self._sessions.committed(arrival.peer, loaded, error.record)
        return outcome

    async def _quarantine(
        self, frame: MessageFrame, arrival: Arrival, error: Unreadable, plaintext: bytes = b""
    ) -> Intake:
        outcome = await self._store.quarantine(
            arrival,
            message_id=frame.message_id,
            reason=error.reason.value,
            frame=msgspec.json.encode(frame),
            plaintext=plaintext,
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
