"""The ledger of messages: what happened to each and when, without content. Written by the scripts themselves, read here.

Kept for 7 days or 200,000 entries. A message is named by its message_id, which is also its job's id; what was refused, taken in or
quarantined names its conversation in its first word.
"""

from collections.abc import AsyncIterator
from typing import Literal, cast

import msgspec

from bus.client import RedisClient
from bus.keys import Keys

PAGE = 1000
KEPT_SECONDS = 7 * 86400

Name = Literal[
    "taken",
    "queued",
    "refused",
    "quarantined",
    "requeued",
    "started",
    "replied",
    "encrypted",
    "acknowledged",
    "dropped",
    "done",
    "superseded",
    "no_handler",
    "failed",
    "dead",
    "revived",
    "handed_back",
    "reclaimed",
    "lost",
]
BEGINNINGS = frozenset({"taken", "queued", "refused", "quarantined", "requeued"})


class Event(msgspec.Struct, frozen=True):
    """One entry. `details`: what else was noted, word by word; which, each script's `note` says."""

    at_ms: int
    name: str
    job_id: str
    details: tuple[str, ...] = ()


class Ledger:
    """Of one agent; only reads."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def trace(self, wanted: str) -> list[Event]:
        """Everything that is known of a message, or of all messages of a conversation, in the order in which it happened."""
        messages = {wanted}
        found: list[Event] = []
        async for event in self._events():
            if event.name in BEGINNINGS and wanted in event.details[:1]:
                messages.add(event.job_id)
            if event.job_id in messages:
                found.append(event)
        return found

    async def length(self) -> int:
        """How many entries there are."""
        return cast(int, await self._client.command("XLEN", self._keys.ledger))

    async def _events(self) -> AsyncIterator[Event]:
        start = "-"
        while True:
            command = ("XRANGE", self._keys.ledger, start, "+", "COUNT", PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
            for entry, flat in rows:
                _, name, _, job, _, details = flat
                at_ms = int(entry.partition(b"-")[0])
                yield Event(at_ms, name.decode(), job.decode(), tuple(details.decode().split(" ")))
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"
