"""What took time is noted and not done again: steps, and those that may be done once, in async and in sync handlers."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
import trio

from bus.records.journal import MOST_ENTRY_BYTES
from bus.steps.job_steps import Finished
from bus.steps.thread_steps import Noted
from bus.transport.wire import RedisDenied, RedisFailed, RedisFull, RedisUnavailable
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of, texts
from workers import Agent, BadStep, BlockingChat, BlockingJob, Chat, ChatClosed, Job, Message, OutcomeUnknown
from workers.kept.thread import BEGUN, Entry
from workers.process.runner import Runner


class Ticket(msgspec.Struct):
    number: int
    day: date


@dataclass
class Place:
    row: int


@dataclass
class Service:
    """Counts how often it is asked; `breaks` so often."""

    calls: int = 0
    breaks: int = 0

    async def start(self, text: str, *, loud: bool = False) -> str:
        await trio.lowlevel.checkpoint()
        return self.start_blocking(text, loud=loud)

    def start_blocking(self, text: str, *, loud: bool = False) -> str:
        self.calls += 1
        if self.calls <= self.breaks:
            raise ConnectionError
        return f"{text} {self.calls}" + "!" * loud


@asynccontextmanager
async def run_of(agent: Agent, bus: MemoryBus, *, deliveries: int = 1) -> AsyncIterator[None]:
    job = job_of(deliveries=deliveries)
    async with running(agent, bus):
        bus.give(job)
        await bus.until(lambda: bus.finished or bus.failed)
        yield
    bus.finished.clear()
    bus.failed.clear()


def steps_of(service: Service, *, once: bool = False) -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(message: Message, chat: Chat, job: Job) -> None:
        call = job.once if once else job.step
        first = await call("start", service.start, message.text)
        second = await call("start", service.start, message.text, loud=True)
        await chat.reply(f"{first}, {second}")
        if job.attempt == 1 and job.deliveries == 1:
            raise ValueError

    return agent


def blocking_steps_of(service: Service, *, once: bool = False) -> Agent:
    agent = Agent()

    @agent.on_message()
    def answer(message: Message, chat: BlockingChat, job: BlockingJob) -> None:
        call = job.once if once else job.step
        first = call("start", service.start_blocking, message.text)
        second = call("start", service.start, message.text, loud=True)
        chat.reply(f"{first}, {second}")
        if job.attempt == 1 and job.deliveries == 1:
            raise ValueError

    return agent


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("make", [steps_of, blocking_steps_of])
async def test_a_step_is_done_in_the_first_run_and_known_in_the_next(make: Callable[..., Agent], once: bool) -> None:
    service, bus = Service(), MemoryBus()
    agent = make(service, once=once)
    async with run_of(agent, bus):
        assert bus.failed[0][1] == "handler_error"
    async with run_of(agent, bus, deliveries=2):
        assert bus.finished
    assert service.calls == 2
    assert {text for _, text in texts(bus)} == {"hi 1, hi 2!"}
    assert bus.journal.keys() == {"start#1", "start#2"}


async def test_what_a_step_raises_is_not_noted_and_it_is_tried_again() -> None:
    service, bus = Service(breaks=1), MemoryBus()
    agent = steps_of(service)
    async with run_of(agent, bus):
        assert bus.failed[0][1] == "handler_error"
        assert bus.journal == {}
    async with run_of(agent, bus, deliveries=2):
        assert texts(bus) == [("0", "hi 2, hi 3!")]


@pytest.mark.parametrize("make", [steps_of, blocking_steps_of])
async def test_a_step_that_may_be_done_once_and_had_begun_is_not_done_again_and_its_message_is_given_up(
    make: Callable[..., Agent],
) -> None:
    service, bus = Service(), MemoryBus(journal={"start#1": BEGUN})
    async with run_of(make(service, once=True), bus, deliveries=2):
        assert bus.failed == [("message-1", "outcome_unknown", None)]
    assert service.calls == 0


async def test_one_whose_note_cannot_be_read_counts_as_begun_and_an_ordinary_step_is_done_again() -> None:
    for once, calls in ((True, 0), (False, 2)):
        service, bus = Service(), MemoryBus(journal={"start#1": b"1"})
        async with run_of(steps_of(service, once=once), bus, deliveries=2):
            assert bool(bus.failed) is once
        assert service.calls == calls


async def test_a_handler_may_catch_that_the_outcome_is_unknown() -> None:
    agent = Agent()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        try:
            await job.once("pay", Service().start, "x")
        except OutcomeUnknown as unknown:
            await chat.reply(f"Did I {unknown.name}?")

    bus = MemoryBus(journal={"pay#1": BEGUN})
    async with run_of(agent, bus, deliveries=2):
        assert texts(bus) == [("0", "Did I pay?")]


def handler_that(does: Callable[[Job], Awaitable[object]], *, fails: bool = False) -> tuple[Agent, list[object]]:
    agent, got = Agent(), list[object]()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        try:
            got.append(await does(job))
        except BadStep as error:
            got.append(str(error))
        if fails and job.deliveries == 1:
            raise ValueError

    return agent, got


def ticket() -> Ticket:
    return Ticket(7, date(2026, 12, 1))


async def place() -> Place:
    return Place(3)


def bare() -> object:
    return Ticket(7, date(2026, 12, 1))


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (ticket, ticket()),
        (place, Place(3)),
        (functools.partial(max, 3, 4), 4),
        (lambda: None, None),
        (lambda: {"a": [1, 2.5, b"x", True]}, {"a": [1, 2.5, b"x", True]}),
        (lambda: datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
async def test_a_later_run_gets_what_the_first_one_got(function: Callable[[], object], result: object) -> None:
    agent, got = handler_that(lambda job: job.step("x", function), fails=True)
    bus = MemoryBus()
    async with run_of(agent, bus):
        pass
    async with run_of(agent, bus, deliveries=2):
        pass
    assert got == [result, result]
    assert type(got[0]) is type(got[1])


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (bare, "annotate"),
        (object, "cannot be kept"),
        (lambda: bytes(MOST_ENTRY_BYTES), "keep it elsewhere"),
    ],
)
async def test_rule_15_a_result_that_cannot_be_kept_is_noted_as_such_and_not_made_again(
    function: Callable[[], object], says: str, once: bool
) -> None:
    calls = []

    def counted() -> object:
        calls.append(1)
        return function()

    agent, got = handler_that(lambda job: (job.once if once else job.step)("x", counted), fails=True)
    bus = MemoryBus()
    async with run_of(agent, bus):
        pass
    async with run_of(agent, bus, deliveries=2):
        pass
    assert len(calls) == 1
    assert got[0] == got[1]
    assert says in str(got[0])


async def test_a_result_that_no_longer_fits_says_what_to_do() -> None:
    entry = msgspec.msgpack.encode(Entry("done", msgspec.Raw(msgspec.msgpack.encode("a text"))))
    agent, got = handler_that(lambda job: job.step("x", ticket))
    async with run_of(agent, MemoryBus(journal={"x#1": entry}), deliveries=2):
        pass
    assert "another name" in str(got[0])


@pytest.mark.parametrize("name", ["", "a b", "ask:1", "x" * 65, "ö"])
async def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    agent, got = handler_that(lambda job: job.step(name, ticket))
    async with run_of(agent, MemoryBus()):
        pass
    assert "1 to 64 characters" in str(got[0])


@pytest.mark.parametrize("way", ["step", "once"])
async def test_what_is_no_function_is_refused_before_anything_is_noted(way: str) -> None:
    """Else a step that may be done once would have begun, and the next run would say that nobody knows whether it was done."""
    seen = list[str]()

    async def work() -> None:
        raise AssertionError("nobody awaits it")

    def use(job: Any, what: object) -> Any:
        return getattr(job, way)("x", what)

    async def answer(job: Job) -> None:
        for what in (work(), 7):
            with pytest.raises(BadStep) as raised:
                await use(job, what)
            seen.append(str(raised.value))

    def blocking(job: BlockingJob) -> None:
        with pytest.raises(BadStep) as raised:
            use(job, 7)
        seen.append(str(raised.value))

    for handler in (answer, blocking):
        agent, bus = Agent(), MemoryBus()
        agent.on_message()(handler)
        async with run_of(agent, bus):
            assert not bus.failed
        assert not bus.journal
    assert len(seen) == 3
    assert all("takes a function and its arguments" in one for one in seen)


async def test_rule_15_without_room_in_the_journal_the_job_fails_with_the_remedy() -> None:
    service, bus = Service(), MemoryBus(note_answers=[Noted.FULL])
    async with run_of(steps_of(service), bus):
        assert bus.failed[0][1] == "journal_full"
    assert service.calls == 1


async def test_rule_15_one_that_may_be_done_once_is_not_begun_without_room_for_its_result() -> None:
    service, bus = Service(), MemoryBus(note_answers=[Noted.FULL])
    async with run_of(steps_of(service, once=True), bus):
        assert bus.failed[0][1] == "journal_full"
    assert service.calls == 0


@pytest.mark.parametrize("make", [steps_of, blocking_steps_of])
@pytest.mark.parametrize(("deliveries", "again_ms"), [(1, 2_000), (3, 8_000), (15, 300_000), (20, 300_000)])
async def test_rule_15_a_full_redis_has_the_job_given_back_which_says_nothing_more(
    make: Callable[..., Agent], deliveries: int, again_ms: int
) -> None:
    service, bus = Service(), MemoryBus(no_notes=RedisFull("OOM"))
    async with run_of(make(service), bus, deliveries=deliveries):
        assert bus.failed == [("message-1", "redis_full", again_ms)]
    assert service.calls == 1
    assert texts(bus) == []


@pytest.mark.parametrize("fault", [RedisUnavailable("gone"), RedisDenied("NOPERM")], ids=["away", "denied"])
async def test_a_step_is_noted_however_long_redis_is_away(
    autojump_clock: trio.testing.MockClock, fault: RedisFailed
) -> None:
    service, bus = Service(), MemoryBus(no_notes=fault)
    async with running(steps_of(service), bus):
        bus.give(job_of(attempt=2, deliveries=2))
        await trio.sleep(120)
        assert (bus.failed, bus.finished, service.calls) == ([], [], 1)
        bus.no_notes = None
        await bus.until(lambda: bus.finished)
    assert texts(bus) == [("0", "hi 1, hi 2!")]


@pytest.mark.parametrize("make", [steps_of, blocking_steps_of])
async def test_rule_15_one_that_may_be_done_once_is_not_begun_in_a_full_redis(make: Callable[..., Agent]) -> None:
    service, bus = Service(), MemoryBus(no_notes=RedisFull("OOM"))
    async with run_of(make(service, once=True), bus):
        assert bus.failed == [("message-1", "redis_full", 2_000)]
    assert service.calls == 0


async def test_rule_15_the_result_of_one_that_may_be_done_once_waits_for_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus = MemoryBus()
    agent = Agent()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        def pay() -> str:
            bus.no_notes = RedisFull("OOM")
            return "paid"

        await chat.reply(await job.once("pay", pay))

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.no_notes)
        await trio.sleep(60)
        assert (bus.failed, bus.finished) == ([], [])
        bus.no_notes = None
        await bus.until(lambda: bus.finished)
    assert texts(bus) == [("0", "paid")]


async def test_rule_15_whoever_hides_behind_a_shield_does_nothing_more_either() -> None:
    service, agent, bus = Service(), Agent(), MemoryBus(no_notes=RedisFull("OOM"))

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        with trio.CancelScope(shield=True):
            try:
                await job.step("x", ticket)
            except BaseException:  # noqa: BLE001 - the defect that is meant
                bus.no_notes = None  # there is room again, and it is too late
                service.calls += 1
            await job.once("pay", service.start, "x")

    async with run_of(agent, bus):
        assert bus.failed == [("message-1", "redis_full", 2_000)]
    assert service.calls == 1


async def test_what_may_be_done_once_is_unknown_where_redis_went_back_since_its_message_came() -> None:
    service, bus = Service(), MemoryBus(note_answers=[Noted.RAISED])
    async with run_of(steps_of(service, once=True), bus):
        assert bus.failed == [("message-1", "outcome_unknown", None)]
    assert service.calls == 0


async def test_rule_15_who_is_done_once_keeps_its_room_while_others_note() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        async def slow() -> str:
            await job.step("beside", ticket)
            return "done"

        await job.once("slow", slow)
        await job.step("after", ticket)

    async with run_of(agent, bus):
        assert bus.finished
    begun, beside, done, after = bus.rooms
    assert begun > MOST_ENTRY_BYTES
    assert beside == begun
    assert done == after == 0


@pytest.mark.parametrize("blocking", [False, True])
async def test_rule_6_what_may_be_done_once_is_finished_and_noted_before_a_stop_takes_effect(blocking: bool) -> None:
    agent, bus, said = Agent(), MemoryBus(), list[str]()
    is_in, may_end = trio.Event(), trio.Event()

    async def slow() -> str:
        is_in.set()
        await may_end.wait()
        return "done"

    if blocking:

        @agent.on_message()
        def answer_blocking(chat: BlockingChat, job: BlockingJob) -> None:
            said.append(job.once("slow", slow))
            chat.reply("never")

    else:

        @agent.on_message()
        async def answer(chat: Chat, job: Job) -> None:
            said.append(await job.once("slow", slow))
            await chat.reply("never")

    async with running(agent, bus) as runner:
        bus.give(job_of())
        await is_in.wait()
        runner.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert bus.handed_back == []
        may_end.set()
        await bus.until(lambda: bus.handed_back)
    assert msgspec.msgpack.decode(bus.journal["slow#1"], type=Entry).kind == "done"
    assert said == ["done"]
    assert texts(bus) == []


async def test_what_a_step_has_done_is_noted_although_it_is_interrupted_meanwhile() -> None:
    agent, bus = Agent(), MemoryBus()
    runners = list[Runner]()

    def stops() -> str:
        runners[0].stop()
        return "done"

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        await job.step("x", stops)
        await chat.reply("never")

    async with running(agent, bus) as runner:
        runners.append(runner)
        bus.give(job_of())
        await bus.until(lambda: bus.handed_back)
    assert msgspec.msgpack.decode(bus.journal["x#1"], type=Entry).kind == "done"
    assert texts(bus) == []


async def test_a_job_that_was_lost_notes_nothing_more() -> None:
    service, bus = Service(), MemoryBus(note_answers=[Noted.FENCED])
    async with running(steps_of(service), bus):
        bus.give(job_of())
        await bus.until(lambda: not bus.note_answers)
    assert (bus.finished, bus.failed, bus.replies, service.calls) == ([], [], [], 1)


async def test_a_job_that_is_used_after_its_handler_has_ended_says_so() -> None:
    agent, kept = Agent(), list[Job]()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        kept.append(job)

    async with run_of(agent, MemoryBus()):
        with pytest.raises(ChatClosed):
            await kept[0].step("x", ticket)


async def test_the_time_of_a_job_is_that_of_its_message() -> None:
    agent, got = Agent(), list[object]()

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        got.append(job.now)

    async with run_of(agent, MemoryBus()):
        pass
    assert got == [datetime(1970, 1, 1, microsecond=1000, tzinfo=UTC)]


async def test_effects_that_were_made_from_what_has_changed_meanwhile_are_made_anew() -> None:
    agent, bus = Agent(), MemoryBus(settle_answers=[Finished.CHANGED])

    @agent.on_message()
    async def answer(chat: Chat, job: Job) -> None:
        job.thread.effects.add("wait", "w", b"record")

    async with run_of(agent, bus):
        assert [(reason, after) for _, reason, after in bus.failed] == [("changed", 50)]
    async with run_of(agent, bus, deliveries=2):
        assert bus.settled == [("done", (("wait", "w", b"record", ""),))]
