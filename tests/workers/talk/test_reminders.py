"""Reminders: set with a handler's end, replaced by their key, refused in words that help; and handlers that are called when one is due."""

import zoneinfo
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from io import StringIO

import msgspec
import pytest

from bus.records.records import NOWHERE, InboundMessage, Job, JobKind
from bus.records.timers import Timer, keyed_id
from bus.steps.thread_steps import TimersThere
from bus.steps.timers import MOST_TIMERS
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of, texts
from workers import Agent, BadHandler, BlockingChat, Chat, Message, Router
from workers import Job as JobOf
from workers.errors import BadReminder, BadReply, HandlerError, TooManyReminders
from workers.talk.reminding import MOST_DATA_BYTES

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000


class Trip(msgspec.Struct):
    to: str
    on: date


def bus_at(count: int = 0, *, is_there: bool = False) -> MemoryBus:
    return MemoryBus(timers=TimersThere(NOW_MS, count, is_there))


async def run(agent: Agent, bus: MemoryBus, job: Job | None = None) -> str:
    """Runs a job to its end; returns the log."""
    log = StringIO()
    async with running(agent, bus, output=log):
        bus.give(job or msgspec.structs.replace(job_of(), accepted_ms=NOW_MS))
        await bus.until(lambda: bus.finished or bus.failed)
    return log.getvalue()


def agent_of(ask: Callable[[Chat], Awaitable[None]]) -> Agent:
    agent = Agent()

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await ask(chat)
        await chat.reply("I will.")

    return agent


async def timers_set_by(ask: Callable[[Chat], Awaitable[None]], bus: MemoryBus | None = None) -> list[Timer]:
    bus = bus or bus_at()
    await run(agent_of(ask), bus)
    [(outcome, effects)] = bus.settled
    assert outcome == "done"
    timers = []
    for operation, timer_id, due_ms, record in effects:
        assert operation == "timer"
        timer = msgspec.msgpack.decode(record, type=Timer)  # type: ignore[arg-type]  # its words are of any kind
        assert (timer.id, timer.due_ms) == (timer_id, due_ms)
        timers.append(timer)
    return timers


async def refused(ask: Callable[[Chat], Awaitable[None]], bus: MemoryBus | None = None) -> HandlerError:
    """What the call raises in a handler, which ends well all the same; nothing is left behind."""
    bus, caught = bus or bus_at(), list[HandlerError]()

    async def ask_and_catch(chat: Chat) -> None:
        with pytest.raises(HandlerError) as raised:
            await ask(chat)
        caught.append(raised.value)

    await run(agent_of(ask_and_catch), bus)
    assert bus.settled == []
    assert texts(bus) == [("0", "I will.")]
    return caught[0]


async def test_after_counts_by_redis_clock_and_each_one_without_a_key_is_another() -> None:
    async def ask(chat: Chat) -> None:
        for minutes in (1, 2):
            await chat.remind("say", after=timedelta(minutes=minutes), data={"what": ["tea", minutes]})

    first, second = await timers_set_by(ask)
    assert (first.due_ms, second.due_ms) == (NOW_MS + 60_000, NOW_MS + 120_000)
    assert first.id != second.id
    assert msgspec.msgpack.decode(first.data) == {"what": ["tea", 1]}
    assert (first.kind, first.name, first.conversation_id) == ("reminder", "say", "conversation-1")
    assert (first.conversation_type, first.sender_id, first.sender_type) == ("h2a", "person", "human")


