"""A server that is a child of this worker: its lines are read within a bound, and it ends with the block, and with the worker.

The package's own transport reads a line of any length into memory. A worker that is killed leaves its child to the supervisor, which finds it by the
worker's name in its environment (host/strays.py).
"""

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import types
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from workers.mcp.pace import Pace

MOST_LINE_BYTES: Final = 4 << 20
"""Of one message: a list of tools may have a megabyte, an answer that a model is told has far less."""

RECEIVE_BYTES: Final = 65_536
HEAD_BYTES: Final = 512
ID: Final = re.compile(rb'"id"\s*:\s*(\d{1,15})\b')
END_SECONDS: Final = 2.0
"""For a server to end by itself when its stdin is closed, and again when it is told to."""

STATUS_SECONDS: Final = 0.5
"""Between the end of a server's output and its own."""

TOO_LONG: Final = f"an answer of more than {MOST_LINE_BYTES >> 20} MiB"
Message = SessionMessage | Exception


class ServerEnded(Exception):
    """The server has ended, or closed its output."""


@asynccontextmanager
async def started(
    command: tuple[str, ...], environment: Mapping[str, str], cwd: str | Path | None
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Message], MemoryObjectSendStream[SessionMessage]]]:
    """Starts a server for the block; its end cancels the block. Raises OSError; ServerEnded, in a group."""
    process = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it may quote what it was asked
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,
    )
    into, read = anyio.create_memory_object_stream[Message](0)
    write, out_of = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with trio.open_nursery() as nursery, into, read, write, out_of:
            nursery.start_soon(_hear, process, into)
            nursery.start_soon(_say, process, out_of)
            yield read, write
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _hear(process: trio.Process, into: MemoryObjectSendStream[Message]) -> None:
    """Reads lines, and passes over those that are too long. Raises ServerEnded."""
    assert process.stdout is not None  # noqa: S101 - it was started with one
    line, is_too_long, pace = bytearray(), False, Pace()
    while data := await _some(process.stdout):
        *ended, rest = data.split(b"\n")
        await pace.took(len(ended))
        for piece in ended:
            if not is_too_long:
                line += piece
                await _take(bytes(line), into)
            line, is_too_long = bytearray(), False
        if not is_too_long:
            line += rest
            if len(line) > MOST_LINE_BYTES:
                await into.send(_too_long(bytes(line[:HEAD_BYTES])))
                line, is_too_long = bytearray(), True
    with trio.move_on_after(STATUS_SECONDS):
        await process.wait()
    status = process.returncode
    raise ServerEnded("it has closed its output" if status is None else f"it has ended with status {status}")


async def _some(stream: trio.abc.ReceiveStream) -> bytes:
    try:
        return bytes(await stream.receive_some(RECEIVE_BYTES))
    except trio.BrokenResourceError:
        return b""


async def _take(line: bytes, into: MemoryObjectSendStream[Message]) -> None:
    if len(line) > MOST_LINE_BYTES:
        await into.send(_too_long(line[:HEAD_BYTES]))
    elif line.strip():
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            return  # it is no message: a server that prints, say
        await into.send(SessionMessage(message))


def _too_long(head: bytes) -> SessionMessage:
    """Returns an error in the place of the answer that a line begins. Raises ServerEnded where it does not say which."""
    found = ID.search(head)
    if found is None:
        raise ServerEnded(f"it has sent {TOO_LONG}")
    error = types.ErrorData(code=types.INVALID_REQUEST, message=TOO_LONG)
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))


async def _say(process: trio.Process, out_of: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was started with one
    async for said in out_of:
        line = said.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await process.stdin.send_all(line.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ServerEnded("it reads nothing more") from None


async def _end(process: trio.Process) -> None:
    """Ends a server and what it has started: by the end of its stdin, then by being told, then by force."""
    if process.stdin is not None:
        await process.stdin.aclose()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        with trio.move_on_after(END_SECONDS):
            await process.wait()
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it has left behind
    if process.stdout is not None:
        await process.stdout.aclose()
