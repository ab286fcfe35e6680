"""To whom the replies in a conversation go, as far as this process knows: a commit finds out if it is not so any more."""

from bus.steps.store import Store
from bus.steps.write_count import WriteCount
from crypto.groups import GroupKeys
from supervisor.outbound.pins import Pins
from supervisor.peers.addressing import GROUP
from supervisor.peers.groups import Groups
from supervisor.peers.owners import Owner, Owners

MOST_MEMBERS_WITH_STREAMS = 200

Recipient = Owner | GroupKeys


class Recipients:
    """Of one agent's conversations."""

    def __init__(self, store: Store, owners: Owners, groups: Groups, write_count: WriteCount) -> None:
        self._pins = Pins(store)
        self._owners = owners
        self._groups = groups
        self._write_count = write_count

    async def find(self, conversation_id: str) -> tuple[str, Recipient | None]:
        """The conversation's pinned kind, and to whom a reply in it goes; None: nobody may be written to."""
        pins = await self._pins.find(conversation_id, self._write_count.epoch)
        if pins is None:
            return "", None
        kind, person = pins
        if kind == GROUP:
            keys = await self._groups.to_write(person)
            return kind, None if keys.current is None else keys
        return kind, _active(await self._owners.find_to_write(person))

    async def read_again(self, recipient: Recipient) -> Recipient | None:
        """Who this is now, by Redis; None: nobody who may be written to."""
        if isinstance(recipient, GroupKeys):
            return recipient
        return _active(await self._owners.find(recipient.owner_id))


def row_of(recipient: Recipient) -> tuple[str, int] | None:
    """The owner's row, and its version, by which a reply is addressed; a group has none."""
    return None if isinstance(recipient, GroupKeys) else (recipient.owner_id, recipient.row_version)


def has_same_keys(one: Recipient, other: Recipient) -> bool:
    """Whether an owner's pinned pair is the same; a group's messages are sealed with what stands in the recipient itself."""
    if isinstance(one, GroupKeys) or isinstance(other, GroupKeys):
        return True
    return one.grant.pinned == other.grant.pinned


def shows_streams(recipient: Recipient) -> bool:
    """Streams are disabled in large groups (PROTOCOL §1): there only the whole message goes out."""
    if not isinstance(recipient, GroupKeys):
        return True
    return recipient.current is not None and len(recipient.current.members) <= MOST_MEMBERS_WITH_STREAMS


def _active(owner: Owner | None) -> Owner | None:
    return owner if owner is not None and owner.is_active else None
