"""The ledger of messages: what happened to each and when, without content. Written by the scripts themselves, read here.

Kept for 7 days or 200,000 entries. A message is named by its message_id, which is also its job's id; what was refused, taken in or
quarantined names its conversation in its first word.
"""

from collections.abc import AsyncIterator, Mapping
from typing import cast

import msgspec

from bus.client import RedisClient
from bus.keys import Keys

PAGE = 1000
KEPT_SECONDS = 7 * 86400

_TAKEN_IN = ("conversation", "received_ms", "decrypted_ms", "seq")

# What each script notes of a message: the words of an entry, in order. One that was not known to whoever noted it is empty.
WORDS: Mapping[str, tuple[str, ...]] = {
    "taken": _TAKEN_IN,  # nothing for a handler
    "queued": _TAKEN_IN,
    "refused": _TAKEN_IN,
    "quarantined": ("conversation", "received_ms", "reason", "seq"),
    "requeued": ("conversation",),
    "given_up": ("by",),
    "started": ("worker", "attempt", "delivery"),
    "replied": ("place",),
    "encrypted": ("place", "client_message_id"),
    "acknowledged": ("place", "message_id", "sent_ms"),
    "dropped": ("place", "reason"),  # a reply that became a dead letter
    "done": (),
    "superseded": (),
    "no_handler": (),
    "failed": ("reason", "again_after_ms"),
    "dead": ("reason",),
    "revived": ("reason",),
    "handed_back": ("worker",),
    "reclaimed": ("worker",),
    "lost": ("conversation",),
}
BEGINNINGS = frozenset({"taken", "queued", "refused", "quarantined", "requeued"})
NAMED_BY_THE_RELAY = frozenset({"encrypted", "acknowledged"})


class Event(msgspec.Struct, frozen=True):
    """One entry, at Redis' time. `details`: what else was noted, word by word, as WORDS names it."""

    at_ms: int
    name: str
    job_id: str
    details: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """The details by name, without those that were not known."""
        words = WORDS.get(self.name, ())
        return {name: word for name, word in zip(words, self.details, strict=False) if word}


class Ledger:
    """Of one agent; only reads."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def trace(self, wanted: str) -> list[Event]:
        """Everything that is known of a message, or of all messages of a conversation, in the order in which it happened.

        An answer's message_id, or its client_message_id, stands for the message that it answers.
        """
        found, answered = await self._about({wanted}, wanted)
        if not found and answered:
            found, _ = await self._about(answered, wanted)
        return found

    async def _about(self, messages: set[str], wanted: str) -> tuple[list[Event], set[str]]:
        found: list[Event] = []
        answered: set[str] = set()
        async for event in self._events():
            if event.name in BEGINNINGS and wanted in event.details[:1]:
                messages.add(event.job_id)
            if event.name in NAMED_BY_THE_RELAY and event.details[1:2] == (wanted,):
                answered.add(event.job_id)
            if event.job_id in messages:
                found.append(event)
        return found, answered

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
