"""What handlers keep for the whole agent: changed with the job's end, by one at a time, and added to by all."""

import msgspec
import pytest

from bus.steps.job_steps import Finished
from bus.steps.thread_steps import Noted
from tests.bus.scenes import MemoryScene
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.stage import Stage
from workers import Agent, BadState, BlockingStore, Chat, Message, Store, StoreAfterWords, StoreLimit, StoreMixed
from workers.testing import Conversation, conversation

pytestmark = pytest.mark.pure


def shop() -> Agent:
    agent = Agent()

    @agent.on_command("stock")
    async def stock(chat: Chat, store: Store, args: str) -> None:
        await store.set("bread", int(args) if args else None)
        await chat.reply(f"{await store.get('bread', 'none')}")

    @agent.on_command("buy")
    async def buy(chat: Chat, store: Store) -> None:
        left = await store.get("bread", 0, type=int)
        if left:
            await store.set("bread", left - 1)
        await store.add("asked")
        await chat.reply("Here you are." if left else "Sold out.")

    @agent.on_command("asked")
    def asked(chat: Chat, store: BlockingStore) -> None:
        chat.reply(str(store.get("asked", 0)))  # type: ignore[unused-coroutine]

    @agent.on_command("fail")
    async def fail(store: Store) -> None:
        await store.set("bread", 1000)
        raise LookupError

    @agent.on_command("late")
    async def late(chat: Chat, store: Store) -> None:
        left = await store.get("bread", 0)
        await chat.reply(f"There are {left}.")
        await store.set("bread", left - 1)

    return agent


async def heard(chat: Conversation, text: str) -> list[str]:
    return [said.text for said in await chat.say(text)]


async def test_it_is_one_for_all_conversations_and_a_run_sees_its_own_changes() -> None:
    agent = shop()
    ann = conversation(agent)
    ben = conversation(agent, beside=ann)
    assert await heard(ann, "/stock 1") == ["1"]
    assert [await heard(ben, "/buy"), await heard(ann, "/buy")] == [["Here you are."], ["Sold out."]]
    assert await ann.run_again() == []
    assert await heard(ben, "/asked") == ["2"]
    assert await heard(ben, "/stock") == ["none"]


async def test_a_run_that_fails_leaves_it_as_it_was() -> None:
    chat = conversation(shop())
    await chat.say("/stock 1")
    with pytest.raises(LookupError):
        await chat.say("/fail")
    assert await heard(chat, "/buy") == ["Here you are."]
    assert await heard(chat, "/buy") == ["Sold out."]


async def test_what_was_read_is_not_set_after_words() -> None:
    with pytest.raises(StoreAfterWords, match="set it before the first word"):
        await conversation(shop()).say("/late")


@pytest.mark.parametrize(
    ("key", "value", "error", "said"),
    [
        ("", 1, StoreLimit, "1 to 200 bytes"),
        ("ä" * 101, 1, StoreLimit, "1 to 200 bytes"),
        ("key", "x" * 70_000, StoreLimit, "at most 65536 bytes, that of 'key' has 70005"),
        ("key", object(), StoreLimit, "msgpack does not have"),
    ],
)
async def test_what_it_does_not_take_is_refused_by_name(
    key: str, value: object, error: type[Exception], said: str
) -> None:
    agent = Agent()

    @agent.on_message()
    async def put(store: Store) -> None:
        await store.set(key, value)

    with pytest.raises(error, match=said):
        await conversation(agent).say("a")


async def test_a_text_is_no_number_to_add_to_and_no_other_type_than_asked_for() -> None:
    agent = Agent()

    @agent.on_message()
    async def put(message: Message, store: Store) -> None:
        if message.text == "set":
            await store.set("key", "secret words")
        elif message.text == "add":
            await store.add("key")
        else:
            await store.get("key", type=int)

    chat = conversation(agent)
    await chat.say("set")
    for text, why in (("add", "is no number"), ("get", "is no int")):
        with pytest.raises(BadState, match=f"^the store's value of 'key' {why}") as raised:
            await chat.say(text)
        assert "secret" not in str(raised.value)


