"""Helps in groups: it runs only when it is mentioned, and quotes what it answers. `Agent(groups="all")` would hear everything."""

from workers import Agent, Chat, Message

agent = Agent()


@agent.on_message("text")
async def answer(message: Message, chat: Chat) -> None:
    await chat.reply(f"You asked: {message.text}", quote=True)
