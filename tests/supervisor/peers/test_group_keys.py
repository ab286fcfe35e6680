"""Which key of a group counts: its maker's, never the relay's; versions only rise."""

from pathlib import Path

import msgspec
import structlog
import trio
import trio.testing

from supervisor.relay.frames import GroupKeyRotated
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import Core, open_core, reply_to_next, sending, until
from tests.supervisor.peers.group_scene import GROUP, OTHER_GROUP, Circle, fetches, scene
from tests.supervisor.person import AGENT, Person


async def refused(core: Core, circle: Circle, speaker: Person) -> str:
    """The reason for which the relay's key is not accepted, when somebody speaks under it."""
    said = circle.say(speaker)
    with structlog.testing.capture_logs() as lines:
        await core.push(said)
    assert await core.quarantined(said) == "unknown_group_key"
    [reason] = [str(line["reason"]) for line in lines if line["event"] == "group: key refused"]
    assert core.count("group_key_refused_total", reason=reason) == 1
    return reason


async def test_a_key_whose_maker_was_no_member_before_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        circle.make(1, ada, members=(ada,))
        await core.push(circle.say(ada))
        circle.make(2, ben)
        assert await refused(core, circle, ada) == "no_grant"


async def test_a_version_that_goes_down_does_not_count_and_we_write_under_the_highest(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        circle.make(5, ada)
        await core.push(circle.say(ada))
        circle.make(4, ben)
        del circle.versions[1]
        core.connection.connect()
        async with sending(core):
            await reply_to_next(core, "under five")
            [frame] = await core.connection.wait_sent(1)
        assert core.count("group_key_refused_total", reason="stale") == 1
        assert circle.read(frame, 5) == {"type": "text", "text": "under five"}


async def test_another_key_under_a_version_that_is_known_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        circle.make(1, ada)
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "bad_ciphertext"


async def test_a_key_that_the_relay_has_chosen_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        the_relays = Person(core.rest)  # a pair of the relay's own in Ada's name
        circle.make(2, the_relays)
        assert await refused(core, circle, ada) == "bad_signature"


async def test_a_key_in_our_own_name_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        the_relays = Person(core.rest, AGENT)
        core.rest.bundles[AGENT] = [the_relays.bundle]
        circle.make(2, the_relays)
        assert await refused(core, circle, ada) == "not_for_us"


async def test_a_key_of_another_group_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        circle.make(2, ada, group=OTHER_GROUP)
        circle.versions[2] = msgspec.structs.replace(circle.versions[2], group_id=GROUP)
        assert await refused(core, circle, ada) == "not_for_us"


async def test_what_is_no_key_at_all_does_not_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        core.rest.group_keys[GROUP] = ""
        assert await refused(core, circle, ada) == "malformed"


async def test_two_supervisors_that_fetch_the_same_key_keep_it_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _), open_core(core.url, core.rest) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.polled, circle.say(ada, "one"))
            nursery.start_soon(other.polled, circle.say(ada, "two"))
        assert (await core.vault.group(GROUP)).version == 1
        assert sorted(await core.jobs()) == ["one", "two"]


async def test_the_relays_word_of_a_rotation_has_the_key_fetched_once(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(group_key_again=0.01)) as (core, circle, ada, ben):
        await core.push(circle.say(ada))
        circle.make(2, ben)
        core.rest.fail_next("group_key", RestFailed("group_key", 503), RestFailed("group_key", 403, "NOT_A_MEMBER"))

        async def has_second() -> bool:
            return (await core.vault.group(GROUP)).version == 2

        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.groups.run)
            core.groups.rotated(GroupKeyRotated(GROUP, 1))  # known
            core.groups.rotated(GroupKeyRotated(GROUP, 2))  # 503: asked again, when it is known
            core.groups.rotated(GroupKeyRotated(GROUP, 2))  # 403: given up
            core.groups.rotated(GroupKeyRotated(GROUP, 2))
            await until(has_second)
            core.groups.rotated(GroupKeyRotated(GROUP, 2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert fetches(core) == 1 + 3


async def test_no_group_key_and_no_word_stands_in_redis_or_a_log_in_the_clear(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with scene(tmp_path) as (core, circle, ada, _):
            await core.push(circle.say(ada, "the very particular plaintext"))
            key = circle.versions[1].key
    assert "particular" not in str(lines)
    for file in (tmp_path / "appendonlydir").iterdir():
        stored = file.read_bytes()
        assert b"particular" not in stored
        assert key not in stored
        assert ada.identity.public.signing_key not in stored
