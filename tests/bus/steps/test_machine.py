"""The state machine of machine/ over the bus in memory and over the one in Redis.

HASHEE_TEST_EXAMPLES sets how many histories are played, for a long look: the seeds are then not fixed.
"""

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.bus.machine.all_of_it import BusMachine
from tests.bus.machine.keeping import SideBySide
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import MemoryScene

WANTED = os.environ.get("HASHEE_TEST_EXAMPLES")


def played(examples: int, steps: int) -> settings:
    return settings(
        max_examples=int(WANTED or examples),
        stateful_step_count=steps,
        derandomize=WANTED is None,
        database=None,
        deadline=None,
        phases=[Phase.generate] if WANTED is None else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


class InMemory(BusMachine):
    def __init__(self) -> None:
        super().__init__(MemoryScene)


def test_whatever_happens_to_the_bus_in_memory_every_message_ends_once_and_in_order() -> None:
    run_state_machine_as_test(InMemory, settings=played(150, 40))


def test_whatever_happens_to_the_bus_in_redis_every_message_ends_once_and_in_order(redis_url: str) -> None:
    class InRedis(BusMachine):
        def __init__(self) -> None:
            super().__init__(lambda: RedisScene(redis_url))

    run_state_machine_as_test(InRedis, settings=played(40, 40))


def test_what_threads_leave_lies_in_memory_as_it_does_in_redis(redis_url: str) -> None:
    class Both(SideBySide):
        def __init__(self) -> None:
            super().__init__(lambda: RedisScene(redis_url))

    run_state_machine_as_test(Both, settings=played(8, 25))
