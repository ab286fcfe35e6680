"""Prekeys, owners, reclaimer, HTTP, Redis check: upkeep that loses, unlearns, or ends the process."""

import gc
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from bus.transport.client import RedisUnavailable
from supervisor.observe.health import Health
from supervisor.observe.http import start_http
from supervisor.observe.metrics import Metrics
from supervisor.recovery.redis_check import RedisUnfit, check_redis
from tests.http_page import page_at
from tests.redis_server import redis_server, running_redis
from tests.supervisor.builders import WAIT_SECONDS, dead_instance, open_core, reply_to_next, sending
from tests.supervisor.doubles import FakeRest
from tests.supervisor.peers.test_owners import found
from tests.supervisor.peers.test_owners import scene as owners_scene
from tests.supervisor.peers.test_prekeys import DAY_MS, signed_id
from tests.supervisor.peers.test_prekeys import scene as prekeys_scene
from tests.supervisor.person import relation_of
from tests.supervisor.recovery.test_reclaimer import next_job, quick, reclaimer, taken_and_left
from tests.supervisor.recovery.test_reclaimer import scene as job_scene
from tests.supervisor.recovery.test_redis_check import TRUST, redis_with_user
from tests.waiting import until


async def test_a_signed_prekey_is_kept_for_30_days_after_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that was off for 40 days: the first messages that wait for it name the prekey that its start erases."""
    async with prekeys_scene(tmp_path) as core:
        await core.prekeys.publish()
        made = (await core.prekeys.find(1, None)).signed(1)
        assert made is not None
        monkeypatch.setattr("supervisor.peers.prekeys.now_ms", lambda: made.created_ms + 40 * DAY_MS)
        await core.prekeys.publish()
        assert signed_id(core.rest.registered[-1]) == 2
        assert (await core.prekeys.find(1, None)).signed(1) == made


async def test_a_relay_that_always_says_few_are_left_does_not_make_keys_without_a_pause(tmp_path: Path) -> None:
    async with prekeys_scene(tmp_path) as core, trio.open_nursery() as nursery:
        core.rest.left = 0
        nursery.start_soon(core.prekeys.keep, core.metrics)
        await core.prekeys.published.wait()
        with trio.move_on_after(1):
            while True:
                core.prekeys.refill_soon()
                await trio.sleep(0.001)
        made = await core.client.command("HLEN", core.keys.one_time_prekeys)
        assert isinstance(made, int)
        nursery.cancel_scope.cancel()
        assert made <= 500


async def test_a_reading_of_relations_does_not_undo_a_revocation_that_came_meanwhile(tmp_path: Path) -> None:
    async with owners_scene(tmp_path) as (core, ada):
        ada.meet()
        await core.owners.note(relation_of(ada), "active")
        answer = core.rest.hold_next("relations")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.owners.refresh)
            await trio.testing.wait_all_tasks_blocked()
            await core.owners.note(relation_of(ada), "revoked")  # the frame, after the answer was made
            answer.set()
        assert not (await found(core.owners)).is_active


@pytest.mark.parametrize("status", ["terminated", "blocked"])
async def test_a_status_that_is_not_known_lets_nobody_in(tmp_path: Path, status: str) -> None:
    """`terminated` is the older name of revoked; whatever else the relay says, it does not say active."""
    async with owners_scene(tmp_path) as (core, ada):
        await core.owners.note(relation_of(ada), "active")
        await core.owners.note(relation_of(ada), status)
        assert not (await found(core.owners)).is_active


async def test_a_job_record_that_cannot_be_read_costs_itself_only(tmp_path: Path) -> None:
    """BadRecord out of the reclaimer ends the process, and each one after it."""
    with redis_server(tmp_path) as url:
        async with job_scene(url) as core, trio.open_nursery() as nursery:
            name = dead_instance().worker_name(1)
            await core.client.command("XADD", core.keys.jobs, "*", "r", b"of a newer program", "a", 1, "d", 1)
            await taken_and_left(core, name)
            await taken_and_left(core, name)
            nursery.start_soon(reclaimer(core, quick()).run)
            assert (await next_job(core)).deliveries == 2
            nursery.cancel_scope.cancel()


async def test_a_reply_record_that_cannot_be_read_costs_itself_only(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with job_scene(url) as core, trio.open_nursery() as nursery:
            dead = dead_instance().name
            await core.client.command("XADD", core.keys.replies, "*", "r", b"of a newer program")
            await reply_to_next(core, "an answer")
            command = ("XREADGROUP", "GROUP", "supervisors", dead, "COUNT", 2, "STREAMS", core.keys.replies, ">")
            assert await core.client.command(*command)
            nursery.start_soon(reclaimer(core, quick()).run)
            await until(lambda: core.count("lease_reclaimed_total", kind="reply") >= 1, WAIT_SECONDS)
            nursery.cancel_scope.cancel()


async def test_a_group_that_is_lost_on_a_living_connection_is_made_again(tmp_path: Path) -> None:
    """FLUSHALL, or an eviction: NOGROUP, which is RedisRefused, ends the process."""
    with redis_server(tmp_path) as url:
        async with job_scene(url) as core, trio.open_nursery() as nursery:
            lost = reclaimer(core, quick())
            nursery.start_soon(lost.run)
            await until(lambda: lost.turns > 0, WAIT_SECONDS)
            await core.client.command("DEL", core.keys.jobs)
            await until(partial(core.client.command, "EXISTS", core.keys.jobs), WAIT_SECONDS)
            nursery.cancel_scope.cancel()


async def test_a_full_redis_still_drains_after_a_restart(tmp_path: Path) -> None:
    """Rule 16: who has no lease yet must be able to get it, and what was committed must be able to go again."""
    with running_redis(tmp_path) as server:
        async with open_core(server.url, FakeRest()) as core:
            await core.client.command("CONFIG", "SET", "maxmemory", "1mb")
            assert await core.recovery.lease.hold(5000)


async def test_a_full_redis_lets_a_committed_message_go_again(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with job_scene(server.url) as core:
            core.connection.connect()
            await reply_to_next(core, "an answer")
            async with sending(core):
                await core.connection.wait_sent(1)
                await core.client.command("CONFIG", "SET", "maxmemory", "1mb")
                try:
                    record = await core.outbox.resend((await core.outbox.all())[0], former_holder=core.store.consumer)
                except RedisUnavailable as error:
                    raise AssertionError from error
                assert record is not None


def test_the_http_server_keeps_its_listener() -> None:
    """Without a keeper nobody else keeps a reference to the socket."""
    port = _start_as_app_does()
    gc.collect()
    for _ in range(50):
        if page_at(f"http://127.0.0.1:{port}/healthz")[0] != 0:
            return
        trio.run(trio.sleep, 0.02)
    pytest.fail("nobody listens")


def _start_as_app_does() -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    start_http(listener, Health(), Metrics())
    return port


async def test_a_redis_that_forbids_info_is_unfit_with_a_remedy(tmp_path: Path) -> None:
    async with redis_with_user(tmp_path, "-info") as client:
        with pytest.raises(RedisUnfit):
            await check_redis(client, TRUST)


async def test_a_redis_that_forbids_what_we_need_is_unfit_and_not_away(tmp_path: Path) -> None:
    """NOPERM at SCRIPT LOAD, or a wrong password, is not waited for like a Redis that is down."""
    async with redis_with_user(tmp_path, "-script") as client:
        with pytest.raises(RedisUnfit):
            await check_redis(client, TRUST)
