"""One server's connection in a worker: a task that connects, lists, and connects again; calls come to it from the tasks of jobs.

A connection that breaks cancels what runs inside of the client's block, so no job runs there: a job hands its call over and waits outside of it.
"""

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from bus.transport.backoff import Backoff
from workers.errors import OutcomeUnknown, ToolError
from workers.mcp.http import client_of
from workers.mcp.named import NamedServer
from workers.mcp.offered import Pins, offer_of
from workers.mcp.results import text_of
from workers.mcp.stdio import TOO_LONG, ServerEnded, started
from workers.tools.tool import Arguments, Observe, Tool, canonical, observe_nothing

CONNECT_SECONDS: Final = 30.0
"""For the handshake and the list of tools: a server that hangs there is left, and tried again."""

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""A connection that lasted so long begins with the first pause again."""

PATIENCE_SECONDS: Final = 10.0
"""A call waits so long for a server that is away."""

BROKEN_SECONDS: Final = 0.05
LIST_AGAIN_SECONDS: Final = 60.0
AFTER_CHANGE_SECONDS: Final = 1.0
LIST_SECONDS: Final = 15.0
MOST_PAGES: Final = 20
MOST_LISTED: Final = 1_000
MOST_TOLD: Final = 200
"""Lines of the log about one server's tools."""

MOST_AT_ONCE: Final = 16
"""Calls of one worker to one server."""

CONNECTED: Final = "connected"
CONNECTIONS_METRIC: Final = "business_mcp_connections"
NOT_DONE: Final = frozenset({types.METHOD_NOT_FOUND, types.INVALID_PARAMS, types.INVALID_REQUEST})
"""Codes by which a server says that it has not begun with a call. Of others nobody knows whether it has."""

SESSION_GONE: Final = "Session terminated"
"""What the package makes of a server that no longer knows our session, since it was started again: it has not begun either."""

log = logging.getLogger("hashee.mcp")
# The package quotes what it could not read, which may be of a conversation.
_OF_PACKAGE: Final = "mcp"


class ConnectionLost(Exception):
    """A call has found out that the connection is of no use."""


@dataclass(eq=False)
class _Call:
    """A call on its way. One of `text`, `error` is set at its end; neither where the connection broke under it."""

    tool: Tool
    arguments: Arguments
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    text: str | None = None
    error: str | None = None
    is_begun: bool = False
    """Whether the server may have heard of it."""


