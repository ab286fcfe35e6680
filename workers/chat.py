"""The chat of an async handler, which sends its replies.

Each reply has a place (its number in the order of sending, or its `key`), so that a second run of a job sends only what is missing.
While Redis is away the calls wait; a handler never sees that.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from bus.records.records import Reply
from workers.payloads import checked_payload, text_payload
from workers.sending import Sending
from workers.stream import Stream

# PROTOCOL §2: a typing indicator is shown for 5 s.
TYPING_RENEWAL_SECONDS = 4.0
# The end of typing is tried for so long: a person's client clears the indicator by itself, and a Redis that is away must not hold us.
TYPING_STOP_SECONDS = 1.0


class Chat:
    """The conversation that a job's message came from."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._typists = 0
        self._typing = trio.CancelScope()

    def __repr__(self) -> str:
        return f"Chat(conversation_id={self.conversation_id!r})"

    @property
    def conversation_id(self) -> str:
        return self._sending.job.conversation_id

    async def reply(self, text: str, *, markdown: bool = False, key: str | None = None) -> None:
        """Sends a text of at most 100,000 characters. Raises TextTooLong, BadReply.

        `key`: for a handler that replies concurrently, so that the reply is known as the same one in a second run.
        """
        await self.send(text_payload(text, markdown=markdown), key=key)

    async def send(self, payload: Mapping[str, object], *, key: str | None = None) -> None:
        """Sends any payload of PROTOCOL §4: a mapping of JSON values with a `type`. Raises TextTooLong, BadReply."""
        checked = checked_payload(payload)
        reply = Reply(kind="message", content_type=str(checked["type"]), payload=checked)
        async with self._sending.turn():
            await self._sending.emit(self._sending.take_place(key), reply)

    def stream(self, *, markdown: bool = False, key: str | None = None) -> Stream:
        """Returns a reply that people see grow: `async with chat.stream() as stream: await stream.write("…")`.

        The end of the block sends the whole text, or nothing if none was written. An exception in it sends nothing more.
        """
        return Stream(self._sending, markdown=markdown, key=key)

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Shows "typing…" until the end of the block. Raises ChatClosed."""
        self._sending.check_open()
        self._typists += 1
        if self._typists == 1:
            self._typing = trio.CancelScope()
            self._sending.helpers.start_soon(self._keep_typing, self._typing)
        try:
            yield
        finally:
            self._typists -= 1
            if self._typists == 0:
                self._typing.cancel()
                with trio.move_on_after(TYPING_STOP_SECONDS, shield=True):
                    await self._sending.show_typing(active=False)

    async def _keep_typing(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await self._sending.show_typing(active=True)
                await trio.sleep(TYPING_RENEWAL_SECONDS)
