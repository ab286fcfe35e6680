"""Waits for a slow service and shows how far it is. Stop overtakes the queue and cancels the block, not the handler."""

import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from workers import Agent, Chat, Job


class Api:
    """The service: it starts an export once for each key, and says how much of it is done."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self, key: str) -> str:
        return str(await trio.to_thread.run_sync(self._ask, f"start/{key}"))

    async def percent(self, ticket: str) -> int:
        return int(await trio.to_thread.run_sync(self._ask, f"percent/{ticket}"))

    def _ask(self, path: str) -> str | int:
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=30) as answer:  # noqa: S310 - the owner's own address
            told: str | int = json.load(answer)
        return told


@asynccontextmanager
async def lifespan() -> AsyncIterator[Api]:
    yield Api(os.environ["EXPORT_URL"])


agent = Agent(lifespan=lifespan)


@agent.on_command("export")
async def export(chat: Chat, job: Job, api: Api) -> None:
    async with chat.progress("Exporting", cancel="Stop") as bar:
        ticket = await job.step("start", api.start, job.idempotency_key)
        while (done := await api.percent(ticket)) < 100:
            await bar.update(done)
            await trio.sleep(2)
    await chat.reply("Stopped." if bar.cancelled else "Done.")
