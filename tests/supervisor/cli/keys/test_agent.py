"""A whole agent over a rotation of its store: the same sessions, the same conversation, nothing lost and nothing twice."""

import os
import signal
from pathlib import Path

import pytest
import trio

from bus.records.sealing import StoreKeys
from tests.supervisor.cli.keys.running import PROGRAM
from tests.waiting import waiting_for
from tests.world import DRAIN_SECONDS, World, agent, world


@pytest.mark.long
async def test_a_conversation_goes_on_over_a_rotation_and_only_with_the_right_secrets(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "before")
        await w.all_answered({ada: ["echo: before"]})
        assert w.up is not None
        assert await w.up.end(signal.SIGTERM, DRAIN_SECONDS) == 0
        former = (w.state_dir / "store.secret").read_bytes()
        await ada.say(conversation, "meanwhile")
        with waiting_for("`keys rotate-store` to end", 20):
            rotated = await trio.run_process(
                [*PROGRAM, "keys", "rotate-store"], env=w.environment, capture_stdout=True, stdin=b""
            )
        assert b"(key epoch 1)" in rotated.stdout
        present = (w.state_dir / "store.secret").read_bytes()
        (w.state_dir / "store.secret").write_bytes(former)
        async with agent(w) as child:
            with waiting_for("the agent with the former secret to give up", 20):
                assert await child.wait() == 78
            assert "sealed under another store secret" in child.last_lines()
        (w.state_dir / "store.secret").write_bytes(present)
        async with agent(w):
            await ada.say(conversation, "after")
            await w.all_answered({ada: ["echo: before", "echo: meanwhile", "echo: after"]})
            assert "cannot use the bus key" in await worker_with(w, StoreKeys.derive(former).bus.export())


async def worker_with(w: World, bus_key: bytes) -> str:
    """What a worker elsewhere says that has this bus key, until it ends."""
    reading, writing = os.pipe()
    os.write(writing, bus_key)
    os.close(writing)
    redis_url = f"unix://{w.state_dir}/redis/redis.sock"
    command = [PROGRAM[0], "-m", "workers", "--redis", redis_url, "--bus-key-fd", str(reading)]
    with waiting_for("the command to end", 20):
        ended = await trio.run_process(
            command,
            env=w.environment,
            pass_fds=[reading],
            capture_stderr=True,
            capture_stdout=True,
            check=False,
            stdin=b"",
        )
    os.close(reading)
    assert ended.returncode == 78
    return (ended.stderr + ended.stdout).decode()
