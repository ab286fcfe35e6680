"""What handlers keep of a conversation is written with a job's end, by whoever has the job; what was said is bounded, and forgotten whole."""

import msgspec
import pytest

from bus.records.journal import READ_ENTRY
from bus.records.kept import DAY_MS, EXCHANGES_KEPT_MS, exchanged_ms, size_of_exchange
from bus.records.records import MOST_DELIVERIES, Job
from bus.steps.job_steps import Emitted, Failed, Finished
from bus.steps.opened import exchange_in
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.thread_steps import Effect, Noted
from tests.bus.builders import CONVERSATION, reply
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, taken, talk_and_worker


class Kept:
    """A worker that answers one message after the other, and leaves something with each."""

    def __init__(self, talk: Talk, worker: Worker, conversation: str = CONVERSATION) -> None:
        self.talk, self.worker, self.conversation = talk, worker, conversation
        self.seq = 0

    async def job(self) -> Job:
        self.seq += 1
        await self.talk.accept(self.seq, conversation=self.conversation)
        job = await self.worker.take()
        assert job is not None
        return job

    async def said(self, body: bytes, *, ago_ms: int = 0) -> Effect:
        now_ms = await self.talk.supervisor.store.now_ms()
        job = await self.job()
        effect = self.worker.steps.exchange_effect(job, now_ms - ago_ms, body)
        assert await self.worker.steps.settle(job, "done", [effect]) is Finished.DONE
        return effect

    async def history(self) -> list[bytes]:
        """As the next job reads it."""
        job = await self.job()
        steps = self.worker.steps
        found = steps.open_exchanges(job, await steps.read_exchanges(job), bytes)
        assert await steps.read_both(job) == (await steps.read_state(job), await steps.read_exchanges(job))
        assert await self.worker.steps.finish(job) is Finished.DONE
        return found


