"""taskiq-redis: the stream broker, the one with acknowledgements; results are polled for, since it knows no other way.

The library's own interval of 0.2 s would be all that one measures: it is set to what was fastest here, alone and with many.
"""

import asyncio
import os

from driver import drive
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

CHECK_ALONE_SECONDS = 0.001
CHECK_SECONDS = 0.02
RESULT_SECONDS = 60

url = os.environ["BENCH_REDIS_URL"]
broker = RedisStreamBroker(url).with_result_backend(
    RedisAsyncResultBackend(url, keep_results=False, result_ex_time=RESULT_SECONDS)
)


@broker.task(task_name="echo")  # the producer runs this file under another name than the workers
async def echo(text: str) -> str:
    return text


async def ask(text: str, in_flight: int) -> object:
    task = await echo.kiq(text)
    check_seconds = CHECK_ALONE_SECONDS if in_flight == 1 else CHECK_SECONDS
    return (await task.wait_result(check_interval=check_seconds)).return_value


async def main() -> None:
    await broker.startup()
    await drive(ask)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
