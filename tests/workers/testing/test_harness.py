"""The harness: what it runs is the worker's own runner, what it shows is what people get, and what goes wrong is raised with its text."""

import time
from datetime import timedelta

import msgspec
import pytest
import trio
from trio.testing import MockClock

from workers import LLM, Agent, Approval, BlockingChat, CannotStart, Chat, Event, Fail, Job, Message, NoAnswer, Retry
from workers.errors import LLMBusy
from workers.testing import Harness, HarnessChat, ScriptedLLM, call, survives
from workers.testing.scripted import ScriptEnded


class Count(msgspec.Struct):
    messages: int = 0


def counting() -> Agent:
    agent = Agent(state=Count)

    @agent.on_message("text")
    async def count(chat: Chat, state: Count) -> None:
        state.messages += 1
        await chat.reply(f"{state.messages}")

    return agent


async def test_what_a_handler_raises_comes_out_with_its_text(mock_clock: MockClock) -> None:
    agent = counting()

    @agent.on_command("divide")
    async def divide(chat: Chat) -> None:
        await chat.reply("wait")
        _ = 1 / 0

    async with Harness(agent) as chat:
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            await chat.say("/divide")
        assert chat.dead == ["handler_error"]
        assert (await chat.say("go on")).texts[-1] == "1"


async def test_a_handler_that_fails_is_tried_again_where_the_test_wants_to_see_that(mock_clock: MockClock) -> None:
    agent, times = Agent(), list[int]()

    @agent.on_message("text")
    async def fails(chat: Chat, job: Job) -> None:
        times.append(job.attempt)
        await chat.reply("I try")
        raise ValueError

    async with Harness(agent, raises=False) as chat:
        began = chat.now
        assert len(await chat.say("hi")) == 2, "what it says once, and the apology"
        assert times == [1, 2, 3, 4]
        assert chat.now - began > timedelta(seconds=25)


async def test_what_an_owner_asks_for_is_no_error(mock_clock: MockClock) -> None:
    agent, times = Agent(), list[int]()

    @agent.on_message("text")
    async def fails(message: Message, job: Job, chat: Chat) -> None:
        if message.text == "never":
            raise Fail("no")
        times.append(job.deliveries)
        if len(times) < 3:
            raise Retry(after_seconds=3600)
        await chat.reply("now")

    async with Harness(agent) as chat:
        assert (await chat.say("later")).text == "now"
        assert times == [1, 2, 3]
        await chat.say("never")
        assert chat.dead == ["no"]


async def test_the_same_is_raised_for_a_payload_that_no_handler_takes(mock_clock: MockClock) -> None:
    async with Harness(counting()) as chat:
        with pytest.raises(LookupError, match="image"):
            await chat.send({"type": "image"})


async def test_people_have_their_own_conversations_and_state(mock_clock: MockClock) -> None:
    async with Harness(counting()) as chat:
        await chat.say("one")
        ben = chat.as_("ben")
        assert (await ben.say("one")).text == "1"
        assert (await chat.say("two")).text == "2"
        assert (chat.state.messages, ben.state.messages) == (2, 1)


async def test_a_handler_in_a_thread_takes_the_time_that_it_takes(mock_clock: MockClock) -> None:
    agent = Agent()

    @agent.on_message("text")
    def slow(chat: BlockingChat) -> None:
        time.sleep(0.05)
        chat.reply(chat.ask("sure?"))

    async with Harness(agent) as chat:
        began = chat.now
        assert (await chat.say("hi")).text == "sure?"
        assert (await chat.say("yes")).text == "yes"
        assert chat.now - began < timedelta(seconds=30)


async def test_an_hour_of_sleep_takes_no_time(mock_clock: MockClock) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def sleeps(chat: Chat) -> None:
        await trio.sleep(500)
        await chat.reply("awake")

    began = time.perf_counter()
    async with Harness(agent) as chat:
        assert await chat.say("hi", seconds=499) == []
        assert (await chat.until_rest()).text == "awake"
        with pytest.raises(TimeoutError, match="ten minutes"):
            await _sleeps_for_ever(agent, chat)
    assert time.perf_counter() - began < 2


async def _sleeps_for_ever(agent: Agent, chat: HarnessChat) -> None:
    @agent.on_command("sleep")
    async def sleep() -> None:
        await trio.sleep_forever()

    await chat.say("/sleep")


async def test_a_question_that_nobody_answers_is_over_a_day_later(mock_clock: MockClock) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def asks(chat: Chat) -> None:
        try:
            await chat.reply(str(await chat.ask(Approval("Really?"))))
        except NoAnswer as none:
            await chat.reply(f"nobody: {none.why}")

    async with Harness(agent) as chat:
        await chat.say("hi")
        assert chat.waits == ["approval"]
        assert await chat.advance(hours=23) == []
        assert (await chat.advance(hours=2)).text == "nobody: timeout"
        assert chat.waits == []


async def test_functions_that_run_by_themselves_and_events(mock_clock: MockClock) -> None:
    agent, ran = counting(), list[str]()

    @agent.every(hours=1)
    async def hourly(job: Job) -> None:
        ran.append("hourly")

    @agent.on_event("relation.established")
    async def welcome(event: Event, chat: Chat) -> None:
        await chat.reply(f"Welcome, {event.user_id}!")

    async with Harness(agent) as chat:
        await chat.advance(hours=3)
        assert ran == ["hourly"] * 3
        assert (await chat.event("relation.established", user_id="ann")).text == "Welcome, ann!"


