"""Measures the ages of what waits, the reasons of the quarantine and how full Redis is, for metrics and alerts.

It only reads, and only what is cheap, since every supervisor asks every few seconds. Counts are in bus/views/overview.py.
"""

from collections import Counter
from collections.abc import Mapping
from typing import cast

import msgspec

from bus.records.keys import JOBS_GROUP, Keys
from bus.records.numbers import number_in
from bus.records.presence import Presence, presence_of
from bus.records.records import BadRecord, decode_outbox_record
from bus.steps.store import now_ms
from bus.transport.client import RedisClient
from bus.transport.clock import redis_ms
from bus.transport.wire import RedisRefused
from bus.views.overview import living_workers

MOST_RECORDS_READ = 50
MOST_QUARANTINED_READ = 500


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """The ages in seconds of the oldest of each; 0 if there is none.

    `untaken`: a job that no worker has taken. `busy`: a conversation with a job or a reply under way. `unacknowledged`: a reply that its
    handler has made and the relay has not acknowledged. `in_mailboxes`: a job behind a running one of its conversation.
    """

    untaken: float
    busy: float
    unacknowledged: float
    in_mailboxes: int


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the Redis itself; None for those that a provider hides."""

    memory_bytes: int | None
    limit_bytes: int | None
    evicted_keys: int | None


class Backlog:
    """The backlog of one agent; every method raises RedisFailed."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def ages(self) -> Ages:
        now = await redis_ms(self._client)
        return Ages(
            untaken=await self._untaken_seconds(now),
            busy=_since(now, await self._lowest(self._keys.busy)),
            unacknowledged=max(await self._unsent_seconds(now), await self._unacknowledged_seconds()),
            in_mailboxes=max(0, number_in(await self._client.command("GET", self._keys.waiting))),
        )

    async def quarantine(self) -> Mapping[str, int]:
        """Returns how many messages are in quarantine by reason, of the oldest MOST_QUARANTINED_READ."""
        names = cast(
            "list[bytes]",
            await self._client.command("ZRANGE", self._keys.quarantine, 0, MOST_QUARANTINED_READ - 1),
        )
        reasons: Counter[str] = Counter()
        for name in names:
            reason = await self._client.command("HGET", self._keys.quarantined(name.decode()), "why")
            if reason is not None:
                reasons[cast(bytes, reason).decode()] += 1
        return reasons

    async def server(self) -> ServerFacts:
        text = cast(bytes, await self._client.command("INFO")).decode("utf-8", "replace")
        said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return ServerFacts(
            memory_bytes=_whole(said.get("used_memory")),
            limit_bytes=_whole(said.get("maxmemory")),
            evicted_keys=_whole(said.get("evicted_keys")),
        )

    async def workers_elsewhere(self, instance: str) -> tuple[Presence, ...]:
        """Returns the living workers that do not belong to the supervisor `instance`."""
        living = await living_workers(self._client, self._keys)
        others = (text for name, text in living.items() if not name.startswith(f"{instance}/"))
        return tuple(one for text in others if (one := presence_of(text)))

    async def _untaken_seconds(self, now_ms: int) -> float:
        try:
            groups = cast("list[list[bytes]]", await self._client.command("XINFO", "GROUPS", self._keys.jobs))
        except RedisRefused:
            return 0.0  # no stream yet
        after = b"-"
        for group in groups:
            facts = dict(zip(group[::2], group[1::2], strict=True))
            if facts[b"name"] == JOBS_GROUP.encode():
                after = b"(" + facts[b"last-delivered-id"]
        entries = await self._client.command("XRANGE", self._keys.jobs, after, "+", "COUNT", 1)
        return _since(now_ms, _first_ms(entries))

    async def _unsent_seconds(self, now_ms: int) -> float:
        entries = await self._client.command("XRANGE", self._keys.replies, "-", "+", "COUNT", 1)
        return _since(now_ms, _first_ms(entries))

    async def _unacknowledged_seconds(self) -> float:
        """Returns the age by our own clock: the time of a reply is of its worker's clock, not of Redis'."""
        now, ages = now_ms(), [0.0]
        conversations = await self._client.command("ZRANGE", self._keys.resend_times, 0, MOST_RECORDS_READ - 1)
        for conversation in cast("list[bytes]", conversations):
            packed = await self._client.command("HGET", self._keys.sent(conversation.decode()), "r")
            if packed is not None:
                try:
                    ages.append(_since(now, decode_outbox_record(cast(bytes, packed)).emitted_ms))
                except BadRecord:
                    continue  # whoever sends it says so
        return max(ages)

    async def _lowest(self, key: str) -> int | None:
        found = cast("list[bytes]", await self._client.command("ZRANGE", key, 0, 0, "WITHSCORES"))
        return int(float(found[1])) if found else None


def _first_ms(entries: object) -> int | None:
    """Returns the time in the id of the first of these entries; None if there is none."""
    found = cast("list[tuple[bytes, object]]", entries)
    return int(found[0][0].split(b"-")[0]) if found else None


def _since(now_ms: int, then_ms: int | None) -> float:
    return 0.0 if then_ms is None else max(0.0, (now_ms - then_ms) / 1000)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
