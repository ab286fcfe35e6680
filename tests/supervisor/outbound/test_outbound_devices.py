"""Replies to people whose devices cannot be used, or of whom the relay does not tell."""

from pathlib import Path

import msgspec
import pytest

from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import Pauses
from tests.supervisor.builders import Core, reply_to_next, sending, until
from tests.supervisor.outbound.test_outbound import OTHER_CONVERSATION, dead_reasons, scene, successor_scene
from tests.supervisor.person import PERSON, Person


async def is_answered_without_the_other_device(core: Core, ada: Person) -> None:
    core.connection.connect()
    await reply_to_next(core, "an answer")
    async with sending(core):
        [frame] = await core.connection.wait_sent(1)
    assert ada.read(frame)["text"] == "an answer"
    assert core.count("device_left_out_total") == 1


@pytest.mark.parametrize(
    ("status", "code", "is_dropped"),
    [
        (403, "no", True),
        (404, "no", True),
        (403, "not a JSON object", False),  # a proxy's page
        (401, "invalid_token", False),
        (429, "rate_limited", False),
        (503, "unavailable", False),
    ],
)
async def test_a_reply_waits_for_the_relay_unless_that_says_no(
    status: int, code: str, is_dropped: bool, tmp_path: Path
) -> None:
    async with successor_scene(tmp_path, Pauses(reply_retry=0.01, reply_relay_retry=0.01)) as (core, _):
        await core.client.command("DEL", core.keys.session(PERSON, "phone"))
        core.rest.fail_next("devices", *[RestFailed("devices", status, code)] * 3)
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            if is_dropped:

                async def dropped() -> bool:
                    return await dead_reasons(core) == ["no_usable_device"]

                await until(dropped)
            else:
                await core.connection.wait_sent(1)


async def test_a_device_list_that_is_refused_leaves_the_sessions_that_there_are(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        owner = await core.owners.find(PERSON)
        assert owner is not None
        core.rest.bundles[PERSON].append(Person(core.rest, device_id="tablet", identity=ada.identity).bundle)
        await core.owners.bundles(owner)
        core.rest.fail_next("devices", *[RestFailed("devices", 403, "no")] * 3)
        await is_answered_without_the_other_device(core, ada)


async def test_a_person_without_a_usable_device_costs_that_reply_only(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        bob = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        await core.owners.note(bob.meet(), "active")
        await core.push(bob.say("hello", seq=1, conversation=OTHER_CONVERSATION))
        owner = await core.owners.find(PERSON)
        assert owner is not None
        core.rest.bundles[PERSON] = []
        await core.owners.bundles(owner)
        core.connection.connect()
        await reply_to_next(core, "to Ada")
        await reply_to_next(core, "to Bob")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
            assert bob.read(frame)["text"] == "to Bob"

            async def dropped() -> bool:
                return await dead_reasons(core) == ["no_usable_device"]

            await until(dropped)


async def test_a_relay_that_does_not_tell_devices_makes_a_reply_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path, pauses=Pauses(reply_retry=0.02, reply_relay_retry=0.02)) as (core, ada):
        tomorrow = 86_400_000 * 400_000
        monkeypatch.setattr("supervisor.peers.owners.now_ms", lambda: tomorrow)
        owner = await core.owners.find(PERSON)
        assert owner is not None
        core.rest.bundles[PERSON] = []
        await core.owners.bundles(owner)  # nothing is listed any more
        core.rest.bundles[PERSON] = [ada.bundle]
        core.rest.fail_next("devices", RestFailed("devices", 429, retry_after_seconds=0.05), RestFailed("devices", 0))
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == "an answer"
        assert await dead_reasons(core) == []


async def test_one_device_without_a_usable_key_is_left_out_and_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        tablet = Person(core.rest, device_id="tablet")
        tablet.identity, tablet.device = ada.identity, tablet.device
        owner = await core.owners.find(PERSON)
        assert owner is not None
        grant = msgspec.structs.replace(owner.grant, devices=("phone", "tablet"))
        listed = msgspec.structs.replace(owner, grant=grant)
        assert await core.vault.put_owner(PERSON, await core.vault.owner(PERSON), listed.encode())
        await is_answered_without_the_other_device(core, ada)
