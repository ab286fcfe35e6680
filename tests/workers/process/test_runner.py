"""From taking a job to its one end, on a bus in memory."""

import asyncio
import errno
import io
import threading
from typing import Any

import pytest
import trio
import trio.testing

from bus.records.records import SUSPECTED, Job
from bus.steps.job_steps import Emitted, Finished
from bus.steps.policies import APOLOGY
from host.reasons import MORE_DESCRIPTORS
from tests.workers.builders import agent_that, running
from tests.workers.doubles import MemoryBus, job_of, texts
from workers import Agent, Chat, Fail, InboundMessage, Retry
from workers.errors import BadHandler, LLMRefused, WaitOutside
from workers.handling.blocking import BlockingChat
from workers.handling.context import JobContext
from workers.process.logs import kind
from workers.process.vitals import Vitals

SECRET = "the words of a person"


async def test_a_job_is_answered_and_finished_and_let_go() -> None:
    bus = MemoryBus()
    async with running(agent_that(), bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert texts(bus) == [("0", "re: a")]
    assert bus.held == set()


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 5), (3, 30), (4, None)])
async def test_a_handlers_exception_is_a_retry_then_a_dead_letter_and_the_worker_lives(
    attempt: int, seconds: float | None
) -> None:
    bus, output = MemoryBus(), io.StringIO()
    async with running(agent_that(KeyError(SECRET)), bus, output=output):
        bus.give(job_of(attempt=attempt))
        await bus.until(lambda: bus.failed)
        bus.give(job_of(number=2))
        await bus.until(lambda: len(bus.failed) == 2)
    _id, reason, after_ms = bus.failed[0]
    assert reason == "handler_error"
    if seconds is None:
        assert after_ms is None
    else:
        assert after_ms is not None
        assert seconds * 800 <= after_ms <= seconds * 1200
    assert "KeyError" in output.getvalue()
    assert "builders.py:" in output.getvalue()
    assert SECRET not in output.getvalue()


class Panic(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    "raised",
    [
        SystemExit(3),
        asyncio.CancelledError(),
        GeneratorExit(),
        Panic(SECRET),
        BaseExceptionGroup(SECRET, [ValueError(SECRET), Panic(SECRET)]),
    ],
)
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_whatever_a_handler_raises_is_its_own_failure_and_others_go_on(
    raised: BaseException, in_a_thread: bool
) -> None:
    agent, bus, output = Agent(), MemoryBus(), io.StringIO()

    def work(message: InboundMessage) -> None:
        if message.text == "fails":
            raise raised

    async def answer(message: InboundMessage, chat: Chat) -> None:
        work(message)
        await chat.reply("answered")

    agent.on_message()(work if in_a_thread else answer)
    async with running(agent, bus, output=output):
        bus.give(job_of("fails"))
        await bus.until(lambda: bus.failed)
        bus.give(job_of(number=2))
        await bus.until(lambda: bus.finished)
    assert [(one, reason) for one, reason, _ in bus.failed] == [("message-1", "handler_error")]
    assert f"'exception': '{kind(raised)}'" in output.getvalue()
    assert SECRET not in output.getvalue()


async def test_a_cancellation_that_nobody_asked_for_is_a_handlers_failure_and_others_go_on() -> None:
    """One of another scope that was kept and is raised again, say."""
    agent, bus, kept = Agent(), MemoryBus(), list[BaseException]()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                kept.append(cancelled)
                raise
        raise kept[0]

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)


async def test_an_interrupt_at_the_keyboard_is_no_failure_of_a_handlers() -> None:
    bus = MemoryBus()

    async def is_interrupted() -> None:
        async with running(agent_that(KeyboardInterrupt()), bus):
            bus.give(job_of())
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        await is_interrupted()
    assert raised.value.split(KeyboardInterrupt)[1] is None
    assert not bus.failed


