"""Lanes: what waits is weighed with its lane, by items and by bytes, until its work has ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from supervisor.inbound.lanes import LANE_BYTES, LaneFull, Lanes

pytestmark = pytest.mark.pure

ROOM_BYTES = 100 * LANE_BYTES


@asynccontextmanager
async def worked(lanes: Lanes[str]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def test_a_lane_weighs_until_its_last_item_is_done() -> None:
    may_end = trio.Event()

    async def work(_item: str) -> None:
        await may_end.wait()

    lanes = Lanes[str](work, ROOM_BYTES)
    lanes.put("one", "a", size=10, owner="ada")
    lanes.put("one", "b", size=20, owner="ada")
    assert (lanes.taken_bytes, lanes.waiting) == (LANE_BYTES + 30, 2)
    lanes.put("two", "c", size=5, owner="ada")
    assert (lanes.taken_bytes, lanes.waiting) == (2 * LANE_BYTES + 35, 3)
    async with worked(lanes):
        assert lanes.waiting == 3, "what is under way waits still"
        may_end.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (lanes.taken_bytes, lanes.waiting) == (0, 0)


async def test_a_lane_has_so_many_items_and_a_sender_so_many_bytes() -> None:
    async def work(item: str) -> None:
        done.append(item)

    done = list[str]()
    lanes = Lanes[str](work, ROOM_BYTES, lane_length=2)
    for item in ("a", "b"):
        lanes.put("one", item, size=1, owner="ada")
    with pytest.raises(LaneFull):
        lanes.put("one", "c", size=1, owner="ada")
    lanes.put("one", "c", size=1, owner="ada", even_if_full=True)
    with pytest.raises(LaneFull):
        lanes.put("two", "d", size=ROOM_BYTES // 4, owner="ada")
    lanes.put("two", "d", size=ROOM_BYTES // 8, owner="bob")
    async with worked(lanes):
        await trio.testing.wait_all_tasks_blocked()
        assert [item for item in done if item != "d"] == ["a", "b", "c"]
        lanes.put("three", "e", size=ROOM_BYTES // 8, owner="ada")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(done) == ["a", "b", "c", "d", "e"]
