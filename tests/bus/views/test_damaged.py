"""What an operator's lists show beside a damaged value: everything else."""

from pathlib import Path

from bus.steps.letters import DeadLetters
from bus.views.conversations import Conversations
from tests.bus.builders import open_bus
from tests.redis_server import redis_server


async def test_one_damaged_conversation_hides_no_other(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await bus.accept(1)
            garbled, strange = bus.keys.conversation("garbled"), bus.keys.conversation("strange")
            await bus.client.command("HSET", garbled, "kind", b"\xff\xfe", "t0", b"\xff")
            await bus.client.command("SET", strange, "of another type")
            found, _ = await Conversations(bus.client, bus.keys).latest(10)
            assert {one.kind for one in found} == {"h2a", "\ufffd\ufffd"}


async def test_a_dead_letter_without_its_fields_hides_no_other(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await bus.client.command("XADD", bus.keys.dead, "*", "zz", "1")
            await bus.client.command(
                "XADD", bus.keys.dead, "*", "why", b"\xff", "r", "x", "a", "x", "d", "1", "at", "1"
            )
            shown = await DeadLetters(bus.client, bus.keys).first()
            assert [(one.reason, one.attempt, one.deliveries) for one in shown] == [
                ("unreadable_record", 0, 0),
                ("\ufffd", 0, 1),
            ]
