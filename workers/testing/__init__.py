"""Lets owners' tests talk with an agent, without Redis, a supervisor or keys, and kill it at every line (docs/testing.md).

    async def test_it_greets() -> None:
        async with Harness(agent) as chat:
            [reply] = await chat.say("hi")
        assert reply.text == "Hello!"

    async def test_nothing_breaks_it() -> None:
        await survives(agent, script)

The worker's own runner runs the handlers, over a bus in memory that the product's tests hold to the one in Redis. What a handler raises comes
out of the test.
"""

from workers.testing.conversation import Conversation, conversation
from workers.testing.harness import Harness, HarnessChat, NoHandler
from workers.testing.said import Replies, Said
from workers.testing.scripted import ScriptedLLM, call
from workers.testing.surviving import Survived, survives

__all__ = [
    "Conversation",
    "Harness",
    "HarnessChat",
    "NoHandler",
    "Replies",
    "Said",
    "ScriptedLLM",
    "Survived",
    "call",
    "conversation",
    "survives",
]
