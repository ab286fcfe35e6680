"""What the scripts of backup and restore find that others have changed between two of their steps."""

from pathlib import Path

from bus.records.saved import SavedConversation
from bus.steps.seal import RESTORING
from bus.transport.client import open_redis
from bus.whole.restore_switch import MOVING
from bus.whole.snapshot import Snapshot
from tests.bus.builders import open_bus
from tests.redis_server import redis_server
from tests.supervisor.backup.test_snapshot import conversations, waiting_jobs
from tests.supervisor.cli.keys.running import NAMES


async def test_a_job_whose_entry_is_gone_is_saved_without_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await waiting_jobs(bus, 3)
            await bus.client.command("DEL", bus.keys.jobs)
            [saved] = await conversations(Snapshot(bus.client, bus.keys))
    assert isinstance(saved, SavedConversation)
    assert saved.job == []
    assert len(saved.box) == 2 * 2, "each with its score"


async def test_a_key_that_another_has_moved_already_is_passed_over(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await client.command("HSET", NAMES.seal, RESTORING, MOVING)
            keys = (NAMES.seal, NAMES.restoring("epoch", ""), NAMES.epoch)
            await client.command("SET", NAMES.epoch, 5)
            assert await client.script("in_step", keys, MOVING, "RENAME") == 1
            assert await client.command("GET", NAMES.epoch) == b"5"
