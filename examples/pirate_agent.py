"""Remembers, and answers by a language model; people see the answer grow. OPENAI_BASE_URL and HASHEE_LLM_MODEL say where and which."""

from workers import LLM, Agent

agent = Agent(llm=LLM("You are a pirate."))


@agent.on_message("text")
async def answer(llm: LLM) -> None:
    await llm.reply()
