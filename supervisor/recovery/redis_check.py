"""Checks that Redis does not lose data: its version, eviction policy and persistence (DESIGN rule 20).

All of it is checked at the start; settings that may change while it runs are checked again every second
(supervisor/recovery/redis_watch.py). A setting that the server hides counts as right only if HASHEE_REDIS_TRUST names it.
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
"""The ACL rules that our user needs. A test holds a conversation as a user with these and no others."""


class RedisUnfit(Exception):
    """This Redis would lose messages; the text says what to change there."""


async def check_redis(client: RedisClient, trust: frozenset[str]) -> str:
    """Checks the server; returns its name and version. Raises RedisUnfit, RedisUnavailable."""
    try:
        info = await info_of(client, "server")
    except RedisRefused as error:
        raise RedisUnfit(f"Redis refuses us ({error}); its ACL must allow {ACL_RULES}") from None
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if "valkey_version" not in info and _numbers(version) < OLDEST_VERSION:
        raise RedisUnfit(f"Redis {version} is too old: version 7.0 or newer is needed, or any Valkey")
    facts = await look(client)
    policy = facts.policy if facts.policy is not None else await _setting(client, "maxmemory-policy")
    if policy != "noeviction" and not (policy is None and TRUST_EVICTION in trust):
        raise RedisUnfit(_complaint("maxmemory-policy", policy, "noeviction", TRUST_EVICTION))
    appendonly = _yes_or_no(facts.appends) or await _setting(client, "appendonly")
    if appendonly != "yes" and TRUST_PERSISTENCE not in trust:
        raise RedisUnfit(_complaint("appendonly", appendonly, "yes", TRUST_PERSISTENCE))
    return f"{'valkey' if 'valkey_version' in info else 'redis'} {version}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts from INFO and CONFIG about a running server; None for those that a provider hides. `limit_bytes` 0: no limit."""

    memory_bytes: int
    limit_bytes: int
    policy: str | None
    appends: bool | None
    is_written: bool
    """Whether the last write to the append-only file succeeded."""

    def faults(self, trust: frozenset[str]) -> Mapping[str, str]:
        """Returns, by the names of HASHEE_REDIS_TRUST, why a setting can lose messages, '' if it cannot.

        Settings that the server hides or that `trust` names are left out.
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
    """Returns how full Redis is, and its present settings. Raises RedisFailed."""
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
    """Returns one section of INFO; not every compatible server can give several at once. Raises RedisFailed."""
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
