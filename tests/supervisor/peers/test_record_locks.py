"""One holder of a record at a time, no deadlock between several, and no lock too many."""

import pytest
import trio
import trio.testing

from supervisor.peers.record_locks import Locked, RecordLocks
from tests.waiting import waiting_for

pytestmark = pytest.mark.pure

PEER = ("person", "phone")


async def test_locks_of_several_records_are_taken_in_one_order_and_never_deadlock() -> None:
    locks, peers = RecordLocks(), [("person", f"device-{number}") for number in range(4)]

    async def hold(wanted: list[tuple[str, str]]) -> None:
        for _ in range(20):
            async with Locked(locks, wanted):
                await trio.lowlevel.checkpoint()

    with waiting_for("everybody to have had all locks (a deadlock otherwise)", 5):
        async with trio.open_nursery() as nursery:
            for start in range(4):
                wanted = peers[start:] + peers[:start]
                nursery.start_soon(hold, [*wanted, wanted[0]])


async def wait_in_vain(locks: RecordLocks) -> None:
    """Another task cannot have the record now."""

    async def wait() -> None:
        with trio.move_on_after(0.01) as scope:
            async with Locked(locks, [PEER]):
                pytest.fail("held twice")
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)


async def test_a_cancelled_waiter_leaves_the_lock_to_the_next() -> None:
    locks = RecordLocks()
    async with Locked(locks, [PEER]):
        await wait_in_vain(locks)
    with waiting_for("the lock that somebody waited for in vain", 1):
        async with Locked(locks, [PEER]):
            await wait_in_vain(locks)


async def test_locks_do_not_grow_without_end_and_one_that_is_held_stays() -> None:
    locks = RecordLocks(most=10)
    async with Locked(locks, [PEER]):
        for number in range(50):
            async with Locked(locks, [("person", f"device-{number}")]):
                assert len(locks) <= 11
        await wait_in_vain(locks)
