"""An agent in a test: `async with Harness(agent) as chat: [reply] = await chat.say("hi")`.

Everything runs in the test's own event loop, over the bus in memory. Under trio's MockClock, which the pytest plugin of this folder gives each
test, time passes only where it is waited for: a handler that sleeps an hour takes none. Under a real clock it passes by itself, as in `console`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import trio

from bus.records.control import Observation
from bus.records.events import Event, content_of
from bus.records.kept import STATE, open_kept
from bus.records.records import GROUP, NOWHERE, Payload, mention_of
from workers.errors import CannotStart
from workers.files.names import kind_of, type_of
from workers.handling.agent import Agent
from workers.kept.history import Turn, decode_exchange
from workers.process.runner import RETRY_AFTER_SECONDS
from workers.talk.cards import ToolCall
from workers.testing.house import AGENT_ID, KEY, House, Place
from workers.testing.lives import Life, Watch
from workers.testing.mocks import Mocks
from workers.testing.said import Replies, Said, answer_to_card
from workers.testing.scripted import ScriptedLLM

PERSON = "ann"
CONCURRENCY = 4
CUSHION_SECONDS = 0.005
"""Of real time: so long a thread or a socket is given before time passes in the test too, as much as has passed."""

PATIENCE_SECONDS = 1.0
"""What is due is given so long under a real clock, where nobody knows whether it will say something."""

ROUNDED_SECONDS = 0.001
"""Timers are due at whole milliseconds."""

MOST_TURNS = 100_000
"""Of one wait: a handler that sets a reminder for at once each time would never come to rest."""


class NoHandler(LookupError):
    """No handler takes what was sent."""


class Harness:
    """An agent, its workers and the people it talks to. As a context manager it gives the first person's chat.

    `llm`: what the model says; without it the agent's own settings say which endpoint is asked. `mock_tools`: by
    the name of a tool what stands in its place, a function of its arguments or what it returns. `person`: who talks. `group`: the ids of all
    members if it is a group's conversation. `raises`: whether what a handler raises comes out of the test at once; else it is retried as in a worker,
    and in the end the person is told the agent's apology. `now`: when it begins. `dies_at`: see survives.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        llm: ScriptedLLM | None = None,
        mock_tools: Mocks | None = None,
        person: str = PERSON,
        group: Sequence[str] = (),
        raises: bool = True,
        now: datetime | None = None,
        dies_at: int | None = None,
    ) -> None:
        self.agent = agent
        self.llm = llm
        self._mock_tools = mock_tools or {}
        self._person = person
        self._group = tuple(group)
        self._raises = raises
        self._now = now
        self._dies_at = dies_at
        self._lives: list[Life] = []
        self._count = 0
        self._stack = AsyncExitStack()
        self.chats: dict[tuple[str, str], HarnessChat] = {}

    async def __aenter__(self) -> "HarnessChat":
        self._at_sockets = _tasks_at_sockets()
        self.house = House(self.agent.policies, self._now)
        if (clock := self.house.time.clock) is not None:
            clock.autojump_threshold = math.inf  # it would let time pass while a thread works
        self.watch = Watch(self.house, self.llm, self._mock_tools, self._dies_at)
        self.house.declare(self.agent.policies.every)
        await self._stack.__aenter__()
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        try:
            await self._begin_life()
        except BaseException:
            self._nursery.cancel_scope.cancel()
            await self._stack.__aexit__(None, None, None)
            raise
        if self._group:
            return self.chat(self._person, f"group-{'-'.join(self._group)}"[:64], GROUP)
        return self.chat(self._person)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for life in self._lives:
            life.die()
        self._nursery.cancel_scope.cancel()
        await self._stack.__aexit__(None, None, None)

    def chat(self, person: str, conversation_id: str = "", kind: str = "h2a") -> "HarnessChat":
        """Returns the chat of a person: their own with the agent, or in another conversation."""
        conversation_id = conversation_id or f"chat-{person}"
        place = self.house.place(conversation_id, kind, conversation_id if kind == GROUP else person)
        return self.chats.setdefault((conversation_id, person), HarnessChat(self, place, person))

    # Lives

    async def _begin_life(self) -> None:
        self._count += 1
        waits = () if self._raises else RETRY_AFTER_SECONDS
        life = Life(f"worker-{self._count}", self.agent, self.watch, CONCURRENCY, waits)
        try:
            await self._nursery.start(life.run)
        except CannotStart as error:
            if self.agent.llm is not None and self.llm is None:
                error.add_note("in a test give the model's answers: Harness(agent, llm=ScriptedLLM('…'))")
            raise
        self._lives.append(life)

    async def kill(self) -> None:
        """Kills every worker where it is, and begins another; what ran runs again."""
        for life in self._lives:
            life.die()
        await self._replace_the_dead()

    async def _replace_the_dead(self) -> bool:
        dead = [life for life in self._lives if life.is_dead]
        for life in dead:
            self._lives.remove(life)
            await life.ended.wait()
            await self.house.reclaim(life.name)
        if dead:
            await self._begin_life()
        return bool(dead)

    # Until there is rest

    async def settle(self, seconds: float = math.inf) -> None:
        """Waits until the agent has nothing more to do but to wait, at most so long. Raises what a handler has raised."""
        until = trio.current_time() + seconds
        for _ in range(MOST_TURNS):
            await self._until_blocked()
            for life in self._lives:
                await life.hear_what_has_come()
            moved = await self._replace_the_dead()
            moved = await self.house.hand_out() or moved
            if moved or await self.house.start_what_is_due():
                continue
            self._raise_failures()
            if self._is_at_rest() or trio.current_time() >= until:
                return
            await self._let_time_pass(until)
        raise RuntimeError("the agent never comes to rest: does a handler set a reminder for at once, each time?")

    def _is_at_rest(self) -> bool:
        is_busy = any(life.is_busy for life in self._lives) or self.house.has_work()
        return not is_busy and self.house.seconds_to_retry() == math.inf

    async def _until_blocked(self) -> None:
        if self.house.time.clock is not None:
            await _all_blocked()
        else:
            await trio.lowlevel.checkpoint()

    async def _let_time_pass(self, until: float) -> None:
        """Lets time pass to what is next."""
        house, clock = self.house, self.house.time.clock
        is_busy = any(life.is_busy for life in self._lives)
        due = min(house.seconds_to_retry(), house.seconds_to_timer() if is_busy else math.inf)
        left = until - trio.current_time()
        if clock is None:
            with trio.move_on_after(min(due, left)):
                await house.has_changed.wait()
            return
        if is_busy and self._waits_for_the_machine():
            began = time.perf_counter()
            await _all_blocked(CUSHION_SECONDS)
            clock.jump(time.perf_counter() - began)
            return
        if is_busy:
            due = min(due, trio.lowlevel.current_statistics().seconds_to_next_deadline)
        if due == math.inf:
            at = ", ".join(sorted(self.watch.trace[-1:])) or "its beginning"
            raise RuntimeError(f"a handler waits for something that never comes, after {at}")
        clock.jump(max(0.0, min(due, left)))
        house.changed()

    def _waits_for_the_machine(self) -> bool:
        """Returns whether a thread or a socket is waited for, for which time passes as it does outside."""
        threads = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        works = threads or any(life.waits_for_a_thread for life in self._lives)
        return bool(works) or _tasks_at_sockets() > self._at_sockets

    async def advance(self, seconds: float) -> None:
        """Lets so much time pass, with all that is due meanwhile."""
        house, left = self.house, seconds + ROUNDED_SECONDS
        patience = 0 if house.time.clock is not None else PATIENCE_SECONDS
        await self.settle(patience)
        while True:
            if patience == 0 and any(life.is_busy for life in self._lives):
                before = house.time.ms
                await self.settle(left)
                left -= (house.time.ms - before) / 1000
            if left <= 0:
                break
            step = max(ROUNDED_SECONDS, min(left, house.seconds_to_timer(), house.seconds_to_retry()))
            house.time.skip(step)
            left -= step
            house.changed()
            await self.settle(patience)
        await self.settle(patience or math.inf)

    def _raise_failures(self) -> None:
        watch = self.watch
        if self.llm is not None and self.llm.ended is not None:
            ended, self.llm.ended = self.llm.ended, None
            watch.failures.clear()
            raise ended
        unhandled = list(watch.unhandled)
        watch.unhandled.clear()
        failures = list(watch.failures)
        watch.failures.clear()
        if not self._raises:
            return
        if len(failures) > 1:
            raise BaseExceptionGroup("handlers failed", failures)
        if failures:
            raise failures[0]
        if unhandled:
            raise NoHandler(f"no handler takes a payload of type {unhandled[0]!r}")


