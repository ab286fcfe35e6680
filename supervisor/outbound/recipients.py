"""Finds to whom the replies in a conversation go, as far as this process knows: a commit finds out if it is not so any more."""

from collections import OrderedDict
from typing import Final

import trio

from bus.records.records import GROUP
from bus.steps.store import InboundStore
from bus.steps.write_count import WriteCount
from crypto.groups import GroupKeys
from supervisor.outbound.outgoing import Recipient
from supervisor.peers.groups import Groups
from supervisor.peers.owners import Owner, Owners

MOST_MEMBERS_WITH_STREAMS: Final = 200
"""Members of a group in which streams are shown, at most (PROTOCOL §1)."""

MOST_PINS: Final = 5000
"""Conversations whose pins are remembered, some 2 MiB; the one that was read longest ago leaves first."""

PIN_SECONDS = 60.0
"""How long a pin is remembered: one that Redis has lost without raising the epoch is found out after a minute at the latest."""


class PinMemory:
    """Remembers to whom each conversation belongs: a pin never changes once it is set, so a busy conversation's is not read each time.

    Only a Redis that went back in time forgets one (DESIGN rule 17): what was read under another epoch counts no more.
    """

    def __init__(self, store: InboundStore, *, most: int = MOST_PINS) -> None:
        self._store = store
        self._most = most
        self._known: OrderedDict[str, tuple[int, float, tuple[str, str]]] = OrderedDict()

    async def find(self, conversation_id: str, epoch: int) -> tuple[str, str] | None:
        """Returns the conversation's pinned kind and person; None before its first message. `epoch`: the present one."""
        known = self._known.get(conversation_id)
        if known is not None and known[0] == epoch and trio.current_time() - known[1] < PIN_SECONDS:
            return known[2]
        pins = await self._store.pins(conversation_id)
        if pins is not None:
            self._remember(conversation_id, epoch, pins)
        return pins

    def _remember(self, conversation_id: str, epoch: int, pins: tuple[str, str]) -> None:
        self._known[conversation_id] = (epoch, trio.current_time(), pins)
        self._known.move_to_end(conversation_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


class Recipients:
    """Finds the recipients in one agent's conversations."""

    def __init__(self, store: InboundStore, owners: Owners, groups: Groups, write_count: WriteCount) -> None:
        self._pins = PinMemory(store)
        self._owners = owners
        self._groups = groups
        self._write_count = write_count

    async def find(self, conversation_id: str) -> tuple[str, Recipient | None]:
        """Returns the conversation's pinned kind, and to whom a reply in it goes; None if nobody may be written to."""
        pins = await self._pins.find(conversation_id, self._write_count.epoch)
        if pins is None:
            return "", None
        kind, person = pins
        if kind == GROUP:
            keys = await self._groups.to_write(person)
            return kind, None if keys.current is None else keys
        return kind, _active(await self._owners.find_to_write(person))

    async def read_again(self, recipient: Recipient) -> Recipient | None:
        """Returns the recipient as Redis has it now; None if it may not be written to any more. A group is returned as it is."""
        if isinstance(recipient, GroupKeys):
            return recipient
        return _active(await self._owners.find(recipient.owner_id))


def row_of(recipient: Recipient) -> tuple[str, int] | None:
    """Returns whose row, in which version, a reply is addressed by; None for a group. The commit checks the version."""
    return None if isinstance(recipient, GroupKeys) else (recipient.owner_id, recipient.row_version)


def has_same_keys(one: Recipient, other: Recipient) -> bool:
    """Whether both have the same pinned pair. True for groups, whose messages are sealed with the key in the recipient itself."""
    if isinstance(one, GroupKeys) or isinstance(other, GroupKeys):
        return True
    return one.grant.pinned == other.grant.pinned


def shows_streams(recipient: Recipient) -> bool:
    """Whether the recipient is shown streams: not in large groups (PROTOCOL §1), where only the whole message goes out."""
    if not isinstance(recipient, GroupKeys):
        return True
    return recipient.current is not None and len(recipient.current.members) <= MOST_MEMBERS_WITH_STREAMS


def _active(owner: Owner | None) -> Owner | None:
    return owner if owner is not None and owner.is_active else None
