"""Finds messages of ours that the relay has and nobody here remembers: then this state is older than it was (DESIGN rule 17).

The relay counts what it stores of a conversation, both ways. A person's message shows by its seq how many there are before it. Those that
were neither taken in nor confirmed as ours, except for the one send that may still wait for its confirmation, are ours and forgotten. This
also tells after a virtual machine was put back with its memory, when the witness came back too. One forgotten message alone cannot be told
from a send that waits: that send has the forgotten message's ratchet position already, and no later one has.
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
"""So long after Redis was found to be older this is not asked: the relay counts more than is known then too, and sessions are started anew already."""

log = structlog.get_logger()


class ForgottenSends:
    """Gives up one agent's sessions with whoever was sent something that is forgotten here."""

    def __init__(self, sessions: Sessions, write_count: WriteCount, metrics: Metrics) -> None:
        self._sessions = sessions
        self._write_count = write_count
        self._metrics = metrics

    async def are_found(
        self, owner: Owner, conversation_id: str, snapshot: ConversationSnapshot, source: Source
    ) -> bool:
        """Whether a message shows that sends are forgotten; then the sessions with all devices of its sender are given up at once.

        Only polled messages are asked: one that is pushed may have overtaken others, and comes again with a poll. Raises RedisFailed.
        """
        if snapshot.missing <= 0 or source is not Source.POLL:
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
                missing=snapshot.missing,
                devices=len(given_up),
            )
        return len(given_up) > 0
