"""What a thread has noted is there in each later run of it and in no other thread's; what its end leaves is written once, or not at all."""

from collections.abc import Iterator

import msgspec
import pytest

from bus.records import records
from bus.records.journal import MOST_JOURNAL_BYTES, READ_ENTRY
from bus.records.kept import WAIT, pack_kept
from bus.records.records import SCHEMA_VERSION, Job, NewerRecord, decode_reply_record
from bus.records.timers import Timer
from bus.steps.job_steps import APOLOGY_PLACE, Emitted, Failed, Finished
from bus.steps.policies import Policies
from bus.steps.recovery import Reclaim
from bus.steps.store import Intake, Source
from bus.steps.thread_steps import LETTERS_PAGE, Bound, Effect, Noted
from bus.steps.write_count import Found
from bus.transport.wire import RedisFull
from tests.bus.builders import (
    AGENT,
    BUS_KEY,
    CARD_ANSWERED,
    COMMAND_SAID,
    CONVERSATION,
    PEER,
    reply,
)
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Scene, Worker
from tests.bus.talk import Talk, taken, talk_and_worker

WAYS = ("fails", "is handed back", "loses its worker", "is a dead letter", "is a dead letter twice")


@pytest.fixture
def redis(redis_url: str) -> Iterator[RedisScene]:
    made = RedisScene(redis_url)
    yield made
    set_full(made, is_full=False)
    made.close()


def set_full(redis: RedisScene, *, is_full: bool) -> None:
    redis.client.ask("CONFIG", "SET", "maxmemory", int(is_full))


async def note(worker: Worker, job: Job, name: str, value: bytes, *, room: int = 0, only_new: bool = False) -> Noted:
    entry = worker.steps.seal_entry(job, name, value)
    return await worker.steps.note(job, name, entry, room=room, only_new=only_new)


async def runs_again(talk: Talk, worker: Worker, job: Job, way: str) -> Job:
    """The same job in its next run, after this one has ended so."""
    match way:
        case "fails":
            assert await worker.steps.fail(job, "broke", 0) is Failed.RETRY
            assert await talk.start_due() == 1
        case "is handed back":
            await worker.steps.hand_back(job, has_begun=True)
        case "loses its worker":
            await talk.reclaim(Reclaim())
        case _:
            for _ in range(2 if way.endswith("twice") else 1):
                await worker.steps.fail(job, "broke", None)
                [letter] = await talk.supervisor.dead.first()
                assert await talk.supervisor.dead.retry(letter) == "revived"
                job = await taken(worker)
            return job
    return await taken(worker)


def wait_of(job: Job, wait_id: str = "wait") -> bytes:
    return pack_kept(b"what it needs", WAIT, job.conversation_id, wait_id, key=BUS_KEY, agent_id=AGENT)


def waits(job: Job, wait_id: str = "wait") -> Effect:
    return ("wait", wait_id, wait_of(job, wait_id), "")


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_thread_has_noted_is_there_in_its_next_run_however_that_came(scene: Scene, way: str) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    assert await note(worker, job, "start#1", b"a ticket") is Noted.NOTED
    assert await note(worker, job, "empty#1", b"") is Noted.NOTED
    await worker.steps.emit(job, "0", reply("once"))
    again = await runs_again(talk, worker, job, way)
    assert not again.is_first_run
    started = await worker.steps.start(again)
    read = {READ_ENTRY: b""} if "dead letter" in way else {}  # up to where the history went by then
    assert (started.places, started.journal) == (frozenset({"0"}), {"start#1": b"a ticket", "empty#1": b""} | read)
    assert await worker.steps.finish(again) is Finished.DONE
    await talk.send("c0", 2)
    assert await scene.leftovers() == []
    facts = await scene.facts()
    assert facts.counted == facts.waits == {}


