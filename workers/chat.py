"""What an async handler sends with.

Each reply has a place (its number in the order of sending, or its `key`), so that a second run of a job adds only what is
missing. Redis' absence is waited out here; a handler never sees it.
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
# A person's client clears the indicator by itself; leaving must not hang on a Redis that is away.
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
        """Send a text of at most 100,000 characters. Raises TextTooLong, BadReply.

        `key` names the reply where a handler replies concurrently, so that it is the same one in a second run.
        """
        await self.send(text_payload(text, markdown=markdown), key=key)

    async def send(self, payload: Mapping[str, object], *, key: str | None = None) -> None:
        """Send any payload of PROTOCOL §4: a mapping with a `type`, of what JSON has. Raises TextTooLong, BadReply."""
        checked = checked_payload(payload)
        reply = Reply(kind="message", content_type=str(checked["type"]), payload=checked)
        async with self._sending.turn():
            await self._sending.emit(self._sending.take_place(key), reply)

    def stream(self, *, markdown: bool = False, key: str | None = None) -> Stream:
        """A reply that appears while it is written: `async with chat.stream() as stream: await stream.write("…")`.

        Leaving the block sends the whole text (none written: nothing); leaving it by an exception sends nothing more.
        """
        return Stream(self._sending, markdown=markdown, key=key)

    @asynccontextmanager
    async def typing(self) -> AsyncIterator[None]:
        """Show "typing…" until the block is left. Raises ChatClosed."""
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
