"""faststream: jobs in one stream, results in another, both read by consumer groups (its own RPC was slower)."""

import asyncio
import os
import sys
import uuid

from driver import WARM_UP_SECONDS, drive
from faststream import FastStream
from faststream.redis import RedisBroker, RedisMessage, StreamSub

JOBS, RESULTS = "jobs", "results"
BLOCK_MS = 100

broker = RedisBroker(os.environ["BENCH_REDIS_URL"], logger=None)


def stream(name: str) -> StreamSub:
    consumer = str(os.getpid())
    return StreamSub(name, group="group", consumer=consumer, polling_interval=BLOCK_MS, max_records=64)


async def work() -> None:
    @broker.subscriber(stream=stream(JOBS))
    async def echo(text: str, message: RedisMessage) -> None:
        await broker.publish(text, stream=RESULTS, correlation_id=message.correlation_id)

    await FastStream(broker).run()


async def produce() -> None:
    waiting: dict[str, asyncio.Future[str]] = {}

    @broker.subscriber(stream=stream(RESULTS))
    async def hear(text: str, message: RedisMessage) -> None:
        future = waiting.pop(message.correlation_id)
        if not future.done():  # one that was given up, of a first job that came before a worker listened
            future.set_result(text)

    async def ask(text: str, _in_flight: int) -> object:
        name = uuid.uuid4().hex
        future = waiting[name] = asyncio.get_running_loop().create_future()
        await broker.publish(text, stream=JOBS, correlation_id=name)
        return await asyncio.wait_for(future, WARM_UP_SECONDS)

    async with broker:
        await broker.start()
        await drive(ask)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["worker"] else produce())
