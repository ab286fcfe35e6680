"""What several supervisors would all read again is read by one at a time; nobody waits for one that is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from bus.steps.work_lease import WorkLease
from host.budgets import StoreBudgets
from host.instance import Instance
from supervisor.inbound.catchup import DEAF_AFTER_SECONDS
from tests.supervisor.builders import Core, dead_instance, open_core, until
from tests.supervisor.inbound.test_catchup import recent
from tests.supervisor.inbound.test_held import fetching, let_nothing_wait, nothing_waits, say
from tests.supervisor.inbound.test_inbound import scene
from tests.supervisor.inbound.test_quarantine_retrier import quarantine_retrier, say_unheard, suspend, until_tried
from tests.supervisor.person import PERSON
from tests.waiting import waiting_for

MINUTE_MS = 60_000
ELSEWHERE = Instance("00000000", 1, 1)


@asynccontextmanager
async def two(core: Core) -> AsyncIterator[Core]:
    """A second supervisor of another host at the same relay."""
    async with open_core(core.url, core.rest, ELSEWHERE) as other:
        yield other


def work_lease_of_another(core: Core, work: str) -> WorkLease:
    return WorkLease(core.client, core.keys.work_lease(work), holder=ELSEWHERE.name)


async def test_two_that_catch_up_at_once_read_each_page_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), two(core) as other:
        core.rest.history = [recent(ada.say(str(number))) for number in range(20)]
        core.rest.page_length = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.catchup.poll_to_the_present)
            nursery.start_soon(other.catchup.poll_to_the_present)
        assert len(core.rest.polled_with) == 10 + 2, "ten pages, and each finds the empty end"
        assert len(set(core.rest.polled_with)) == 11
        assert await core.jobs() == [str(number) for number in range(20)]
        third = WorkLease(core.client, core.keys.work_lease("poll"), holder="a-third")
        assert await third.hold(MINUTE_MS), "who is done keeps nobody waiting"


async def test_one_that_was_killed_on_this_host_is_not_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        for work in ("poll", "retry", "fetch"):
            dead = WorkLease(core.client, core.keys.work_lease(work), holder=dead_instance().name)
            assert await dead.hold(MINUTE_MS)
            lease = WorkLease(
                core.client, core.keys.work_lease(work), holder=core.instance.name, knows_dead=core.instance.knows_dead
            )
            assert await lease.hold(MINUTE_MS)


async def test_who_waits_for_another_that_reads_is_deaf_only_when_that_one_comes_no_further(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, looks = WorkLease.hold, 0

    async def counted(lease: WorkLease, milliseconds: int) -> bool:
        nonlocal looks
        is_ours = await hold(lease, milliseconds)
        looks += 1
        return is_ours

    async with scene(tmp_path) as (core, ada):
        assert await work_lease_of_another(core, "poll").hold(MINUTE_MS)
        monkeypatch.setattr(WorkLease, "hold", counted)
        core.rest.history = [recent(ada.say())]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.catchup.run)

            async def is_deaf() -> bool:
                return not core.catchup.check().ok

            async def has_looked_twice_more() -> bool:
                return looks >= before + 2

            async def hears_while_the_other_moves_on() -> bool:
                cursor = await core.store.cursor()
                await core.store.advance_cursor(cursor, f"{cursor}-and-on")
                return core.catchup.check().ok

            core.polls.ask()
            clock.jump(DEAF_AFTER_SECONDS)
            await until(is_deaf)
            before = looks
            await until(has_looked_twice_more)
            assert await is_deaf(), "to look is not to come further"
            await until(hears_while_the_other_moves_on)
            assert core.rest.polled_with == []
            await work_lease_of_another(core, "poll").leave()

            async def has_polled() -> bool:
                return core.rest.polled_with != []

            await until(has_polled)
            nursery.cancel_scope.cancel()


async def test_what_stands_in_quarantine_is_tried_by_one_at_a_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), two(core) as other:
        await suspend(core, ada)
        said = await say_unheard(core, ada, "one", "two", "three")
        tried: list[str] = []
        for each in (core, other):

            async def counted(message: object, frame: object, retry: object = each.inbound.retry) -> object:
                tried.append(message.message_id)  # type: ignore[attr-defined]
                return await retry(message, frame)  # type: ignore[operator]

            each.inbound.retry = counted  # type: ignore[method-assign,assignment]
        assert await work_lease_of_another(core, "retry").hold(MINUTE_MS)
        async with quarantine_retrier(core):
            core.triggers.owner_changed(PERSON)
            await until_it_was_looked(core)
            assert tried == []
            async with quarantine_retrier(other):
                await until_tried(core)
        assert tried[:3] == [frame.message_id for frame in said]
        assert len(tried) == 3


async def test_what_is_held_at_the_relay_is_fetched_by_one_at_a_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        let_nothing_wait(core)
        await say(core, ada, "one", "two")
        core.store.budgets = StoreBudgets.of(10**9)
        assert await work_lease_of_another(core, "fetch").hold(MINUTE_MS)
        async with fetching(core):
            await until_it_was_looked(core)
            assert core.rest.polled_with == []
            await work_lease_of_another(core, "fetch").leave()
            await until(lambda: nothing_waits(core))


async def until_it_was_looked(core: Core) -> None:
    """It was asked once more since now who does it."""
    looked = trio.Event()
    command = core.client.script

    async def watched(name: str, *rest: object) -> object:
        answer = await command(name, *rest)  # type: ignore[arg-type]
        if name == "hold_work_lease":
            looked.set()
        return answer

    core.client.script = watched  # type: ignore[method-assign,assignment]
    with waiting_for("the shared work to look", 10):
        await looked.wait()
    core.client.script = command  # type: ignore[method-assign]
