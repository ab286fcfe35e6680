"""Answers every text with itself: the first thing to see working. `/stream some words` shows them one after the other."""

import trio

from bus.records.records import InboundMessage
from workers.handling.agent import Agent
from workers.talk.chat import Chat

STREAM_COMMAND = "/stream "
# Slow enough that a person sees the text grow.
WORD_SECONDS = 0.1

agent = Agent()


@agent.on_message("text")
async def echo(message: InboundMessage, chat: Chat) -> None:
    """Replies with `echo: ` and the text."""
    if not message.text.startswith(STREAM_COMMAND):
        await chat.reply(f"echo: {message.text}")
        return
    async with chat.typing(), chat.stream() as stream:
        await stream.write("echo:")
        for word in message.text.removeprefix(STREAM_COMMAND).split(" "):
            await trio.sleep(WORD_SECONDS)
            await stream.write(f" {word}")