async def test_a_dead_letter_that_has_noted_and_said_nothing_keeps_its_journal(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    await note(worker, job, "start#1", b"a ticket")
    await worker.steps.fail(job, "broke", None)
    [letter] = await talk.supervisor.dead.first()
    assert letter.places == ""
    await talk.supervisor.dead.retry(letter)
    started = await worker.steps.start(await taken(worker))
    assert started.journal == {"start#1": b"a ticket", READ_ENTRY: b""}


async def test_a_dead_letter_that_came_back_and_ends_at_once_leaves_nothing_counted(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    await note(worker, job, "start#1", b"a ticket")
    again = await runs_again(talk, worker, job, "is a dead letter")
    await talk.accept(2)
    assert await worker.steps.finish(again) is Finished.DONE
    facts = await scene.facts()
    assert facts.counted == facts.waits == {}


@pytest.mark.parametrize("end", ["finished", "dead", "superseded", "superseded while it waits for its next run"])
async def test_rule_1_of_threads_no_thread_gets_what_another_has_noted(scene: Scene, end: str) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    job = await taken(worker)
    await note(worker, job, "start#1", b"of the first")
    if "next run" in end:
        await worker.steps.fail(job, "broke", 60_000)
    await talk.accept(2)
    if end == "finished":
        await worker.steps.settle(job, "done", [])
    elif end == "dead":
        await worker.steps.fail(job, "broke", None)
    elif end == "superseded":
        assert await worker.steps.fail(job, "broke", 0) is Failed.SUPERSEDED
    second = await taken(worker)
    assert second.job_id != job.job_id
    started = await worker.steps.start(second)
    assert (started.places, started.journal) == (frozenset(), {})
    assert await note(worker, second, "start#1", b"of the second", only_new=True) is Noted.NOTED
    facts = await scene.facts()
    assert facts.counted == facts.waits


async def test_a_note_is_refused_to_whoever_has_lost_the_job(scene: Scene) -> None:
    talk, old = await talk_and_worker(scene)
    await talk.accept(1)
    lost = await taken(old)
    await talk.reclaim()
    before = await scene.facts()
    assert await note(old, lost, "start#1", b"late") is Noted.FENCED
    assert await old.steps.settle(lost, "done", [waits(lost)], last=[("0", reply("late"))]) is Finished.FENCED
    assert await scene.facts() == before
    again = await taken(old)
    assert (await old.steps.start(again)).journal == {}


async def test_a_note_that_is_repeated_is_the_same_and_another_one_of_its_name_is_told(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    begun = worker.steps.seal_entry(job, "pay#1", b"begun")
    for _ in range(2):
        assert await worker.steps.note(job, "pay#1", begun, only_new=True) is Noted.NOTED
    assert await note(worker, job, "pay#1", b"begun", only_new=True) is Noted.ALREADY
    assert await note(worker, job, "pay#1", b"done") is Noted.NOTED
    again = await runs_again(talk, worker, job, "loses its worker")
    assert (await worker.steps.start(again)).journal == {"pay#1": b"done"}


async def test_rule_15_of_threads_a_journal_takes_no_more_than_its_bound_and_counts_what_stands_in_it(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    large = bytes(MOST_JOURNAL_BYTES // 4)
    for number in range(3):
        assert await note(worker, job, f"page#{number}", large) is Noted.NOTED
    facts = await scene.facts()
    assert facts.counted == facts.waits
    assert 3 * len(large) < facts.counted["journal"] < MOST_JOURNAL_BYTES
    assert await note(worker, job, "page#3", large) is Noted.FULL
    assert await note(worker, job, "small#1", b"", room=len(large)) is Noted.FULL
    assert await scene.facts() == facts, "nothing was written"
    assert await note(worker, job, "page#2", b"") is Noted.NOTED
    assert await note(worker, job, "small#1", b"", room=len(large)) is Noted.NOTED
    again = await runs_again(talk, worker, job, "is a dead letter")
    assert (await scene.facts()).counted == {}
    await worker.steps.start(again)
    facts = await scene.facts()
    assert facts.counted == facts.waits
    assert facts.counted["journal"] > 2 * len(large)


async def test_rule_15_of_threads_the_result_of_what_has_begun_finds_room_in_a_full_redis(
    redis: RedisScene,
) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    job = await taken(worker)
    assert await note(worker, job, "once", b"begun", only_new=True) is Noted.NOTED
    set_full(redis, is_full=True)
    with pytest.raises(RedisFull):
        await note(worker, job, "step", b"done")
    assert await note(worker, job, "once", b"done") is Noted.NOTED
    assert await worker.steps.fail(job, "redis_full", 0, takes="nothing") is Failed.RETRY
    set_full(redis, is_full=False)
    await talk.start_due()
    again = await taken(worker)
    assert (again.attempt, again.deliveries) == (1, 2), "nothing has failed"
    assert (await worker.steps.start(again)).journal == {"once": b"done"}


async def test_what_may_be_done_once_does_not_begin_where_redis_went_back_since_its_message_came(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)

    async def begins(name: str, epoch: int | None) -> Noted:
        one = msgspec.structs.replace(job, epoch=epoch)
        return await worker.steps.note(one, name, worker.steps.seal_entry(one, name, b"begun"), in_epoch=True)

    assert [await begins("a", 0), await begins("b", None)] == [Noted.NOTED, Noted.NOTED]
    assert await talk.supervisor.check(certainly_back=True) is Found.OLDER
    assert [await begins("c", 0), await begins("d", 1), await begins("e", None)] == [
        Noted.RAISED,
        Noted.NOTED,
        Noted.NOTED,
    ], "of a message that a former version took in it is not known"
    assert await note(worker, job, "f", b"done") is Noted.NOTED
    assert sorted((await worker.steps.start(job)).journal) == ["a", "b", "d", "e", "f"]


async def test_the_journal_of_a_large_message_is_counted_beside_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1, characters=8000)
    await talk.accept(2)
    job = await taken(worker)
    for value in (b"one", b"another", b""):
        await note(worker, job, "start#1", value)
        facts = await scene.facts()
        assert facts.counted == facts.waits
    await worker.steps.finish(job)
    facts = await scene.facts()
    assert facts.counted == facts.waits == {}


async def test_a_job_that_settles_says_each_place_once_and_starts_the_next(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
    job = await taken(worker)
    await worker.steps.emit(job, "0", reply("0"))
    said = [("0", reply("0")), ("1", reply("1"))]
    assert await worker.steps.settle(job, "done", [], last=said) is Finished.DONE
    assert await worker.steps.settle(job, "done", [], last=said) is Finished.FENCED
    assert [await talk.send("c0", 3), await talk.send("c1", 4)] == ["0", "1"]
    second = await taken(worker)
    assert second.job_id == f"{CONVERSATION}-2"
    assert await worker.steps.settle(second, "done", []) is Finished.DONE
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []


async def test_the_last_words_of_a_dead_letter_that_came_back_are_not_repeated_when_it_settles(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = await taken(worker)
    await worker.steps.emit(job, "0", reply("once"))
    await note(worker, job, "start#1", b"a ticket")
    again = await runs_again(talk, worker, job, "is a dead letter")
    assert await worker.steps.settle(again, "done", [], last=[("0", reply("twice"))]) is Finished.DONE
    await talk.send("c0", 2)
    assert await talk.supervisor.take_reply() is None
    assert await scene.leftovers() == []
    assert (await scene.facts()).counted == {}


async def test_while_a_thread_waits_the_jobs_of_its_conversation_say_so_and_others_do_not(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
    job = await taken(worker)
    await worker.steps.settle(job, "waiting", [waits(job, "one"), waits(job, "two")])
    waiting = await taken(worker)
    assert waiting.has_past, "it was in the mailbox when the wait was stored"
    await worker.steps.settle(waiting, "done", [("drop_wait", "one", "", ""), ("drop_wait", "one", "", "")])
    await talk.accept(3)
    answer = await taken(worker)
    assert answer.has_past
    assert (
        await worker.steps.settle(answer, "done", [("drop_wait", "two", "", ""), ("drop_wait", "two", "", "")])
        is Finished.DONE
    )
    await talk.accept(4)
    later = await taken(worker)
    assert later.is_first_run
    await worker.steps.finish(later)
    assert await scene.leftovers() == []


async def test_a_wait_that_is_stored_again_is_counted_once(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
    await worker.steps.settle(job := await taken(worker), "waiting", [waits(job), waits(job)])
    await worker.steps.settle(await taken(worker), "done", [("drop_wait", "wait", "", "")])
    await talk.accept(3)
    assert (await taken(worker)).is_first_run


async def test_rule_15_of_threads_all_waits_of_an_agent_have_a_bound_together_and_what_goes_makes_room(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    large: Effect = ("wait", "large", bytes(33 << 20), "")
    for seq in (1, 2, 3, 4):
        await talk.accept(seq)
        await talk.accept(seq, conversation="another")
    jobs = {job.conversation_id: job for job in [await taken(worker), await taken(worker)]}
    first, other = jobs[CONVERSATION], jobs["another"]
    assert await worker.steps.settle(first, "waiting", [large]) is Finished.DONE
    was = (await worker.steps.waits_there()).bytes
    assert was > 33 << 20
    state = worker.steps.state_effect(other, b"state")
    assert await worker.steps.settle(other, "waiting", [state, large]) is Finished.WAITS_FULL
    assert (await worker.steps.read_state(other), await worker.steps.open_waits(other)) == (None, [])
    assert (await worker.steps.waits_there()).bytes == was
    again = await taken(worker)
    gone: Effect = ("drop_wait", "large", "", "")
    next_one: Effect = ("wait", "next", bytes(33 << 20), "")
    assert await worker.steps.settle(again, "waiting", [large]) is Finished.DONE, "the same again takes no more"
    assert (await worker.steps.waits_there()).bytes == was
    again = await taken(worker)
    assert await worker.steps.settle(again, "waiting", [next_one]) is Finished.WAITS_FULL
    assert await worker.steps.settle(again, "waiting", [gone, next_one]) is Finished.DONE
    assert (await scene.facts()).counted["waits_open"] == 1
    last = await taken(worker)
    assert await worker.steps.settle(last, "done", [("forget", "", "", "")]) is Finished.DONE
    assert (await worker.steps.waits_there()).bytes == 0
    assert await worker.steps.settle(other, "waiting", [state, large]) is Finished.DONE
    facts = await scene.facts()
    assert facts.counted == facts.waits


async def test_rule_2_of_threads_a_wait_is_answered_by_the_first_job_that_begins_to(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2, 3):
        await talk.accept(seq)
    await worker.steps.settle(job := await taken(worker), "waiting", [waits(job)])
    first = await taken(worker)
    [wait] = await worker.steps.open_waits(first)
    assert (wait.id, wait.body, wait.from_seq, wait.bound_to) == ("wait", b"what it needs", 4, "")
    assert [await worker.steps.bind_wait(first, one) for one in ("wait", "another", "wait")] == [
        Bound.BOUND,
        Bound.GONE,
        Bound.BOUND,
    ]
    again = await runs_again(talk, worker, first, "is a dead letter")  # behind the other message
    assert again.job_id == f"{CONVERSATION}-3"
    assert await worker.steps.bind_wait(first, "wait") is Bound.FENCED
    assert await worker.steps.bind_wait(again, "wait") is Bound.TAKEN
    [wait] = await worker.steps.open_waits(again)
    assert wait.bound_to == first.job_id
    await worker.steps.finish(again)
    revived = await taken(worker)
    assert (revived.job_id, revived.has_past) == (first.job_id, True)
    assert await worker.steps.bind_wait(revived, "wait") is Bound.BOUND
    await worker.steps.settle(revived, "done", [("drop_wait", "wait", "", "")])
    assert await scene.leftovers() == []


async def test_rule_2_of_threads_a_dead_letter_that_is_dropped_takes_the_question_with_it_that_it_was_to_answer(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    timers, dead = talk.supervisor.timers, talk.supervisor.dead
    await talk.accept(1)
    asking = await taken(worker)
    effects = list[Effect]()
    for wait_id in ("first", "second"):
        timer = Timer(id=wait_id, conversation_id=CONVERSATION, due_ms=1 << 50, kind="deadline", name=wait_id)
        effects += [waits(asking, wait_id), ("timer", wait_id, timer.due_ms, worker.steps.seal_timer(timer))]
    await worker.steps.settle(asking, "waiting", effects)
    for seq, wait_id in ((2, "first"), (3, "second")):
        await talk.accept(seq)
        answer = await taken(worker)
        assert await worker.steps.bind_wait(answer, wait_id) is Bound.BOUND
        assert await worker.steps.fail(answer, "broke", None) is Failed.DEAD
    letter, _other = await dead.first()
    light = letter.light()
    assert len(light.record) < len(letter.record), "what it is about is known without what was said"
    assert [await dead.drop(light), await dead.drop(light)] == [True, False]
    await talk.accept(4)
    assert [wait.id for wait in await worker.steps.open_waits(await taken(worker))] == ["second"]
    assert await timers.count(CONVERSATION) == 1
    facts = await scene.facts()
    assert facts.counted == facts.waits
    assert facts.counted["waits_open"] == 1


async def test_rule_2_of_threads_an_answer_may_come_back_while_it_is_a_dead_letter_or_waits_to_run_again(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    steps = worker.steps
    for seq in range(1, 1 + LETTERS_PAGE):
        await talk.accept(seq, conversation="another")
        assert await steps.fail(await taken(worker), "broke", None) is Failed.DEAD
    await talk.accept(1)
    assert await steps.settle(job := await taken(worker), "waiting", [waits(job, "w")]) is Finished.DONE
    await talk.accept(2)
    answer = await taken(worker)
    assert await steps.bind_wait(answer, "w") is Bound.BOUND
    assert await steps.fail(answer, "broke", None) is Failed.DEAD
    await talk.accept(3)
    other = await taken(worker)
    assert await steps.may_come_back(other, answer.job_id), "behind many letters"
    assert not await steps.may_come_back(other, "nobody")
    [letter] = [one for one in await talk.supervisor.dead.first() if one.job_id == answer.job_id]
    assert await talk.supervisor.dead.retry(letter) == "revived"
    assert await steps.may_come_back(other, answer.job_id)
    assert await steps.bind_wait(other, "w", instead_of="nobody") is Bound.TAKEN
    assert await steps.finish(other) is Finished.DONE
    again = await taken(worker)
    assert (again.job_id, await steps.fail(again, "broke", None)) == (answer.job_id, Failed.DEAD)
    await scene.lose_dead_letters()
    await talk.accept(4)
    other = await taken(worker)
    assert not await steps.may_come_back(other, answer.job_id)
    assert await steps.bind_wait(other, "w", instead_of=answer.job_id) is Bound.BOUND
    assert await steps.bind_wait(other, "w") is Bound.BOUND


async def test_rule_2_of_threads_a_dead_letter_of_a_later_version_may_be_the_answer_and_a_reply_is_none(
    redis: RedisScene,
) -> None:
    talk, worker = await talk_and_worker(redis)
    await talk.accept(1)
    job = await taken(worker)
    client, dead = redis.client, redis.keys.dead
    client.ask("XADD", dead, "*", "r", msgspec.msgpack.encode([1, "a reply", CONVERSATION]))
    assert not await worker.steps.may_come_back(job, "answer")
    client.ask("XADD", dead, "*", "r", msgspec.msgpack.encode([9, "of another form"]))
    assert await worker.steps.may_come_back(job, "answer")


async def test_rule_3_of_threads_no_message_interrupts_a_job_that_answers(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    await worker.steps.settle(job := await taken(worker), "waiting", [waits(job)])
    await talk.accept(2)
    answer = await taken(worker)
    await talk.accept(3)
    assert await worker.renew(answer.entry_id) == ([], [answer.entry_id])
    assert await worker.steps.bind_wait(answer, "wait") is Bound.BOUND
    assert await worker.renew(answer.entry_id) == ([], [])
    await talk.accept(4)
    assert await worker.renew(answer.entry_id) == ([], [])
    assert (await worker.steps.start(answer)).outcome == "started"
    assert await worker.steps.fail(answer, "broke", 0) is Failed.RETRY
    await talk.accept(5)
    assert await talk.start_due() == 1
    again = await taken(worker)
    assert again.job_id == answer.job_id
    assert await worker.steps.bind_wait(again, "wait") is Bound.BOUND
    await worker.steps.settle(again, "done", [("drop_wait", "wait", "", "")])
    latest = await taken(worker)
    assert await worker.renew(latest.entry_id) == ([], [latest.entry_id]), "the rest interrupts as ever"


async def test_rule_3_of_threads_a_job_that_goes_on_has_no_company(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    await talk.accept(1)
    await worker.steps.settle(job := await taken(worker), "waiting", [waits(job)])
    for seq in (2, 3):
        await talk.accept(seq)
    answer = msgspec.structs.replace(await taken(worker), continues=job.job_id)
    assert (await worker.steps.start(answer)).together == ()


async def test_rule_3_of_threads_commands_and_answers_are_nobodys_company_and_have_none(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    said = [None, None, COMMAND_SAID, None, None, CARD_ANSWERED, CARD_ANSWERED, None, None]
    await talk.accept(1)
    first = await taken(worker)
    for seq, payload in enumerate(said, start=2):
        await talk.accept(seq, payload=payload)
    await worker.steps.finish(first)
    handled = list[list[int]]()
    while (job := await worker.take()) is not None:
        started = await worker.steps.start(job)
        assert (await worker.steps.start(job)).together == started.together
        handled.append([int(one.message_id.split("-")[1]) for one in (job.message, *started.together)])
        await worker.steps.finish(job)
    assert handled == [[2, 3], [4], [5, 6], [7], [8], [9, 10]]
    assert await scene.leftovers() == []


async def test_rule_3_of_threads_what_somebody_says_who_is_asked_is_nobodys_company(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="coalesce"))
    await talk.accept(1, sender="ben")
    first = await taken(worker)
    for seq, sender in enumerate(("ben", "cleo", PEER[0], "ben"), start=2):
        await talk.accept(seq, sender=sender)
    await worker.steps.settle(first, "waiting", [waits(first)])
    second = await taken(worker)
    assert [one.sender_id for one in (await worker.steps.start(second, asked=PEER[:1])).together] == ["cleo"]
    await worker.steps.finish(second)
    alone = await taken(worker)
    assert (alone.message.sender_id, (await worker.steps.start(alone, is_alone=True)).together) == (PEER[0], ())
    await worker.steps.settle(alone, "done", [("drop_wait", "wait", "", "")])
    assert (await worker.steps.start(await taken(worker))).outcome == "started"


async def test_rule_3_of_threads_an_answer_to_a_card_neither_interrupts_nor_is_interrupted(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(busy="interrupt"))
    await talk.accept(1)
    asks = await taken(worker)
    await talk.accept(2, payload=CARD_ANSWERED)  # the card is shown before its question is stored
    assert await worker.renew(asks.entry_id) == ([], [])
    await worker.steps.fail(asks, "broke", 0)
    await talk.accept(3, payload=CARD_ANSWERED)
    assert await talk.start_due() == 1
    asks = await taken(worker)
    await worker.steps.finish(asks)
    first = await taken(worker)
    assert await worker.renew(first.entry_id) == ([], []), "another answer waits"
    await talk.accept(4, payload=COMMAND_SAID)
    assert await worker.renew(first.entry_id) == ([], [])
    await worker.steps.fail(first, "broke", 0)
    await talk.accept(5)
    assert await talk.start_due() == 1
    first = await taken(worker)
    assert first.job_id == f"{CONVERSATION}-2"
    assert (await worker.steps.start(first)).outcome == "started"
    await worker.steps.finish(first)
    second = await taken(worker)
    assert await worker.renew(second.entry_id) == ([], []), "messages wait"
    await worker.steps.finish(second)
    command = await taken(worker)
    assert await worker.renew(command.entry_id) == ([], [command.entry_id]), "a command is as any message there"
    await worker.steps.finish(command, "superseded")
    last = await taken(worker)
    await talk.accept(6, payload=CARD_ANSWERED)
    assert await worker.renew(last.entry_id) == ([], [])
    await talk.accept(7)
    await talk.accept(8, payload=CARD_ANSWERED)
    await worker.steps.finish(last, "superseded")
    await worker.steps.finish(await taken(worker))
    message = await taken(worker)
    assert await worker.renew(message.entry_id) == ([], []), "an answer waits behind it"


async def test_rule_4_of_threads_an_answer_finds_room_in_a_full_mailbox_once_for_each_question(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene, Policies(full="refuse", most_waiting=2))
    await talk.accept(1)
    await worker.steps.settle(job := await taken(worker), "waiting", [waits(job, "first"), waits(job, "second")])
    for seq in (2, 3, 4):
        await talk.accept(seq)
    assert await talk.accept(5) is Intake.FULL
    assert await talk.accept(5, question="unknown") is Intake.FULL
    assert await talk.accept(5, question="first") is Intake.ACCEPTED
    assert await talk.accept(5, question="first") is Intake.DUPLICATE
    assert await talk.accept(6, question="first") is Intake.FULL
    assert await talk.accept(6, question="second") is Intake.ACCEPTED
    for _ in range(5):
        await worker.steps.finish(await taken(worker))
    await talk.accept(7)
    last = await taken(worker)
    await worker.steps.settle(last, "waiting", [("drop_wait", "first", "", ""), waits(last, "first")])
    for seq in (8, 9, 10):
        await talk.accept(seq)
    assert await talk.accept(11) is Intake.FULL
    assert await talk.accept(11, question="first") is Intake.ACCEPTED, "it is another one of this name"
    await worker.steps.settle(job := await taken(worker), "done", [("forget", "", "", "")])
    for _ in range(3):
        await worker.steps.finish(await taken(worker))
    assert await scene.leftovers() == []


async def test_rule_4_of_threads_an_answer_needs_no_share_of_what_waits_and_takes_no_more_than_there_is(
    scene: Scene,
) -> None:
    talk, worker = await talk_and_worker(scene)
    store = talk.supervisor.store
    store.budgets = msgspec.structs.replace(store.budgets, waiting_bytes=100_000)
    await talk.accept(1)
    job = await taken(worker)
    await worker.steps.settle(job, "waiting", [waits(job, f"wait {number}") for number in range(9)])
    for seq in (2, 3):
        assert await talk.accept(seq, characters=15_000) is Intake.ACCEPTED
    assert await talk.accept(4, characters=25_000) is Intake.HELD
    assert await talk.accept(4, characters=80_000, question="wait 0") is Intake.HELD, "there is no room at all"
    assert await talk.accept(4, characters=25_000, question="wait 0") is Intake.ACCEPTED
    assert await talk.accept(5, question="wait 0") is Intake.HELD
    assert await talk.accept(5, source=Source.HELD, question="wait 1") is Intake.ACCEPTED


async def test_a_conversation_that_is_forgotten_has_no_wait_and_says_so_to_nobody(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2, 3):
        await talk.accept(seq)
    job = await taken(worker)
    await worker.steps.settle(job, "waiting", [waits(job, f"wait-{number}") for number in range(8)])
    await worker.steps.emit(dead := await taken(worker), "0", reply("0"))
    await worker.steps.fail(dead, "broke", None)
    third = await taken(worker)
    await worker.steps.bind_wait(third, "wait-1")
    [letter] = await talk.supervisor.dead.first()
    await talk.supervisor.dead.retry(letter)
    await worker.steps.settle(third, "done", [("forget", "", "", "")])
    revived = await taken(worker)
    assert (revived.job_id, revived.has_past) == (dead.job_id, True), "what a dead letter had said is not forgotten so"
    await worker.steps.settle(revived, "done", [], last=[("0", reply("twice"))])
    await talk.send("c0", 4)
    assert await scene.leftovers() == []
    await talk.accept(5)
    assert (await taken(worker)).is_first_run


async def test_a_thread_that_goes_on_in_a_later_job_answers_in_the_name_of_its_first(scene: Scene) -> None:

    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    job = msgspec.structs.replace(await taken(worker), continues="of before")
    assert job.thread_id == "of before"
    await note(worker, job, "start#1", b"a ticket")
    assert await worker.steps.emit(job, "0", reply("0")) is Emitted.QUEUED
    again = await runs_again(talk, worker, job, "loses its worker")
    assert (await worker.steps.start(again)).journal == {"start#1": None}, "it is another's"
    again = msgspec.structs.replace(again, continues="of before")
    assert (await worker.steps.start(again)).journal == {"start#1": b"a ticket"}
    await worker.steps.fail(again, "broke", None, reply("sorry"))
    assert [await talk.send("c0", 2), await talk.send("c1", 3)] == ["0", APOLOGY_PLACE]


@pytest.mark.parametrize("comes", ["while nothing is under way", "while the question is asked"])
async def test_rule_10_of_threads_what_may_be_an_answer_is_left_to_others_by_a_version_that_knows_no_questions(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    asking = await taken(worker)
    if comes == "while the question is asked":
        await talk.accept(2)
    await worker.steps.settle(asking, "waiting", [waits(asking)])
    if comes == "while nothing is under way":
        await talk.accept(2)
    await talk.accept(1, conversation="without a question")
    with monkeypatch.context() as former:
        former.setattr(records, "PLACED_SCHEMA", SCHEMA_VERSION)
        with pytest.raises(NewerRecord):
            await worker.take()
        elsewhere = await taken(worker)
        assert elsewhere.conversation_id == "without a question"
        await worker.steps.finish(elsewhere)
    await talk.reclaim(Reclaim())
    answer = await taken(worker)
    assert answer.has_past or not answer.is_first_run
    await worker.steps.settle(answer, "done", [("drop_wait", "wait", "", "")])
    await talk.accept(3)
    with monkeypatch.context() as former:
        former.setattr(records, "PLACED_SCHEMA", SCHEMA_VERSION)
        assert (await taken(worker)).seq == 3, "nothing is asked any more"


@pytest.mark.parametrize("way", WAYS)
async def test_rule_17_of_threads_what_was_bound_to_a_question_is_its_answer_in_each_later_run(
    scene: Scene, way: str
) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    asking = await taken(worker)
    await worker.steps.settle(asking, "waiting", [waits(asking)])
    await talk.accept(2)
    answer = await taken(worker)
    assert not (await worker.steps.start(answer)).is_answer
    assert await worker.steps.bind_wait(answer, "wait") is Bound.BOUND
    again = await runs_again(talk, worker, answer, way)
    started = await worker.steps.start(again)
    assert (started.is_answer, started.places) == (True, frozenset())
    await worker.steps.settle(again, "done", [("drop_wait", "wait", "", "")])
    assert await scene.leftovers() == []


async def test_each_message_of_a_thread_that_is_given_up_has_an_apology_of_its_own(scene: Scene) -> None:
    """The relay passes over what has the id of something that it has."""
    talk, worker = await talk_and_worker(scene)
    for seq in (1, 2):
        await talk.accept(seq)
        job = msgspec.structs.replace(await taken(worker), continues="the thread")
        assert await worker.steps.fail(job, "broke", None, reply("sorry")) is Failed.DEAD
    given_up = []
    for number in range(2):
        entry = await talk.take_reply()
        given_up.append(decode_reply_record(entry.fields["r"]).job_id)
        await talk.commit(entry, f"c{number}")
        await talk.supervisor.outbox.confirm(CONVERSATION, f"c{number}", "m", 3 + number)
    assert given_up == [f"{CONVERSATION}-1", f"{CONVERSATION}-2"]
