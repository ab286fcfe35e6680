"""Redis' clock beside our own: asked, since one of them may be wrong and nothing may depend on both being right.

What Redis dates (entries, leases, expiries, due times) is compared with Redis' time, what a process dates with a process' time.
"""

import time
from typing import cast

from bus.transport.client import Commands

SKEWED_MS = 2000
"""From here on it is said: further than a slow answer or two machines that keep time are apart."""


async def redis_ms(client: Commands) -> int:
    """Redis' time, Unix, ms. Raises RedisFailed."""
    seconds, micros = cast("list[bytes]", await client.command("TIME"))
    return int(seconds) * 1000 + int(micros) // 1000


async def clock_of(client: Commands) -> tuple[int, int]:
    """Redis' time (Unix, ms), and how far it is ahead of ours, give or take half of the answer's time. Raises RedisFailed."""
    before = time.time()
    now_ms = await redis_ms(client)
    after = time.time()
    return now_ms, now_ms - int((before + after) * 500)


def clock_fault(ahead_ms: int) -> str:
    """For people; empty while both agree."""
    if abs(ahead_ms) < SKEWED_MS:
        return ""
    return f"its clock is {abs(ahead_ms) / 1000:.0f} s {'ahead of' if ahead_ms > 0 else 'behind'} ours"
