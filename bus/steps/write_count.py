"""Finds out whether Redis has gone back in time (DESIGN rule 17): every writing script counts, and a lower count than one seen shows it.

One WriteCount per supervisor is shared by all parts that hear counts and that send. What earlier processes have seen is read from the
state directory. If Redis went back the epoch is raised, once for all supervisors, before anything is sent.

The write count alone is not enough: workers may write to a Redis that went back until its count passes the one that was seen. So commits
are counted separately: only supervisors raise that count, each only after it has checked its connection. And a server other than the
one that was checked last has to prove that it holds everything that the last one held (`Proof`).
"""

import enum
import secrets
import time
from collections.abc import Callable
from typing import cast

import msgspec

from bus.records.keys import Keys
from bus.records.numbers import number_in
from bus.transport.client import Commands
from bus.transport.wire import Value

FEWEST_IDS = 1 << 16
MOST_SLOTS = 3


class Found(enum.Enum):
    """What a check of Redis found: everything is there; an older state; another server's data; or data in which no server is named."""

    SAME = b"same"
    OLDER = b"older"
    OTHER = b"other"
    UNPROVEN = b"unproven"


class Proof(msgspec.Struct, frozen=True):
    """What is known of a server before it is checked.

    `server`: the name of its process and history. `may_follow`: servers whose whole state it may hold. `commits`: how many commits were
    witnessed while those ran.
    """

    server: str
    may_follow: tuple[str, ...] = ()
    commits: int = 0


class WriteCount:
    """The counts that this supervisor has seen, and the epoch in which it may send.

    `highest`: the highest write count seen; `commits`: the highest count of commits. `epoch`: only sessions of it may encrypt.
    `is_doubted`: Redis holds an older state, and nothing is committed until the epoch is raised. `verified_connection`: runs commands on
    the connection that was checked last. `raised_seconds`: when the epoch changed, by the process' clock. `on_commit`: called with
    the number of commits before the committed bytes leave.
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
        """Notes the write count in a script's answer."""
        self.highest = max(self.highest, count)

    def committed(self, commits: int) -> None:
        """Notes and witnesses the number of commits; the committed bytes may leave when this has returned."""
        self.commits = max(self.commits, commits)
        self.on_commit(commits)

    async def check(self, client: Commands, keys: Keys, proof: Proof, *, certainly_back: bool = False) -> Found:
        """Checks Redis and returns what was found; raises the epoch unless everything is proven to be there. Raises RedisFailed."""
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


async def epoch_now(client: Commands, keys: Keys) -> int:
    """Returns the epoch that stands in Redis."""
    return number_in(await client.command("GET", keys.epoch))


def _ids_further() -> int:
    """Returns how far prekey ids go on: farther than any that Redis may have forgotten, and far from the end of their 32 bits."""
    return FEWEST_IDS + secrets.randbelow(FEWEST_IDS)
