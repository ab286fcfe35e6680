"""A blocking connection to Redis, used by one thread at a time, and our exceptions for its errors; the only user of redis-py.

redis-py by default repeats commands silently, so that an XADD runs twice (TRAPS.md): here nothing is repeated. A connection
that fails is closed; the next call makes a new one and loads all scripts first. RESP2, since RESP3 changes the shapes of answers.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from typing import cast

from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionInterface, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from bus.settings.redis_url import RedisAddress, parse_redis_url
from bus.settings.url_parts import netloc
from bus.transport.lua import Argument, Scripts
from bus.transport.route import Route
from host.reasons import why

Command = tuple[Argument, ...]
Value = bytes | int | list["Value"] | None
Answer = Value | ResponseError

CONNECT_TIMEOUT_SECONDS = 3.0


OF_DATA = ("attempt to ", "not an integer", "not a valid float", "out of range")
"""How Lua and Redis say within a script that a value is none of those that it goes on with."""


class RedisFailed(Exception):
    """Redis has not done what was asked, for whatever reason; a loop that must survive catches this.

    `reason`: one word of a small set, for log and health; the text may tell more.
    """

    reason = "failed"

    def __init__(self, text: str = "", reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or self.reason


class RedisUnavailable(RedisFailed):
    """Redis cannot serve us now (gone, loading, read-only, stalled); whether the command ran is not known."""

    reason = "away"


class ConnectionReplaced(RedisUnavailable):
    """The command was for a former connection and did not run."""


class RedisFull(RedisUnavailable):
    """Redis refuses writes: memory is full, or it cannot persist (MISCONF)."""

    reason = "full"


class RedisRefused(RedisFailed):
    """Redis answered with an error that waiting alone does not mend: a defect of our code, of the data or of the set-up."""

    reason = "refused"

    @property
    def is_of_data(self) -> bool:
        """Returns whether what stands in Redis is the reason: a value of another type, or one with which a script of ours cannot go on."""
        is_a_scripts = "user_script" in str(self) and any(said in str(self) for said in OF_DATA)
        return self.reason == "wrong_type" or (self.reason == "refused" and is_a_scripts)


class RedisDenied(RedisRefused):
    """Redis does not let this user do it (a changed password, an ACL); it works again when an operator has mended that."""

    reason = "forbidden"


MENDABLE = (RedisUnavailable, RedisDenied)
"""Failures that concern all commands alike and pass, or are mended by an operator: work that must be done is repeated until then."""

_BY_CODE: Mapping[str, tuple[type[RedisFailed], str]] = {
    "OOM": (RedisFull, "full"),
    "MISCONF": (RedisFull, "cannot_persist"),
    "NOREPLICAS": (RedisFull, "no_replicas"),
    "LOADING": (RedisUnavailable, "loading"),
    "BUSY": (RedisUnavailable, "busy"),
    "READONLY": (RedisUnavailable, "read_only"),
    "MASTERDOWN": (RedisUnavailable, "master_down"),
    "CLUSTERDOWN": (RedisUnavailable, "cluster_down"),
    "TRYAGAIN": (RedisUnavailable, "moving"),
    "MAXCLIENTS": (RedisUnavailable, "too_many_clients"),  # the code is ours: the server sends this error without one
    "MOVED": (RedisUnavailable, "moved"),
    "ASK": (RedisUnavailable, "moving"),
    "NOAUTH": (RedisDenied, "not_authenticated"),
    "WRONGPASS": (RedisDenied, "not_authenticated"),
    "NOPERM": (RedisDenied, "forbidden"),
    "WRONGTYPE": (RedisRefused, "wrong_type"),
    "NOGROUP": (RedisRefused, "no_group"),
}
# redis-py turns some codes into classes and removes them from the text.
_BY_CLASS: tuple[tuple[type[RedisError], str], ...] = (
    (OutOfMemoryError, "OOM"),
    (BusyLoadingError, "LOADING"),
    (ReadOnlyError, "READONLY"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (MovedError, "MOVED"),
    (AskError, "ASK"),
    (NoPermissionError, "NOPERM"),
    (AuthenticationError, "NOAUTH"),
)
# An error within a script of a server before 7.0.5 or so has its code in the middle, or none.
_WITHIN = (
    ("OOM", "OOM"),
    ("MISCONF", "MISCONF"),
    ("user executing the script can't", "NOPERM"),
    ("WRONGTYPE", "WRONGTYPE"),
    ("max number of clients reached", "MAXCLIENTS"),
)


class Wire:
    """A connection with its scripts loaded."""

    def __init__(self, where: str | Route, scripts: Scripts, *, answer_timeout_seconds: float | None) -> None:
        """`where`: a URL or a Route. `answer_timeout_seconds`: None for readers, which block in Redis. Raises BadRedisUrl."""
        self._scripts = scripts
        self._route = Route(parse_redis_url(where)) if isinstance(where, str) else where
        self._answer_timeout_seconds = answer_timeout_seconds
        self._connection: ConnectionInterface | None = None
        self.connects = 0
        self.client_id = 0

    def call(self, commands: Sequence[Command]) -> list[Answer]:
        """Sends all commands, then returns all answers; an error of Redis is the answer in its place.

        Raises RedisUnavailable (any number of the commands may have run), RedisDenied.
        """
        try:
            connection = self._connection or self._connect()
            answers = self._exchange(connection, commands)
        except RedisFailed:
            self.close()
            raise
        except (RedisError, OSError) as error:
            self.close()
            raise self._failed(error) from None
        if any(self._route.moved(answer) for answer in answers if isinstance(answer, ResponseError)):
            self.close()
        return [self._followed(command, answer) for command, answer in zip(commands, answers, strict=True)]

    def _followed(self, command: Command, answer: Answer) -> Answer:
        """Runs the command at the other node if the answer is an ASK, else returns the answer."""
        route = self._route.asked(answer) if isinstance(answer, ResponseError) else None
        if route is None:
            return answer
        there = Wire(route, self._scripts, answer_timeout_seconds=self._answer_timeout_seconds)
        try:
            return there.call([("ASKING",), command])[1]
        finally:
            there.close()

    def read_for(self, seconds: float) -> Answer:
        """Returns the next message of a subscribed connection, None if none comes in time; raises RedisUnavailable."""
        if self._connection is None:
            raise RedisUnavailable("not connected")
        try:
            if not self._connection.can_read(timeout=seconds):
                return None
            return cast(Answer, self._connection.read_response(disable_decoding=True))
        except (RedisError, OSError) as error:
            self.close()
            raise self._failed(error) from None

    def ask_for_a_sign(self) -> None:
        """Sends a PING over a subscribed connection; its answer comes among the messages. Raises RedisUnavailable."""
        if self._connection is None:
            raise RedisUnavailable("not connected")
        try:
            self._connection.send_packed_command(self._connection.pack_commands([("PING",)]))
        except (RedisError, OSError) as error:
            self.close()
            raise self._failed(error) from None

    def _failed(self, error: RedisError | OSError) -> RedisFailed:
        """Returns our exception; its text is never redis-py's, which quotes what it was given, but may be the server's."""
        code = _code(error) if isinstance(error, RedisError) else ""
        kind, reason = _BY_CODE.get(code, (RedisUnavailable, ""))
        if code in _REFUSALS:
            return kind(f"{type(error).__name__}: {_REFUSALS[code]}", reason)
        text = said(error) if isinstance(error, ResponseError) else why(error)
        return kind(f"{self._route.shown}: {text}", reason)

    def close(self) -> None:
        """Closes the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def hand_over(self) -> socket.socket:
        """Connects, loads the scripts, and gives the socket away. Raises RedisUnavailable, RedisRefused."""
        self.call([("PING",)])
        connection, self._connection = self._connection, None
        taken: socket.socket | None = getattr(connection, "_sock", None)
        if connection is None or taken is None:
            raise RedisUnavailable("the connection was lost as it was made")
        connection._sock = None  # type: ignore[attr-defined]  # or it would be closed with the connection object
        return taken

    def _connect(self) -> ConnectionInterface:
        failed: RedisFailed | None = None
        for look_up in self._route.addresses(_ask_sentinel):
            try:
                return self._connect_to(look_up())
            except RedisFailed as error:
                failed = error
            except (RedisError, OSError) as error:
                failed = self._failed(error)
        raise failed or RedisUnavailable(f"{self._route.shown}: nothing to connect to")

    def _connect_to(self, address: RedisAddress, *, is_the_owner: bool = False) -> ConnectionInterface:
        connection = _connection(address, self._answer_timeout_seconds)
        try:
            connection.connect()
            if self._route.slot is not None:
                [slots] = self._exchange(connection, [("CLUSTER", "SLOTS")])
                known = (
                    None if isinstance(slots, ResponseError) else self._route.owner(slots, (address.host, address.port))
                )
                if known is not None and not is_the_owner:
                    connection.disconnect()
                    return self._connect_to(known, is_the_owner=True)
            if self._route.must_be_master:
                _refuse_a_replica(self._exchange(connection, [("INFO", "replication")])[0], address)
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


