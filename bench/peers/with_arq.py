"""arq: workers and producer poll, since it knows no other way.

With its own 0.5 s that would be all that one measures: 1 ms was fastest here, alone and with many.
"""

import asyncio
import os
import sys
from typing import Any
from urllib.parse import unquote

import arq
from arq.connections import RedisSettings
from driver import drive

POLL_SECONDS = 0.001
RESULT_SECONDS = 60

settings = RedisSettings(unix_socket_path=unquote(os.environ["BENCH_REDIS_URL"].removeprefix("unix://")))


async def echo(_context: dict[str, Any], text: str) -> str:
    return text


class WorkerSettings:
    """As arq's command line takes it."""

    functions = (echo,)
    redis_settings = settings
    poll_delay = POLL_SECONDS
    max_jobs = 64
    keep_result = RESULT_SECONDS


async def main() -> None:
    pool = await arq.create_pool(settings)

    async def ask(text: str, _in_flight: int) -> object:
        job = await pool.enqueue_job("echo", text)
        assert job is not None
        return await job.result(poll_delay=POLL_SECONDS)

    await drive(ask)
    await pool.aclose()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        arq.run_worker(WorkerSettings)  # type: ignore[arg-type]
    else:
        asyncio.run(main())
