"""One member silences nobody: what may move a group's memory of ids, its version, and how often its key is asked for."""

import os
from pathlib import Path

import msgspec
import trio
import trio.testing

from bus.steps.store import Intake, now_ms
from supervisor.peers.groups import FETCH_AGAIN_SECONDS, MOST_AHEAD_MS
from supervisor.peers.untold import IN_VAIN_SECONDS
from supervisor.relay.frames import GroupKeyRotated
from supervisor.relay.rest import RestFailed
from tests.supervisor.builders import Core, until
from tests.supervisor.peers.group_scene import GROUP, IDS_KEPT, fetches, new_id, scene
from tests.supervisor.person import CONVERSATION

YEAR_10889_MS = 2**48 - 1


async def times(core: Core) -> list[int]:
    fields = await core.client.command("HMGET", core.keys.conversation(CONVERSATION), "td", "t0", "t1", "t2")
    assert isinstance(fields, list)
    return [int(field) for field in fields if isinstance(field, bytes)]


async def forget_all_but(core: Core, left: int) -> None:
    """As if so many others had been taken in that with `left` more the first block is forgotten."""
    await core.client.command("APPEND", core.keys.ids(CONVERSATION), os.urandom(8 * (IDS_KEPT - left)))


async def test_a_message_of_the_year_10889_is_refused_and_leaves_no_trace_in_the_memory(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "one"))
        far = circle.say(ben, cmid=new_id(YEAR_10889_MS))
        await core.push(far)
        assert await core.quarantined(far) == "malformed"
        await forget_all_but(core, 2)
        await core.push(circle.say(ada, "two"))
        await core.push(circle.say(ada, "three"))
        assert max(await times(core)) <= now_ms()
        await core.push(circle.say(ada, "four"))
        assert await core.jobs() == ["one", "two", "three", "four"]


async def test_a_message_dated_23_hours_ahead_makes_nobody_stale_until_then(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ben, "ahead", cmid=new_id(now_ms() + MOST_AHEAD_MS - 3600_000)))
        assert max(await times(core)) <= now_ms()
        await forget_all_but(core, 2)
        await core.push(circle.say(ada, "one"))
        await core.push(circle.say(ada, "two"))
        assert await core.jobs() == ["ahead", "one", "two"]


async def test_a_memory_that_an_older_version_has_poisoned_heals(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada, "one"))
        key = core.keys.conversation(CONVERSATION)
        await core.client.command("HSET", key, "td", YEAR_10889_MS, "t0", YEAR_10889_MS, "t1", YEAR_10889_MS)
        await core.push(circle.say(ada, "heals it"))
        assert max(await times(core)) <= now_ms()
        await core.push(circle.say(ada, "two", cmid=new_id(now_ms() + 1000)))
        assert await core.jobs() == ["one", "two"]


async def test_what_waited_in_quarantine_is_remembered_when_it_is_taken_in(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        sealed = core.rest.group_keys.pop(GROUP)
        said = circle.say(ada, "one")
        await core.push(said)
        assert await core.client.command("EXISTS", core.keys.ids(CONVERSATION)) == 0
        core.rest.group_keys[GROUP] = sealed
        core.groups.connected()
        await core.groups.to_write(GROUP)
        await core.until_tried_again()
        assert await core.polled(msgspec.structs.replace(said, message_id="again")) is Intake.DUPLICATE
        assert await core.jobs() == ["one"]


async def test_a_version_far_above_the_highest_known_is_no_key_and_is_not_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "one"))
        circle.make(1002, ben)
        circle.make(2**32 - 1, ben)
        before = fetches(core)
        far = circle.say(ben, "far", version=2**32 - 1)
        await core.push(far)
        assert (await core.quarantined(far), fetches(core)) == ("unknown_group_key", before)
        assert (await core.groups.to_write(GROUP)).current == circle.versions[1]
        assert core.count("group_key_refused_total", reason="unknown_group_key") == 1
        core.groups.connected()
        made = circle.make(1001, ben)
        assert (await core.groups.to_write(GROUP)).current == made
        circle.make(1002, ada)
        await core.push(circle.say(ada, "two", version=1002))
        assert await core.jobs() == ["one", "two"]


async def test_60_messages_under_a_version_that_is_not_known_are_one_fetch(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "one"))
        circle.make(2, ben)
        sealed = core.rest.group_keys.pop(GROUP)
        before = fetches(core)
        for number in range(60):
            await core.push(circle.say(ada, f"{number}"))
        assert (await core.quarantine.count(), fetches(core) - before) == (60, 1)
        core.rest.group_keys[GROUP] = sealed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.groups.run)
            nursery.start_soon(core.quarantine_retrier.run)
            core.groups.rotated(GroupKeyRotated(GROUP, 2))
            await until(lambda: is_empty(core))
            nursery.cancel_scope.cancel()
        assert await core.jobs() == ["one", *(f"{number}" for number in range(60))]


async def is_empty(core: Core) -> bool:
    return await core.quarantine.count() == 0


async def test_a_relay_that_does_not_answer_is_waited_for_once_and_what_was_said_waits_there(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        autojump_clock.autojump_threshold = 0.05  # Redis answers in its own time
        await core.push(circle.say(ada, "one"))
        circle.make(2, ben)
        core.rest.fail_next("group_key", *[RestFailed("group_key", 503)] * 6)
        began = trio.current_time()
        said = [circle.say(ada, f"{number}") for number in range(20)]
        for frame in said:
            assert await core.inbound.poll(frame) is Intake.NOTED
        assert trio.current_time() - began < 6
        await trio.sleep(IN_VAIN_SECONDS[0])
        for frame in said:
            assert await core.inbound.fetched(frame) is not Intake.HELD
        assert await core.jobs() == ["one", *(f"{number}" for number in range(20))]
        assert await core.quarantine.count() == 0


async def test_a_higher_version_than_the_one_asked_for_in_vain_is_asked_for_soon(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        autojump_clock.autojump_threshold = 0.05
        await core.push(circle.say(ada, "one"))
        kept = core.rest.group_keys[GROUP]
        circle.make(2, ben)
        core.rest.group_keys[GROUP] = kept
        await core.inbound.poll(circle.say(ada, "two"))
        made = circle.make(3, ben)
        await trio.sleep(FETCH_AGAIN_SECONDS)
        assert await core.inbound.poll(circle.say(ada, "three")) is Intake.ACCEPTED
        assert made.key_version == 3
