"""Reads everything of an agent's store that a backup holds, while the agent runs, in bounded memory.

Each conversation is read in one moment, by one script (save_conversation.lua); between them the agent goes on. So things are read before
what they turn into: prekeys before sessions, sessions before conversations; and quarantine and dead letters both before and after the
conversations. Whatever moves meanwhile is then in the backup at least once. A session that is older than its conversation only decrypts
messages that the conversation knows as duplicates; a newer one could not decrypt messages that the conversation does not know.
"""

import hashlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.saved import Saved, SavedConversation, Value, Waiting, pairs
from bus.transport.at_once import all_of
from bus.transport.client import Commands, keys_like
from bus.transport.clock import redis_ms
from bus.transport.wire import Value as Answer

PAGE = 200
SCAN_COUNT = 1000
LETTERS_AT_ONCE = 4  # dead letters, messages in quarantine, jobs: a mebibyte each
CONVERSATIONS_AT_ONCE = 8
TIMERS_AT_ONCE = 100  # up to 6 KiB each
SKEW_MS = 60_000
MOST_CONVERSATION_BYTES = 4 << 20
"""A conversation with more waiting is read in parts: eight whole ones, and the frame made of one, are in memory at a time."""
NO_LIMIT = 1 << 53
"""For what arrived in a conversation while its parts were read: bounded by host/budgets.py, and hardly ever more than a page."""


