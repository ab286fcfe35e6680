"""Redis went back only if it counts less than was seen before it was asked."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bus.records.keys import Keys
from bus.records.sealing import StateKey
from bus.steps.vault import Vault
from bus.steps.write_count import FEWEST_IDS, Found, Proof, WriteCount
from bus.transport.client import RedisClient, open_redis
from bus.transport.lua import Argument
from bus.transport.wire import Value
from tests.bus.builders import AGENT
from tests.redis_server import redis_server

KEYS = Keys(AGENT)
SERVER = Proof("server")


async def test_counts_that_others_hear_while_we_wait_do_not_make_redis_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            write_count = WriteCount()
            assert await write_count.check(client, KEYS, SERVER) is Found.SAME
            await count(client, 5)
            ask = client.script

            async def while_others_write(name: str, keys: Sequence[str], *arguments: Argument) -> Value:
                answer = await ask(name, keys, *arguments)
                write_count.seen(6)  # another task hears the answer to a script that ran after our question
                return answer

            monkeypatch.setattr(client, "script", while_others_write)
            assert await write_count.check(client, KEYS, SERVER) is Found.SAME
            assert (write_count.highest, write_count.epoch) == (6, 0)


@pytest.mark.parametrize("epoch", [0, 1, 3])
async def test_new_pods_at_another_server_raise_the_epoch_that_stands_there_once(tmp_path: Path, epoch: int) -> None:
    """Each with an empty state directory: what came back may be of any epoch, whatever they know."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await client.command("MSET", KEYS.epoch, epoch, KEYS.write_count, 50)
            await client.command("HSET", KEYS.continuity, "server", "former", "commits", 40)
            first, second = WriteCount(), WriteCount()
            assert await first.check(client, KEYS, Proof("present")) is Found.OTHER
            assert await second.check(client, KEYS, Proof("present")) is Found.SAME
            assert (first.epoch, second.epoch) == (epoch + 1, epoch + 1)
            third = WriteCount()
            assert await third.check(client, KEYS, Proof("another again")) is Found.OTHER
            assert third.epoch == epoch + 2


async def test_a_redis_that_counts_less_than_was_seen_has_gone_back(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await count(client, 5)
            write_count = WriteCount(highest=6)
            assert await write_count.check(client, KEYS, SERVER) is Found.OLDER
            assert write_count.epoch == 1


DAMAGED = {
    "no number for the write count": ("SET", KEYS.write_count, "12\xff"),
    "no number for the epoch": ("SET", KEYS.epoch, ""),
    "no number for the commits": ("HSET", KEYS.continuity, "commits", "1.5e400"),
    "a list for the write count": ("RPUSH", KEYS.write_count, "x"),
    "a list for what was proven": ("RPUSH", KEYS.continuity, "x"),
    "no number for the last prekey's id": ("HSET", KEYS.prekey_state, "signed", "\xff", "one_time", "7"),
    "a list for the prekeys' ids": ("RPUSH", KEYS.prekey_state, "x"),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
async def test_what_is_no_count_is_taken_for_lost_and_written_anew(
    tmp_path: Path, damage: tuple[Argument, ...]
) -> None:
    """Else no supervisor starts, and none says why."""
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            write_count = WriteCount()
            assert await write_count.check(client, KEYS, SERVER) is Found.SAME
            await count(client, 5)
            write_count.seen(5)
            await client.command("DEL", damage[1])
            await client.command(*damage)
            assert await write_count.check(client, KEYS, SERVER) is Found.OLDER
            assert write_count.epoch == 1
            assert await write_count.check(client, KEYS, SERVER) is Found.SAME
            assert await client.command("INCR", KEYS.write_count) == write_count.highest + 1
            next_id = await client.command("HINCRBY", KEYS.prekey_state, "signed", 1)
            assert isinstance(next_id, int)
            assert next_id > FEWEST_IDS


async def count(client: RedisClient, writes: int) -> None:
    await client.command("SET", KEYS.write_count, writes)


async def test_a_redis_that_forgot_its_epoch_has_gone_back_however_much_it_counts(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await count(client, 7)
            write_count = WriteCount(highest=5)
            write_count.epoch = 2
            assert await write_count.check(client, KEYS, SERVER) is Found.OLDER
            assert write_count.epoch == 3


async def test_prekeys_go_on_far_beyond_those_that_were_given_out_and_forgotten(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            vault = Vault(client, KEYS, StateKey(bytes(32)))
            assert [await vault.next_prekey_ids(kind, 3) for kind in ("signed", "one_time")] == [1, 1]
            assert await vault.signed_prekeys_to_replace() == 0
            assert await WriteCount().check(client, KEYS, SERVER, certainly_back=True) is Found.OLDER
            wished = await vault.signed_prekeys_to_replace()
            signed, one_time = [await vault.next_prekey_ids(kind, 1) for kind in ("signed", "one_time")]
            assert wished == signed - 1, "all that may have been given out"
            assert min(signed, one_time) > FEWEST_IDS
            assert max(signed, one_time) < 1 << 20, "far from the end of their 32 bits"
