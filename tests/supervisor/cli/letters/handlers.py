"""A handler that dies, fails, or fails as long as a file is there; for everything else it is an echo."""

import os

import trio

from workers import Agent, Chat, InboundMessage
from workers.handling.context import JobContext

agent = Agent()


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
    """The first word of the text is what to do."""
    command, _, rest = message.text.partition(" ")
    match command:
        case "die":
            await chat.reply("before")
            if job.deliveries == 1:
                await trio.sleep(1)  # what was said is on its way
                os._exit(1)
            await chat.reply("after")
        case "fail":
            await chat.reply("kept")
            if await trio.Path(rest).exists():
                raise RuntimeError(message.text)
            await chat.reply("mended")
        case "break":
            await chat.reply(rest)
            raise RuntimeError(message.text)
        case _:
            await chat.reply(f"echo: {message.text}")
