"""What is read in a group, and in which conversation; with real keys on a real Redis."""

import os
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from bus.records.records import Payload
from bus.steps.store import Intake, now_ms
from crypto.envelope import V1_1
from supervisor.peers.groups import MOST_AHEAD_MS, VAIN_SECONDS
from supervisor.peers.untold import WAIT_AT_RELAY_SECONDS
from supervisor.relay.frames import ArtifactResponse
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import worker
from tests.supervisor.peers.group_scene import GROUP, IDS_KEPT, OTHER_GROUP, fetches, new_id, pins, scene
from tests.supervisor.person import AGENT, CONVERSATION


async def test_a_member_without_a_relation_is_read_and_the_key_is_fetched_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "one"))
        await core.push(circle.say(ben, "two"))
        assert await pins(core) == ("group", GROUP)
        assert (fetches(core), core.rest.calls.count("devices")) == (1, 2)
        assert core.count("message_inbound_total", conv_type="group", payload_type="text") == 2
        assert await core.jobs() == ["one", "two"]


async def test_a_handler_sees_the_group_its_version_and_its_members(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada))
        async with worker(core) as jobs:
            [job] = await jobs.take(1)
        assert job.message.conversation_type == "group"
        assert job.message.envelope_version == V1_1
        assert job.message.group_metadata == {
            "group_id": GROUP,
            "group_key_version": 1,
            "members": [ada.user_id, ben.user_id, AGENT],
        }


async def test_an_unknown_version_is_fetched_once_and_the_message_read(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "under one"))
        circle.make(2, ben)
        await core.push(circle.say(ben, "under two"))
        await core.push(circle.say(ada, "late under one", version=1))
        assert fetches(core) == 2
        assert await core.jobs() == ["under one", "under two", "late under one"]


async def test_a_version_that_the_relay_does_not_have_is_asked_for_once_and_quarantined(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        circle.make(7, ada)
        circle.make(1, ada)
        said = circle.say(ada, version=7)
        await core.push(said)
        assert await core.quarantined(said) == "unknown_group_key"
        assert fetches(core) == 1
        assert await pins(core) is None
        assert await core.polled(said) is Intake.DUPLICATE


async def test_a_version_below_the_highest_is_not_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        circle.make(3, ada)
        await core.push(circle.say(ada))
        said = circle.say(ada, version=1)
        await core.push(said)
        assert await core.quarantined(said) == "unknown_group_key"
        assert fetches(core) == 1


async def test_a_relay_that_does_not_answer_at_once_is_asked_again(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(asking_again=0.01)) as (core, circle, ada, _):
        core.rest.fail_next("group_key")
        await core.push(circle.say(ada))
        assert await core.jobs() == ["hello"]


async def test_a_message_does_not_wait_for_ever_for_its_key(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path, Pauses(asking=0.05)) as (core, circle, ada, _):
        autojump_clock.autojump_threshold = 0.05  # Redis answers in its own time
        core.rest.hold_next("group_key")
        said = circle.say(ada)
        assert await core.polled(said) is Intake.NOTED
        assert await core.quarantine.count() == 0
        autojump_clock.autojump_threshold = (
            0  # nobody asks Redis meanwhile, and its connection is looked at twice a second
        )
        await trio.sleep(WAIT_AT_RELAY_SECONDS)
        autojump_clock.autojump_threshold = 0.05
        core.rest.fail_next("group_key", *[RestFailed("group_key", 503)] * 100)
        await core.inbound.fetched(said)
        assert await core.quarantined(said) == "unknown_group_key"
        core.rest.fail_no_more()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.groups.run)
            nursery.start_soon(core.quarantine_retrier.run)
            while await core.quarantine.count():
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < VAIN_SECONDS + 30, "it is asked again after a minute"
        assert await core.jobs() == ["hello"]


async def test_who_is_no_member_of_a_version_is_not_read_under_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ben, "a member"))
        circle.make(2, ada, members=(ada,))
        removed = circle.say(ben, "removed")
        await core.push(removed)
        assert await core.quarantined(removed) == "no_grant"
        await core.push(circle.say(ada, "goes on"))
        assert await core.jobs() == ["a member", "goes on"]


async def test_the_same_message_again_is_a_duplicate_whatever_the_relay_says_of_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        said = circle.say(ada)
        await core.push(said)
        assert await core.polled(said) is Intake.DUPLICATE
        again = msgspec.structs.replace(said, conversation_seq=2, message_id="another")
        assert await core.polled(again) is Intake.DUPLICATE
        assert await core.jobs() == ["hello"]


