"""The harness for owners' tests, and the built-in echo through it."""

import pytest
import trio.testing

from workers import Agent, Chat, InboundMessage
from workers.builtin.echo import agent as echo
from workers.testing import conversation


async def test_the_echo_answers_and_streams(autojump_clock: trio.testing.MockClock) -> None:
    chat = conversation(echo)
    [reply] = await chat.say("hi")
    assert (reply.text, reply.place, reply.was_streamed) == ("echo: hi", "0", False)
    [streamed] = await chat.say("/stream one two three four")
    assert streamed.text == "echo: one two three four"
    assert streamed.was_streamed
    assert streamed.deltas
    assert chat.typing == (True, False)
    assert await chat.run_again() == []


async def test_what_a_handler_raises_comes_out_of_say() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await conversation(agent).say("hi")
