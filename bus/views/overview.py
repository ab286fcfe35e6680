"""Counts what stands in Redis for one agent, for `status` and the size of the pool. It only reads, and only what is cheap.

Workers report themselves by a small record with an expiry (`Presence`), so that workers on other hosts are seen too.
"""

from collections import Counter
from typing import cast

import msgspec

from bus.records.keys import JOBS_GROUP, Keys
from bus.records.numbers import number_in
from bus.records.presence import Presence, presence_of
from bus.steps.last_backup import LastBackup, last_backup
from bus.transport.client import RedisClient
from bus.transport.wire import RedisRefused
from host.budgets import NOTE_BYTES

MOST_WORKERS_SHOWN = 1000
SCAN_COUNT = 1000
MOST_KEYS_WALKED = (
    1_000_000  # a person has four to ten; counting so many takes 1.3 s, and only counts and samples are kept
)
KEYS_SAMPLED = 5


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one agent.

    Jobs: `queued` for a worker, `running`, `waiting` behind another of their conversation, `due` again later. Replies: `unsent`,
    `unacknowledged`, and what was sent from `outside` and waits for its turn. Then what waits for a person's decision. At the relay: `notes` of
    messages of so many `held_senders`. `timers`: reminders and deadlines to come, the next at `next_timer_ms` (None without one).
    `open_waits`: questions without an answer yet, of `waits_bytes` in all; `journal_bytes`: what jobs that run or run again have noted.
    """

    queued: int
    running: int
    waiting: int
    due: int
    unsent: int
    unacknowledged: int
    dead_letters: int
    quarantined: int
    outside: int = 0
    notes: int = 0
    held_senders: int = 0
    timers: int = 0
    next_timer_ms: int | None = None
    open_waits: int = 0
    waits_bytes: int = 0
    journal_bytes: int = 0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the Redis itself. `most_bytes`: maxmemory, 0 for none."""

    version: str
    used_bytes: int
    most_bytes: int
    uptime_seconds: int
    clients: int


class KindSize(msgspec.Struct, frozen=True, kw_only=True):
    """All keys of a kind (bus/records/keys.py): how many there are, and their size together, estimated from a sample."""

    keys: int
    about_bytes: int


