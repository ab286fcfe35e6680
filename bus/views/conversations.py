"""Reads which conversations there are, for a person who wants to send into one; it only reads, page by page.

Nothing keeps them in order, and a message costs nothing for this: the latest stand in the ledger of messages, the others are walked. When a
conversation was last heard is the latest time in its messages' own ids, which their senders made, or that of the ledger.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, cast

import msgspec

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.transport.client import Commands, keys_like
from bus.views.trace import BEGINNINGS

SCAN_COUNT: Final = 4000
"""Keys looked at by one command, which takes Redis some 4 ms."""

PAGE: Final = 500
"""Conversations read by one command, in 2 ms."""

LEDGER_PAGE: Final = 1000
MOST_LEDGER_PAGES: Final = 20
"""The latest conversations are looked for so far back; it takes 0.2 s."""

FACTS: Final = 6


class KnownConversation(msgspec.Struct, frozen=True):
    """One conversation. `kind`: h2a or group; `person`: the person's id, or the group's. `heard_ms`: when it was last heard, 0 if that is not known."""

    conversation_id: str
    kind: str
    person: str
    heard_ms: int


class Conversations:
    """The conversations of one agent in which somebody has written."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def all(self) -> AsyncGenerator[list[KnownConversation]]:
        """Yields pages of them, in no order; one may come twice. Raises RedisFailed."""
        async with aclosing(keys_like(self._client, self._keys.conversation("*"), SCAN_COUNT)) as pages:
            async for names in pages:
                ids = [self._keys.split(name)[1] for name in names]
                for at in range(0, len(ids), PAGE):
                    yield await self._read(ids[at : at + PAGE])

    async def named(self, ids: Sequence[str]) -> list[KnownConversation]:
        """Returns those of these ids that there are. Raises RedisFailed."""
        return await self._read(ids)

    async def latest(self, count: int) -> tuple[list[KnownConversation], bool]:
        """Returns those that were heard last, at most `count`, and whether there are more. Raises RedisFailed."""
        heard = await self._latest_in_ledger(count + 1)
        found = {one.conversation_id: one for one in await self._read(list(heard))}
        if len(found) <= count:
            async with aclosing(self.all()) as pages:
                async for page in pages:
                    found |= {one.conversation_id: one for one in page if one.conversation_id not in found}
                    if len(found) > count:
                        break
        dated = [_heard_at_least(one, heard.get(one.conversation_id, 0)) for one in found.values()]
        dated.sort(key=lambda one: (one.conversation_id not in heard, -one.heard_ms))
        return dated[:count], len(dated) > count

    async def _latest_in_ledger(self, count: int) -> dict[str, int]:
        """Returns at most so many conversations and when they were heard, the latest first, from the end of the ledger."""
        heard: dict[str, int] = {}
        last = "+"
        for _ in range(MOST_LEDGER_PAGES):
            command = ("XREVRANGE", self._keys.ledger, last, "-", "COUNT", LEDGER_PAGE)
            rows = cast("list[tuple[bytes, list[bytes]]]", await self._client.command(*command))
            for entry, (_, name, _, _, _, told) in rows:
                if name.decode() in BEGINNINGS:
                    heard.setdefault(told.decode().partition(" ")[0], int(entry.partition(b"-")[0]))
                if len(heard) >= count:
                    return heard
            if len(rows) < LEDGER_PAGE:
                break
            last = f"({rows[-1][0].decode()}"
        return heard

    async def _read(self, ids: Sequence[str]) -> list[KnownConversation]:
        if not ids:
            return []
        names = [self._keys.conversation(one) for one in ids]
        flat = cast("list[bytes | None]", await self._client.script("read_conversations", names))
        rows = (flat[at : at + FACTS] for at in range(0, len(flat), FACTS))
        return [
            KnownConversation(one, _text(kind), _text(person or b""), max(number_in(time) for time in times))
            for one, (kind, person, *times) in zip(ids, rows, strict=True)
            if kind is not None
        ]


def _text(found: bytes) -> str:
    return found.decode(errors="replace")  # a damaged one is shown, and hides no other


def _heard_at_least(one: KnownConversation, at_ms: int) -> KnownConversation:
    return msgspec.structs.replace(one, heard_ms=max(one.heard_ms, at_ms))
