"""Sealed values: replaced only from the version that was read, and many rows are read as one is."""

from collections.abc import Iterator

import pytest

from bus.records.sealing import StateKey
from bus.steps.seal import LEDGER, STATE_CHECK, SealDamaged, StoreSeal
from bus.steps.vault import LedgerStep, Vault, Versioned
from tests.bus.redis_scene import RedisScene


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


def vault_of(redis: RedisScene) -> Vault:
    return Vault(redis.client, redis.keys, StateKey(bytes(32)))  # type: ignore[arg-type]


async def test_what_another_has_replaced_meanwhile_is_not_replaced(redis: RedisScene) -> None:
    vault = vault_of(redis)
    read = await vault.group("g")
    assert await vault.put_group("g", read, b"first")
    before = redis.contents()
    assert not await vault.put_group("g", read, b"second")
    assert redis.contents() == before
    assert await vault.group("g") == Versioned(1, b"first")
    assert await vault.put_group("g", Versioned(1, b"first"), b"second")


async def test_a_grant_goes_on_from_the_head_and_the_row_that_were_read(redis: RedisScene) -> None:
    vault, nothing = vault_of(redis), Versioned(0, None)
    first, second = (
        LedgerStep(previous, b"entry", mac) for previous, mac in ((bytes(32), b"1" * 32), (b"1" * 32, b"2" * 32))
    )
    assert await vault.put_grant("ada", nothing, b"row", first)
    before = redis.contents()
    assert not await vault.put_grant("bob", nothing, b"row", first), "another entry has come behind that head"
    assert not await vault.put_grant("ada", nothing, b"row", second), "the row is another by now"
    assert redis.contents() == before
    assert await vault.put_grant("bob", nothing, b"row", second)


async def test_a_page_of_rows_is_the_rows_in_their_order(redis: RedisScene) -> None:
    vault = vault_of(redis)
    for owner_id in ("ada", "bob"):
        await vault.put_owner(owner_id, Versioned(0, None), owner_id.encode())
    await vault.put_owner("bob", Versioned(1, b"bob"), b"bob again")
    found = await vault.owners(["bob", "nobody", "ada"])
    assert found == [Versioned(2, b"bob again"), Versioned(0, None), Versioned(1, b"ada")]


async def test_a_damaged_value_counts_as_lost_hides_no_other_and_is_replaced(redis: RedisScene) -> None:
    vault = vault_of(redis)
    for owner_id in ("ada", "bob", "cleo"):
        await vault.put_owner(owner_id, Versioned(0, None), owner_id.encode())
    await redis.client.command("HSET", redis.keys.owner("ada"), "v", "\xff")
    await redis.client.command("SET", redis.keys.owner("bob"), "of another type")
    found = await vault.owners(["ada", "bob", "cleo"])
    assert found == [Versioned(0, None), Versioned(0, None), Versioned(1, b"cleo")]
    assert await vault.put_owner("ada", found[0], b"anew")
    assert await vault.owner("ada") == Versioned(1, b"anew")
    await vault.put_prekeys(redis.keys.signed_prekeys, {1: b"one", 2: b"two"})
    await redis.client.command("HSET", redis.keys.signed_prekeys, "1", "x", "no id", "x")
    assert await vault.prekeys(redis.keys.signed_prekeys) == {2: b"two"}


async def test_a_damaged_seal_is_said_with_what_helps_and_left_as_it_is(redis: RedisScene) -> None:
    seal, secret = StoreSeal(redis.client, redis.keys), bytes(32)
    await seal.adopt(secret)
    rows = redis.contents()
    for damage in (("HSET", STATE_CHECK, "x"), ("HSET", LEDGER, "x")):
        await redis.client.command(damage[0], redis.keys.seal, *damage[1:])
        before = redis.contents()
        with pytest.raises(SealDamaged, match=r":seal in Redis is damaged; bring a backup back"):
            await seal.adopt(secret)
        assert redis.contents() == before
        await redis.client.command("DEL", redis.keys.seal)
        await seal.adopt(secret)
    assert set(redis.contents()) == set(rows)
