"""What a former version has left in Redis: it is read as it was meant, counted as far as it goes, and brought to what is written now."""

from collections.abc import Iterator

import pytest

from bus.records.keys import Keys
from bus.steps.letters import Quarantine
from bus.steps.store import InboundStore, Intake
from host.budgets import StoreBudgets
from tests.bus.builders import AGENT, CONVERSATION, PEER, signed_id_of
from tests.bus.redis_scene import RedisScene
from tests.bus.talk import Talk, talk_and_worker, talk_of

BUDGETS = StoreBudgets(
    waiting_bytes=0,
    quarantine_bytes=4000,
    unsigned_bytes=1000,
    dead_bytes=0,
    out_bytes=0,
    history_bytes=0,
    most_quarantined=0,
    most_dead=0,
    most_held=0,
    ledger_entries=0,
)
"""A sender may put something more into quarantine while it has less than a quarter of what is free."""


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    scene = RedisScene(redis_url)
    yield scene
    scene.close()


def quarantine_of(redis: RedisScene) -> Quarantine:
    return Quarantine(redis.client, Keys(AGENT))


async def test_what_an_older_version_remembered_when_it_was_quarantined_is_no_duplicate_of_itself(
    redis: RedisScene,
) -> None:
    talk = await talk_of(redis)
    await talk.quarantine(1)
    redis.client.ask("HSET", redis.keys.quarantined(f"{CONVERSATION}-1"), "signed", 1)
    redis.client.ask("APPEND", redis.keys.ids(CONVERSATION), signed_id_of(1))
    assert await talk.requeue(1) is Intake.ACCEPTED
    assert redis.client.ask("STRLEN", redis.keys.ids(CONVERSATION)) == 8, "it is remembered once"


async def test_what_it_put_into_a_mailbox_without_counting_it_takes_nothing_off_from_others(redis: RedisScene) -> None:
    talk, worker = await talk_and_worker(redis)
    for seq in (1, 2):
        await talk.accept(seq)
    redis.client.ask("DEL", redis.keys.load, redis.keys.load_of(CONVERSATION))
    for seq in (1, 2):
        await talk.accept(seq, conversation="another")
    facts = await redis.facts()
    counted = dict(facts.counted)
    assert counted
    while (job := await worker.take()) is not None and job.message.conversation_id == CONVERSATION:
        await worker.steps.finish(job)
        assert (await redis.facts()).counted == counted


async def test_times_of_the_future_that_it_remembered_become_now(redis: RedisScene) -> None:
    """Else everything that was sent before them is `stale`."""
    talk = await talk_of(redis)
    store = InboundStore(redis.client, AGENT, "supervisor-1")
    await talk.accept(1)
    later = await store.now_ms() + 3_600_000
    redis.client.ask("HSET", redis.keys.conversation(CONVERSATION), "td", later, "t0", 1, "t1", later)
    assert await store.heal_times(CONVERSATION) <= await store.now_ms()
    assert (await store.look(CONVERSATION, PEER, bytes(8))).dropped_ms <= await store.now_ms()
    times = redis.client.ask("HMGET", redis.keys.conversation(CONVERSATION), "t0", "t1")
    assert isinstance(times, list)
    assert times[0] == b"1", "what is past stays as it was"
    assert times[1] != str(later).encode()


async def test_what_is_gone_is_not_listed_among_what_waits(redis: RedisScene) -> None:
    talk = await talk_of(redis)
    await talk.quarantine(1)
    redis.client.ask("DEL", redis.keys.waiting_for)  # as an older version has it
    keys = [redis.keys.waiting_for, redis.keys.write_count]
    names = [f"{CONVERSATION}-1", "gone"]
    things = [part for name in names for part in (name, "person")]
    listed = await redis.client.script("list_waiting", [*keys, *map(redis.keys.quarantined, names)], *things)
    assert listed == 1
    assert redis.client.ask("ZCARD", redis.keys.waiting_for) == 1
    assert redis.client.ask("EXISTS", redis.keys.quarantined("gone")) == 0