class Connection:
    """Of one server. It is a ToolSource: the tools are those of the latest list, also while the server is away."""

    def __init__(self, server: NamedServer, environment: Mapping[str, str], observe: Observe = observe_nothing) -> None:
        """`environment`: of a server that is a command. `observe`: see OpensTools."""
        self._server = server
        self._observe = observe
        self._environment = environment
        self._tools: tuple[Tool, ...] = ()
        self._pins = Pins()
        self._calls: trio.MemorySendChannel[_Call] | None = None
        self._is_connected = trio.Event()
        self._list_again = trio.Event()
        self._at_once = trio.CapacityLimiter(MOST_AT_ONCE)
        self._told = ""
        self._was_up = False
        self._pause = trio.CancelScope()
        self._wanting = 0
        """Calls that wait for the server to be there."""

        self._list_known = b""
        self._because = ""
        """Why an answer was not read, of this connection."""

    def tools(self) -> Sequence[Tool]:
        """Returns the tools of the latest list."""
        return self._tools

    async def until_listed(self) -> None:
        """Waits until the server has been connected for the first time."""
        await self._is_connected.wait()

    async def run(self) -> None:
        """Connects, and connects again, until cancelled."""
        _silence_the_package()
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            began = trio.current_time()
            try:
                await self._connected()
                why = "it has ended"
            except Exception as error:  # noqa: BLE001 - whatever a server does, and the package with it, ends its connection alone
                why = _why(error)
            self._observe(CONNECTIONS_METRIC, 1, server=self._server.name, outcome="lost" if self._was_up else "failed")
            self._was_up = False
            if trio.current_time() - began >= STEADY_SECONDS:
                backoff.reset()
            self._tell(f"lost: {why}; it is tried again, with pauses of up to {LONGEST_PAUSE_SECONDS:.0f} s")
            await trio.sleep(FIRST_PAUSE_SECONDS)
            with trio.CancelScope() as self._pause:
                if not self._wanting:
                    await backoff.wait()

    async def _connected(self) -> None:
        """One connection, to its end. Raises whatever ends it."""
        send, receive = trio.open_memory_channel[_Call](0)
        with trio.CancelScope(deadline=trio.current_time() + CONNECT_SECONDS) as scope:
            async with receive, send, self._client() as client, trio.open_nursery() as nursery:
                await self._list(client)
                scope.deadline = float("inf")
                self._because = ""
                self._calls = send
                self._is_connected.set()
                self._was_up = True
                self._observe(CONNECTIONS_METRIC, 1, server=self._server.name, outcome=CONNECTED)
                self._tell(CONNECTED, tools=len(self._tools))
                try:
                    nursery.start_soon(self._keep_listed, client)
                    async for call in receive:
                        nursery.start_soon(self._answer, client, call)
                finally:
                    self._calls, self._is_connected = None, trio.Event()
        if scope.cancelled_caught:
            raise ConnectionLost(f"nothing for {CONNECT_SECONDS:.0f} s")

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        server = self._server
        if server.url:
            async with client_of(server.headers, self._noted) as http:
                transport: Any = streamable_http_client(server.url, http_client=http, terminate_on_close=False)
                async with self._client_over(transport) as client:
                    yield client
        else:
            async with self._client_over(started(server.command, self._environment, server.cwd)) as client:
                yield client

    def _noted(self, why: str) -> None:
        self._because = why

    def _client_over(self, transport: Any) -> Client:
        return Client(transport, cache=None, message_handler=self._heard)

    async def _heard(self, message: object) -> None:
        """Notes that the tools are others now."""
        await trio.lowlevel.checkpoint()
        if isinstance(message, types.ToolListChangedNotification):
            self._list_again.set()

    async def _keep_listed(self, client: Client) -> None:
        """Lists once a minute, and when the server says that something has changed, at most once a second. Raises what ends the connection."""
        while True:
            with trio.move_on_after(LIST_AGAIN_SECONDS):
                await self._list_again.wait()
            await trio.sleep(AFTER_CHANGE_SECONDS)
            self._list_again = trio.Event()
            await self._list(client)

    async def _list(self, client: Client) -> None:
        """Asks for the tools, and makes them what is offered. Raises what ends the connection."""
        found: list[types.Tool] = []
        cursor = None
        with trio.fail_after(LIST_SECONDS):
            for _ in range(MOST_PAGES):
                page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
                found += page.tools
                cursor = page.next_cursor
                if cursor is None or len(found) > MOST_LISTED:
                    break
        if not self._is_another(found):
            return
        is_first = self._pins.by_title is None
        offer = offer_of(found[:MOST_LISTED], self._server, self._pins, self._run)
        self._tools = offer.tools
        if cursor is not None or len(found) > MOST_LISTED:
            self._tell_once(f"it lists more than {MOST_LISTED} tools: the others are left out")
        for why, count in offer.left_out.items():
            self._tell_once(f"a tool of its {why}, and is left out", count=count)
        for title in offer.changed:
            self._tell_once("a tool is new or another than it was when it was allowed: it asks each time", tool=title)
        if is_first:
            for tool in offer.tools:
                if tool.sensitivity == "low":
                    self._tell_once("a tool is allowed", tool=tool.title, fingerprint=tool.fingerprint)

    def _is_another(self, found: Sequence[types.Tool]) -> bool:
        """Returns whether this is another list than the latest one: to look at each tool's schema takes a while."""
        try:
            told = canonical([[tool.name, tool.description, tool.input_schema] for tool in found])
        except (ValueError, RecursionError):
            return True
        digest = hashlib.sha256(told).digest()
        is_another, self._list_known = digest != self._list_known, digest
        return is_another

    # Calls

    async def _run(self, tool: Tool, arguments: Arguments) -> str:
        """Calls a tool for a job. Raises ToolError, OutcomeUnknown."""
        async with self._at_once:
            call = await self._sent(tool, arguments)
            if call.text is None and call.error is None and not call.is_begun:
                call = await self._sent(tool, arguments)  # the server was another one by then: it has not begun
        name = self._server.name
        if call.text is not None:
            return call.text
        if call.error is not None:
            raise ToolError(call.error)
        if not call.is_begun:
            raise ToolError(f"the server {name} was lost before the call began: try again later")
        if self._is_allowed(tool):
            why = self._because or "it has ended, or its connection"
            raise ToolError(f"the server {name} was lost during the call ({why}): nobody knows whether it was done")
        raise OutcomeUnknown(tool.name)

    def _is_allowed(self, tool: Tool) -> bool:
        return (self._pins.by_title or {}).get(tool.title) == tool.fingerprint

    async def _sent(self, tool: Tool, arguments: Arguments) -> _Call:
        """Hands a call over to the connection, and waits for its end, or for that of the connection. Raises ToolError."""
        call = _Call(tool, arguments)
        await self._hand_over(call)
        try:
            await call.done.wait()
        finally:
            call.scope.cancel()
        return call

    async def _hand_over(self, call: _Call) -> None:
        """Raises ToolError. Who waits for a server that is away ends its pause."""
        self._wanting += 1
        self._pause.cancel()
        try:
            await self._hand_over_soon(call)
        finally:
            self._wanting -= 1

    async def _hand_over_soon(self, call: _Call) -> None:
        with trio.move_on_after(PATIENCE_SECONDS):
            while True:
                await self._is_connected.wait()
                try:
                    if self._calls is not None:
                        await self._calls.send(call)
                        return
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # it broke just now
                await trio.sleep(BROKEN_SECONDS)
        raise ToolError(f"the server {self._server.name} is not connected: try again later, or without it")

    async def _answer(self, client: Client, call: _Call) -> None:
        """Asks the server, within the client's block. Raises ConnectionLost."""
        try:
            with call.scope:
                await self._ask(client, call)
        finally:
            call.done.set()

    async def _ask(self, client: Client, call: _Call) -> None:
        if not self._is_allowed(call.tool):
            await self._list(
                client
            )  # what was approved is what runs, also where the server tells nobody that it has changed
        if all(tool.fingerprint != call.tool.fingerprint for tool in self._tools):
            call.error = "this tool is another one by now, or gone: look at it again before you call it"
            return
        params = types.CallToolRequestParams(name=call.tool.title, arguments=dict(call.arguments))
        call.is_begun = True
        try:
            result = await client.session.send_request(types.CallToolRequest(params=params), types.CallToolResult)
        except MCPError as error:
            if error.message == SESSION_GONE:
                call.is_begun = False
                raise ConnectionLost("it no longer knows this session") from None
            if error.message == TOO_LONG:
                call.error = f"the server has answered with {TOO_LONG}, which is not read"
                return
            if error.code not in NOT_DONE:
                raise ConnectionLost(f"error {error.code}") from None
            call.error = f"the server refuses the call: {error.message[:500]}"
        except ValueError:  # as pydantic says it
            raise ConnectionLost("an answer that cannot be read") from None
        else:
            text = text_of(result)
            call.text, call.error = (None, text) if result.is_error else (text, None)

    # What is told

    def _tell(self, what: str, **values: object) -> None:
        """Says what became of the connection; the same once."""
        if what != self._told:
            self._told = what
            level = logging.INFO if what == CONNECTED else logging.WARNING
            log.log(level, "mcp: %s", what, extra={"values": {"server": self._server.name, **values}})

    def _tell_once(self, what: str, **values: object) -> None:
        """Says something about the tools, once; a server whose tools are others each time fills no log."""
        told, key = self._pins.told, f"{what} {values.get('tool', '')}"
        if key in told or len(told) > MOST_TOLD:
            return
        told.add(key)
        if len(told) > MOST_TOLD:
            what, values = "it gives so much to say about its tools that no more is said", {}
        log.warning("mcp: %s", what, extra={"values": {"server": self._server.name, **values}})


def _silence_the_package() -> None:
    package = logging.getLogger(_OF_PACKAGE)
    package.propagate = False
    if not package.handlers:
        package.addHandler(logging.NullHandler())


def _why(error: BaseException) -> str:
    """Returns why a connection has ended: a word of ours or the error's class, nothing that the server has said."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ServerEnded | ConnectionLost):
        return str(error)
    return f"error {error.code}" if isinstance(error, MCPError) else type(error).__name__
