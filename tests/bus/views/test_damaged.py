"""What an operator's lists show beside a damaged value: everything else. And a ledger that is damaged stops no message."""

from pathlib import Path

from bus.steps.jobs import Finished
from bus.steps.letters import DeadLetters
from bus.views.conversations import Conversations
from tests.bus.builders import open_bus, open_worker, reply
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


async def test_a_ledger_of_another_type_loses_its_lines_and_no_message(tmp_path: Path) -> None:
    """Else a script ended in its midst: what it had written stayed, and no message was let in, answered or sent."""
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus, open_worker(url) as worker:
            await bus.client.command("SET", bus.keys.ledger, "of another type")
            await bus.accept(1)
            [job] = await worker.take(1)
            assert await worker.finish(job, last=[("0", reply("hello"))]) is Finished.DONE
            assert await bus.client.command("XLEN", bus.keys.replies) == 1
            assert await bus.client.command("GET", bus.keys.ledger) == b"of another type"
