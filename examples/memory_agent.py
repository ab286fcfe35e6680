"""Knows what was said before, and counts: what both sides said is the model's input, the count is the conversation's state."""

from collections.abc import AsyncIterator

import msgspec

from workers import Agent, Chat, History, Message


class Memory(msgspec.Struct):
    """What is kept of each conversation."""

    messages: int = 0


agent = Agent(state=Memory)


@agent.on_message("text")
async def answer(message: Message, chat: Chat, history: History, state: Memory) -> None:
    state.messages += 1
    async with chat.stream() as stream:
        await stream.write(f"{state.messages}. ")
        async for piece in model([*history.messages, {"role": "user", "content": message.text}]):
            await stream.write(piece)


@agent.on_command("forget")
async def forget(chat: Chat) -> None:
    await chat.forget()
    await chat.reply("Forgotten.")


async def model(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """In a language model's place: says how much it was given, and how that began."""
    yield f"I have read {len(messages)} turns, "
    yield f"from {messages[0]['content']!r} to {messages[-1]['content']!r}."
