"""Handlers that ask (docs/handlers.md): each rule of threads and waits, by the worker's real runner, over the bus in memory and in Redis."""

import enum
import inspect
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing

from bus.records.kept import MOST_WAITS_BYTES, OVERHEAD_BYTES
from bus.records.timers import keyed_id
from bus.steps.job_steps import Finished
from bus.steps.policies import Busy
from bus.steps.recovery import Reclaim
from bus.steps.thread_steps import Effect
from tests.bus.builders import CONVERSATION
from tests.bus.redis_scene import RedisScene
from tests.bus.scenes import MemoryScene, Scene
from tests.redis_server import redis_server
from tests.workers.builders import running
from tests.workers.doubles import MemoryBus, job_of
from tests.workers.doubles import texts as texts_of
from tests.workers.stage import MESSAGE_MS, Heard, Stage
from workers import (
    Agent,
    Answer,
    App,
    Approval,
    BadAsk,
    BadCard,
    BlockingChat,
    Chat,
    Event,
    Field,
    Form,
    History,
    Job,
    Message,
    NoAnswer,
    Store,
)
from workers.kept.words import Words
from workers.process.runner import ANSWER_LOOKED_FOR_MS
from workers.talk.sending import MOST_HELD
from workers.testing import Harness, NoHandler, conversation


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["memory", "redis"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made: Scene = MemoryScene() if request.param == "memory" else RedisScene(request.getfixturevalue("redis_url"))
    yield made
    made.close()


def this_line() -> int:
    """Returns the number of the line that calls it."""
    return inspect.stack(0)[1].lineno


def texts(heard: list[Heard]) -> list[str]:
    return [one.text for one in heard]


def booking(done: list[str] | None = None) -> Agent:
    """HANDLERS.md (c)."""
    agent = Agent()

    @agent.on_command("book")
    async def book(chat: Chat, job: Job) -> None:
        name = await chat.ask("Your name?")
        day = await chat.ask("Which day?", date)
        number = await job.step("number", lambda: len(name))
        if await chat.ask(Approval(f"{name} on {day}?")):
            await job.once("book", lambda: (done if done is not None else []).append(name))
            await chat.reply(f"Booked as {number}.")

    @agent.on_message("text")
    async def other(message: Message, chat: Chat) -> None:
        await chat.reply(f"hm, {message.text}")

    return agent


async def books(stage: Stage) -> None:
    await stage.say("/book")
    await stage.say("Ann")
    await stage.say("tomorrow")
    await stage.say("/help")  # a command passes an open question
    [*_, card] = await stage.say("2026-12-01")
    await stage.press(card, approve=True)
    await stage.say("bye")


BOOKED = [
    "Your name?",
    "Which day?",
    "Please answer with a date, such as 2026-12-31.",
    "hm, /help",
    "Ann on 2026-12-01?",
    "Booked as 3.",
    "hm, bye",
]


async def test_a_conversation_in_steps_is_one_function(scene: Scene) -> None:
    stage = Stage(scene, booking())
    await books(stage)
    assert texts(stage.transcript) == BOOKED
    assert await scene.leftovers() == []
    assert await stage.dead() == []


async def test_what_follows_another_answer_is_never_what_the_relay_has_had(scene: Scene) -> None:
    """Redis may go back to before an answer, and the person, who has heard what followed it, says something else next."""

    agent = Agent()

    @agent.on_command("book")
    async def book(chat: Chat) -> None:
        name = await chat.ask("Your name?")
        await chat.reply(f"Welcome, {name}.")
        await chat.ask("Which day?")

    @agent.on_command("help")
    async def help_them(_chat: Chat) -> None:
        pass

    async def places_after(*said: str) -> list[str]:
        fresh: Scene = MemoryScene() if isinstance(scene, MemoryScene) else RedisScene(scene.url)  # type: ignore[attr-defined]
        stage = Stage(fresh, agent)
        for text in said:
            await stage.say(text)
        fresh.close()
        return [heard.place for heard in stage.transcript]

    once = await places_after("/book", "Ann")
    again = await places_after("/book", "Ann")
    other = await places_after("/book", "/help", "Ben")
    assert once == again, "the same answer is told the same, under the same ids"
    assert len(set(once)) == len(once) == 3
    assert other[0] == once[0], "the question is not asked twice"
    assert set(other[1:]).isdisjoint(once)


async def test_whatever_a_worker_does_when_it_dies_people_get_the_same_and_nothing_is_done_twice(scene: Scene) -> None:
    whole = Stage(scene, booking())
    await books(whole)
    assert whole.points >= 38
    scene.close()
    unknown = 0
    for point in range(0, whole.points, 1 if isinstance(scene, MemoryScene) else 5):
        fresh: Scene = MemoryScene() if isinstance(scene, MemoryScene) else RedisScene(scene.url)  # type: ignore[attr-defined]
        done: list[str] = []
        stage = Stage(fresh, booking(done), dies_at=point)
        await books(stage)
        assert len(done) <= 1
        if "outcome_unknown" in await stage.dead():
            unknown += 1
            assert texts(stage.transcript)[:5] == BOOKED[:5]
        else:
            assert texts(stage.transcript) == BOOKED, point
            assert done == ["Ann"]
            assert await fresh.leftovers() == []
        fresh.close()
    assert unknown <= 3, "only where the worker died within it"


class Order(msgspec.Struct):
    what: str
    many: int = 1


async def test_an_approval_is_yes_or_no_and_a_form_is_a_struct(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("order")
    async def order(chat: Chat) -> None:
        wanted = await chat.ask(Order)
        more = await chat.ask("Anything else?")
        if not await chat.ask(Approval(f"{wanted.many} {wanted.what}, {more}?", title="Order")):
            await chat.reply("Not ordered.")

    stage = Stage(scene, agent)
    [form] = await stage.say("/order")
    assert [field["id"] for field in form.card["fields"]] == ["what", "many"]
    [hint, form] = await stage.answer(form.card_id, {"values": {"what": "tea", "many": "lots"}})
    assert hint.text == "Please look at 'many' again."
    await stage.answer(form.card_id, {"values": {"what": "tea", "many": "2"}})
    [card] = await stage.say("milk")
    assert (card.text, card.artifact["title"]) == ("2 tea, milk?", "Order")
    assert texts(await stage.press(card, approve=False)) == ["Not ordered."]
    assert await scene.leftovers() == []


async def test_who_answers_with_something_else_hears_what_there_is_to_choose_from_and_what_is_missing() -> None:
    class Size(enum.Enum):
        SMALL = "small"
        LARGE = "large"

    agent, drink = Agent(), Literal["tea", "milk"]

    @agent.on_command("order")
    async def order(chat: Chat) -> None:
        await chat.reply(f"{await chat.ask('Which?', drink)}, {await chat.ask('Size?', Size)}")

    @agent.on_command("form")
    async def form(chat: Chat) -> None:
        await chat.ask(Order)

    stage = Stage(MemoryScene(), agent)
    await stage.say("/order")
    assert texts(await stage.say("beer")) == ["Please answer with one of these: tea, milk."]
    assert texts(await stage.say("tea")) == ["Size?"]
    assert texts(await stage.say("huge")) == ["Please answer with one of these: small, large."]
    assert texts(await stage.say("large")) == ["tea, Size.LARGE"]
    [card] = await stage.say("/form")
    [hint, _] = await stage.answer(card.card_id, {"values": {"many": 2}})
    assert hint.text == "Please look at 'what' again."


@pytest.mark.parametrize("kind", [dict, list[int], Answer, Order, "int", 5, int | Order])
async def test_a_type_that_no_text_is_ever_converted_to_is_refused_when_it_is_asked_for(kind: Any) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def answer(chat: Chat) -> None:
        await chat.ask("Which?", kind)

    stage = Stage(MemoryScene(), agent)
    assert "Which?" not in texts(await stage.say("hello"))
    assert await stage.dead() == ["handler_error"]
    assert any("no text is converted to" in line for line in stage.logged)


async def test_a_reminder_that_no_handler_takes_is_logged_by_its_name() -> None:
    agent = Agent()

    @agent.on_message("text")
    async def answer(chat: Chat) -> None:
        await chat.remind("diggest", after=timedelta(minutes=5))

    async with Harness(agent) as chat:
        await chat.say("hello")
        with pytest.raises(NoHandler):
            await chat.advance(minutes=6)
        [(_, values)] = [line for line in chat.log if line[0] == "job: no handler takes this reminder"]
        assert values["name"] == "diggest"


async def test_a_sync_handler_asks_too(scene: Scene) -> None:
    agent = Agent()

    @agent.on_message("text")
    def answer(message: Message, chat: BlockingChat) -> None:
        chat.reply(f"{message.text}, {chat.ask('How many?', int)}")

    stage = Stage(scene, agent)
    assert texts(await stage.say("tea")) == ["How many?"]
    assert texts(await stage.say("3")) == ["tea, 3"]
    assert await scene.leftovers() == []


def asker(question: str | Approval = "Your name?", **named: object) -> Agent:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(f"Hello {await chat.ask(question, **named)}")  # type: ignore[call-overload]  # any of its words

    @agent.on_message("text")
    async def other(message: Message, chat: Chat) -> None:
        await chat.reply(f"hm, {message.text}")

    return agent


async def test_rule_1_a_dead_letter_keeps_the_wait_and_goes_on_where_it_was(scene: Scene) -> None:
    agent, breaks = Agent(), [True]

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        name = await chat.ask("Your name?")
        await chat.reply(f"Hello {name}")
        if breaks:
            raise ValueError
        await chat.reply("bye")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    [hello, apology] = await stage.say("Ann")
    assert hello.text == "Hello Ann"
    assert await stage.dead() == ["handler_error"]
    breaks.clear()
    assert texts(await stage.retry_dead()) == ["bye"]
    assert await scene.leftovers() == []
    assert apology.text


async def test_rule_2_the_first_answer_counts_and_the_next_is_refused_with_a_word(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(str(await chat.ask(Approval("Sure?"))))

    stage = Stage(scene, agent)
    [card] = await stage.say("/ask")
    for approve in ("approved", "rejected"):
        said = {"decision": approve, "question_hash": card.card["question_hash"]}
        artifact = {"subtype": "response", "ref_artifact": card.card_id, "payload": said}
        await stage.accept({"type": "artifact", "artifact": artifact})
    assert texts(await stage.run()) == ["True", "This question is no longer open."]
    assert await scene.leftovers() == []


async def test_rule_2_an_answer_that_came_in_time_counts_although_the_deadline_is_over_when_it_runs(
    scene: Scene,
) -> None:
    stage = Stage(scene, asker())
    [question] = await stage.say("/ask")
    wait_id = await wait_id_of(stage)
    await stage.accept({"type": "text", "text": "Ann"})
    assert texts(await stage.overdue(wait_id)) == ["Hello Ann"]
    assert question.text == "Your name?"
    assert await scene.leftovers() == []


async def test_rule_2_an_answer_that_is_gone_from_redis_ends_its_question_at_the_deadline_and_a_dead_letter_does_not(
    scene: Scene,
) -> None:
    agent, breaks = Agent(), [True]

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        try:
            name = await chat.ask("Your name?")
        except NoAnswer as none:
            await chat.reply(f"nobody: {none.why}")
            return
        if breaks:
            raise ValueError
        await chat.reply(f"Hello {name}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    wait_id = await wait_id_of(stage)
    await stage.say("Ann")
    assert await stage.dead() == ["handler_error"]
    assert await stage.overdue(wait_id) == [], "its answer was in time, and may come back"
    [alarm] = await (await stage.talk_here()).supervisor.timers.due(1 << 53)
    assert (alarm.timer_id, alarm.due_ms) == (wait_id, MESSAGE_MS + ANSWER_LOOKED_FOR_MS), (
        "a day later it is looked at again"
    )
    breaks.clear()
    assert texts(await stage.retry_dead()) == ["Hello Ann"]
    assert await scene.leftovers() == []
    breaks.append(True)
    await stage.say("/ask")
    wait_id = await wait_id_of(stage)
    await stage.say("Ben")
    await scene.lose_dead_letters()
    assert texts(await stage.overdue(wait_id)) == ["nobody: timeout"]
    assert await waits_of(stage) == []
    assert await scene.leftovers() == []


async def wait_id_of(stage: Stage) -> str:
    [wait_id] = await waits_of(stage)
    return wait_id


async def waits_of(stage: Stage) -> list[str]:
    """The open waits, as a worker sees them that has a job of the conversation."""
    await stage.accept({"type": "text", "text": "/look"}, "somebody else")
    worker = await stage.scene.worker("looks")
    job = await worker.take()
    assert job is not None
    found = [wait.id for wait in await worker.steps.open_waits(job)]
    await worker.steps.finish(job)
    return found


async def test_rule_3_what_was_waiting_already_when_the_question_was_asked_is_no_answer(scene: Scene) -> None:
    stage = Stage(scene, asker())
    for text in ("/ask", "and what about tea?"):
        await stage.accept({"type": "text", "text": text})
    assert texts(await stage.run()) == ["Your name?", "hm, and what about tea?"]
    assert texts(await stage.say("Ann")) == ["Hello Ann"]


async def test_rule_3_who_answers_at_once_is_heard_wherever_the_worker_was(scene: Scene) -> None:
    """A question leaves together with its wait: else an answer could come before the wait, and be taken for words that were waiting already."""
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        for number in range(MOST_HELD - 1):  # one more, and what is held goes out at once
            await chat.reply(f"{number}")
        await chat.reply(f"Hello {await chat.ask('Your name?')}")

    expected = [*(f"{number}" for number in range(MOST_HELD - 1)), "Your name?", "Hello Ann"]
    point, points = 0, 1
    while point < points:
        fresh: Scene = MemoryScene() if isinstance(scene, MemoryScene) else RedisScene(scene.url)  # type: ignore[attr-defined]
        stage = Stage(fresh, agent, dies_at=point, at_once={"Your name?": "Ann"})
        await stage.say("/ask")
        assert texts(stage.transcript) == expected, point
        assert await fresh.leftovers() == []
        fresh.close()
        points, point = stage.points, point + (1 if isinstance(scene, MemoryScene) else 3)
    assert points > 1


async def test_rule_4_a_deadline_raises_at_the_ask_and_uncaught_ends_the_job_quietly(scene: Scene) -> None:
    stage = Stage(scene, asker())
    await stage.say("/ask")
    assert await stage.overdue(await wait_id_of(stage)) == []
    assert await stage.dead() == []
    assert texts(await stage.say("Ann")) == ["hm, Ann"]
    assert await scene.leftovers() == []


async def test_rule_4_what_was_overheard_is_an_answer_or_nothing(scene: Scene) -> None:
    stage = Stage(scene, asker())
    assert texts(await stage.overhear("nobody asks")) == []
    await stage.say("/ask")
    assert texts(await stage.overhear("/ask")) == [], "a command passes an open question, and is for nobody"
    assert texts(await stage.overhear("it is Ben's turn", who="ben")) == []
    assert texts(await stage.overhear("Ann")) == ["Hello Ann"]
    assert texts(await stage.overhear("too late")) == []
    assert texts(await stage.say("hello")) == ["hm, hello"]
    assert await scene.leftovers() == []
    assert await stage.dead() == []


async def test_rule_4_each_question_has_a_deadline_that_goes_with_it(scene: Scene) -> None:
    stage = Stage(scene, asker())
    await stage.say("/ask")
    wait_id = await wait_id_of(stage)
    assert await has_deadline(stage, wait_id)
    await stage.say("Ann")
    assert not await has_deadline(stage, wait_id)
    assert await scene.leftovers() == []


async def has_deadline(stage: Stage, wait_id: str) -> bool:
    await stage.accept({"type": "text", "text": "/look"}, "somebody else")
    worker = await stage.scene.worker("looks")
    job = await worker.take()
    assert job is not None
    there = await worker.steps.timers_there(job, wait_id)
    await worker.steps.finish(job)
    return there.is_there


async def test_rule_5_the_handler_is_unwound_by_a_cancellation_and_says_nothing_on_its_way_out(scene: Scene) -> None:
    agent, seen = Agent(), list[str]()

    @agent.on_command("ask")
    async def ask(chat: Chat, job: Job) -> None:
        name = "eaten"
        try:
            name = await chat.ask("Your name?")
        except Exception:  # noqa: BLE001 - it must not see it
            seen.append("exception")
        finally:
            seen.append("finally")
            with trio.CancelScope(shield=True):
                try:
                    await job.step("never", int)
                except BaseException as error:  # noqa: BLE001 - it is told at the next line again
                    seen.append(type(error).__name__)
                await chat.reply("never")
        await chat.reply(f"never {name}")

    stage = Stage(scene, agent)
    assert texts(await stage.say("/ask")) == ["Your name?"]
    assert seen == ["finally", "Suspended"]


async def test_rule_5_code_that_swallows_it_goes_nowhere_and_is_logged(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        try:
            name = await chat.ask("Your name?")
        except BaseException:  # noqa: BLE001 - the defect that is meant
            name = "nobody"
        await chat.reply(f"Hello {name}")

    stage = Stage(scene, agent)
    assert texts(await stage.say("/ask")) == ["Your name?"]
    [line] = [line for line in stage.logged if "let BaseException pass" in line]
    assert "test_thread_rules.py:" in line
    assert texts(await stage.say("Ann")) == ["Hello Ann"]
    assert sum("let BaseException pass" in line for line in stage.logged) == 1


@pytest.mark.parametrize("goes_on", ["asks", "sleeps", "steps", "reminds", "updates", "returns", "shouts"])
async def test_rule_5_whatever_code_does_that_swallows_it_nobody_hears_of_it(scene: Scene, goes_on: str) -> None:
    agent, at = Agent(), list[int]()

    @agent.on_command("ask")
    async def ask(chat: Chat, job: Job) -> None:
        try:
            at.append(this_line() + 1)
            await chat.ask("Your name?")
        except BaseException:  # noqa: BLE001 - the defect that is meant
            with trio.CancelScope(shield=goes_on != "shouts"):
                match goes_on:
                    case "asks":
                        await chat.ask("Your age?", int)
                    case "sleeps":
                        await trio.lowlevel.checkpoint()
                    case "steps":
                        await job.step("x", int)
                    case "reminds":
                        await chat.remind("tea", after=timedelta(days=1), key="tea")
                    case "updates":
                        await chat.update("card", Approval("Sure?"))
                    case "shouts":
                        await chat.reply("never")

    stage = Stage(scene, agent)
    assert texts(await stage.say("/ask")) == ["Your name?"]
    [line] = [line for line in stage.logged if "let BaseException pass" in line]
    assert f"test_thread_rules.py:{at[0]}" in line
    assert len(await waits_of(stage)) == 1
    assert not await has_deadline(stage, keyed_id(CONVERSATION, "tea"))


def test_rule_5_a_sync_handler_that_swallows_it_is_logged_too() -> None:
    agent, at = Agent(), list[int]()

    @agent.on_command("ask")
    def ask(chat: BlockingChat) -> None:
        try:
            at.append(this_line() + 1)
            chat.ask("Your name?")
        except BaseException:  # noqa: BLE001 - the defect that is meant
            at.append(0)

    async def play() -> None:
        stage = Stage(MemoryScene(), agent)
        assert texts(await stage.say("/ask")) == ["Your name?"]
        [line] = [line for line in stage.logged if "let BaseException pass" in line]
        assert f"test_thread_rules.py:{at[0]}" in line

    trio.run(play)


@pytest.mark.parametrize("seconds", [4, 60])
async def test_rule_5_a_handler_that_is_not_unwound_in_five_seconds_has_its_worker_replaced_and_its_wait_stands(
    autojump_clock: trio.testing.MockClock, seconds: int
) -> None:
    agent, bus, replaced, output, at = Agent(), MemoryBus(), list[str](), io.StringIO(), list[int]()

    @agent.on_message()
    async def ask(chat: Chat) -> None:
        try:
            await chat.ask("Your name?")
        finally:
            with trio.CancelScope(shield=True):
                at.append(this_line() + 1)
                await trio.sleep(seconds)

    began = trio.current_time()
    async with running(agent, bus, replaced=replaced, output=output):
        bus.give(job_of())
        await bus.until(lambda: bus.settled)
        assert trio.current_time() - began < 5.1
        await bus.until(lambda: replaced or seconds == 4)
    assert bus.outcomes == ["waiting"]
    assert [text for _, text in texts_of(bus)] == ["Your name?"]
    assert replaced == ([f"test_thread_rules.py:{at[0]}"] if seconds == 60 else [])
    assert ("does not end" in output.getvalue()) is (seconds == 60)


async def test_rule_5_what_a_finally_raises_is_logged_and_the_wait_stands(scene: Scene) -> None:
    agent, breaks = Agent(), [True]

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        try:
            name = await chat.ask("Your name?")
        finally:
            if breaks:
                breaks.clear()
                raise LookupError
        await chat.reply(f"Hello {name}")

    stage = Stage(scene, agent)
    assert texts(await stage.say("/ask")) == ["Your name?"]
    assert any("LookupError" in line for line in stage.logged)
    assert not any("let BaseException pass" in line for line in stage.logged)
    assert texts(await stage.say("Ann")) == ["Hello Ann"]


async def test_rule_6_ask_does_not_wait_within_a_time_limit_or_a_step(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("limit")
    async def limit(chat: Chat) -> None:
        with trio.move_on_after(60):
            await chat.ask("Your name?")

    @agent.on_command("step")
    async def step(chat: Chat, job: Job) -> None:
        async def within() -> str:
            return await chat.ask("Your name?")

        await job.step("x", within)

    stage = Stage(scene, agent)
    for command, says in (("/limit", "timeout="), ("/step", "within a step")):
        await stage.say(command)
        assert any(says in line for line in stage.logged)
    assert "Your name?" not in texts(stage.transcript)


async def test_rule_6_steps_that_run_beside_an_ask_are_noted_before_the_run_ends(scene: Scene) -> None:
    agent, calls = Agent(), list[str]()
    began = trio.Event()

    @agent.on_command("ask")
    async def ask(chat: Chat, job: Job) -> None:
        async def slow() -> str:
            calls.append("slow")
            began.set()
            await trio.sleep(0.02)
            return "noted"

        async def beside() -> None:
            calls.append(await job.step("slow", slow))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside)
            await began.wait()
            name = await chat.ask("Your name?", key="name")
        await chat.reply(f"Hello {name}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    assert texts(await stage.say("Ann")) == ["Hello Ann"]
    assert calls.count("slow") == 1


async def test_rule_6_no_step_begins_while_an_ask_waits_for_those_that_run(scene: Scene) -> None:
    agent, calls = Agent(), list[str]()
    began = trio.Event()

    @agent.on_command("ask")
    async def ask(chat: Chat, job: Job) -> None:
        async def within() -> str:
            calls.append("within")
            return "within"

        async def slow() -> str:
            began.set()
            await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.step, "within", within)
            return "slow"

        async def busy(name: str) -> None:
            """There is always a step that runs: one of these begins before the other ends."""
            for _ in range(100):
                await job.step(name, trio.sleep, 0.002)
                calls.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.step, "slow", slow)
            nursery.start_soon(busy, "a")
            nursery.start_soon(busy, "b")
            await began.wait()
            name = await chat.ask("Your name?", key="name")
            nursery.cancel_scope.cancel()
        await chat.reply(f"Hello {name}")

    stage = Stage(scene, agent)
    assert texts(await stage.say("/ask")) == ["Your name?"]
    assert calls.count("a") + calls.count("b") < 100
    assert calls.count("within") == 1, "what belongs to a step that runs goes on"
    assert texts(await stage.say("Ann")) == ["Hello Ann"]


async def test_rule_7_a_state_that_was_changed_before_an_ask_is_refused(scene: Scene) -> None:
    class Count(msgspec.Struct):
        number: int = 0

    agent = Agent(state=Count)

    @agent.on_command("ask")
    async def ask(chat: Chat, state: Count) -> None:
        state.number += 1
        await chat.ask("Your name?")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    assert any("after the last ask" in line for line in stage.logged)
    assert "Your name?" not in texts(stage.transcript)


async def test_rule_9_code_that_no_longer_asks_is_diverged_and_goes_on_when_it_asks_again(scene: Scene) -> None:
    stage = Stage(scene, asker())
    await stage.say("/ask")
    stage.agent = asker("What is your name?")
    await stage.say("Ann")
    assert await stage.dead() == ["diverged"]
    stage.agent = asker()
    assert texts(await stage.retry_dead()) == ["Hello Ann"]
    assert await scene.leftovers() == []


async def test_rule_9_code_that_ends_without_its_answer_is_diverged_and_a_key_names_a_question(scene: Scene) -> None:
    stage = Stage(scene, asker(key="name"))
    await stage.say("/ask")
    stage.agent = named_as(asker().handlers[0].full_name)
    await stage.say("Ann")
    assert await stage.dead() == ["diverged"]
    stage.agent = asker("What is your name, please?", key="name")
    assert texts(await stage.retry_dead()) == ["Hello Ann"]


def named_as(full_name: str) -> Agent:
    """An agent whose handler of this name asks nothing."""
    agent = Agent()

    async def ask(chat: Chat) -> None:
        """Says nothing any more."""

    ask.__module__, ask.__qualname__ = full_name.split(":")
    agent.on_command("ask")(ask)
    return agent


def approves(words: str, *, key: str | None = None, **made_anew: object) -> Agent:
    """An agent that has something approved."""
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(str(await chat.ask(Approval(words, **made_anew), key=key)))  # type: ignore[arg-type]  # any of its fields

    return agent


def stoppable(stages: list[Stage], ran: list[str], *, presses: bool = False) -> Agent:
    """Exports in a block with a Stop button, which says something and, with `presses`, has the button pressed; and asks behind it."""
    agent = Agent()

    @agent.on_command("export")
    async def export(chat: Chat, job: Job) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            ticket = await job.step("ticket", lambda: "t-1")
            await chat.reply("It takes a while.")
            if presses:
                await stages[0].press_stop(bar.id)
                await trio.sleep(60)
            ran.append("the whole block")
        await chat.reply(f"{ticket} stopped." if bar.cancelled else f"{ticket} done.")
        why = await chat.ask("Why?")
        await chat.reply(f"{'Stopped' if bar.cancelled else 'Done'}: {why}")

    return agent


def words(heard: Iterable[Heard]) -> list[str]:
    """Without the cards that show how far something is."""
    return [one.text for one in heard if not one.reply.payload.get("artifact")]


async def test_rule_8_a_block_that_was_stopped_is_stopped_in_each_later_run(scene: Scene) -> None:
    stages, ran = list[Stage](), list[str]()
    stages.append(stage := Stage(scene, stoppable(stages, ran, presses=True)))
    assert words(await stage.say("/export")) == ["It takes a while.", "t-1 stopped.", "Why?"]
    assert stage.transcript[-3].card["status"] == "cancelled"
    assert [one.text for one in await stage.say("too slow")] == ["Stopped: too slow"], "nothing of it is shown anew"
    assert ran == []


async def test_rule_8_what_is_said_behind_a_stopped_block_is_heard_wherever_its_worker_dies() -> None:
    stages, ran = list[Stage](), list[str]()
    whole = Stage(MemoryScene(), stoppable(stages, ran, presses=True))
    stages.append(whole)
    await whole.say("/export")
    for point in range(whole.points):
        stages[0] = Stage(MemoryScene(), stoppable(stages, ran, presses=True), dies_at=point)
        await stages[0].say("/export")
        await stages[0].say("too slow")
        *within, first, second, third = words(stages[0].transcript)
        assert [first, second, third] == ["t-1 stopped.", "Why?", "Stopped: too slow"]
        assert within in ([], ["It takes a while."]), "it was stopped before or behind that"


async def test_rule_8_a_stop_that_comes_behind_the_end_of_its_block_changes_nothing_in_a_later_run() -> None:
    """Each death, and the button is pressed before another worker goes on."""
    ran, ends = list[str](), set[str]()
    whole = Stage(MemoryScene(), stoppable([], ran))
    await whole.say("/export")
    for point in range(whole.points):
        stage = Stage(MemoryScene(), stoppable([], ran), dies_at=point)

        async def presses(heard: Heard, stage: Stage = stage) -> None:
            if heard.card.get("status") == "starting" and stage.lives == 1:
                await stage.press_stop(heard.card_id)

        stage.on_heard = presses
        *within, end, asked = [one for one in words(await stage.say("/export")) if one != Words().not_open]
        assert (within, asked) in [([], "Why?"), (["It takes a while."], "Why?")]
        assert words(await stage.say("so")) == [{"t-1 done.": "Done: so", "t-1 stopped.": "Stopped: so"}[end]]
        ends.add(end)
    assert ends == {"t-1 done.", "t-1 stopped."}, "both come up"


async def test_rule_8_a_card_that_was_shown_before_an_ask_is_stopped_before_its_first_update(scene: Scene) -> None:
    agent, stages = Agent(), list[Stage]()

    @agent.on_command("export")
    async def export(chat: Chat) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            await chat.ask("Which format?")
            await stages[0].press_stop(bar.id)
            await trio.sleep(60)
        await chat.reply("Stopped." if bar.cancelled else "Done.")

    stages.append(stage := Stage(scene, agent))
    await stage.say("/export")
    heard = await stage.say("pdf")
    assert [one.card.get("status") or one.text for one in heard] == ["starting", "cancelled", "Stopped."]
    assert await scene.leftovers() == []


async def test_rule_8_a_block_that_has_ended_is_shown_as_it_ended_and_not_anew_where_what_follows_it_fails(
    scene: Scene,
) -> None:
    agent = Agent()

    @agent.on_command("export")
    async def export(chat: Chat, job: Job) -> None:
        async with chat.progress("Exporting", cancel="Stop") as bar:
            await bar.update(50)
        if job.attempt == 1:
            raise KeyError
        await chat.reply("Done.")

    heard = await Stage(scene, agent).say("/export")
    assert [one.card.get("status") or one.text for one in heard] == ["starting", "done", "Done."]


async def test_rule_8_a_block_that_failed_is_tried_again_by_the_next_run(scene: Scene) -> None:
    agent, tries = Agent(), list[int]()

    @agent.on_command("export")
    async def export(chat: Chat, job: Job) -> None:
        async with chat.progress("Exporting", cancel="Stop"):
            tries.append(job.attempt)
            if job.attempt == 1:
                raise KeyError
        await chat.reply("Done.")

    stage = Stage(scene, agent)
    heard = await stage.say("/export")
    assert tries == [1, 2]
    assert [one.card.get("status") or one.text for one in heard] == ["starting", "failed", "done", "Done."]


@pytest.mark.parametrize("key", [None, "delete"])
async def test_rule_9_what_was_approved_is_what_was_read_also_under_a_key(scene: Scene, key: str | None) -> None:
    stage = Stage(scene, approves("Delete a?", key=key))
    [card] = await stage.say("/ask")
    stage.agent = approves("Delete everything?", key=key)
    await stage.press(card, approve=True)
    assert await stage.dead() == ["diverged"]
    stage.agent = approves("Delete a?", key=key)
    assert texts(await stage.retry_dead()) == ["True"]
    assert await scene.leftovers() == []


async def test_rule_9_what_each_run_makes_anew_makes_no_other_question_of_it(scene: Scene) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    stage = Stage(scene, approves("Sure?", expires_at=soon, severity="high"))
    [card] = await stage.say("/ask")
    stage.agent = approves("Sure?", expires_at=soon + timedelta(seconds=9), severity="low")
    assert texts(await stage.press(card, approve=True)) == ["True"]
    assert await scene.leftovers() == []


def fills_in(*fields: Field, title: str = "Order") -> Agent:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(str(await chat.ask(Form(list(fields), title))))

    return agent


WHAT = Field(id="what", label="What?")


@pytest.mark.parametrize(
    ("after", "is_same"),
    [
        (fills_in(msgspec.structs.replace(WHAT, default="tea", placeholder="tea, say")), True),
        (fills_in(msgspec.structs.replace(WHAT, label="What else?")), False),
        (fills_in(msgspec.structs.replace(WHAT, type="date")), False),
        (fills_in(WHAT, Field(id="more", label="More")), False),
        (fills_in(WHAT, title="Another order"), False),
    ],
    ids=["the default", "a label", "a type", "a field more", "the title"],
)
async def test_rule_9_forms_are_compared_by_what_they_ask(after: Agent, is_same: bool) -> None:
    stage = Stage(MemoryScene(), fills_in(WHAT))
    [form] = await stage.say("/ask")
    stage.agent = after
    heard = texts(await stage.answer(form.card_id, {"values": {"what": "tea"}}))
    assert (heard, await stage.dead()) == ((["{'what': 'tea'}"], []) if is_same else (heard, ["diverged"]))


@pytest.mark.parametrize(("after", "is_same"), [(asker("How many?", kind=int), True), (asker("How many?"), False)])
async def test_rule_9_texts_are_compared_by_their_words_and_what_is_wanted(after: Agent, is_same: bool) -> None:
    stage = Stage(MemoryScene(), asker("How many?", kind=int))
    await stage.say("/ask")
    stage.agent = after
    await stage.say("3")
    assert await stage.dead() == ([] if is_same else ["diverged"])


async def test_rule_9_an_open_approval_is_not_updated(scene: Scene) -> None:
    agent, refused = Agent(), list[str]()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(str(await chat.ask(Approval("Delete a?"))))

    @agent.on_message("text")
    async def change(message: Message, chat: Chat) -> None:
        try:
            await chat.update(message.text, {"body": "Pay?"})
        except BadCard as error:
            refused.append(str(error))

    stage = Stage(scene, agent)
    [card] = await stage.say("/ask")
    assert await stage.say(card.card_id) == []
    assert refused == ["an approval stays as it was asked; say what became of it with chat.reply()"]
    assert texts(await stage.press(card, approve=True)) == ["True"]


async def test_rule_9_an_answer_under_a_key_is_not_lost_where_other_questions_with_keys_come_first(
    scene: Scene,
) -> None:
    def made(*keys: str) -> Agent:
        agent = Agent()

        async def ask(chat: Chat) -> None:
            for key in keys:
                await chat.reply(f"{key}: {await chat.ask(f'{key}?', key=key)}")

        ask.__qualname__ = "ask"
        agent.on_command("ask")(ask)
        return agent

    stage = Stage(scene, made("name"))
    await stage.say("/ask")
    stage.agent = made("day", "name")
    assert texts(await stage.say("Ann")) == ["day?"]
    stage.agent = made("day")
    await stage.say("Sunday")
    assert await stage.dead() == ["diverged"], "it ends without the answer that it had before"
    stage.agent = made("day", "name")
    assert texts(await stage.retry_dead())[-1:] == ["name: Ann"]
    assert await scene.leftovers() == []


@pytest.mark.parametrize("why", ["diverged", "handler_gone"])
async def test_rule_10_what_another_version_may_go_on_with_comes_back_until_there_is_none(
    scene: Scene, why: str
) -> None:
    stage = Stage(scene, asker(), is_beside_another_version=True)
    await stage.say("/ask")
    stage.agent = asker("What is your name?") if why == "diverged" else booking()
    await stage.say("Ann")
    for seconds in (30, 60, 120):
        assert await stage.waits_over(seconds - 1) == []
        assert await stage.waits_over(2) == []
        assert await stage.dead() == []
    assert sum("the handler failed" in line for line in stage.logged) == 7
    stage.agent = asker()
    assert texts(await stage.waits_over(300)) == ["Hello Ann"]
    assert await scene.leftovers() == []


async def test_rule_10_where_there_is_no_other_version_any_more_it_is_a_dead_letter(scene: Scene) -> None:
    stage = Stage(scene, asker(), is_beside_another_version=True)
    await stage.say("/ask")
    stage.agent = booking()
    await stage.say("Ann")
    assert await stage.dead() == []
    stage.is_beside_another_version = False
    await stage.waits_over(31)
    assert await stage.dead() == ["handler_gone"]
    stage.agent = asker()
    assert texts(await stage.retry_dead()) == ["Hello Ann"]


async def test_rule_10_a_handler_that_is_gone_is_a_dead_letter_that_can_be_retried(scene: Scene) -> None:
    stage = Stage(scene, asker())
    await stage.say("/ask")
    stage.agent = booking()
    await stage.say("Ann")
    assert await stage.dead() == ["handler_gone"]
    stage.agent = asker()
    assert texts(await stage.retry_dead()) == ["Hello Ann"]
    assert await scene.leftovers() == []


@pytest.mark.parametrize("before", [0, 1, 2, 3])
async def test_rule_9_new_code_may_say_more_or_less_before_an_open_question(scene: Scene, before: int) -> None:
    def made(count: int) -> Agent:
        agent = Agent()

        async def ask(chat: Chat, job: Job) -> None:
            for number in range(count):
                await chat.reply(f"hello {number}")
            if count != 1:
                await job.step("new", lambda: 1)
            await chat.reply(f"Hi {await chat.ask('Your name?')}")
            await chat.reply("bye")

        ask.__qualname__ = "ask"
        agent.on_command("ask")(ask)
        return agent

    stage = Stage(scene, made(1))
    await stage.say("/ask")
    stage.agent = made(before)
    assert texts(await stage.say("Ann"))[-2:] == ["Hi Ann", "bye"]


async def test_rule_11_cancel_ends_the_question(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        try:
            await chat.ask("Your name?")
        except NoAnswer as none:
            await chat.reply(f"Never mind: {none.why}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    assert texts(await stage.say("/cancel")) == ["Never mind: cancelled"]
    assert await scene.leftovers() == []


async def test_rule_11_three_answers_that_do_not_fit_end_it(scene: Scene) -> None:
    stage = Stage(scene, asker("How old?", kind=int, again="A number, please."))
    await stage.say("/ask")
    heard = [texts(await stage.say(text)) for text in ("old", "very old", "older")]
    assert heard == [["A number, please."], ["A number, please."], []]
    assert await scene.leftovers() == []


async def test_rule_11_the_eleventh_open_question_of_a_conversation_is_refused_before_it_is_shown(scene: Scene) -> None:
    stage = Stage(scene, asker())
    for number in range(11):
        heard = await stage.say("/ask")
        assert ("Your name?" in texts(heard)) is (number < 10)
    assert any("TooManyWaits" in line for line in stage.logged)
    assert len(await waits_of(stage)) == 10


async def leaves(stage: Stage, seq: int, effect: Effect) -> None:
    """A job of another conversation does."""
    talk, worker = await stage.talk_here(), await stage.scene.worker("elsewhere")
    await talk.accept(seq, conversation="elsewhere")
    job = await worker.take()
    assert job is not None
    assert await worker.steps.settle(job, "done", [effect]) is Finished.DONE


@pytest.mark.parametrize("left", [300, 700])
async def test_rule_15_what_has_no_room_among_all_waits_is_a_dead_letter_that_comes_back_when_there_is_some(
    scene: Scene, left: int
) -> None:
    stage = Stage(scene, asker())
    await leaves(stage, 1, ("wait", "w", bytes(MOST_WAITS_BYTES - OVERHEAD_BYTES - left), ""))
    assert "Your name?" not in texts(await stage.say("/ask"))
    assert any("WaitsFull" in line for line in stage.logged)
    assert await stage.dead() == ["waits_full"]
    await leaves(stage, 2, ("drop_wait", "w", "", ""))
    assert texts(await stage.retry_dead()) == ["Your name?"]
    assert texts(await stage.say("Ann")) == ["Hello Ann"]


@pytest.mark.parametrize("left", [300, 1 << 20])
async def test_rule_15_a_card_that_could_not_be_waited_for_is_not_shown(left: int) -> None:
    bus, agent = MemoryBus(open_waits_bytes=MOST_WAITS_BYTES - left), asker(Approval("Go on?"))
    async with running(agent, bus):
        bus.give(job_of("/ask", attempt=4))
        await bus.until(lambda: bus.failed or bus.settled)
    is_shown = left > 300
    cards = [reply for _, reply in bus.replies if "artifact" in reply.payload]
    assert ([reason for _, reason, _ in bus.failed], len(cards)) == ([] if is_shown else ["waits_full"], is_shown)


async def test_rule_11_who_was_not_asked_is_told_so_and_may_talk_of_other_things(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(str(await chat.ask(Approval("Sure?"))))

    @agent.on_message("text")
    async def other(message: Message, chat: Chat) -> None:
        await chat.reply(f"hm, {message.text}")

    stage = Stage(scene, agent)
    [card] = await stage.say("/ask")
    assert texts(await stage.press(card, who="ben", approve=True)) == ["This question is for somebody else."]
    assert texts(await stage.say("yes", who="ben")) == ["hm, yes"]
    assert texts(await stage.press(card, approve=True, question_hash="0" * 64)) == [
        "This answers another question than the one that was asked. Please look at the card again."
    ]
    assert texts(await stage.press(card, approve=True)) == ["True"]
    assert texts(await stage.press(card, approve=True)) == ["This question is no longer open."]
    assert texts(await stage.answer("unknown", {"action": "x"})) == ["This question is no longer open."]


async def test_rule_11_without_anybody_who_wrote_an_ask_says_whom(scene: Scene) -> None:
    stage = Stage(scene, asker(who=["ben"]))
    await stage.say("/ask")
    assert texts(await stage.say("Ann")) == ["hm, Ann"]
    assert texts(await stage.say("Ben", who="ben")) == ["Hello Ben"]


@pytest.mark.parametrize("busy", ["interrupt", "coalesce"])
async def test_rule_3_an_answer_is_handled_to_its_end_and_alone_whatever_else_is_said(scene: Scene, busy: Busy) -> None:
    agent = Agent(when_busy=busy)

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(f"Hello {await chat.ask('Your name?')}")

    @agent.on_message("text")
    async def other(message: Message, chat: Chat) -> None:
        await chat.reply(f"hm, {message.text}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    for text in ("Ann", "and more"):
        await stage.accept({"type": "text", "text": text})
    assert texts(await stage.run()) == ["Hello Ann", "hm, and more"]
    assert await scene.leftovers() == []


async def test_rule_3_an_answer_is_nobodys_company_and_neither_is_a_command(scene: Scene) -> None:
    agent = Agent(when_busy="coalesce")

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(f"Hello {await chat.ask('Your name?', who=['ann'])}")

    @agent.on_message("text")
    async def other(message: Message, chat: Chat, job: Job) -> None:
        await chat.reply(f"hm, {' and '.join(one.text for one in job.messages)}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    for who, text in (
        ("ben", "one"),
        ("ben", "two"),
        ("ann", "Ann"),
        ("ben", "three"),
        ("ben", "/ask"),
        ("ben", "four"),
    ):
        await stage.accept({"type": "text", "text": text}, who)
    assert texts(await stage.run()) == ["hm, one and two", "Hello Ann", "hm, three", "Your name?", "hm, four"]
    assert texts(await stage.say("Ann")) == ["Hello Ann"]
    assert await scene.leftovers() == []


async def test_rule_3_whoever_hears_a_card_that_asks_can_answer_it_also_where_its_worker_died_and_they_said_something_else() -> (
    None
):
    agent = Agent(when_busy="interrupt")

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply("Well.")
        await chat.reply(f"Sure: {await chat.ask(Approval('Sure?'))}")

    @agent.on_message("text")
    async def other(chat: Chat) -> None:
        await chat.reply("hm")

    whole = Stage(MemoryScene(), agent, at_once={"Sure?": "hello"})
    await whole.say("/ask")
    for point in range(whole.points):
        stage = Stage(scene := MemoryScene(), agent, dies_at=point, at_once={"Sure?": "hello"})
        [card] = [heard for heard in await stage.say("/ask") if heard.card]
        assert texts(await stage.press(card, approve=True)) == ["Sure: True"]
        assert texts(stage.transcript) == ["Well.", "Sure?", "hm", "Sure: True"]
        assert await scene.leftovers() == []


async def test_rule_10_a_question_that_this_version_cannot_read_costs_its_answer_a_dead_letter_and_not_the_worker(
    scene: Scene,
) -> None:
    stage = Stage(scene, asker())
    await stage.accept({"type": "text", "text": "/hello"})
    worker = await scene.worker("of a later version")
    job = await worker.take()
    assert job is not None
    record = worker.steps.seal_wait(job, "w", msgspec.msgpack.encode({"later": True}))
    await worker.steps.settle(job, "waiting", [("wait", "w", record, "")])
    await stage.say("Ann")
    assert await stage.dead() == ["handler_gone"]


async def test_asks_in_a_nursery_with_keys_come_one_after_the_other(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        got = {}

        async def one(key: str) -> None:
            got[key] = await chat.ask(Approval(f"{key}?"), key=key)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "a")
            nursery.start_soon(one, "b")
        await chat.reply(str(sorted(got.items())))

    stage = Stage(scene, agent)
    [first] = await stage.say("/ask")
    [second] = await stage.press(first, approve=True)
    assert {first.text, second.text} == {"a?", "b?"}
    [last] = await stage.press(second, approve=True)
    assert last.text == "[('a', True), ('b', True)]"
    assert await scene.leftovers() == []


async def test_a_question_that_is_open_too_long_is_refused(scene: Scene) -> None:
    stage = Stage(scene, asker(timeout=timedelta(days=31)))
    await stage.say("/ask")
    assert any("at most 30 days" in line for line in stage.logged)


def asks_twice() -> Agent:
    agent = asker()

    @agent.on_command("age")
    async def age(chat: Chat) -> None:
        await chat.reply(f"Age {await chat.ask('Your age?')}")

    return agent


async def test_rule_11_of_two_open_questions_the_quoted_one_is_answered_else_the_newest(scene: Scene) -> None:
    for quotes, answered in ((None, "Age 33"), (1, "Age 33"), (0, "Hello 33")):
        stage = Stage(scene, asks_twice())
        questions = [*await stage.say("/ask"), *await stage.say("/age")]
        quote = None if quotes is None else questions[quotes]
        assert texts(await stage.say("33", quote=quote)) == [answered]
        await stage.say("the other")
        assert await scene.leftovers() == []
        scene.close()
        scene = MemoryScene() if isinstance(scene, MemoryScene) else RedisScene(scene.url)  # type: ignore[attr-defined]


async def test_rule_11_cancel_ends_the_newest_question_or_the_one_that_it_quotes(scene: Scene) -> None:
    stage = Stage(scene, asks_twice())
    [name] = await stage.say("/ask")
    await stage.say("/age")
    await stage.say("/age")
    assert await stage.say("/cancel", quote=name) == []
    assert await stage.say("/cancel") == []
    assert texts(await stage.say("33")) == ["Age 33"]
    assert texts(await stage.say("/cancel")) == ["hm, /cancel"], "nothing is open: it is a text as any other"


async def test_rule_11_a_late_or_unknown_answer_is_given_to_no_handler_whatever_that_takes(scene: Scene) -> None:
    agent, given = Agent(), list[str]()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.reply(f"Hello {await chat.ask(Form([WHAT]))}")

    @agent.on_command("card")
    async def card(chat: Chat) -> None:
        await chat.reply(Form([WHAT]))

    @agent.on_artifact_response()
    async def answered(answer: Answer) -> None:
        given.append(answer.card_id)

    @agent.on_message()
    async def rest() -> None:
        given.append("rest")

    stage = Stage(scene, agent)
    [form] = await stage.say("/ask")
    await stage.overdue(form.card_id)
    [other] = await stage.say("/card")
    said = {"values": {"what": "tea"}}
    for card_id in (form.card_id, "01ARZ3NDEKTSV4RRFFQ69G5FAV", ""):
        assert texts(await stage.answer(card_id, said)) == ["This question is no longer open."]
    assert given == []
    await stage.answer(other.card_id, said)
    assert given == [other.card_id]
    assert await scene.leftovers() == []


async def test_rule_11_an_answer_to_a_card_that_was_sent_as_a_payload_is_known_and_one_of_artifacts_takes_all() -> None:
    agent, given = Agent(), list[str]()
    shown = {"artifact_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "subtype": "app", "payload": {"ui": "board"}}

    @agent.on_command("card")
    async def card(chat: Chat) -> None:
        await chat.send({"type": "artifact", "artifact": shown})

    @agent.on_artifact_response("board")
    async def answered(answer: Answer) -> None:
        given.append(answer.card_id)

    @agent.on_message("artifact")
    async def rest(message: Message) -> None:
        given.append("artifact")

    stage = Stage(MemoryScene(), agent)
    [sent] = await stage.say("/card")
    await stage.answer(sent.card_id, {"action": "x"})
    await stage.answer("never seen", {"action": "x"})
    assert given == [shown["artifact_id"], "artifact"]


async def test_rule_11_an_uncaught_no_answer_keeps_nothing_but_what_was_said(scene: Scene) -> None:
    class Count(msgspec.Struct):
        number: int = 0

    agent, seen = Agent(state=Count), list[int]()

    @agent.on_command("ask")
    async def ask(chat: Chat, state: Count, store: Store) -> None:
        try:
            await chat.ask("How old?", int)
        finally:
            state.number += 1
            await store.set("asked", 1)
            await chat.remind("again", after=timedelta(minutes=1), key="again")

    @agent.on_reminder("again")
    async def again() -> None:
        """Never comes."""

    @agent.on_message("text")
    async def other(state: Count, store: Store) -> None:
        seen.append(state.number + await store.get("asked", 0))

    stage = Stage(scene, agent)
    await stage.say("/ask")
    await stage.say("/cancel")
    await stage.say("hello")
    assert (seen, await stage.dead()) == ([0], [])
    assert stage.outcomes == ["waiting", "no_answer", "done"]


async def test_rule_11_who_is_asked_is_said_where_nobody_has_written_and_nobody_is_asked_nowhere() -> None:
    agent, refused = Agent(), list[str]()

    @agent.on_event("group.updated")
    async def updated(chat: Chat, event: Event) -> None:
        whom: tuple[str | list[str] | None, ...] = (None, [], "ann")
        for who in whom:
            try:
                await chat.ask("Well?", who=who)
            except BadAsk as error:
                refused.append(str(error).partition(":")[0])

    chat = conversation(agent, sender_id="")
    await chat.event("group.updated", is_here=False)
    assert refused == ["this handler runs in no conversation, where nobody can be asked"] * 3
    refused.clear()
    [said] = await chat.event("group.updated")
    assert refused == ["nobody has written what this handler was called for", "who= takes the id of a user, or several"]
    assert said.text == "Well?"


async def test_rule_11_the_65th_question_of_a_message_is_refused_before_it_is_shown() -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        for number in range(70):
            await chat.ask(f"{number}?")

    stage = Stage(MemoryScene(), agent)
    await stage.say("/ask")
    for _ in range(64):
        await stage.say("yes")
    assert stage.transcript[63].text == "63?"
    assert any("TooManyWaits" in line for line in stage.logged)
    assert "64?" not in texts(stage.transcript)


async def test_rule_17_a_bound_thread_dies_with_what_is_forgotten_and_its_answer_is_no_text(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        await chat.ask("Your name?")
        raise ValueError

    @agent.on_command("forget")
    async def forget(chat: Chat) -> None:
        await chat.forget()

    @agent.on_message("text")
    async def other(message: Message, chat: Chat) -> None:
        await chat.reply(f"hm, {message.text}")

    stage = Stage(scene, agent)
    await stage.say("/ask")
    await stage.say("Ann")
    assert await stage.dead() == ["handler_error"]
    await stage.say("/forget")
    assert texts(await stage.retry_dead()) == ["This question is no longer open."]
    assert await scene.leftovers() == []


async def test_ask_of_an_app_returns_its_answer(scene: Scene) -> None:
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        answer = await chat.ask(App("board"))
        await chat.reply(f"{answer.sender_id} {answer.action} {answer.data} {answer.kind} {answer.card_id}")

    stage = Stage(scene, agent)
    [card] = await stage.say("/ask")
    [said] = await stage.press(card, action="move", data={"to": "e4"})
    assert said.text == f"ann move {{'to': 'e4'}} board {card.card_id}"


def remembers() -> Agent:
    """It reads what was said before it asks, and says so behind the answer; one that asks twice reads it again."""
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat, history: History) -> None:
        before = [turn.text for turn in history]
        await chat.ask("Your name?")
        await chat.ask(Approval("Sure?"))
        assert [turn.text for turn in await chat.history()] == before
        await chat.reply(f"I knew {before}")

    @agent.on_command("late")
    async def late(chat: Chat) -> None:
        await chat.ask("And now?")
        await chat.reply(f"I knew {[turn.text for turn in await chat.history()]}")

    @agent.on_message("text")
    async def other(chat: Chat) -> None:
        await chat.reply("hm")

    return agent


async def test_rule_16_a_thread_that_goes_on_sees_of_the_history_what_it_saw_first(scene: Scene) -> None:
    stage = Stage(scene, remembers())
    await stage.say("/ask")
    await stage.say("one", who="ben")
    [card] = await stage.say("Ann")
    await stage.say("two", who="ben")
    assert texts(await stage.press(card, approve=True)) == ["I knew []"], "nothing had been said before"
    seen = [
        "one",
        "hm",
        "two",
        "hm",
        "/ask",
        "Your name?",
        "Ann",
        "[approval]\nSure?",
        "[answer: approved]",
        "I knew []",
    ]
    await stage.say("/ask")
    await stage.say("three", who="ben")
    [card] = await stage.say("Ann")
    stage.agent = remembers()
    assert texts(await stage.press(card, approve=True)) == [f"I knew {seen}"], "its own turns in one piece, as it ended"


async def test_rule_16_what_is_read_for_the_first_time_behind_an_answer_is_what_stands_there_then(scene: Scene) -> None:
    stage = Stage(scene, remembers())
    await stage.say("/late")
    await stage.say("one", who="ben")
    assert texts(await stage.say("Well")) == ["I knew ['one', 'hm']"]


async def test_rule_16_what_has_been_dropped_meanwhile_is_no_more_seen_and_nothing_newer_in_its_place() -> None:
    stage = Stage(MemoryScene(), remembers())
    await stage.say("one", who="ben")
    await stage.say("/ask")
    [card] = await stage.say("Ann")
    for number in range(101):
        await stage.accept({"type": "text", "text": str(number)}, "ben")
    await stage.run()
    assert texts(await stage.press(card, approve=True)) == ["I knew []"]


async def test_rule_16_a_dead_letter_whose_worker_has_died_with_it_sees_of_the_history_what_it_saw(
    scene: Scene,
) -> None:
    agent, life = Agent(), trio.CancelScope()

    @agent.on_message()
    async def answer(message: Message, chat: Chat, history: History) -> None:
        if message.text == "fragile" and not life.cancel_called:
            assert len(history) == 2
            life.cancel()
            await trio.sleep_forever()
        await chat.reply(f"{message.text} after {[turn.text for turn in history if turn.role == 'user']}")

    stage = Stage(scene, agent)
    await stage.say("first")
    talk = await stage.talk_here()
    await stage.accept({"type": "text", "text": "fragile"})
    with life:
        await stage.run()
    assert [one.outcome for one in await talk.reclaim(Reclaim(ends_as="timeout"))] == ["dead"]
    assert texts(await stage.say("later")) == ["later after ['first']"]
    assert texts(await stage.retry_dead()) == ["fragile after ['first']"]
    assert await scene.leftovers() == []


async def test_rule_16_an_answer_that_comes_too_late_is_no_part_of_what_was_said(scene: Scene) -> None:
    """A model that reads "[answer: approved]" would take it for a yes."""
    agent = Agent()

    @agent.on_command("ask")
    async def ask(chat: Chat) -> None:
        try:
            await chat.ask(Approval("Go on?"))
        except NoAnswer:
            await chat.reply("Then not.")

    @agent.on_message("text")
    async def other(chat: Chat, history: History) -> None:
        await chat.reply(f"last: {history[-1].text}")

    stage = Stage(scene, agent)
    [card] = await stage.say("/ask")
    assert texts(await stage.overdue(card.card_id)) == ["Then not."]
    assert texts(await stage.press(card, approve=True)) == [Words().not_open]
    assert texts(await stage.say("hello")) == ["last: Then not."]


async def test_rule_16_an_answer_that_was_a_dead_letter_sees_of_the_history_what_its_thread_saw(scene: Scene) -> None:
    agent, breaks = Agent(), [True]

    @agent.on_command("ask")
    async def ask(chat: Chat, history: History) -> None:
        knew = [turn.text for turn in history if turn.role == "user"]
        await chat.ask(Approval("Go on?"))
        if breaks:
            raise ValueError
        await chat.reply(f"I knew {knew}")

    @agent.on_message("text")
    async def other(chat: Chat) -> None:
        await chat.reply("I see.")

    stage = Stage(scene, agent)
    await stage.say("first", "ben")
    [card] = await stage.say("/ask")
    await stage.say("meanwhile", "ben")
    await stage.press(card, approve=True)
    assert await stage.dead() == ["handler_error"]
    await stage.say("later", "ben")
    breaks.clear()
    assert texts(await stage.retry_dead()) == ["I knew ['first']"]


async def test_rule_16_a_dead_letter_that_comes_back_sees_of_the_history_what_it_saw(scene: Scene) -> None:
    agent, breaks = Agent(), [True]

    @agent.on_message()
    async def answer(message: Message, chat: Chat, history: History) -> None:
        if message.text == "fragile" and breaks:
            assert len(history) == 2
            raise ValueError
        await chat.reply(f"{message.text} after {[turn.text for turn in history if turn.role == 'user']}")

    stage = Stage(scene, agent)
    await stage.say("first")
    await stage.say("fragile")
    assert await stage.dead() == ["handler_error"]
    assert texts(await stage.say("later")) == ["later after ['first']"]
    breaks.clear()
    assert texts(await stage.retry_dead()) == ["fragile after ['first']"]
    assert texts(await stage.say("last")) == ["last after ['first', 'later', 'fragile']"]
    assert await scene.leftovers() == []
