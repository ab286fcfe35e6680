"""A runner that runs on a bus in memory."""

import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from tests.workers.doubles import MemoryBus
from workers import Agent, Chat, InboundMessage
from workers.process.logs import Log
from workers.process.runner import Runner, RunnerSettings
from workers.process.vitals import Vitals


def agent_that(raised: BaseException | None = None, *, seconds: float = 0.0) -> Agent:
    agent = Agent()

    @agent.on_message("text")
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await trio.sleep(seconds)
        if raised is not None:
            raise raised
        await chat.reply(f"re: {message.text}")

    return agent


@asynccontextmanager
async def running(
    agent: Agent,
    bus: MemoryBus,
    *,
    concurrency: int = 4,
    output: io.StringIO | None = None,
    job_seconds: float = 600.0,
    retries_timeouts: bool = False,
    shows_errors: bool = False,
    vitals: Vitals | None = None,
    replaced: list[str] | None = None,
    exhausted: list[str] | None = None,
) -> AsyncIterator[Runner]:
    logger = logging.Logger("test")
    logger.addHandler(handler := logging.StreamHandler(output or io.StringIO()))
    handler.setFormatter(logging.Formatter("%(message)s %(values)s"))
    settings = RunnerSettings(
        concurrency=concurrency, job_seconds=job_seconds, retries_timeouts=retries_timeouts, shows_errors=shows_errors
    )
    runner = Runner(
        agent,
        bus,
        settings,
        vitals=vitals or Vitals(),
        log=Log(logger),
        replace_worker=(replaced if replaced is not None else []).append,
        leave_exhausted=(exhausted if exhausted is not None else []).append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        yield runner
        runner.drain()
