"""What a restore puts into a store: everything that was saved, whole and fit to go on with, and nothing of what belongs to one store alone."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from bus.records.kept import EXCHANGES_KEPT_MS
from bus.records.keys import Keys
from bus.records.saved import KINDS, Fate, Saved, SavedConversation, Waiting
from bus.records.sealing import StoreKeys
from bus.steps.outbox import Outbox
from bus.steps.policies import Policies
from bus.steps.seal import RestoreUnderWay, StoreSeal
from bus.steps.store import Intake
from bus.transport.client import RedisClient, open_redis
from bus.whole.restore_switch import RestoreSwitch
from bus.whole.restoring import PREKEYS_READ_SECONDS, Restoring
from bus.whole.snapshot import Snapshot
from tests.bus.builders import CONVERSATION, arrival_of, job_of, open_bus, open_worker, reply, text_of
from tests.redis_server import redis_server
from tests.supervisor.backup.builders import NAMES, SECRET, filled
from tests.supervisor.builders import KEYS
from tests.supervisor.cli.keys.builders import kinds, loose_ends, opened
from tests.supervisor.settings.environment import AGENT_ID

THEIR_OWN = {"signed", "one time", "restored signed", "restored one time"}


@contextmanager
def two_servers(directory: Path) -> Iterator[tuple[str, str]]:
    """One that was saved, one to restore into."""
    for name in ("1", "2"):
        (directory / name).mkdir()
    with redis_server(directory / "1") as before, redis_server(directory / "2") as after:
        yield before, after


async def saved_of(client: RedisClient, most_conversation_bytes: int = 1 << 22) -> list[Saved]:
    return [saved async for saved in Snapshot(client, NAMES, most_conversation_bytes).everything()]


async def restore_into(
    client: RedisClient, saved: list[Saved], keys: StoreKeys, *, epoch: int = 0, writes: int = 0, names: Keys = NAMES
) -> Restoring:
    restoring = Restoring(client, names, keys.state, place=names.of, least_epoch=epoch, least_writes=writes)
    for one in saved:
        await restoring.take(one)
    await restoring.finish()
    return restoring


@pytest.mark.parametrize("most_bytes", [1 << 22, 1], ids=["whole", "in parts"])
async def test_what_was_saved_is_there_again_and_opens(tmp_path: Path, most_bytes: int) -> None:
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_redis(before_url) as before, open_redis(after_url) as after:
            await filled(before)
            keys = await StoreSeal(before, NAMES).adopt(SECRET.reveal())
            await before.command("SET", NAMES.epoch, 4)
            await before.command("SET", NAMES.cursor, "message-c")
            await before.command("SET", NAMES.first_sync, "ended")
            await before.command("PEXPIRE", NAMES.ids("busy"), 1_000_000_000)
            expected = await opened(before, keys)
            await restore_into(after, await saved_of(before, most_bytes), keys, epoch=9, writes=1000)
            await StoreSeal(after, NAMES).adopt(SECRET.reveal())
            found = await opened(after, keys)
            assert await loose_ends(after) == []
            assert {key: found[key] for key in expected.keys() - THEIR_OWN} == {
                key: expected[key] for key in expected.keys() - THEIR_OWN
            }
            assert found["restored signed"] == expected["signed"]
            assert found["restored one time"] == expected["one time"]
            assert found["signed"] == found["one time"] == {}
            assert await after.command("GET", NAMES.epoch) == b"10"
            assert int(cast(bytes, await after.command("GET", NAMES.write_count))) == 1001
            for key in (NAMES.restored_signed_prekeys, NAMES.restored_one_time_prekeys):
                assert 0 < cast(int, await after.command("TTL", key)) <= PREKEYS_READ_SECONDS
            assert 900_000 < cast(int, await after.command("TTL", NAMES.ids("busy"))) <= 1_000_000
            left = {kind for kind, one in KINDS.items() if one.fate is Fate.LEFT} - {
                "restored_signed_prekeys",
                "restored_one_time_prekeys",
            }
            assert await kinds(after) & left == set()
            assert await same(before, after, "GET", NAMES.waiting)
            assert await same(before, after, "HGETALL", NAMES.kept)
            assert await same(before, after, "ZRANGE", NAMES.waiting_for, 0, -1)
            assert await same(before, after, "SMEMBERS", NAMES.owners)
            assert await same(before, after, "GET", NAMES.grant_head)
            assert await same(before, after, "ZRANGE", NAMES.busy, 0, -1)
            assert await same(before, after, "ZRANGE", NAMES.behind, 0, -1)
            assert await same(before, after, "ZRANGE", NAMES.placements, 0, -1)
            assert await same(before, after, "ZRANGE", NAMES.alarms, 0, -1, "WITHSCORES")
            assert await after.command("HGET", NAMES.conversation("busy"), "placed") == b"1"
            assert await same(before, after, "HGETALL", NAMES.acks)
            assert await same(before, after, "HGETALL", NAMES.histories)
            kept_ms = cast(int, await after.command("PTTL", NAMES.history("busy")))
            assert EXCHANGES_KEPT_MS - 600_000 < kept_ms <= EXCHANGES_KEPT_MS
            assert await same(before, after, "XLEN", NAMES.ledger)


async def same(one: RedisClient, other: RedisClient, *command: str | int) -> bool:
    found = [await client.command(*command) for client in (one, other)]
    one_of, other_of = (
        sorted(cast("list[bytes]", answer)) if isinstance(answer, list) else [answer] for answer in found
    )
    assert one_of == other_of, command
    return True


async def test_the_loads_are_those_of_what_waits(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_redis(before_url) as before, open_redis(after_url) as after:
            await filled(before)
            loads = await before.command("HGETALL", NAMES.load)
            saved = await saved_of(before)
            twice = [one for one in saved if isinstance(one, SavedConversation)]  # as SCAN may name them
            await restore_into(after, [*saved, *twice], KEYS)
            assert loads
            assert pairs_of(loads) == pairs_of(await after.command("HGETALL", NAMES.load))


def pairs_of(flat: object) -> dict[bytes, bytes]:
    words = cast("list[bytes]", flat)
    return dict(zip(words[::2], words[1::2], strict=True))


async def test_notes_of_what_waits_at_the_relay_and_a_superseded_job_stay_what_they_are(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_redis(before_url) as before, open_redis(after_url) as after:
            await filled(before)
            for number in (1, 2):
                note = f"{number}\x1f{number}\x1fbusy\x1f\x1fab"
                await before.command("HSET", NAMES.notes("person"), f"message-{number}", note)
            await before.command("HSET", NAMES.notes("other"), "\x1fdue", "3\x1f5\x1fdue\x1f\x1f9\x1fmessage-9\x1f4")
            await before.command("HSET", NAMES.held, "s:person", 2, "s:other", 1, "total", 3)
            await before.command("HSET", NAMES.conversation("busy"), "held", 2)
            await before.command("HSET", NAMES.conversation("due"), "held", 1)
            await before.command("HSET", NAMES.conversation("dead"), "held", 5)  # which is too much
            entry = await before.command("HGET", NAMES.conversation("busy"), "entry")
            await before.command("SADD", NAMES.interrupted, cast(bytes, entry))
            await before.command("ZADD", NAMES.old, 7, "busy\x1f1\x1fmessage-o")
            await before.command("ZADD", NAMES.taken("busy"), 12, 12)
            await restore_into(after, await saved_of(before), KEYS)
            for key in (NAMES.held, NAMES.notes("person"), NAMES.notes("other")):
                assert pairs_of(await after.command("HGETALL", key)) == pairs_of(await before.command("HGETALL", key))
            held = [await after.command("HGET", NAMES.conversation(name), "held") for name in ("busy", "due", "dead")]
            assert held == [b"2", b"1", None]
            again = await after.command("HGET", NAMES.conversation("busy"), "entry")
            assert again not in (None, entry)
            assert await after.command("SMEMBERS", NAMES.interrupted) == [again]
            for key in (NAMES.old, NAMES.taken("busy")):
                assert await same(before, after, "ZRANGE", key, 0, -1, "WITHSCORES")


async def test_new_prekeys_get_ids_far_from_those_that_are_restored(tmp_path: Path) -> None:
    firsts = set()
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_redis(before_url) as before, open_redis(after_url) as after:
            await filled(before)
            saved = await saved_of(before)
            for _ in range(3):
                await after.command("FLUSHALL")
                await restore_into(after, saved, await StoreSeal(before, NAMES).adopt(SECRET.reveal()))
                state = pairs_of(await after.command("HGETALL", NAMES.prekey_state))
                assert state[b"rotate_through"] == state[b"signed"]
                firsts |= {int(state[b"signed"]), int(state[b"one_time"])}
    assert len(firsts) == 6
    assert all(1 << 19 < first < 2**32 - (1 << 25) for first in firsts)


async def test_a_job_that_was_under_way_runs_again_and_asks_what_was_sent(tmp_path: Path) -> None:
    """Its worker had sent one reply of two: the second run sends the other one, and both have the ids that they had."""
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_bus(before_url) as bus, open_worker(before_url) as worker:
            for seq in (1, 2):
                await bus.store.accept(arrival_of(seq, seq - 1), job_of(seq))
            [job] = await worker.take(1)
            await worker.emit(job, "0", reply("first"))
            saved = [saved async for saved in Snapshot(bus.client, bus.keys).everything()]
        async with open_bus(after_url) as bus, open_worker(after_url, "another") as worker:
            restoring = Restoring(bus.client, bus.keys, KEYS.state, place=bus.keys.of)
            for one in saved:
                await restoring.take(one)
            await restoring.finish()
            assert await bus.store.accept(arrival_of(1, 2), job_of(1)) is Intake.DUPLICATE
            [again] = await worker.take(1)
            assert (again.job_id, again.deliveries, again.is_first_run) == (job.job_id, 2, False)
            started = await worker.start(again)
            assert started.outcome == "started"
            assert started.places == {"0"}
            await worker.finish(again)
            [following] = await worker.take(1)
            assert following.job_id == f"{CONVERSATION}-2"
            [entry] = await bus.replies.read(10)
            assert text_of(entry.fields["r"]) == "0"
            assert await bus.recovery.audit(int(time.time() * 1000) + 1) == 0


async def test_what_is_read_in_parts_twice_or_moves_meanwhile_waits_once(tmp_path: Path) -> None:
    """SCAN may name a conversation twice; and what waited when its page was read was taken together with the job that runs."""
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_bus(before_url) as bus, open_worker(before_url, policies=Policies(busy="coalesce")) as worker:
            reading = Snapshot(bus.client, bus.keys, most_conversation_bytes=100)
            for seq in range(1, 6):
                await bus.store.accept(arrival_of(seq, seq - 1), job_of(seq))
            earlier = [one async for one in reading.everything() if isinstance(one, Waiting)]
            [job] = await worker.take(1)
            await worker.start(job)
            await bus.store.accept(arrival_of(6, 5), job_of(6))
            saved = [*earlier, *[one async for one in reading.everything()]]
            expected = [await bus.client.command(*command) for command in what_waits(bus.keys)]
            assert [len(cast("list[bytes]", found)) for found in expected] == [2, 4]
        async with open_bus(after_url) as bus:
            await restore_into(bus.client, [*saved, *earlier], KEYS, names=bus.keys)
            assert [await bus.client.command(*command) for command in what_waits(bus.keys)] == expected
            assert await bus.client.command("GET", bus.keys.waiting) == b"1"


def what_waits(names: Keys) -> list[tuple[str | int, ...]]:
    return [
        ("ZRANGE", names.mailbox(CONVERSATION), 0, -1, "WITHSCORES"),
        ("LRANGE", names.together(CONVERSATION), 0, -1),
    ]


async def test_what_was_sent_and_not_acknowledged_goes_out_again_as_the_same_bytes(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (before_url, after_url):
        async with open_redis(before_url) as before, open_redis(after_url) as after:
            await filled(before)
            sent = pairs_of(await before.command("HGETALL", NAMES.sent("answered")))
            await restore_into(after, await saved_of(before), KEYS)
            outbox = Outbox(after, AGENT_ID, "another")
            assert await outbox.due() == ["answered"]
            record = await outbox.resend("answered")
            assert record is not None
            assert record.encrypted_payload.encode() in sent[b"r"]


class Ended(Exception):
    """The process is gone at this moment."""


class Mortal:
    """A client whose process dies before its command of this number."""

    def __init__(self, client: RedisClient, lives: int) -> None:
        self._client = client
        self.lives = lives

    async def command(self, *command: bytes | str | float) -> object:
        if self.lives == 0:
            raise Ended
        self.lives -= 1
        return await self._client.command(*command)

    async def script(self, name: str, keys: Sequence[str], *arguments: bytes | str | float) -> object:
        if self.lives == 0:
            raise Ended
        self.lives -= 1
        return await self._client.script(name, keys, *arguments)


async def stage(client: RedisClient, seal: dict[bytes, bytes]) -> None:
    """A new store beside the old one."""
    await client.command("HSET", NAMES.restoring("conv", "new"), "next", 1)
    await client.command("SET", NAMES.restoring("epoch", ""), 5)
    for name, value in seal.items():
        await client.command("HSET", NAMES.restoring("seal", ""), name, value)


async def test_ended_before_any_command_of_the_switch_the_store_is_the_old_or_becomes_the_new_one(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            undecided = 0
            for lives in range(1000):
                await client.command("FLUSHALL")
                await client.command("SET", "somebody-elses", "1")
                keys = await StoreSeal(client, NAMES).adopt(SECRET.reveal())
                await client.command("SET", NAMES.cursor, "old")
                await client.command("HSET", NAMES.conversation("old"), "next", 7)
                seal = pairs_of(await client.command("HGETALL", NAMES.seal))
                await client.command("SET", NAMES.restoring("former", ""), "of an attempt that ended")
                has_ended = False
                try:
                    switch = RestoreSwitch(cast(RedisClient, Mortal(client, lives)), NAMES)
                    await switch.begin()
                    await stage(client, seal)
                    await switch.decide()
                    await switch.finish()
                except Ended:
                    has_ended = True
                switch = RestoreSwitch(client, NAMES)
                if await switch.is_decided():
                    with pytest.raises(RestoreUnderWay, match="restore --finish"):
                        await StoreSeal(client, NAMES).adopt(SECRET.reveal())
                    with pytest.raises(RestoreUnderWay):
                        await StoreSeal(client, NAMES).adopt_bus_key(keys.bus)
                    await switch.finish()
                elif has_ended and await client.command("EXISTS", NAMES.cursor) == 1:
                    undecided += 1
                    assert await client.command("EXISTS", NAMES.cursor, NAMES.conversation("old")) == 2
                    if await switch.give_up():
                        assert await kinds(client) == {"seal", "cursor", "conv"}
                    await StoreSeal(client, NAMES).adopt(SECRET.reveal())
                    continue
                await StoreSeal(client, NAMES).adopt(SECRET.reveal())
                left = {key.decode() for key in cast("list[bytes]", await client.command("KEYS", "*"))}
                assert left == {"somebody-elses", NAMES.seal, NAMES.epoch, NAMES.conversation("new")}
                if not has_ended:
                    assert lives > 8
                    assert undecided > 3
                    return


class Slow(RestoreSwitch):
    """One that stands still before it clears, or moves."""

    def __init__(self, client: RedisClient, before: str) -> None:
        super().__init__(client, NAMES)
        self.before = before
        self.stands, self.goes_on = trio.Event(), trio.Event()

    async def _pages(self, pattern: str) -> AsyncGenerator[list[str]]:
        async with aclosing(super()._pages(pattern)) as pages:
            async for page in pages:
                if pattern == self.before and not self.stands.is_set():
                    self.stands.set()
                    await (
                        self.goes_on.wait()
                    )  # a slow network, a stopped process, and it holds a page that was true once
                yield page


@pytest.mark.parametrize("before", [NAMES.pattern, NAMES.of("restoring", "*")], ids=["clears", "moves"])
async def test_two_that_finish_the_same_restore_leave_the_new_store(tmp_path: Path, before: str) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client, trio.open_nursery() as nursery:
            await client.command("HSET", NAMES.conversation("new"), "next", 7)  # of the same name in the old store
            first = Slow(client, NAMES.pattern if before == NAMES.pattern else "nothing yet")
            assert await first.begin()
            await stage(client, {b"check": b"x"})
            assert await first.decide()
            first.before = before
            nursery.start_soon(first.finish)
            await first.stands.wait()
            await RestoreSwitch(client, NAMES).finish()
            first.goes_on.set()
        async with open_redis(url) as client:
            assert await kinds(client) == {"seal", "epoch", "conv"}
            assert await client.command("HGET", NAMES.conversation("new"), "next") == b"1"
            assert not await RestoreSwitch(client, NAMES).has_begun()


async def test_what_was_given_up_while_it_was_filled_is_not_decided_and_what_is_decided_not_given_up(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as url:
        async with open_redis(url) as client:
            await client.command("SET", NAMES.cursor, "old")
            first, second = RestoreSwitch(client, NAMES), RestoreSwitch(client, NAMES)
            assert await first.begin()
            assert not await second.begin()
            with pytest.raises(RestoreUnderWay):  # as where a replica that had not heard of the decision took over
                await first.finish()
            await stage(client, {b"check": b"x"})
            await second.clean()
            assert await client.command("EXISTS", NAMES.restoring("epoch", "")) == 1, "another's is left alone"
            assert await second.give_up()
            assert await kinds(client) == {"cursor"}
            assert not await first.decide()
            assert await second.begin()
            await stage(client, {b"check": b"x"})
            assert await second.decide()
            for switch in (first, second):
                await switch.clean()
                assert not await switch.give_up()
            await first.finish()
            assert await kinds(client) == {"seal", "epoch", "conv"}
