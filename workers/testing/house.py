"""What an agent has around its workers, in memory and at once: what a supervisor, Redis and the relay do, without ciphertext.

It takes messages in, places what is due, and hands what was said to the conversations. Nothing here waits.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, cast

import msgspec
import trio

from bus.memory.inbound import MemoryStore
from bus.memory.outbound import MemoryOutbox
from bus.memory.placing import MemoryPlacing
from bus.memory.recovery import MemoryLetters, MemoryRecovery
from bus.memory.timers import MemoryTimers
from bus.memory.work import MemorySteps
from bus.memory.world import World
from bus.records.records import (
    ACTS,
    GROUP,
    NOWHERE,
    SCHEMA_VERSION,
    InboundMessage,
    Job,
    OutboxRecord,
    Payload,
    Reply,
    ReplyPlace,
    decode_reply_record,
    is_answer_to_card,
    mention_of,
    open_reply,
    pack_job,
    pack_placed_job,
    pack_reply,
)
from bus.records.sealing import KEY_BYTES, BusKey
from bus.records.timers import EVERY, Timer, due_payload, keyed_id, pack_timer
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.store import Arrival, Intake, Source
from bus.steps.write_count import WriteCount
from workers.files.memory import MemoryGate
from workers.kept.waits import Wait, card_named_in, said_in
from workers.talk.payloads import text_reply
from workers.testing.said import Said

AGENT_ID = "agent"
KEY = BusKey(bytes(KEY_BYTES))
SUPERVISOR = "supervisor"
MS = 1000


class MovedClock(Protocol):
    """A clock that a test moves: trio's MockClock, which is not imported, since pytest comes with it."""

    autojump_threshold: float

    def jump(self, seconds: float) -> None: ...


class Time:
    """What time it is: trio's, from a beginning on, and what was skipped. Under trio's MockClock nothing passes by itself."""

    def __init__(self, now: datetime | None) -> None:
        """`now`: when it begins; else it begins now."""
        if now is not None and now.tzinfo is None:
            now = now.replace(tzinfo=UTC)
        self._clock = trio.lowlevel.current_clock()
        self._began_ms = round((now or datetime.now(UTC)).timestamp() * MS)
        self._began = trio.current_time()
        self._skipped = 0.0

    @property
    def clock(self) -> MovedClock | None:
        """The clock that is moved; None where time passes by itself."""
        return cast("MovedClock", self._clock) if hasattr(self._clock, "jump") else None

    @property
    def ms(self) -> int:
        """Returns the time of Unix."""
        return self._began_ms + round((trio.current_time() - self._began + self._skipped) * MS)

    def skip(self, seconds: float) -> None:
        """Has so much time pass."""
        if self.clock is not None:
            self.clock.jump(seconds)
        else:
            self._skipped += seconds


@dataclass(eq=False)
class Place:
    """A conversation. `person`: with whom it is, or the id of the group; `heard`: what the agent has said there."""

    id: str
    kind: str
    person: str
    seq: int = 0
    heard: list[Said] = field(default_factory=list)
    typing: list[bool] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    """Of what was heard."""


