"""When this process has sent what the relay has not acknowledged yet. Bounded; only for the ledger."""

from collections import OrderedDict

from bus.steps.store import now_ms

MOST_KEPT = 10_000


class SentTimes:
    """client_message_id → time (ms) of the last send."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, int] = OrderedDict()

    def note(self, client_message_id: str) -> None:
        """It goes out now."""
        self._sent[client_message_id] = now_ms()
        self._sent.move_to_end(client_message_id)
        while len(self._sent) > MOST_KEPT:
            self._sent.popitem(last=False)

    def take(self, client_message_id: str) -> int | None:
        """Forgotten from now on; None where another process sent it."""
        return self._sent.pop(client_message_id, None)