class Overview:
    """The counts of one agent; every method raises RedisFailed."""

    def __init__(self, client: RedisClient, keys: Keys, *, most_walked: int = MOST_KEYS_WALKED) -> None:
        """`most_walked`: keys, when they are counted by kind."""
        self._client = client
        self._most_walked = most_walked
        self._keys = keys

    async def jobs_not_taken(self) -> int:
        """Returns how many jobs lie in the stream because every worker slot is taken."""
        return max(0, await self._number("XLEN", self._keys.jobs) - await self._jobs_taken())

    async def counts(self) -> Counts:
        keys = self._keys
        running = await self._jobs_taken()
        first = cast("list[bytes]", await self._client.command("ZRANGE", keys.alarms, 0, 0, "WITHSCORES"))
        noted = cast(
            "list[bytes | None]", await self._client.command("HMGET", keys.load, "waits_open", "waits", "journal")
        )
        open_waits, waits_bytes, journal_bytes = (number_in(one) for one in noted)
        return Counts(
            open_waits=open_waits,
            waits_bytes=waits_bytes,
            journal_bytes=journal_bytes,
            queued=max(0, await self._number("XLEN", keys.jobs) - running),
            running=running,
            waiting=await self._number("GET", keys.waiting),
            due=await self._number("ZCARD", keys.due),
            unsent=await self._number("XLEN", keys.replies),
            unacknowledged=await self._number("ZCARD", keys.resend_times),
            dead_letters=await self._number("XLEN", keys.dead),
            quarantined=await self._number("ZCARD", keys.quarantine),
            outside=await self._number("LLEN", keys.outside),
            notes=await self._number("HGET", keys.held, "total"),
            held_senders=max(0, await self._number("HLEN", keys.held) - 1),  # without the field `total`
            timers=await self._number("ZCARD", keys.alarms),
            next_timer_ms=int(float(first[1])) if first else None,
        )

    async def kinds(self) -> tuple[dict[str, KindSize], bool]:
        """Returns the keys by kind, and whether all were counted: a large store is not walked to its end for a status."""
        counted: Counter[str] = Counter()
        samples: dict[str, list[str]] = {}
        cursor, seen = b"0", 0
        while True:
            answer = await self._client.command("SCAN", cursor, "MATCH", self._keys.pattern, "COUNT", SCAN_COUNT)
            cursor, found = cast("tuple[bytes, list[bytes]]", answer)
            for name in map(bytes.decode, found):
                kind, _ = self._keys.split(name)
                counted[kind] += 1
                if len(sample := samples.setdefault(kind, [])) < KEYS_SAMPLED:
                    sample.append(name)
            seen += SCAN_COUNT
            if cursor == b"0" or seen >= self._most_walked:
                break
        return {kind: await self._size(samples[kind], keys) for kind, keys in sorted(counted.items())}, cursor == b"0"

    async def _size(self, sample: list[str], keys: int) -> KindSize:
        sizes = [await self._usage(name) for name in sample]
        return KindSize(keys=keys, about_bytes=sum(sizes) * keys // len(sample))

    async def kept_bytes(self) -> int:
        """Estimates the bytes of everything of this agent that can grow: what waits, quarantine, dead letters, ledger."""
        kinds = await self.bytes_by_kind()
        return sum(kinds.values()) - kinds["unsigned"] + await self._usage(self._keys.ledger)

    async def bytes_by_kind(self) -> dict[str, int]:
        """Returns the bytes of each kind that has a budget (host/budgets.py); `unsigned` is a part of `quarantine`."""
        waits = await self._client.command("HMGET", self._keys.load, "total", "out", "outside")
        kept = await self._client.command("HMGET", self._keys.kept, "total", "unsigned")
        found = [number_in(one) for one in cast("list[bytes | None]", waits) + cast("list[bytes | None]", kept)]
        waiting, out, outside, quarantine, unsigned = found
        return {
            **{"waiting": waiting, "out": out + outside, "quarantine": quarantine, "unsigned": unsigned},
            "dead": await self._usage(self._keys.dead),
            "notes": await self._number("HGET", self._keys.held, "total") * NOTE_BYTES,
        }

    async def _usage(self, name: str) -> int:
        """Returns MEMORY USAGE of a key; 0 if the provider does not let us ask."""
        try:
            return await self._number("MEMORY", "USAGE", name)
        except RedisRefused:
            return 0

    async def last_backup(self) -> LastBackup | None:
        """Returns the note of this store's last backup; None if there is none."""
        return await last_backup(self._client, self._keys)

    async def people(self) -> int:
        """Returns how many people have a row in the grant ledger."""
        return await self._number("SCARD", self._keys.owners)

    async def server(self) -> Server:
        """Returns facts from INFO; 0 for those that a provider hides."""
        text = cast(bytes, await self._client.command("INFO")).decode("utf-8", "replace")
        said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        name = "valkey" if "valkey_version" in said else "redis"
        return Server(
            version=f"{name} {said.get('valkey_version') or said.get('redis_version', 'unknown')}",
            used_bytes=_whole(said.get("used_memory")),
            most_bytes=_whole(said.get("maxmemory")),
            uptime_seconds=_whole(said.get("uptime_in_seconds")),
            clients=_whole(said.get("connected_clients")),
        )

    async def workers(self) -> tuple[Presence, ...]:
        """Returns every worker of the agent that has reported within PRESENCE_SECONDS, on whatever host."""
        living = await living_workers(self._client, self._keys)
        return tuple(one for text in living.values() if (one := presence_of(text)))

    async def _jobs_taken(self) -> int:
        try:
            answer = await self._client.command("XPENDING", self._keys.jobs, JOBS_GROUP)
        except RedisRefused:
            return 0  # No group: nobody has taken anything yet.
        return cast("list[int]", answer)[0]

    async def _number(self, *command: str) -> int:
        return number_in(await self._client.command(*command))


async def living_workers(client: RedisClient, keys: Keys) -> dict[str, bytes]:
    """Returns the last report of each worker by name, the latest first, without expired ones. Raises RedisFailed.

    They expire by Redis' clock: a worker of a former release dates by its own, which may be wrong.
    """
    found = await client.command("ZREVRANGE", keys.consumers, 0, MOST_WORKERS_SHOWN)
    names = [name.decode() for name in cast("list[bytes]", found)]
    texts = await client.command("MGET", *(keys.presence(name) for name in names)) if names else []
    return {name: text for name, text in zip(names, cast("list[bytes | None]", texts), strict=True) if text is not None}


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
