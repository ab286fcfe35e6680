"""Messages that wait at the relay, since their sender has too much waiting here: a note of each, until it is fetched (docs/design.md).

A note says in less than 200 bytes where its message stands at the relay: behind a cursor up to which all was taken in when it was made.
"""

from typing import cast

import msgspec

from bus.budgets import StoreBudgets
from bus.client import Commands
from bus.keys import Keys

SENDER = "s:"
MOST_IN_MAILBOX = 100  # unless the handler's code says otherwise (bus/policies.py)


class Note(msgspec.Struct, frozen=True, order=True):
    """One message of a sender that waits at the relay; notes of a sender are in order. `cursor` None: behind nothing."""

    order: int
    seq: int
    conversation_id: str
    message_id: str
    cursor: str | None


class Notes:
    """Of one agent; raises RedisFailed."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def count(self) -> int:
        """How many messages wait at the relay."""
        return int(cast("bytes | None", await self._client.command("HGET", self._keys.held, "total")) or 0)

    async def senders(self) -> list[str]:
        """Whose messages wait there."""
        fields = cast("list[bytes]", await self._client.command("HKEYS", self._keys.held))
        return [field.decode().removeprefix(SENDER) for field in fields if field.decode().startswith(SENDER)]

    async def of(self, sender_id: str) -> list[Note]:
        """A sender's notes, in order."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.notes(sender_id)))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted(_note(message_id.decode(), value.decode()) for message_id, value in pairs)

    async def may_come(self, sender_id: str, first: Note, budgets: StoreBudgets) -> bool:
        """Whether half of what the sender may have waiting is free, and half of the mailbox of the first one's conversation."""
        loads = await self._client.command("HMGET", self._keys.load, "total", SENDER + sender_id)
        total, theirs = [int(one or 0) for one in cast("list[bytes | None]", loads)]
        if theirs > (budgets.waiting_bytes - total) / 8:
            return False
        most = cast("bytes | None", await self._client.command("HGET", self._keys.policy, "most"))
        waiting = cast(int, await self._client.command("ZCARD", self._keys.mailbox(first.conversation_id)))
        return waiting <= int(most or MOST_IN_MAILBOX) // 2

    async def forget(self, sender_id: str, note: Note, *, is_gone: bool = False) -> bool:
        """The message was taken in; `is_gone`: the relay has it no more, which stays visible as a dead letter."""
        keys = [*self._keys.board(note.conversation_id), self._keys.notes(sender_id)]
        arguments = (note.conversation_id, note.message_id, sender_id, int(is_gone))
        return await self._client.script("unhold", keys, *arguments) == 1


def _note(message_id: str, value: str) -> Note:
    order, seq, conversation_id, cursor = value.split("\0")
    return Note(int(order), int(seq), conversation_id, message_id, cursor or None)
