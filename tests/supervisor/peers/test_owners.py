"""Who may talk to us and under which keys: pins at first sight, rows by compare-and-set, devices that count."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from bus.steps.store import Intake
from bus.steps.vault import Versioned
from bus.steps.write_count import WriteCount
from bus.transport.client import open_redis
from crypto.errors import Unreadable
from crypto.grants import KeyChangePolicy, Status
from supervisor.peers.grant_ledger import GrantLedger
from supervisor.peers.owners import (
    DEVICES_FRESH_MS,
    REFRESH_AGAIN_SECONDS,
    UNLISTED_FETCH_SECONDS,
    Admission,
    Owner,
    Owners,
)
from supervisor.peers.retry_triggers import RetryTriggers
from supervisor.peers.untold import IN_VAIN_SECONDS, WAIT_AT_RELAY_SECONDS
from supervisor.relay.rest import RestFailed
from supervisor.settings.pauses import PAUSES, Pauses
from tests.redis_server import redis_server
from tests.supervisor.builders import ASKING_BRIEFLY, KEYS, Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import CONVERSATION, PERSON, Person, relation_of


@asynccontextmanager
async def scene(tmp_path: Path, pauses: Pauses = PAUSES) -> AsyncIterator[tuple[Core, Person]]:
    rest = FakeRest()
    with redis_server(tmp_path) as url:
        async with open_core(url, rest, pauses=pauses) as core:
            yield core, Person(rest)


async def found(owners: Owners, owner_id: str = PERSON) -> Owner:
    owner = await owners.find(owner_id)
    assert owner is not None
    return owner


async def test_a_relation_pins_the_pair_at_first_sight(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        assert await core.owners.find(PERSON) is None
        await core.owners.note(relation_of(ada, scopes=("chat",)), "active")
        owner = await found(core.owners)
        assert owner.pinned == ada.identity.public
        assert (owner.is_active, owner.grant.scopes) == (True, ("chat",))


async def test_what_another_supervisor_has_changed_is_seen_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        assert (await found(core.owners)).is_active
        other = Owners(
            core.vault,
            GrantLedger(core.vault, KEYS.ledger, tmp_path),
            core.rest,
            KeyChangePolicy.HOLD,
            write_count=WriteCount(),
            triggers=RetryTriggers(),
        )
        await other.note(relation_of(ada), "revoked")
        assert not (await found(core.owners)).is_active
        await core.client.command("DEL", core.keys.owner(PERSON))
        assert await core.owners.find(PERSON) is None


async def test_a_row_to_write_by_is_remembered_until_redis_is_looked_at_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_redis(core.url) as other_connection:
        core.write_count.verified_connection = core.client
        await core.owners.note(relation_of(ada), "active")
        remembered = await found(core.owners)
        await core.client.command("DEL", core.keys.owner(PERSON))  # Redis has gone back, say
        assert await core.owners.find_to_write(PERSON) is remembered
        core.write_count.verified_connection = other_connection
        assert await core.owners.find_to_write(PERSON) is None


async def test_a_row_that_has_not_changed_is_opened_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        first = await found(core.owners)
        assert await found(core.owners) is first
        await core.client.command(
            "HSET", core.keys.owner(PERSON), "v", 7
        )  # the same bytes at another version: a broken seal
        assert await core.owners.find(PERSON) is None


async def test_another_pair_never_replaces_the_pinned_one_and_holds_the_owner(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        await core.owners.note(relation_of(Person(core.rest)), "active")
        owner = await found(core.owners)
        assert owner.grant.pinned == ada.identity.public
        assert not owner.is_active
        with pytest.raises(Unreadable, match="key_changed"):
            _ = owner.pinned


async def test_the_pin_survives_a_revocation(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        await core.owners.note(relation_of(ada), "revoked")
        await core.owners.note(relation_of(Person(core.rest)), "active")
        assert (await found(core.owners)).grant.pinned == ada.identity.public


async def test_a_revocation_needs_no_keys_in_its_frame(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada, scopes=("chat",)), "active")
        bare = msgspec.structs.replace(relation_of(ada), public_key=None, signing_public_key=None)
        await core.owners.note(bare, "revoked")
        owner = await found(core.owners)
        assert (owner.grant.status, owner.grant.scopes) == (Status.REVOKED, ("chat",))
        assert owner.grant.pinned == ada.identity.public


@pytest.mark.parametrize("key", [None, "", "AAAA", "not base64"])
async def test_a_relation_without_usable_keys_pins_nothing(tmp_path: Path, key: str | None) -> None:
    async with scene(tmp_path) as (core, ada):
        for field in ("public_key", "signing_public_key"):
            await core.owners.note(msgspec.structs.replace(relation_of(ada), **{field: key}), "active")
        owner = await found(core.owners)
        assert not owner.is_active
        with pytest.raises(Unreadable, match="unknown_sender"):
            _ = owner.pinned


async def test_what_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        before = await core.client.command("GET", core.keys.write_count)
        await core.owners.note(relation_of(ada), "active")
        assert await core.client.command("GET", core.keys.write_count) == before


async def test_two_supervisors_that_hear_different_things_at_once_lose_neither(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        ada.meet()
        await core.owners.note(relation_of(ada), "active")
        owner = await found(core.owners)
        async with trio.open_nursery() as nursery:
            for owners in (core.owners, other.owners):
                nursery.start_soon(owners.bundles, owner)
            nursery.start_soon(core.owners.note, relation_of(ada), "suspended")
        after = await found(other.owners)
        assert (after.grant.status, after.grant.devices) == (Status.SUSPENDED, ("phone",))


async def test_a_row_is_sealed_and_does_not_open_under_another_name(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.owners.note(msgspec.structs.replace(relation_of(ada), display_name="Ada Lovelace"), "active")
        sealed = await core.client.command("HGET", core.keys.owner(PERSON), "b")
        assert isinstance(sealed, bytes)
        assert b"Ada" not in sealed
        assert ada.identity.public.agreement_key not in sealed


async def find_sender(core: Core) -> Owner | None:
    snapshot = await core.store.look(CONVERSATION, (PERSON, "phone"), bytes(8))
    return await core.owners.of_snapshot(PERSON, snapshot)


async def test_an_unknown_sender_makes_us_read_the_relations_once_a_second(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        assert await find_sender(core) is not None
        assert await find_sender(core) is not None
        assert core.rest.calls.count("relations") == 1


async def test_a_failed_reading_of_relations_is_not_taken_for_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        core.rest.fail_next("relations")
        with pytest.raises(RestFailed):
            await core.owners.refresh()
        assert await find_sender(core) is not None


async def test_only_devices_with_a_signed_prekey_under_the_pinned_pair_count(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        impostor = Person(core.rest, device_id="impostor's")
        core.rest.bundles[PERSON] += [impostor.bundle, {"device_id": "broken"}, {**ada.bundle, "device_id": "copied"}]
        await core.owners.refresh()
        with structlog.testing.capture_logs() as lines:
            assert set(await core.owners.bundles(await found(core.owners))) == {"phone"}
        assert sorted(line["reason"] for line in lines) == ["bad_signature", "key_changed", "malformed"]
        assert (await found(core.owners)).grant.devices == ("phone",)


async def test_more_than_five_devices_are_left_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        core.rest.bundles[PERSON] = [{**ada.bundle, "device_id": f"d{number}"} for number in range(9)] + [ada.bundle]
        await core.owners.refresh()
        assert await core.owners.bundles(await found(core.owners)) == {}


async def test_the_device_list_is_fetched_again_after_a_day_and_kept_when_the_relay_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        assert await core.owners.devices(await found(core.owners)) == ["phone"]
        fresh = await found(core.owners)
        assert await core.owners.devices(fresh) == ["phone"]
        assert core.rest.calls.count("devices") == 1
        tomorrow = fresh.devices_fetched_ms + DEVICES_FRESH_MS
        monkeypatch.setattr("supervisor.peers.owners.now_ms", lambda: tomorrow)
        core.rest.fail_next("devices")
        assert await core.owners.devices(fresh) == ["phone"]
        core.rest.bundles[PERSON] = []
        assert await core.owners.devices(fresh) == []


async def test_a_list_from_when_our_clock_was_ahead_is_fetched_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        assert await core.owners.devices(await found(core.owners)) == ["phone"]
        ahead = await found(core.owners)
        put_back = ahead.devices_fetched_ms - 30 * DEVICES_FRESH_MS
        monkeypatch.setattr("supervisor.peers.owners.now_ms", lambda: put_back)
        core.rest.bundles[PERSON] = [Person(core.rest, device_id="tablet", identity=ada.identity).bundle]
        assert await core.owners.devices(ahead) == ["tablet"]
        again = await found(core.owners)
        assert again.devices_fetched_ms == put_back
        assert await core.owners.devices(again) == ["tablet"]
        assert core.rest.calls.count("devices") == 2


async def test_an_owner_whose_devices_were_never_fetched_waits_for_the_relay(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        core.rest.fail_next("devices")
        with pytest.raises(RestFailed):
            await core.owners.devices(await found(core.owners))


async def test_a_message_of_an_unlisted_device_has_the_list_fetched_again_once_a_minute(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        for _ in range(3):
            assert await core.owners.admits(await found(core.owners), "tablet") is Admission.UNLISTED
        assert core.rest.calls.count("devices") == 2  # the first list of all, then one for what is not in it
        assert await core.owners.admits(await found(core.owners), "phone") is Admission.LISTED
        assert core.rest.calls.count("devices") == 2


async def test_a_device_list_that_cannot_be_fetched_is_asked_for_again_while_the_message_waits(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(asking_again=0.01)) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        core.rest.fail_next("devices")
        assert await core.owners.admits(await found(core.owners), "phone") is Admission.LISTED
        assert core.owners.unanswered() == []


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_an_owner_whose_devices_the_relay_does_not_tell_is_asked_for_after_growing_pauses(
    status: int, tmp_path: Path, clock: MockClock
) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        core.rest.fail_next("devices", *[RestFailed("devices", status, "no")] * 100)
        owner = await found(core.owners)
        assert await core.owners.admits(owner, "phone") is Admission.UNTOLD
        asked = core.rest.calls.count("devices")
        assert core.owners.untold.is_paused(PERSON)
        assert await core.owners.admits(owner, "phone") is Admission.UNTOLD
        assert core.rest.calls.count("devices") == asked, "the next message does not wait again"
        clock.jump(IN_VAIN_SECONDS[0])
        assert not core.owners.untold.is_paused(PERSON)
        assert await core.owners.admits(owner, "phone") is Admission.UNTOLD
        assert core.rest.calls.count("devices") > asked
        clock.jump(IN_VAIN_SECONDS[0])
        assert core.owners.untold.is_paused(PERSON), "the second pause is longer"
        core.rest.fail_no_more()
        clock.jump(IN_VAIN_SECONDS[1])
        assert await core.owners.admits(owner, "phone") is Admission.LISTED


async def test_an_owner_whose_devices_are_not_told_for_long_has_their_messages_in_quarantine(
    tmp_path: Path, clock: MockClock
) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        ada.meet()
        await core.owners.refresh()
        await core.prekeys.publish()
        core.rest.fail_next("devices", *[RestFailed("devices", 503, "no")] * 100)
        assert await core.owners.admits(await found(core.owners), "phone") is Admission.UNTOLD
        clock.jump(WAIT_AT_RELAY_SECONDS)
        said, later = ada.say("from a tablet", seq=1), ada.say("again", seq=2)
        for frame in (said, later):
            assert (outcome := await core.polled(frame)) is not None
            assert outcome.is_settled
            assert await core.quarantined(frame) == "unknown_sender"
        assert core.owners.unanswered() == []
        core.rest.fail_no_more()
        clock.jump(UNLISTED_FETCH_SECONDS)
        await core.until_tried_again()
        assert await core.jobs() == ["from a tablet", "again"]


async def test_who_has_no_relation_while_the_relay_tells_none_waits_there_and_after_ten_minutes_in_quarantine(
    tmp_path: Path, clock: MockClock
) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        await core.prekeys.publish()
        ada.meet()
        core.rest.fail_next("relations", *[RestFailed("relations", 503)] * 100)
        said, later = ada.say("hello", seq=1), ada.say("again", seq=2)
        assert await core.polled(said) is Intake.NOTED
        clock.jump(IN_VAIN_SECONDS[0])
        assert await core.inbound.fetched(said) is Intake.HELD
        asked = core.rest.calls.count("relations")
        assert asked == 2, "again after a second, and next after two"
        clock.jump(REFRESH_AGAIN_SECONDS)
        assert await core.polled(later) is Intake.NOTED
        assert core.rest.calls.count("relations") == asked, "the next one does not wait again"
        assert await core.quarantine.count() == 0
        clock.jump(WAIT_AT_RELAY_SECONDS)
        for frame in (said, later):
            await core.inbound.fetched(frame)
            assert await core.quarantined(frame) == "no_grant"
        core.rest.fail_no_more()
        clock.jump(UNLISTED_FETCH_SECONDS)
        await core.until_tried_again()
        assert await core.jobs() == ["hello", "again"]


async def test_who_the_relay_says_has_no_relation_does_not_wait(tmp_path: Path, clock: MockClock) -> None:
    async with scene(tmp_path) as (core, ada):
        await core.prekeys.publish()
        told_all, refused = ada.say("hello", seq=1), ada.say("again", seq=2)
        assert await core.polled(told_all) is Intake.ACCEPTED
        assert await core.quarantined(told_all) == "no_grant", "it has told all relations, and this one is none of them"
        clock.jump(REFRESH_AGAIN_SECONDS)
        core.rest.fail_next("relations", RestFailed("relations", 403))
        await core.polled(refused)
        assert await core.quarantined(refused) == "no_grant"
        assert not core.owners.untold.is_paused(ada.user_id)


async def test_a_relation_that_is_told_by_a_frame_ends_the_waiting(tmp_path: Path) -> None:
    async with scene(tmp_path, ASKING_BRIEFLY) as (core, ada):
        await core.prekeys.publish()
        core.rest.fail_next("relations", *[RestFailed("relations", 503)] * 100)
        assert await core.polled(ada.say("hello", seq=1)) is Intake.NOTED
        assert core.owners.untold.holds_up(ada.user_id)
        await core.owners.note(relation_of(ada), "active")
        assert not core.owners.untold.holds_up(ada.user_id)


async def test_every_change_stands_in_the_log_and_the_log_holds(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada), open_core(core.url, core.rest) as other:
        bob = Person(core.rest, "01906abc-0000-7000-8000-0000000000b1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.owners.note, relation_of(ada), "active")
            nursery.start_soon(other.owners.note, relation_of(bob), "active")
            nursery.start_soon(other.owners.note, relation_of(ada), "active")
        assert await core.ledger.verify() is None
        assert len(await core.vault.grant_log()) == 2  # each came with its pin


async def test_a_reading_of_relations_that_fails_is_nobodys_answer(tmp_path: Path) -> None:
    """Else the messages of those who waited for it are `no_grant`, and nobody tries again."""
    async with scene(tmp_path) as (core, ada):
        await core.owners.refresh()
        ada.meet()
        core.rest.fail_next("relations", RestFailed("relations", 503))
        outcomes = list[str]()

        async def ask() -> None:
            try:
                await core.owners.refresh()
            except RestFailed:
                outcomes.append("failed")
            else:
                outcomes.append("read" if await core.owners.find(ada.user_id) is not None else "nothing")

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert sorted(outcomes) == ["failed"] * 5
        assert core.rest.calls.count("relations") == 2
        await ask()
        assert outcomes[-1] == "read"


async def test_who_comes_while_the_relations_are_read_gets_a_reading_that_begins_later(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        held = core.rest.hold_next("relations")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.owners.refresh)
            await trio.testing.wait_all_tasks_blocked()
            ada.meet()
            nursery.start_soon(core.owners.refresh)
            await trio.testing.wait_all_tasks_blocked()
            held.set()
        assert await core.owners.find(ada.user_id) is not None


async def test_a_frame_that_is_heard_while_the_list_is_being_noted_wins_over_the_older_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        really_read = core.vault.owner
        reads = 0

        async def read(owner_id: str) -> Versioned:
            nonlocal reads
            reads, found = reads + 1, await really_read(owner_id)
            if reads == 1:
                await core.owners.note(relation_of(ada), "revoked")
            return found

        monkeypatch.setattr(core.vault, "owner", read)
        await core.owners.refresh()
        found = await core.owners.find(ada.user_id)
        assert found is not None
        assert not found.is_active


async def test_a_reading_that_is_given_up_in_its_middle_is_left_to_the_next(tmp_path: Path) -> None:
    async with scene(tmp_path) as (core, ada):
        ada.meet()
        core.rest.hold_next("relations")
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.05):
                await core.owners.refresh()
            nursery.start_soon(core.owners.refresh)
        assert await core.owners.find(ada.user_id) is not None
