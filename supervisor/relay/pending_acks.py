"""Conversations whose last acknowledgement or refusal was heard and is not in Redis yet: what is pushed in them waits for it.

Delivery hears the answer and notes it; what comes in of the conversation waits here meanwhile. Neither knows the other.
"""

import trio

SETTLE_SECONDS = 2.0
"""A pushed message waits at most so long for the answer before it: then it is out of sequence, and comes with a poll."""


class PendingAcks:
    """The answers that one supervisor has heard and not noted yet."""

    def __init__(self) -> None:
        self._pending: dict[str, trio.Event] = {}

    def heard(self, conversation_id: str) -> None:
        """Called when the relay has answered our last message in the conversation."""
        self._pending.setdefault(conversation_id, trio.Event())

    def noted(self, conversation_id: str) -> None:
        """Called when the answer stands in Redis, or cannot for now."""
        pending = self._pending.pop(conversation_id, None)
        if pending is not None:
            pending.set()

    async def wait_noted(self, conversation_id: str) -> None:
        """Waits until the answer heard of our last message in the conversation is noted, at most SETTLE_SECONDS.

        Only then is the next message of a person who answers at once in sequence (DESIGN rule 1).
        """
        pending = self._pending.get(conversation_id)
        if pending is not None:
            with trio.move_on_after(SETTLE_SECONDS):
                await pending.wait()
