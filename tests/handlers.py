"""Handlers for tests that need more than the built-in ones."""

from bus.records import InboundMessage
from workers import Agent
from workers.chat import Chat

talkative = Agent()


@talkative.on_message()
async def sixty_lines(_message: InboundMessage, chat: Chat) -> None:
    """Sixty answers to one message."""
    for number in range(60):
        await chat.reply(f"line {number}")