async def test_a_state_is_written_with_the_jobs_end_and_read_in_the_next(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept = Kept(talk, worker)
    job, steps = await kept.job(), worker.steps
    assert await steps.read_state(job) is None
    assert await steps.settle(job, "done", [steps.state_effect(job, b"one")], last=[("0", reply("a"))]) is Finished.DONE
    second = await kept.job()
    assert await steps.read_state(second) == b"one"
    assert await steps.fail(second, "broke", None) is Failed.DEAD
    third = await kept.job()
    assert await steps.read_state(third) == b"one"
    other = Kept(talk, worker, "another")
    assert await steps.read_state(await other.job()) is None


async def test_who_has_lost_the_job_writes_nothing_of_what_it_kept(scene: Scene) -> None:
    talk, old = await talk_and_worker(scene)
    kept = Kept(talk, old)
    lost = await kept.job()
    await talk.reclaim()
    now_ms = await talk.supervisor.store.now_ms()
    effects = [old.steps.state_effect(lost, b"late"), old.steps.exchange_effect(lost, now_ms, b"late")]
    assert await old.steps.settle(lost, "done", effects) is Finished.FENCED
    again = await old.take()
    assert again is not None
    assert await old.steps.read_state(again) is None
    in_time = [old.steps.state_effect(again, b"in time"), old.steps.exchange_effect(again, now_ms, b"in time")]
    assert await old.steps.settle(again, "done", in_time) is Finished.DONE
    assert await kept.history() == [b"in time"]


async def test_nothing_is_kept_where_the_last_replies_have_no_room(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept = Kept(talk, worker)
    talk.supervisor.store.budgets = msgspec.structs.replace(talk.supervisor.store.budgets, out_bytes=0)
    await talk.supervisor.store.publish_bounds()
    job, steps = await kept.job(), worker.steps
    assert await steps.emit(job, "0", reply("first")) is Emitted.QUEUED
    effects = [steps.state_effect(job, b"kept")]
    assert await steps.settle(job, "done", effects, last=[("1", reply("second"))]) is Finished.FULL
    assert await steps.read_state(job) is None
    assert await steps.settle(job, "done", effects) is Finished.DONE


async def test_what_was_said_is_read_in_order_up_to_the_own_thread(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, steps = Kept(talk, worker), worker.steps
    for number in range(3):
        await kept.said(b"%d" % number)
    assert await kept.history() == [b"0", b"1", b"2"]
    waiting = await kept.job()
    now_ms = await talk.supervisor.store.now_ms()
    assert await steps.settle(waiting, "done", [steps.exchange_effect(waiting, now_ms, b"own")]) is Finished.DONE
    await kept.said(b"meanwhile")
    assert steps.open_exchanges(waiting, await steps.read_exchanges(waiting), bytes) == [b"0", b"1", b"2"], (
        "what the thread saw when it began"
    )
    assert await kept.history() == [b"0", b"1", b"2", b"own", b"meanwhile"]
    records = await steps.read_exchanges(waiting)
    newest = steps.newest_exchange(waiting, records)
    later = await kept.job()
    assert steps.open_exchanges(later, records, bytes, until=newest) == [b"0", b"1", b"2"], (
        "as far as an earlier run had read"
    )
    assert steps.open_exchanges(later, [exchange_in(b"damaged"), *records], bytes, until=newest) == [b"0", b"1", b"2"]
    assert steps.open_exchanges(later, records[3:], bytes, until=newest) == [], "what was there before is gone"
    assert (steps.newest_exchange(later, []), steps.open_exchanges(later, records, bytes, until="")) == ("", [])


@pytest.mark.parametrize("way", ["fails", "loses its worker", "is handed back", "is handled together", "fails twice"])
async def test_a_dead_letter_that_comes_back_knows_what_had_been_said_by_then(scene: Scene, way: str) -> None:
    """Whoever has made it one: a worker that writes down nothing (it is dead, or Redis is full) too."""
    together = way == "is handled together"
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce" if together else "queue"))
    kept, steps = Kept(talk, worker), worker.steps
    await kept.said(b"before")
    job = await kept.job()
    if together:
        kept.seq += 1
        await talk.accept(kept.seq)
        assert (await steps.start(job)).together
    if way == "loses its worker":
        [reclaimed] = await talk.reclaim(Reclaim(ends_as="timeout"))
        assert reclaimed.outcome == "dead"
    elif way == "is handed back":
        for _ in range(MOST_DELIVERIES):
            await steps.hand_back(job, has_begun=True)
            job = await worker.take() or job
    else:
        await steps.fail(job, "broke", None)
    for body in (b"since", b"then"):
        await kept.said(body)
        for letter in await talk.supervisor.dead.first() if way == "fails twice" else ():
            assert await talk.supervisor.dead.retry(letter) == "revived"
            again = await taken(worker)
            await steps.fail(again, "broke", None)
    letters = await talk.supervisor.dead.first()
    assert [letter.places for letter in letters] == [""] * (2 if together else 1)
    for letter in letters:
        assert await talk.supervisor.dead.retry(letter) == "revived"
        back = await taken(worker)
        journal = (await steps.start(back)).journal
        if together and letter is letters[1]:  # may be handled together again, and then has nothing of its own
            assert journal == {}
        else:
            read = journal[READ_ENTRY]
            assert read is not None
            records = await steps.read_exchanges(back)
            assert steps.open_exchanges(back, records, bytes, until=read.decode()) == [b"before"]
        assert await steps.finish(back) is Finished.DONE
    assert await scene.leftovers() == []
    assert (await scene.facts()).counted == {}


async def test_a_dead_letter_does_not_know_what_a_later_version_has_written_last(redis_url: str) -> None:
    """Its name may stand elsewhere there: then it sees what stands in the history when it comes back, as far as it can be read."""
    scene = RedisScene(redis_url)
    talk, worker = await talk_and_worker(scene)
    kept = Kept(talk, worker)
    await kept.said(b"before")
    later = msgspec.msgpack.encode([2, "?", "?", "?", b""])
    scene.client.ask("RPUSH", scene.keys.history(CONVERSATION), later)
    await worker.steps.fail(await kept.job(), "broke", None)
    [letter] = await talk.supervisor.dead.first()
    assert await talk.supervisor.dead.retry(letter) == "revived"
    assert (await worker.steps.start(await taken(worker))).journal == {}
    scene.close()


async def test_a_history_that_was_read_is_what_it_has_become_whoever_has_written_there(scene: Scene) -> None:
    """By workers of which each remembers what it has read; one of them comes seldom."""
    talk, seldom = await talk_and_worker(scene)
    kept = Kept(talk, seldom)
    expected = list[bytes]()
    for number in range(30):
        kept.worker = seldom if number % 7 == 0 else await scene.worker(f"worker-{2 + number % 2}")
        assert await kept.history() == expected, f"in turn {number}"
        if number == 20:
            job, steps = await kept.job(), kept.worker.steps
            assert await steps.settle(job, "done", [steps.forget_effect(job)]) is Finished.DONE
            expected.clear()
        for word in [b"%d" % number] * (number % 3):
            await kept.said(word)
            expected.append(word)


async def test_a_hundred_exchanges_are_kept_and_none_of_more_than_thirty_days(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept = Kept(talk, worker)
    await kept.said(b"too old", ago_ms=EXCHANGES_KEPT_MS + DAY_MS)
    await kept.said(b"also too old", ago_ms=EXCHANGES_KEPT_MS + DAY_MS)
    for number in range(101):
        await kept.said(b"%d" % number)
    assert await kept.history() == [b"%d" % number for number in range(1, 101)]


async def test_the_oldest_leave_where_a_conversation_has_more_than_its_bytes(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept = Kept(talk, worker)
    for number in range(6):
        await kept.said(b"%d" % number + bytes(50_000))
    assert [body[:1] for body in await kept.history()] == [b"1", b"2", b"3", b"4", b"5"]
    await kept.said(b"6" + bytes(300_000))
    assert [body[:1] for body in await kept.history()] == [b"5", b"6"], "two stay, whatever they take"


async def test_all_histories_share_what_there_is_and_a_newcomer_has_room(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    talk.supervisor.store.budgets = msgspec.structs.replace(talk.supervisor.store.budgets, history_bytes=80_000)
    await talk.supervisor.store.publish_bounds()
    heavy, late = Kept(talk, worker), Kept(talk, worker, "another")
    for number in range(40):
        await heavy.said(b"%02d" % number + bytes(1000))
    for number in range(4):
        await late.said(b"%02d" % number + bytes(1000))
    share = await heavy.history()
    assert 11 <= len(share) <= 13, "a fifth: about 16,000 bytes"
    assert share[-1][:2] == b"39"
    assert len(await late.history()) == 4


async def test_all_that_is_kept_of_a_conversation_is_forgotten_with_the_jobs_end_and_not_before(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, other, steps = Kept(talk, worker), Kept(talk, worker, "another"), worker.steps
    await other.said(b"of another")
    await kept.said(b"said")
    job = await kept.job()
    assert await steps.settle(job, "waiting", [steps.state_effect(job, b"kept"), ("wait", "w", b"record", "")])
    job = await kept.job()
    assert await steps.read_state(job) == b"kept"
    assert await steps.fail(job, "broke", 0) is Failed.RETRY, "a run that fails forgets nothing"
    assert await talk.start_due() == 1
    again = await worker.take()
    assert again is not None
    assert await steps.read_state(again) == b"kept"
    assert await steps.settle(again, "done", [steps.forget_effect(again)], last=[("0", reply("gone"))]) is Finished.DONE
    assert await kept.history() == []
    after = await kept.job()
    assert await steps.read_state(after) is None
    assert await steps.finish(after) is Finished.DONE
    await talk.send("c0", 2)
    assert await scene.leftovers() == [], "no wait is open any more"
    assert await other.history() == [b"of another"]


async def test_what_is_counted_of_all_histories_is_what_stands_there(redis_url: str) -> None:
    scene = RedisScene(redis_url)
    talk, worker = await talk_and_worker(scene)
    kept, keys = Kept(talk, worker), scene.keys
    for ago_ms in (*[EXCHANGES_KEPT_MS + DAY_MS] * 4, 0):
        await kept.said(b"said", ago_ms=ago_ms)
    assert number_of(scene, "LLEN", keys.history(CONVERSATION)) == 2, "what is too old leaves with the next"
    for number in range(103):
        await kept.said(bytes(number))
    assert counted(scene) == [bytes_of_history(scene)]
    assert 0 < number_of(scene, "PTTL", keys.history(CONVERSATION)) <= EXCHANGES_KEPT_MS
    # It expires as a whole: its bytes leave with their day, and a new one begins with nothing.
    scene.client.ask("DEL", keys.history(CONVERSATION), keys.histories)
    scene.client.ask("HSET", keys.histories, await talk.supervisor.store.now_ms() // DAY_MS - 40, 20_000)
    await kept.said(b"new")
    assert counted(scene) == [bytes_of_history(scene)]
    job = await kept.job()
    await worker.steps.settle(job, "done", [worker.steps.forget_effect(job)])
    assert counted(scene) == []
    assert scene.client.ask("HEXISTS", keys.conversation(CONVERSATION), "history") == 0
    scene.close()


async def test_a_conversation_says_when_its_oldest_exchange_ended_whatever_a_former_version_left(
    redis_url: str,
) -> None:
    scene = RedisScene(redis_url)
    talk, worker = await talk_and_worker(scene)
    kept, keys = Kept(talk, worker), scene.keys
    conversation, history = keys.conversation(CONVERSATION), keys.history(CONVERSATION)

    def is_right() -> bool:
        oldest = scene.client.ask("LINDEX", history, 0)
        assert isinstance(oldest, bytes)
        return number_of(scene, "HGET", conversation, "history_from") == exchanged_ms(oldest)

    for number in range(102):
        await kept.said(b"%d" % number)
        assert is_right(), number
    for left in ("0", None):  # it had taken the oldest away, or has begun the history
        scene.client.ask("LPOP", history)
        scene.client.ask("HDEL", conversation, "history_from")
        if left is not None:
            scene.client.ask("HSET", conversation, "history_from", left)
        before = number_of(scene, "LLEN", history)
        await kept.said(b"later")
        assert is_right()
        assert number_of(scene, "LLEN", history) == before + 1, "nothing has left with it"
    scene.client.ask("DEL", history, keys.histories)
    await kept.said(b"new", ago_ms=DAY_MS)
    assert is_right()
    job = await kept.job()
    await worker.steps.settle(job, "done", [worker.steps.forget_effect(job)])
    assert scene.client.ask("HEXISTS", conversation, "history_from") == 0
    scene.close()


def counted(scene: RedisScene) -> list[int]:
    """Bytes of each day, after it was seen that the conversation has counted the same."""
    days = scene.contents().get(scene.keys.histories.encode(), {})
    assert isinstance(days, dict)
    found = [int(size) for day, size in days.items() if day != b"most"]
    assert sum(found) == number_of(scene, "HGET", scene.keys.conversation(CONVERSATION), "history")
    return found


def bytes_of_history(scene: RedisScene) -> int:
    records = scene.contents()[scene.keys.history(CONVERSATION).encode()]
    assert isinstance(records, list)
    return sum(map(size_of_exchange, records))


def number_of(scene: RedisScene, *command: str) -> int:
    answer = scene.client.ask(*command) or 0
    assert isinstance(answer, int | bytes)
    return int(answer)


@pytest.mark.parametrize("end", ["finish", "settle"])
async def test_a_run_that_has_changed_nothing_leaves_what_is_kept_as_it_is(scene: Scene, end: str) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, steps = Kept(talk, worker), worker.steps
    job = await kept.job()
    await steps.settle(job, "done", [steps.state_effect(job, b"one")])
    job = await kept.job()
    assert await (steps.finish(job) if end == "finish" else steps.settle(job, "done", [])) is Finished.DONE
    assert await steps.read_state(await kept.job()) == b"one"


async def test_a_value_of_the_store_is_written_where_it_is_still_what_was_read_and_all_or_none(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    ann, ben, steps = Kept(talk, worker), Kept(talk, worker, "another"), worker.steps
    first, second = await ann.job(), await ben.job()
    version, body = await steps.read_stored("bread")
    assert (version, body) == (b"", None)
    one = [steps.store_effect("bread", version, b"1")]
    assert await steps.settle(first, "done", one) is Finished.DONE
    late = [steps.store_effect("other", None, b"x"), steps.store_effect("bread", version, b"2")]
    assert await steps.settle(second, "done", late) is Finished.CHANGED
    assert await steps.read_stored("other") == (b"", None)
    version, body = await steps.read_stored("bread")
    assert body == b"1"
    again = [steps.store_effect("other", None, b"x"), steps.store_effect("bread", version, b"2")]
    assert await steps.settle(second, "done", again) is Finished.DONE
    third = await ann.job()
    away = [
        steps.store_effect("bread", None, None),
        steps.store_effect("other", (await steps.read_stored("other"))[0], None),
    ]
    assert await steps.settle(third, "done", away) is Finished.DONE
    assert [await steps.read_stored(key) for key in ("bread", "other")] == [(b"", None)] * 2


async def test_a_change_of_the_store_is_written_with_its_entry_once_or_neither_is(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    ann, ben, steps = Kept(talk, worker), Kept(talk, worker, "another"), worker.steps
    first, second = await ann.job(), await ben.job()

    async def change(job: Job, entry: bytes, version: bytes, body: bytes | None) -> Noted:
        return await steps.note(job, "one", entry, only_new=True, change=steps.store_effect("bread", version, body))

    entry = steps.seal_entry(first, "one", b"1")
    effect = steps.store_effect("bread", b"", b"1")
    for _ in range(2):  # the first answer was lost
        assert await steps.note(first, "one", entry, only_new=True, change=effect) is Noted.NOTED
    version, body = await steps.read_stored("bread")
    assert body == b"1"
    other = steps.seal_entry(second, "one", b"2")
    assert await change(second, other, b"", b"2") is Noted.CHANGED
    assert (await steps.read_stored("bread")) == (version, b"1")
    assert await change(second, other, version, b"2") is Noted.NOTED, "nothing was noted before"
    version, body = await steps.read_stored("bread")
    assert body == b"2"
    assert await change(first, steps.seal_entry(first, "one", b"3"), version, b"3") is Noted.ALREADY
    assert await steps.note(first, "big", b"", most=0, change=steps.store_effect("bread", None, b"4")) is Noted.FULL
    assert (await steps.read_stored("bread")) == (version, b"2")
    away = steps.store_effect("bread", version, None)
    assert await steps.note(first, "two", steps.seal_entry(first, "two", b""), change=away) is Noted.NOTED
    assert await steps.read_stored("bread") == (b"", None)
    assert await steps.fail(first, "broke", 0) is Failed.RETRY
    await talk.supervisor.recovery.start_due(await talk.supervisor.store.now_ms())
    again = await worker.take()
    assert again is not None
    assert (await steps.start(again)).journal == {"one": b"1", "two": b""}
    assert await change(first, entry, b"", b"5") is Noted.FENCED


async def test_a_change_that_has_no_room_in_the_store_notes_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, steps = Kept(talk, worker), worker.steps
    job = await kept.job()
    many = [steps.store_effect(f"key {number}", None, bytes(65_000)) for number in range(64)]
    assert await steps.settle(job, "done", many) is Finished.DONE
    job = await kept.job()
    entry, more = steps.seal_entry(job, "one", b"1"), steps.store_effect("more", b"", bytes(65_000))
    assert await steps.note(job, "one", entry, only_new=True, change=more) is Noted.STORE_FULL
    small = steps.store_effect("more", b"", b"1")
    assert await steps.note(job, "one", entry, only_new=True, change=small) is Noted.NOTED


async def test_a_store_has_a_bound_in_bytes_and_what_goes_makes_room(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, steps = Kept(talk, worker), worker.steps
    job = await kept.job()
    many = [steps.store_effect(f"key {number}", None, bytes(65_000)) for number in range(65)]
    assert await steps.settle(job, "done", many) is Finished.STORE_FULL
    assert await steps.settle(job, "done", many[:64]) is Finished.DONE
    job = await kept.job()
    assert await steps.settle(job, "done", [steps.store_effect("more", None, bytes(65_000))]) is Finished.STORE_FULL
    swapped = [steps.store_effect("key 1", None, None), steps.store_effect("more", None, bytes(60_000))]
    assert await steps.settle(job, "done", swapped) is Finished.DONE


async def test_a_store_has_a_bound_in_keys(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    kept, steps = Kept(talk, worker), worker.steps
    many = [steps.store_effect(f"{number}", None, b"") for number in range(10_001)]
    for at in range(0, 10_000, 500):
        job = await kept.job()
        assert await steps.settle(job, "done", many[at : at + 500]) is Finished.DONE
    job = await kept.job()
    assert await steps.settle(job, "done", many[10_000:]) is Finished.STORE_FULL
    assert await steps.settle(job, "done", many[9_999:10_000]) is Finished.DONE
