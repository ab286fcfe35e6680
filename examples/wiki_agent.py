"""A language model with the tools of an MCP server: it searches by itself, and a person approves each other call. WIKI_URL says where the server is."""

import os

from workers import LLM, MCP, Agent

agent = Agent(
    llm=LLM("You help with our wiki. Search before you answer."),
    mcp=[MCP(os.environ["WIKI_URL"], name="wiki", allow={"search_*"})],
)


@agent.on_message("text")
async def answer(llm: LLM) -> None:
    await llm.reply()
