"""What a handler sends, in a first run, a second run, and a run that was lost. With trio's clock where time matters."""

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from bus.records.records import Job
from bus.steps.jobs import Emitted
from tests.waiting import waiting_for
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of, texts
from workers import Agent, BadReply, Chat, Fail, InboundMessage, Retry
from workers.handling.blocking import BlockingChat
from workers.handling.context import JobContext, observe_nothing
from workers.handling.execution import Run, RunEnvironment, run_handler
from workers.talk.sending import MOST_HELD


async def run(agent: Agent, bus: MemoryBus, job: Job | None = None) -> bool:
    """Run a job as the runner does; True if it was not lost."""
    environment = RunEnvironment(agent=agent, outlet=bus, threads=trio.CapacityLimiter(4), observe=observe_nothing)
    with trio.CancelScope() as scope:
        one = job or job_of()
        await run_handler(environment, Run(one, (one.message,), bus.emitted_before), scope.cancel)
    return not scope.cancelled_caught


def three_replies() -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("first")
        await chat.reply("named", key="name")
        await chat.reply("second", markdown=True)

    return agent


async def test_places_are_numbers_in_order_of_sending_and_keys_take_none() -> None:
    bus = MemoryBus()
    assert await run(three_replies(), bus)
    assert texts(bus) == [("0", "first"), ("key:name", "named"), ("1", "second")]
    assert bus.replies[2][1].payload == {"type": "text", "text": "second", "markdown": True}


async def test_a_second_run_sends_only_what_the_first_did_not() -> None:
    bus = MemoryBus(emitted_before=frozenset({"0", "key:name"}))
    await run(three_replies(), bus)
    assert texts(bus) == [("1", "second")]


async def test_after_the_job_is_lost_the_handler_is_cancelled_and_nothing_leaves() -> None:
    bus = MemoryBus(emit_answers={"key:name": Emitted.FENCED})
    assert not await run(three_replies(), bus)
    assert texts(bus) == [("0", "first")]


async def test_a_lost_handler_that_shields_itself_still_sends_nothing() -> None:
    agent = Agent()

    @agent.on_message()
    async def stubborn(message: InboundMessage, chat: Chat) -> None:
        with trio.CancelScope(shield=True):
            await chat.reply("one")
            await chat.reply("two")
            async with chat.typing(), chat.stream() as stream:
                await stream.write("three")

    bus = MemoryBus(emit_answers={"0": Emitted.FENCED})
    assert not await run(agent, bus)
    assert texts(bus) == []
    assert not bus.typing
    assert not bus.deltas


async def test_a_key_cannot_be_used_twice_in_a_job() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("a", key="k")
        await chat.reply("b", key="k")

    with pytest.raises(BadReply, match="used before"):
        await run(agent, MemoryBus())


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", object()], ids=["large", "small", "half", "no JSON"])
async def test_a_payload_that_no_record_holds_is_refused_where_it_is_said(value: object) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.send({"type": "app", "value": [value]})

    bus = MemoryBus()
    with pytest.raises(BadReply, match="JSON does not have, or a number of over 64 bits"):
        await run(agent, bus)
    assert bus.replies == []


@pytest.mark.parametrize("payload", ["a text", None, [], {}])
async def test_what_is_no_payload_is_refused_with_what_one_is(payload: Any) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await chat.send(payload)

    with pytest.raises(BadReply, match="a payload is a mapping with a 'type'"):
        await run(agent, MemoryBus())


