"""Answers every text by a language model, token by token, knowing what was said before. Endpoint and model come from the environment."""

from workers.handling.agent import Agent
from workers.llm.model import LLM

agent = Agent(llm=LLM())


@agent.on_message("text")
async def answer(llm: LLM) -> None:
    """Replies with the model's answer."""
    await llm.reply()
