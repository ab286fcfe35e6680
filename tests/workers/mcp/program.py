"""A real MCP server, made with the official package: `python -m tests.workers.mcp.program stdio`, or `http PORT`. It notes its calls in the file of its first word."""

import os
import sys
import time
from pathlib import Path

import anyio
from mcp.server import MCPServer

server = MCPServer("things")
NOTES = Path(os.environ.get("NOTES", os.devnull))


def note(what: str) -> None:
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(f"{what} {os.getpid()}\n")


@server.tool()
async def search_docs(words: str, most: int = 3) -> str:
    """Searches the docs."""
    note("search")
    return f"{most} pages about {words}"


@server.tool()
async def delete_page(page: str) -> str:
    """Deletes a page."""
    note("delete")
    return f"deleted {page}"


@server.tool()
async def wait(seconds: float) -> str:
    """Waits."""
    note("wait")
    await anyio.sleep(seconds)
    return "waited"


@server.tool()
async def fail() -> str:
    """Fails."""
    raise ValueError("of no use")


@server.tool()
async def large(megabytes: int) -> str:
    """Returns much."""
    return "x" * (megabytes << 20)


@server.tool()
async def variables() -> str:
    """Names what it was given of the environment."""
    return " ".join(sorted(os.environ))


@server.tool()
async def end() -> str:
    """Dies in the middle of the call."""
    os._exit(1)


if __name__ == "__main__":
    note("started")
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[2]))
    time.sleep(0)