async def test_a_reply_waits_until_redis_is_back(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus(away=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, three_replies(), bus)
        await trio.sleep(100)
        assert bus.replies == []
        bus.away = False
    assert len(bus.replies) == 3


def streaming(pieces: int, pause: float) -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        async with chat.stream() as stream:
            for number in range(pieces):
                await stream.write(f"{number} ")
                await trio.sleep(pause)

    return agent


async def test_a_stream_starts_shows_merged_deltas_and_ends_whole(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    await run(streaming(100, 0.05), bus)
    start, done = bus.replies
    assert (start[0], start[1].kind) == ("0:start:1", "stream_start")
    assert (done[0], done[1].kind) == ("0", "stream_done")
    whole = "".join(f"{number} " for number in range(100))
    assert done[1].payload["text"] == whole
    assert start[1].stream_id == done[1].stream_id
    assert [seq for _id, seq, _text in bus.deltas] == list(range(len(bus.deltas)))
    shown = "".join(text for _id, _seq, text in bus.deltas)
    assert whole.startswith(shown)
    assert len(shown) > len(whole) / 2
    assert len(bus.deltas) <= 5.0 / 0.2


async def test_a_stream_on_an_emitted_place_shows_nothing() -> None:
    bus = MemoryBus(emitted_before=frozenset({"0:start:1", "0"}))
    await run(streaming(3, 0), bus)
    assert not bus.replies
    assert not bus.deltas


async def test_a_stream_whose_first_run_was_cut_off_is_begun_anew_by_the_second_one() -> None:
    bus = MemoryBus(emitted_before=frozenset({"0:start:1"}))
    await run(streaming(3, 0), bus, job_of(attempt=2, deliveries=2))
    (start, begun), (place, done) = bus.replies
    assert (start, begun.kind, place, done.kind) == ("0:start:2", "stream_start", "0", "stream_done")
    assert (done.payload["text"], done.stream_id) == ("0 1 2 ", begun.stream_id)


async def test_a_stream_nobody_wrote_to_and_one_left_by_an_exception_send_no_message() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        async with chat.stream():
            pass
        async with chat.stream() as stream:
            await stream.write("half")
            raise LookupError

    bus = MemoryBus()
    with pytest.raises(LookupError):
        await run(agent, bus)
    assert [(place, reply.kind) for place, reply in bus.replies] == [("1:start:1", "stream_start")]
    assert bus.aborted == ["message-1"]


@pytest.mark.parametrize("text", ["", " ", "\n\t \n"])
async def test_a_text_without_a_word_is_refused_where_it_is_said_and_a_stream_of_it_sends_nothing(text: str) -> None:
    agent = Agent()
    refused = list[str]()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        for say in (chat.reply, partial(chat.reply, quote=True), chat.to("conversation-2").reply, chat.ask):
            try:
                await say(text)
            except BadReply as problem:
                refused.append(str(problem))
        async with chat.stream() as stream:
            await stream.write(text)
        await chat.reply(text, mention="ben")

    bus = MemoryBus()
    await run(agent, bus)
    assert ["empty, or blank: send nothing" in one for one in refused] == [True] * 4
    assert [place for place, reply in bus.replies if reply.kind == "message"] == ["1"]  # the stream has the place 0
    assert len(bus.aborted) == (1 if text else 0)


async def test_deltas_that_redis_missed_come_with_the_next_one(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, streaming(100, 0.05), bus)
        await trio.sleep(1)
        bus.away = True
        await trio.sleep(1)
        bus.away = False
    whole = str(bus.replies[-1][1].payload["text"])
    assert whole.startswith("".join(text for _id, _seq, text in bus.deltas))
    assert [seq for _id, seq, _text in bus.deltas] == list(range(len(bus.deltas)))


async def test_typing_is_renewed_every_four_seconds_and_ended(autojump_clock: trio.testing.MockClock) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        async with chat.typing(), chat.typing():
            await trio.sleep(9)

    bus = MemoryBus()
    began = trio.current_time()
    await run(agent, bus)
    assert [(round(at - began), active) for at, active in bus.typing] == [(0, True), (4, True), (8, True), (9, False)]


async def test_a_sync_handler_has_the_same_chat_without_await() -> None:
    agent = Agent()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat, job: JobContext) -> None:
        with chat.typing():
            chat.reply(f"{message.text} {job.idempotency_key} {job.attempt}")
        with chat.stream() as stream:
            stream.write("streamed")
        chat.send({"type": "text", "text": "sent"}, key="k")

    bus = MemoryBus()
    await run(agent, bus)
    assert texts(bus) == [("0", "hi message-1 1"), ("1:start:1", None), ("1", "streamed"), ("key:k", "sent")]
    assert bus.typing[-1][1] is False


async def test_a_sync_handler_whose_job_is_lost_ends_at_its_next_call() -> None:
    reached: list[str] = []
    agent = Agent()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        chat.reply("one")
        reached.append("after the loss")

    assert not await run(agent, MemoryBus(emit_answers={"0": Emitted.FENCED}))
    assert reached == []


@pytest.mark.parametrize("raised", [Retry(3), Fail("no")])
async def test_what_a_handler_says_of_its_job_is_found_inside_of_a_group(raised: Exception) -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        async with trio.open_nursery(), trio.open_nursery():
            raise raised

    with pytest.raises(type(raised)):
        await run(agent, MemoryBus())


async def test_a_handler_that_says_more_than_can_be_sent_waits_for_it(autojump_clock: trio.testing.MockClock) -> None:
    """It would hold everything it says in memory while Redis is away, or slower than it speaks."""
    agent, said, bus = Agent(), list[int](), MemoryBus(away=True)

    @agent.on_message()
    async def talk(message: InboundMessage, chat: Chat) -> None:
        for number in range(5 * MOST_HELD):
            said.append(number)
            await chat.reply(str(number))

    bus.give(job_of())
    async with running(agent, bus):
        await trio.sleep(1)
        assert len(said) <= MOST_HELD
        bus.away = False
        with waiting_for("the job to be finished", 60):
            while not bus.finished:
                await trio.sleep(0.1)
    assert [text for _, text in texts(bus)] == [str(number) for number in range(5 * MOST_HELD)]
