"""What may mend which reason of the quarantine: a relation, a group's key, a session. Used by what hears of it, and by commands.

A message waits for one thing: its sender, its group's key, or the one session that its key would come from. So whatever comes touches
only what it may mend, however much there is besides.
"""

import msgspec
import trio

from bus.steps.letters import Quarantine, Quarantined
from crypto.errors import Reason

# `bad_signature` too: what a person signs with changed keys before the relation shows them verifies under no pinned pair.
OWNER_REASONS = frozenset(
    reason.value
    for reason in (Reason.NO_GRANT, Reason.UNKNOWN_SENDER, Reason.KEY_CHANGED, Reason.NO_SCOPE, Reason.BAD_SIGNATURE)
)
GROUP_REASONS = frozenset((Reason.UNKNOWN_GROUP_KEY.value,))
SESSION_REASONS = frozenset(reason.value for reason in (Reason.NO_SESSION, Reason.UNKNOWN_PREKEY))

MOST_TRIGGERS = 1000
"""So many wait to be marked; beyond that all of the quarantine is looked through once."""

MENDABLE_REASONS = OWNER_REASONS | GROUP_REASONS | SESSION_REASONS
"""Of these the frame is kept whole, as far as there is room: it may be read later without the relay."""


class RetryTrigger(msgspec.Struct, frozen=True):
    """What has come; what waits for one of these may be mended, if it stands there for one of the reasons."""

    reasons: frozenset[str]
    things: tuple[str, ...]


def owner_changed(owner_id: str) -> RetryTrigger:
    """A relation was established or restored, a device is listed, or a decision about keys was made."""
    return RetryTrigger(OWNER_REASONS, (owner_id,))


def group_key_came(group_id: str) -> RetryTrigger:
    """A group has a new key; what an older version has put there may be of any group."""
    return RetryTrigger(GROUP_REASONS, (group_id, ""))


def session_began(owner_id: str, session: bytes) -> RetryTrigger:
    """A session works now; what an older version has put there may be of any session of this owner."""
    return RetryTrigger(SESSION_REASONS, (session_thing(owner_id, session), owner_id))


def session_thing(owner_id: str, session: bytes) -> str:
    """What a message of this session waits for that came before its session."""
    return f"{owner_id}/{session.hex()}"


def thing_of(message: Quarantined) -> str:
    """What a message waits for that an older version has put there."""
    return "" if message.reason in GROUP_REASONS else message.sender_id


class RetryTriggers:
    """What has come and is not marked yet, in order; made by who hears of it, taken by who tries the quarantine again."""

    def __init__(self, most: int = MOST_TRIGGERS) -> None:
        self._send, self._triggers = trio.open_memory_channel[RetryTrigger](most)
        self._has_missed = False

    def owner_changed(self, owner_id: str) -> None:
        """A relation was established or restored, a device is listed, or a decision about keys was made."""
        self._add(owner_changed(owner_id))

    def group_key_came(self, group_id: str) -> None:
        """A group has a new key."""
        self._add(group_key_came(group_id))

    def session_began(self, owner_id: str, session: bytes) -> None:
        """The owner's device has started a session that works."""
        self._add(session_began(owner_id, session))

    async def next(self) -> RetryTrigger:
        """Wait for the next one."""
        return await self._triggers.receive()

    @property
    def waiting(self) -> int:
        """How many were not taken yet."""
        return self._triggers.statistics().current_buffer_used

    def take_missed(self) -> bool:
        """Whether some had no room since this was asked last: then anything may have come."""
        has_missed, self._has_missed = self._has_missed, False
        return has_missed

    def _add(self, trigger: RetryTrigger) -> None:
        try:
            self._send.send_nowait(trigger)
        except trio.WouldBlock:
            self._has_missed = True


async def mark(quarantine: Quarantine, trigger: RetryTrigger) -> int:
    """A supervisor is to try these again; how many. Raises RedisFailed."""
    found = await quarantine.waiting_for(trigger.things, sorted(trigger.reasons))
    await quarantine.want(found)
    return len(found)
