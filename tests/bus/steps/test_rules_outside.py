"""Messages that no job said: one of them at a time stands among the replies, in the order in which they came, and a key counts once."""

import msgspec
import pytest

from bus.records.outside import ACT_PLACE, OUTSIDE, START_PLACE, SendKey
from bus.records.records import ACT_SCHEMA, SCHEMA_VERSION, ReplyRecord, decode_reply_record, encode_record
from bus.steps.outbox import Committed
from bus.steps.outside import KEPT_SECONDS, PAGE, TURN_MS, SendOutcome
from bus.steps.placing import MOST_PLACED
from bus.transport.readers import StreamEntry
from host.budgets import UNLIMITED_REDIS_BYTES, StoreBudgets
from tests.bus.builders import CONVERSATION, placed_job
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import Scene
from tests.bus.talk import Talk, answer, talk_and_worker, talk_of

DAY_MS = 86_400_000


def said(name: str, conversation: str = CONVERSATION, characters: int = 10) -> bytes:
    return encode_record(ReplyRecord(SCHEMA_VERSION, f"{OUTSIDE}{name}", conversation, "0", 1, 1, b"s" * characters))


async def send(
    talk: Talk, name: str, conversation: str = CONVERSATION, *, key: SendKey | None = None, characters: int = 10
) -> SendOutcome:
    record = said(name, conversation, characters)
    return await talk.supervisor.outside.send(
        conversation, record, f"{OUTSIDE}{name}", key=key, budgets=talk.supervisor.store.budgets
    )


async def known(talk: Talk, *conversations: str) -> None:
    """Conversations in which somebody has written, and was answered nothing."""
    for number, conversation in enumerate(conversations, start=1):
        await talk.accept(1, conversation=conversation)
        assert number


async def digest(talk: Talk, *conversations: str) -> None:
    for conversation in conversations:
        await send(talk, f"to-{conversation}", conversation)


def id_of(entry: StreamEntry) -> str:
    return decode_reply_record(entry.fields["r"]).job_id.removeprefix(OUTSIDE)


async def send_on(talk: Talk, entry: StreamEntry, seq: int) -> None:
    """Commits and confirms what was taken, and lets out the next of the line."""
    cmid = id_of(entry)
    assert (await talk.commit(entry, cmid)).outcome is Committed.COMMITTED
    await talk.supervisor.outside.let_out()
    await talk.supervisor.outbox.confirm(decode_reply_record(entry.fields["r"]).conversation_id, cmid, "m", seq)


async def test_one_that_comes_alone_goes_out_at_once_and_leaves_nothing(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker)
    assert await send(talk, "hello") is SendOutcome.QUEUED
    assert await talk.send("c", 2) == "0"
    assert await scene.leftovers() == []
    facts = await scene.facts()
    assert facts.busy == frozenset()
    assert facts.counted == facts.waits == {}


async def test_nothing_is_sent_into_a_conversation_in_which_nobody_wrote(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene)
    writes = (await scene.facts()).write_count
    assert await send(talk, "hello") is SendOutcome.UNKNOWN
    assert (await scene.facts()).write_count == writes


async def test_of_a_digest_one_message_is_on_its_way_and_a_reply_waits_for_no_other(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    everybody = [f"conversation-{number}" for number in range(6)]
    for one in everybody:
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, *everybody)
    assert await talk.supervisor.outside.count() == 5
    await talk.accept(2, conversation=everybody[4])
    await answer(worker, "reply")
    first, reply = await talk.take_reply(), await talk.take_reply()
    assert id_of(first) == "to-conversation-0"
    assert decode_reply_record(reply.fields["r"]).place == "reply"
    assert await talk.supervisor.take_reply() is None
    await send_on(talk, first, 2)
    await talk.commit(reply, "reply")
    await talk.supervisor.outbox.confirm(everybody[4], "reply", "m", 3)
    for one in everybody[1:]:
        entry = await talk.take_reply()
        assert id_of(entry) == f"to-{one}", "in the order in which they came"
        assert await talk.supervisor.take_reply() is None
        await send_on(talk, entry, 3 + everybody.index(one))
    assert await scene.leftovers() == []


async def test_one_that_waits_keeps_its_place_behind_others_of_the_same_conversation(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker)
    for name in ("one", "two", "three"):
        await send(talk, name)
    heard = []
    for seq in (2, 3, 4):
        entry = await talk.take_reply()
        heard.append(id_of(entry))
        await send_on(talk, entry, seq)
    assert heard == ["one", "two", "three"]


