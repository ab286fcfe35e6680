"""The state directory is copied while the agent runs, people go on, the agent is stopped, and the copy is put back on the same boot.

A container's volume that was put back is the same. All that the directory knows of how far it was has come back with it.
"""

import signal
from pathlib import Path

from tests.trials.drills.scene import Order, Outcome, copy, put_back, scene
from tests.world import DRAIN_SECONDS, agent


async def copied_back(directory: Path, order: Order) -> Outcome:
    """From nothing to the outcome; all processes are gone when it returns."""
    async with scene(directory, order) as at:
        world, kept = at.world, directory / "kept"
        await at.talk("before", world.people)
        await at.begin_counting()
        copy(world.state_dir, kept)
        await at.count_on()
        await at.talk("in the lost span", at.talkers)
        assert world.up is not None
        await world.up.end(signal.SIGTERM, DRAIN_SECONDS)
        at.end_counting()
        put_back(kept, world.state_dir)
        async with agent(world):
            await world.until_ready()
            await at.each_is_answered()
            await at.talk("after", world.people)
            return await at.outcome("copied-back", is_noticed=at.went_back)
