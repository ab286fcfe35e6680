"""Reads messages again from the relay that are known here by their id alone, from a cursor before them.

Never moves the agent's cursor, and decides nothing about a message.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from bus.steps.letters import digest_of, name_beside
from supervisor.inbound.incoming import MessageFrame
from supervisor.relay.frames import ArtifactResponse, MessageNew
from supervisor.relay.rest import Rest, RestFailed


class Refetch:
    """Reads one walk's messages. Keeps the page that was read last, since what is asked for next mostly stands in it."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._page: list[MessageFrame] = []

    async def find(self, name: str, cursor: str | None) -> MessageFrame | None:
        """Finds the message of this name in quarantine, which stood behind `cursor`. None if the relay has it no more. Raises RestFailed."""
        found = _among(self._page, name)
        if found is not None:
            return found
        async with aclosing(self.pages(cursor)) as pages:
            async for page in pages:
                self._page = page
                found = _among(page, name)
                if found is not None:
                    return found
        return None

    async def pages(self, cursor: str | None) -> AsyncGenerator[list[MessageFrame]]:
        """Yields what the relay has behind `cursor`, in its order; all that it has if it does not know the cursor. Raises RestFailed."""
        while True:
            try:
                page = await self._rest.poll(cursor)
            except RestFailed as error:
                if cursor is None or not error.is_refusal:
                    raise
                cursor = None
                continue
            if not page.frames:
                return
            yield [frame for frame in page.frames if isinstance(frame, MessageNew | ArtifactResponse)]
            if page.last_id is None or page.last_id == cursor:
                raise RestFailed("poll", 200, "no progress")
            cursor = page.last_id


def _among(page: list[MessageFrame], name: str) -> MessageFrame | None:
    return next((frame for frame in page if name in (frame.message_id, _name_beside_others(frame))), None)


def _name_beside_others(frame: MessageFrame) -> str:
    return name_beside(frame.message_id, digest_of(frame.conversation_id, frame.encrypted_payload))
