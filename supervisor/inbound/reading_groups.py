"""Opens a group's message (PROTOCOL §5.10): no session moves; what cannot be read pins nothing, since its sender may be no member."""

from collections.abc import Awaitable, Callable

import msgspec

from bus.records.records import GROUP, InboundMessage, is_answer_to_card
from bus.records.sealing import BusKey
from bus.steps.policies import PolicyStore
from bus.steps.questions import OpenQuestions
from bus.steps.store import ConversationSnapshot, InboundStore, now_ms
from crypto.envelope import Envelope
from crypto.errors import Reason, Unreadable
from supervisor.inbound.incoming import Incoming
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
    until_told,
    without_the_relay,
)
from supervisor.peers.addressing import check_addressed
from supervisor.peers.groups import Groups, check_not_stale, sent_ms
from supervisor.peers.untold import NotTold
from supervisor.relay.payloads import payload_type_of, stops, without_mention

CLOCKS_APART_MS = 60_000
"""A time further in the future than this cannot come from Redis' clock being ahead of ours."""


class GroupReader:
    """Reads what members of groups send to one agent."""

    def __init__(
        self,
        store: InboundStore,
        *,
        groups: Groups,
        policies: PolicyStore,
        questions: OpenQuestions,
        bus_key: BusKey,
    ) -> None:
        self._store = store
        self._agent_id = store.keys.agent_id
        self._groups = groups
        self._policies = policies
        self._questions = questions
        self._bus_key = bus_key

    async def read(
        self,
        incoming: Incoming,
        envelope: Envelope,
        snapshot: ConversationSnapshot,
        make_room: Callable[[], Awaitable[None]],
    ) -> Reading:
        """Returns what is to be stored of the message. Raises RedisFailed, RestFailed."""
        frame = incoming.frame
        try:
            check_addressed(frame, envelope, snapshot, self._agent_id)
            await self._groups.authenticate(envelope)
        except NotTold:
            error = Unreadable(Reason.UNKNOWN_SENDER, "the relay does not show this owner's keys now")
            return without_the_relay(incoming, error)
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
            epoch=self._store.epoch,
        )
        try:
            if not incoming.is_known and incoming.noted != envelope.replay_id.hex():
                check_not_stale(envelope, await self._healed(envelope, snapshot))
            if snapshot.sender_waits and incoming.may_wait:
                return Waits(arrival)
            await make_room()
            opened = await self._groups.open(envelope)
        except NotTold:
            untold = Unreadable(Reason.UNKNOWN_GROUP_KEY, "the relay does not tell this group's key now")
            return until_told(incoming, Unread(arrival, untold, waits_for=envelope.to))
        except Unreadable as error:
            if error.reason is Reason.STALE and is_old(incoming, snapshot):
                return Old(arrival, error.reason.value)
            waits_for = envelope.to if error.reason is Reason.UNKNOWN_GROUP_KEY else ""
            return Unread(arrival, error, waits_for=waits_for)
        member = msgspec.structs.replace(arrival, kind=GROUP, person=envelope.to)
        job, message = None, opened.message(frame, envelope)
        is_overheard = is_for_a_handler(message) and await self._is_overheard(message)
        if is_overheard and await self._may_answer(message):
            message, is_overheard = msgspec.structs.replace(message, is_overheard=True), False
        message = without_mention(message, self._agent_id)
        if is_for_a_handler(message) and not is_overheard:
            # Answers are dated by our clock: in a group the sender's might make them stale to everybody else.
            job = job_of(
                message,
                msgspec.structs.replace(member, message_ms=now_ms()),
                key=self._bus_key,
                agent_id=self._agent_id,
            )
        payload_type = payload_type_of(opened.payload)
        return Readable(
            member,
            payload_type,
            job,
            hops=message.hop_count,
            is_overheard=is_overheard,
            stops="" if is_overheard or message.is_overheard else stops(message),
            answers=answers_of(message),
        )

    async def _is_overheard(self, message: InboundMessage) -> bool:
        """Returns whether people talk to each other, and the handler's code does not want to hear that. Raises RedisFailed."""
        if message.mentions_agent(self._agent_id) or is_answer_to_card(message.payload):
            return False
        return not await self._policies.hears_all_in_groups()

    async def _may_answer(self, message: InboundMessage) -> bool:
        """Returns whether it may be the answer to a question that is open, which needs no mention. Raises RedisFailed."""
        if message.payload.get("type") != "text":
            return False
        return await self._questions.await_words_of(message.sender_id, message.conversation_id)

    async def _healed(self, envelope: Envelope, snapshot: ConversationSnapshot) -> ConversationSnapshot:
        """Returns the snapshot with a memory of ids that does not lie in the future, which would make everything `stale`: older versions wrote such."""
        if snapshot.dropped_ms <= now_ms() + CLOCKS_APART_MS:
            return snapshot
        return msgspec.structs.replace(snapshot, dropped_ms=await self._store.heal_times(envelope.conversation_id))
