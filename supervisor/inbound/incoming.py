"""A frame on its way in, and how it came, as a value."""

import msgspec

from bus.steps.store import Arrival, Source
from supervisor.relay.frames import ArtifactResponse, MessageNew

MessageFrame = MessageNew | ArtifactResponse
"""What the relay brings of a person's or an agent's: a message, or an answer to an artifact."""


class Incoming(msgspec.Struct, frozen=True):
    """A frame and how it came. `is_known`: its id is remembered since it was quarantined, which makes it no duplicate now.

    `kept_as`: its name in quarantine where another message has its message_id. `noted`: the signed id (in hex) with which it was noted
    that it waits at the relay: it was not stale then. `trace`: of the span that brings it.
    """

    frame: MessageFrame
    source: Source
    received_ms: int
    is_known: bool = False
    kept_as: str = ""
    noted: str = ""
    trace: str = ""

    @property
    def may_wait(self) -> bool:
        """Whether it may be told to wait at the relay; what was in quarantine, or has waited there, may not."""
        return self.source in (Source.PUSH, Source.POLL)

    def arrival(self) -> Arrival:
        """Returns what can be said of it while nothing of the envelope is authentic: only the relay's message_id names it."""
        frame = self.frame
        return Arrival(
            conversation_id=frame.conversation_id,
            source=self.source,
            seq=frame.conversation_seq,
            signed_id=b"",
            message_ms=0,
            message_id=frame.message_id,
            received_ms=self.received_ms,
            kept_as=self.kept_as,
            trace=self.trace,
        )
