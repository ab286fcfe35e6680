"""What else was tried to make a conversation deaf or a ratchet fork: more comes back than a copy, or only a part, or twice, or on both sides.

Each trial is the same conversation as in the other drills with another deed in its middle; what is counted is the same.
"""

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path

import msgspec
import redis
import trio

from tests.trials.drills.scene import Order, Outcome, Scene, copied_whole, copy, put_back, scene
from tests.world import DRAIN_SECONDS, agent

FILES = Path("redis", "appendonlydir")
OLDER_SECONDS = 1.5
PAUSE_SECONDS = 0.1


class Trial(msgspec.Struct, frozen=True):
    """`deed`: what happens in the middle; whether the agent has to be started after it. `counted`: the metric by which it has to be noticed,
    '' where nothing need be lost. `accepts_one`: one message may go out under a used ratchet position before anybody can know, and its receiver
    cannot read it, in each conversation in which only the agent spoke in the lost span (PROTOCOL §5.12).
    """

    deed: Callable[[Scene, Path], Awaitable[bool]]
    counted: str = "redis_went_back"
    accepts_one: bool = False


async def _tried(name: str, directory: Path, order: Order) -> Outcome:
    trial = TRIALS[name]
    async with scene(directory, order) as at, AsyncExitStack() as stack:
        await at.talk("before", at.world.people)
        await at.begin_counting()
        if await trial.deed(at, directory):
            await stack.enter_async_context(agent(at.world))
            await at.world.until_ready()
        await at.each_is_answered()
        await at.talk("after", at.world.people)
        outcome = await at.outcome(name, is_noticed=not trial.counted or at.has_counted(trial.counted))
        return msgspec.structs.replace(outcome, accepted=len(at.counters)) if trial.accepts_one else outcome


async def _go_on(at: Scene, what: str = "in the lost span") -> None:
    """Half of the people are told a count that does not end; the others say something and are answered."""
    await at.count_on()
    await at.talk(what, at.talkers)


async def _kept(at: Scene, place: Path) -> Path:
    """A copy of the whole state directory, made while everything runs."""
    state_dir = at.world.state_dir
    while not await trio.to_thread.run_sync(copied_whole, state_dir, place, state_dir / FILES):
        await trio.sleep(PAUSE_SECONDS)
    return place


async def _end(at: Scene, number: signal.Signals = signal.SIGTERM) -> None:
    """All that is the keeper's is gone when it returns."""
    assert at.world.up is not None
    server = at.world.redis_pid()
    await at.world.up.end(number, DRAIN_SECONDS)
    await at.world.until(lambda: not Path(f"/proc/{server}").exists())
    at.end_counting()


async def _redis_is(at: Scene, change: Callable[[Path], object]) -> None:
    """It is killed, its files are changed, and the keeper starts it again."""
    os.kill(at.world.keeper_pid, signal.SIGSTOP)  # so that it does so only when they are
    try:
        await at.world.kill(at.world.redis_pid())
        change(at.world.state_dir / FILES)
    finally:
        os.kill(at.world.keeper_pid, signal.SIGCONT)


def _witnesses() -> Path:
    return Path(os.environ["RUNTIME_DIRECTORY"]) / f"hashee-agent-witness-{os.geteuid()}"


# What comes back: true where the agent is to be started then


async def _machine(at: Scene, directory: Path) -> bool:
    """The witness too, as with a virtual machine that is put back with its memory: nothing on the host can tell."""
    kept = await _kept(at, directory / "kept")
    copy(_witnesses(), directory / "witnesses")
    await _go_on(at)
    await _end(at)
    put_back(kept, at.world.state_dir)
    put_back(directory / "witnesses", _witnesses())
    return True


async def _without_witness(at: Scene, directory: Path) -> bool:
    """A copy is put back after a kill, and somebody has emptied the memory."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    await _end(at, signal.SIGKILL)
    shutil.rmtree(_witnesses())
    put_back(kept, at.world.state_dir)
    return True


async def _twice(at: Scene, directory: Path) -> bool:
    """Redis goes back to the same older state again, while the offers of the first time wait for their answers."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    await trio.sleep(OLDER_SECONDS)
    await _redis_is(at, partial(put_back, kept / FILES))
    at.end_counting()
    await at.each_is_answered()
    await _redis_is(at, partial(put_back, kept / FILES))
    return False


async def _two_moments(at: Scene, directory: Path, *, newer_redis: bool) -> bool:
    """Redis' files of one moment, `redis-seen.json` and `grants.head` of another."""
    older = await _kept(at, directory / "older")
    await _go_on(at, "between the copies")
    newer = await _kept(at, directory / "newer")
    await _go_on(at)
    await _end(at)
    put_back(older if newer_redis else newer, at.world.state_dir)
    put_back((newer if newer_redis else older) / FILES, at.world.state_dir / FILES)
    return True


async def _tail(at: Scene, _directory: Path) -> bool:
    """The last byte of what Redis wrote is gone, and with it its last command: the least that can be lost."""
    await _go_on(at)

    def cut(files: Path) -> None:
        written = max(files.glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        os.truncate(written, written.stat().st_size - 1)

    await _redis_is(at, cut)
    at.end_counting()
    return False


async def _emptied(at: Scene, _directory: Path) -> bool:
    """FLUSHALL, while everything runs."""
    await _go_on(at)
    with closing(redis.Redis(unix_socket_path=str(at.world.redis_socket), protocol=2)) as client:
        await trio.to_thread.run_sync(client.flushall)
    at.end_counting()
    return False


async def _both_sides(at: Scene, directory: Path) -> bool:
    """A copy is put back, and every other person's app was installed anew meanwhile."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    await _end(at)
    put_back(kept, at.world.state_dir)
    for person in at.world.people[: len(at.world.people) // 2]:
        person.forget_sessions()
    return True


async def _second_machine(at: Scene, directory: Path) -> bool:
    """A copy is started on another machine, and runs beside the first one for a while, with the same keys and a Redis of its own."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    memory = _witnesses().with_name("of the other machine")
    memory.mkdir(mode=0o700)
    (directory / "other").mkdir()
    other = at.world.elsewhere(directory / "other", HASHEE_STATE_DIR=str(kept), RUNTIME_DIRECTORY=str(memory))
    async with agent(other):
        await other.until_ready()
        at.end_counting()
        await at.each_is_answered()
    return False


TRIALS = {
    "machine-put-back": Trial(_machine, counted="forgotten_sends", accepts_one=True),
    "witness-lost": Trial(_without_witness, counted="redis_unproven"),
    "rolled-back-twice": Trial(_twice),
    "redis-of-an-earlier-moment": Trial(partial(_two_moments, newer_redis=False)),
    "redis-of-a-later-moment": Trial(partial(_two_moments, newer_redis=True)),
    "tail-cut": Trial(_tail, counted=""),
    "redis-emptied": Trial(_emptied),
    "both-sides": Trial(_both_sides),
    "second-machine": Trial(_second_machine, counted=""),
}

WORSE: dict[str, Callable[[Path, Order], Awaitable[Outcome]]] = {name: partial(_tried, name) for name in TRIALS}
