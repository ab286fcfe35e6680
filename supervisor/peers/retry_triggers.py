"""Events that may make quarantined messages readable (a relation, a group's key, a session), and the messages that wait for each.

Used by the retrier, which hears of the events, and by commands. A message waits for one thing: its sender, its group's key, or the session
that its key would come from. So an event touches only the messages that it may mend, however many others there are.
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

DATED_REASONS = frozenset((Reason.MALFORMED.value,))
OUR_CLOCK = "our clock"
"""What a message waits for that is dated more than a day after our clock; no id, which has no space."""

MOST_TRIGGERS = 1000
"""Triggers that wait to be marked, of a few ids each. One more, and the whole quarantine is looked at instead."""

MENDABLE_REASONS = OWNER_REASONS | GROUP_REASONS | SESSION_REASONS
"""Of these the frame is kept whole, as far as there is room: it may be read later without the relay."""


class RetryTrigger(msgspec.Struct, frozen=True):
    """An event that may make quarantined messages readable: those with one of the reasons that wait for one of the things."""

    reasons: frozenset[str]
    things: tuple[str, ...]


def owner_changed(owner_id: str) -> RetryTrigger:
    """Returns the trigger of a relation that was established or restored, a device that is listed, or a decision about keys."""
    return RetryTrigger(OWNER_REASONS, (owner_id,))


def group_key_came(group_id: str) -> RetryTrigger:
    """Returns the trigger of a group's new key; a message that an older version has put there may be of any group."""
    return RetryTrigger(GROUP_REASONS, (group_id, ""))


def session_began(owner_id: str, session: bytes) -> RetryTrigger:
    """Returns the trigger of a session that works now; a message of an older version may be of any session of this owner."""
    return RetryTrigger(SESSION_REASONS, (session_thing(owner_id, session), owner_id))


def clock_was_set() -> RetryTrigger:
    """Returns the trigger of our clock, which was wrong and is right now."""
    return RetryTrigger(DATED_REASONS, (OUR_CLOCK,))


def session_thing(owner_id: str, session: bytes) -> str:
    """Returns what a message waits for that came before its session."""
    return f"{owner_id}/{session.hex()}"


def thing_of(message: Quarantined) -> str:
    """Returns what a message waits for that an older version has put there."""
    return "" if message.reason in GROUP_REASONS else message.sender_id


class RetryTriggers:
    """A queue of triggers: filled by whoever hears of an event, emptied by the retrier, which marks what they may mend."""

    def __init__(self, most: int = MOST_TRIGGERS) -> None:
        self._send, self._triggers = trio.open_memory_channel[RetryTrigger](most)
        self._has_missed = False

    def owner_changed(self, owner_id: str) -> None:
        """Called when a relation was established or restored, a device is listed, or a decision about keys was made."""
        self._add(owner_changed(owner_id))

    def group_key_came(self, group_id: str) -> None:
        """Called when a group has a new key."""
        self._add(group_key_came(group_id))

    def session_began(self, owner_id: str, session: bytes) -> None:
        """Called when the owner's device has started a session that works."""
        self._add(session_began(owner_id, session))

    def clock_was_set(self) -> None:
        """Called when our clock was another than the relay's and is no more."""
        self._add(clock_was_set())

    async def next(self) -> RetryTrigger:
        """Waits for the next trigger, and returns it."""
        return await self._triggers.receive()

    @property
    def waiting(self) -> int:
        """Number of triggers that were not taken yet."""
        return self._triggers.statistics().current_buffer_used

    def take_missed(self) -> bool:
        """Whether a trigger had no room since this was called last: then anything may have come."""
        has_missed, self._has_missed = self._has_missed, False
        return has_missed

    def _add(self, trigger: RetryTrigger) -> None:
        try:
            self._send.send_nowait(trigger)
        except trio.WouldBlock:
            self._has_missed = True


async def mark(quarantine: Quarantine, trigger: RetryTrigger) -> int:
    """Marks the messages that a trigger may mend: a supervisor tries them again. Returns how many. Raises RedisFailed."""
    found = await quarantine.waiting_for(trigger.things, sorted(trigger.reasons))
    await quarantine.want(found)
    return len(found)
