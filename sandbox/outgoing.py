"""What a person has said and the relay has not acknowledged: the exact bytes, in order, until they are."""

import trio


class Outgoing:
    """One task takes with `next`; a new connection starts over with `again`."""

    def __init__(self) -> None:
        self._frames: dict[str, str] = {}
        self._unsent: dict[str, None] = {}
        self._added = trio.Event()

    @property
    def unacknowledged(self) -> int:
        return len(self._frames)

    def add(self, client_message_id: str, text: str) -> None:
        self._frames[client_message_id] = text
        self._queue(client_message_id)

    def acknowledged(self, client_message_id: str) -> None:
        """Acknowledged, or refused for good: not sent again."""
        self._frames.pop(client_message_id, None)
        self._unsent.pop(client_message_id, None)

    def again(self, client_message_id: str | None = None) -> None:
        """Sends this one again, or everything that is unacknowledged, in the order in which it was said."""
        if client_message_id is None:
            self._unsent.clear()
        for known in list(self._frames):
            if client_message_id in (None, known):
                self._queue(known)

    async def next(self) -> str:
        """The next one to send."""
        while not self._unsent:
            await self._added.wait()
        client_message_id = next(iter(self._unsent))
        del self._unsent[client_message_id]
        return self._frames[client_message_id]

    def _queue(self, client_message_id: str) -> None:
        self._unsent[client_message_id] = None
        self._added.set()
        self._added = trio.Event()
