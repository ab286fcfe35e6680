"""Has Redis gone back in time (DESIGN rule 17)? Every writing script counts; a lower count than one that was seen says so.

One value per supervisor, shared by those who hear counts and those who send. What was seen before this process is read from the
state directory; a Redis that went back raises the epoch, once for all supervisors, before anything is sent.

That count alone does not do: before a supervisor looks, workers may have counted a Redis that went back beyond what it has seen. So commits
have a count of their own, which only supervisors raise, and none does before it has looked at its connection. And a server that is not
the one that was looked at last has to prove that it holds all that that one held (`Proof`).
"""

import enum
import secrets
import time
from collections.abc import Callable
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.transport.client import Commands
from bus.transport.wire import Value

FEWEST_IDS = 1 << 16
MOST_SLOTS = 3


class Found(enum.Enum):
    """What a look at Redis showed: all is there; an older state; what another server left; or what no server was ever named in."""

    SAME = b"same"
    OLDER = b"older"
    OTHER = b"other"
    UNPROVEN = b"unproven"


class Proof(msgspec.Struct, frozen=True):
    """What is known of a server before it is asked. `server`: the name of its process and history. `may_follow`: servers all of whose
    state it may have; `commits`: how many were witnessed while these ran.
    """

    server: str
    may_follow: tuple[str, ...] = ()
    commits: int = 0


class WriteCount:
    """`highest`: the highest count seen; `commits`: of commits alone. `epoch`: of the sessions that may be sent with. `is_doubted`: what
    is there is older than what was stored; nothing is committed until the epoch is raised. `verified_connection`: commands on the connection that
    was looked at last. `raised_seconds`: when the epoch became another, by the process' clock. `on_commit`: told how many commits there are, before what was committed leaves.
    """

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest
        self.commits = 0
        self.epoch = 0
        self.is_doubted = False
        self.raised_seconds = float("-inf")
        self.verified_connection: Commands | None = None
        self.on_commit: Callable[[int], None] = lambda _commits: None

    def seen(self, count: int) -> None:
        """A script has answered with this count."""
        self.highest = max(self.highest, count)

    def committed(self, commits: int) -> None:
        """There are so many commits; what was committed may leave when this returns."""
        self.commits = max(self.commits, commits)
        self.on_commit(commits)

    async def check(self, client: Commands, keys: Keys, proof: Proof, *, certainly_back: bool = False) -> Found:
        """Compare with what Redis says now; unless it is all there the epoch is raised. Raises RedisFailed."""
        slots = [keys.slot(number) for number in range(1, MOST_SLOTS + 1)]
        names = [keys.epoch, keys.write_count, keys.interrupted, keys.prekey_state, keys.continuity, *slots]
        arguments = (
            *(self.epoch, self.highest, _ids_further(), _ids_further(), proof.server, self.commits, proof.commits),
            "1" if certainly_back or self.is_doubted else "",
            *proof.may_follow,
        )
        answer = cast("list[Value]", await client.script("prove_continuity", names, *arguments))
        found = Found(answer[0])
        epoch, count, commits = cast("list[int]", answer[1:])
        if found is not Found.SAME:
            self.is_doubted = False
        if epoch > self.epoch:
            self.epoch, self.raised_seconds = epoch, time.monotonic()
        self.seen(count)
        self.committed(commits)
        return found


def _ids_further() -> int:
    """Farther than ids were given out in anything that Redis may have forgotten, and far from the end of their 32 bits."""
    return FEWEST_IDS + secrets.randbelow(FEWEST_IDS)
