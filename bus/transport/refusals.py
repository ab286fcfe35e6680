"""What this user may not do at present, by what was asked: until the same is done again, or nobody has asked for it for a while.

One who may look may not do all the rest: so whatever was forbidden in the course of the work is remembered until that very thing is done.
"""

import trio

from bus.transport.wire import RedisDenied, RedisFailed

REMEMBER_SECONDS = 30.0
"""Of what nobody asks for again: what a loop needs it asks for sooner."""
MOST = 50
DISPENSABLE = frozenset({"CONFIG", "MEMORY"})
"""What some providers do not let us ask; whoever asks it does without."""


class Refusals:
    """Of one connection's commands. `latest`: by what was asked; empty as a rule, and a command at work looks no further then."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[float, RedisFailed]] = {}

    def note(self, name: str, error: RedisFailed) -> None:
        """`name`: of the command or script that was not done."""
        if (
            isinstance(error, RedisDenied)
            and name not in DISPENSABLE
            and (name in self.latest or len(self.latest) < MOST)
        ):
            self.latest[name] = (trio.current_time(), error)

    def done(self, name: str) -> None:
        """It was done."""
        self.latest.pop(name, None)

    def now(self) -> str:
        """For people: each reason once, with what was asked; empty while nothing is refused."""
        since = trio.current_time() - REMEMBER_SECONDS
        self.latest = {name: found for name, found in self.latest.items() if found[0] >= since}
        by_reason: dict[str, list[str]] = {}
        for name, (_, error) in self.latest.items():
            by_reason.setdefault(error.reason, []).append(name)
        return "; ".join(f"{reason} ({', '.join(sorted(names)[:3])})" for reason, names in sorted(by_reason.items()))
