"""Who speaks in a group: by the grant where there is one, else by a pin that is worth nothing outside of groups."""

import base64
from pathlib import Path

import msgspec
import pytest
from trio.testing import MockClock

from bus.steps.store import Intake
from crypto.grants import KeyChangePolicy
from supervisor.peers.members import Members, decide_member
from supervisor.peers.owners import UNLISTED_FETCH_SECONDS
from supervisor.peers.untold import WAIT_AT_RELAY_SECONDS
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import ASKING_BRIEFLY
from tests.supervisor.peers.group_scene import scene
from tests.supervisor.person import Person, relation_of


async def test_a_sender_whom_the_relay_does_not_show_is_unknown(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        del core.rest.bundles[ada.user_id]
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "unknown_sender"


async def test_a_sender_of_whom_the_relay_shows_two_pairs_is_unknown(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        core.rest.bundles[ada.user_id].append(Person(core.rest, device_id="impostor's").bundle)
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "unknown_sender"


async def test_a_message_waits_while_the_relay_does_not_show_its_sender(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(asking_again=0.01)) as (core, circle, ada, _):
        said = circle.say(ada)
        core.rest.fail_next("devices", RestFailed("devices", 429, "RATE_LIMITED"))
        assert await core.polled(said) is Intake.ACCEPTED
        assert await core.jobs() == ["hello"]


async def test_a_message_does_not_wait_for_ever_for_its_sender_and_is_read_later(
    tmp_path: Path, clock: MockClock
) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, circle, ada, _):
        said, later = circle.say(ada), circle.say(ada, "again")
        core.rest.fail_next("devices", *[RestFailed("devices", 500, "internal_error")] * 100)
        assert await core.polled(said) is Intake.NOTED
        asked = core.rest.calls.count("devices")
        assert await core.polled(later) is Intake.NOTED
        assert core.rest.calls.count("devices") == asked, "the next one does not wait again"
        clock.jump(WAIT_AT_RELAY_SECONDS)
        for frame in (said, later):
            await core.inbound.fetched(frame)
            assert await core.quarantined(frame) == "unknown_sender"
        core.rest.fail_no_more()
        clock.jump(UNLISTED_FETCH_SECONDS)
        await core.until_tried_again()
        assert await core.jobs() == ["hello", "again"]


async def test_another_agent_in_the_group_is_known_by_its_one_bundle(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, _, ben):
        core.rest.agents[ben.user_id] = core.rest.bundles.pop(ben.user_id)[0]
        core.rest.fail_next("devices", RestFailed("devices", 404, "NOT_FOUND"))
        await core.push(circle.say(ben, "I am an agent too"))
        assert core.rest.calls.count("agent_keys") == 1
        assert await core.jobs() == ["I am an agent too"]


async def test_a_tampered_message_is_quarantined_and_the_genuine_one_is_read(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        said = circle.say(ada)
        raw = bytearray(base64.b64decode(said.encrypted_payload))
        raw[-1] ^= 1
        forged = msgspec.structs.replace(said, encrypted_payload=base64.b64encode(bytes(raw)).decode(), message_id="x")
        await core.push(forged)
        assert await core.quarantined(forged) == "bad_signature"
        assert await core.polled(said) is Intake.LATE


@pytest.mark.parametrize("status", ["suspended", "revoked"])
async def test_an_owner_whose_grant_was_taken_back_is_not_read_in_a_group_either(tmp_path: Path, status: str) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.owners.note(relation_of(ada), "active")
        await core.owners.note(relation_of(ada), status)
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "no_grant"
        await core.push(circle.say(ben, "the key that she made still counts"))
        assert await core.jobs() == ["the key that she made still counts"]


async def test_an_owner_whose_keys_changed_is_held_in_a_group_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.owners.note(relation_of(ada), "active")
        await core.owners.note(relation_of(Person(core.rest)), "active")
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "key_changed"


async def test_a_member_may_not_talk_to_the_agent_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        direct = ada.say(conversation="01906abc-0000-7000-8000-0000000000c2")
        await core.push(direct)
        assert await core.quarantined(direct) == "no_grant"


async def test_a_relation_that_comes_later_has_to_meet_the_pair_that_the_group_knows(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, ben):
        await core.push(circle.say(ada))
        await core.push(circle.say(ben))
        await core.owners.note(relation_of(Person(core.rest)), "active")
        await core.owners.note(relation_of(ben), "active")
        held, fine = await core.owners.find(ada.user_id), await core.owners.find(ben.user_id)
        assert held is not None
        assert (held.is_active, held.grant.pinned) == (False, ada.identity.public)
        assert fine is not None
        assert (fine.is_active, fine.grant.pinned) == (True, ben.identity.public)
        assert await core.ledger.verify() is None


async def test_a_member_with_another_pair_is_held(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada, "before"))
        anew = Person(core.rest)
        core.rest.bundles[ada.user_id] = [anew.bundle]
        for said in (circle.say(anew, "after"), circle.say(ada, "and the old one")):
            await core.push(said)
            assert await core.quarantined(said) == "key_changed"
        assert core.rest.calls.count("devices") == 2
        assert await core.jobs() == ["before"]


@pytest.mark.parametrize("accepted", [True, False])
async def test_the_operator_decides_about_a_members_changed_pair(tmp_path: Path, *, accepted: bool) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada, "before"))
        assert not await decide_member(core.vault, ada.user_id, accepted=accepted)
        anew = Person(core.rest)
        core.rest.bundles[ada.user_id] = [anew.bundle]
        await core.push(circle.say(anew, "after"))
        assert await decide_member(core.vault, ada.user_id, accepted=accepted)
        assert not await decide_member(core.vault, ada.user_id, accepted=accepted)
        counts = anew if accepted else ada
        said = circle.say(counts, "read")
        await core.push(said)
        assert await core.quarantined(said) is None
        assert await core.jobs() == ["before", "read"]


async def test_a_changed_pair_counts_where_the_policy_accepts_it_and_only_what_the_relay_shows(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _, ada, __):
        accepting = Members(core.vault, core.rest, KeyChangePolicy.ACCEPT)
        refusing = Members(core.vault, core.rest, KeyChangePolicy.REFUSE)
        assert await accepting.pair(ada.user_id) == ada.identity.public
        anew = Person(core.rest)
        core.rest.bundles[ada.user_id] = [anew.bundle]
        assert await refusing.changed_pair(ada.user_id) is None
        assert await accepting.pair(ada.user_id) == ada.identity.public
        assert await accepting.changed_pair(ada.user_id) == anew.identity.public
        assert await refusing.pair(ada.user_id) == anew.identity.public


async def test_an_owner_with_a_relation_is_known_by_the_pair_of_the_grant_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.owners.note(relation_of(ada), "active")
        core.rest.bundles[ada.user_id] = [Person(core.rest).bundle]
        await core.push(circle.say(ada))
        assert "devices" not in core.rest.calls
        assert await core.jobs() == ["hello"]


async def test_a_listed_device_without_a_prekey_of_its_own_pair_shows_no_pair(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        core.rest.bundles[ada.user_id] = [{**ada.bundle, "device_id": "another's"}]
        said = circle.say(ada)
        await core.push(said)
        assert await core.quarantined(said) == "unknown_sender"


async def test_forged_messages_make_us_look_for_another_pair_once_a_minute(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, circle, ada, _):
        await core.push(circle.say(ada))
        for number in range(3):
            forged = msgspec.structs.replace(circle.say(Person(core.rest)), message_id=f"forged-{number}")
            await core.push(forged)
            assert await core.quarantined(forged) == "bad_signature"
        assert core.rest.calls.count("devices") == 2
