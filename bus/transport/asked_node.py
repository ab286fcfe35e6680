"""Runs single commands at the cluster node that our slot is being moved to, for keys that it has already (ASK, ASKING).

The node takes one command after each ASKING, and a script only if it has all of its keys; otherwise it answers TRYAGAIN until the slot has
moved. A commit never runs over such a connection (DESIGN rule 17).
"""

from bus.transport.link import Link
from bus.transport.lua import Scripts, packed
from bus.transport.route import Route
from bus.transport.wire import Answer

ASKING = packed(("ASKING",))


class AskedNode:
    """A connection to the node, made at the first exchange. One exchange at a time."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._link: Link | None = None
        self._shown = ""

    async def exchange(self, route: Route, command: bytes, answer_timeout_seconds: float) -> Answer:
        """Returns the node's answer to a command (RESP). Raises RedisFailed; the command may have run."""
        if self._link is None or self._shown != route.place:
            self.end()
            self._link, self._shown = Link(route, self._scripts), route.place
        link, is_over = self._link, False
        try:
            if not link.is_open:
                await link.open()
            link.write(ASKING + command)
            answers: list[Answer] = []
            while len(answers) < 2:
                answers += await link.exchange(answer_timeout_seconds)
            is_over = not isinstance(answers[1], Exception)
            return answers[1]
        finally:
            if not is_over:
                self.end()  # an answer may be left over, a script may be missing, the slot may have come back

    def end(self) -> None:
        """Closes the connection; the next exchange makes a new one."""
        if self._link is not None:
            self._link.end()
            self._link = None
