"""The transport under the WebSocket: what comes is judged (supervisor/relay/wire_guard.py) before the library sees it, and waits unread within a bound.

It ends the connection when the peer sends what it may not, and when a send of ours was torn in its middle. It knows no messages.
"""

from contextlib import suppress
from typing import Final

import trio
import trio.abc
from wsproto.frame_protocol import FrameProtocol

from supervisor.relay.wire_guard import MOST_UNREAD_BYTES, WireGuard, WireRefused

REFUSAL_SECONDS: Final = 0.5
"""How long we try to tell a peer why its connection ends, before we end it."""


class GuardedStream(trio.abc.Stream):
    """One transport with its guard."""

    def __init__(self, inner: trio.abc.Stream, max_message_bytes: int) -> None:
        self._inner = inner
        self._guard = WireGuard(max_message_bytes, trio.current_time())
        self._is_sending = False
        self._room: trio.Event | None = None
        self._discards = False
        self.held_open = False
        self.refusal: WireRefused | None = None
        """What the peer sent that it may not; from then on nothing is sent or received."""

    @property
    def heard_at(self) -> float:
        """When the last whole frame came (pongs included), or a large one went on."""
        return self._guard.heard_at

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.refusal is not None:
            raise trio.BrokenResourceError
        self._is_sending = True
        try:
            await self._inner.send_all(data)
        except trio.Cancelled:
            # Part of a frame may be on the wire: whatever followed would be read as its rest.
            await trio.aclose_forcefully(self._inner)
            raise
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while self._guard.unread_bytes > MOST_UNREAD_BYTES and not self._discards:
            self._room = trio.Event()
            await self._room.wait()
        data = await self._inner.receive_some(max_bytes)
        try:
            self._guard.feed(data, trio.current_time())
        except WireRefused as refusal:
            await self._refuse(refusal)
            return b""
        return data

    def taken(self) -> None:
        """Notes that somebody has received the oldest whole message, so that there may be room for more."""
        self._guard.taken()
        if self._room is not None:
            self._room.set()

    def discard(self) -> None:
        """Notes that nobody receives any more: what comes is read and thrown away."""
        self._discards = True
        if self._room is not None:
            self._room.set()

    async def _refuse(self, refusal: WireRefused) -> None:
        """Tells the peer why, if nothing else is being sent, and for a moment only: it may not read."""
        self.refusal = refusal
        if not self._is_sending:
            with trio.move_on_after(REFUSAL_SECONDS), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._inner.send_all(_close_frame(refusal.code, refusal.reason))

    async def aclose(self) -> None:
        """Closes for the library; not while we wait for the peer's answer to our close frame, which would end the wait."""
        if not self.held_open:
            await self._inner.aclose()

    async def end(self) -> None:
        await trio.aclose_forcefully(self._inner)


def _close_frame(code: int, reason: str) -> bytes:
    return bytes(FrameProtocol(client=True, extensions=[]).close(code, reason))
