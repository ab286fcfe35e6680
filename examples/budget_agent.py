"""A language model with a budget for each person: who writes too much, or has it write too much, is asked to wait, and the model is not asked."""

from workers import LLM, Agent, Budget

budget = Budget(per="sender", messages_per_minute=10, tokens_per_day=50_000, reply="Please wait a little.")
agent = Agent(llm=LLM(), budget=budget)


@agent.on_message("text")
async def answer(llm: LLM) -> None:
    await llm.reply()