async def test_nobody_else_is_let_out_while_one_is_on_its_way(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    other = (await scene.supervisor("supervisor-2")).outside
    for one in ("a", "b", "c"):
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, "a", "b", "c")
    assert not await other.let_out()
    entry = await talk.take_reply()
    assert (await talk.commit(entry, "c0")).outcome is Committed.COMMITTED
    assert await other.let_out()
    assert not await talk.supervisor.outside.let_out()


async def test_one_that_can_never_be_sent_holds_up_nobody(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for one in ("a", "b"):
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, "a", "b")
    entry = await talk.take_reply()
    record = decode_reply_record(entry.fields["r"])
    assert await talk.supervisor.outbox.drop_reply(
        "a", "no_grant", answers=(record.job_id, record.place), entry_id=entry.id
    )
    assert await talk.supervisor.outside.let_out()
    assert id_of(await talk.take_reply()) == "to-b"


async def test_one_that_is_not_committed_in_its_time_holds_up_nobody(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for one in ("a", "b", "c"):
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, "a", "b", "c")
    stuck = await talk.take_reply()
    await scene.time_passes(TURN_MS)
    assert await talk.supervisor.outside.let_out()
    assert (await talk.commit(stuck, "late")).outcome is Committed.COMMITTED
    assert not await talk.supervisor.outside.let_out(), "the turn is another one's by now"


async def test_what_we_say_by_ourselves_in_its_name_does_not_end_its_turn(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for one in ("a", "b"):
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, "a", "b")
    entry = await talk.take_reply()
    offer = msgspec.structs.replace(decode_reply_record(entry.fields["r"]), place="!renewed-1")
    assert await talk.supervisor.outbox.post_before("a", entry.id, encode_record(offer))
    assert (await talk.commit(await talk.take_reply(), "offer")).outcome is Committed.COMMITTED
    assert not await talk.supervisor.outside.let_out()


async def test_a_key_counts_once_for_thirty_days(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker)
    key, other = SendKey(b"k" * 16, b"deployed"), SendKey(b"k" * 16, b"broken")
    assert await send(talk, "one", key=key) is SendOutcome.QUEUED
    assert await send(talk, "one", key=key) is SendOutcome.ALREADY
    assert await send(talk, "one", key=other) is SendOutcome.KEY_USED
    assert await talk.send("c", 2) == "0"
    assert await talk.supervisor.take_reply() is None
    assert await send(talk, "two", key=SendKey(b"K" * 16, b"deployed")) is SendOutcome.QUEUED


