"""Looks host names up in threads of their own, so that a name server that does not answer holds up nothing else.

By itself trio takes the threads that files are written and Redis is connected in, 40 at most. A look-up that is given up goes on in its thread: libc
asks for ten seconds and more, with the search list of a Kubernetes pod for a minute. So calls to a relay whose name nobody tells would take all of them.
"""

import socket
from typing import Literal

import trio

MOST_LOOKUPS = 16
"""Threads that ask a name server at a time; names beyond them wait."""

JOINED_SECONDS = 10.0
"""Whoever wants the same name within this time waits for the same answer. Of what began before, the name server may be another one by now."""

Address = (
    tuple[Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, tuple[str, int]]
    | tuple[
        Literal[socket.AddressFamily.AF_INET6],
        socket.SocketKind,
        int,
        str,
        tuple[str, int, int, int] | tuple[int, bytes],
    ]
)
Asked = tuple[bytes | None, bytes | str | int | None, int, int, int, int]


class _Lookup:
    """One that is under way. `found` or `error` is there once it is `over`."""

    def __init__(self) -> None:
        self.began_at = trio.current_time()
        self.over = trio.Event()
        self.found: list[Address] = []
        self.error: Exception | None = None


class NameLookups(trio.abc.HostnameResolver):
    """The look-ups of one trio program."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(MOST_LOOKUPS)
        self._under_way: dict[Asked, _Lookup] = {}

    async def getaddrinfo(  # noqa: PLR0917 - trio's arguments
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - named so by trio
        proto: int = 0,
        flags: int = 0,
    ) -> list[Address]:
        """As socket.getaddrinfo. Given up, it goes on for whoever asks next."""
        asked = (host, port, family, type, proto, flags)
        lookup = self._under_way.get(asked)
        if lookup is None or trio.current_time() - lookup.began_at >= JOINED_SECONDS:
            lookup = self._under_way[asked] = _Lookup()
            # A task without a parent: who asked first may give up, and others wait for it too.
            trio.lowlevel.spawn_system_task(self._look_up, asked, lookup)
        await lookup.over.wait()
        if lookup.error is not None:
            raise lookup.error.__class__(
                *lookup.error.args
            )  # each waiter its own, or its traceback would grow with them
        return lookup.found

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        """As socket.getnameinfo."""
        return await trio.to_thread.run_sync(
            socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True, limiter=self._threads
        )

    async def _look_up(self, asked: Asked, lookup: _Lookup) -> None:
        try:
            lookup.found = await trio.to_thread.run_sync(
                socket.getaddrinfo, *asked, abandon_on_cancel=True, limiter=self._threads
            )
        except Exception as error:  # noqa: BLE001 - handed to every waiter
            lookup.error = error
        finally:
            if self._under_way.get(asked) is lookup:
                del self._under_way[asked]
            lookup.over.set()


def look_names_up_apart() -> None:
    """To be called at the start of a trio program, inside of it."""
    trio.socket.set_custom_hostname_resolver(NameLookups())
