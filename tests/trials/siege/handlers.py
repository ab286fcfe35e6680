"""The agent under siege: slow with whoever writes much, quick with everybody else; a file it sends back."""

import trio

from bus.records.records import InboundMessage
from workers import Agent, File, Message
from workers.talk.chat import Chat

SLOW = "slow"
"""A text that begins so takes its time; its answer is its first words."""

SLOW_SECONDS = 1.0
WORDS_CHARS = 24

agent = Agent()


def answer_to(text: str) -> str:
    """What the agent says to a text."""
    return f"heard: {text[:WORDS_CHARS].rstrip()}"


@agent.on_message("file")
async def send_back(message: Message, chat: Chat) -> None:
    """The same file."""
    [file] = message.files
    await chat.reply(File(file.chunks(), name=file.name, type=file.type))


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat) -> None:
    """One answer to each."""
    if message.text.startswith(SLOW):
        await trio.sleep(SLOW_SECONDS)
    await chat.reply(answer_to(message.text))
