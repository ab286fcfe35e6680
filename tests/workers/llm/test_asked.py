"""`llm.complete`, `llm.stream`, the commands that come with a model, and an LLM in a sync handler."""

from typing import Literal

import msgspec
import pytest

from tests.waiting import waiting_for
from tests.workers.llm.endpoint import FakeEndpoint, chunk, endpoint, events, sse
from workers import LLM, Agent, BadHandler, BlockingLLM, Chat, LLMCut, LLMMisfit, Message
from workers.kept.words import Words
from workers.testing import Conversation, conversation

WITHIN_SECONDS = 10


class Place(msgspec.Struct):
    name: str
    people: int = 0


def agent_with(server: FakeEndpoint, **how: object) -> Agent:
    return Agent(llm=LLM("Be brief.", base_url=server.base_url, model="small", **how))  # type: ignore[arg-type]


async def texts(chat: Conversation, said: str) -> list[str]:
    with waiting_for("the agent's answer", WITHIN_SECONDS):
        return [reply.text for reply in await chat.say(said)]


@pytest.mark.parametrize(
    ("written", "kind", "value"),
    [
        ('{"name": "Rome", "people": 3}', Place, Place("Rome", 3)),
        ('Sure!\n```json\n{"name": "Rome", "people": "3"}\n```\nAnything else?', Place, Place("Rome", 3)),
        ('The {answer} is {"name": "Rome"}.', Place, Place("Rome")),
        ("42", int, 42),
        ("spam.", Literal["spam", "ham"], "spam"),
        ('["a", "b"]', list[str], ["a", "b"]),
        ("true", bool, True),
    ],
)
async def test_an_answer_is_asked_for_and_found_as_a_value(written: str, kind: type[object], value: object) -> None:
    found: list[object] = []
    async with endpoint(events(written)) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(message: Message, llm: LLM) -> None:
            found.append(await llm.complete(message.text, kind))

        assert await texts(conversation(agent), "Which place?") == []
    assert found == [value]
    [[(role, asked)]] = server.asked
    assert role == "user"
    assert asked.startswith("Which place?\n\nAnswer with JSON alone")


async def test_a_text_is_asked_for_as_it_is_and_nobody_sees_it() -> None:
    async with endpoint(events("A summary.")) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(message: Message, chat: Chat, llm: LLM) -> None:
            await chat.reply(await llm.complete(message.text, system="Summarise.", model="big"))

        chat = conversation(agent)
        assert await texts(chat, "long") == ["A summary."]
        assert await chat.run_again() == []
    assert server.asked == [[("system", "Summarise."), ("user", "long")]]
    assert [request["model"] for request in server.requests] == ["big"]


async def test_what_does_not_fit_is_asked_for_once_more_with_the_reason() -> None:
    async with endpoint(events("no idea"), events('{"name": "Rome"}')) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(message: Message, chat: Chat, llm: LLM) -> None:
            await chat.reply((await llm.complete(message.text, Place)).name)

        chat = conversation(agent)
        assert await texts(chat, "Which?") == ["Rome"]
        assert [role for role, _ in server.asked[-1]] == ["user", "assistant", "user"]
        server.say(events("no idea"))
        server.requests.clear()
        with pytest.raises(LLMMisfit):
            await texts(chat, "Which?")
        assert len(server.requests) == 2


async def test_a_value_that_was_cut_by_a_limit_is_none() -> None:
    async with endpoint(sse(chunk('{"name": "Ro'), chunk(finish="length"))) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(llm: LLM) -> None:
            await llm.complete("Which?")

        with pytest.raises(LLMCut, match="limit"):
            await texts(conversation(agent), "hi")


async def test_a_stream_gives_the_pieces_and_a_second_run_the_whole() -> None:
    heard: list[list[str]] = []
    async with endpoint(events("one ", "two ", "three"), events("other")) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(llm: LLM) -> None:
            heard.append([])
            async with llm.stream([{"role": "user", "content": "Count."}]) as pieces:
                async for piece in pieces:
                    heard[-1].append(piece)

        chat = conversation(agent)
        await texts(chat, "hi")
        await chat.run_again()
    assert ["".join(pieces) for pieces in heard] == ["one two three"] * 2
    assert server.asked == [[("user", "Count.")]]


async def test_what_is_raised_over_a_stream_is_raised_and_the_request_ends() -> None:
    async with endpoint(events("one")) as server:
        agent = agent_with(server)

        @agent.on_message()
        async def answer(llm: LLM) -> None:
            async with llm.stream([{"role": "user", "content": "Count."}]) as pieces:
                async for piece in pieces:
                    raise LookupError(piece)

        with pytest.raises(LookupError, match="one"):
            await texts(conversation(agent), "hi")


async def test_a_sync_handler_has_a_model_too() -> None:
    async with endpoint(events("Hello!"), events("42")) as server:
        agent = agent_with(server)

        @agent.on_message()
        def answer(llm: BlockingLLM) -> None:
            assert llm.reply() == "Hello!"
            assert llm.complete("How many?", int) == 42

        assert await texts(conversation(agent), "hi") == ["Hello!"]


async def test_reset_forgets_what_was_said() -> None:
    async with endpoint(events("Yes.")) as server:
        agent = agent_with(server)

        @agent.on_message("text")
        async def answer(llm: LLM) -> None:
            await llm.reply()

        chat = conversation(agent)
        await texts(chat, "hi")
        assert await texts(chat, "/reset") == [Words().forgotten]
        await texts(chat, "still there?")
    assert server.asked[-1] == [("system", "Be brief."), ("user", "still there?")]


async def test_help_lists_the_commands_or_says_the_owners_words() -> None:
    async with endpoint(b"") as server:
        agent = agent_with(server)

        @agent.on_command("book")
        async def book() -> None: ...

        [text] = await texts(conversation(agent), "/help")
        assert "/book" in text
        assert "/reset: " in text
        assert await texts(conversation(agent_with(server, help="Ask me.")), "/help") == ["Ask me."]


async def test_a_command_of_the_owners_takes_the_place_of_ours_and_ours_can_be_left_out() -> None:
    async with endpoint(events("Said.")) as server:
        agent = agent_with(server, commands=("reset",))

        @agent.on_message("text")
        async def answer(llm: LLM) -> None:
            await llm.reply()

        @agent.on_command("reset")
        async def reset(chat: Chat) -> None:
            await chat.reply("mine")

        chat = conversation(agent)
        assert await texts(chat, "/reset") == ["mine"]
        assert await texts(chat, "/help") == ["Said."]


def test_a_command_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadHandler, match="reset, stop, help"):
        Agent(llm=LLM(commands=("dance",)))
