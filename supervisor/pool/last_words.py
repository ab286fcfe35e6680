"""Keeps the last lines that a worker wrote to its descriptor 2: fatal errors of the interpreter, C libraries, tracebacks.

They may carry content. So they are kept in memory and shown over the control socket, nowhere else; the log gets only lines of
faulthandler's own form, which name files, lines and functions.
"""

import re
from collections import deque

import trio

LINES_KEPT = 400
"""faulthandler shows up to 100 frames of each thread: four threads."""

LINES_SHOWN = 20
"""The end of a traceback, short enough for a status page."""

LINE_LIMIT_CHARACTERS = 300
"""A longer line is cut: what the tail holds stays small, whatever is written."""

RECEIVE_BYTES = 65536

# A traceback's line has a comma before `in`; faulthandler's has none.
_STACK = re.compile(r'(?:Current thread|Thread) 0x[0-9a-f]+|  File "[^"]*", line \d+ in ')
_PLACE = re.compile(r'  File "([^"]*)", line (\d+) in ')


class StderrTail:
    """The last lines of one worker, oldest first."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._rest = b""

    async def read(self, descriptor: int) -> None:
        """Reads the descriptor to its end, and closes it."""
        async with trio.lowlevel.FdStream(descriptor) as stream:
            while data := await stream.receive_some(RECEIVE_BYTES):
                self.feed(bytes(data))

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._lines.extend(line.decode("utf-8", "replace")[:LINE_LIMIT_CHARACTERS] for line in lines)
        self._rest = rest[:LINE_LIMIT_CHARACTERS]

    def shown(self) -> tuple[str, ...]:
        """Returns the last lines for the owner, over the control socket only: they may carry content."""
        return tuple(self._lines)[-LINES_SHOWN:]

    def stacks(self) -> str:
        """Returns where faulthandler found each thread, without values; empty if it was not asked or did not answer."""
        return "\n".join(line for line in self._lines if _STACK.match(line))

    def place(self) -> str:
        """Returns `file.py:12`, the innermost frame of the last stack that faulthandler wrote; empty if there is none."""
        innermost, begins = "", False
        for line in self._lines:
            found = _PLACE.match(line)
            if found is None:
                begins = line.startswith(("Current thread", "Stack (most recent"))
            elif begins:
                innermost, begins = f"{found[1].rpartition('/')[2]}:{found[2]}", False
        return innermost
