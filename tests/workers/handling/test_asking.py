"""A function asks for what it needs by type or name, and what nobody can give is refused when it is registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.workers.things import Cache, Database
from workers import Agent, Answer, App, BadHandler, BlockingChat, CannotStart, Chat, Job, JobContext, Message
from workers.testing import conversation

if TYPE_CHECKING:
    from bus.records.records import InboundMessage

pytestmark = pytest.mark.pure


class Texted(Protocol):
    @property
    def text(self) -> str: ...


async def by_type(said: Message, to: Chat, now: Job) -> None:
    await to.reply(f"{said.text} {now.attempt}")


async def in_another_order(now: JobContext, to: Chat, said: Message) -> None:
    await to.reply(f"{said.text} {now.attempt}")


async def by_name(job: Any, chat, message) -> None:  # type: ignore[no-untyped-def]
    await chat.reply(f"{message.text} {job.attempt}")


async def by_place(_said, _to, job) -> None:  # type: ignore[no-untyped-def]
    await _to.reply(f"{_said.text} {job.attempt}")


async def by_a_protocol(said: Texted, to: Chat, job: object) -> None:
    await to.reply(f"{said.text} {getattr(job, 'attempt')}")  # noqa: B009 - an `object` has none for the checker


async def all_the_rest(*both: Any, job: Any) -> None:
    await both[1].reply(f"{both[0].text} {job.attempt}")


async def either(chat: Chat | BlockingChat, message: Message, limit: int = 1) -> None:
    assert isinstance(chat, Chat)
    await chat.reply(f"{message.text} {limit}")


async def not_imported_at_run_time(said: InboundMessage, to: Chat) -> None:
    await to.reply(f"{said.text} 1")


def in_a_thread(to: Chat, said: Message, now: Job) -> None:
    assert isinstance(to, BlockingChat)
    to.reply(f"{said.text} {now.attempt}")


class Callable_:  # noqa: N801 - an object with an async call
    async def __call__(self, message: Message, chat: Chat) -> None:
        await chat.reply(f"{message.text} 1")


@pytest.mark.parametrize(
    "function",
    [
        by_type,
        in_another_order,
        by_name,
        by_place,
        by_a_protocol,
        all_the_rest,
        either,
        not_imported_at_run_time,
        in_a_thread,
        Callable_(),
    ],
    ids=lambda function: getattr(function, "__name__", "object"),
)
async def test_a_handler_is_given_what_it_asks_for(function: Callable[..., object]) -> None:
    agent = Agent()
    agent.on_message()(function)
    assert [said.text for said in await conversation(agent).say("hello")] == ["hello 1"]


async def unknown_class(message: Message, chat: Chat, database: Database) -> None: ...
async def unknown_name(message: Message, chat: Chat, databsae) -> None: ...  # type: ignore[no-untyped-def]
async def unknown_at_its_place(message: Message, database: Database) -> None: ...
async def only_one(obj) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("function", [unknown_class, unknown_name, unknown_at_its_place, only_one])
def test_what_nobody_can_give_is_refused_with_the_list_of_what_there_is(function: Callable[..., object]) -> None:
    with pytest.raises(BadHandler, match=r"what there is: message: Message, chat: Chat, job: Job") as refused:
        Agent().on_message()(function)
    assert function.__name__ in str(refused.value)


@asynccontextmanager
async def annotated() -> AsyncIterator[tuple[Database, Cache]]:
    yield Database("a"), Cache("b")


@asynccontextmanager
async def silent():  # type: ignore[no-untyped-def]
    yield Database("a"), Cache("b")


@asynccontextmanager
async def with_one() -> AsyncIterator[Database]:
    yield Database("a")


async def both(chat: Chat, database: Database, cache: Cache) -> None:
    await chat.reply(database.name + cache.name)


@pytest.mark.parametrize("lifespan", [annotated, silent])
async def test_what_lifespan_yields_is_asked_for_by_type(lifespan: Any) -> None:
    agent = Agent(lifespan=lifespan)
    agent.on_message()(both)
    assert [said.text for said in await conversation(agent).say("hello")] == ["ab"]


def test_what_lifespan_says_that_it_does_not_yield_is_refused_at_once() -> None:
    with pytest.raises(BadHandler, match=r"job: Job, history: History, store: Store, Database \(of lifespan\)"):
        Agent(lifespan=with_one).on_message()(both)


async def test_what_lifespan_turns_out_not_to_yield_ends_the_start_with_a_line() -> None:
    @asynccontextmanager
    async def lifespan():  # type: ignore[no-untyped-def]
        yield Database("a")

    agent = Agent(lifespan=lifespan)
    agent.on_message()(both)
    with pytest.raises(CannotStart, match="both asks for Cache, and lifespan yields Database"):
        async with agent.lifespan():
            pass


async def test_named_groups_are_asked_for_by_name_and_converted_by_annotation() -> None:
    agent = Agent()

    @agent.on_message(when=r"in (?P<minutes>\d+)(?: on (?P<day>\S+))? (?P<what>.+)")
    async def remind(chat: Chat, minutes: int, what: str, day: date | None = None) -> None:
        await chat.reply(f"{minutes + 1} {what} {day.year if day else None}")

    @agent.on_message()
    async def other(chat: Chat) -> None:
        await chat.reply("what?")

    chat = conversation(agent)
    assert [one.text for one in await chat.say(" In 5 tea\n")] == ["6 tea None"]
    assert [one.text for one in await chat.say("in 5 on 2026-12-01 tea")] == ["6 tea 2026"]
    assert [one.text for one in await chat.say("in 5 on Sunday tea")] == ["what?"], (
        "a group that is no date is no match"
    )
    assert [one.text for one in await chat.say("say: in 5 tea")] == ["what?"]


def answering(kind: str) -> tuple[Agent, list[Answer]]:
    """An agent that shows a card, and what was answered to it."""
    agent, answers = Agent(), list[Answer]()

    @agent.on_command("card")
    async def card(chat: Chat) -> None:
        await chat.reply(App(kind))

    @agent.on_artifact_response(kind)
    async def answered(answer: Answer) -> None:
        answers.append(answer)

    return agent, answers


async def test_an_answer_is_asked_for_by_type_or_name_and_only_where_there_is_one() -> None:
    agent, answers = answering("vote")
    chat = conversation(agent, sender_id="ann", display_name="Ann")
    [card] = await chat.say("/card")
    await chat.answer(card.card_id, {"action": "pick", "data": {"option": "stew"}, "values": {"a": 1}, "comment": "so"})
    [answer] = answers
    assert (answer.card_id, answer.sender_id, answer.sender_display_name) == (card.card_id, "ann", "Ann")
    assert (answer.kind, answer.action, answer.data) == ("vote", "pick", {"option": "stew"})
    assert (answer.values, answer.comment, answer.is_approved) == ({"a": 1}, "so", False)
    assert "stew" not in repr(answer)
    for function in (by_answer, by_the_name_of_answer):
        agent.on_artifact_response("form")(function)
        agent = Agent()
        with pytest.raises(BadHandler, match="nothing is known that"):
            agent.on_message()(function)


@pytest.mark.parametrize("said", [{}, {"action": 7, "data": "x", "values": [], "decision": True, "comment": None}])
async def test_what_an_answer_does_not_have_is_empty(said: dict[str, object]) -> None:
    agent, answers = answering("vote")
    chat = conversation(agent)
    [card] = await chat.say("/card")
    await chat.answer(card.card_id, said)
    [answer] = answers
    assert (answer.action, answer.data, answer.values, answer.comment, answer.is_approved) == ("", {}, {}, "", False)


async def by_answer(answer: Answer, message: Message, chat: Chat) -> None: ...
async def by_the_name_of_answer(chat, answer, message) -> None: ...  # type: ignore[no-untyped-def]


async def update_and_context(update, context) -> None: ...  # type: ignore[no-untyped-def]
async def a_message_and_a_context(message, context) -> None: ...  # type: ignore[no-untyped-def]
async def of_discord(ctx) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("function", [update_and_context, a_message_and_a_context, of_discord])
def test_what_another_library_gives_to_handlers_is_refused_with_what_there_is(
    function: Callable[..., Awaitable[None]],
) -> None:
    with pytest.raises(BadHandler) as refused:
        Agent().on_command("start")(function)
    said = str(refused.value)
    assert "nothing is known that" in said
    assert "message: Message, chat: Chat" in said
    assert "Coming from python-telegram-bot" in said
