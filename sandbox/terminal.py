"""Lines from the terminal's own line editing, read without a thread, so that whatever ends a chat ends this at once."""

import os
import select
from collections.abc import AsyncIterator

import trio

READ_BYTES = 64 * 1024


async def terminal_lines(descriptor: int = 0) -> AsyncIterator[str]:
    """Lines from a terminal, a pipe or whatever else until its end (Ctrl-D)."""
    pending, can_be_waited_for = b"", is_waited_for(descriptor)
    while True:
        if can_be_waited_for:
            await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, READ_BYTES)
        if not data:
            if pending:
                yield pending.decode(errors="replace")
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def is_waited_for(descriptor: int) -> bool:
    """Returns whether an event loop can wait for it: a pipe or a terminal, no file and no /dev/null, which are read without waiting."""
    with select.epoll() as epoll:
        try:
            epoll.register(descriptor, select.EPOLLIN)
        except PermissionError:
            return False
    return True
