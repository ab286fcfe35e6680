"""Serves a socket for a bounded number of clients at once, so that descriptors are left for the relay and Redis, however many connect."""

from collections.abc import Awaitable, Callable

import trio

Handler = Callable[[trio.SocketStream], Awaitable[object]]


class BoundedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that serves at most `most` clients at a time; it takes the listening socket over.

    A further client waits in the kernel's queue. With `hang_up_on_oldest` it is served instead of the client that is connected
    longest: where an answer takes milliseconds, that one is idle or stuck.
    """

    def __init__(self, listener: trio.SocketListener, most: int, *, hang_up_on_oldest: bool = False) -> None:
        self._listener = listener
        self._room = trio.Semaphore(most)
        self._hang_up_on_oldest = hang_up_on_oldest
        self._clients: dict[trio.SocketStream, trio.CancelScope] = {}
        self.closed = trio.Event()
        """Nobody can connect any more."""

    async def accept(self) -> trio.SocketStream:
        """Waits for room and for a client; returns its stream. Raises OSError."""
        if self._hang_up_on_oldest:
            stream = await self._listener.accept()
            if self._room.value == 0:
                next(scope for scope in self._clients.values() if not scope.cancel_called).cancel()
            try:
                await self._room.acquire()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        else:
            await self._room.acquire()
            try:
                stream = await self._listener.accept()
            except BaseException:
                self._room.release()
                raise
        self._clients[stream] = trio.CancelScope()
        return stream

    async def aclose(self) -> None:
        """Closes the listening socket; clients that are connected stay."""
        try:
            await self._listener.aclose()
        finally:
            self.closed.set()

    async def serve(self, handler: Handler, nursery: trio.Nursery | None = None) -> None:
        """Runs `handler` for each client, in `nursery` where that is given, until cancelled."""

        async def handle(stream: trio.SocketStream) -> None:
            try:
                with self._clients[stream]:
                    await handler(stream)
            finally:
                del self._clients[stream]
                self._room.release()

        await trio.serve_listeners(handle, [self], handler_nursery=nursery)
