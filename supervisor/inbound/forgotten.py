"""What the relay has of ours and nobody here remembers: this state is older than it was, whatever else says that it is not (DESIGN rule 17).

The relay counts what it stores of a conversation, both ways. A person's message shows by its seq how many there are before it; those that
were neither taken in, nor confirmed as ours, nor may be the one send that still waits for its confirmation, are ours and forgotten. That
tells after a virtual machine was put back with its memory, when the witness came back too. Of one forgotten message alone nobody can tell
while another waits: that one has its ratchet position already, and no later one has.
It may also be the relay that has lost or withheld something: then this costs one small message more.
"""

import time

import structlog

from bus.steps.store import ConversationSnapshot, Source, now_ms
from bus.steps.write_count import WriteCount
from supervisor.observe.metrics import Metrics
from supervisor.peers.owners import Owner
from supervisor.peers.sessions import Sessions

AFTER_A_RETURN_SECONDS = 60.0
"""After Redis was found to be older the relay counts more than is known as well, and all sessions are started anew already."""

log = structlog.get_logger()


class ForgottenSends:
    """Of one agent: its sessions with whoever was sent something that is forgotten here are not sent on again."""

    def __init__(self, sessions: Sessions, write_count: WriteCount, metrics: Metrics) -> None:
        self._sessions = sessions
        self._write_count = write_count
        self._metrics = metrics

    async def are_found(self, owner: Owner, conversation_id: str, look: ConversationSnapshot, source: Source) -> bool:
        """Whether a message shows some; then the sessions with all devices of its sender are given up, before anything is answered. A message
        that is pushed may only have overtaken others, and comes again when it is polled. Raises RedisFailed.
        """
        if look.missing <= 0 or source is not Source.POLL:
            return False
        if time.monotonic() - self._write_count.raised_seconds < AFTER_A_RETURN_SECONDS:
            return False
        given_up = [
            device
            for device in owner.grant.devices
            if await self._sessions.never_send_on_again((owner.owner_id, device), now_ms())
        ]
        if given_up:
            self._metrics.forgotten_sends.inc()
            log.warning(
                "session: the relay counts more of ours than is known here; they are started anew",
                conversation_id=conversation_id,
                missing=look.missing,
                devices=len(given_up),
            )
        return len(given_up) > 0