async def kept_as_by_a_former_version(redis: RedisScene, *sizes: int, is_signed: bool = True, sender: str = "") -> Talk:
    """Messages 1… of so many bytes, uncounted."""
    talk = await talk_of(redis)
    for seq, size in enumerate(sizes, start=1):
        name = sender or CONVERSATION
        await talk.quarantine(seq, frame=bytes(size), is_signed=is_signed, sender=name, conversation=name)
        redis.client.ask("HDEL", redis.keys.quarantined(f"{name}-{seq}"), "kept", "evidence")
    redis.client.ask("DEL", redis.keys.kept)
    return talk


async def charge(redis: RedisScene, *seqs: int, may_be_read: bool = True, sender: str = CONVERSATION) -> list[int]:
    """How many bytes of each message are kept whole afterwards; what is counted is what they have."""
    quarantine, sizes = quarantine_of(redis), []
    for seq in seqs:
        name = f"{sender}-{seq}"
        was_cut = await quarantine.charge(name, b"evidence", BUDGETS, may_be_read=may_be_read)
        found = await quarantine.find(name)
        assert found is not None
        assert was_cut == (found.frame == b"")
        assert found.evidence == b"evidence"
        sizes.append(len(found.frame))
    return sizes


def counted(redis: RedisScene) -> dict[bytes, bytes]:
    flat = redis.client.ask("HGETALL", redis.keys.kept)
    assert isinstance(flat, list)
    return dict(zip(flat[::2], flat[1::2], strict=True))  # type: ignore[arg-type]


async def test_what_it_kept_whole_is_charged_to_who_signed_it_while_that_is_less_than_a_quarter_of_what_is_free(
    redis: RedisScene,
) -> None:
    await kept_as_by_a_former_version(redis, 600, 600, 600)
    assert await charge(redis, 1, 2, 3) == [600, 600, 0]
    assert counted(redis) == {f"s:{CONVERSATION}".encode(): b"1200", b"total": b"1200"}
    await kept_as_by_a_former_version(redis, 600, sender="another")
    redis.client.ask("HSET", redis.keys.kept, "total", 1200)
    assert await charge(redis, 1, sender="another") == [600]


async def test_what_it_kept_whole_is_charged_as_far_as_there_is_room_in_all(redis: RedisScene) -> None:
    await kept_as_by_a_former_version(redis, 600)
    redis.client.ask("HSET", redis.keys.kept, "total", BUDGETS.quarantine_bytes - 599)
    assert await charge(redis, 1) == [0]


async def test_what_nobody_had_signed_is_charged_to_a_budget_of_its_own(redis: RedisScene) -> None:
    await kept_as_by_a_former_version(redis, 600, 600, 400, is_signed=False)
    assert await charge(redis, 1, 2, 3) == [600, 0, 400]
    assert counted(redis) == {b"unsigned": b"1000", b"total": b"1000"}


async def test_what_can_never_be_read_is_cut_and_nothing_is_charged_twice_or_made_up(redis: RedisScene) -> None:
    talk = await kept_as_by_a_former_version(redis, 600, 600)
    redis.client.ask("HSET", redis.keys.quarantined(f"{CONVERSATION}-1"), "copy", bytes(600))
    assert await charge(redis, 1, may_be_read=False) == [0]
    assert await charge(redis, 2) == [600]
    before = redis.contents()
    quarantine = quarantine_of(redis)
    for name in (f"{CONVERSATION}-1", f"{CONVERSATION}-2", "gone"):
        assert not await quarantine.charge(name, b"other evidence", BUDGETS, may_be_read=False)
    assert redis.contents() == before
    for seq in (1, 2):
        await talk.supervisor.quarantine.drop(f"{CONVERSATION}-{seq}")
    assert counted(redis) == {}
