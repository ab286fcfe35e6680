"""Finds the Redis that takes our writes: a fixed address, the master that sentinels name, or the cluster node that has our slot.

It is looked up before each connection, in the thread that makes it. All keys of an agent carry one hash tag, so one node has them all.
MOVED: a connection to the wrong node is closed, and the next one looked up anew. ASK: while the slot is being moved, commands whose keys
have moved already run at the other node, one by one.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from redis.exceptions import AskError, MovedError, ResponseError

from bus.settings.redis_url import AddressKind, RedisAddress
from bus.settings.url_parts import netloc

AskSentinel = Callable[[RedisAddress, str], tuple[str, int]]
"""Asks a sentinel for a master by its name; returns the master's address. Raises what a connection raises."""


Host = tuple[str, int]


class Route:
    """The route of a connection and of those after it. `slot`: ours in a cluster, once a node has named it."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._hosts: tuple[Host, ...] = ((address.host, address.port), *address.further_hosts)
        self._node: Host | None = None
        self.slot: int | None = None
        self.must_be_master = address.kind is AddressKind.SENTINEL

    @property
    def shown(self) -> str:
        """Returns the address for people."""
        return self._address.shown

    def moved(self, answer: ResponseError) -> bool:
        """Returns True for a MOVED, and remembers the node that it names for the next connection."""
        if (found := moved_to(answer, self._asked_last)) is None:
            return False
        self.slot, self._node = found
        return True

    def asked(self, answer: ResponseError) -> "Route | None":
        """Returns the route to the node that an ASK names; None for any other answer."""
        if (found := asked_to(answer, self._asked_last)) is None:
            return None
        host, port = found[1]
        return Route(dataclasses.replace(self._address, host=host, port=port, further_hosts=(), kind=AddressKind.FIXED))

    @property
    def place(self) -> str:
        """Returns host and port of the first address."""
        return netloc(*self._hosts[0])

    @property
    def _asked_last(self) -> Host:
        return self._node or self._hosts[0]

    def addresses(self, ask: AskSentinel) -> Iterator[Callable[[], RedisAddress]]:
        """Yields functions to try in turn until a connection is made; each looks an address up and may raise."""
        if self._address.kind is AddressKind.SENTINEL:
            for sentinel in self._hosts:
                yield partial(self._by, sentinel, ask)
            return
        for host in self._hosts if self._node is None else (self._node, *self._hosts):
            yield partial(self._at, host)

    def owner(self, slots: object, asked: Host) -> RedisAddress | None:
        """Returns the node that has our slot by the CLUSTER SLOTS of the node `asked`; None if that is `asked`, or not said."""
        for first, last, (host, port, *_), *_ in cast(
            "list[tuple[int, int, list[bytes | int], *tuple[object, ...]]]", slots
        ):
            if self.slot is not None and first <= self.slot <= last:
                self._node = (cast(bytes, host).decode() if host else asked[0], cast(int, port))
                return None if self._node == asked else self._at(self._node)
        return None

    def _by(self, sentinel: Host, ask: AskSentinel) -> RedisAddress:
        of = self._address
        at = dataclasses.replace(
            self._at(sentinel), username=of.sentinel_username, password=of.sentinel_password, database=0
        )
        master = ask(at, of.service)
        # A sentinel that answers is asked first the next time.
        self._hosts = (sentinel, *(other for other in self._hosts if other != sentinel))
        return self._at(master)

    def _at(self, host: Host) -> RedisAddress:
        return dataclasses.replace(self._address, host=host[0], port=host[1])


def moved_to(answer: ResponseError, asked: Host) -> tuple[int, Host] | None:
    """Returns slot and node of a MOVED, else None. Without a host in it, it is the host that was asked."""
    return _place(answer, asked) if isinstance(answer, MovedError) or str(answer).startswith("MOVED ") else None


def asked_to(answer: ResponseError, asked: Host) -> tuple[int, Host] | None:
    """Returns slot and node of an ASK, else None."""
    return _place(answer, asked) if isinstance(answer, AskError) or str(answer).startswith("ASK ") else None


def _place(answer: ResponseError, asked: Host) -> tuple[int, Host]:
    *_, slot, place = str(answer).split(" ")
    host, _, port = place.rpartition(":")
    return int(slot), (host.strip("[]") or asked[0], int(port))
