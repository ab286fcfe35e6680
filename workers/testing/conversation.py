"""One person's conversation with an agent, one handler at a time: `conversation(agent)`. Less than the Harness, which runs the worker's own runner."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import msgspec
import trio

from bus.memory.work import card_moved
from bus.records import ulid
from bus.records.budgets import Charge
from bus.records.cards import CardKept, CardMove, decode_card
from bus.records.control import Observation
from bus.records.events import Event, content_of
from bus.records.journal import ENTRY_OVERHEAD_BYTES, MOST_JOURNAL_BYTES
from bus.records.records import ACTS, NOWHERE, InboundMessage, Job, Payload, Reply
from bus.records.sealing import KEY_BYTES, BusKey
from bus.records.timers import Timer, pack_timer
from bus.steps.job_steps import Carded, CardEmitted, Emitted
from bus.steps.opened import Exchange
from bus.steps.thread_steps import Effect, Noted, OpenWait, TimersThere, WaitsThere
from bus.transport.lua import Argument
from workers.files.files import FileWay
from workers.files.memory import MemoryGate, MemorySpool
from workers.files.names import kind_of, type_of
from workers.handling.agent import Agent
from workers.handling.execution import Run, RunEnvironment, resumed, run_handler
from workers.kept.waits import Answered, Refused, answer_in, continued
from workers.talk.cards import ToolCall
from workers.talk.payloads import text_payload
from workers.testing.said import Said, answer_to_card

Decoded = TypeVar("Decoded")


_KEY = BusKey(bytes(KEY_BYTES))
"""Makes the ids of cards in tests."""


@dataclass
class _Kept:
    """What is kept of a conversation between its messages."""

    cards: dict[str, CardKept] = field(default_factory=dict)
    cards_elsewhere: dict[tuple[str, str], CardKept] = field(default_factory=dict)
    """By conversation and id."""

    state: bytes | None = None
    exchanges: list[tuple[str, bytes]] = field(default_factory=list)
    waits: dict[str, OpenWait] = field(default_factory=dict)

    stored: dict[str, bytes] = field(default_factory=dict)
    """Of the whole agent."""

    def as_before(
        self, state: bytes | None, exchanges: int, waits: dict[str, OpenWait], stored: dict[str, bytes]
    ) -> None:
        """Takes back what a run left."""
        self.stored.clear()
        self.stored.update(stored)
        self.state, self.waits = state, dict(waits)
        del self.exchanges[exchanges:]

    def write(self, effects: Iterable[Effect]) -> None:
        """Writes what a job's end leaves."""
        for op, word, other, record in effects:
            if op == "store":
                self._store(str(word), record)
            elif op == "state":
                self.state = cast(bytes, word)
            elif op == "exchange":
                self.exchanges.append((str(word), cast(bytes, other)))
            elif op == "wait":
                self.waits[str(word)] = OpenWait(str(word), cast(bytes, other), 0)
            elif op == "drop_wait":
                self.waits.pop(str(word), None)
            elif op == "card":
                self.cards.setdefault(str(word), decode_card(str(other).encode()))
            elif op == "forget":
                self.state = None
                self.waits.clear()
                self.exchanges.clear()

    def _store(self, name: str, body: Argument) -> None:
        self.stored.pop(name, None)
        if isinstance(body, bytes):
            self.stored[name] = body


