"""The smallest agent: `HASHEE_HANDLER=first_agent:agent hashee-agent up` in this directory."""

from workers import Agent, Chat, InboundMessage

agent = Agent()


@agent.on_message("text")
async def answer(message: InboundMessage, chat: Chat) -> None:
    """Say it back."""
    await chat.reply(f"You said: {message.text}")