@pytest.mark.parametrize("cmid", [None, "no ulid"])
async def test_a_replay_of_what_was_forgotten_is_stale(tmp_path: Path, cmid: str | None) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        first = circle.say(ada, "first", cmid=cmid)
        await core.push(first)
        await core.client.command("APPEND", core.keys.ids(CONVERSATION), os.urandom(8 * (IDS_KEPT - 2)))
        await core.push(circle.say(ada, "second", cmid=new_id(now_ms() + 1000)))
        replayed = msgspec.structs.replace(first, conversation_seq=3, message_id="another")
        await core.push(replayed)
        assert await core.quarantined(replayed) == "stale"
        assert await core.polled(replayed) is Intake.DUPLICATE, "it stands in quarantine"
        await core.push(
            msgspec.structs.replace(circle.say(ada, "third", cmid=new_id(now_ms() + 2000)), conversation_seq=4)
        )
        assert await core.jobs() == ["first", "second", "third"]


async def test_a_message_from_the_day_after_tomorrow_cannot_make_the_others_stale(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        ahead = circle.say(ada, cmid=new_id(now_ms() + 2 * MOST_AHEAD_MS))
        await core.push(ahead)
        assert await core.quarantined(ahead) == "malformed"


async def test_an_artifact_response_is_read_where_the_group_is_known(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada, "choose"))
        said = circle.say(ben, "chosen")
        answer = ArtifactResponse(
            said.conversation_id,
            said.message_id,
            said.sender_id,
            said.encrypted_payload,
            said.conversation_seq,
            said.created_at,
        )
        assert await core.polled(answer) is Intake.ACCEPTED
        assert await core.jobs() == ["choose", "chosen"]


async def test_a_system_event_and_a_stray_delta_make_no_job(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        event: Payload = {"type": "system", "event": {"kind": "session.ping"}}
        assert await core.polled(circle.say(ada, payload=event)) is Intake.ACCEPTED
        delta = circle.say(ada, payload={"type": "delta", "text": "stray"})
        await core.push(delta)
        assert await core.quarantined(delta) == "bad_payload"
        assert await core.client.command("XLEN", core.keys.replies) == 0
        assert await core.jobs() == []


# For whom


async def test_another_group_in_a_pinned_conversation_is_not_for_us(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        circle.make(2, ada, group=OTHER_GROUP)
        other = circle.say(ada)
        await core.push(other)
        assert await core.quarantined(other) == "not_for_us"


async def test_a_group_message_that_is_addressed_to_the_agent_is_not_for_us(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        circle.make(2, ada, group=AGENT)
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "not_for_us"


async def test_the_relay_cannot_call_a_group_something_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        told = msgspec.structs.replace(circle.say(ada), conversation_type="h2a")
        await core.push(told)
        assert await core.quarantined(told) == "not_for_us"
        untold = msgspec.structs.replace(circle.say(ada, "untold"), conversation_type=None)
        assert await core.polled(untold) is Intake.ACCEPTED


async def test_a_ratchet_message_in_a_group_is_of_no_version_for_it_and_renews_no_session(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        ada.meet()
        await core.push(circle.say(ada))
        direct = msgspec.structs.replace(ada.say(seq=2), conversation_type="group")
        await core.push(direct)
        assert await core.quarantined(direct) == "unsupported_version"
        assert (await core.sessions.load((ada.user_id, "phone"))).version == 0


async def test_a_group_message_in_a_conversation_of_two_is_of_no_version_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        ada.meet()
        await core.push(ada.say("between us"))
        for said in (circle.say(ada), msgspec.structs.replace(circle.say(ada), conversation_type="h2a")):
            late = msgspec.structs.replace(said, conversation_seq=2)
            await core.polled(late)
            assert await core.quarantined(late) == "unsupported_version"
        assert fetches(core) == 0
        assert await core.jobs() == ["between us"]


async def test_keys_and_pins_that_do_not_open_are_fetched_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada, "before"))
        for key in (core.keys.group(GROUP), core.keys.member(ada.user_id)):
            await core.client.command("HSET", key, "b", b"damaged")
        await core.push(circle.say(ada, "after"))
        assert await core.jobs() == ["before", "after"]
        assert [(await core.vault.group(GROUP)).version, (await core.vault.member(ada.user_id)).version] == [2, 2]