async def test_a_job_from_outside_runs_behind_what_waits_once_for_its_key_and_takes_no_turn(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await talk.accept(2)
    outside, budgets = talk.supervisor.outside, talk.supervisor.store.budgets
    key = SendKey(b"k" * 16, b"deploy")
    for outcome in (SendOutcome.QUEUED, SendOutcome.ALREADY):
        job = placed_job("deploy")
        sent = await outside.send(CONVERSATION, job, "timer:deploy:1", key=key, budgets=budgets, is_job=True)
        assert sent is outcome
    assert await send(talk, "hello") is SendOutcome.QUEUED, "it has not taken the turn"
    heard = [await answer(worker) for _ in range(3)]
    assert heard == ["message 1", "message 2", "deploy"]
    assert await worker.take() is None


async def test_a_card_from_outside_is_known_to_the_handlers_of_its_conversation(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    outside, budgets = talk.supervisor.outside, talk.supervisor.store.budgets
    card = ("01JB0000000000000000000000", "app vote_card")
    assert (
        await outside.send(CONVERSATION, said("vote"), f"{OUTSIDE}vote", budgets=budgets, card=card)
        is SendOutcome.QUEUED
    )
    job = await worker.take()
    assert job is not None
    kept = await worker.steps.card(job, card[0])
    assert kept is not None
    assert (kept.revision, kept.job_id, kept.kind) == (0, f"{OUTSIDE}vote", "app vote_card")


async def act(talk: Talk, name: str, *, key: SendKey | None = None, takes_back: str = "") -> SendOutcome:
    """Queues an act of the conversation; one that takes back the message of this name."""
    at = (f"{OUTSIDE}{name}", CONVERSATION, ACT_PLACE)
    outside, budgets = talk.supervisor.outside, talk.supervisor.store.budgets
    return await outside.send(
        CONVERSATION,
        encode_record(ReplyRecord(ACT_SCHEMA, *at, 1, 1, b"act")),
        f"{OUTSIDE}{name}",
        key=key,
        budgets=budgets,
        beside="act",
        takes_back=takes_back and f"{OUTSIDE}{takes_back}",
    )


async def test_an_act_waits_for_no_digest_and_stands_behind_what_it_may_be_about(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    for one in ("elsewhere", "another", CONVERSATION):
        await talk.accept(1, conversation=one)
        await answer(worker)
    assert await send(talk, "hello") is SendOutcome.QUEUED
    await digest(talk, "elsewhere", "another")
    assert await act(talk, "react") is SendOutcome.QUEUED
    hello = await talk.take_reply()
    assert await talk.supervisor.take_reply() is None
    await send_on(talk, hello, 2)
    there = {id_of(entry): entry for entry in (await talk.take_reply(), await talk.take_reply())}
    assert sorted(there) == ["react", "to-elsewhere"]
    answers = (f"{OUTSIDE}react", ACT_PLACE)
    assert await talk.supervisor.outbox.acted(CONVERSATION, there["react"].id, answers=answers, what="reacted")
    assert not await talk.supervisor.outside.let_out(), "it has ended no turn"
    await send_on(talk, there["to-elsewhere"], 2)
    await send_on(talk, await talk.take_reply(), 2)
    assert await scene.leftovers() == []


async def test_what_has_not_left_the_line_is_taken_back_before_anybody_sees_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker)
    for name in ("one", "two", "three"):
        await send(talk, name)
    key = SendKey(b"k", b"recall two")
    assert await act(talk, "recall", key=key, takes_back="two") is SendOutcome.TAKEN_BACK
    assert await act(talk, "recall", key=key, takes_back="two") is SendOutcome.ALREADY
    assert await talk.supervisor.outside.count() == 1
    await send_on(talk, await talk.take_reply(), 2)
    last = await talk.take_reply()
    assert id_of(last) == "three"
    assert await act(talk, "recall three", takes_back="three") is SendOutcome.QUEUED, (
        "it is on its way: the relay is asked"
    )
    await send_on(talk, last, 3)
    recall = await talk.take_reply()
    assert await talk.supervisor.outbox.acted(
        CONVERSATION, recall.id, answers=(f"{OUTSIDE}recall three", ACT_PLACE), what="recalled"
    )
    assert await scene.leftovers() == []
    facts = await scene.facts()
    assert facts.counted == facts.waits == {}


async def test_one_is_found_in_a_long_line_while_others_leave_it(redis_url: str) -> None:
    scene = RedisScene(redis_url)
    talk = await talk_of(scene, "supervisor-1")
    await talk.accept(1)
    names = [f"{number}" for number in range(2 * PAGE + 7)]
    for name in names:
        await send(talk, name)
    found = [await act(talk, f"recall {name}", takes_back=name) for name in (names[1], names[PAGE], names[-1])]
    assert found == [SendOutcome.TAKEN_BACK] * 3
    assert await talk.supervisor.outside.count() == len(names) - 1 - len(found)
    scene.close()


async def test_a_stream_that_begins_under_a_key_only_looks_at_it(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    await talk.accept(1)
    await answer(worker)
    outside, budgets = talk.supervisor.outside, talk.supervisor.store.budgets
    name = f"{OUTSIDE}grows"

    async def begin() -> SendOutcome:
        record = encode_record(ReplyRecord(SCHEMA_VERSION, name, CONVERSATION, START_PLACE, 1, 1, b"start"))
        looked_at = SendKey(b"k", b"")
        return await outside.send(CONVERSATION, record, name, key=looked_at, budgets=budgets, beside="start")

    assert await begin() is SendOutcome.QUEUED
    assert await send(talk, "grows", key=SendKey(b"k", b"whole")) is SendOutcome.QUEUED
    assert await begin() is SendOutcome.ALREADY
    assert await send(talk, "grows", key=SendKey(b"k", b"another")) is SendOutcome.KEY_USED


async def test_no_more_jobs_from_outside_wait_in_a_conversation_than_may(scene: Scene) -> None:
    talk, _ = await talk_and_worker(scene)
    await talk.accept(1)
    outside, budgets = talk.supervisor.outside, talk.supervisor.store.budgets
    outcomes = [
        await outside.send(CONVERSATION, placed_job(f"{n}"), f"timer:{n}:1", budgets=budgets, is_job=True)
        for n in range(MOST_PLACED + 1)
    ]
    assert outcomes == [*[SendOutcome.QUEUED] * MOST_PLACED, SendOutcome.FULL]
    facts = await scene.facts()
    assert facts.counted == facts.waits


async def test_the_line_has_a_bound_and_takes_more_when_some_have_left(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    store = talk.supervisor.store
    store.budgets = msgspec.structs.replace(StoreBudgets.of(UNLIMITED_REDIS_BYTES), out_bytes=8000)
    await store.publish_bounds()
    await talk.accept(1)
    await answer(worker)
    outcomes = [await send(talk, str(number), characters=1000) for number in range(6)]
    assert outcomes == [
        SendOutcome.QUEUED,
        SendOutcome.WAITS,
        SendOutcome.WAITS,
        SendOutcome.WAITS,
        SendOutcome.FULL,
        SendOutcome.FULL,
    ]
    await send_on(talk, await talk.take_reply(), 2)
    assert await send(talk, "6", characters=1000) is SendOutcome.WAITS
    facts = await scene.facts()
    assert facts.counted == facts.waits


async def test_a_line_that_is_full_takes_no_room_from_replies(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    store = talk.supervisor.store
    store.budgets = msgspec.structs.replace(StoreBudgets.of(UNLIMITED_REDIS_BYTES), out_bytes=8000)
    await store.publish_bounds()
    await talk.accept(1)
    await answer(worker)
    while await send(talk, "more", characters=1000) is not SendOutcome.FULL:
        pass
    await talk.accept(2)
    await answer(worker, "0", "1")
    assert (await scene.facts()).counted["out"] > 0


async def test_so_many_keys_are_remembered_and_no_more(scene: Scene) -> None:
    talk, worker = await talk_and_worker(scene)
    store = talk.supervisor.store
    store.budgets = msgspec.structs.replace(StoreBudgets.of(UNLIMITED_REDIS_BYTES), out_bytes=8000)
    await store.publish_bounds()
    await talk.accept(1)
    await answer(worker)
    outcomes = []
    for number in range(11):
        outcomes.append(await send(talk, str(number), key=SendKey(b"%d" % number, b"said")))
        if number == 0:
            await talk.send("c", 2)
        elif outcomes[-1] is not SendOutcome.MANY_KEYS:
            await send_on(talk, await talk.take_reply(), number + 2)
    assert outcomes[-2:] == [SendOutcome.QUEUED, SendOutcome.MANY_KEYS]
    assert await send(talk, "without a key") is SendOutcome.QUEUED


async def test_a_key_is_found_in_each_period_in_which_it_may_stand(redis_url: str) -> None:
    """Only Redis keeps them by periods; whoever sends with a clock that was put back looks ahead too."""
    scene = RedisScene(redis_url)
    talk = await talk_of(scene)
    worker = await scene.worker("worker-1")
    await talk.accept(1)
    await answer(worker)
    period = await talk.supervisor.store.now_ms() // (10 * DAY_MS)
    for number, at in enumerate((period - 3, period - 2, period - 1, period + 1)):
        key = SendKey(b"%d" % number, b"said")
        scene.client.ask("HSET", scene.keys.send_keys(at), key.name, key.said)
        assert await send(talk, str(number), key=key) is SendOutcome.ALREADY
    gone = SendKey(b"gone", b"said")
    scene.client.ask("HSET", scene.keys.send_keys(period - 4), gone.name, gone.said)
    assert await send(talk, "gone", key=gone) is SendOutcome.QUEUED
    left = scene.client.ask("TTL", scene.keys.send_keys(period))
    assert left == pytest.approx(KEPT_SECONDS, abs=60)
    scene.close()


async def test_only_the_first_is_let_out_though_another_supervisor_was_quicker(redis_url: str) -> None:
    """It has read who is first; meanwhile that one was let out, and committed."""
    scene = RedisScene(redis_url)
    talk = await talk_of(scene)
    worker = await scene.worker("worker-1")
    for one in ("a", "b", "c"):
        await talk.accept(1, conversation=one)
        await answer(worker)
    await digest(talk, "a", "b", "c")
    stale = said("to-b", "b")
    await send_on(talk, await talk.take_reply(), 2)
    await talk.commit(await talk.take_reply(), "c1")
    keys = [*scene.keys.board("b"), scene.keys.outside, scene.keys.outside_turn]
    assert await scene.client.script("let_out", keys, "b", stale, f"{OUTSIDE}to-b", TURN_MS) == b"changed"
    assert await talk.supervisor.outside.count() == 1
    scene.close()
