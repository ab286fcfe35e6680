"""Lines from the terminal's own line editing, read without a thread, so that whatever ends a chat ends this at once."""

import os
from collections.abc import AsyncIterator

import trio

READ_BYTES = 64 * 1024


async def terminal_lines(descriptor: int = 0) -> AsyncIterator[str]:
    """Lines from a terminal or pipe until its end (Ctrl-D)."""
    pending = b""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, READ_BYTES)
        if not data:
            if pending:
                yield pending.decode(errors="replace")
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
