"""What may mend which reason of the quarantine: a relation, a group's key, a session. Used by what hears of it, and by commands."""

import msgspec
import structlog

from bus.letters import Quarantine, Quarantined
from crypto.errors import Reason
from supervisor.frames import ArtifactResponse, MalformedFrame, MessageNew, decode_from_relay

# `bad_signature` too: what a person signs with changed keys before the relation shows them verifies under no pinned pair.
OWNER_REASONS = frozenset(
    reason.value
    for reason in (Reason.NO_GRANT, Reason.UNKNOWN_SENDER, Reason.KEY_CHANGED, Reason.NO_SCOPE, Reason.BAD_SIGNATURE)
)
GROUP_REASONS = frozenset((Reason.UNKNOWN_GROUP_KEY.value,))
SESSION_REASONS = frozenset(reason.value for reason in (Reason.NO_SESSION, Reason.UNKNOWN_PREKEY))

log = structlog.get_logger()


class Hope(msgspec.Struct, frozen=True):
    """What has come: of a sender (None: of anybody), it may mend these reasons."""

    reasons: frozenset[str]
    sender_id: str | None = None

    def is_for(self, message: Quarantined) -> bool:
        return message.reason in self.reasons and self.sender_id in (None, message.sender_id)


def owner_changed(owner_id: str) -> Hope:
    """A relation was established or restored, a device is listed, or a decision about keys was made."""
    return Hope(OWNER_REASONS, owner_id)


async def mark(quarantine: Quarantine, hope: Hope) -> int:
    """A supervisor is to try these again; how many. Raises RedisFailed."""
    found = [message.message_id async for message in quarantine.all() if hope.is_for(message)]
    await quarantine.want(found)
    return len(found)


def kept_frame(message: Quarantined) -> MessageNew | ArtifactResponse | None:
    """The frame as the relay sent it; None where it is not readable, which only a defect makes."""
    try:
        frame = decode_from_relay(message.frame)
    except MalformedFrame as error:
        log.error("quarantine: the kept frame is not readable", message_id=message.message_id, field=error.field)
        return None
    return frame if isinstance(frame, MessageNew | ArtifactResponse) else None
