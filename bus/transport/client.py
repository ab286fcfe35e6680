"""The Redis client for trio: pipelines the commands of all tasks on one connection.

One of the waiting tasks drives the connection for all: it sends what is queued, hands out the answers that arrive, and passes the
driving to another task when its own answer has come. A cancelled command may still run: every operation of ours is safe to repeat.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol, cast

import trio
from redis.exceptions import ResponseError

from bus.transport.asked_node import AskedNode
from bus.transport.link import Link
from bus.transport.lua import Argument, Script, Scripts, packed
from bus.transport.refusals import Refusals
from bus.transport.route import Route
from bus.transport.wire import (
    Answer,
    ConnectionReplaced,
    RedisDenied,
    RedisFailed,
    RedisFull,
    RedisUnavailable,
    Value,
    failure,
    needs_new_connection,
)

__all__ = ["Commands", "RedisClient", "RedisUnavailable", "members_until", "open_redis", "together"]

ANSWER_TIMEOUT_SECONDS = 5.0
CLOSE_SECONDS = 5.0
PAGE = 100
MOST_MOVES = 5


class Commands(Protocol):
    """What the typed operations need of a client; tests replace it, for example by one that dies half-way."""

    async def command(self, *command: Argument) -> Value:
        """One command; raises RedisUnavailable, RedisFull or RedisRefused."""

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        """One Lua operation; raises as `command`."""


class _Request:
    """A queued command. `waiting`: its task, while another drives. `answer` is valid once `is_done`. `connection`: the only one to run on."""

    __slots__ = ("answer", "command", "connection", "is_done", "loaded", "moves", "script", "waiting")

    def __init__(self, command: bytes, script: Script | None = None, connection: int | None = None) -> None:
        self.command = command
        self.script = script
        self.loaded = False
        self.moves = 0
        self.connection = connection
        self.waiting: trio.lowlevel.Task | None = None
        self.is_done = False
        self.answer: Value | Exception = None

    @property
    def name(self) -> str:
        """Returns the name of the operation or command."""
        return (
            self.script.name
            if self.script is not None
            else self.command.split(b"\r\n", 3)[2].decode("ascii", "replace")
        )

    def may_move(self) -> bool:
        """Returns whether it may follow a redirection: not if it is for this connection alone, nor without end."""
        self.moves += 1
        return self.connection is None and self.moves <= MOST_MOVES

    async def wait(self) -> None:
        """Waits for `wake`; without an Event, which would double the cost of each command."""
        self.waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def be_done(self, answer: Value | Exception) -> None:
        """Stores the answer and wakes the task."""
        self.answer = answer
        self.is_done = True
        self.wake()

    def wake(self) -> None:
        """Wakes the task if it waits."""
        if self.waiting is not None:
            trio.lowlevel.reschedule(self.waiting)
            self.waiting = None

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.waiting = None
        return trio.lowlevel.Abort.SUCCEEDED


class RedisClient:
    """Commands and scripts for one trio program; made by `open_redis`."""

    def __init__(self, url: str, scripts: Scripts, *, answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        self.scripts = scripts
        self.url = url
        self.answer_timeout_seconds = answer_timeout_seconds
        """For so long the next answer is waited for."""
        self._link = Link(url, scripts)
        self._asked_node = AskedNode(scripts)
        self._queued: list[_Request] = []
        self._sent: deque[_Request] = deque()
        self._is_driven = False
        self._closed = False
        self.connected_since: float | None = None
        """trio time of the first answer on the present connection; None while there is none."""
        self.round_trip_seconds = 0.0
        self.refusals = Refusals()
        self._connects_seen = 0

    async def command(self, *command: Argument) -> Value:
        """One command; raises RedisUnavailable, RedisFull or RedisRefused."""
        return await self._ask(_Request(packed(command)))

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        """One Lua operation; raises as `command`."""
        return await self._ask(self._call_of(name, keys, arguments))

    async def together(self, *commands: tuple[Argument, ...]) -> list[Value]:
        """Commands in one round trip, one after the other and not as one step; raises as `command`."""
        *before, last = [_Request(packed(command)) for command in commands]
        if not self._closed:
            self._queued.extend(before)
        answer = await self._ask(last)
        return [*[await self._answer_to(one) for one in before], answer]

    def on_connection(self, number: int) -> "Commands":
        """Returns Commands that run only on the connection with this number (`connects`), or raise ConnectionReplaced."""
        return _OnConnection(self, number)

    def _call_of(
        self, name: str, keys: Sequence[str], arguments: Sequence[Argument], connection: int | None = None
    ) -> _Request:
        return _Request(self.scripts.call(name, keys, arguments), self.scripts[name], connection)

    @property
    def connects(self) -> int:
        """How many connections were made; a new one means that Redis was away."""
        return self._link.connects

    @property
    def is_alive(self) -> bool:
        """Always True: it has no thread that could end."""
        return not self._closed

    @property
    def thread_name(self) -> str:
        """Its name in lists of threads."""
        return "redis-client"

    def start(self) -> None:
        """Does nothing; the first command connects."""

    async def aclose(self) -> None:
        """Waits for the answers to queued commands, at most CLOSE_SECONDS, then closes."""
        if self._closed:
            return
        self._closed = True
        try:
            with trio.move_on_after(CLOSE_SECONDS, shield=True), suppress(RedisFailed):
                if self._is_driven or (self._link.is_open and (self._queued or self._sent)):
                    # Answers come in order: all commands before it are done.
                    await self._ask(_Request(packed(("PING",))), is_last=True)
        finally:
            self._link.end()
            self._asked_node.end()

    async def _ask(self, request: _Request, *, is_last: bool = False) -> Value:
        if self._closed and not is_last:
            raise RedisUnavailable("the client is closed")
        self._queued.append(request)
        return await self._answer_to(request)

    async def _answer_to(self, request: _Request) -> Value:
        """Waits for the answer to what is queued, and drives the connection meanwhile if nobody else does."""
        try:
            while not request.is_done:
                if self._is_driven:
                    await request.wait()
                else:
                    await self._drive(request)
        finally:
            if not request.is_done and not self._is_driven:
                self._wake_next_driver()  # we were cancelled, perhaps when it was our turn to drive
        answer, request.answer = request.answer, None
        if isinstance(answer, Exception):
            try:
                raise answer
            finally:
                del answer  # its traceback holds this frame: with it, both and the command would stay until cycles are looked for
        return answer

    # Driving

    async def _drive(self, own: _Request) -> None:
        self._is_driven = True
        try:
            # Others ask in this turn of trio's loop too: one exchange for all.
            await trio.lowlevel.cancel_shielded_checkpoint()
            started = trio.current_time()
            while not own.is_done:
                await self._exchange()
            if not isinstance(own.answer, Exception):
                self.round_trip_seconds = trio.current_time() - started
        finally:
            self._is_driven = False
            self._wake_next_driver()

    def _wake_next_driver(self) -> None:
        """Has another waiting task drive the connection."""
        for requests in (self._sent, self._queued):
            for request in requests:
                if request.waiting is not None:
                    request.wake()
                    return

    async def _exchange(self) -> None:
        """Sends queued commands, and hands out the answers that arrive."""
        try:
            if not self._link.is_open:
                await self._link.open()
            self._send_queued()
            if not self._sent:
                return  # nothing of it was for this connection
            answers = await self._link.exchange(self.answer_timeout_seconds)
        except Exception as error:  # noqa: BLE001 - handed to every waiter, or all but us would wait for ever
            self._link.close()  # what it would still answer has nobody waiting
            self._fail(error)
            return
        if self.connected_since is None or self._connects_seen != self.connects:
            self.connected_since = trio.current_time()
            self._connects_seen = self.connects
        moved, asked, is_of_use = self._hand_out(answers)
        if moved:
            self._link.close()
            self._queued[:0] = [*moved, *self._follow_sent()]
            self.connected_since = None
        elif not is_of_use:
            self._link.close()
            self._fail(RedisUnavailable("this server is a replica now, or wants another password"))
        if asked:
            await self._follow_asked(asked)

    def _hand_out(self, answers: list[Answer]) -> tuple[list[_Request], list[tuple[_Request, Route]], bool]:
        """Gives answers to their requests; returns those that must run elsewhere (for good, or just now), and whether to keep the connection."""
        is_of_use = True
        moved: list[_Request] = []
        asked: list[tuple[_Request, Route]] = []
        for answer in answers:
            request = self._sent.popleft()
            if not isinstance(answer, ResponseError):
                if self.refusals.latest:
                    self.refusals.done(request.name)
                request.be_done(answer)
            elif self._link.moved(answer) and request.may_move():
                moved.append(request)  # it did not run: another node of the cluster has our slot now
            elif (route := self._link.asked(answer)) and request.may_move():
                asked.append(
                    (request, route)
                )  # nor did this one: what it needs has gone to where our slot is being moved
            else:
                self._refuse(request, answer)
                is_of_use = is_of_use and not needs_new_connection(answer)
        return moved, asked, is_of_use

    async def _follow_asked(self, asked: list[tuple[_Request, Route]]) -> None:
        """Runs requests at the node that the slot is being moved to, one after the other."""
        for at, (request, route) in enumerate(asked):
            try:
                answer = await self._asked_node.exchange(route, request.command, self.answer_timeout_seconds)
            except RedisFailed as error:
                request.be_done(error)
            except BaseException:  # who drives was cancelled: of the others none has run
                request.be_done(RedisUnavailable("given up where the slot is being moved to"))
                self._queued[:0] = [one for one, _ in asked[at + 1 :]]
                raise
            else:
                if isinstance(answer, ResponseError):
                    self._refuse(request, answer)
                else:
                    request.be_done(answer)

    def _follow_sent(self) -> list[_Request]:
        """Returns the requests sent after a moved one, in order: being of the same slot, none of them has run either."""
        sent = list(self._sent)
        self._sent.clear()
        return sent

    def _send_queued(self) -> None:
        queued, self._queued = self._queued, []
        for request in queued:
            if request.connection is not None and request.connection != self.connects:
                request.be_done(ConnectionReplaced("Redis was away since this was decided"))
                continue
            self._link.write(request.command)
            self._sent.append(request)

    def _refuse(self, request: _Request, answer: ResponseError) -> None:
        if request.script is not None and not request.loaded and str(answer).startswith("NOSCRIPT"):
            # Somebody flushed the scripts; the command did not run, so running it now is the first time.
            reload = _Request(packed(("SCRIPT", "LOAD", request.script.text)))
            request.loaded = True
            self._queued[:0] = [reload, request]
        else:
            error = failure(answer)
            self.refusals.note(request.name, error)
            if _keeps_leases_from_being_renewed(request, error):
                self.connected_since = None
            request.be_done(error)

    def _fail(self, error: Exception) -> None:
        """Fails all requests of a connection that is gone or could not be made: those that were sent may have run, queued ones did not."""
        self.connected_since = None
        failed = [*self._sent, *self._queued]
        self._sent.clear()
        self._queued = []
        for request in failed:
            request.be_done(error)


def _keeps_leases_from_being_renewed(request: _Request, error: RedisFailed) -> bool:
    """Returns True if workers cannot renew their leases either: a full Redis still renews, one that refuses our scripts refuses theirs."""
    if isinstance(error, RedisDenied):
        return request.script is not None
    return isinstance(error, RedisUnavailable) and not isinstance(error, RedisFull)


class _OnConnection:
    """The Commands that `RedisClient.on_connection` returns."""

    def __init__(self, client: RedisClient, number: int) -> None:
        self._client = client
        self._number = number

    async def command(self, *command: Argument) -> Value:
        return await self._client._ask(_Request(packed(command), None, self._number))

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        return await self._client._ask(self._client._call_of(name, keys, arguments, self._number))


async def together(client: Commands, *commands: tuple[Argument, ...]) -> list[Value]:
    """Commands that need not be one step; in one round trip where the client is a RedisClient. Raises as `command`."""
    if isinstance(client, RedisClient):
        return await client.together(*commands)
    return [await client.command(*command) for command in commands]


async def members_until(client: Commands, key: str, score: int) -> list[str]:
    """Returns all members of a sorted set up to a score, lowest first; asked page by page, so that no command takes Redis long."""
    found: list[str] = []
    while True:
        page = await client.command("ZRANGEBYSCORE", key, "-inf", score, "LIMIT", len(found), PAGE)
        members = [member.decode() for member in cast("list[bytes]", page)]
        found += members
        if len(members) < PAGE:
            return list(dict.fromkeys(found))  # a member whose score changed meanwhile came twice


async def keys_like(client: Commands, pattern: str, count: int) -> AsyncGenerator[list[str]]:
    """Yields keys of a pattern in pages (SCAN, COUNT `count`); a key that exists throughout comes at least once, perhaps twice."""
    cursor = b"0"
    while True:
        answer = await client.command("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        cursor, found = cast("tuple[bytes, list[bytes]]", answer)
        if found:
            yield [key.decode() for key in dict.fromkeys(found)]
        if cursor == b"0":
            return


@asynccontextmanager
async def open_redis(
    url: str, scripts: Scripts | None = None, *, answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
) -> AsyncIterator[RedisClient]:
    """Gives a client that is closed at the end of the block. `url`: as HASHEE_REDIS_URL."""
    client = RedisClient(url, scripts or Scripts.load(), answer_timeout_seconds=answer_timeout_seconds)
    client.start()
    try:
        yield client
    finally:
        await client.aclose()
