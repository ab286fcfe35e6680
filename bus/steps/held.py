"""Notes of messages that wait at the relay because their sender has too much waiting here, kept until they are fetched (docs/design.md).

A note says in some 200 bytes behind which cursor its message stands at the relay: everything up to that cursor was taken in. A sender who
has used up their share of notes gets one open-ended note for all that follows in a conversation, so that notes do not grow with messages.
"""

from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.transport.client import Commands
from host.budgets import StoreBudgets

SENDER = "s:"
SEPARATOR = "\x1f"  # stands in no id
MOST_IN_MAILBOX = 100  # unless the handler's code says otherwise (bus/steps/policies.py)


class Note(msgspec.Struct, frozen=True):
    """One message that waits at the relay; the notes of a sender are in order. `cursor` None: poll from the beginning.

    `signed_id`: in hex, the id that its author signed; it was authentic and fresh, while the message_id is only the relay's word. An
    open-ended note stands for every message from `seq` to `last_seq` (whose message is `message_id`), and has no signed id.
    """

    order: int
    seq: int
    conversation_id: str
    message_id: str
    cursor: str | None
    signed_id: str = ""
    last_seq: int | None = None

    @property
    def is_open(self) -> bool:
        """Returns whether it stands for all further messages of its sender in the conversation."""
        return self.last_seq is not None

    def stands_for(self, seq: int) -> bool:
        """Returns whether this open-ended note stands for the message with this seq."""
        return self.last_seq is not None and self.seq <= seq <= self.last_seq


class Notes:
    """The notes of one agent; every method raises RedisFailed."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def count(self) -> int:
        """Returns how many notes there are."""
        return number_in(await self._client.command("HGET", self._keys.held, "total"))

    async def senders(self) -> list[str]:
        """Returns the senders whose messages wait at the relay."""
        fields = cast("list[bytes]", await self._client.command("HKEYS", self._keys.held))
        return [field.decode().removeprefix(SENDER) for field in fields if field.decode().startswith(SENDER)]

    async def of(self, sender_id: str) -> list[Note]:
        """Returns a sender's notes, in order."""
        flat = cast("list[bytes]", await self._client.command("HGETALL", self._keys.notes(sender_id)))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted((_note(field.decode(), value.decode()) for field, value in pairs), key=lambda note: note.order)

    async def may_come(self, sender_id: str, first: Note, budgets: StoreBudgets) -> bool:
        """Returns True if half of the sender's share and half of the mailbox of the first note's conversation are free."""
        loads = await self._client.command("HMGET", self._keys.load, "total", SENDER + sender_id)
        total, theirs = [number_in(one) for one in cast("list[bytes | None]", loads)]
        if theirs > (budgets.waiting_bytes - total) / 8:
            return False
        most = cast("bytes | None", await self._client.command("HGET", self._keys.policy, "most"))
        waiting = cast(int, await self._client.command("ZCARD", self._keys.mailbox(first.conversation_id)))
        return waiting <= int(most or MOST_IN_MAILBOX) // 2

    async def forget(self, sender_id: str, note: Note, *, is_gone: bool = False) -> bool:
        """Removes a note after its message was taken in; with `is_gone` the relay has lost it, and a dead letter says so."""
        if note.last_seq is not None:
            return await self._move(sender_id, note, note.last_seq, "") > 0
        keys = [*self._keys.board(note.conversation_id), self._keys.notes(sender_id)]
        arguments = (note.conversation_id, note.message_id, sender_id, int(is_gone))
        return await self._client.script("unhold", keys, *arguments) == 1

    async def reached(self, sender_id: str, note: Note, seq: int, message_id: str) -> bool:
        """Moves an open-ended note behind this message, which was taken in; returns False if some before it never came."""
        return await self._move(sender_id, note, seq, message_id) != 2

    async def _move(self, sender_id: str, note: Note, seq: int, message_id: str) -> int:
        keys = [*self._keys.board(note.conversation_id), self._keys.notes(sender_id)]
        return cast(
            int, await self._client.script("unhold_open", keys, note.conversation_id, sender_id, seq, message_id)
        )


def _note(field: str, value: str) -> Note:
    order, seq, conversation_id, cursor, *more = value.split(SEPARATOR)
    if field.startswith(SEPARATOR):
        last_seq, message_id, _ = more
        return Note(int(order), int(seq), conversation_id, message_id, cursor or None, last_seq=int(last_seq))
    return Note(int(order), int(seq), conversation_id, field, cursor or None, "".join(more))