async def test_a_model_that_is_asked_once_too_often_fails_the_test(mock_clock: MockClock) -> None:
    agent = Agent(llm=LLM("Be brief."))

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    async with Harness(agent, llm=ScriptedLLM("one", LLMBusy(10.0), "two")) as chat:
        assert (await chat.say("hi")).text == "one"
        assert (await chat.say("hi")).text == "two", "asked again after a while"
        with pytest.raises(ScriptEnded, match=r"script has \(3\), with: 'hello'"):
            await chat.say("hello")


async def test_without_a_script_it_says_what_to_give(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "no address")
    agent = Agent(llm=LLM("Be brief."))

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    with pytest.raises(CannotStart) as caught:
        async with Harness(agent):
            pass
    assert "ScriptedLLM" in caught.value.__notes__[0]


def deleting(runs: list[str]) -> Agent:
    agent = Agent()

    async def delete() -> str:
        runs.append("deleted")
        return "done"

    @agent.on_command("delete")
    async def ask(chat: Chat, job: Job) -> None:
        if await chat.ask(Approval("Delete?")):
            await chat.reply(str(await job.once("delete", delete)))

    return agent


async def test_what_may_be_done_once_is_killed_in_the_middle(mock_clock: MockClock) -> None:
    runs = list[str]()

    async def script(chat: HarnessChat) -> None:
        [card] = await chat.say("/delete")
        await chat.press(card, approve=True)
        assert len(runs) <= 1

    survived = await survives(deleting(runs), script, before=runs.clear)
    assert survived.unknown == ("after note delete#1", "before note delete#1"), "it has begun, and its end is not noted"


async def test_a_handler_that_does_not_survive_is_found(mock_clock: MockClock) -> None:
    agent, said = Agent(), list[str]()

    @agent.on_message("text")
    async def greet(chat: Chat) -> None:
        said.append("hello")
        await chat.reply(f"hello {len(said)}")
        await chat.reply(f"and {len(said)}")

    async def script(chat: HarnessChat) -> None:
        await chat.say("hi")

    with pytest.raises(AssertionError, match="with a worker killed before"):
        await survives(agent, script, before=said.clear)


async def test_a_test_takes_less_than_fifty_milliseconds(mock_clock: MockClock) -> None:
    agent = counting()
    began = time.process_time()
    for _ in range(10):
        async with Harness(agent) as chat:
            for number in range(5):
                assert (await chat.say("hi")).text == str(number + 1)
    assert (time.process_time() - began) / 10 < 0.05


def with_tools(ran: list[str]) -> Agent:
    agent = Agent(llm=LLM("Be brief."))

    @agent.tool
    async def weather(city: str) -> str:
        ran.append(city)
        return f"sunny in {city}"

    @agent.tool(sensitivity="high")
    async def delete_files(pattern: str) -> int:
        ran.append(pattern)
        return 3

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    return agent


async def test_tools_are_called_approved_and_run_once_whatever_is_killed(mock_clock: MockClock) -> None:
    ran = list[str]()

    async def script(chat: HarnessChat) -> None:
        [card] = await chat.say("clean up")
        assert card.subtype == "approval"
        await chat.press(card, approve=True)
        assert ran.count("*.tmp") <= 1
        assert chat.llm is not None
        assert chat.llm.left == 0

    llm = ScriptedLLM(call("weather", city="Rome"), call("delete_files", pattern="*.tmp"), "Gone.")
    survived = await survives(with_tools(ran), script, llm=llm, before=ran.clear)
    assert survived.kills > 20
    assert survived.unknown


async def test_something_else_stands_in_the_place_of_a_tool(mock_clock: MockClock) -> None:
    ran = list[str]()
    llm = ScriptedLLM([call("weather", city="Rome"), call("weather", city="Oslo")], "Different.")
    async with Harness(with_tools(ran), llm=llm, mock_tools={"weather": lambda city: f"rain in {city}"}) as chat:
        assert (await chat.say("and?")).text == "Different."
        assert ran == []
        assert llm.calls[-1].texts[-2:] == ["rain in Rome", "rain in Oslo"]
        assert llm.calls[0].tools == ("weather", "delete_files")


async def test_a_script_that_calls_a_tool_that_is_not_there_fails(mock_clock: MockClock) -> None:
    async with Harness(with_tools([]), llm=ScriptedLLM(call("wether", city="Rome"))) as chat:
        with pytest.raises(ScriptEnded, match="'wether', and the model may call: weather, delete_files"):
            await chat.say("and?")


async def test_a_tool_of_the_persons_app_is_answered_as_it_answers(mock_clock: MockClock) -> None:
    agent = Agent()

    @agent.on_message("text")
    async def look(chat: Chat) -> None:
        slots = await chat.call_tool("free_slots", {"day": "monday"}, scope="calendar.read")
        await chat.reply(f"free at {slots}")

    async def script(chat: HarnessChat) -> None:
        [call_card] = await chat.say("when?")
        assert call_card.subtype == "tool_call"
        assert (await chat.press(call_card, status="ok", result=["9:00"])).text == "free at ['9:00']"

    await survives(agent, script)


async def test_a_tool_that_is_a_plain_function_takes_its_time_and_is_not_taken_for_lost(mock_clock: MockClock) -> None:
    agent, done = Agent(llm=LLM()), list[str]()

    @agent.tool(sensitivity="high", timeout=timedelta(seconds=5))
    def clean(what: str) -> str:
        time.sleep(0.2)
        done.append(what)
        return f"{what} is clean"

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    async with Harness(agent, llm=ScriptedLLM(call("clean", what="desk"), "Done.")) as chat:
        [card] = await chat.say("clean it")
        assert (await chat.press(card, approve=True)).texts == ["Done."]
        assert chat.llm is not None
        assert chat.llm.calls[-1].texts[-1] == "desk is clean"
    assert done == ["desk"]
