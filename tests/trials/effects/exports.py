"""The slow service of the export example, on a real socket: it starts an export once for each key."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from sandbox.background import background
from tests.supervisor.web_server import response

END_OF_HEAD = b"\r\n\r\n"


class Exports:
    """What it was asked. While `ends`, an export is done at the second question."""

    def __init__(self) -> None:
        self.ends = True
        self.tickets: dict[str, str] = {}
        self._asked = Counter[str]()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One request, then the connection ends; whoever was killed hears no answer."""
        async with stream:
            head = b""
            try:
                while END_OF_HEAD not in head:
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                await stream.send_all(response(json.dumps(self._answer(head.split()[1].decode())).encode()))
            except trio.BrokenResourceError:
                return

    def _answer(self, path: str) -> str | int:
        what, _, name = path.removeprefix("/").partition("/")
        if what == "start":
            return self.tickets.setdefault(name, f"ticket-{len(self.tickets)}")
        self._asked[name] += 1
        return 100 if self.ends and self._asked[name] > 1 else 40


@asynccontextmanager
async def exports() -> AsyncIterator[tuple[Exports, str]]:
    """The service and its address while the block runs."""
    service = Exports()
    async with background() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, service.serve, listeners)
        yield service, f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
