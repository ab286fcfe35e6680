"""An agent that has a server which does not end by itself, and answers with what its tool returns."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from workers import MCP, Agent, Chat
from workers.tools.tool import ToolSource


@dataclass
class Server:
    """What the lifespan yields. `source`: its tools."""

    source: ToolSource


@asynccontextmanager
async def lifespan() -> AsyncIterator[Server]:
    hostile = str(Path(__file__).parent / "hostile.py")
    server = MCP(sys.executable, hostile, "stays", env={"STARTS": os.environ["STARTS"]}, allow={"search"})
    async with server.opened() as source:
        yield Server(source)


agent = Agent(lifespan=lifespan)


@agent.on_message("text")
async def answer(chat: Chat, server: Server) -> None:
    while not server.source.tools():
        await trio.sleep(0.05)
    tool = next(tool for tool in server.source.tools() if tool.title == "search")
    await chat.reply(str(await tool.run({})))
