"""Checks a frame in the order of PROTOCOL §5.10, opens it, and returns what is to be stored. Reads Redis, writes nothing.

The reading names the versions of what it was made with, whether the message could be read or not; supervisor/inbound/inbound.py commits it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import msgspec

from bus.records.records import COMMAND, GROUP, InboundMessage, is_answer_to_card, pack_job, stands_apart
from bus.records.sealing import StoreKeys
from bus.steps.policies import PolicyStore
from bus.steps.questions import OpenQuestions
from bus.steps.store import Arrival, ConversationSnapshot, Source, Store, now_ms
from bus.steps.write_count import WriteCount
from crypto.envelope import (
    V1_1,
    BadContent,
    Envelope,
    Expected,
    handshake_prekeys,
    open_ratchet,
    parse_envelope,
    ratchet_wrap,
    verify_signature,
)
from crypto.errors import ForgedContent, Reason, Unreadable
from crypto.identity import LocalDevice
from crypto.records import DeviceRecord
from crypto.renewal import RENEGOTIABLE, Renewal, handshake_refused, never_sent_on, offered, renewal_due
from crypto.wraps import RatchetWrap
from supervisor.inbound.evidence import MOST_PLAINTEXT_BYTES
from supervisor.inbound.forgotten import ForgottenSends
from supervisor.inbound.incoming import Incoming, MessageFrame
from supervisor.observe.metrics import Metrics
from supervisor.peers.addressing import check_addressed
from supervisor.peers.groups import Groups, check_not_stale, sent_ms
from supervisor.peers.owners import Owner, Owners
from supervisor.peers.prekeys import NO_PREKEYS, FoundPrekeys, OwnPrekeys
from supervisor.peers.retry_triggers import session_thing
from supervisor.peers.sessions import Loaded, Sessions
from supervisor.relay.asking import WAIT_LONG_SECONDS
from supervisor.relay.own_words import PING, RENEWED, OwnWords, lost_session, system_event
from supervisor.relay.payloads import (
    LAST_HOP,
    answered_card,
    conversation_kind,
    inbound_message,
    message_ms,
    payload_type_of,
    stopped_card,
    without_mention,
)

WORDS = "words"
CANCEL = "cancel"

CLOCKS_APART_MS = 60_000
"""A time further in the future than this cannot come from Redis' clock being ahead of ours."""


class Readable(msgspec.Struct, frozen=True):
    """The message could be read. `job` None: nothing for a handler. `answer`: a reply of our own. `record`: what its session becomes.

    `begins_session`: the session that begins with it; b"" for none. `hops`: its hop_count. `is_overheard`: a group's, and not for us.
    `stops`: the card whose Stop button was pressed; '' for none. `answers`: the card that it answers, or `words` or `cancel`, by which a
    question that is a text may be answered, or any ended; '' for none.
    """

    arrival: Arrival
    payload_type: str
    job: bytes | None
    answer: bytes = b""
    record: DeviceRecord | None = None
    begins_session: bytes = b""
    hops: int = 0
    is_overheard: bool = False
    stops: str = ""
    answers: str = ""

    def __repr__(self) -> str:
        return f"Readable(message_id={self.arrival.message_id!r}, …)"


class Unread(msgspec.Struct, frozen=True):
    """The message could not be read. `plaintext`: sealed, if something was decrypted. `answer`: the first message of a new session.

    `waits_for`: the thing whose coming may make it readable (supervisor/peers/retry_triggers.py); '' for its sender.
    """

    arrival: Arrival
    error: Unreadable
    plaintext: bytes = b""
    answer: bytes = b""
    record: DeviceRecord | None = None
    waits_for: str = ""

    def __post_init__(self) -> None:
        """Keeps the error without its traceback, whose frames hold the message until cycles are collected."""
        msgspec.structs.force_setattr(self, "error", Unreadable(self.error.reason, self.error.detail))

    def __repr__(self) -> str:
        return f"Unread(message_id={self.arrival.message_id!r}, reason={self.error.reason.value!r}, …)"


class Old(msgspec.Struct, frozen=True):
    """The message is below its conversation's `next` and can no longer be read: most likely it was answered long ago."""

    arrival: Arrival
    reason: str


class Waits(msgspec.Struct, frozen=True):
    """The message is authentic and new, and waits at the relay behind others of its sender."""

    arrival: Arrival


class Known(msgspec.Struct, frozen=True):
    """The message was taken in before, or is our own by way of another connection."""


Reading = Readable | Unread | Old | Waits | Known


