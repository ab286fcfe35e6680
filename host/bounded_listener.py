"""Serving on a socket for so many clients at once: descriptors are left for the relay and Redis, however many come."""

from collections.abc import Awaitable, Callable

import trio

Handler = Callable[[trio.SocketStream], Awaitable[object]]


class BoundedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener with `most` clients at a time. Who comes beyond them waits in the kernel's queue; or, with `hang_up_on_oldest`, is
    served in place of the client that is there longest: where an answer takes milliseconds, that one has nothing to say.

    It takes the listening socket over.
    """

    def __init__(self, listener: trio.SocketListener, most: int, *, hang_up_on_oldest: bool = False) -> None:
        self._listener = listener
        self._room = trio.Semaphore(most)
        self._hang_up_on_oldest = hang_up_on_oldest
        self._clients: dict[trio.SocketStream, trio.CancelScope] = {}

    async def accept(self) -> trio.SocketStream:
        """The next client, once there is room. Raises OSError."""
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
        """Nobody can connect any more."""
        await self._listener.aclose()

    async def serve(self, handler: Handler, nursery: trio.Nursery | None = None) -> None:
        """Give each client to `handler`, in `nursery` where that is given; until cancelled."""

        async def handle(stream: trio.SocketStream) -> None:
            try:
                with self._clients[stream]:
                    await handler(stream)
            finally:
                del self._clients[stream]
                self._room.release()

        await trio.serve_listeners(handle, [self], handler_nursery=nursery)
