"""An MCP server as an owner writes it. The package mcp, which is an extra, is loaded when it is opened."""

import os
import shutil
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from host.strays import COOKIE
from workers.errors import BadHandler, CannotStart
from workers.mcp.named import NamedServer, allowed, name_of, place_of
from workers.tools.tool import TIMEOUT_SECONDS, Observe, ToolSource, observe_nothing

EXTRA: Final = "pip install 'hashee-agent[mcp]'"
OF_EXTRA: Final = ("mcp", "anyio", "jsonschema", "referencing")
FIRST_LIST_SECONDS: Final = 5.0
"""A worker's first messages, and answers to what was asked in another worker, find the tools of a server that is there; one that is away has none yet."""

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER", COOKIE)
"""What a server that is started is given of the environment: no secret, and the name by which it is found if its worker dies."""


class MCP:
    """An MCP server whose tools a model may call: `MCP("http://127.0.0.1:8000/mcp", allow={"search_*"})`, or `MCP("uvx", "mcp-server-git")`.

    `allow`: which of its tools need no approval: names, with `*` for any characters, resolved when the server is first seen; or a mapping of a name
    to the fingerprint that the log tells, which no later change passes. All others ask each time. `name`: how it is called in the tools' names; else
    made of its place. `headers`: of each request, such as a token. `env`, `cwd`: of a command. `timeout_seconds`: of one call. `approvers`: the ids
    of who may approve its calls. Raises BadHandler.
    """

    def __init__(
        self,
        *server: str,
        allow: Collection[str] | Mapping[str, str] = (),
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        approvers: Collection[str] = (),
    ) -> None:
        url, command, place = place_of(server)
        if isinstance(approvers, str):
            raise BadHandler("MCP(approvers=…) takes the ids of users: approvers=[user_id]")
        self.named = NamedServer(
            name=name_of(url, command) if name is None else name,
            place=place,
            url=url,
            command=command,
            allow=allowed(allow),
            headers=dict(headers or {}),
            env=dict(env or {}),
            cwd=cwd,
            timeout_seconds=timeout_seconds,
            approvers=tuple(approvers),
        )

    def __repr__(self) -> str:
        return f"MCP({self.named.place!r}, name={self.named.name!r})"

    def opened(self, observe: Observe = observe_nothing) -> AbstractAsyncContextManager[ToolSource]:
        """Connects for the block, in a task of its own, as often as it takes; waits a few seconds for the first list of tools, and no longer. Raises CannotStart."""
        return self._opened(observe)

    @asynccontextmanager
    async def _opened(self, observe: Observe) -> AsyncIterator[ToolSource]:
        named = self.named
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(named.env)
        if named.command and shutil.which(named.command[0], path=environment.get("PATH")) is None:
            raise CannotStart(f"MCP server {named.name}: no program {named.command[0]!r} is found on PATH")
        try:
            from workers.mcp.connection import Connection  # noqa: PLC0415
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in OF_EXTRA:
                raise
            raise CannotStart(f"MCP servers need the package mcp, which is not installed: {EXTRA}") from None
        connection = Connection(named, environment, observe)
        raised: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            with trio.move_on_after(FIRST_LIST_SECONDS):
                await connection.until_listed()
            try:
                yield connection
            except (Exception, SystemExit) as error:  # noqa: BLE001 - raised again outside of the nursery, not in a group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
