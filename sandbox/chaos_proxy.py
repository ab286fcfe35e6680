"""A TCP proxy that behaves like a bad network: cuts, stalls (half-open links), resets, delays, throttles.

It stands in front of the relay for what an ASGI server cannot act out. It changes no byte and loses none that it
has not been told to; of what passes it remembers only counts and WebSocket close codes.
"""

import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import msgspec
import trio

from sandbox.background import background
from sandbox.close_codes import CloseCodeReader

CHUNK_BYTES = 64 * 1024
IN_FLIGHT_CHUNKS = 1024
"""How many chunks a delayed link holds before it stops reading."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends RST."""

Direction = Literal["to_server", "to_client"]


class Command(msgspec.Struct, frozen=True):
    """A line of the control input: `do` is a method of `ChaosProxy` below, `value` its number if it takes one."""

    do: Literal["cut", "reset", "stall", "resume", "delay", "throttle", "refuse", "accept", "state"]
    value: float = 0.0


class _Link:
    """One proxied connection."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        self.client = client
        self.server = server
        self.scope = scope
        self.readers: dict[Direction, CloseCodeReader] = {
            "to_server": CloseCodeReader(),
            "to_client": CloseCodeReader(),
        }

    def reset(self) -> None:
        for stream in (self.client, self.server):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.scope.cancel()


class ChaosProxy:
    """`async with chaos_proxy(host, port) as proxy`: clients connect to `proxy.port` on 127.0.0.1."""

    def __init__(self, target_host: str, target_port: int, port: int) -> None:
        self.port = port
        self.connections = 0
        self.delay_seconds = 0.0
        self.bytes_per_second = 0.0
        self._target = (target_host, target_port)
        self._links: list[_Link] = []
        self._flowing = trio.Event()
        self._flowing.set()
        self._refusing = False
        self._codes: dict[Direction, list[int | None]] = {"to_server": [], "to_client": []}

    # --- what a bad network does ---

    def cut(self) -> int:
        """Ends every connection on both sides (FIN). Says how many."""
        links = list(self._links)
        for link in links:
            link.scope.cancel()
        return len(links)

    def reset(self) -> int:
        """Ends every connection on both sides (RST). Says how many."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def stall(self) -> None:
        """From now on nothing passes and nothing ends: every link, also new ones, is half-open."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def resume(self) -> None:
        """What was stalled goes on where it stood."""
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Each byte arrives so much later; order and throughput stay."""
        self.delay_seconds = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """At most so many bytes a second in each direction of each link; 0: no limit."""
        self.bytes_per_second = bytes_per_second

    def refuse(self) -> None:
        """New connections are reset as soon as they are made."""
        self._refusing = True

    def accept(self) -> None:
        self._refusing = False

    @property
    def links(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    @property
    def close_codes(self) -> dict[Direction, list[int | None]]:
        """The close frames that passed, by where they went, in order."""
        return {
            way: codes + [code for link in self._links for code in link.readers[way].codes]
            for way, codes in self._codes.items()
        }

    def state(self) -> dict[str, object]:
        return {"links": self.links, "connections": self.connections, "close_codes": self.close_codes}

    # --- carrying ---

    async def serve(self, client: trio.SocketStream) -> None:
        """Carries one connection to its end."""
        self.connections += 1
        if self._refusing:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            await trio.aclose_forcefully(client)
            return
        try:
            server = await trio.open_tcp_stream(*self._target)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        async with client, server, trio.open_nursery() as nursery:
            link = _Link(client, server, nursery.cancel_scope)
            self._links.append(link)
            try:
                nursery.start_soon(self._carry, link, "to_server", client, server)
                await self._carry(link, "to_client", server, client)
            finally:
                self._links.remove(link)
                for way, reader in link.readers.items():
                    self._codes[way] += reader.codes
            nursery.cancel_scope.cancel()

    async def _carry(self, link: _Link, way: Direction, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        """Carries one direction until it ends; then the other end's reading ends too."""
        sending, receiving = trio.open_memory_channel[tuple[float, bytes | bytearray]](IN_FLIGHT_CHUNKS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, sending)
            async with receiving:
                async for due, data in receiving:
                    await trio.sleep_until(due)
                    await self._flowing.wait()
                    if self.bytes_per_second:
                        await trio.sleep(len(data) / self.bytes_per_second)
                    link.readers[way].feed(data)
                    try:
                        await sink.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        break
            nursery.cancel_scope.cancel()
        await self._flowing.wait()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.send_eof()

    async def _read(
        self, source: trio.SocketStream, sending: trio.MemorySendChannel[tuple[float, bytes | bytearray]]
    ) -> None:
        async with sending:
            while True:
                await self._flowing.wait()
                limit = max(1, int(self.bytes_per_second / 20)) if self.bytes_per_second else CHUNK_BYTES
                try:
                    data = await source.receive_some(min(limit, CHUNK_BYTES))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                if not data:
                    return
                await sending.send((trio.current_time() + self.delay_seconds, data))


@asynccontextmanager
async def chaos_proxy(target_host: str, target_port: int, port: int = 0) -> AsyncIterator[ChaosProxy]:
    """A proxy for as long as the body runs; then every link is cut."""
    async with background() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        proxy = ChaosProxy(target_host, target_port, listeners[0].socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, proxy.serve, listeners)
        yield proxy


async def run_proxy(target_host: str, target_port: int, port: int) -> None:
    """`python -m sandbox proxy`: prints its address, then does what each line of standard input says and answers."""
    async with chaos_proxy(target_host, target_port, port) as proxy:
        _print({"url": f"http://127.0.0.1:{proxy.port}"})
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            try:
                command = msgspec.json.decode(line, type=Command)
            except msgspec.DecodeError as error:
                _print({"error": str(error)})
                continue
            _print({"did": command.do, "links_ended": obey(proxy, command), **proxy.state()})
        await trio.sleep_forever()


def obey(proxy: ChaosProxy, command: Command) -> int:
    """Does it; says how many connections it ended."""
    match command.do:
        case "cut":
            return proxy.cut()
        case "reset":
            return proxy.reset()
        case "stall":
            proxy.stall()
        case "resume":
            proxy.resume()
        case "delay":
            proxy.delay(command.value)
        case "throttle":
            proxy.throttle(command.value)
        case "refuse":
            proxy.refuse()
        case "accept":
            proxy.accept()
        case "state":
            pass
    return 0


def _print(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
