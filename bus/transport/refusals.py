"""Remembers which commands Redis refuses this user, each until it succeeds again or has not been tried for a while.

A user that may run one command need not be allowed another: so each refusal counts until that very command has run.
"""

import trio

from bus.transport.wire import RedisDenied, RedisFailed

REMEMBER_SECONDS = 30.0
"""A command that was not tried for so long is forgotten: every loop tries its own sooner."""
MOST = 50
DISPENSABLE = frozenset({"CONFIG", "MEMORY"})
"""Commands that some providers forbid; our code works without their answer."""


class Refusals:
    """The refusals of one connection. `latest`: by command or script; usually empty, and then a command costs one look at it."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[float, RedisFailed]] = {}

    def note(self, name: str, error: RedisFailed) -> None:
        """Notes a refusal of the command or script `name`."""
        if (
            isinstance(error, RedisDenied)
            and name not in DISPENSABLE
            and (name in self.latest or len(self.latest) < MOST)
        ):
            self.latest[name] = (trio.current_time(), error)

    def done(self, name: str) -> None:
        """Forgets a refusal, since the command has run."""
        self.latest.pop(name, None)

    def now(self) -> str:
        """Returns a text for people: each reason once, with the command; '' while nothing is refused."""
        since = trio.current_time() - REMEMBER_SECONDS
        self.latest = {name: found for name, found in self.latest.items() if found[0] >= since}
        by_reason: dict[str, list[str]] = {}
        for name, (_, error) in self.latest.items():
            by_reason.setdefault(error.reason, []).append(name)
        return "; ".join(f"{reason} ({', '.join(sorted(names)[:3])})" for reason, names in sorted(by_reason.items()))
