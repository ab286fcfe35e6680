"""dramatiq: its command line runs the workers, its Redis result backend brings the results back."""

import os
from typing import cast

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from driver import drive_window

RESULT_TIMEOUT_MS = 20_000

url = os.environ["BENCH_REDIS_URL"]
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=RedisBackend(url=url)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def echo(text: str) -> str:
    return text


def wait(job: object) -> object:
    return cast("dramatiq.Message[str]", job).get_result(block=True, timeout=RESULT_TIMEOUT_MS)


if __name__ == "__main__":
    drive_window(echo.send, wait)
