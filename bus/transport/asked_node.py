"""The node to which our slot is just being moved: what has gone there already is asked for there, command by command (ASK, ASKING).

The node takes one command after each ASKING, and of a script over many keys only one all of whose keys it has; for anything else its answer is
TRYAGAIN, until the slot has moved. No connection of this kind is one that a commit may run on (DESIGN rule 17): its client does not follow then.
"""

from bus.transport.link import Link
from bus.transport.lua import Scripts, packed
from bus.transport.route import Route
from bus.transport.wire import Answer

ASKING = packed(("ASKING",))


class AskedNode:
    """A connection to it, made when it is needed. One exchange at a time."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._link: Link | None = None
        self._shown = ""

    async def exchange(self, route: Route, command: bytes, answer_timeout_seconds: float) -> Answer:
        """The answer there to a command (RESP). Raises RedisFailed: then it may have run."""
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
        """Close it; the next exchange makes another one."""
        if self._link is not None:
            self._link.end()
            self._link = None
