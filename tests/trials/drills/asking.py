"""The agent of the drill of questions: it echoes whatever is said to it, answers to its questions too, reminds, and counts what each conversation has said."""

from datetime import timedelta

import msgspec

from workers import Agent, Chat, Message


class Counted(msgspec.Struct):
    """What is kept of a conversation."""

    messages: int = 0


agent = Agent(state=Counted)


@agent.on_command("book")
async def book(chat: Chat) -> None:
    """Two questions, one after the other."""
    await chat.reply("echo: /book")
    name = await chat.ask("Your name?")
    await chat.reply(f"echo: {name}")
    day = await chat.ask(f"Which day, {name}?")
    await chat.reply(f"echo: {day}")


@agent.on_message("text", when=r"remind me in (?P<seconds>\d+)")
async def remind(chat: Chat, seconds: int) -> None:
    """Sets a reminder, which says for how long it was asked."""
    await chat.remind("say", after=timedelta(seconds=seconds), data=seconds)
    await chat.reply(f"echo: remind me in {seconds}")


@agent.on_reminder("say")
async def say(chat: Chat, data: int) -> None:
    """What is due."""
    await chat.reply(f"after {data}")


@agent.on_message()
async def answer(message: Message, chat: Chat, counted: Counted) -> None:
    """An echo, and one more."""
    counted.messages += 1
    await chat.reply(f"echo: {message.text}")
    await chat.reply(f"{message.text} was number {counted.messages}")