class Snapshot:
    """Reads the store of one agent; every method raises RedisFailed.

    `client`: of one connection, since another server may lack a part of the store (a replica that lagged, a cluster's node without our slot).
    """

    def __init__(self, client: Commands, names: Keys, most_conversation_bytes: int = MOST_CONVERSATION_BYTES) -> None:
        self._client = client
        self._names = names
        self._most_bytes = most_conversation_bytes

    async def everything(self) -> AsyncGenerator[Saved]:
        """Yields all pieces, in the order that is explained above."""
        began_ms = await redis_ms(self._client)
        last_letter = b"-"
        for part in (
            self._agent(),
            *(self._hashes(kind) for kind in ("group", "member", "owner")),
            self._list("grant_log", self._names.grant_log),
            *(self._hashes(kind) for kind in ("session", "held", "send_keys")),
            self._outside(),
            self._timers(),
            self._quarantined(self._scan("quarantined")),
        ):
            async with aclosing(part) as values:
                async for value in values:
                    yield value
        async with aclosing(self._stream("dead", self._names.dead, last_letter, LETTERS_AT_ONCE)) as letters:
            async for letter in letters:
                last_letter = b"(" + letter.parts[0]
                yield letter
        for later in (
            self._conversations(),
            self._hashes("cards"),
            self._store(),
            self._timers(),
            self._stream("dead", self._names.dead, last_letter, LETTERS_AT_ONCE),
            self._quarantined(self._since(began_ms)),
            self._stream("ledger", self._names.ledger, b"-", PAGE),
        ):
            async with aclosing(later) as values:
                async for saved in values:
                    yield saved

    async def _agent(self) -> AsyncGenerator[Value]:
        """Yields the values of keys that exist once for an agent."""
        for kind in ("seal", "signed_prekeys", "one_time_prekeys", "policy"):
            yield await self._hash(kind, "")
        for kind, key in (("old", self._names.old), ("placements", self._names.placements)):
            yield Value(kind, "", "zset", await self._asked("ZRANGE", key, 0, -1, "WITHSCORES"))
        found = await self._client.command("GET", self._names.first_sync)
        yield Value("first_sync", "", "string", [cast(bytes, found)] if found else [])

    async def _store(self) -> AsyncGenerator[Value]:
        """Yields what handlers keep for the whole agent: at most 4 MiB."""
        yield await self._hash("store", "")

    async def kinds(self) -> set[str]:
        """Returns the kinds of all existing keys."""
        found: set[str] = set()
        async with aclosing(keys_like(self._client, self._names.pattern, SCAN_COUNT)) as pages:
            async for keys in pages:
                found |= {self._names.split(key)[0] for key in keys}
        return found

    async def _hash(self, kind: str, ids: str) -> Value:
        return Value(kind, ids, "hash", await self._asked("HGETALL", self._names.of(kind, ids)))

    async def _hashes(self, kind: str) -> AsyncGenerator[Value]:
        async with aclosing(self._scan(kind)) as pages:
            async for page in pages:
                for value in await all_of(lambda ids: self._hash(kind, ids), page):
                    if value.parts:  # it is there still
                        yield value

    async def _timers(self) -> AsyncGenerator[Value]:
        """Yields the timers of one conversation after the other, some at once.

        A job sets timers, and a timer becomes a job: so they are read before the conversations and after them. One that becomes a job
        meanwhile is saved as both, and runs twice after a restore; what it says has the same ids both times, so people see it once.
        """
        async with aclosing(self._scan("timers")) as pages:
            async for page in pages:
                for ids in page:
                    parts = await self._asked("HGETALL", self._names.timers(ids))
                    for at in range(0, len(parts), 2 * TIMERS_AT_ONCE):
                        yield Value("timers", ids, "hash", parts[at : at + 2 * TIMERS_AT_ONCE])

    async def _scan(self, kind: str) -> AsyncGenerator[list[str]]:
        """Yields pages of the ids in the names of all keys of a kind; one may come twice."""
        async with aclosing(keys_like(self._client, self._names.of(kind, "*"), SCAN_COUNT)) as pages:
            async for keys in pages:
                for at in range(0, len(keys), PAGE):
                    yield [self._names.split(key)[1] for key in keys[at : at + PAGE]]

    async def _list(self, kind: str, key: str) -> AsyncGenerator[Value]:
        at = 0
        while page := await self._asked("LRANGE", key, at, at + PAGE - 1):
            yield Value(kind, "", "list", page)
            at += len(page)

    async def _outside(self) -> AsyncGenerator[Value]:
        """Yields the line of messages from outside, its last page first: what leaves at its beginning meanwhile shifts none."""
        async with aclosing(self._list_from_the_end(self._names.outside)) as pages:
            async for page in pages:
                yield Value("outside", "", "list", page)

    async def _stream(self, kind: str, key: str, start: bytes, count: int) -> AsyncGenerator[Value]:
        """Yields the entries of a stream, each as a value."""
        while True:
            answer = await self._client.command("XRANGE", key, start, "+", "COUNT", count)
            rows = cast("list[tuple[bytes, list[bytes]]]", answer)
            for entry, words in rows:
                yield Value(kind, "", "stream", [entry, b"%d" % len(words), *words])
            if len(rows) < count:
                return
            start = b"(" + rows[-1][0]

    async def _quarantined(self, names: AsyncGenerator[list[str]]) -> AsyncGenerator[Value]:
        async with aclosing(names) as pages:
            async for page in pages:
                for at in range(0, len(page), LETTERS_AT_ONCE):
                    some = page[at : at + LETTERS_AT_ONCE]
                    for value in await all_of(lambda name: self._hash("quarantined", name), some):
                        if value.parts:
                            yield value

    async def _since(self, began_ms: int) -> AsyncGenerator[list[str]]:
        """Yields the names of messages that came into quarantine since `began_ms`, and by SKEW_MS earlier, since clocks differ."""
        found = await self._asked("ZRANGEBYSCORE", self._names.quarantine, began_ms - SKEW_MS, "+inf")
        yield [name.decode() for name in found]

    async def _conversations(self) -> AsyncGenerator[Saved]:
        async with aclosing(self._scan("conv")) as pages:
            async for page in pages:
                for at in range(0, len(page), CONVERSATIONS_AT_ONCE):
                    some = page[at : at + CONVERSATIONS_AT_ONCE]
                    for conversation_id, whole in zip(some, await all_of(self._whole, some), strict=True):
                        if whole is not None:
                            yield whole
                            continue
                        async with aclosing(self._in_parts(conversation_id)) as parts:
                            async for part in parts:
                                yield part

    async def _whole(self, conversation_id: str) -> SavedConversation | None:
        """Reads a conversation at once; returns None if too much waits in it."""
        found = await self._at_once(conversation_id, self._most_bytes, ())
        return None if found is None else found[0]

    async def _at_once(
        self, conversation_id: str, most_bytes: int, read_before: Iterable[str]
    ) -> tuple[SavedConversation, int] | None:
        """Reads a conversation without records that were read before (their SHA-1), and the length of its out-box; None if it is too large."""
        arguments = (conversation_id, most_bytes, "".join(read_before))
        names = self._names
        own = (names.state(conversation_id), names.waits(conversation_id), names.history(conversation_id))
        keys = (*names.board(conversation_id), *own)
        answer = await self._client.script("save_conversation", keys, *arguments)
        parts = cast("list[Answer]", answer)
        if parts == [b"large"]:
            return None
        row, ids, ids_until, taken, taken_until, emitted, sent, load, job, reply, superseded, *rest = parts
        said, state = rest[4:6]
        box, parked, together, out, placed, values, waits, history = cast("list[list[bytes]]", [*rest[:4], *rest[6:]])
        conversation = SavedConversation(
            conversation_id,
            cast("list[bytes]", row),
            cast(bytes, ids),
            cast(int, ids_until),
            cast("list[bytes]", taken),
            cast(int, taken_until),
            cast("list[bytes]", emitted),
            cast("list[bytes]", sent),
            cast("list[bytes]", load),
            cast("list[bytes]", job),
            cast("list[bytes]", reply),
            superseded == 1,
            box,
            parked,
            together,
            out,
            cast(bytes, state),
            placed,
            values,
            waits,
            history,
        )
        return conversation, cast(int, said)

    async def _in_parts(self, conversation_id: str) -> AsyncGenerator[Saved]:
        """Yields pages of what waits, then the conversation with everything that waits and is on none of the pages."""
        read: set[str] = set()
        for place in ("parked", "box", "out", "together"):
            is_sorted = place in ("parked", "box")
            pages = self._sorted_from_the_end if is_sorted else self._list_from_the_end
            async with aclosing(pages(self._names.of(place, conversation_id))) as parts:
                async for part in parts:
                    read |= {_sha1(record) for record in (part[::2] if is_sorted else part)}
                    yield Waiting(conversation_id, place, part)
        found = await self._at_once(conversation_id, NO_LIMIT, read)
        if found is None:
            return
        conversation, said = found
        for place, late in (("box", conversation.box), ("parked", conversation.parked)):
            for at in range(0, len(late), 2 * LETTERS_AT_ONCE):
                yield Waiting(conversation_id, place, late[at : at + 2 * LETTERS_AT_ONCE])
        out, reply = conversation.out, dict(pairs(conversation.reply))
        if len(out) < said and out[:1] == [reply.get(b"r")]:  # it was put before those on the pages (post_before.lua)
            yield Waiting(conversation_id, "out", out[:1])
            out = out[1:]
        yield msgspec.structs.replace(conversation, box=[], parked=[], out=out)

    async def _sorted_from_the_end(self, key: str) -> AsyncGenerator[list[bytes]]:
        """Yields pages of a sorted set from its end, so that items that leave at the beginning meanwhile shift none."""
        last = -1
        while page := await self._asked("ZRANGE", key, last - LETTERS_AT_ONCE + 1, last, "WITHSCORES"):
            yield page
            last -= LETTERS_AT_ONCE

    async def _list_from_the_end(self, key: str) -> AsyncGenerator[list[bytes]]:
        """Yields pages of a list from its end, each right before the former one, whatever is pushed or removed meanwhile."""
        end, first = -1, b""
        while True:
            start = end - LETTERS_AT_ONCE
            page = await self._asked("LRANGE", key, max(start, 0) if end >= 0 else start, end)
            if first and page[-1:] != [first]:
                moved = await self._client.command("LPOS", key, first)
                if not isinstance(moved, int):
                    return  # it has left, and all before it
                end = moved
                continue
            earlier = page[:-1] if first else page
            if not earlier:
                return
            yield earlier
            end, first = end - len(page) + 1, page[0]

    async def _asked(self, *command: bytes | str | int) -> list[bytes]:
        return cast("list[bytes]", await self._client.command(*command))


def _sha1(record: bytes) -> str:
    """Returns the SHA-1 of a record in hex, which the script makes too."""
    return hashlib.sha1(record, usedforsecurity=False).hexdigest()
