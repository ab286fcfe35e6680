"""The types that are demanded of the keys all conversations share are those that the agent gives them, and no key is forgotten."""

from functools import cached_property
from pathlib import Path

import pytest

from bus.records.keys import Keys
from bus.records.kinds import PLAIN_KINDS, SEALED_KINDS
from bus.views.shared_keys import COUNTED, COUNTERS, TYPES, SharedKeys
from tests.bus.builders import open_bus
from tests.redis_server import redis_server

KEYS = Keys("agent")
NO_KEYS = {KEYS.pattern, KEYS.interrupts, KEYS.live_channel, KEYS.agent_id}


def properties() -> set[str]:
    """Returns every name that `Keys` gives without being told of whom: the key of a kind of which there is one."""
    names = [name for name, value in vars(Keys).items() if isinstance(value, property | cached_property)]
    return {value for name in names if isinstance(value := getattr(KEYS, name), str)} - NO_KEYS


@pytest.mark.pure
def test_each_key_of_which_there_is_one_has_its_type() -> None:
    assert {KEYS.of(kind) for kind in TYPES} == properties()
    assert set(TYPES) <= PLAIN_KINDS | SEALED_KINDS
    assert {TYPES[kind] for kind in COUNTERS} == {"string"}
    assert {TYPES[kind] for kind in COUNTED} == {"hash"}


async def test_what_an_agent_writes_is_as_it_must_be(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            shared = SharedKeys(bus.client, bus.keys)
            assert await shared.faults() == []
            await bus.accept(1)
            await bus.accept(2)
            assert await shared.faults() == []
            assert await bus.client.command("EXISTS", bus.keys.jobs, bus.keys.ledger, bus.keys.waiting, bus.keys.load)


@pytest.mark.parametrize(
    ("value", "is_whole"),
    [
        ("0", True),
        ("-1", True),
        (str(2**63 - 1), True),
        (str(2**63), False),
        (str(-(2**63)), True),
        ("1.5", False),
        ("007", False),
        ("-0", False),
        ("7\n", False),
        ("", False),
        ("9" * 5000, False),
    ],
)
async def test_a_counter_is_a_number_that_redis_can_count_on_with(
    tmp_path: Path, value: str, *, is_whole: bool
) -> None:
    with redis_server(tmp_path) as url:
        async with open_bus(url) as bus:
            await bus.client.command("SET", bus.keys.waiting, value)
            assert (await SharedKeys(bus.client, bus.keys).faults() == []) == is_whole
