"""Lets owners' tests talk with an agent's handlers, without Redis, a supervisor or keys.

    async def test_it_greets() -> None:
        [reply] = await conversation(agent).say("hi")
        assert reply.text == "Hello!"

Handlers run as in a worker, with the same places, limits and lifespan; what one raises comes out of `say`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import trio

from bus.records import ulid
from bus.records.control import Observation
from bus.records.records import InboundMessage, Job, Payload, Reply
from bus.steps.jobs import Emitted
from workers.agent import Agent
from workers.execution import Run, RunEnvironment, run_handler


@dataclass(frozen=True)
class Said:
    """One reply. `deltas` is what a person saw of a stream while it grew."""

    place: str
    payload: Payload
    deltas: tuple[str, ...] = ()
    was_streamed: bool = False

    @property
    def text(self) -> str:
        """The text of a text reply, else an empty string."""
        text = self.payload.get("text", "")
        return text if isinstance(text, str) else ""


@dataclass
class _Desk:
    """Takes a job's replies like the bus: each place once."""

    replies: dict[str, Reply] = field(default_factory=dict)
    deltas: dict[str, list[str]] = field(default_factory=dict)
    typing: list[bool] = field(default_factory=list)

    async def emit(self, job: Job, place: str, reply: Reply) -> Emitted:  # noqa: ARG002 - as Outlet
        await trio.lowlevel.checkpoint()
        if place in self.replies:
            return Emitted.ALREADY
        self.replies[place] = reply
        return Emitted.QUEUED

    async def publish_delta(self, job: Job, stream_id: str, seq: int, text: str) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.deltas.setdefault(stream_id, []).append(text)

    async def publish_typing(self, job: Job, active: bool) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.typing.append(active)

    async def publish_abort(self, job: Job) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()


class Conversation:
    """One person's conversation with the agent."""

    def __init__(self, agent: Agent, *, sender_id: str, display_name: str) -> None:
        self._agent = agent
        self._sender_id = sender_id
        self._display_name = display_name
        self._id = ulid.new()
        self._job: Job | None = None
        self._desk = _Desk()
        self.observations: list[Observation] = []

    @property
    def typing(self) -> tuple[bool, ...]:
        """The indicators that the last run showed: True for each "typing…", False for its end."""
        return tuple(self._desk.typing)

    async def say(self, text: str) -> list[Said]:
        """Sends a text; returns the agent's replies to it, in order."""
        return await self.send({"type": "text", "text": text})

    async def send(self, payload: Mapping[str, object]) -> list[Said]:
        """Sends any payload; returns the agent's replies to it, in order."""
        self._desk = _Desk()
        return await self._run(self._make_job(dict(payload)))

    async def run_again(self) -> list[Said]:
        """Runs the last message again, as after a crash; returns the replies that this run adds, normally none."""
        if self._job is None:
            raise ValueError("say something first")
        again = self._job.attempt + 1
        return await self._run(msgspec.structs.replace(self._job, entry_id=ulid.new(), attempt=again, deliveries=again))

    async def _run(self, job: Job) -> list[Said]:
        self._job = job
        before = frozenset(self._desk.replies)
        bench = RunEnvironment(
            agent=self._agent,
            outlet=self._desk,
            threads=trio.CapacityLimiter(1),
            observe=self.observations.append,
        )
        async with self._agent.lifespan():
            if not (await run_handler(bench, Run(job, (job.message,), before), _never_lost)).handled:
                raise LookupError(f"no handler takes a payload of type {job.message.payload.get('type')!r}")
        return [
            self._said(place, reply)
            for place, reply in self._desk.replies.items()
            if place not in before and reply.kind != "stream_start"
        ]

    def _said(self, place: str, reply: Reply) -> Said:
        deltas = tuple(self._desk.deltas.get(reply.stream_id or "", ()))
        return Said(place, reply.payload, deltas, was_streamed=reply.kind == "stream_done")

    def _make_job(self, payload: Payload) -> Job:
        now_ms = time.time_ns() // 1_000_000
        message = InboundMessage(
            message_id=ulid.new(),
            conversation_id=self._id,
            conversation_type="h2a",
            sender_id=self._sender_id,
            sender_type="human",
            sender_display_name=self._display_name,
            payload=payload,
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            client_message_id=ulid.new(),
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


def conversation(agent: Agent, *, sender_id: str = "person-1", display_name: str = "Person") -> Conversation:
    """Begins a new conversation with the agent."""
    return Conversation(agent, sender_id=sender_id, display_name=display_name)


def _never_lost() -> None:
    """Does nothing: no other worker takes a test's job."""
