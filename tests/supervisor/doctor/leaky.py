"""A handler that does what none should: it prints what it was told."""

from bus.records.records import InboundMessage
from workers import Agent
from workers.talk.chat import Chat

agent = Agent()


@agent.on_message()
async def answer(message: InboundMessage, chat: Chat) -> None:
    print(f"they said {message.text}", flush=True)
    await chat.reply("yes")
