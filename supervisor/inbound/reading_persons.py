"""Opens a person's message (PROTOCOL §5.10): the session with the sender's device moves, or one that works is offered. Writes nothing."""

from collections.abc import Awaitable, Callable

import msgspec

from bus.records.sealing import StoreKeys
from bus.steps.store import Arrival, ConversationSnapshot, InboundStore, Source, now_ms
from bus.steps.write_count import WriteCount
from crypto.envelope import BadContent, Envelope, handshake_prekeys, open_ratchet, ratchet_wrap, verify_signature
from crypto.errors import ForgedContent, Reason, Unreadable
from crypto.identity import LocalDevice
from crypto.renewal import RENEGOTIABLE, Renewal, handshake_refused, never_sent_on, offered, renewal_due
from crypto.wraps import RatchetWrap
from supervisor.inbound.evidence import MOST_PLAINTEXT_BYTES
from supervisor.inbound.forgotten import ForgottenSends
from supervisor.inbound.incoming import Incoming, MessageFrame
from supervisor.inbound.readings import (
    Known,
    Old,
    Readable,
    Reading,
    Unread,
    Waits,
    answers_of,
    is_for_a_handler,
    is_old,
    job_of,
    snapshot_of,
    until_told,
    without_the_relay,
)
from supervisor.peers.addressing import check_addressed
from supervisor.peers.owners import Admission, Owner, Owners
from supervisor.peers.prekeys import NO_PREKEYS, FoundPrekeys, OwnPrekeys
from supervisor.peers.retry_triggers import session_thing
from supervisor.peers.sessions import Loaded, Sessions
from supervisor.peers.untold import NotTold
from supervisor.relay.asking import WAIT_LONG_SECONDS
from supervisor.relay.own_words import PING, RENEWED, OwnWords, lost_session, system_event
from supervisor.relay.payloads import conversation_kind, inbound_message, message_ms, payload_type_of, stops


