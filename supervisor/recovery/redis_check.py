"""Whether a Redis is fit to hold what must not be lost (DESIGN rule 20): version, eviction policy, persistence.

All of it is checked at the start; what may be changed while it runs is looked at again every second (supervisor/recovery/redis_watch.py).
What a server forbids us to ask is believed only by name (HASHEE_REDIS_TRUST).
"""

from collections.abc import Mapping
from typing import cast

import msgspec

from bus.transport.client import RedisClient
from bus.transport.wire import RedisRefused

OLDEST_VERSION = (7, 0)
TRUST_EVICTION = "eviction"
TRUST_PERSISTENCE = "persistence"
ACL_RULES = "+@all -@dangerous +info +script +client|unblock ~hashee:* &hashee:*"
"""What a user of ours needs. A test holds a conversation as one who may do this and nothing else."""


class RedisUnfit(Exception):
    """This Redis would lose messages; the text names what to change there."""


async def check_redis(client: RedisClient, trust: frozenset[str]) -> str:
    """Its name and version. Raises RedisUnfit, RedisUnavailable."""
    try:
        info = await info_of(client, "server")
    except RedisRefused as error:
        raise RedisUnfit(f"Redis refuses us ({error}); its ACL must allow {ACL_RULES}") from None
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if "valkey_version" not in info and _numbers(version) < OLDEST_VERSION:
        raise RedisUnfit(f"Redis {version} is too old: version 7.0 or newer is needed")
    facts = await look(client)
    policy = facts.policy if facts.policy is not None else await _setting(client, "maxmemory-policy")
    if policy != "noeviction" and not (policy is None and TRUST_EVICTION in trust):
        raise RedisUnfit(_complaint("maxmemory-policy", policy, "noeviction", TRUST_EVICTION))
    appendonly = _yes_or_no(facts.appends) or await _setting(client, "appendonly")
    if appendonly != "yes" and TRUST_PERSISTENCE not in trust:
        raise RedisUnfit(_complaint("appendonly", appendonly, "yes", TRUST_PERSISTENCE))
    return f"{'valkey' if 'valkey_version' in info else 'redis'} {version}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What INFO says of a running server. `limit_bytes` 0: no limit; None where it does not say (some providers hide it)."""

    memory_bytes: int
    limit_bytes: int
    policy: str | None
    appends: bool | None
    is_written: bool
    """Whether the last write to the append-only file succeeded."""

    def faults(self, trust: frozenset[str]) -> Mapping[str, str]:
        """By setting, as HASHEE_REDIS_TRUST names them: why messages can be lost by it, empty where they cannot.

        Without those that the server hides or that `trust` vouches for.
        """
        found: dict[str, str] = {}
        if self.policy is not None and TRUST_EVICTION not in trust:
            evicts = self.policy != "noeviction"
            found[TRUST_EVICTION] = _complaint("maxmemory-policy", self.policy, "noeviction", "") if evicts else ""
        if self.appends is not None and TRUST_PERSISTENCE not in trust:
            failed = "" if self.is_written else "Redis could not write to its disk, which is full or broken"
            found[TRUST_PERSISTENCE] = failed if self.appends else _complaint("appendonly", "no", "yes", "")
        return found


async def look(client: RedisClient) -> Facts:
    """How full it is, and how it is set now. Raises RedisFailed."""
    said = await info_of(client, "memory") | await info_of(client, "persistence")
    appends = said.get("aof_enabled")
    return Facts(
        memory_bytes=int(said.get("used_memory", 0)),
        limit_bytes=int(said.get("maxmemory", 0)),
        policy=said.get("maxmemory_policy"),
        appends=None if appends is None else appends == "1",
        is_written=said.get("aof_last_write_status", "ok") == "ok",
    )


def _yes_or_no(found: bool | None) -> str | None:
    return None if found is None else "yes" if found else "no"


def _complaint(setting: str, found: str | None, wanted: str, trust: str) -> str:
    if found is None:
        return f"Redis does not let us read {setting}; if it is {wanted}, say HASHEE_REDIS_TRUST={trust}"
    return f"Redis has {setting} {found}; set it to {wanted}, or messages can be lost"


async def info_of(client: RedisClient, section: str) -> dict[str, str]:
    """What INFO says in one section. Of several at once not every server that speaks the protocol has heard. Raises RedisFailed."""
    text = cast(bytes, await client.command("INFO", section)).decode("utf-8", "replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def _setting(client: RedisClient, name: str) -> str | None:
    try:
        answer = cast("list[bytes]", await client.command("CONFIG", "GET", name))
    except RedisRefused:
        return None
    return answer[1].decode() if len(answer) == 2 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