class HarnessChat:
    """One person in one conversation with the agent, as a test has it."""

    def __init__(self, harness: Harness, place: Place, person: str) -> None:
        self._harness = harness
        self._place = place
        self._seen = 0
        self.person = person
        self.message_id = ""
        """The id of what this person has said last here, by which a later message can quote it."""

    @property
    def agent(self) -> Agent:
        return self._harness.agent

    @property
    def llm(self) -> ScriptedLLM | None:
        """The scripted model, whose `calls` say what it was asked."""
        return self._harness.llm

    @property
    def conversation_id(self) -> str:
        return self._place.id

    @property
    def is_group(self) -> bool:
        return self._place.kind == GROUP

    @property
    def heard(self) -> Replies:
        """Everything that the agent has said in this conversation."""
        return Replies(self._place.heard)

    @property
    def typing(self) -> tuple[bool, ...]:
        """The indicators that were shown: True for each "typing…", False for its end."""
        return tuple(self._place.typing)

    @property
    def state(self) -> Any:
        """The conversation's state: a value of the agent's state class."""
        shape = self.agent.state
        if shape is None:
            raise LookupError("this agent has no state: write Agent(state=…)")
        record = self._harness.house.world.conversation(self._place.id).state
        if record is None:
            return shape.begin().value
        return shape.read(open_kept(record, STATE, self._place.id, key=KEY, agent_id=AGENT_ID)).value

    @property
    def waits(self) -> list[str]:
        """How each open question here is answered: `text`, `form`, `approval` or `app`."""
        return [wait.kind for wait in self._harness.house.open_waits(self._place.id)]

    @property
    def dead(self) -> list[str]:
        """Why jobs of the agent were given up."""
        return self._harness.house.dead

    @property
    def outcome_is_unknown(self) -> bool:
        """Whether a worker has died within a step that may be done once: what the handler says from there on is its own, and a script may end."""
        return bool(self._harness.watch.died_in_once)

    @property
    def observations(self) -> list[Observation]:
        """What handlers have observed by `job.observe`."""
        return self._harness.watch.observations

    @property
    def log(self) -> list[tuple[str, dict[str, object]]]:
        """What the workers have logged: each event with its values."""
        return self._harness.watch.log

    @property
    def now(self) -> datetime:
        """What time it is in the test."""
        return datetime.fromtimestamp(self._harness.house.time.ms / 1000).astimezone()

    async def history(self) -> list[Turn]:
        """Returns what is kept of what both sides have said; nothing unless a handler asks for it."""
        house = self._harness.house
        steps = house.steps("looks")
        job = house.any_job(self._place.id)
        exchanges = await steps.read_exchanges(job)
        return [turn for turns in steps.open_exchanges(job, exchanges, decode_exchange) for turn in turns]

    # What people do

    async def say(
        self, text: str, *, mention: bool = True, quote: Said | str | None = None, seconds: float = math.inf
    ) -> Replies:
        """Sends a text; returns what the agent says here until it has nothing more to do, in order.

        `mention`: in a group, whether it is said to the agent. `quote`: to which reply it is, or to what a person said (its `message_id`). `seconds`: returns after so much time at the latest,
        while the handler goes on.
        """
        return await self.send(self.text_payload(text, mention=mention), quote=quote, seconds=seconds)

    def text_payload(self, text: str, *, mention: bool = True) -> Payload:
        """Returns the payload of a text as this person says it here; in a group to the agent, unless `mention` is False."""
        is_mention = self._place.kind == GROUP and mention
        return {"type": "text", "text": f"{mention_of(AGENT_ID)} {text}" if is_mention else text}

    async def send(
        self, payload: Mapping[str, object], *, quote: Said | str | None = None, seconds: float = math.inf
    ) -> Replies:
        """Sends any payload; returns as `say` does."""
        await self.post(payload, quote=quote)
        return await self.until_rest(seconds)

    async def send_file(self, content: bytes, *, name: str, alt: str = "", seconds: float = math.inf) -> Replies:
        """Sends a file, or what its name says that it is: a picture, a sound, a film; returns as `say` does."""
        return await self.send(self.file_payload(content, name=name, alt=alt), seconds=seconds)

    def file_payload(self, content: bytes, *, name: str, alt: str = "") -> Payload:
        """Returns the payload of a message with a file."""
        media_type = type_of(name)
        kind, entry = kind_of(media_type), self.attach(content, name=name)
        shown: Payload = (
            {"filename": name, "mime": media_type, "size": len(content)} if kind == "file" else {"alt": alt}
        )
        return {"type": kind, "attachment_id": entry["attachment_id"], **shown, "attachments": [entry]}

    def attach(self, content: bytes, *, name: str) -> Payload:
        """Returns a file: an entry for the `attachments` of a payload that is sent with `send`, or the value of a form's field."""
        return self._harness.house.gate.keep(content, self._place.id, name=name, media_type=type_of(name))

    def content_of(self, said: Said, number: int = 0) -> bytes:
        """Returns the content of a file that the agent has sent here: of one reply's files the first, or another."""
        return self._harness.house.gate.content_of(said.files[number], self._place.id)

    async def post(self, payload: Mapping[str, object], *, quote: Said | str | None = None) -> None:
        """Sends any payload, and waits for nothing."""
        quoted = quote.message_id if isinstance(quote, Said) else quote
        self.message_id = await self._harness.house.take_in(
            self._place, self.person, payload, name=self.person.capitalize(), quoted=quoted
        )

    async def press(
        self,
        card: Said,
        button: str = "",
        *,
        approve: bool | None = None,
        values: Mapping[str, object] | None = None,
        seconds: float = math.inf,
        **said: object,
    ) -> Replies:
        """Answers a card: an approval by `approve`, a form by the `values` of its fields (a file by `attach`), any other by the id or label of its button.

        `said`: what the answer of an app says. Raises LookupError for a button that the card does not have.
        """
        payload: dict[str, object] = dict(said)
        if button:
            payload["action"] = _action(card, button)
        if values is not None:
            payload["values"] = dict(values)
        if approve is not None:
            shown = next(one for one in self._place.heard if one.card_id == card.card_id)
            payload["decision"] = "approved" if approve else "rejected"
            payload.setdefault("question_hash", shown.card.get("question_hash", ""))
        return await self.answer(card.card_id, payload, seconds=seconds)

    async def answer(self, card_id: str, payload: Mapping[str, object], *, seconds: float = math.inf) -> Replies:
        """Answers a card with whatever is said, such as `{"action": "stop"}` (PROTOCOL §4.1), a call of a tool with `{"status": "ok", "result": …}`."""
        is_tool = any(one.card_id == card_id and one.subtype == ToolCall.subtype for one in self._place.heard)
        return await self.send(answer_to_card(card_id, payload, is_tool=is_tool), seconds=seconds)

    async def until_rest(self, seconds: float = math.inf) -> Replies:
        """Waits until the agent has nothing more to do but to wait; returns what was said here and not returned before."""
        await self._harness.settle(seconds)
        return self.news()

    def news(self) -> Replies:
        """Returns what was said here and not returned before."""
        found = Replies(self._place.heard[self._seen :])
        self._seen = len(self._place.heard)
        return found

    def as_(self, person: str) -> "HarnessChat":
        """Returns the chat of another person: in the same group, or else in their own conversation."""
        if self._place.kind == GROUP:
            other = self._harness.chat(person, self._place.id, GROUP)
            other._seen = len(self._place.heard)
            return other
        return self._harness.chat(person)

    def group(self, name: str = "group") -> "HarnessChat":
        """Returns the chat of this person in a group with the agent."""
        return self._harness.chat(self.person, name, GROUP)

    # What happens

    async def event(self, name: str, *, is_here: bool = True, **fields: object) -> Replies:
        """Has the relay tell an event; returns what the agent says here. `is_here`: it is of this conversation."""
        told = {"conversation_id": self._place.id, **fields} if is_here else fields
        user_id = told.get("user_id")
        event = Event(
            name=name,
            conversation_id=self._place.id if is_here else None,
            user_id=user_id if isinstance(user_id, str) else None,
            fields=told,
        )
        at = self._place.id if is_here else NOWHERE
        self._harness.house.place(at, self._place.kind, self.person)
        content = content_of(event, f"event:{len(self._harness.watch.trace)}", conversation_id=at, person=self.person)
        await self._harness.house.put_event(content)
        return await self.until_rest()

    async def remind(self, name: str, data: object = None) -> Replies:
        """Has a reminder come, as `hashee-agent send --reminder` does; returns what the agent says here."""
        await self._harness.house.put_reminder(self._place, name, data, sender=self.person)
        return await self.until_rest()

    async def advance(self, **time: float) -> Replies:
        """Lets time pass: `advance(days=1)`, as timedelta has it; returns what was said here meanwhile."""
        await self._harness.advance(timedelta(**time).total_seconds())
        return self.news()

    async def restart(self) -> None:
        """Kills every worker, whatever it does, and begins another."""
        await self._harness.kill()

    async def retry_dead(self) -> Replies:
        """Has every job that was given up begin again, as `hashee-agent dead retry` does."""
        await self._harness.house.retry_dead()
        return await self.until_rest()


async def _all_blocked(cushion: float = 0.0) -> None:
    from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415 - imports pytest where that is installed

    await wait_all_tasks_blocked(cushion)


def _tasks_at_sockets() -> int:
    """Returns how many tasks wait for a socket; trio's own is one of them."""
    io = trio.lowlevel.current_statistics().io_statistics
    return int(getattr(io, "tasks_waiting_read", 0)) + int(getattr(io, "tasks_waiting_write", 0))


def _action(card: Said, button: str) -> str:
    found = card.card.get("actions")
    actions = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    for one in actions:
        if button in (one.get("id"), one.get("label")):
            return str(one["id"])
    there = ", ".join(f"{one.get('id')} ({one.get('label')})" for one in actions) or "none"
    raise LookupError(f"the card has no button {button!r}; it has {there}")