async def test_what_two_tasks_of_an_interrupted_handler_raise_on_their_way_out_ends_its_own_job_alone() -> None:
    agent, bus, job = Agent(), MemoryBus(), job_of()

    async def raises_on_its_way_out() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError(SECRET)

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        if message.text == "second":
            await chat.reply("answered")
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raises_on_its_way_out)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            bus.supersede(job)

    async with running(agent, bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
        bus.give(job_of("second", number=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert bus.outcomes == ["superseded", "done"]


async def test_a_worker_in_which_nothing_can_be_opened_any_more_leaves_for_another_once_with_the_remedy() -> None:
    agent, bus, output, exhausted = Agent(), MemoryBus(), io.StringIO(), list[str]()

    def connect(name: str) -> None:
        raise OSError(getattr(errno, name), "an errno's text")

    @agent.on_message()
    async def answer(message: InboundMessage) -> None:
        try:
            connect(message.text)
        except OSError as error:
            raise ConnectionError("of a library's own") from error

    async with running(agent, bus, output=output, exhausted=exhausted):
        for number, text in enumerate(["ECONNREFUSED", "EMFILE", "EMFILE"], 1):
            bus.give(job_of(text, number=number))
            await bus.until(lambda number=number: len(bus.failed) == number)  # type: ignore[misc]  # binds the loop's value
    assert [one.partition(":")[0] for one in exhausted] == ["test_runner.py"]
    assert output.getvalue().count(MORE_DESCRIPTORS) == 2


async def test_retry_and_fail_end_the_job_as_they_say() -> None:
    for raised, takes, expected in [
        (Retry(after_seconds=7), "delivery", ("message-1", "retry_asked", 7000)),
        (WaitOutside(7), "nothing", ("message-1", "waits", 7000)),
        (LLMRefused(401), "attempt", ("message-1", "llm_refused", None)),
        (Fail("no_such_order"), "attempt", ("message-1", "no_such_order", None)),
    ]:
        bus = MemoryBus()
        async with running(agent_that(raised), bus):
            bus.give(job_of())
            await bus.until(lambda bus=bus: bus.failed)  # type: ignore[misc]  # a default binds the loop's value
        assert (bus.failed, bus.taken) == ([expected], [takes])


async def test_a_message_that_no_handler_takes_is_finished() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message("image")
    async def answer(message: InboundMessage, chat: Chat) -> None: ...

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
    assert bus.replies == []


async def test_no_more_jobs_run_at_once_than_there_are_slots(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    began = trio.current_time()
    async with running(agent_that(seconds=10), bus, concurrency=2):
        bus.give(*(job_of(number=number) for number in range(6)))
        await bus.until(lambda: len(bus.finished) == 6)
    assert trio.current_time() - began == pytest.approx(30)


async def test_a_lost_lease_cancels_its_handler_and_ends_the_job_nowhere(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, job = MemoryBus(), job_of()
    async with running(agent_that(seconds=10), bus):
        bus.give(job)
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        bus.lose(job)
        await trio.testing.wait_all_tasks_blocked()
        assert bus.held == set()
        bus.give(job_of(number=2))
        await bus.until(lambda: bus.finished)
    assert bus.finished == ["message-2"]
    assert not (bus.failed)
    assert not (bus.handed_back)


async def test_a_lease_that_is_gone_with_the_end_of_its_job_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, job, output = MemoryBus(), job_of(), io.StringIO()
    finish = bus.finish

    async def finish_and_renew(job: Job, *arguments: Any, **named: Any) -> Finished:
        finished = await finish(job, *arguments, **named)
        bus.lose(job)  # as a renewal says that asks while the answer is on its way
        await trio.lowlevel.checkpoint()
        return finished

    monkeypatch.setattr(bus, "finish", finish_and_renew)
    async with running(agent_that(), bus, output=output, vitals=(vitals := Vitals())):
        bus.give(job)
        await bus.until(lambda: bus.finished)
        await trio.testing.wait_all_tasks_blocked()
    assert vitals.heartbeat(0).jobs_done == 1
    assert output.getvalue() == ""


async def test_redis_may_go_and_come_while_a_job_runs(autojump_clock: trio.testing.MockClock) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=10), bus):
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.held)
        bus.away = True
        await trio.sleep(60)
        assert bus.finished == []
        bus.away = False
        bus.give(job_of(number=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert len(bus.replies) == 2


async def test_a_run_of_a_minute_is_said_once_with_where_it_stands(autojump_clock: trio.testing.MockClock) -> None:
    bus, output = MemoryBus(), io.StringIO()
    agent = Agent()

    @agent.on_message("text")
    async def answer(message: InboundMessage) -> None:
        await trio.sleep(59 if message.text == "short" else 599)

    async with running(agent, bus, output=output, concurrency=2):
        bus.give(job_of("short", number=1), job_of("long", number=2))
        await trio.sleep(600)
        await bus.until(lambda: len(bus.finished) == 2)
    [line] = output.getvalue().splitlines()
    assert line.startswith("job: still runs {'job': 'message-2', 'seconds': 60.0, 'at': 'test_runner.py:")


async def test_sync_handlers_run_side_by_side() -> None:
    agent, bus = Agent(), MemoryBus()
    both = threading.Barrier(2, timeout=10)

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        both.wait()
        chat.reply("met")

    async with running(agent, bus, concurrency=2):
        bus.give(job_of(number=1), job_of(number=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert len(bus.replies) == 2


async def test_a_first_delivery_begins_without_a_question_and_its_end_tells_when(
    autojump_clock: trio.testing.MockClock,  # or a stall of the machine would make it a long run, whose start is told
) -> None:
    bus = MemoryBus()
    async with running(agent_that(), bus):
        bus.give(job_of(number=1), job_of(number=2, deliveries=2))
        await bus.until(lambda: len(bus.finished) == 2)
    assert bus.started == ["message-2"]
    assert [began is not None for began in bus.began] == [job == "message-1" for job in bus.finished]


async def test_what_a_handler_says_last_goes_out_with_the_jobs_end_and_what_it_says_before_goes_out_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("one moment")
        await trio.sleep(10)
        assert texts(bus) == [("0", "one moment")]
        await chat.reply("here it is")

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.finished)
    assert texts(bus) == [("0", "one moment"), ("1", "here it is")]
    assert bus.last == [["1"]]


async def test_what_a_handler_has_said_before_it_fails_is_sent() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("said")
        raise LookupError

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
    assert texts(bus) == [("0", "said")]


async def test_what_a_handler_has_said_before_it_is_interrupted_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    agent, bus, job = Agent(), MemoryBus(), job_of()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("said")
        bus.supersede(job)
        await trio.sleep(10)

    async with running(agent, bus):
        bus.give(job)
        await bus.until(lambda: bus.finished)
    assert (texts(bus), bus.outcomes) == ([("0", "said")], ["superseded"])


async def test_a_job_whose_end_is_being_written_is_not_superseded(autojump_clock: trio.testing.MockClock) -> None:
    """What it says last goes out with its end: it would be lost, and kept as said."""
    agent, bus, job, has_ended = Agent(), MemoryBus(), job_of(), trio.Event()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        await chat.reply("said")
        bus.away = True
        has_ended.set()

    async with running(agent, bus):
        bus.give(job)
        await has_ended.wait()
        await trio.sleep(0.1)
        bus.supersede(job)
        bus.away = False
        await bus.until(lambda: bus.finished)
    assert (texts(bus), bus.outcomes) == ([("0", "said")], ["done"])


async def test_a_superseded_job_is_cancelled_and_ends_as_that(autojump_clock: trio.testing.MockClock) -> None:
    bus, job = MemoryBus(), job_of()
    async with running(agent_that(seconds=10), bus):
        bus.give(job)
        await bus.until(lambda: bus.held)
        await trio.sleep(1)
        bus.supersede(job)
        bus.supersede(job)  # told by the channel and by the renewal
        await bus.until(lambda: bus.finished)
    assert (bus.finished, bus.outcomes) == (["message-1"], ["superseded"])
    assert not bus.replies
    assert not bus.failed
    assert bus.held == set()


async def test_what_waits_is_handled_together_and_the_handler_is_given_the_newest() -> None:
    agent, bus = Agent(when_busy="coalesce"), MemoryBus(together=(job_of("b", number=2).message,))
    seen: list[object] = []

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat, job: JobContext) -> None:
        seen.extend([message.text, [one.text for one in job.messages], job.idempotency_key])

    async with running(agent, bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert seen == ["b", ["a", "b"], "message-1"]


@pytest.mark.parametrize(("retries", "after_ms"), [(False, None), (True, 1000)])
async def test_a_job_over_its_time_limit_ends_as_timeout_and_its_handler_is_cancelled(
    autojump_clock: trio.testing.MockClock, *, retries: bool, after_ms: int | None
) -> None:
    bus = MemoryBus()
    async with running(agent_that(seconds=3600), bus, job_seconds=30, retries_timeouts=retries):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
        await trio.testing.wait_all_tasks_blocked()
        assert bus.held == set()
    [(job_id, reason, wait_ms)] = bus.failed
    assert (job_id, reason) == ("message-1", "timeout")
    assert wait_ms == (None if after_ms is None else pytest.approx(after_ms, rel=0.25))
    assert not bus.finished


async def test_a_job_whose_long_run_could_not_be_attended_to_fails_and_the_next_one_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Broken(MemoryBus):
        async def start(self, job: Job, *more: Any, **named: Any) -> Any:
            if job.job_id == "message-1":
                raise ValueError("a fault of ours")
            return await super().start(job, *more, **named)

    bus = Broken()
    async with running(agent_that(seconds=5), bus):
        bus.give(job_of(number=1), job_of(number=2))
        await bus.until(lambda: bus.failed and bus.finished)
    assert [(job_id, reason) for job_id, reason, _ in bus.failed] == [("message-1", "handler_error")]
    assert bus.finished == ["message-2"]


async def test_a_thread_over_its_time_limit_keeps_its_slot_and_what_it_ends_with_changes_nothing() -> None:
    agent, bus, may_end = Agent(), MemoryBus(), threading.Event()

    @agent.on_message()
    def answer(message: InboundMessage, chat: BlockingChat) -> None:
        assert may_end.wait(10)

    async with running(agent, bus, concurrency=1, job_seconds=0.05):
        bus.give(job_of(number=1))
        await bus.until(lambda: bus.failed)
        bus.give(job_of(number=2))
        assert bus.held == {"1-0"}
        may_end.set()
        await bus.until(lambda: len(bus.finished) == 1)
    assert [reason for _id, reason, _ in bus.failed] == ["timeout"]
    assert bus.finished == ["message-2"]


def company(at_once: list[int], slow: str = "") -> Agent:
    """Returns an agent that takes 10 s for each message, twice that for `slow`, and notes how many ran when one ended."""
    agent, running_now = Agent(), set[str]()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        running_now.add(message.message_id)
        await trio.sleep(20 if message.message_id == slow else 10)
        at_once.append(len(running_now))
        running_now.discard(message.message_id)

    return agent


async def test_a_suspect_runs_alone_and_what_cannot_begin_meanwhile_goes_to_other_workers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus, at_once = MemoryBus(), list[int]()
    async with running(company(at_once), bus, concurrency=3):
        bus.give(job_of(number=1), job_of(number=2))
        await bus.until(lambda: len(bus.held) == 2)
        await trio.sleep(1)
        bus.give(job_of(number=3, strikes=1))
        await bus.until(lambda: len(bus.held) == 3)
        bus.give(job_of(number=4))
        await bus.until(lambda: len(bus.finished) == 4)
    assert bus.finished[2:] == ["message-3", "message-4"]
    assert at_once == [2, 1, 1, 1]
    assert bus.handed_back == []


async def test_suspects_run_few_at_a_time_among_themselves(autojump_clock: trio.testing.MockClock) -> None:
    bus, at_once = MemoryBus(), list[int]()
    async with running(company(at_once, slow="message-2"), bus, concurrency=5):
        bus.give(job_of(number=1), job_of(number=2))
        await bus.until(lambda: len(bus.held) == 2)
        await trio.sleep(1)
        bus.give(*(job_of(number=number, strikes=SUSPECTED) for number in (3, 4, 5)))
        await bus.until(lambda: len(bus.finished) == 5)
        bus.give(job_of(number=6, strikes=SUSPECTED), job_of(number=7), job_of(number=8, strikes=SUSPECTED))
        await bus.until(lambda: len(bus.finished) == 7)
        bus.give(job_of(number=9, strikes=1))
        await bus.until(lambda: len(bus.finished) == 8)
    assert at_once == [2, 1, 2, 1, 1, 1, 1, 1]
    assert sorted(bus.finished[2:4]) == ["message-3", "message-4"]
    assert bus.finished[4:] == ["message-5", "message-6", "message-8", "message-9"]
    assert bus.handed_back == ["message-7"], "to whichever worker is free, and nobody joined who came after it"


async def test_the_sender_of_a_dead_letter_gets_the_apology_that_the_agent_declares() -> None:
    agent, bus = Agent(apology="Something went wrong here."), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        raise Fail("no_such_order")

    async with running(agent, bus):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
    assert texts(bus) == [("!apology", "Something went wrong here.")]


@pytest.mark.parametrize(("apology", "heard"), [(APOLOGY, [("!apology", APOLOGY)]), (None, [])])
async def test_whoever_wrote_what_failed_for_good_is_told_so_unless_the_agent_wants_no_apology(
    apology: str | None, heard: list[tuple[str, str]]
) -> None:
    agent, bus = Agent() if apology else Agent(apology=None), MemoryBus()

    @agent.on_message()
    async def answer(message: InboundMessage, chat: Chat) -> None:
        raise ValueError(message.text)

    async with running(agent, bus):
        bus.give(job_of(attempt=4))
        await bus.until(lambda: bus.failed)
    assert texts(bus) == heard


@pytest.mark.parametrize(
    "wrong",
    [
        {"when_busy": "sometimes"},
        {"when_full": "drop"},
        {"most_waiting": 0},
        {"refusal": ""},
        {"apology": "x" * 3000},
    ],
)
def test_a_policy_that_cannot_be_is_refused_where_it_is_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadHandler):
        Agent(**wrong)


async def test_while_too_much_waits_to_be_sent_a_reply_waits_and_that_is_not_of_the_jobs_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bus = MemoryBus(emit_answers={"0": Emitted.FULL})
    agent = Agent()

    @agent.on_message()
    async def answer(message: Any, chat: Any) -> None:
        await chat.reply("first")
        await trio.sleep(1)
        await chat.reply("second")

    async with running(agent, bus, job_seconds=5.0):
        bus.give(job_of())
        await bus.until(lambda: bus.held)
        await trio.sleep(60)
        assert (bus.finished, bus.failed, bus.replies) == ([], [], [])
        bus.emit_answers.clear()
        await bus.until(lambda: bus.finished)
    assert [text for _, text in texts(bus)] == ["first", "second"]
    assert bus.failed == []


async def test_an_end_for_which_there_is_no_room_waits_and_loses_nothing(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, asked = MemoryBus(), list[str]()
    finish = bus.finish

    async def full_at_first(job: Job, *arguments: Any, **named: Any) -> Finished:
        asked.append(job.job_id)
        return Finished.FULL if len(asked) < 30 else await finish(job, *arguments, **named)

    monkeypatch.setattr(bus, "finish", full_at_first)
    async with running(agent_that(), bus):
        bus.give(job_of("a"))
        await bus.until(lambda: bus.finished)
    assert (texts(bus), len(asked), bus.failed) == ([("0", "re: a")], 30, [])


@pytest.mark.parametrize("shows_errors", [False, True])
async def test_the_log_quotes_a_handlers_error_only_where_that_is_asked_for(
    shows_errors: bool,
) -> None:
    bus, output = MemoryBus(), io.StringIO()
    async with running(agent_that(KeyError(SECRET)), bus, output=output, shows_errors=shows_errors):
        bus.give(job_of())
        await bus.until(lambda: bus.failed)
    assert "KeyError" in output.getvalue()
    assert "builders.py:" in output.getvalue()
    assert (SECRET in output.getvalue(), "Traceback" in output.getvalue()) == (shows_errors, shows_errors)
