"""The agent of the drills: it echoes; asked to count, it goes on as long as a file is there, so that a second run may say less than the first.

As a model does, whose second answer is shorter: what comes behind it then has another place in the ratchet's chain.
"""

import os

import trio

from workers import Agent, Chat, InboundMessage

COUNT_WHILE = "DRILL_COUNT_WHILE"
PAUSE_SECONDS = 0.05

agent = Agent()


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat) -> None:
    """`count …` is answered by a line every so often, anything else by an echo."""
    text = message.text or ""
    if not text.startswith("count"):
        await chat.reply(f"echo: {text}")
        return
    number, file = 0, trio.Path(os.environ[COUNT_WHILE])
    await chat.reply(f"echo: {text}")
    while await file.exists():
        await trio.sleep(PAUSE_SECONDS)
        await chat.reply(f"{text}: {number}")
        number += 1
