"""The private Redis alone comes back with an older file, as after a power cut, while supervisor and workers run on."""

import os
import signal
from pathlib import Path

import trio

from tests.trials.drills.scene import Order, Outcome, copy, put_back, scene

FILES = "appendonlydir"
LEAST_OLDER_SECONDS = 1.5


async def redis_rolled_back(directory: Path, order: Order) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    return await _rolled_back(directory, order, "redis-rolled-back", are_known=True)


async def newcomers_rolled_back(directory: Path, order: Order) -> Outcome:
    """The older file is from before anybody had said anything: what the agent reads then begins sessions that it has answered in before."""
    return await _rolled_back(directory, order, "newcomers-rolled-back", are_known=False)


async def _rolled_back(directory: Path, order: Order, name: str, *, are_known: bool) -> Outcome:
    async with scene(directory, order) as at:
        world, kept = at.world, directory / "kept"
        files = world.state_dir / "redis" / FILES
        if are_known:
            await at.talk("before", world.people)
            await at.begin_counting()
        copy(files, kept)
        copied = trio.current_time()
        if not are_known:
            await at.begin_counting()
        await at.count_on()
        await at.talk("in the lost span", at.talkers)
        await trio.sleep_until(copied + LEAST_OLDER_SECONDS)
        os.kill(world.keeper_pid, signal.SIGSTOP)  # so that it starts Redis only when the older files are in place
        try:
            await world.kill(world.redis_pid())
            put_back(kept, files)
        finally:
            os.kill(world.keeper_pid, signal.SIGCONT)
        at.end_counting()
        await at.each_is_answered()
        await at.talk("after", world.people)
        return await at.outcome(name, is_noticed=at.went_back)