async def test_set_again_since_redis_went_back_it_is_told_once_though_it_is_due_later() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(minutes=1))
        await chat.remind("say", after=timedelta(minutes=1), key="tea")

    async def set_at(later_ms: int) -> list[Timer]:
        return await timers_set_by(ask, MemoryBus(timers=TimersThere(NOW_MS + later_ms, 0, is_there=False)))

    for first, again in zip(await set_at(0), await set_at(HOUR_MS // 2), strict=True):
        assert again.due_ms == first.due_ms + HOUR_MS // 2
        assert again.job_id == first.job_id
        assert again.says_at_ms(again.due_ms) == first.says_at_ms(first.due_ms), "so that what it says has the same ids"
        assert msgspec.structs.replace(first, set_by="another job").job_id != first.job_id


async def test_what_is_due_much_later_says_so_under_its_own_time() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(days=300))
        await chat.remind("digest", daily="08:00", tz="Europe/Berlin")

    for timer in await timers_set_by(ask):
        assert timer.says_at_ms(timer.due_ms) == timer.says_at_ms(timer.due_ms + HOUR_MS) == timer.due_ms
        late_ms = timer.due_ms + 3 * HOUR_MS
        assert timer.says_at_ms(late_ms) == timer.due_ms, "also after a backup of yesterday was restored"
        in_a_group = msgspec.structs.replace(timer, conversation_type="group")
        assert in_a_group.says_at_ms(late_ms) == late_ms
        assert in_a_group.says_at_ms(timer.due_ms + HOUR_MS) == timer.due_ms


async def test_rule_12_a_key_replaces_and_a_daily_one_has_its_name_for_a_key() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("close", after=timedelta(minutes=30), key="lunch")
        await chat.remind("digest", daily="08:00", tz="Europe/Berlin")
        await chat.remind("digest", daily="09:00", tz="Europe/Berlin", key="second")

    close, digest, second = await timers_set_by(ask)
    assert close.id == keyed_id("conversation-1", "lunch")
    assert digest.id == keyed_id("conversation-1", "digest")
    assert second.id == keyed_id("conversation-1", "second")
    assert "lunch" not in repr(close), "a key is the owner's"
    assert datetime.fromtimestamp(digest.due_ms / 1000, UTC) == datetime(2026, 11, 30, 7, tzinfo=UTC)
    assert digest.daily is not None
    assert (digest.daily.at, digest.daily.tz) == ("08:00", "Europe/Berlin")


async def test_at_a_datetime_in_its_own_time_zone() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("say", at=datetime(2026, 12, 1, 8, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo")))
        await chat.remind("say", at=datetime(2026, 12, 1, 8, tzinfo=timezone(timedelta(hours=-5))))

    assert [datetime.fromtimestamp(one.due_ms / 1000, UTC) for one in await timers_set_by(ask)] == [
        datetime(2026, 11, 30, 23, tzinfo=UTC),
        datetime(2026, 12, 1, 13, tzinfo=UTC),
    ]


async def test_a_time_that_daylight_saving_skips_is_the_first_minute_after_it() -> None:
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")

    async def ask(chat: Chat) -> None:
        await chat.remind("digest", daily="02:30", tz="Europe/Berlin")
        await chat.remind("once", at=datetime(2027, 3, 28, 2, 30, 15, tzinfo=berlin))
        await chat.remind("first", at=datetime(2027, 10, 31, 2, 30, tzinfo=berlin))
        await chat.remind("second", at=datetime(2027, 10, 31, 2, 30, tzinfo=berlin, fold=1))

    before = datetime(2027, 3, 28, 0, 30, tzinfo=UTC)
    timers = await timers_set_by(ask, MemoryBus(timers=TimersThere(round(before.timestamp() * 1000), 0, False)))
    assert [datetime.fromtimestamp(one.due_ms / 1000, UTC) for one in timers] == [
        *[datetime(2027, 3, 28, 1, tzinfo=UTC)] * 2,
        datetime(2027, 10, 31, 0, 30, tzinfo=UTC),
        datetime(2027, 10, 31, 1, 30, tzinfo=UTC),
    ]


async def test_forgetting_drops_it_with_the_end_of_the_handler() -> None:
    bus = bus_at()

    async def ask(chat: Chat) -> None:
        await chat.forget_reminder("lunch")

    await run(agent_of(ask), bus)
    assert bus.settled == [("done", (("drop_timer", keyed_id("conversation-1", "lunch"), "", ""),))]


async def test_a_run_that_fails_sets_none_and_its_next_run_sets_it_once() -> None:
    agent, bus = Agent(), bus_at()

    @agent.on_message()
    async def answer(chat: Chat, job: JobOf) -> None:
        await chat.remind("say", after=timedelta(minutes=1), key="one")
        if job.deliveries == 1:
            raise ValueError

    await run(agent, bus)
    assert bus.failed.pop()[1] == "handler_error"
    assert bus.settled == []
    await run(agent, bus, msgspec.structs.replace(job_of(deliveries=2), accepted_ms=NOW_MS))
    [(_, effects)] = bus.settled
    assert len(effects) == 1


async def test_what_a_handler_had_set_before_it_failed_is_not_set_where_another_answers_for_it() -> None:
    agent, bus = Agent(), bus_at()

    @agent.on_error(ValueError)
    async def sorry(chat: Chat) -> None:
        await chat.remind("again", after=timedelta(hours=1))

    @agent.on_message()
    async def answer(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(minutes=1))
        raise ValueError

    await run(agent, bus)
    [(_, effects)] = bus.settled
    assert [effect[2] for effect in effects] == [NOW_MS + HOUR_MS]


async def test_rule_7_in_a_thread_of_several_jobs_a_reminder_is_set_by_the_first_of_them_alone() -> None:
    bus = bus_at()

    async def ask(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(minutes=1))
        await chat.forget_reminder("lunch")

    await run(agent_of(ask), bus)
    assert len(bus.settled[0][1]) == 2
    # the answer's job, which goes on with this thread: it passes over what the job before it has written
    bus.finished.clear()
    bus.settled.clear()
    await run(agent_of(ask), bus, msgspec.structs.replace(job_of(deliveries=2), job_id="answer", accepted_ms=NOW_MS))
    assert bus.settled == []


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)
REFUSALS = {
    "past": ({"at": NOW - timedelta(hours=2)}, "in the past, by 2:00:00"),
    "naive": ({"at": datetime(2030, 1, 1)}, "has no time zone"),
    "no datetime": ({"at": "tomorrow"}, "at is a datetime, not str"),
    "no date for ever": ({"at": datetime(2999, 1, 1, tzinfo=UTC)}, "at most 100 years"),
    "nothing": ({}, "say when with one of"),
    "two of them": ({"after": timedelta(1), "daily": "08:00", "tz": "UTC"}, "say when with one of"),
    "no time": ({"after": timedelta(0)}, "more than nothing"),
    "before now": ({"after": timedelta(minutes=-1)}, "more than nothing"),
    "for ever": ({"after": timedelta(days=40_000)}, "at most 100 years"),
    "seconds": ({"after": 60}, "after is a timedelta"),
    "no zone": ({"daily": "08:00"}, "in which time zone"),
    "no such zone": ({"daily": "08:00", "tz": "Europe/Berlim"}, "no time zone 'Europe/Berlim'"),
    "no such time": ({"daily": "25:00", "tz": "UTC"}, "00:00 to 23:59"),
    "a zone for after": ({"after": timedelta(1), "tz": "UTC"}, "tz= belongs to daily="),
    "data": ({"after": timedelta(1), "data": object()}, "cannot be kept"),
    "data in a circle": ({"after": timedelta(1), "data": CIRCLE}, "cannot be kept"),
    "much data": ({"after": timedelta(1), "data": "x" * MOST_DATA_BYTES}, "at most 4096 are kept"),
    "key": ({"after": timedelta(1), "key": ""}, "1 to 200 characters"),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_what_cannot_be_set_is_refused_in_words_that_help(what: str) -> None:
    how, words = REFUSALS[what]

    async def ask(chat: Chat) -> None:
        await chat.remind("say", **how)  # type: ignore[arg-type]  # what an owner may get wrong

    error = await refused(ask)
    assert isinstance(error, BadReminder)
    assert words in str(error)


async def test_a_name_that_is_none_is_refused() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("two words", after=timedelta(1))

    assert "1 to 48 characters" in str(await refused(ask))


async def test_a_conversation_has_so_many_and_those_that_replace_one_another_count_once() -> None:
    async def ask(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(1), key="one")

    assert isinstance(await refused(ask, bus_at(MOST_TIMERS)), TooManyReminders)
    assert len(await timers_set_by(ask, bus_at(MOST_TIMERS, is_there=True))) == 1

    async def ask_for_many(chat: Chat) -> None:
        for number in range(5):
            await chat.remind("say", after=timedelta(1), key=f"{number % 2}")

    assert len(await timers_set_by(ask_for_many, bus_at(MOST_TIMERS - 2))) == 5

    async def ask_for_three(chat: Chat) -> None:
        await chat.remind("say", after=timedelta(1))

    async def ask_for_too_many(chat: Chat) -> None:
        for _ in range(3):
            await ask_for_three(chat)

    bus = bus_at(MOST_TIMERS - 2)
    await run(agent_of(ask_for_too_many), bus)
    assert bus.settled == [], "a handler that does not catch it fails, and sets none"


async def test_a_second_run_after_the_time_has_come_sets_it_for_at_once() -> None:
    """The first one died before its end: the second must not fail for it."""
    bus = MemoryBus(timers=TimersThere(NOW_MS + HOUR_MS, 0, is_there=False))

    async def ask(chat: Chat) -> None:
        await chat.remind("say", at=NOW + timedelta(minutes=1))

    [timer] = await timers_set_by(ask, bus)
    assert timer.due_ms == NOW_MS + 60_000


async def test_a_sync_handler_reminds_and_forgets_too() -> None:
    agent, bus = Agent(), bus_at()

    @agent.on_message()
    def answer(chat: BlockingChat) -> None:
        chat.remind("say", after=timedelta(minutes=1), key="one")
        chat.forget_reminder("two")

    await run(agent, bus)
    [(_, effects)] = bus.settled
    assert [effect[0] for effect in effects] == ["timer", "drop_timer"]


# When one is due


def due(name: str, data: object = None, *, late: timedelta = timedelta(0), kind: JobKind = "reminder") -> Job:
    timer = Timer(
        id="id",
        conversation_id="conversation-1",
        due_ms=NOW_MS,
        kind="reminder",
        name=name,
        data=msgspec.msgpack.encode(data),
        conversation_type="h2a",
        sender_id="person",
        sender_type="human",
    )
    accepted_ms = NOW_MS + round(late.total_seconds() * 1000)
    return msgspec.structs.replace(
        job_of(),
        job_id=timer.job_id,
        message=timer.content(),
        accepted_ms=accepted_ms,
        kind=kind,
    )


async def test_its_handler_gets_its_data_and_how_late_it_is() -> None:
    agent, bus, seen = Agent(), MemoryBus(), list[object]()

    @agent.on_message()
    async def others(message: Message) -> None:
        raise AssertionError("no message came")

    @agent.on_reminder("trip", "journey")
    async def trip(chat: Chat, job: JobOf, data: Trip) -> None:
        seen.append((data, job.lateness, chat.members))
        await chat.reply(f"To {data.to}!")

    await run(agent, bus, due("trip", Trip("Rome", date(2026, 12, 1)), late=timedelta(days=2)))
    assert seen == [(Trip("Rome", date(2026, 12, 1)), timedelta(days=2), ("person",))]
    assert texts(bus) == [("0", "To Rome!")]
    assert bus.outcomes == ["done"]


async def test_data_is_converted_and_need_not_be_asked_for() -> None:
    agent, bus, seen = Agent(), MemoryBus(), list[object]()
    router = Router()

    @router.on_reminder("say")
    def say(chat: BlockingChat, data: str) -> None:
        seen.append(data)

    @router.on_reminder("any")
    async def anything(data) -> None:  # type: ignore[no-untyped-def]  # as an owner may write it
        seen.append(data)

    @router.on_reminder("none")
    async def nothing(chat: Chat) -> None:
        seen.append("none")

    @router.on_reminder("perhaps")
    async def perhaps(data: int | None, extra: int = 3) -> None:
        seen.append(data)

    agent.include(router)
    for job in (due("say", "tea"), due("any", [1, "x"]), due("none", {"a": 1}), due("perhaps")):
        await run(agent, bus, job)
        bus.finished.clear()
    assert seen == ["tea", [1, "x"], "none", None]
    assert bus.failed == []


async def test_data_of_another_type_is_an_error_that_names_the_handler_and_not_the_data() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_reminder("trip")
    async def trip(data: Trip) -> None:
        raise AssertionError("it is called with what it cannot be")

    log = await run(agent, bus, due("trip", "secret words"))
    assert bus.failed[0][1] == "handler_error"
    assert "trip asks for other data" in log
    assert "secret" not in log


async def test_in_a_reminder_there_is_no_message_to_quote_or_to_react_to() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_reminder("say")
    async def say(chat: Chat) -> None:
        for call in (lambda: chat.react("👍"), lambda: chat.reply("x", quote=True)):
            with pytest.raises(BadReply, match="no message began this job"):
                await call()
        await chat.react("👍", "message-7")
        await chat.reply("yes", quote="message-7")

    await run(agent, bus, due("say"))
    assert bus.failed == []
    assert len(bus.replies) == 2


async def test_a_reminder_that_nobody_takes_ends_and_is_no_message() -> None:
    agent, bus = Agent(), MemoryBus()

    @agent.on_message()
    async def others(message: Message) -> None:
        raise AssertionError("a reminder is no message")

    await run(agent, bus, due("unknown"))
    assert bus.outcomes == ["no_handler"]


async def test_nobody_can_send_a_reminder() -> None:
    """Its payload type is none of PROTOCOL; whoever sends it gets what any message gets."""
    agent, bus, seen = Agent(), MemoryBus(), list[str]()

    @agent.on_reminder("close")
    async def close(chat: Chat) -> None:
        seen.append("closed")

    @agent.on_message()
    async def others(message: InboundMessage) -> None:
        seen.append("message")

    forged = msgspec.structs.replace(due("close"), kind="message")
    await run(agent, bus, forged)
    assert seen == ["message"]


def test_what_cannot_be_registered_is_refused() -> None:
    agent = Agent()
    with pytest.raises(BadHandler, match="name the reminder"):
        agent.on_reminder()
    with pytest.raises(BadHandler, match="1 to 48 characters"):
        agent.on_reminder("two words")
    with pytest.raises(BadHandler, match="nothing is known that `message"):

        @agent.on_reminder("a")
        async def asks_for_a_message(message: Message) -> None: ...

    with pytest.raises(BadHandler, match="data cannot be converted"):

        @agent.on_reminder("b")
        async def asks_for_a_chat_as_data(data: StringIO) -> None: ...

    @agent.on_reminder("c")
    async def first(chat: Chat) -> None: ...

    with pytest.raises(BadHandler, match="first already takes c"):

        @agent.on_reminder("d", "c")
        async def second(chat: Chat) -> None: ...


# What runs by itself


async def test_a_function_runs_by_itself_in_no_conversation() -> None:
    agent, bus, seen = Agent(), MemoryBus(), list[object]()
    router = Router()

    @router.every(hours=1)
    async def refresh(job: JobOf) -> None:
        seen.append(job.lateness)

    @router.every(minutes=1.5)
    def sweep(chat: BlockingChat) -> None:
        with pytest.raises(BadReply, match="runs in no conversation"):
            chat.reply("hello")
        seen.append("swept")

    agent.include(router)
    name, other = (one.name for one in agent.handlers)
    assert agent.policies.every == {name: 3600, other: 90}
    for one in (name, other):
        timer = Timer(
            id="id", conversation_id=NOWHERE, due_ms=NOW_MS, kind="reminder", name=f"every {one}", every_ms=90_000
        )
        job = msgspec.structs.replace(
            due("x"), conversation_id=NOWHERE, message=timer.content(), accepted_ms=NOW_MS + 1000
        )
        await run(agent, bus, job)
        bus.finished.clear()
    assert seen == [timedelta(seconds=1), "swept"]
    assert bus.failed == []


def test_a_reminder_cannot_have_the_name_of_what_runs_by_itself_and_its_period_has_bounds() -> None:
    agent = Agent()
    for period in ({}, {"seconds": 1}, {"days": 400}, {"hours": -1}):
        with pytest.raises(BadHandler, match="10 seconds to 366 days"):
            agent.every(**period)
    with pytest.raises(BadHandler, match="1 to 48 characters"):
        agent.on_reminder("every refresh")
