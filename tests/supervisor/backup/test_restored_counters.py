"""What a restore counts on from: epochs above all that were, ids of prekeys far from all that were given out."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest

from bus.records.saved import Value, Waiting
from bus.steps.seal import RESTORING
from bus.transport.client import open_redis
from bus.transport.lua import Argument
from bus.whole.restore_switch import MOVING, RestoreSwitch
from bus.whole.restoring import FEWEST_ROOM, Restoring
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import NAMES
from tests.supervisor.builders import KEYS

FAR = 50 + FEWEST_ROOM


async def test_an_id_near_a_restored_one_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter((100, 100 + FEWEST_ROOM, 0, 100 + FEWEST_ROOM))
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(drawn))
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            sealed = KEYS.state.seal(bytes(32), NAMES.signed_prekeys, FAR)
            restoring = Restoring(client, NAMES, KEYS.state, place=NAMES.of)
            await restoring.take(Value("signed_prekeys", "", "hash", [b"%d" % FAR, sealed]))
            await restoring.finish()
            found = await client.command("HMGET", NAMES.prekey_state, "signed", "one_time")
            assert found == [b"%d" % (100 + 2 * FEWEST_ROOM)] * 2
    assert list(drawn) == []


async def test_what_stands_on_two_pages_of_a_conversation_waits_once_and_in_its_order(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            restoring = Restoring(client, NAMES, KEYS.state, place=NAMES.of)
            for page in ([b"3", b"4"], [b"2", b"3"], [b"1", b"2"]):
                await restoring.take(Waiting("conversation", "out", page))
            found = await client.command("LRANGE", NAMES.out_box("conversation"), 0, -1)
            assert found == [b"1", b"2", b"3", b"4"]


async def test_a_key_that_another_has_moved_already_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await client.command("HSET", NAMES.seal, RESTORING, MOVING)
            await client.command("SET", staged := NAMES.restoring("epoch", ""), 7)
            await client.command("HSET", NAMES.restoring("seal", ""), "check", "x")  # which is moved last of all
            script = client.script

            async def another_is_first(name: str, keys: Sequence[str], *arguments: Argument) -> object:
                if staged in keys and await client.command("EXISTS", staged):
                    await client.command("RENAME", staged, NAMES.epoch)
                return await script(name, keys, *arguments)

            monkeypatch.setattr(client, "script", another_is_first)
            await RestoreSwitch(client, NAMES).finish()
            assert await client.command("GET", NAMES.epoch) == b"7"


@pytest.mark.parametrize(("least", "of_backup", "of_session"), [(30, 20, 10), (20, 30, 10), (10, 20, 30)])
async def test_the_epoch_is_above_any_that_is_replaced_or_stands_in_the_backup(
    tmp_path: Path, least: int, of_backup: int, of_session: int
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            restoring = Restoring(client, NAMES, KEYS.state, place=NAMES.of, least_epoch=least)
            restoring.seen_epoch(of_backup)
            row = [b"v", b"1", b"b", b"x", b"e", b"%d" % of_session]
            await restoring.take(Value("session", "person:device", "hash", row))
            await restoring.finish()
            assert await client.command("GET", NAMES.epoch) == b"31"
