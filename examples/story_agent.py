"""A reply that grows while it is written, with something that all jobs of a worker share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from workers import Agent, Chat, InboundMessage

SENTENCES = ("Once upon a time", "there was", "an agent", "that never forgot", "what it had said.")


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Open connections before the first job, close them after the last one."""
    yield


agent = Agent(lifespan=lifespan)


@agent.on_message("text")
async def tell(message: InboundMessage, chat: Chat) -> None:
    """A story in pieces."""
    async with chat.typing(), chat.stream() as story:
        await story.write(f"About {message.text}: ")
        for sentence in SENTENCES:
            await trio.sleep(0.3)
            await story.write(f"{sentence} ")
