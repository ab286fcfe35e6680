"""Asks for the time of Redis' clock and how far it differs from ours, since either may be wrong.

Times that Redis has set (entries, leases, expiries, due times) are compared with Redis' time, those of a process with a process' time.
"""

import time
from typing import cast

from bus.transport.client import Commands
from bus.transport.wire import Value

SKEWED_MS = 2000
"""From this difference on it is reported: more than a slow answer, or two machines that keep time, can cause."""


async def redis_ms(client: Commands) -> int:
    """Returns Redis' time, Unix, ms. Raises RedisFailed."""
    return ms_of(await client.command("TIME"))


def ms_of(answer: Value) -> int:
    """Returns what the answer to TIME says, Unix, ms."""
    seconds, micros = cast("list[bytes]", answer)
    return int(seconds) * 1000 + int(micros) // 1000


async def clock_of(client: Commands) -> tuple[int, int]:
    """Returns Redis' time (Unix, ms) and how far it is ahead of ours, give or take half of the round trip. Raises RedisFailed."""
    before = time.time()
    now_ms = await redis_ms(client)
    after = time.time()
    return now_ms, now_ms - int((before + after) * 500)


def clock_fault(ahead_ms: int) -> str:
    """Returns a text for people about a difference of the clocks; '' while both agree."""
    if abs(ahead_ms) < SKEWED_MS:
        return ""
    return f"its clock is {abs(ahead_ms) / 1000:.0f} s {'ahead of' if ahead_ms > 0 else 'behind'} ours"