def _ask_sentinel(sentinel: RedisAddress, name: str) -> tuple[str, int]:
    """Returns the address of the master. Raises RedisUnavailable, RedisError, OSError."""
    connection = _connection(sentinel, CONNECT_TIMEOUT_SECONDS)
    try:
        connection.connect()
        [found] = Wire._exchange(connection, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)])
    finally:
        connection.disconnect()
    if isinstance(found, ResponseError):
        raise failure(found)
    if not isinstance(found, list):
        raise RedisUnavailable(
            f"the sentinel {netloc(sentinel.host, sentinel.port)} knows no master {name}", "no_master"
        )
    host, port = cast("list[bytes]", found)
    return host.decode(), int(port)


def _refuse_a_replica(info: Answer, address: RedisAddress) -> None:
    if isinstance(info, ResponseError):
        raise failure(info)
    if b"role:master" not in cast(bytes, info):
        raise RedisUnavailable(f"{netloc(address.host, address.port)} is no master (yet)", "read_only")


def _connection(address: RedisAddress, answer_timeout_seconds: float | None) -> ConnectionInterface:
    """Makes a connection without redis-py's pool, which counts the connections it made, never learns that one ended, and stops at 100."""
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
    """Returns the text of a server's error without our user's name, which is a part of the URL."""
    text = str(answer)
    if isinstance(answer, NoPermissionError) or text.startswith("NOPERM"):
        command = re.search(r"the '([a-z|-]{1,40})' command", text)
        return f"NOPERM: this user may not do what is needed{f': {command[1]}' if command else ''}"
    return text


_REFUSALS = {
    "NOAUTH": "Redis does not accept the user name or the password",
    "WRONGPASS": "Redis does not accept the user name or the password",
    "NOPERM": "this user may not do what is needed",
}


def needs_new_connection(answer: Answer) -> bool:
    """Returns True if only a new connection helps: this server is a replica now, or the password has changed."""
    return isinstance(answer, ResponseError) and _code(answer) in {"READONLY", "MASTERDOWN", "NOAUTH", "MOVED"}


def failure(error: ResponseError) -> RedisFailed:
    """Returns our exception for an error answer, whether redis-py has turned its code into a class or not."""
    kind, reason = _BY_CODE.get(_code(error), (RedisRefused, ""))
    return kind(said(error), reason)


def _code(error: RedisError) -> str:
    text = str(error)
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code
    first = text.partition(" ")[0]
    if first in _BY_CODE:
        return first
    return next((code for words, code in _WITHIN if words in text), "")
