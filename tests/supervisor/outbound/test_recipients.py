"""To whom a reply goes: what is remembered is checked by the commit, what a fetch finds counts at once."""

import os
from pathlib import Path

import msgspec
import pytest

from bus.steps.store import Intake
from bus.steps.write_count import WriteCount
from crypto.errors import Unreadable
from crypto.grants import KeyChangePolicy
from crypto.identity import IdentityKeys
from supervisor.outbound.recipients import Recipients, has_same_keys
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.owners import Owners
from supervisor.peers.retry_triggers import RetryTriggers
from tests.supervisor.builders import KEYS, Core, reply_to_next, sending, until
from tests.supervisor.outbound.test_outbound import dead_reasons, scene
from tests.supervisor.peers.group_scene import GROUP
from tests.supervisor.peers.group_scene import scene as group_scene
from tests.supervisor.person import CONVERSATION, PERSON, Person, relation_of


async def test_who_was_revoked_by_another_supervisor_a_moment_ago_is_not_written_to(tmp_path: Path) -> None:
    """The row is remembered from the message that is answered; the commit finds that it is another now."""
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        await remember(core)
        await other_owners(core, tmp_path).note(relation_of(ada), "revoked")
        async with sending(core):
            await until(lambda: has_died(core, "no_grant"), 2)
        assert core.connection.sent == []


async def test_a_reply_goes_to_the_devices_that_another_supervisor_has_just_noted(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        core.connection.connect()
        await reply_to_next(core, "an answer")
        await remember(core)
        tablet = Person(core.rest, device_id="tablet", identity=ada.identity)
        tablet.say()  # nothing comes of it but the agent's pin
        core.rest.bundles[PERSON] = [ada.bundle, tablet.bundle]
        other = other_owners(core, tmp_path)
        owner = await other.find(PERSON)
        assert owner is not None
        assert sorted(await other.bundles(owner)) == ["phone", "tablet"]
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == tablet.read(frame)["text"] == "an answer"


async def test_the_fetch_of_bundles_itself_says_who_gets_a_wrap(tmp_path: Path) -> None:
    """A device that is gone gets none, though its session would do; one that is new gets one (PROTOCOL §5, "Identity")."""
    async with scene(tmp_path) as (core, ada):
        stolen = Person(core.rest, device_id="stolen", identity=ada.identity)
        core.rest.bundles[PERSON] = [ada.bundle, stolen.bundle]
        owner = await core.owners.find(PERSON)
        assert owner is not None
        await core.owners.bundles(owner)
        await core.push(stolen.say(seq=2))
        tablet = Person(core.rest, device_id="tablet", identity=ada.identity)
        tablet.say()
        core.rest.bundles[PERSON] = [ada.bundle, tablet.bundle]
        await core.client.command("DEL", core.keys.session(PERSON, "phone"))  # so that bundles are asked for
        core.connection.connect()
        await reply_to_next(core, "an answer")
        async with sending(core):
            [frame] = await core.connection.wait_sent(1)
        assert ada.read(frame)["text"] == tablet.read(frame)["text"] == "an answer"
        with pytest.raises(Unreadable):
            stolen.read(frame)
        assert core.count("device_left_out_total") == 1


async def remember(core: Core) -> None:
    """The row is read, on a connection that is looked at: from now on it is not read again to answer."""
    core.write_count.verified_connection = core.client.on_connection(core.client.connects)
    assert await core.owners.find(PERSON) is not None


def other_owners(core: Core, state_dir: Path) -> Owners:
    """Another supervisor's."""
    ledger = GrantLedger(core.vault, KEYS.ledger, state_dir)
    return Owners(
        core.vault, ledger, core.rest, KeyChangePolicy.HOLD, write_count=WriteCount(), triggers=RetryTriggers()
    )


async def has_died(core: Core, reason: str) -> bool:
    return await dead_reasons(core) == [reason]


async def test_only_who_has_the_pinned_pair_still_is_the_one_that_was_encrypted_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, _):
        owner = await core.owners.find(PERSON)
        assert owner is not None
        other = IdentityKeys.generate(os.urandom).public
        changed = msgspec.structs.replace(owner, grant=msgspec.structs.replace(owner.grant, pinned=other))
        renamed = msgspec.structs.replace(owner, row_version=owner.row_version + 1)
        assert [has_same_keys(owner, one) for one in (owner, renamed, changed)] == [True, True, False]


async def test_nobody_is_written_to_in_a_group_without_a_key(tmp_path: Path) -> None:
    async with group_scene(tmp_path) as (core, circle, ada, _):
        recipients = Recipients(core.store, core.owners, core.groups, core.write_count)
        assert await core.polled(circle.say(ada)) is Intake.ACCEPTED
        kind, recipient = await recipients.find(CONVERSATION)
        assert (kind, recipient is not None) == ("group", True)
        await core.client.command("DEL", core.keys.group(GROUP))
        core.groups.connected()
        core.rest.group_keys.clear()
        assert await recipients.find(CONVERSATION) == ("group", None)
