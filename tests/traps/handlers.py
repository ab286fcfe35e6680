"""A handler that takes its time, so that something is under way when Redis fills up."""

import trio

from bus.records.records import InboundMessage
from workers import Agent
from workers.talk.chat import Chat

PAUSE_SECONDS = 0.5

patient = Agent()


@patient.on_message("text")
async def echo(message: InboundMessage, chat: Chat) -> None:
    """`echo: ` and the text, after a while."""
    await trio.sleep(PAUSE_SECONDS)
    await chat.reply(f"echo: {message.text}")
