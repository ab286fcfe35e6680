"""One blocking connection to Redis, used by one thread at a time; the only user of redis-py.

redis-py repeats commands silently by default, so that an XADD runs twice (TRAPS.md): here nothing is repeated. A connection
that fails is closed; the next call makes a new one and loads all scripts first. RESP2, since RESP3 changes shapes.
"""

import re
import socket
from collections.abc import Sequence
from typing import cast

from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionInterface, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from bus.lua import Argument, Scripts
from bus.reasons import why
from bus.redis_url import RedisAddress, parse_redis_url

Command = tuple[Argument, ...]
Value = bytes | int | list["Value"] | None
Answer = Value | ResponseError

CONNECT_TIMEOUT_SECONDS = 3.0


class RedisFailed(Exception):
    """What Redis did not do for us, for whatever reason; a loop that must survive catches this one."""


class RedisUnavailable(RedisFailed):
    """Redis cannot serve us now (gone, loading, read-only, stalled); whether the command ran is not known."""


class ConnectionReplaced(RedisUnavailable):
    """The connection is another than the one that was named; the command did not run."""


class RedisFull(RedisUnavailable):
    """Redis refuses writes: memory is full, or it cannot persist (MISCONF)."""


class RedisRefused(RedisFailed):
    """Redis answered with an error that waiting does not mend; a defect of ours or of the set-up."""


class Wire:
    """A connection with its scripts loaded."""

    def __init__(self, url: str, scripts: Scripts, *, answer_timeout_seconds: float | None) -> None:
        """`answer_timeout_seconds`: None for readers, which block in Redis. Raises BadRedisUrl."""
        self._scripts = scripts
        self._address = parse_redis_url(url)
        self._answer_timeout_seconds = answer_timeout_seconds
        self._connection: ConnectionInterface | None = None
        self.connects = 0
        self.client_id = 0

    def call(self, commands: Sequence[Command]) -> list[Answer]:
        """Send all, then read all answers. An error of Redis stands in its place in the list.

        Raises RedisUnavailable; then any number of the commands may have run.
        """
        try:
            connection = self._connection or self._connect()
            return self._exchange(connection, commands)
        except (AuthenticationError, NoPermissionError) as error:
            self.close()
            raise RedisRefused(f"{type(error).__name__}: {_REFUSALS[isinstance(error, NoPermissionError)]}") from None
        except (RedisError, OSError) as error:
            self.close()
            raise self._unavailable(error) from None

    def read_for(self, seconds: float) -> Answer:
        """The next message of a connection that has subscribed, None if there is none; raises RedisUnavailable."""
        if self._connection is None:
            raise RedisUnavailable("not connected")
        try:
            if not self._connection.can_read(timeout=seconds):
                return None
            return cast(Answer, self._connection.read_response(disable_decoding=True))
        except (RedisError, OSError) as error:
            self.close()
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> RedisUnavailable:
        """Not in redis-py's words, which quote what it was given. What a server answered is the server's own text."""
        text = said(error) if isinstance(error, ResponseError) else why(error)
        return RedisUnavailable(f"{self._address.shown}: {text}")

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def hand_over(self) -> socket.socket:
        """Connect, load the scripts, and give the socket away; raises RedisUnavailable, RedisRefused."""
        self.call([("PING",)])
        connection, self._connection = self._connection, None
        taken: socket.socket | None = getattr(connection, "_sock", None)
        if connection is None or taken is None:
            raise RedisUnavailable("the connection was lost as it was made")
        connection._sock = None  # type: ignore[attr-defined]  # or it would be closed with the connection object
        return taken

    def _connect(self) -> ConnectionInterface:
        connection = _connection(self._address, self._answer_timeout_seconds)
        try:
            connection.connect()
            loads: list[Command] = [("SCRIPT", "LOAD", script.text) for script in self._scripts.all()]
            answers = self._exchange(connection, [("CLIENT", "ID"), *loads])
        except BaseException:
            connection.disconnect()
            raise
        for answer in answers:
            if isinstance(answer, ResponseError):
                connection.disconnect()
                raise failure(answer)
        self.client_id = cast(int, answers[0])
        self.connects += 1
        self._connection = connection
        return connection

    @staticmethod
    def _exchange(connection: ConnectionInterface, commands: Sequence[Command]) -> list[Answer]:
        connection.send_packed_command(connection.pack_commands(commands))
        answers: list[Answer] = []
        for _ in commands:
            try:
                answers.append(cast(Answer, connection.read_response(disable_decoding=True)))
            except ResponseError as error:
                answers.append(error)
        return answers


def _connection(address: RedisAddress, answer_timeout_seconds: float | None) -> ConnectionInterface:
    """Without redis-py's pool, which counts what it has made and is never told what has ended; after a hundred it refuses."""
    options: dict[str, object] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": 2,
        "socket_timeout": answer_timeout_seconds,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    if address.path:
        kind: type = UnixDomainSocketConnection
        options |= {"path": address.path}
    else:
        kind = Connection if address.tls is None else SSLConnection
        options |= {"host": address.host, "port": address.port, **(address.tls or {})}
    return cast(ConnectionInterface, kind(**options))


def said(answer: ResponseError) -> str:
    """What a server's error says, without the name of our user, which is a part of the URL."""
    text = str(answer)
    if isinstance(answer, NoPermissionError) or text.startswith("NOPERM"):
        command = re.search(r"the '([a-z|-]{1,40})' command", text)
        return f"NOPERM: this user may not do what is needed{f': {command[1]}' if command else ''}"
    return text


_REFUSALS = {
    False: "Redis does not accept the user name or the password",
    True: "this user may not do what is needed",
}


def is_replica(answer: Answer) -> bool:
    """The server that was our master serves another now: only a new connection finds the new master."""
    return isinstance(answer, ResponseError) and (
        isinstance(answer, ReadOnlyError | MasterDownError) or str(answer).startswith(("READONLY", "MASTERDOWN"))
    )


def failure(error: ResponseError) -> Exception:
    """Our exception for an error answer, whether redis-py has made a class of its code or not."""
    text = said(error)
    if isinstance(error, OutOfMemoryError) or "MISCONF" in text or "OOM" in text:
        return RedisFull(text)
    if isinstance(error, BusyLoadingError | ReadOnlyError | MasterDownError) or text.startswith(
        ("LOADING", "BUSY ", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
    ):
        return RedisUnavailable(text)
    return RedisRefused(text)
