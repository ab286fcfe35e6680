"""Slots on a real Redis: at most so many holders, whatever order things happen in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import trio

from bus.records.keys import Keys
from bus.steps.slots import GHOST_POLL_SECONDS, LEASE_SECONDS, Holder, SlotStore
from bus.transport.client import RedisClient, open_redis
from tests.redis_server import redis_server
from tests.waiting import waiting_for

AGENT = "01906abc-0000-7000-8000-000000000001"
KEYS = Keys(AGENT)
WAIT_SECONDS = 20.0


def called(name: str, *, connected: bool = False) -> Holder:
    return Holder(name, "host", "1.0", 1, connected)


@asynccontextmanager
async def slots(directory: Path, most: int = 3) -> AsyncIterator[tuple[RedisClient, SlotStore]]:
    with redis_server(directory) as url:
        async with open_redis(url) as client:
            yield client, SlotStore(client, KEYS, most)


async def run_out(client: RedisClient, slot: int) -> None:
    """The lease of a slot ends as if its holder had been silent."""
    await client.command("PEXPIRE", KEYS.slot(slot), 1)
    with waiting_for("the slot's lease to end", WAIT_SECONDS):
        while await client.command("EXISTS", KEYS.slot(slot)):
            await trio.sleep(0.002)


async def test_three_hold_a_slot_each_and_the_fourth_stands_by(tmp_path: Path) -> None:
    async with slots(tmp_path) as (_, store):
        taken = [(await store.hold(called(name))).number for name in ("a", "b", "c", "d")]
        assert taken == [1, 2, 3, 0]
        assert [(await store.hold(called(name))).number for name in ("c", "b", "a")] == [3, 2, 1]
        assert (await store.hold(called("a"))).standby_waits


async def test_a_slot_that_is_given_up_is_free_at_once_and_leaves_no_ghost(tmp_path: Path) -> None:
    async with slots(tmp_path, most=1) as (client, store):
        await store.hold(called("a"))
        assert not await store.give_up("b", 1), "only its holder gives it up"
        assert await store.give_up("a", 1)
        assert await client.command("EXISTS", KEYS.ghosts) == 0
        assert (await store.hold(called("b"))).number == 1
        assert await client.command("EXISTS", KEYS.ghosts) == 0


async def test_a_slot_that_is_given_up_is_first_for_who_waits_for_it(tmp_path: Path) -> None:
    gave_up = Holder("a", "host", "1.0", 1, yields=True)
    async with slots(tmp_path, most=1) as (client, store):
        await store.hold(called("a"))
        await store.hold(called("b"))
        await client.command("PEXPIRE", KEYS.standby, 2000)  # it is about to be said again
        assert await store.give_up("a", 1)
        assert [(await store.hold(gave_up)).number for _ in range(2)] == [0, 0]
        assert (await store.hold(called("b"))).number == 1
        await store.give_up("b", 1)
        await client.command("DEL", KEYS.standby)  # who waited waits no longer, or is gone
        assert (await store.hold(gave_up)).number == 1


async def test_a_lease_of_before_redis_clock_was_put_back_outlives_nobody(tmp_path: Path) -> None:
    """An hour, say: as much longer than a lease are then all that were given before."""
    async with slots(tmp_path, most=1) as (client, store):
        await store.hold(called("a"))
        await store.hold(called("b"))
        await store.doubt("a#1", is_doubted=True)
        await client.command("SET", KEYS.ghost_poll, "c")
        leases = {KEYS.slot(1): LEASE_SECONDS, KEYS.standby: LEASE_SECONDS, KEYS.ghost_poll: GHOST_POLL_SECONDS}
        for lease in leases:
            await client.command("PEXPIRE", lease, 3_600_000)
        await store.hold(called("a"))
        await client.command("PEXPIRE", KEYS.slot(1), 3_600_000)
        await store.hold(called("b"))
        for lease, seconds in leases.items():
            assert 0 < cast(int, await client.command("PTTL", lease)) <= seconds * 1000


async def test_of_two_that_gave_up_one_goes_on(tmp_path: Path) -> None:
    one, other = (Holder(name, "host", "1.0", 1, yields=True) for name in ("a", "b"))
    async with slots(tmp_path, most=1) as (_, store):
        await store.hold(called("c"))
        for holder in (one, other):
            assert (await store.hold(holder)).number == 0
        await store.give_up("c", 1)
        assert [(await store.hold(holder)).number for holder in (other, one)] == [0, 1]


async def test_a_lease_that_ran_out_is_its_holders_still_until_it_is_known_as_abandoned(tmp_path: Path) -> None:
    async with slots(tmp_path, most=1) as (client, store):
        await store.hold(called("a"))
        await run_out(client, 1)
        seen = await store.hold(called("b"))
        assert seen.number == 0
        assert seen.slots[0].leased is False
        assert seen.slots[0].holder == called("a")
        assert (await store.hold(called("a"))).number == 1, "after an outage the holder goes on"
        await run_out(client, 1)
        assert (await store.hold(called("b"), ["a"])).number == 1
        assert (await store.hold(called("a"))).number == 0, "it wakes, and another has it"


async def test_who_went_without_giving_up_leaves_a_ghost_that_one_supervisor_polls_for(tmp_path: Path) -> None:
    async with slots(tmp_path) as (client, store):
        for name in ("a", "b", "c"):
            await store.hold(called(name))
        await run_out(client, 1)
        polls = [(await store.hold(called(name), ["a"])).poll for name in ("b", "c", "b")]
        assert polls == [True, False, False]
        await client.command("DEL", KEYS.ghost_poll)  # 2 s later
        assert (await store.hold(called("c"))).poll
        await client.command("ZADD", KEYS.ghosts, 1, "a")  # 90 s later
        await client.command("DEL", KEYS.ghost_poll)
        assert not (await store.hold(called("c"))).poll
        assert await client.command("ZCARD", KEYS.ghosts) == 0


async def test_a_connection_in_doubt_is_polled_for_by_others_until_it_is_heard_again(tmp_path: Path) -> None:
    async with slots(tmp_path) as (client, store):
        deaf = Holder("a", "host", "1.0", 1, deaf=True)
        await store.hold(deaf)
        await store.hold(called("b"))
        await store.doubt("a#1", is_doubted=True)
        assert not (await store.hold(deaf)).poll, "it would ask in vain, and nobody else in its place"
        assert (await store.hold(called("b"))).poll
        assert not (await store.hold(called("b"))).poll, "a moment ago"
        await store.doubt("a#2", is_doubted=True)
        assert (await store.hold(called("b"))).poll, "at once for a new one"
        await store.doubt("a#2", is_doubted=False)
        await store.doubt("a#1", is_doubted=True)
        assert (await store.hold(called("b"))).poll, "the former connection is a ghost still"
        await store.doubt("a#1", is_doubted=True)
        await store.doubt("a#1", is_doubted=False)
        assert await client.command("ZCARD", KEYS.ghosts) == 0, (
            "who was heard is no ghost, not even one whose time is over"
        )
        assert not (await store.hold(called("b"))).poll


async def test_who_is_known_dead_is_freed_at_once_and_leaves_a_ghost(tmp_path: Path) -> None:
    async with slots(tmp_path, most=1) as (_, store):
        await store.hold(called("a"))
        assert await store.free_dead("a", 1)
        assert not await store.free_dead("a", 1)
        held = await store.hold(called("b"))
        assert held.number == 1
        assert held.poll
        assert not await store.free_dead("a", 1), "it is another's by now"


async def test_who_is_known_dead_is_freed_also_when_its_lease_has_run_out(tmp_path: Path) -> None:
    async with slots(tmp_path, most=1) as (client, store):
        await store.hold(called("a"))
        await run_out(client, 1)
        assert not await store.free_dead("b", 1)
        assert await store.free_dead("a", 1)
        assert (await store.hold(called("b"))).number == 1


async def test_a_full_redis_renews_and_gives_slots(tmp_path: Path) -> None:
    async with slots(tmp_path) as (client, store):
        await store.hold(called("a"))
        await store.hold(called("b"))
        await client.command("CONFIG", "SET", "maxmemory", 1)
        await store.doubt("b#1", is_doubted=True)
        assert (await store.hold(called("b"))).poll
        assert (await store.hold(called("a", connected=True))).number == 1
        assert (await store.hold(called("c"))).number == 3
        assert (await store.hold(called("d"))).number == 0
        await run_out(client, 2)
        assert (await store.hold(called("d"), ["b"])).number == 2
        assert await store.give_up("a", 1)


async def test_a_holder_goes_on_as_itself_when_the_number_of_slots_shrinks(tmp_path: Path) -> None:
    async with slots(tmp_path) as (client, three):
        assert (await three.hold(called("a"))).number == 1
        one = SlotStore(client, KEYS, 1)
        assert (await one.hold(called("a"))).number == 1
        assert (await one.hold(called("b"))).number == 0


async def test_a_record_of_another_time_keeps_its_slot(tmp_path: Path) -> None:
    async with slots(tmp_path, most=1) as (client, store):
        await client.command("SET", KEYS.slot(1), "new", "PX", 60000)
        await client.command("HSET", KEYS.slots, 1, '{"holder": "new", "since_ms": "noon"}')
        seen = await store.hold(called("b"))
        assert seen.number == 0
        assert seen.slots[0].leased
        assert seen.slots[0].holder is None
