"""Serving on a socket for so many clients at once: who comes beyond them waits in the kernel's queue, not in a descriptor of ours."""

from collections.abc import Awaitable, Callable

import trio

Handler = Callable[[trio.SocketStream], Awaitable[object]]


class BoundedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that accepts while fewer than `most` of its clients are being served. It takes the listening socket over."""

    def __init__(self, listener: trio.SocketListener, most: int) -> None:
        self._listener = listener
        self._room = trio.Semaphore(most)

    async def accept(self) -> trio.SocketStream:
        """The next client, once there is room. Raises OSError."""
        await self._room.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._room.release()
            raise

    async def aclose(self) -> None:
        """Nobody can connect any more."""
        await self._listener.aclose()

    async def serve(self, handler: Handler, nursery: trio.Nursery | None = None) -> None:
        """Give each client to `handler`, in `nursery` where that is given; until cancelled."""

        async def handle(stream: trio.SocketStream) -> None:
            try:
                await handler(stream)
            finally:
                self._room.release()

        await trio.serve_listeners(handle, [self], handler_nursery=nursery)
