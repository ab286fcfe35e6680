"""Which function gets a message, what is entered around it, and who takes what it raises."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from workers import Agent, App, BadHandler, BadReply, BlockingChat, Chat, Event, Fail, Message, Retry, Router
from workers.testing import conversation

pytestmark = pytest.mark.pure

CARD = {"type": "artifact", "artifact": {"subtype": "info", "payload": {"body": "x"}}}


def saying(word: str) -> Callable[[Chat], Any]:
    async def say(chat: Chat) -> None:
        await chat.reply(word)

    say.__qualname__ = word
    return say


async def heard(agent: Agent, said: str | dict[str, object]) -> str:
    chat = conversation(agent)
    replies = await (chat.say(said) if isinstance(said, str) else chat.send(said))
    return " ".join(one.text for one in replies)


def full_agent() -> Agent:
    agent, more = Agent(), Router()
    agent.on_message()(saying("rest"))
    more.on_message("text", when=re.compile("SHOUT"))(saying("shout"))
    more.on_message("text", when=lambda message: len(message.text) > 20)(saying("long"))
    agent.include(more)
    more.on_message("text", "image")(saying("text"))
    more.on_artifact_response()(saying("answer"))
    agent.on_artifact_response("vote")(saying("vote"))
    agent.on_command("Help", "h")(saying("help"))

    @agent.on_command("add")
    async def add(chat: Chat, args: str) -> None:
        await chat.reply(f"add {args}")

    return agent


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ("hello", "text"),
        ("SHOUT", "shout"),
        ("shout", "text"),
        ("something long, really long", "long"),
        ({"type": "image", "attachment_id": "x"}, "text"),
        ({"type": "audio", "attachment_id": "x"}, "rest"),
        ({"type": "of next year"}, "rest"),
        ("/help", "help"),
        (" /HELP me", "help"),
        ("/h", "help"),
        ("/helpless", "text"),
        ("/ help", "text"),
        ("", "text"),
        ("/add  two\nlines ", "add two\nlines"),
        ("/add", "add "),
        (CARD, "rest"),
        ({"type": "artifact", "artifact": "none"}, "rest"),
    ],
)
async def test_the_first_match_wins_and_what_is_named_comes_before_the_rest(
    said: str | dict[str, object], by: str
) -> None:
    assert await heard(full_agent(), said) == by


@pytest.mark.parametrize(("ui", "by"), [("vote", "vote"), ("other", "answer")])
async def test_an_answer_to_a_card_that_is_named_comes_before_those_to_any(ui: str, by: str) -> None:
    agent = full_agent()

    @agent.on_command("card")
    async def card(chat: Chat) -> None:
        await chat.reply(App(ui))

    chat = conversation(agent)
    [shown] = await chat.say("/card")
    assert [said.text for said in await chat.answer(shown.card_id, {})] == [by]


def second_command(agent: Agent) -> None:
    agent.on_command("HELP")(saying("second"))


def second_for_answers(agent: Agent) -> None:
    agent.on_artifact_response()(saying("second"))


def second_vote(agent: Agent) -> None:
    agent.on_artifact_response("vote", "other")(saying("second"))


def never_reached(agent: Agent) -> None:
    agent.on_message("image", when="never")(saying("second"))


def bad_regex(agent: Agent) -> None:
    agent.on_message(when="(")(saying("second"))


def async_when(agent: Agent) -> None:
    async def when(message: Message) -> bool:
        return bool(message)

    agent.on_message(when=when)(saying("second"))


def group_without_parameter(agent: Agent) -> None:
    agent.on_message("video", when="(?P<what>.+)")(saying("second"))


def group_that_cannot_be_converted(agent: Agent) -> None:
    @agent.on_message("video", when="(?P<what>.+)")
    async def second(what: re.Pattern[str]) -> None:
        """No text is one."""


def bad_command(agent: Agent) -> None:
    agent.on_command("/help")(saying("second"))


def no_command(agent: Agent) -> None:
    agent.on_command(saying("second"))  # type: ignore[arg-type]


def itself(agent: Agent) -> None:
    agent.include(agent)


def a_router_in_itself(agent: Agent) -> None:
    outer, inner = Router(), Router()
    outer.include(inner)
    inner.include(outer)


def twice(agent: Agent) -> None:
    router = Router()
    agent.include(router)
    agent.include(router)


def no_router(agent: Agent) -> None:
    agent.include(saying)  # type: ignore[arg-type]


def an_event_that_is_none(agent: Agent) -> None:
    agent.on_event("relation.broken")(saying("second"))


def an_event_without_a_name(agent: Agent) -> None:
    agent.on_event(saying("second"))  # type: ignore[arg-type]


def a_message_of_an_event(agent: Agent) -> None:
    @agent.on_event("message.read")
    async def second(message: Message) -> None: ...


def a_second_for_an_event(agent: Agent) -> None:
    for word in ("first", "second"):
        agent.on_event("message.read")(saying(word))


def an_error_that_is_none(agent: Agent) -> None:
    agent.on_error(KeyboardInterrupt)(saying("second"))  # type: ignore[arg-type]


def two_arounds(agent: Agent) -> None:
    for _ in range(2):

        @agent.around
        async def around() -> AsyncIterator[None]:
            yield


def around_that_does_not_yield(agent: Agent) -> None:
    @agent.around  # type: ignore[type-var]  # the mistake itself
    async def around() -> None: ...


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (second_command, "second: help already takes help"),
        (second_for_answers, "answer already takes all answers to cards"),
        (second_vote, "vote already takes vote"),
        (never_reached, "text already takes image; register this one, with its `when`, before it"),
        (bad_regex, r"when='\(' is no regular expression: missing"),
        (async_when, "is async"),
        (group_without_parameter, "second.* has no parameter `what`, which `when` has a group for"),
        (group_that_cannot_be_converted, "a text cannot be converted to what `what: re.Pattern"),
        (bad_command, "without its slash"),
        (no_command, "name the command"),
        (itself, "put into a Router"),
        (a_router_in_itself, "cannot be included in itself"),
        (twice, "included already"),
        (no_router, "takes a Router, not function"),
        (an_error_that_is_none, "name the exceptions"),
        (an_event_that_is_none, "events are agent.governance, .*, not relation.broken"),
        (an_event_without_a_name, "name the event"),
        (a_message_of_an_event, "what there is: chat: Chat, job: Job, .*event: Event"),
        (a_second_for_an_event, r"second: first already takes message\.read"),
        (two_arounds, "one `around` already"),
        (around_that_does_not_yield, "async generator with one yield"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_import_and_says_why(wrong: Callable[[Agent], None], text: str) -> None:
    with pytest.raises(BadHandler, match=text):
        wrong(full_agent())


async def test_around_is_entered_around_each_handler_from_the_outside_in() -> None:
    agent, router, order = Agent(), Router(), list[str]()

    @agent.around
    async def outer(message: Message) -> AsyncIterator[None]:
        order.append(f"outer {message.text}")
        try:
            yield
        finally:
            order.append("outer ends")

    @router.around
    @asynccontextmanager
    async def inner() -> AsyncIterator[None]:
        order.append("inner")
        yield
        order.append("inner ends")

    @router.on_command("in")
    def inside(chat: BlockingChat) -> None:
        order.append("handler")
        chat.reply("in")

    @agent.on_message()
    async def outside(chat: Chat) -> None:
        raise ValueError

    agent.include(router)
    assert await heard(agent, "/in") == "in"
    assert order == ["outer /in", "inner", "handler", "inner ends", "outer ends"]
    order.clear()
    with pytest.raises(ValueError, match=r"^$"):
        await conversation(agent).say("out")
    assert order == ["outer out", "outer ends"]


class Busy(Exception):
    """A service has no time."""


class VeryBusy(Busy):
    """It has none at all."""


async def test_an_error_is_taken_by_the_nearest_function_for_its_type_and_the_message_is_done() -> None:
    agent, router = Agent(), Router()

    @agent.on_error(Busy, LookupError)
    async def anywhere(chat: Chat, error: Exception) -> None:
        await chat.reply(f"anywhere: {type(error).__name__}")

    @router.on_error(VeryBusy)
    def near(error: VeryBusy, chat: BlockingChat, message: Message) -> None:
        chat.reply(f"near {message.text}: {error}")

    @router.on_command("in")
    async def inside(chat: Chat, args: str) -> None:
        await chat.reply("first")
        raise {"very": VeryBusy("no time"), "busy": Busy(), "key": KeyError(), "again": Retry()}.get(args, OSError())

    @agent.on_message()
    def outside() -> None:
        raise VeryBusy

    agent.include(router)
    assert await heard(agent, "/in very") == "first near /in very: no time"
    assert await heard(agent, "/in busy") == "first anywhere: Busy"
    assert await heard(agent, "/in key") == "first anywhere: KeyError"
    assert await heard(agent, "out") == "anywhere: VeryBusy"
    with pytest.raises(Retry):
        await heard(agent, "/in again")
    with pytest.raises(OSError, match=r"^$"):
        await heard(agent, "/in other")


@pytest.mark.parametrize("how", [Retry(), Fail("no_such_order")])
async def test_how_a_handler_says_that_its_job_ends_is_no_error(how: Exception) -> None:
    agent = Agent()

    @agent.on_error(Exception)
    async def anything(chat: Chat) -> None:
        await chat.reply("taken")

    @agent.on_message()
    async def answer() -> None:
        raise how

    with pytest.raises(type(how)):
        await heard(agent, "x")


async def test_what_the_function_for_an_error_raises_counts_instead() -> None:
    agent = Agent()

    @agent.on_error(Busy)
    async def again() -> None:
        raise Retry(after_seconds=7)

    @agent.on_message()
    async def answer() -> None:
        raise Busy

    with pytest.raises(Retry) as asked:
        await heard(agent, "x")
    assert asked.value.after_seconds == 7


async def test_an_event_is_taken_by_who_asks_for_its_name_and_nobody_can_send_one() -> None:
    agent, router = Agent(), Router()

    @router.on_event("relation.established", "relation.restored")
    async def met(event: Event, chat: Chat) -> None:
        await chat.reply(f"{event.name} {event.user_id} {event.fields['display_name']}")

    @agent.on_message()
    async def rest(message: Message, chat: Chat) -> None:
        await chat.reply("a message")

    agent.include(router)
    assert agent.policies.events == ("relation.established", "relation.restored")
    chat = conversation(agent)
    [said] = await chat.event("relation.established", user_id="ada", display_name="Ada")
    assert said.text == "relation.established ada Ada"
    forged: dict[str, object] = {
        "type": "event",
        "event": {"name": "relation.established", "fields": {"display_name": "x"}},
    }
    assert await heard(agent, forged) == "a message"
    with pytest.raises(LookupError):
        await chat.event("relation.revoked", user_id="ada")
    with pytest.raises(BadReply, match=r"chat\.to"):
        await chat.event("relation.established", is_here=False, user_id="ada", display_name="Ada")


async def test_a_function_of_when_that_fails_fails_the_message_by_its_own_line() -> None:
    agent = Agent()

    @agent.on_message(when=lambda message: message.payload["nothing"])
    async def answer(chat: Chat) -> None: ...

    with pytest.raises(KeyError, match="nothing"):
        await heard(agent, "x")
