"""`python -m tests.trials.crowd [--people N] [--times N]`: an agent that 100,000 people may talk to answers its operator within a second.

A real agent under its keeper; the rows and the sessions of the people are written into its private Redis, sealed as it seals them. Then each
command runs as a process, some times over. The exit status is 1 where a command took longer than it may, or counted wrong.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import redis
import trio

from bus.records.sealing import StoreKeys
from bus.steps.seal import StoreSeal
from bus.transport.client import open_redis
from crypto.grants import Grant, Status
from crypto.identity import IdentityKeys, PublicIdentity
from supervisor.cli.conversations import FIRST as MOST_CONVERSATIONS
from supervisor.cli.grants import FIRST
from supervisor.peers.owners import Owner
from tests.supervisor.cli.keys.running import PROGRAM
from tests.world import World, world

MOST_SECONDS = 1.0
CHANGED_EVERY = 1000
BATCH = 1000
SESSION_BYTES = 1500


class Measured(NamedTuple):
    """`may_take`: None where as much was asked for as there is."""

    command: str
    seconds: tuple[float, ...]
    may_take: float | None
    said: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def is_good(self) -> bool:
        return self.may_take is None or self.median < self.may_take


def owner_id(number: int) -> str:
    return f"01906abc-0000-7000-8000-{number:012x}"


async def settle(made: World, people: int) -> None:
    """Everybody has a row with pinned keys and a session; of each thousandth the keys have changed."""
    secret = await trio.Path(made.state_dir / "store.secret").read_bytes()
    async with open_redis(f"unix://{made.redis_socket}") as client:
        keys = await StoreSeal(client, made.keys).adopt(secret)
    pairs = [IdentityKeys.generate(_always(number)).public for number in range(10)]
    await trio.to_thread.run_sync(_write, made, keys, pairs, people)


def _always(number: int) -> Callable[[int], bytes]:
    return lambda size: bytes([number + 1]) * size


def _write(made: World, keys: StoreKeys, pairs: list[PublicIdentity], people: int) -> None:
    names = made.keys
    with redis.Redis(unix_socket_path=str(made.redis_socket), protocol=2) as client:
        for start in range(0, people, BATCH):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(start + BATCH, people)):
                held = pairs[1] if number % CHANGED_EVERY == 0 else None
                grant = Grant(owner_id(number), Status.ACTIVE, 1, 1, pinned=pairs[0], held=held)
                key = names.owner(owner_id(number))
                row = keys.state.seal(Owner(grant, 0).encode(), key, 1)
                pipeline.hset(key, mapping={"v": "1", "b": row})
                pipeline.sadd(names.owners, owner_id(number))
                session = names.session(owner_id(number), "device")
                pipeline.hset(session, mapping={"v": "1", "b": bytes(SESSION_BYTES), "e": "0"})
                pinned = {"next": "2", "kind": "h2a", "person": owner_id(number), "t0": str(1_700_000_000_000 + number)}
                pipeline.hset(names.conversation(owner_id(number)), mapping=pinned)
            pipeline.execute()


def measure(made: World, times: int, *command: str, may_take: float | None) -> tuple[Measured, str, str]:
    """A command as a process, some times over; what it wrote."""
    seconds, done = [], None
    for _ in range(times):
        began = time.monotonic()
        done = subprocess.run(
            [*PROGRAM, *command], env=made.environment, capture_output=True, text=True, encoding="utf-8", check=True
        )
        seconds.append(time.monotonic() - began)
    assert done is not None
    return Measured(" ".join(command), tuple(seconds), may_take, ""), done.stdout, done.stderr


def look(made: World, people: int, times: int) -> tuple[list[Measured], list[str]]:
    """What each took, and what was counted wrong."""
    wrong, measured = [], []

    def check(what: str, found: object, expected: object) -> None:
        if found != expected:
            wrong.append(f"{what}: {found}, and there are {expected}")

    def run(*command: str, may_take: float | None = MOST_SECONDS) -> tuple[str, str]:
        one, out, err = measure(made, times, *command, may_take=may_take)
        measured.append(one)
        return out, err

    latest, more = run("conversations", "--json")
    check("conversations", len(latest.splitlines()), min(MOST_CONVERSATIONS, people))
    check("conversations says", "and more" in more, people > MOST_CONVERSATIONS)
    check("all conversations", len(run("conversations", "--all", may_take=None)[0].splitlines()), people)
    first, left = run("grants", "list")
    check("grants list", first.count("  active  "), min(FIRST, people))
    check("grants list says", f"and {people - FIRST} more" in left, people > FIRST)
    check("one that is named", run("grants", "list", owner_id(people - 1))[0].count("  active  "), 1)
    changed = run("grants", "list", "--changed", may_take=None)[0]
    check("whose keys have changed", changed.count("CHANGED"), -(-people // CHANGED_EVERY))
    check("grants list --all", run("grants", "list", "--all", may_take=None)[0].count("  active  "), people)
    supervisor = json.loads(run("status", "--json")[0])["supervisor"]
    check("status, people", supervisor["people"], people)
    check("status, sessions", supervisor["sessions"], people)
    run("status")
    run("doctor", may_take=None)
    return measured, wrong


async def trial(directory: Path, people: int, times: int) -> bool:
    async with world(directory, people=(), HASHEE_REDIS_MEMORY="1024") as made:
        await settle(made, people)
        measured, wrong = await trio.to_thread.run_sync(look, made, people, times)
    for one in measured:
        limit = "" if one.may_take is None else f" (may take {one.may_take:g})"
        print(f"{one.command}: {one.median:.2f} s, at most {max(one.seconds):.2f}{limit}")
    for what in wrong:
        print(f"counted wrong: {what}", file=sys.stderr)
    return not wrong and all(one.is_good for one in measured)


def main() -> int:
    """A line for each command."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.crowd", description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as directory:
        return 0 if trio.run(trial, Path(directory), arguments.people, arguments.times) else 1


if __name__ == "__main__":
    sys.exit(main())
