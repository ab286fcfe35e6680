"""Where the Redis is that takes our writes now: at one address, where the sentinels say, or at the node of a cluster that has our slot.

Looked up before each connection, in the thread that makes it. All keys of an agent carry one hash tag, so one node has them all. MOVED: a
connection that finds that it has the wrong server is closed, and the next one is looked up anew. ASK: while the slot is being moved what has
gone already is asked for at the other node, command by command.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from redis.exceptions import AskError, MovedError, ResponseError

from bus.settings.redis_url import Kind, RedisAddress
from bus.settings.url_parts import netloc

AskSentinel = Callable[[RedisAddress, str], tuple[str, int]]
"""Of a sentinel's address and the master's name: where the master is. Raises what a connection raises."""


Host = tuple[str, int]


class Route:
    """Of one connection and those after it. `slot`: ours in a cluster, once a node has said which it is."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._hosts: tuple[Host, ...] = ((address.host, address.port), *address.further_hosts)
        self._node: Host | None = None
        self.slot: int | None = None
        self.must_be_master = address.kind is Kind.SENTINEL

    @property
    def shown(self) -> str:
        """For people."""
        return self._address.shown

    def moved(self, answer: ResponseError) -> bool:
        """Whether it is a MOVED: where the slot is now is remembered for the next connection."""
        if (found := moved_to(answer, self._asked_last)) is None:
            return False
        self.slot, self._node = found
        return True

    def asked(self, answer: ResponseError) -> "Route | None":
        """The way to the one node that an ASK names, for the command that it answers; None for any other answer."""
        if (found := asked_to(answer, self._asked_last)) is None:
            return None
        host, port = found[1]
        return Route(dataclasses.replace(self._address, host=host, port=port, further_hosts=(), kind=Kind.FIXED))

    @property
    def place(self) -> str:
        """Host and port of the first of them."""
        return netloc(*self._hosts[0])

    @property
    def _asked_last(self) -> Host:
        return self._node or self._hosts[0]

    def addresses(self, ask: AskSentinel) -> Iterator[Callable[[], RedisAddress]]:
        """What to try in turn, until one has let us in: each looks an address up and may raise."""
        if self._address.kind is Kind.SENTINEL:
            for sentinel in self._hosts:
                yield partial(self._by, sentinel, ask)
            return
        for host in self._hosts if self._node is None else (self._node, *self._hosts):
            yield partial(self._at, host)

    def owner(self, slots: object, asked: Host) -> RedisAddress | None:
        """By what CLUSTER SLOTS says at the node `asked`: the node that has our slot, None where that is `asked` or not said."""
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
        # One that answers is asked first the next time.
        self._hosts = (sentinel, *(other for other in self._hosts if other != sentinel))
        return self._at(master)

    def _at(self, host: Host) -> RedisAddress:
        return dataclasses.replace(self._address, host=host[0], port=host[1])


def moved_to(answer: ResponseError, asked: Host) -> tuple[int, Host] | None:
    """Which slot is where, if it is a MOVED. Without a host it is the one that was asked."""
    return _place(answer, asked) if isinstance(answer, MovedError) or str(answer).startswith("MOVED ") else None


def asked_to(answer: ResponseError, asked: Host) -> tuple[int, Host] | None:
    """Which slot is being moved where, if it is an ASK."""
    return _place(answer, asked) if isinstance(answer, AskError) or str(answer).startswith("ASK ") else None


def _place(answer: ResponseError, asked: Host) -> tuple[int, Host]:
    *_, slot, place = str(answer).split(" ")
    host, _, port = place.rpartition(":")
    return int(slot), (host.strip("[]") or asked[0], int(port))
