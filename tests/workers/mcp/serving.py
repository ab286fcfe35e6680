"""The real server (tests/workers/mcp/program.py) on a port of loopback, and what it has noted."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tests.waiting import waiting_for

ROOT: Final = Path(__file__).parents[3]
PROGRAM: Final = (sys.executable, "-m", "tests.workers.mcp.program")
SECONDS: Final = 60.0


@asynccontextmanager
async def serving(port: int, notes: Path) -> AsyncIterator[trio.Process]:
    """The real server on a port of loopback, until it is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTES": str(notes)}
    command = [*PROGRAM, "http", str(port)]
    process = await trio.lowlevel.open_process(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def until_noted(notes: Path, what: str, count: int = 1) -> None:
    with waiting_for(f"the server to note {what!r}", SECONDS):
        while (notes.read_text(encoding="utf-8") if notes.exists() else "").count(what) < count:  # noqa: ASYNC240
            await trio.sleep(0.01)
