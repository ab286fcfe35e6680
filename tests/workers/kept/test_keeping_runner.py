"""A runner writes what a run kept with its job's end, in one step; an agent that keeps nothing never takes that step."""

import io

import msgspec
import pytest
import trio
import trio.testing

from bus.records.records import BadRecord, Job, NewerRecord
from bus.steps.thread_steps import Noted
from tests.workers.builders import agent_that, running
from tests.workers.doubles import MemoryBus, job_of
from workers import Agent, Chat, History, Message
from workers.kept.history import Turn, decode_exchange, encode_exchange


class Counted(msgspec.Struct):
    messages: int = 0


def counting(bus: MemoryBus | None = None) -> Agent:
    """It is superseded by the message `stop`, and fails at `fail`."""
    agent = Agent(state=Counted)

    @agent.on_message()
    async def count(message: Message, chat: Chat, state: Counted, history: History) -> None:
        state.messages += 1
        await chat.reply(f"{state.messages} after {len(history)}")
        if message.text == "fail":
            raise LookupError
        if message.text == "stop" and bus is not None:
            bus.supersede(job_of())
            await trio.sleep_forever()

    return agent


def settled_in(bus: MemoryBus) -> list[tuple[str, list[str]]]:
    return [(outcome, [effect[0] for effect in effects]) for outcome, effects in bus.settled]


def said_in(bus: MemoryBus, job: Job) -> list[str]:
    return [turn.text for body in bus.exchanges.get(job.conversation_id, []) for turn in decode_exchange(body)]


async def test_what_has_changed_is_written_with_the_end_and_what_has_not_is_not() -> None:
    bus, agent, job = MemoryBus(), Agent(state=Counted), job_of("a")

    @agent.on_message()
    async def count(message: Message, state: Counted) -> None:
        state.messages += message.text == "a"

    async with running(agent, bus):
        for text in ("a", "b"):
            bus.give(job_of(text))
            await bus.until(lambda text=text: len(bus.finished) == 1 + (text == "b"))  # type: ignore[misc]
    assert settled_in(bus) == [("done", ["state"])]
    assert msgspec.msgpack.decode(bus.states[job.conversation_id]) == {"messages": 1}
    assert bus.exchanges == {}


async def test_an_agent_that_keeps_nothing_asks_for_nothing_and_ends_its_jobs_as_ever() -> None:
    bus = MemoryBus()
    async with running(agent_that(), bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert bus.settled == []
    assert bus.asked == []


async def test_a_run_that_fails_writes_nothing_and_one_that_is_superseded_only_what_people_saw(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, job = MemoryBus(), job_of()
    async with running(counting(bus), bus):
        bus.give(job_of("fail"))
        await bus.until(lambda: bus.failed)
        assert (bus.settled, bus.states) == ([], {})
        bus.give(job_of("stop"))
        await bus.until(lambda: bus.finished)
    assert settled_in(bus) == [("superseded", ["exchange"])]
    assert bus.states == {}
    assert said_in(bus, job) == ["stop", "1 after 0"]


async def test_while_redis_is_away_a_handler_waits_for_its_state(autojump_clock: trio.testing.MockClock) -> None:
    bus, job = MemoryBus(), job_of("a")
    async with running(counting(), bus):
        bus.give(job)
        bus.unreadable_times = 3
        await bus.until(lambda: bus.finished)
    assert msgspec.msgpack.decode(bus.states[job.conversation_id]) == {"messages": 1}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (msgspec.msgpack.encode({"messages": "many"}), "Expected `int`, got `str` - at `$.messages`"),
        (NewerRecord("of schema 9"), "a later version of hashee-agent wrote it (of schema 9)"),
        (BadRecord("a sealed value does not open"), "does not open with this store secret"),
    ],
)
async def test_a_state_that_cannot_be_read_fails_the_job_by_its_name_and_stays(
    found: bytes | BadRecord, said: str
) -> None:
    bus, job, output = MemoryBus(), job_of("a", attempt=4), io.StringIO()
    bus.states[job.conversation_id] = kept = found if isinstance(found, bytes) else b"kept"
    bus.unreadable = found if isinstance(found, BadRecord) else None
    async with running(counting(), bus, output=output):
        bus.give(job)
        await bus.until(lambda: bus.failed)
    assert bus.failed == [("message-1", "bad_state", None)]
    assert bus.states[job.conversation_id] == kept
    assert said in output.getvalue()
    assert "hashee-agent dead retry" in output.getvalue()


async def test_all_that_are_handled_together_were_said() -> None:
    other = msgspec.structs.replace(job_of("b").message, message_id="message-2")
    bus, job = MemoryBus(together=(other,)), job_of("a", deliveries=2)
    async with running(counting(), bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
    assert said_in(bus, job) == ["a", "b", "1 after 0"]


def talkative(bus: MemoryBus, words: list[str]) -> Agent:
    """It says something, works on, and says something else; its first run dies in between."""
    agent = Agent(history=True)

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await chat.reply(words.pop(0))
        await trio.sleep(1)
        if words:
            raise LookupError
        await chat.reply("done")

    return agent


async def test_what_an_earlier_run_has_said_counts_and_not_the_words_of_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, job = MemoryBus(), job_of("a")
    async with running(talkative(bus, ["it was seen", "other words"]), bus):
        bus.give(job)
        await bus.until(lambda: bus.failed)
        assert list(bus.journal) == ["said:message-1/0"]
        bus.emitted_before = frozenset({"0"})
        bus.give(job_of("a", deliveries=2, attempt=2))
        await bus.until(lambda: bus.finished)
    assert said_in(bus, job) == ["a", "it was seen", "done"]


async def test_what_was_written_down_and_never_sent_does_not_count() -> None:
    bus, job = MemoryBus(), job_of("a", deliveries=2)
    bus.journal["said:message-1/0"] = encode_exchange([Turn(role="assistant", text="never sent")])
    async with running(talkative(bus, ["said"]), bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
    assert said_in(bus, job) == ["a", "said", "done"]


async def test_what_went_before_an_answer_came_is_not_kept_twice() -> None:
    """Its names are those of another job of the thread."""
    bus, job = MemoryBus(), job_of("a", deliveries=2)
    bus.journal["said:message-0/0"] = b"of the job that asked"
    async with running(talkative(bus, ["said"]), bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
    assert said_in(bus, job) == ["a", "said", "done"]


async def test_where_the_journal_is_full_the_words_of_the_last_run_are_kept() -> None:
    bus, job = MemoryBus(note_answers=[Noted.FULL]), job_of("a")
    async with running(talkative(bus, ["said"]), bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
    assert said_in(bus, job) == ["a", "said", "done"]


async def test_an_agent_that_keeps_no_history_notes_nothing_of_what_it_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, agent = MemoryBus(), Agent()

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await chat.reply("said")
        await trio.sleep(1)

    async with running(agent, bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert (bus.journal, bus.settled) == ({}, [])
