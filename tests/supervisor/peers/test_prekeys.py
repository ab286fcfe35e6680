"""Our own prekeys: durable before they are published, never two of one id, refilled, rotated, erased when used."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bus.steps.prekey_wish import PrekeyWish
from crypto.identity import IdentityKeys, LocalDevice
from crypto.prekeys import SIGNED_PREKEY_ROTATION_MS, bundle_from_json, check_bundle
from supervisor.peers.prekeys import MOST_UNUSED, OwnPrekeys
from supervisor.relay.rest import Json, RestFailed
from supervisor.settings.pauses import PAUSES, Pauses
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import IDENTITY, WAIT_SECONDS, Core, open_core
from tests.supervisor.doubles import FakeRest
from tests.supervisor.person import AGENT
from tests.waiting import waiting_for

DAY_MS = 86_400_000


@asynccontextmanager
async def scene(tmp_path: Path, pauses: Pauses = PAUSES) -> AsyncIterator[Core]:
    with redis_server(tmp_path) as url:
        async with open_core(url, FakeRest(), pauses=pauses) as core:
            yield core


def one_time_ids(body: Json) -> list[int]:
    offered = body["one_time_prekeys"]
    assert isinstance(offered, list)
    return [entry["id"] for entry in offered]


def signed_id(body: Json) -> int:
    signed = body["signed_prekey"]
    assert isinstance(signed, dict)
    number: int = signed["id"]
    return number


async def test_the_first_publishing_offers_100_one_time_prekeys_under_a_signed_one_that_counts(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        assert await core.prekeys.publish() == 100
        [body] = core.rest.registered
        assert one_time_ids(body) == list(range(1, 101))
        bundle = bundle_from_json({**body, "one_time_prekey": None}, AGENT)
        check_bundle(bundle, IDENTITY.public)


async def test_private_halves_are_durable_before_the_public_ones_are_shown(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        shown = core.rest.register_keys

        async def check(body: Json) -> int:
            for prekey_id in one_time_ids(body):
                assert (await core.prekeys.find(signed_id(body), prekey_id)).one_time(prekey_id) is not None
            assert (await core.prekeys.find(signed_id(body), None)).signed(signed_id(body)) is not None
            return await shown(body)

        core.rest.register_keys = check  # type: ignore[method-assign]  # looks before it shows
        assert await core.prekeys.publish() == 100


async def test_a_second_publishing_offers_nothing_new(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        await core.prekeys.publish()
        first, second = core.rest.registered
        assert signed_id(second) == signed_id(first)
        assert one_time_ids(second) == []


async def test_under_25_left_they_are_refilled_to_100_with_new_ids(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        core.rest.left = 24
        await core.prekeys.publish()
        assert one_time_ids(core.rest.registered[-1]) == list(range(101, 177))
        core.rest.left = 25
        await core.prekeys.publish()
        assert one_time_ids(core.rest.registered[-1]) == []


async def test_however_few_the_relay_says_are_left_no_more_than_100_are_made_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        core.rest.left = -3_000_000
        with waiting_for("prekeys to be published at a relay that says that less than none are left", 5):
            await core.prekeys.publish()
        assert len(one_time_ids(core.rest.registered[-1])) == 100


async def test_two_supervisors_never_use_an_id_twice(tmp_path: Path) -> None:
    async with scene(tmp_path) as core, open_core(core.url, core.rest) as other:
        async with trio.open_nursery() as nursery:
            for prekeys in (core.prekeys, other.prekeys, core.prekeys, other.prekeys):
                nursery.start_soon(prekeys.publish)
        ids = [prekey_id for body in core.rest.registered for prekey_id in one_time_ids(body)]
        assert len(ids) == len(set(ids))
        for prekey_id in ids:
            assert (await core.prekeys.find(1, prekey_id)).one_time(prekey_id) is not None
        last = signed_id(core.rest.registered[-1])
        assert (await core.prekeys.find(last, None)).signed(last) is not None


async def test_the_signed_prekey_is_rotated_weekly_and_the_previous_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        made = (await core.prekeys.find(1, None)).signed(1)
        assert made is not None
        for week in range(1, 5):
            monkeypatch.setattr(
                "supervisor.peers.prekeys.now_ms", lambda week=week: made.created_ms + week * SIGNED_PREKEY_ROTATION_MS
            )
            await core.prekeys.publish()
            assert signed_id(core.rest.registered[-1]) == week + 1
        assert (await core.prekeys.find(1, None)).signed(1) == made


async def test_those_from_before_a_loss_are_known_as_such_and_those_made_since_are_not(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        before = signed_id(core.rest.registered[-1])
        assert not (await core.prekeys.find(before, None)).was_before_a_loss(before)
        core.write_count.seen(1 << 30)  # Redis has fewer
        await core.guard.look_again()
        await core.prekeys.publish()
        since = signed_id(core.rest.registered[-1])
        assert since != before
        assert (await core.prekeys.find(before, None)).was_before_a_loss(before)
        assert not (await core.prekeys.find(since, None)).was_before_a_loss(since)


async def test_a_signed_prekey_is_erased_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        made = (await core.prekeys.find(1, None)).signed(1)
        assert made is not None
        for days in (7, 46):
            monkeypatch.setattr("supervisor.peers.prekeys.now_ms", lambda days=days: made.created_ms + days * DAY_MS)
            await core.prekeys.publish()
        assert (await core.prekeys.find(1, None)).signed(1) is None


async def test_private_halves_lie_sealed_and_open_only_under_their_id(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        found = (await core.prekeys.find(1, 1)).one_time(1)
        assert found is not None
        sealed = await core.client.command("HGET", core.keys.one_time_prekeys, 1)
        assert isinstance(sealed, bytes)
        assert found.private not in sealed
        assert found.private.hex() not in repr(found)
        body = repr(core.rest.registered)
        assert found.private.hex() not in body


async def test_what_a_handshake_does_not_name_is_not_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        found = await core.prekeys.find(1, 1)
        assert (found.signed(2), found.one_time(2)) == (None, None)
        gone = await core.prekeys.find(2, 999)
        assert (gone.signed(2), gone.one_time(999)) == (None, None)
        assert (await core.prekeys.find(1, None)).one_time(1) is None


async def keep_until_published(core: Core, prekeys: OwnPrekeys) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prekeys.keep, core.metrics)
        with waiting_for("prekeys to be published", WAIT_SECONDS):
            await prekeys.published.wait()
        nursery.cancel_scope.cancel()


async def test_a_relay_and_a_redis_that_are_away_are_asked_again(tmp_path: Path) -> None:
    rest = FakeRest()
    rest.fail_next("register_keys", RestFailed("register", 0, "ConnectError"), RestFailed("register", 500))
    with running_redis(tmp_path) as server:
        async with open_core(server.url, rest, pauses=Pauses(prekeys_retry=0.05)) as core:
            server.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_until_published, core, core.prekeys)
                await trio.lowlevel.checkpoint()
                server.start()
            assert core.count("one_time_prekeys_left") == 100
            assert rest.calls.count("register_keys") >= 3


async def test_a_relay_that_says_when_is_not_asked_before(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    async with scene(tmp_path) as core, trio.open_nursery() as nursery:
        core.rest.fail_next("register_keys", RestFailed("register", 429, retry_after_seconds=120.0))
        nursery.start_soon(core.prekeys.keep, core.metrics)
        with waiting_for("the relay to refuse", WAIT_SECONDS):
            while not core.prekeys.problem:
                await trio.sleep(0.001)
        clock.jump(PAUSES.prekeys_retry + 5)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert core.rest.calls.count("register_keys") == 1
        clock.jump(120.0)
        with waiting_for("prekeys to be published", WAIT_SECONDS):
            await core.prekeys.published.wait()
        nursery.cancel_scope.cancel()


async def test_the_relays_word_that_few_are_left_refills_soon(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(prekeys=0.05)) as core, trio.open_nursery() as nursery:
        nursery.start_soon(core.prekeys.keep, core.metrics)
        with waiting_for("prekeys to be published, and again as wished", WAIT_SECONDS):
            await core.prekeys.published.wait()
            core.rest.left = 10
            core.prekeys.refill_soon()
            while len(core.rest.registered) < 3:
                await trio.sleep(0.005)
        assert len(one_time_ids(core.rest.registered[-1])) == 90
        nursery.cancel_scope.cancel()


def bodies_that_replace(core: Core) -> list[bool]:
    return [body.get("replace", False) is True for body in core.rest.registered]


async def test_a_relay_with_more_than_the_store_has_gets_all_of_them_replaced(tmp_path: Path) -> None:
    """As after Redis was lost, or came back older."""
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        assert bodies_that_replace(core) == [True]  # a store that has none at all cannot know what is there
        core.rest.left = 100
        await core.prekeys.publish()
        assert bodies_that_replace(core) == [True, False]
        await core.vault.erase_prekeys(core.keys.one_time_prekeys, [100])
        await core.prekeys.publish()
        assert bodies_that_replace(core) == [True, False, False, True]
        assert one_time_ids(core.rest.registered[-1]) == list(range(101, 201))


async def test_a_raised_epoch_replaces_them_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        for raised, replaced in ((1, [True, True]), (1, [True, True, False]), (2, [True, True, False, True])):
            core.write_count.epoch = raised
            await core.prekeys.publish()
            assert bodies_that_replace(core) == replaced


async def test_a_wish_of_the_epoch_is_heard_while_it_waits(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(prekeys=0.01, prekeys_wish=0.01)) as core, trio.open_nursery() as nursery:
        nursery.start_soon(core.prekeys.keep, core.metrics)
        with waiting_for("prekeys to be published, and again after the epoch changed", WAIT_SECONDS):
            await core.prekeys.published.wait()
            core.write_count.epoch = 1
            while len(core.rest.registered) < 2:
                await trio.sleep(0.01)
        assert bodies_that_replace(core) == [True, True]
        nursery.cancel_scope.cancel()


async def test_whoever_drains_them_makes_the_store_forget_none_that_somebody_may_hold(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        for _ in range(12):
            core.rest.left = 0
            await core.prekeys.publish()
        assert sorted(await core.vault.prekeys(core.keys.one_time_prekeys)) == list(range(1, MOST_UNUSED + 1))


async def test_where_all_are_replaced_the_oldest_make_room(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        for _ in range(10):
            core.rest.left = 0
            await core.prekeys.publish()
        core.write_count.epoch = 1
        core.rest.left = 100
        await core.prekeys.publish()
        kept = sorted(await core.vault.prekeys(core.keys.one_time_prekeys))
        newest = one_time_ids(core.rest.registered[-1])[-1]
        assert kept == list(range(newest - MOST_UNUSED + 1, newest + 1))


async def test_a_relay_that_does_not_replace_is_told_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        core.rest.left = 5000
        for _ in range(5):
            await core.prekeys.publish()
        assert bodies_that_replace(core).count(True) == 2
        assert await core.vault.prekeys_left(core.keys.one_time_prekeys) == 200


async def test_a_wish_for_another_signed_prekey_is_heard_while_it_waits_and_fulfilled_once(tmp_path: Path) -> None:
    async with scene(tmp_path, Pauses(prekeys=0.01, prekeys_wish=0.01)) as core, trio.open_nursery() as nursery:
        nursery.start_soon(core.prekeys.keep, core.metrics)
        with waiting_for("prekeys to be published, and again as an operator wished", WAIT_SECONDS):
            await core.prekeys.published.wait()
            await PrekeyWish(core.client, core.keys).ask()
            while len(core.rest.registered) < 2:
                await trio.sleep(0.01)
        await core.prekeys.publish()
        assert [signed_id(body) for body in core.rest.registered] == [1, 2, 2]
        nursery.cancel_scope.cancel()


async def test_under_another_identity_the_signed_prekey_is_made_anew_and_it_is_told_since_when(tmp_path: Path) -> None:
    async with scene(tmp_path) as core:
        await core.prekeys.publish()
        assert core.prekeys.identity_since_ms is None
        identity = IdentityKeys.generate(os.urandom)
        following = OwnPrekeys(
            core.vault,
            core.keys.signed_prekeys,
            core.keys.one_time_prekeys,
            device=LocalDevice(AGENT, AGENT, identity),
            rest=core.rest,
            on_kept=lambda _kept: None,
            epoch=lambda: 0,
        )
        for _ in range(2):
            await following.publish()
        assert [signed_id(body) for body in core.rest.registered] == [1, 2, 2]
        bundle = bundle_from_json({**core.rest.registered[-1], "one_time_prekey": None}, AGENT)
        check_bundle(bundle, identity.public)
        assert following.identity_since_ms == following.signed_since_ms
