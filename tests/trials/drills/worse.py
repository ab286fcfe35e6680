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

from tests.trials.drills.other_time import OtherTime
from tests.trials.drills.scene import Order, Outcome, Scene, copied_whole, copy, put_back, scene
from tests.world import DRAIN_SECONDS, agent

FILES = Path("redis", "appendonlydir")
HOUR = 3600.0
WENT_BACK = "redis: went back in time"
OLDER_SECONDS = 1.5
PAUSE_SECONDS = 0.1
MACHINE_SECONDS = 9.0
"""A return of less than some 5 s is not seen by the relay's clock (supervisor/standstill.py)."""


class Trial(msgspec.Struct, frozen=True):
    """`deed`: what happens in the middle; whether the agent has to be started after it. `counted`: the metric by which it has to be noticed,
    '' where nothing need be lost. `told`: what stands in the log then, where whoever noticed may have left. `accepts_one`: one message may go out under a used ratchet position before anybody can know, and its receiver
    cannot read it, in each conversation in which only the agent spoke in the lost span (PROTOCOL §5.12).
    """

    deed: Callable[[Scene, Path], Awaitable[bool]]
    counted: str = "redis_went_back"
    told: str = ""
    accepts_one: bool = False


async def _tried(name: str, directory: Path, order: Order) -> Outcome:
    trial = TRIALS[name]
    clock = OtherTime(directory)
    async with scene(directory, order, **clock.settings) as at, AsyncExitStack() as stack:
        at.clock = clock
        await at.talk("before", at.world.people)
        await at.begin_counting()
        if await trial.deed(at, directory):
            await stack.enter_async_context(agent(at.world))
            await at.world.until_ready()
        await at.each_is_answered()
        await at.talk("after", at.world.people)
        is_noticed = (not trial.counted or at.has_counted(trial.counted)) and trial.told in at.world.log()
        outcome = await at.outcome(name, is_noticed=is_noticed)
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
    """A virtual machine that is put back with its memory: the witness too, and it counts the time since its start on from where it was."""
    return await _memory(at, directory, is_machine=True)


async def _memory(at: Scene, directory: Path, *, is_machine: bool = False) -> bool:
    """The witness too, by hand, on a machine that runs on: nothing on it can tell."""
    copy(_witnesses(), directory / "witnesses")  # first: one that knew of more than the copy would tell
    kept, began = await _kept(at, directory / "kept"), trio.current_time()
    await _go_on(at)
    if is_machine:
        await trio.sleep_until(began + MACHINE_SECONDS)
    await _end(at)
    put_back(kept, at.world.state_dir)
    put_back(directory / "witnesses", _witnesses())
    if is_machine:
        since = began - trio.current_time()
        at.clock.change(wall_seconds=since, since_start_seconds=since)
    return True


async def _clock(at: Scene, directory: Path, *, ahead_seconds: float) -> bool:
    """The clock on the wall is another while Redis goes back; then it is put right, and Redis goes back to the same once more."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    await trio.sleep(OLDER_SECONDS)
    for seconds in (ahead_seconds, 0.0):

        def change(files: Path, seconds: float = seconds) -> None:
            put_back(kept / FILES, files)
            at.clock.change(wall_seconds=seconds)

        await _redis_is(at, change)
        if seconds:
            at.end_counting()
        await at.each_is_answered()
    return False


async def _clock_steps(at: Scene, _directory: Path) -> bool:
    """The clock on the wall goes back by an hour, ahead by two, and is put right, while all runs; after each step a worker and the supervisor are killed."""
    at.end_counting()
    for number, seconds in enumerate((-HOUR, HOUR, 0.0)):
        at.clock.change(wall_seconds=seconds)
        await at.talk(f"after step {number}", at.world.people)
        await at.world.kill(at.world.worker_pids()[0])
        await at.each_is_answered()
        await at.world.kill(at.world.supervisor_pid())
        await at.each_is_answered()
    return False


async def _while_replaced(at: Scene, directory: Path, *, by: signal.Signals) -> bool:
    """Redis goes back while an upgrade or a reload has begun: old and new processes are there together."""
    kept = await _kept(at, directory / "kept")
    await _go_on(at)
    await trio.sleep(OLDER_SECONDS)
    before = {*at.world.worker_pids(), *([at.world.supervisor_pid()] if by is signal.SIGUSR2 else ())}
    os.kill(at.world.keeper_pid, by)
    await at.world.until(lambda: at.world.processes() - before - {at.world.supervisor_pid()})
    await _redis_is(at, partial(put_back, kept / FILES))
    at.end_counting()
    await at.each_is_answered()
    await at.world.until(lambda: not at.world.processes() & before)
    return False


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
    "machine-put-back": Trial(_machine, counted="redis_unproven"),
    "memory-put-back": Trial(_memory, counted="forgotten_sends", accepts_one=True),
    "witness-lost": Trial(_without_witness, counted="redis_unproven"),
    "rolled-back-twice": Trial(_twice),
    "redis-of-an-earlier-moment": Trial(partial(_two_moments, newer_redis=False)),
    "redis-of-a-later-moment": Trial(partial(_two_moments, newer_redis=True)),
    "tail-cut": Trial(_tail, counted=""),
    "redis-emptied": Trial(_emptied),
    "both-sides": Trial(_both_sides),
    "clock-set-back": Trial(partial(_clock, ahead_seconds=-HOUR)),
    "clock-set-ahead": Trial(partial(_clock, ahead_seconds=HOUR)),
    "clock-steps": Trial(_clock_steps, counted=""),
    "rolled-back-while-upgrading": Trial(partial(_while_replaced, by=signal.SIGUSR2), counted="", told=WENT_BACK),
    "rolled-back-while-reloading": Trial(partial(_while_replaced, by=signal.SIGHUP)),
    "second-machine": Trial(_second_machine, counted=""),
}

WORSE: dict[str, Callable[[Path, Order], Awaitable[Outcome]]] = {name: partial(_tried, name) for name in TRIALS}