class PersonReader:
    """Reads what people of their own conversations send to one agent."""

    def __init__(
        self,
        store: InboundStore,
        *,
        sessions: Sessions,
        owners: Owners,
        prekeys: OwnPrekeys,
        forgotten: ForgottenSends,
        device: LocalDevice,
        keys: StoreKeys,
        write_count: WriteCount,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._owners = owners
        self._prekeys = prekeys
        self._forgotten = forgotten
        self._device = device
        self._bus_key = keys.bus
        self._state_key = keys.state
        self._write_count = write_count
        self._words = OwnWords(keys.bus, device.owner_id)

    async def read(
        self,
        incoming: Incoming,
        envelope: Envelope,
        snapshot: ConversationSnapshot,
        make_room: Callable[[], Awaitable[None]],
    ) -> Reading:
        """Returns what is to be stored of the message. The caller holds the sender's lock. Raises RedisFailed, RestFailed."""
        frame = incoming.frame
        try:
            owner = await self._authenticate(frame, envelope, snapshot)
        except NotTold:
            return without_the_relay(incoming, Unreadable(Reason.NO_GRANT, "the relay does not tell relations now"))
        except Unreadable as error:
            return Unread(incoming.arrival(), error)
        if snapshot.known and not incoming.is_known:
            return Known()
        if await self._forgotten.are_found(owner, envelope.conversation_id, snapshot, incoming.source):
            snapshot = await snapshot_of(self._store, incoming, envelope)
        peer = (envelope.sender_id, envelope.sender_device)
        loaded = self._sessions.of_snapshot(peer, snapshot)
        arrival = msgspec.structs.replace(
            incoming.arrival(),
            signed_id=envelope.replay_id,
            message_ms=message_ms(envelope.client_message_id),
            peer=peer,
            session_version=loaded.version,
            epoch=self._write_count.epoch,
            kind=snapshot.kind
            or conversation_kind(frame),  # what the relay said first is pinned; later it may say nothing
            person=owner.owner_id,
            sender_id=owner.owner_id,
        )
        if snapshot.sender_waits and incoming.may_wait:
            return Waits(arrival)
        wait_seconds = WAIT_LONG_SECONDS if incoming.source is Source.QUARANTINE else None
        admission = await self._owners.admits(owner, envelope.sender_device, wait_seconds)
        if admission is not Admission.LISTED:
            unread = Unread(arrival, Unreadable(Reason.UNKNOWN_SENDER, "not a device of this owner"))
            return until_told(incoming, unread) if admission is Admission.UNTOLD else unread
        await make_room()
        try:
            prekeys = await self._prekeys_named_in(envelope)
            if prekeys.is_restored:
                arrival = msgspec.structs.replace(arrival, is_restored_prekey=True)
            return await self._open(frame, envelope, arrival, owner, loaded, prekeys)
        except BadContent as error:
            return self._opened_in_vain(arrival, loaded, error)
        except Unreadable as error:
            if is_old(incoming, snapshot) and error.reason in RENEGOTIABLE and not isinstance(error, ForgedContent):
                return Old(arrival, error.reason.value)
            wrap = self._wrap_of(envelope)
            unread = self._out_of_step(arrival, loaded, error, wrap)
            waits_for = "" if wrap is None else session_thing(envelope.sender_id, wrap.session)
            return msgspec.structs.replace(unread, waits_for=waits_for)

    async def _authenticate(self, frame: MessageFrame, envelope: Envelope, snapshot: ConversationSnapshot) -> Owner:
        """Checks `to`, conversation pin, grant, pinned key and signature, in the order of PROTOCOL §5.10. Raises Unreadable, NotTold."""
        check_addressed(frame, envelope, snapshot, self._device.owner_id)
        owner = await self._owners.of_snapshot(envelope.sender_id, snapshot)
        if owner is None:
            raise Unreadable(Reason.NO_GRANT, "no relation with this sender")
        verify_signature(envelope, owner.pinned)
        return owner

    async def _prekeys_named_in(self, envelope: Envelope) -> FoundPrekeys:
        named = handshake_prekeys(envelope, self._device.device_id)
        return NO_PREKEYS if named is None else await self._prekeys.find(*named)

    async def _open(  # noqa: PLR0917 - the message, whom it is from, and what opens it
        self,
        frame: MessageFrame,
        envelope: Envelope,
        arrival: Arrival,
        owner: Owner,
        loaded: Loaded,
        prekeys: FoundPrekeys,
    ) -> Readable:
        epoch = self._write_count.epoch
        opened = open_ratchet(
            envelope, self._device, owner.pinned, loaded.record, prekeys, epoch=epoch, now_ms=now_ms()
        )
        record = opened.record
        if system_event(opened.payload) == RENEWED:
            record = never_sent_on(record, lost_session(opened.payload))
        write = self._sessions.seal(arrival.peer, loaded, record)
        arrival = msgspec.structs.replace(arrival, session=write, used_one_time_prekey=opened.used_one_time_prekey)
        job, answer = None, b""
        message = inbound_message(frame, envelope, opened.payload)
        if is_for_a_handler(message):
            job = job_of(message, arrival, key=self._bus_key, agent_id=self._device.owner_id)
        elif system_event(opened.payload) == PING:
            answer = self._words.pong(frame.message_id, arrival.conversation_id, arrival.message_ms)
        return Readable(
            arrival,
            payload_type_of(opened.payload),
            job,
            answer,
            record,
            begins_session=b"" if prekeys is NO_PREKEYS else self._begun(envelope, loaded),
            hops=message.hop_count,
            stops=stops(message),
            answers=answers_of(message),
        )

    def _begun(self, envelope: Envelope, loaded: Loaded) -> bytes:
        """Returns the session that begins with a message whose wrap has a handshake; b"" if it had begun before."""
        session = ratchet_wrap(envelope, self._device.device_id).session
        return session if loaded.record.find(session) is None else b""

    def _wrap_of(self, envelope: Envelope) -> RatchetWrap | None:
        """Returns the wrap for us if there is exactly one, else None."""
        try:
            return ratchet_wrap(envelope, self._device.device_id)
        except Unreadable:
            return None

    def _out_of_step(self, arrival: Arrival, loaded: Loaded, error: Unreadable, wrap: RatchetWrap | None) -> Unread:
        """Returns what is stored of an authentic message that no session opens, with an offer of one that works if PROTOCOL §5.4 allows it."""
        now, renewal = now_ms(), Renewal.NONE
        record = loaded.record if wrap is None else handshake_refused(loaded.record, wrap, now)
        if not isinstance(error, ForgedContent):
            renewal = renewal_due(record, error.reason, epoch=self._write_count.epoch, now_ms=now)
        record = offered(record, renewal, now)
        if record is loaded.record:
            return Unread(arrival, error)
        noted = msgspec.structs.replace(arrival, session=self._sessions.seal(arrival.peer, loaded, record))
        if renewal is Renewal.NONE:
            return Unread(noted, error, record=record)
        lost = b"" if wrap is None else wrap.session
        answer = self._words.renewed(
            arrival.message_id, arrival.conversation_id, arrival.message_ms, device_id=arrival.peer[1], lost=lost
        )
        return Unread(noted, error, answer=answer, record=record)

    def _opened_in_vain(self, arrival: Arrival, loaded: Loaded, error: BadContent) -> Unread:
        """Returns what is stored of a message whose ratchet moved and whose content is of no use: both are kept (PROTOCOL §5.4)."""
        write = self._sessions.seal(arrival.peer, loaded, error.record)
        moved = msgspec.structs.replace(arrival, session=write, used_one_time_prekey=error.used_one_time_prekey)
        plaintext = error.opened_plaintext[:MOST_PLAINTEXT_BYTES]
        sealed = self._state_key.seal(plaintext, "quarantine", self._device.owner_id, arrival.name)
        return Unread(moved, error, plaintext=sealed, record=error.record)
