"""The store secret's rotation on a real Redis: everything opens afterwards, wherever it was broken off before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from bus.records.keys import Keys
from bus.records.kinds import PLAIN_KINDS, SEALED_KINDS
from bus.records.sealing import BusKey, SealBroken, StoreKeys
from bus.steps.seal import OtherStoreSecret, RotationUnderWay, StoreSeal
from bus.transport.client import Commands, RedisClient, open_redis
from bus.transport.lua import Argument, Scripts
from bus.transport.wire import RedisUnavailable, Value
from bus.whole.reseal import Resealer
from supervisor.settings.secrets import RotationUnfinished, Secret, load_store_secret
from supervisor.store.rotation import (
    RUN_AGAIN,
    InNamedFile,
    InStateDirectory,
    Rotated,
    RotationRefused,
    StoreRotation,
)
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import connect_again, connected
from tests.supervisor.cli.keys.builders import fill, kinds, loose_ends, opened
from tests.supervisor.settings.environment import AGENT_ID

OLD = Secret(bytes(range(32)))
NAMES = Keys(AGENT_ID)


class Killed(BaseException):
    """The process is gone at this moment."""


@dataclass
class Moments:
    """Counts what a rotation does to the outside; at `last` it is killed, before or after the deed."""

    last: int | None = None
    seen: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        self.seen.append(what)
        if self.last is not None and len(self.seen) > self.last:
            raise Killed


class MortalClient(RedisClient):
    """A client of a process that may be killed before any of its writes."""

    def __init__(self, url: str, moments: Moments) -> None:
        super().__init__(url, Scripts.load())
        self.moments = moments

    def on_connection(self, number: int) -> Commands:
        return MortalCommands(self, super().on_connection(number))


@dataclass
class MortalCommands:
    """Those of one connection."""

    client: MortalClient
    commands: Commands

    async def command(self, *command: Argument) -> Value:
        if command[0] in ("HSET", "HDEL", "HSETNX"):
            self.client.moments.step(str(command[0]))
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        self.client.moments.step(name)
        return await self.commands.script(name, keys, *arguments)


class MortalPlace(InStateDirectory):
    def __init__(self, state_dir: Path, moments: Moments) -> None:
        super().__init__(state_dir)
        self._moments = moments

    def keep(self, new: Secret[bytes]) -> None:
        self._moments.step("keep")
        super().keep(new)
        self._moments.step("kept")

    def forget_old(self) -> None:
        self._moments.step("forget")
        super().forget_old()
        self._moments.step("forgotten")


async def rotate(
    url: str, state_dir: Path, moments: Moments | None = None, *, leave_unreadable: bool = False
) -> Rotated:
    moments = moments or Moments()
    secret = Secret((state_dir / "store.secret").read_bytes())
    client = MortalClient(url, moments)

    async def durable() -> None:
        moments.step("durable")

    client.start()
    try:
        rotation = StoreRotation(secret, MortalPlace(state_dir, moments))
        return await rotation.run(client, NAMES, make_durable=durable, leave_unreadable=leave_unreadable)
    finally:
        await client.aclose()


async def new_store(client: RedisClient, state_dir: Path) -> StoreKeys:
    """A full store under OLD."""
    await client.command("FLUSHALL")
    (state_dir / "store.secret").write_bytes(OLD.reveal())
    keys = await StoreSeal(client, NAMES).adopt(OLD.reveal())
    await fill(client, keys)
    return keys


async def adopted(client: RedisClient, state_dir: Path) -> StoreKeys:
    secret = load_store_secret(state_dir)
    assert secret is not None
    return await StoreSeal(client, NAMES).adopt(secret.reveal())


async def test_everything_opens_with_the_new_secret_and_nothing_with_the_old_one(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            before = await opened(client, await new_store(client, tmp_path))
            assert await kinds(client) >= SEALED_KINDS - {"dead_copy"}, "a kind that this test does not see"
            rotated = await rotate(url, tmp_path)
            keys = await adopted(client, tmp_path)
            assert await opened(client, keys) == before
            assert await loose_ends(client) == []
            assert (rotated.key_epoch, rotated.unreadable) == (1, 0)
            assert rotated.values > 30
            assert load_store_secret(tmp_path) != OLD
            assert (tmp_path / "store.secret").stat().st_mode & 0o777 == 0o600
            with pytest.raises(OtherStoreSecret):
                await StoreSeal(client, NAMES).adopt(OLD.reveal())
            nothing_left = await Resealer(client, NAMES, StoreKeys.derive(OLD.reveal()), keys).survey()
            assert (nothing_left.turned, nothing_left.current) == (0, rotated.values)


@pytest.mark.long
async def test_killed_before_or_after_any_write_it_is_completed_by_the_next_run(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            whole = Moments()
            await new_store(client, tmp_path)
            await rotate(url, tmp_path, whole)
            assert {"keep", "reseal_reply", "reseal_entry", "durable", "forgotten"} <= set(whole.seen)
            for last in range(len(whole.seen)):
                before = await opened(client, await new_store(client, tmp_path))
                await rotate_until_killed(url, tmp_path, Moments(last))
                await rotate_if_unfinished(client, url, tmp_path)
                keys = await adopted(client, tmp_path)
                assert await opened(client, keys) == before, whole.seen[last]
                assert await loose_ends(client) == []
                assert not (tmp_path / "store.secret.next").exists()


async def rotate_until_killed(url: str, state_dir: Path, moments: Moments) -> None:
    """As a process that is gone: several of its writes may have been on their way."""
    with pytest.raises((Killed, BaseExceptionGroup)) as caught:
        await rotate(url, state_dir, moments)
    if isinstance(caught.value, BaseExceptionGroup):
        assert caught.value.split(Killed)[1] is None


async def rotate_if_unfinished(client: RedisClient, url: str, state_dir: Path) -> None:
    """What nothing has begun, and what is complete, opens as it is; anything between is refused until it is run again."""
    try:
        await adopted(client, state_dir)
    except RotationUnfinished:
        await rotate(url, state_dir)


async def test_reply_ids_and_the_ledgers_key_stay_over_rotations(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            first = await new_store(client, tmp_path)
            for epoch in (1, 2):
                assert (await rotate(url, tmp_path)).key_epoch == epoch
                keys = await adopted(client, tmp_path)
                assert (keys.identifier, keys.ledger) == (first.identifier, first.ledger)
                assert (keys.state.epoch, keys.bus.epoch) == (epoch, epoch)


async def test_between_begin_and_end_nobody_opens_the_store(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            old = await new_store(client, tmp_path)
            seal, new = StoreSeal(client, NAMES), bytes(32)
            await seal.begin(await seal.plan(OLD.reveal(), new))
            for secret in (OLD.reveal(), new):
                with pytest.raises(RotationUnderWay, match="hashee-agent keys rotate-store"):
                    await seal.adopt(secret)
            with pytest.raises(RotationUnderWay):
                await seal.adopt_bus_key(old.bus)
            with pytest.raises(OtherStoreSecret):
                await seal.plan(OLD.reveal(), b"\x01" * 32)


async def test_a_worker_with_the_former_bus_key_is_refused_before_it_takes_a_job(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            old = await new_store(client, tmp_path)
            await rotate(url, tmp_path)
            keys = await adopted(client, tmp_path)
            seal = StoreSeal(client, NAMES)
            with pytest.raises(OtherStoreSecret, match="HASHEE_BUS_KEY"):
                await seal.adopt_bus_key(old.bus)
            adopted_key = await seal.adopt_bus_key(BusKey(keys.bus.export()))
            assert (adopted_key.epoch, adopted_key.identifier) == (1, old.identifier)


async def test_what_opens_with_neither_secret_stops_it_before_anything_is_changed(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            keys = await new_store(client, tmp_path)
            foreign = StoreKeys.derive(b"\x07" * 32).state.seal(b"row", NAMES.owner("stranger"), 1)
            await client.command("HSET", NAMES.owner("stranger"), "v", 1, "b", foreign)
            with pytest.raises(RotationRefused, match=r"owner:stranger.*--leave-unreadable"):
                await rotate(url, tmp_path)
            assert await adopted(client, tmp_path) is not None
            with pytest.raises(SealBroken):
                await opened(client, keys)
            assert (await rotate(url, tmp_path, leave_unreadable=True)).unreadable == 1
            assert await client.command("HGET", NAMES.owner("stranger"), "b") == foreign


async def test_a_key_of_an_unknown_kind_stops_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await new_store(client, tmp_path)
            await client.command("SET", NAMES.write_count.removesuffix("gen") + "memories:x", b"?")
            with pytest.raises(RotationRefused, match="kinds that this program does not know: memories"):
                await rotate(url, tmp_path)


class Cut(RedisClient):
    """A client whose connection is another one when all is re-sealed and that is to be noted."""

    def on_connection(self, number: int) -> Commands:
        return CutCommands(self, super().on_connection(number))


@dataclass
class CutCommands:
    client: RedisClient
    commands: Commands

    async def command(self, *command: Argument) -> Value:
        if command[0] == "HSET":
            await self.cut()
        return await self.commands.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> Value:
        return await self.commands.script(name, keys, *arguments)

    async def cut(self) -> None:
        await connect_again(self.client, self.client.url)


class CutWithin(Cut):
    def on_connection(self, number: int) -> Commands:
        return CommandsCutWithin(self, RedisClient.on_connection(self, number))


class CommandsCutWithin(CutCommands):
    """The command itself finds the connection gone, as mostly where a server dies."""

    async def cut(self) -> None:
        with redis.Redis.from_url(self.client.url) as other:
            other.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("kind", [Cut, CutWithin])
async def test_where_another_server_may_have_taken_over_nothing_is_taken_for_re_sealed(
    tmp_path: Path, kind: type[Cut]
) -> None:
    """What it lacks would stay under the old secret, and that would be forgotten."""

    async def durable() -> None:
        raise AssertionError("the rotation is not at its end")

    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            before = await opened(client, await new_store(client, tmp_path))
            cut = kind(url, Scripts.load())
            rotation = StoreRotation(OLD, InStateDirectory(tmp_path))
            with pytest.raises(RedisUnavailable) as problem:
                await rotation.run(cut, NAMES, make_durable=durable)
            assert problem.value.__notes__ == [RUN_AGAIN]
            await cut.aclose()
            await connected(client)
            assert (tmp_path / "store.secret").read_bytes() == OLD.reveal()
            with pytest.raises(RotationUnderWay):
                await StoreSeal(client, NAMES).adopt(OLD.reveal())
            await rotate(url, tmp_path)
            assert await opened(client, await adopted(client, tmp_path)) == before


async def test_a_dead_letter_that_nobody_can_read_stops_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await new_store(client, tmp_path)
            await client.command(
                "XADD", NAMES.dead, "*", "r", b"?", "why", "unreadable_record", "a", 1, "d", 1, "at", 1
            )
            assert (await rotate(url, tmp_path)).unreadable == 1


async def test_a_secret_from_outside_is_replaced_by_the_one_in_the_named_file(tmp_path: Path) -> None:
    named = tmp_path / "new.key"

    async def durable() -> None:
        """Nothing to wait for."""

    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await new_store(client, tmp_path)
            for _ in range(2):  # run again, it finds nothing left to do
                rotation = StoreRotation(OLD, InNamedFile(named, OLD))
                assert (await rotation.run(client, NAMES, make_durable=durable)).key_epoch == 1
            new = InNamedFile(named, OLD).pending()
            assert new is not None
            await StoreSeal(client, NAMES).adopt(new.reveal())
            assert named.stat().st_mode & 0o777 == 0o600
            with pytest.raises(RotationRefused, match="present store secret"):
                InNamedFile(named, new).pending()


@pytest.mark.pure
def test_every_kind_of_key_is_known_as_sealed_or_plain() -> None:
    arguments = {"session": ("o", "d"), "conversation": ("c",), "restoring": ("conv", "c")}
    spelled = set()
    for name in (
        name
        for name in vars(Keys)
        if not name.startswith("_") and name not in ("pattern", "split", "of", "board", "kept_in")
    ):
        member = getattr(NAMES, name)
        if callable(member):
            member = member(*arguments.get(name, ("x",)))
        spelled.add(NAMES.split(member)[0])
    assert spelled == SEALED_KINDS | PLAIN_KINDS, (
        "bus/records/kinds.py says of each kind whether a rotation has to re-seal it"
    )
    assert not SEALED_KINDS & PLAIN_KINDS