class FrameReader:
    """Reads the messages of one agent."""

    def __init__(
        self,
        *,
        store: Store,
        sessions: Sessions,
        owners: Owners,
        groups: Groups,
        prekeys: OwnPrekeys,
        device: LocalDevice,
        keys: StoreKeys,
        write_count: WriteCount,
        metrics: Metrics,
        policies: PolicyStore,
    ) -> None:
        self._policies = policies
        self._questions = OpenQuestions(store.client, store.keys, keys.bus)
        self._store = store
        self._sessions = sessions
        self._owners = owners
        self._groups = groups
        self._prekeys = prekeys
        self._device = device
        self._bus_key = keys.bus
        self._state_key = keys.state
        self._write_count = write_count
        self._words = OwnWords(keys.bus, device.owner_id)
        self._forgotten = ForgottenSends(sessions, write_count, metrics)

    def parse(self, incoming: Incoming) -> Envelope | Known | Unread:
        """Parses a frame's envelope. Returns that, or what follows if it is our own or malformed. Asks nobody."""
        frame = incoming.frame
        if frame.sender_id == self._device.owner_id:
            return Known()
        try:
            return parse_envelope(
                frame.encrypted_payload, Expected(frame.conversation_id, frame.sender_id, frame.sender_device_id)
            )
        except Unreadable as error:
            return Unread(incoming.arrival(), error)

    def locked(self, envelope: Envelope) -> AbstractAsyncContextManager[None]:
        """Returns a lock on the sender's record, to be held from reading to commit (DESIGN rule 3); a group's messages move none."""
        if envelope.v == V1_1:
            return nullcontext()
        return self._sessions.locked([(envelope.sender_id, envelope.sender_device)])

    async def read(self, incoming: Incoming, envelope: Envelope, make_room: Callable[[], Awaitable[None]]) -> Reading:
        """Reads the conversation's snapshot and opens the message. The caller holds the lock.

        `make_room` is waited for before anything is opened. Raises RedisFailed, RestFailed.
        """
        snapshot = await self._snapshot(incoming, envelope)
        if envelope.v == V1_1:
            return await self._read_in_group(incoming, envelope, snapshot, make_room)
        return await self._read_from_person(incoming, envelope, snapshot, make_room)

    def _snapshot(self, incoming: Incoming, envelope: Envelope) -> Awaitable[ConversationSnapshot]:
        peer, seq = (envelope.sender_id, envelope.sender_device), incoming.frame.conversation_seq
        return self._store.look(envelope.conversation_id, peer, envelope.replay_id, seq)

    # A person's message: the ratchet moves

    async def _read_from_person(
        self,
        incoming: Incoming,
        envelope: Envelope,
        snapshot: ConversationSnapshot,
        make_room: Callable[[], Awaitable[None]],
    ) -> Reading:
        frame = incoming.frame
        try:
            owner = await self._authenticate(frame, envelope, snapshot)
        except Unreadable as error:
            return Unread(incoming.arrival(), error)
        if snapshot.known and not incoming.is_known:
            return Known()
        if await self._forgotten.are_found(owner, envelope.conversation_id, snapshot, incoming.source):
            snapshot = await self._snapshot(incoming, envelope)
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
        if not await self._owners.admits(owner, envelope.sender_device, wait_seconds):
            return Unread(arrival, Unreadable(Reason.UNKNOWN_SENDER, "not a device of this owner"))
        await make_room()
        try:
            prekeys = await self._prekeys_named_in(envelope)
            if prekeys.is_restored:
                arrival = msgspec.structs.replace(arrival, is_restored_prekey=True)
            return await self._open(frame, envelope, arrival, owner, loaded, prekeys)
        except BadContent as error:
            return self._opened_in_vain(arrival, loaded, error)
        except Unreadable as error:
            if _is_old(incoming, snapshot) and error.reason in RENEGOTIABLE and not isinstance(error, ForgedContent):
                return Old(arrival, error.reason.value)
            wrap = self._wrap_of(envelope)
            unread = self._out_of_step(arrival, loaded, error, wrap)
            waits_for = "" if wrap is None else session_thing(envelope.sender_id, wrap.session)
            return msgspec.structs.replace(unread, waits_for=waits_for)

    async def _authenticate(self, frame: MessageFrame, envelope: Envelope, snapshot: ConversationSnapshot) -> Owner:
        """Checks `to`, conversation pin, grant, pinned key and signature, in the order of PROTOCOL §5.10. Raises Unreadable."""
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
        if _is_for_a_handler(message):
            job = self._job(message, arrival)
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
            stops=stopped_card(message.payload),
            answers=_answers(message),
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

    # A group's message: no session; what cannot be read pins nothing, since its sender may be no member

    async def _read_in_group(
        self,
        incoming: Incoming,
        envelope: Envelope,
        snapshot: ConversationSnapshot,
        make_room: Callable[[], Awaitable[None]],
    ) -> Reading:
        frame = incoming.frame
        try:
            check_addressed(frame, envelope, snapshot, self._device.owner_id)
            await self._groups.authenticate(envelope)
        except Unreadable as error:
            return Unread(incoming.arrival(), error)
        if snapshot.known and not incoming.is_known:
            return Known()
        arrival = msgspec.structs.replace(
            incoming.arrival(),
            signed_id=envelope.replay_id,
            message_ms=sent_ms(envelope),
            kind="",
            sender_id=envelope.sender_id,
        )
        try:
            if not incoming.is_known and incoming.noted != envelope.replay_id.hex():
                check_not_stale(envelope, await self._healed(envelope, snapshot))
            if snapshot.sender_waits and incoming.may_wait:
                return Waits(arrival)
            await make_room()
            opened = await self._groups.open(envelope)
        except Unreadable as error:
            if error.reason is Reason.STALE and _is_old(incoming, snapshot):
                return Old(arrival, error.reason.value)
            waits_for = envelope.to if error.reason is Reason.UNKNOWN_GROUP_KEY else ""
            return Unread(arrival, error, waits_for=waits_for)
        member = msgspec.structs.replace(arrival, kind=GROUP, person=envelope.to)
        job, message = None, opened.message(frame, envelope)
        is_overheard = _is_for_a_handler(message) and await self._is_overheard(message)
        if is_overheard and await self._may_answer(message):
            message, is_overheard = msgspec.structs.replace(message, is_overheard=True), False
        message = without_mention(message, self._device.owner_id)
        if _is_for_a_handler(message) and not is_overheard:
            # Answers are dated by our clock: in a group the sender's might make them stale to everybody else.
            job = self._job(message, msgspec.structs.replace(member, message_ms=now_ms()))
        payload_type = payload_type_of(opened.payload)
        return Readable(
            member,
            payload_type,
            job,
            hops=message.hop_count,
            is_overheard=is_overheard,
            stops=stopped_card(message.payload),
            answers=_answers(message),
        )

    async def _is_overheard(self, message: InboundMessage) -> bool:
        """Returns whether people talk to each other, and the handler's code does not want to hear that. Raises RedisFailed."""
        if message.mentions_agent(self._device.owner_id) or is_answer_to_card(message.payload):
            return False
        return not await self._policies.hears_all_in_groups()

    async def _may_answer(self, message: InboundMessage) -> bool:
        """Returns whether it may be the answer to a question that is open, which needs no mention. Raises RedisFailed."""
        if message.payload.get("type") != "text":
            return False
        return await self._questions.await_words_of(message.sender_id, message.conversation_id)

    async def question_answered(self, read: Readable) -> str:
        """Returns the open question that a message may answer, '' for none: it has to find room. Raises RedisFailed."""
        if read.job is None or read.answers not in (WORDS, CANCEL):
            return read.answers
        person, conversation_id = read.arrival.sender_id, read.arrival.conversation_id
        return await self._questions.asked(person, conversation_id, for_words=read.answers == WORDS)

    async def _healed(self, envelope: Envelope, snapshot: ConversationSnapshot) -> ConversationSnapshot:
        """Returns the snapshot with a memory of ids that does not lie in the future, which would make everything `stale`: older versions wrote such."""
        if snapshot.dropped_ms <= now_ms() + CLOCKS_APART_MS:
            return snapshot
        return msgspec.structs.replace(snapshot, dropped_ms=await self._store.heal_times(envelope.conversation_id))

    def _job(self, message: InboundMessage, arrival: Arrival) -> bytes:
        return pack_job(
            message,
            seq=arrival.seq,
            accepted_ms=now_ms(),
            message_ms=arrival.message_ms,
            key=self._bus_key,
            agent_id=self._device.owner_id,
            trace=arrival.trace,
        )


def _answers(message: InboundMessage) -> str:
    if is_answer_to_card(message.payload):
        return answered_card(message.payload)
    if message.payload.get("type") != "text" or not message.text:
        return ""
    if stands_apart(message) != COMMAND:
        return WORDS
    return CANCEL if message.text.strip().lower() == f"/{CANCEL}" else ""


def _is_for_a_handler(message: InboundMessage) -> bool:
    return message.payload.get("type") != "system" and message.hop_count < LAST_HOP


def _is_old(incoming: Incoming, snapshot: ConversationSnapshot) -> bool:
    """Whether the relay's order says that the message came before. Never of what stood in quarantine, or has waited at the relay."""
    return incoming.may_wait and incoming.frame.conversation_seq < snapshot.next_seq
