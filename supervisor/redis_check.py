"""Whether a Redis is fit to hold what must not be lost (DESIGN rule 20): version, eviction policy, persistence.

What a server forbids us to ask is believed only by name (HASHEE_REDIS_TRUST).
"""

from typing import cast

from bus.client import RedisClient
from bus.wire import RedisRefused

OLDEST_VERSION = (7, 0)
TRUST_EVICTION = "eviction"
TRUST_PERSISTENCE = "persistence"


class RedisUnfit(Exception):
    """This Redis would lose messages; the text names what to change there."""


async def check_redis(client: RedisClient, trust: frozenset[str]) -> str:
    """Its name and version. Raises RedisUnfit, RedisUnavailable."""
    try:
        info = await _info(client)
    except RedisRefused as error:
        raise RedisUnfit(
            f"Redis refuses us ({error}); its ACL must allow +@all but @dangerous, +info and +script"
        ) from None
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if "valkey_version" not in info and _numbers(version) < OLDEST_VERSION:
        raise RedisUnfit(f"Redis {version} is too old: version 7.0 or newer is needed")
    policy = await _setting(client, "maxmemory-policy")
    if policy != "noeviction" and not (policy is None and TRUST_EVICTION in trust):
        raise RedisUnfit(_complaint("maxmemory-policy", policy, "noeviction", TRUST_EVICTION))
    appendonly = await _setting(client, "appendonly")
    if appendonly != "yes" and TRUST_PERSISTENCE not in trust:
        raise RedisUnfit(_complaint("appendonly", appendonly, "yes", TRUST_PERSISTENCE))
    return f"{'valkey' if 'valkey_version' in info else 'redis'} {version}"


async def memory(client: RedisClient) -> tuple[int, int]:
    """Bytes used and maxmemory (0: no limit). Raises RedisFailed."""
    text = cast(bytes, await client.command("INFO", "memory")).decode()
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(facts["used_memory"]), int(facts.get("maxmemory", 0))


def _complaint(setting: str, found: str | None, wanted: str, trust: str) -> str:
    if found is None:
        return f"Redis does not let us read {setting}; if it is {wanted}, say HASHEE_REDIS_TRUST={trust}"
    return f"Redis has {setting} {found}; set it to {wanted}, or messages can be lost"


async def _info(client: RedisClient) -> dict[str, str]:
    text = cast(bytes, await client.command("INFO", "server")).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def _setting(client: RedisClient, name: str) -> str | None:
    try:
        answer = cast("list[bytes]", await client.command("CONFIG", "GET", name))
    except RedisRefused:
        return None
    return answer[1].decode() if len(answer) == 2 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