async def test_what_others_add_meanwhile_is_added_to_without_another_run() -> None:
    bus, agent, runs = MemoryBus(), Agent(), list[str]()

    @agent.on_message()
    async def count(store: Store) -> None:
        runs.append("run")
        await store.add("count", 2)

    bus.stored["count"] = msgspec.msgpack.encode(1)
    bus.meanwhile["count"] = msgspec.msgpack.encode(41)
    async with running(agent, bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert msgspec.msgpack.decode(bus.stored["count"]) == 43
    assert runs == ["run"]


async def test_what_was_read_and_has_changed_meanwhile_has_the_run_repeated() -> None:
    bus, agent = MemoryBus(), Agent()

    @agent.on_message()
    async def double(store: Store) -> None:
        await store.set("count", 2 * await store.get("count", 0))

    bus.stored["count"] = msgspec.msgpack.encode(1)
    bus.meanwhile["count"] = msgspec.msgpack.encode(5)
    async with running(agent, bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.failed)
        assert bus.failed == [("message-1", "changed", 50)]
        assert msgspec.msgpack.decode(bus.stored["count"]) == 5
        bus.give(job_of("a", deliveries=2, attempt=2))
        await bus.until(lambda: bus.finished)
    assert msgspec.msgpack.decode(bus.stored["count"]) == 10


def till() -> Agent:
    """Its handler speaks before, between and after two changes of one key."""
    agent = Agent()

    @agent.on_command("sell")
    async def sell(chat: Chat, store: Store) -> None:
        await chat.reply("One moment.")
        first = await store.change("sold", lambda sold: sold + 1, 0, type=int)
        await chat.reply(f"number {first}")
        second = await store.change("sold", lambda sold: sold + 1, 0, type=int)
        await chat.reply(f"and {second}, of {await store.get('sold')}")

    @agent.on_command("clear")
    def clear(chat: Chat, store: BlockingStore) -> None:
        gone = store.change("sold", lambda _: None)
        chat.reply(f"{gone}, {store.get('sold', 'nothing there')}")  # type: ignore[unused-coroutine]

    @agent.on_command("break")
    async def broken(store: Store) -> None:
        await store.change("sold", lambda sold: sold + 1, 0)
        raise LookupError

    return agent


async def test_a_change_is_made_at_once_and_a_second_run_has_what_the_first_one_got() -> None:
    chat = conversation(till())
    assert await heard(chat, "/sell") == ["One moment.", "number 1", "and 2, of 2"]
    assert await chat.run_again() == []
    assert await heard(chat, "/sell") == ["One moment.", "number 3", "and 4, of 4"]
    assert await heard(chat, "/clear") == ["None, nothing there"]
    with pytest.raises(LookupError):
        await chat.say("/break")
    with pytest.raises(LookupError):
        await chat.run_again()
    assert await heard(chat, "/sell") == ["One moment.", "number 2", "and 3, of 3"]


async def test_a_worker_may_die_at_any_point_of_a_change() -> None:
    whole = Stage(MemoryScene(), till())
    await whole.say("/sell")
    texts = [one.text for one in whole.transcript]
    assert texts == ["One moment.", "number 1", "and 2, of 2"]
    assert whole.points >= 6
    for point in range(whole.points):
        stage = Stage(MemoryScene(), till(), dies_at=point)
        await stage.say("/sell")
        assert [one.text for one in stage.transcript] == texts, point


async def test_a_change_is_made_of_what_others_have_set_meanwhile() -> None:
    bus, agent, seen = MemoryBus(), Agent(), list[int]()

    def twice(count: int) -> int:
        seen.append(count)
        return 2 * count

    @agent.on_message()
    async def double(chat: Chat, store: Store) -> None:
        await chat.reply("now")
        await store.change("count", twice)

    bus.stored["count"] = msgspec.msgpack.encode(1)
    bus.meanwhile["count"] = msgspec.msgpack.encode(5)
    async with running(agent, bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert (seen, msgspec.msgpack.decode(bus.stored["count"])) == ([1, 5], 10)
    assert bus.failed == []


@pytest.mark.parametrize("answer", [Noted.STORE_FULL, Noted.FULL, Noted.ALREADY])
async def test_a_change_that_is_not_taken_fails_the_job_by_its_name(answer: Noted) -> None:
    bus, agent = MemoryBus(note_answers=[answer]), Agent()

    @agent.on_message()
    async def put(store: Store) -> None:
        await store.change("key", lambda _: 1)

    async with running(agent, bus):
        bus.give(job_of("a", attempt=4))
        await bus.until(lambda: bus.failed)
    reasons = {Noted.STORE_FULL: "store_full", Noted.FULL: "journal_full", Noted.ALREADY: "outcome_unknown"}
    assert [reason for _, reason, _ in bus.failed] == [reasons[answer]]
    assert bus.stored == {}


@pytest.mark.parametrize("how", ["set before", "add before", "set after", "add after", "async"])
async def test_a_key_is_set_or_changed_in_a_run_and_not_both(how: str) -> None:
    agent = Agent()

    async def later(value: object) -> int:
        raise AssertionError(value)

    @agent.on_message()
    async def put(store: Store) -> None:
        if how == "async":
            await store.change("key", later)
        if how == "set before":
            await store.set("key", 1)
        if how == "add before":
            await store.add("key")
        await store.change("key", lambda _: 2)
        if how == "set after":
            await store.set("key", 3)
        if how == "add after":
            await store.add("key")

    with pytest.raises(StoreLimit if how == "async" else StoreMixed, match="'key'"):
        await conversation(agent).say("a")


async def test_a_store_that_is_full_fails_the_job_by_its_name() -> None:
    bus, agent = MemoryBus(settle_answers=[Finished.STORE_FULL]), Agent()

    @agent.on_message()
    async def put(store: Store) -> None:
        await store.set("key", 1)

    async with running(agent, bus):
        bus.give(job_of("a", attempt=4))
        await bus.until(lambda: bus.failed)
    assert bus.failed == [("message-1", "store_full", None)]
    assert bus.stored == {}