class House:
    """One agent's."""

    def __init__(self, policies: Policies, now: datetime | None = None) -> None:
        self.time = Time(now)
        self.policies = policies
        self.world = World(now_ms=self.time.ms, policies=policies)
        self.places: dict[str, Place] = {}
        self.deltas: dict[str, list[str]] = defaultdict(list)
        self.gate = MemoryGate()
        self.has_changed = trio.Event()
        """Something was said, shown or done."""

        write_count = WriteCount()
        self._store = MemoryStore(self.world, write_count)
        self._outbox = MemoryOutbox(self.world, SUPERVISOR, write_count)
        self._recovery = MemoryRecovery(self.world, SUPERVISOR)
        self._timers = MemoryTimers(self.world, AGENT_ID, KEY)
        self._placing = MemoryPlacing(self.world)
        self._letters = MemoryLetters(self.world)
        self._numbers = itertools.count(1)

    def steps(self, name: str) -> MemorySteps:
        """Returns a worker's half of the bus."""
        return MemorySteps(self.world, AGENT_ID, KEY, name, self.policies)

    def place(self, conversation_id: str, kind: str, person: str) -> Place:
        """Returns the conversation with this id; one that is not there yet begins."""
        if conversation_id not in self.places:
            self.places[conversation_id] = Place(conversation_id, kind, person)
            self.world.conversation(conversation_id).pin(kind, person)
        return self.places[conversation_id]

    def changed(self) -> None:
        """Notes that something has changed, and what time it is."""
        self.world.now_ms = self.time.ms
        self.has_changed.set()
        self.has_changed = trio.Event()

    # In

    async def take_in(
        self, place: Place, sender: str, payload: Mapping[str, object], *, name: str | None, quoted: str | None
    ) -> str:
        """Takes a message in, as the supervisor does: a group's that is not for the agent goes to no handler. Returns its id."""
        self.changed()
        message_id, now_ms = f"message-{next(self._numbers)}", self.time.ms
        attachments = payload.get("attachments")
        place.seq += 1
        message = InboundMessage(
            message_id=message_id,
            conversation_id=place.id,
            conversation_type=place.kind,
            sender_id=sender,
            sender_type="human",
            sender_display_name=name,
            payload=dict(payload),
            reply_to=quoted,
            created_at=datetime.fromtimestamp(now_ms / MS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            client_message_id=message_id,
            attachments=[one for one in attachments if isinstance(one, dict)] if isinstance(attachments, list) else [],
            envelope_version="hashee-envelope-v1.2",
        )
        is_for_us, message = self._for_whom(message)
        packed = None
        if is_for_us:
            packed = pack_job(
                message, seq=place.seq, accepted_ms=now_ms, message_ms=now_ms, key=KEY, agent_id=AGENT_ID, epoch=0
            )
        arrival = Arrival(
            conversation_id=place.id,
            source=Source.POLL,
            seq=place.seq,
            signed_id=message_id.encode(),
            message_ms=now_ms,
            peer=(sender, "device"),
            kind=place.kind,
            person=place.person,
            message_id=message_id,
            received_ms=now_ms,
            sender_id=sender,
        )
        stops = _stopped_card(message.payload)
        if await self._store.accept(arrival, packed, stops=stops) in (Intake.FULL, Intake.HELD):
            at = ReplyPlace(message_id, place.id, "!refused", now_ms)
            refusal = pack_reply(at, text_reply(self.policies.refusal), emitted_ms=now_ms, key=KEY, agent_id=AGENT_ID)
            await self._store.accept(arrival, packed, refusal=refusal)
        return message_id

    def _for_whom(self, message: InboundMessage) -> tuple[bool, InboundMessage]:
        """Returns whether a handler may get a message, and the message as it gets it."""
        if message.conversation_type != GROUP:
            return True, message
        is_ours = message.mentions_agent(AGENT_ID) or is_answer_to_card(message.payload)
        if not is_ours and self.policies.groups == "mentioned":
            if not self._may_answer(message):
                return False, message
            message = msgspec.structs.replace(message, is_overheard=True)
        return True, _without_mention(message)

    def _may_answer(self, message: InboundMessage) -> bool:
        return any(message.sender_id in wait.who for wait in self.open_waits(message.conversation_id))

    def open_waits(self, conversation_id: str) -> list[Wait]:
        """Returns what handlers wait for there."""
        steps, found = self.steps(SUPERVISOR), []
        for wait_id, record in self.world.conversation(conversation_id).waits.items():
            found.append(msgspec.msgpack.decode(steps.open_wait(conversation_id, wait_id, record), type=Wait))
        return found

    async def put_event(self, content: InboundMessage) -> None:
        """Has an event's job placed."""
        self.changed()
        packed = pack_placed_job("event", content, placed_ms=self.time.ms, key=KEY, agent_id=AGENT_ID, epoch=0)
        await self._placing.place(packed)

    async def put_reminder(self, place: Place, name: str, data: object, *, sender: str) -> None:
        """Has a reminder's job placed, as `hashee-agent send --reminder` does."""
        self.changed()
        now_ms, number = self.time.ms, next(self._numbers)
        content = InboundMessage(
            message_id=f"outside:{number}",
            conversation_id=place.id,
            conversation_type=place.kind,
            sender_id="" if place.kind == GROUP else sender,
            sender_type="human",
            payload=due_payload("reminder", name, msgspec.msgpack.encode(data), now_ms),
        )
        packed = pack_placed_job("reminder", content, placed_ms=now_ms, key=KEY, agent_id=AGENT_ID, epoch=0)
        await self._placing.place(packed)

    def any_job(self, conversation_id: str) -> Job:
        """Returns a job there by which what is kept of the conversation is opened."""
        message = InboundMessage(
            message_id="",
            conversation_id=conversation_id,
            conversation_type="h2a",
            sender_id="",
            sender_type="",
            payload={},
        )
        now_ms = self.time.ms
        return Job(
            entry_id="",
            job_id="",
            conversation_id=conversation_id,
            attempt=1,
            deliveries=1,
            accepted_ms=now_ms,
            message_ms=now_ms,
            message=message,
        )

    # Out

    async def hand_out(self) -> bool:
        """Hands on all that is in the out-boxes; returns whether there was something."""
        is_any = False
        while (entry := await self._outbox.take()) is not None:
            is_any = True
            record = decode_reply_record(entry.fields["r"])
            reply = open_reply(record, key=KEY, agent_id=AGENT_ID)
            answers = (record.job_id, record.place)
            if reply.kind in ACTS:
                await self._outbox.acted(record.conversation_id, entry.id, answers=answers, what=reply.kind)
                self._heard(record.conversation_id, "", record.place, reply)
                continue
            said = f"{record.job_id} {record.place}"
            is_start = reply.kind == "stream_start"
            kept = OutboxRecord(SCHEMA_VERSION, said, record.conversation_id, "text", "", None, "h2a", "text", 0)
            await self._outbox.commit(
                entry_id=entry.id,
                conversation_id=record.conversation_id,
                client_message_id=said,
                answers=answers,
                record=None if is_start else kept,
                sessions=(),
                epoch=0,
                rate_per_second=0,
                stream_id=reply.stream_id,
            )
            if is_start:
                continue
            place = self.places[record.conversation_id]
            place.seq += 1
            message_id = f"reply-{next(self._numbers)}"
            await self._outbox.confirm(place.id, said, message_id, place.seq)
            if said not in place.ids:
                place.ids.add(said)
                self._heard(place.id, message_id, record.place, reply)
        if is_any:
            self.changed()
        return is_any

    def _heard(self, conversation_id: str, message_id: str, at: str, reply: Reply) -> None:
        payload: Payload = reply.payload
        deltas = tuple(self.deltas.get(reply.stream_id or "", ()))
        kind = reply.kind if reply.kind in ACTS else "message"
        said = Said(at, payload, deltas, reply.kind == "stream_done", kind, message_id)
        self.places[conversation_id].heard.append(said)

    # Time

    def declare(self, every: Mapping[str, int]) -> None:
        """Sets the timers of functions that run by themselves."""
        self.places.setdefault(NOWHERE, Place(NOWHERE, "h2a", ""))
        for name, seconds in every.items():
            timer = Timer(
                id=keyed_id(NOWHERE, EVERY + name),
                conversation_id=NOWHERE,
                due_ms=self.time.ms + seconds * MS,
                kind="reminder",
                name=EVERY + name,
                every_ms=seconds * MS,
            )
            self.world.timers[NOWHERE, timer.id] = (timer.due_ms, pack_timer(timer, key=KEY, agent_id=AGENT_ID))

    def seconds_to_retry(self) -> float:
        """Returns in how many seconds a job that has failed is tried again; infinity if there is none."""
        due = [at.retry.due_ms for at in self.world.conversations.values() if at.retry is not None]
        return max(0, min(due) - self.time.ms) / MS if due else math.inf

    def seconds_to_timer(self) -> float:
        """Returns in how many seconds the next timer is due; infinity if there is none."""
        due = [due_ms for due_ms, _ in self.world.timers.values()]
        return max(0, min(due) - self.time.ms) / MS if due else math.inf

    async def start_what_is_due(self) -> bool:
        """Has what is due by now begin; returns whether there was something."""
        self.changed()
        now_ms = self.time.ms
        fired = False
        for alarm in await self._timers.due(now_ms):
            packed = await self._timers.read(alarm)
            if packed is not None:
                await self._timers.fire(packed, self._timers.opened(packed, alarm), now_ms)
                fired = True
        return bool(await self._recovery.start_due(now_ms)) or fired

    # What befalls it

    def has_work(self) -> bool:
        """Returns whether a job waits for a worker, or is in the hands of one."""
        return any(at.job is not None for at in self.world.conversations.values())

    async def reclaim(self, worker: str) -> None:
        """Offers anew what a worker had that is gone."""
        for pending in await self._recovery.pending(self._recovery.jobs, consumer=worker):
            await self._recovery.reclaim(self._recovery.jobs, pending, Reclaim())
        self.changed()

    @property
    def dead(self) -> list[str]:
        """Why there are dead letters."""
        return [letter.reason for letter in self.world.dead.values()]

    async def retry_dead(self) -> None:
        """Has every dead letter come back."""
        self.changed()
        for letter in await self._letters.first():
            await self._letters.retry(letter)
        self.changed()


def _stopped_card(payload: Payload) -> str:
    """Returns the card whose Stop button was pressed, '' for anything else; of messages of real people supervisor/relay/payloads.py says it."""
    artifact = payload.get("artifact")
    if not is_answer_to_card(payload) or not isinstance(artifact, dict) or said_in(artifact).get("action") != "cancel":
        return ""
    return card_named_in(artifact)


def _without_mention(message: InboundMessage) -> InboundMessage:
    """Returns a group's message without the mention of the agent in its text, as `say` of this room writes it."""
    mention = mention_of(AGENT_ID)
    if mention not in message.text:
        return message
    text = message.text.replace(mention, "").strip()
    return msgspec.structs.replace(
        message, payload={**message.payload, "text": text}, mentions=[*message.mentions, AGENT_ID]
    )