@dataclass
class _Desk:
    """Takes a job's replies like the bus: each place once."""

    kept: _Kept
    """Of the whole conversation."""

    replies: dict[str, Reply] = field(default_factory=dict)
    journal: dict[str, bytes] = field(default_factory=dict)
    changes: list[Effect] = field(default_factory=list)
    """Of the store, which were written at once: a second run finds them."""

    stops: str = ""
    """The card whose Stop button is pressed while the run goes on."""

    elsewhere: dict[tuple[str, str], Reply] = field(default_factory=dict)
    deltas: dict[str, list[str]] = field(default_factory=dict)
    typing: list[bool] = field(default_factory=list)

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:  # noqa: ARG002 - as Outlet
        await trio.lowlevel.checkpoint()
        if place in self.replies:
            return Emitted.ALREADY
        self.replies[place] = reply
        return Emitted.QUEUED

    async def emit_to(
        self,
        job: Job,
        conversation_id: str,
        place: str,
        reply: Reply,
        card: CardMove | None = None,
    ) -> Emitted:
        await trio.lowlevel.checkpoint()
        if (conversation_id, place) in self.elsewhere:
            return Emitted.ALREADY
        self.elsewhere[conversation_id, place] = reply
        if card is not None:
            self.kept.cards_elsewhere[conversation_id, card.card_id] = CardKept(0, job.thread_id, place, card.kind)
        return Emitted.QUEUED

    async def emit_card(self, job: Job, place: str, reply: Reply, move: CardMove) -> CardEmitted:
        await trio.lowlevel.checkpoint()
        if place in self.replies:
            return CardEmitted(Carded.ALREADY)
        moved = card_moved(self.kept.cards.get(move.card_id), move, job, place)
        if isinstance(moved, CardEmitted):
            return moved
        self.kept.cards[move.card_id] = moved
        self.replies[place] = reply
        return CardEmitted(Carded.QUEUED)

    async def card(self, job: Job, card_id: str) -> CardKept | None:
        await trio.lowlevel.checkpoint()
        return self.kept.cards_elsewhere.get((job.conversation_id, card_id)) or self.kept.cards.get(card_id)

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:  # noqa: ARG002
        await trio.sleep(seconds)

    async def stopped(self, job: Job) -> str:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return self.stops

    def sent_as(self, job: Job, place: str, *, is_elsewhere: bool = False) -> str:  # noqa: ARG002
        return ""

    def card_id(self, job: Job, place: str) -> str:
        return _KEY.card_id(job.message_ms, job.thread_id, place)

    def seal_timer(self, timer: Timer) -> bytes:
        return pack_timer(timer, key=_KEY, agent_id="")

    async def timers_there(self, job: Job, timer_id: str) -> TimersThere:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return TimersThere(time.time_ns() // 1_000_000, 0, is_there=False)

    def seal_entry(self, job: Job, name: str, value: bytes) -> bytes:  # noqa: ARG002
        return value

    def seal_wait(self, job: Job, wait_id: str, body: bytes) -> bytes:  # noqa: ARG002
        return body

    async def waits_there(self) -> WaitsThere:
        await trio.lowlevel.checkpoint()
        return WaitsThere(time.time_ns() // 1_000_000, sum(len(wait.body) for wait in self.kept.waits.values()))

    async def note(
        self,
        job: Job,  # noqa: ARG002
        name: str,
        entry: bytes,
        *,
        room: int = 0,
        most: int = MOST_JOURNAL_BYTES,
        only_new: bool = False,
        change: Effect | None = None,
        in_epoch: bool = False,  # noqa: ARG002
        charge: Charge | None = None,  # noqa: ARG002
    ) -> Noted:
        await trio.lowlevel.checkpoint()
        if only_new and name in self.journal:
            return Noted.NOTED if self.journal[name] == entry else Noted.ALREADY
        if sum(len(one) + ENTRY_OVERHEAD_BYTES for one in (*self.journal.values(), entry)) + room > most:
            return Noted.FULL
        if change is not None:
            self.kept.write([change])
            self.changes.append(change)
        self.journal[name] = entry
        return Noted.NOTED

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.deltas.setdefault(stream_id, []).append(text)

    async def publish_typing(self, job: Job, active: bool) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.typing.append(active)

    async def publish_abort(self, job: Job) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()

    async def read_state(self, job: Job) -> bytes | None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return self.kept.state

    async def read_exchanges(self, job: Job) -> list[Exchange]:
        await trio.lowlevel.checkpoint()
        before = itertools.takewhile(lambda exchange: exchange[0] != job.job_id, self.kept.exchanges)
        return [Exchange(0, "", body) for _, body in before]

    async def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        await trio.lowlevel.checkpoint()
        body = self.kept.stored.get(name)
        return body or b"", body

    def store_effect(self, name: str, version: bytes | None, body: bytes | None) -> Effect:
        return ("store", name, b"*" if version is None else version, "" if body is None else body)

    async def read_both(self, job: Job) -> tuple[bytes | None, list[Exchange]]:
        return await self.read_state(job), await self.read_exchanges(job)

    def open_exchanges(
        self,
        job: Job,  # noqa: ARG002
        exchanges: Iterable[Exchange],
        decode: Callable[[bytes], Decoded],
        *,
        until: str | None = None,
    ) -> list[Decoded]:
        return [decode(one.sealed) for one in list(exchanges)[: None if until is None else int(until)]]

    def newest_exchange(self, job: Job, exchanges: Iterable[Exchange]) -> str:  # noqa: ARG002
        return str(len(list(exchanges)))

    def state_effect(self, job: Job, body: bytes) -> Effect:  # noqa: ARG002
        return ("state", body, b"", b"")

    def exchange_effect(self, job: Job, at_ms: int, body: bytes) -> Effect:  # noqa: ARG002
        return ("exchange", job.job_id, body, b"")

    def forget_effect(self, job: Job) -> Effect:  # noqa: ARG002
        return ("forget", b"", b"", b"")


class Conversation:
    """One person's conversation with the agent."""

    def __init__(
        self, agent: Agent, *, sender_id: str, display_name: str, beside: "Conversation | None" = None
    ) -> None:
        self.agent = agent
        """Whose handlers answer. Put another one here to try what a new version of the code does with this conversation."""
        self._sender_id = sender_id
        self._display_name = display_name
        self._id = ulid.new()
        self._job: Job | None = None
        self._kept: _Kept = _Kept() if beside is None else _Kept(stored=beside._kept.stored)
        self._before: tuple[bytes | None, int, dict[str, OpenWait], dict[str, bytes]] = (None, 0, {}, {})
        self._desk = _Desk(self._kept)
        self.observations: list[Observation] = []
        self._gate = MemoryGate()
        self._files = FileWay(self._gate, MemorySpool(), self._count)

    @property
    def typing(self) -> tuple[bool, ...]:
        """The indicators that the last run showed: True for each "typing…", False for its end."""
        return tuple(self._desk.typing)

    @property
    def state(self) -> Any:
        """The conversation's state as the last run left it: a value of the agent's state class."""
        shape = self.agent.state
        if shape is None:
            raise LookupError("this agent has no state: write Agent(state=…)")
        return (shape.begin() if self._kept.state is None else shape.read(self._kept.state)).value

    @property
    def elsewhere(self) -> tuple[tuple[str, Payload], ...]:
        """What the last run said in other conversations (`chat.to`): the conversation's id and the payload of each."""
        return tuple((conversation_id, reply.payload) for (conversation_id, _), reply in self._desk.elsewhere.items())

    @property
    def acts(self) -> tuple[tuple[str, Payload], ...]:
        """What the last run did to messages that are there: `recall` or `reaction`, and what of which."""
        return tuple((reply.kind, reply.payload) for reply in self._desk.replies.values() if reply.kind in ACTS)

    @property
    def message_id(self) -> str:
        """The id of what was said last, by which a later message can quote it."""
        return "" if self._job is None else self._job.message.message_id

    async def say(self, text: str, *, quote: str | None = None) -> list[Said]:
        """Sends a text; returns the agent's replies to it, in order. `quote`: the id of a message (`message_id`) that it quotes."""
        return await self.send({"type": "text", "text": text}, quote=quote)

    async def send(self, payload: Mapping[str, object], *, quote: str | None = None) -> list[Said]:
        """Sends any payload; returns the agent's replies to it, in order. `quote`: as in `say`."""
        self._desk = _Desk(self._kept)
        return await self._run(self._make_job(dict(payload), quote))

    async def send_file(self, content: bytes, *, name: str, alt: str = "") -> list[Said]:
        """Sends a file, or what its name says that it is: a picture, a sound, a film. Returns the agent's replies to it, in order."""
        media_type = type_of(name)
        kind, entry = kind_of(media_type), self.attach(content, name=name)
        shown: Payload = (
            {"filename": name, "mime": media_type, "size": len(content)} if kind == "file" else {"alt": alt}
        )
        return await self.send({"type": kind, "attachment_id": entry["attachment_id"], **shown, "attachments": [entry]})

    def _count(self, metric: str, value: float, labels: Mapping[str, str]) -> None:
        self.observations.append(Observation(metric=metric, labels=dict(labels), value=value))

    def attach(self, content: bytes, *, name: str) -> Payload:
        """Returns a file: an entry for the `attachments` of a payload that is sent with `send`, or the value of a form's field."""
        return self._gate.keep(content, self._id, name=name, media_type=type_of(name))

    def content_of(self, said: Said, number: int = 0) -> bytes:
        """Returns the content of a file that the agent has sent: of one reply's files the first, or another."""
        return self.content_in(said.payload, self._id, number)

    def content_in(self, payload: Payload, conversation_id: str, number: int = 0) -> bytes:
        """Returns the content of a file that the agent has sent in another conversation (see `elsewhere`)."""
        attachments = cast("list[Payload]", payload["attachments"])
        return self._gate.content_of(attachments[number], conversation_id)

    async def answer(self, card_id: str, payload: Mapping[str, object]) -> list[Said]:
        """Answers a card, such as with `{"action": "stop"}` or `{"values": {…}}` (PROTOCOL §4.1), a call of a tool with `{"status": "ok", "result": …}`.

        Returns the agent's replies to it.
        """
        kept = self._kept.cards.get(card_id)
        is_tool = kept is not None and kept.kind == ToolCall.subtype
        return await self.send(answer_to_card(card_id, payload, is_tool=is_tool))

    async def event(self, name: str, *, is_here: bool = True, **fields: object) -> list[Said]:
        """Has the relay tell an event; returns what the agent says to it. `is_here`: it is of this conversation."""
        self._desk = _Desk(self._kept)
        told = {"conversation_id": self._id, **fields} if is_here else fields
        user_id = told.get("user_id")
        event = Event(
            name=name,
            conversation_id=self._id if is_here else None,
            user_id=user_id if isinstance(user_id, str) else None,
            fields=told,
        )
        at = self._id if is_here else NOWHERE
        content = content_of(event, f"event:{ulid.new()}", conversation_id=at, person=self._sender_id)
        job = msgspec.structs.replace(self._make_job({}), job_id=content.message_id, conversation_id=at)
        return await self._run(msgspec.structs.replace(job, kind="event", message=content))

    async def run_again(self) -> list[Said]:
        """Runs the last message again, as after a crash; returns the replies that this run adds, normally none."""
        if self._job is None:
            raise ValueError("say something first")
        again = self._job.attempt + 1
        self._kept.as_before(*self._before)
        self._kept.write(self._desk.changes)
        return await self._run(msgspec.structs.replace(self._job, entry_id=ulid.new(), attempt=again, deliveries=again))

    async def _run(self, job: Job) -> list[Said]:
        self._job = job
        self._before = (
            self._kept.state,
            len(self._kept.exchanges),
            dict(self._kept.waits),
            dict(self._kept.stored),
        )
        before = frozenset(self._desk.replies)
        answer = answer_in(job, list(self._kept.waits.values()))
        if isinstance(answer, Refused):
            return [Said("0", text_payload(self.agent.words.why(answer.why), markdown=False))]
        if isinstance(answer, Answered):
            job = continued(job, answer.wait)
        async with self.agent.lifespan() as shared:
            bench = RunEnvironment(
                agent=self.agent,
                outlet=self._desk,
                threads=trio.CapacityLimiter(1),
                observe=self.observations.append,
                shared=shared,
                deadline=trio.current_effective_deadline(),
                files=self._files,
            )
            run = Run(job, (job.message,), before, journal=dict(self._desk.journal), open_waits=len(self._kept.waits))
            run = resumed(run, answer) if isinstance(answer, Answered) else run
            ended = await run_handler(bench, run, _never_lost)
            for place, reply in ended.last:
                await self._desk.emit(job, place, reply)
            self._kept.write(ended.effects)
            if not ended.handled:
                raise LookupError(f"no handler takes a payload of type {job.message.payload.get('type')!r}")
        return [
            self._said(place, reply)
            for place, reply in self._desk.replies.items()
            if place not in before and reply.kind not in ("stream_start", *ACTS)
        ]

    def _said(self, place: str, reply: Reply) -> Said:
        deltas = tuple(self._desk.deltas.get(reply.stream_id or "", ()))
        return Said(place, reply.payload, deltas, was_streamed=reply.kind == "stream_done")

    def _make_job(self, payload: Payload, quoted: str | None = None) -> Job:
        now_ms = time.time_ns() // 1_000_000
        attachments = payload.get("attachments")
        message = InboundMessage(
            message_id=ulid.new(),
            conversation_id=self._id,
            conversation_type="h2a",
            sender_id=self._sender_id,
            sender_type="human",
            sender_display_name=self._display_name,
            payload=payload,
            reply_to=quoted,
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            client_message_id=ulid.new(),
            attachments=[one for one in attachments if isinstance(one, dict)] if isinstance(attachments, list) else [],
            envelope_version="hashee-envelope-v1.2",
        )
        return Job(
            entry_id=ulid.new(),
            job_id=message.message_id,
            conversation_id=self._id,
            attempt=1,
            deliveries=1,
            accepted_ms=now_ms,
            message_ms=now_ms,
            message=message,
        )


def conversation(
    agent: Agent,
    *,
    sender_id: str = "person-1",
    display_name: str = "Person",
    beside: Conversation | None = None,
) -> Conversation:
    """Begins a new conversation with the agent. `beside`: another one, with which it shares the agent's store."""
    return Conversation(agent, sender_id=sender_id, display_name=display_name, beside=beside)


def _never_lost() -> None:
    """Does nothing: no other worker takes a test's job."""
