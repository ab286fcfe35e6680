# ruff: noqa: ARG002 - the bus asks for more than a stage needs
"""An agent on a stage: the worker's real runner over a bus of tests/bus (in memory, or in a real Redis), people, and a worker that may die
before and after each thing that it does there. Who died is replaced, as by the reclaimer.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from bus.records.presence import Presence
from bus.records.records import (
    STOP_ALL,
    InboundMessage,
    Job,
    Reply,
    decode_reply_record,
    open_reply,
    pack_job,
    pack_placed_job,
)
from bus.steps.job_steps import Finished
from bus.steps.store import Source
from tests.bus.builders import AGENT, BUS_KEY, CONVERSATION, arrival_of
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, talk_of
from workers import Agent
from workers.files.files import FileWay
from workers.process.logs import Log
from workers.process.runner import Runner, RunnerSettings
from workers.process.vitals import Vitals

MESSAGE_MS = 1_700_000_000_000
ACTS = ("start", "emit", "emit_card", "note", "bind_wait", "admit", "finish", "settle", "fail")


class Died(BaseException):
    """The worker is gone."""


@dataclass
class StageBus:
    """One life of a worker: its half of the bus, until it dies at the act with the number `dies_at` (before it if even, after it if odd)."""

    worker: Worker
    acted: Callable[[], int]
    dies_at: float
    is_beside_others: bool = False
    outcomes: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    is_dead: bool = False
    idle: trio.Event = field(default_factory=trio.Event)
    supersede: Callable[[str], None] = lambda _entry_id: None

    def __getattr__(self, name: str) -> Any:
        step = getattr(self.worker.steps, name)
        if name == "open_waits":
            return self._look(step)
        return self._act(name, step) if name in ACTS else step

    def _look(self, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        """Before it is known what a job is, its lease is renewed, by which the worker hears that it is superseded."""

        async def look(*arguments: object, **named: object) -> object:
            await trio.lowlevel.checkpoint()
            for entry_id in (await self.worker.renew(*self.held))[1]:
                self.supersede(entry_id)
            await trio.lowlevel.checkpoint()
            return await step(*arguments, **named)

        return look

    def _act(self, name: str, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def act(*arguments: object, **named: object) -> object:
            await trio.lowlevel.checkpoint()
            self._point()
            answer = await step(*arguments, **named)
            if name in ("finish", "settle") and answer is Finished.DONE:
                self.outcomes.append(str(arguments[1]))
            self._point()
            return answer

        return act

    def _point(self) -> None:
        if self.is_dead or self.acted() == self.dies_at:
            self.is_dead = True
            raise Died

    async def take(self, count: int) -> list[Job]:
        while True:
            job = await self.worker.take()
            if job is not None:
                return [job]
            if not self.held:
                self.idle.set()
            await trio.sleep(0.001)

    async def renew(self) -> None:
        """Renews its leases again and again, by which it hears of a /stop."""
        while not self.idle.is_set():
            await trio.sleep(0.002)
            for entry_id in (await self.worker.renew(*self.held))[1]:
                self.supersede(entry_id)

    async def stop_taking(self) -> None:
        await trio.lowlevel.checkpoint()

    async def seen(self, presence: Presence | None = None) -> None:
        await trio.lowlevel.checkpoint()

    async def until_stop_is_pressed(self, job: Job, seconds: float) -> None:
        await trio.sleep(0.001)

    async def is_beside_another_version(self, mine: Presence) -> bool:
        return self.is_beside_others

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:
        await trio.lowlevel.checkpoint()

    async def publish_typing(self, job: Job, active: bool) -> None:
        await trio.lowlevel.checkpoint()

    async def publish_abort(self, job: Job) -> None:
        await trio.lowlevel.checkpoint()

    def hold(self, job: Job) -> None:
        self.held.add(job.entry_id)

    def release(self, job: Job) -> None:
        self.held.discard(job.entry_id)

    def on_fenced(self, callback: Callable[[str], None]) -> None:
        """Nobody else takes a job here."""

    def on_superseded(self, callback: Callable[[str], None]) -> None:
        self.supersede = callback


@dataclass
class Heard:
    """What people got at one place."""

    place: str
    reply: Reply
    message_id: str = ""

    @property
    def text(self) -> str:
        payload = self.reply.payload
        return str(payload.get("text", "")) or str(self.card.get("body", ""))

    @property
    def artifact(self) -> dict[str, Any]:
        found = self.reply.payload.get("artifact")
        return found if isinstance(found, dict) else {}

    @property
    def card(self) -> dict[str, Any]:
        found = self.artifact.get("payload")
        return found if isinstance(found, dict) else {}

    @property
    def card_id(self) -> str:
        return str(self.artifact.get("artifact_id", ""))


@dataclass
class Stage:
    """`dies_at`: the number of the point at which a worker dies, once. `transcript`: what people got, in order, each with its id.

    `at_once`: what Ann answers to which text as soon as she hears it, also while a worker is dead that has not been replaced; `on_heard`: what
    happens then besides.
    """

    scene: Scene
    agent: Agent
    dies_at: float = math.inf
    at_once: Mapping[str, str] = field(default_factory=dict)
    on_heard: Callable[[Heard], Awaitable[None]] | None = None
    talk: Talk | None = None
    points: int = 0
    seq: int = 0
    lives: int = 0
    transcript: list[Heard] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    is_beside_another_version: bool = False
    conversation_type: str = "h2a"
    outcomes: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    files: FileWay | None = None

    async def say(self, text: str, who: str = "ann", *, quote: Heard | None = None) -> list[Heard]:
        await self.accept({"type": "text", "text": text}, who, reply_to=None if quote is None else quote.message_id)
        return await self.run()

    async def press(self, card: Heard, *, who: str = "ann", **said: object) -> list[Heard]:
        """Answers a card; an approval is `approve=True` or False, with the hash that is shown unless it is given."""
        payload = dict(said)
        if "approve" in payload:
            is_yes = payload.pop("approve")
            payload = {
                "decision": "approved" if is_yes else "rejected",
                "question_hash": card.card["question_hash"],
                **payload,
            }
        return await self.answer(card.card_id, payload, who)

    async def answer(self, card_id: str, payload: Mapping[str, object], who: str = "ann") -> list[Heard]:
        artifact = {"subtype": "response", "ref_artifact": card_id, "payload": dict(payload)}
        return await self.send({"type": "artifact", "artifact": artifact}, who)

    async def press_stop(self, card_id: str, who: str = "ann") -> None:
        """The Stop button of a card is pressed, while its job runs."""
        said = {"subtype": "response", "ref_artifact": card_id, "payload": {"action": "cancel"}}
        await self.accept({"type": "artifact", "artifact": said}, who, stops=card_id)

    async def send(self, payload: Mapping[str, object], who: str = "ann") -> list[Heard]:
        await self.accept(payload, who)
        return await self.run()

    async def overhear(self, text: str, who: str = "ann") -> list[Heard]:
        """A group's text that mentions nobody, of a person who is asked something."""
        await self.accept({"type": "text", "text": text}, who, is_overheard=True)
        return await self.run()

    async def accept(
        self,
        payload: Mapping[str, object],
        who: str = "ann",
        *,
        is_overheard: bool = False,
        reply_to: str | None = None,
        stops: str = "",
        sender_type: str = "human",
    ) -> str:
        """A message comes in; its id. `stops`: the card whose Stop button it is."""
        talk = await self.talk_here()
        self.seq += 1
        message = InboundMessage(
            message_id=f"{CONVERSATION}-{self.seq}",
            conversation_id=CONVERSATION,
            conversation_type=self.conversation_type,
            sender_id=who,
            sender_type=sender_type,
            payload=dict(payload),
            is_overheard=is_overheard,
            reply_to=reply_to,
            attachments=msgspec.convert(payload.get("attachments", []), list[dict[str, object]]),
        )
        arrival = msgspec.structs.replace(
            arrival_of(self.seq, await talk.version(), source=Source.POLL), sender_id=who, message_ms=MESSAGE_MS
        )
        ms = MESSAGE_MS + self.seq
        epoch = talk.supervisor.write_count.epoch
        packed = pack_job(
            message, seq=self.seq, accepted_ms=ms, message_ms=ms, key=BUS_KEY, agent_id=AGENT, epoch=epoch
        )
        assert (await talk.supervisor.store.accept(arrival, packed, stops=stops)).is_new
        return message.message_id

    async def say_stop(self, who: str = "ann") -> None:
        """Somebody says /stop, while something is done or not."""
        await self.accept({"type": "text", "text": STOP_ALL}, who, stops=STOP_ALL)

    async def overdue(self, wait_id: str) -> list[Heard]:
        """The deadline of a question is over."""
        talk = await self.talk_here()
        self.seq += 1
        content = InboundMessage(
            message_id=f"timer:{wait_id}:{self.seq}",
            conversation_id=CONVERSATION,
            conversation_type="h2a",
            sender_id="ann",
            sender_type="human",
            payload={"type": "deadline", "name": wait_id},
        )
        packed = pack_placed_job("deadline", content, placed_ms=MESSAGE_MS, key=BUS_KEY, agent_id=AGENT)
        await talk.supervisor.placing.place(packed)
        return await self.run()

    async def waits_over(self, seconds: float) -> list[Heard]:
        """So much time passes."""
        await self.scene.time_passes(round(seconds * 1000))
        await (await self.talk_here()).start_due()
        return await self.run()

    async def retry_dead(self) -> list[Heard]:
        """Every dead letter comes back."""
        talk = await self.talk_here()
        for letter in await talk.supervisor.dead.first():
            assert await talk.supervisor.dead.retry(letter) == "revived"
        return await self.run()

    async def dead(self) -> list[str]:
        """Why there are dead letters."""
        return [letter.reason for letter in await (await self.talk_here()).supervisor.dead.first()]

    async def run(self) -> list[Heard]:
        """Workers work until there is nothing left to do; what people got meanwhile."""
        before = len(self.transcript)
        while True:
            try:
                await self._live()
            except BaseExceptionGroup as group:
                if group.split(Died)[1] is not None:
                    raise
            except Died:
                pass
            else:
                break
            await self._send_all()
            await (await self.talk_here()).reclaim()
        return self.transcript[before:]

    async def _live(self) -> None:
        """One life of a worker."""
        talk = await self.talk_here()
        self.lives += 1
        worker = await self.scene.worker(f"worker-{self.lives}", self.agent.policies)
        logger = logging.Logger("stage")
        logger.addHandler(handler := _Lines(self.logged))
        handler.setFormatter(logging.Formatter("%(message)s %(values)s"))
        settings = RunnerSettings(concurrency=1, retry_after_seconds=(0, 0, 0), shows_errors=True)
        is_done = False
        while not is_done:
            bus = StageBus(worker, self._count, self.dies_at, self.is_beside_another_version, self.outcomes)
            vitals = Vitals()
            vitals.introduce(consumer=worker.name, handler="stage:agent", concurrency=1)
            async with self.agent.lifespan() as shared, trio.open_nursery() as nursery:
                runner = Runner(
                    self.agent, bus, settings, vitals=vitals, log=Log(logger), shared=shared, files=self.files
                )
                nursery.start_soon(runner.run)
                if self.agent.policies.stop:
                    nursery.start_soon(bus.renew)
                await bus.idle.wait()
                runner.drain()
            sent = await self._send_all()
            due = await talk.start_due()
            is_done = not (sent or due)

    def _count(self) -> int:
        self.points += 1
        return self.points - 1

    async def _send_all(self) -> bool:
        """The relay takes every reply; what it had under this id before, it passes over."""
        talk, any_sent = await self.talk_here(), False
        while (entry := await talk.supervisor.take_reply()) is not None:
            record = decode_reply_record(entry.fields["r"])
            said = f"{record.job_id} {record.place}"
            await talk.commit(entry, said)
            self.seq += 1
            await talk.supervisor.outbox.confirm(CONVERSATION, said, f"sent-{self.seq}", self.seq)
            if said not in self.ids:
                self.ids.add(said)
                opened = open_reply(record, key=BUS_KEY, agent_id=AGENT)
                self.transcript.append(Heard(record.place, opened, f"sent-{self.seq}"))
                if self.on_heard is not None:
                    await self.on_heard(self.transcript[-1])
                if (answer := self.at_once.get(self.transcript[-1].text)) is not None:
                    await self.accept({"type": "text", "text": answer})
            any_sent = True
        return any_sent

    async def talk_here(self) -> Talk:
        if self.talk is None:
            self.talk = await talk_of(self.scene)
        return self.talk


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
