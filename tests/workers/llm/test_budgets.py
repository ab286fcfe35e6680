"""An agent with budgets over its real runner: what is beyond one asks no model, tokens are paid once, and no death of a worker changes that."""

from collections.abc import Iterator

import pytest

from bus.records.budgets import DAY_MS, MINUTE_MS
from bus.steps.policies import Busy
from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import Answer, FakeEndpoint, endpoint, events
from tests.workers.llm.test_stop import Stopped
from tests.workers.stage import Heard, Stage
from workers import LLM, Agent, Budget, Chat

WITHIN_SECONDS = 60
WAIT = "Please wait a little."
USED = (30, 10)
STEP = 3
"""Of the points at which a worker dies: before and after things by turns."""


@pytest.fixture
def scene() -> Iterator[MemoryScene]:
    made = MemoryScene()
    yield made
    made.close()


def texts(heard: list[Heard]) -> list[str]:
    return [one.text for one in heard if one.text]


def agent_of(server: FakeEndpoint, *budgets: Budget, when_busy: Busy = "queue") -> Agent:
    llm = LLM("Be brief.", base_url=server.base_url, model="small")
    agent = Agent(llm=llm, budget=budgets, when_busy=when_busy)

    @agent.on_command("book")
    async def book(chat: Chat) -> None:
        for question in ("Your name?", "Which day?", "Which time?"):
            await chat.ask(question)
        await chat.reply("Booked.")

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    return agent


async def test_what_is_beyond_so_many_a_minute_asks_no_model_and_is_told_once(scene: MemoryScene) -> None:
    async with endpoint(events("Ahoy!", usage=USED)) as server:
        stage = Stage(scene, agent_of(server, Budget(messages_per_minute=2, reply=WAIT)))
        assert [texts(await stage.say(f"hi {number}")) for number in range(4)] == [["Ahoy!"], ["Ahoy!"], [WAIT], []]
        assert texts(await stage.say("hi", "ben")) == ["Ahoy!"], "everybody has their own"
        assert len(server.requests) == 3
        assert stage.outcomes == ["done", "done", "over_budget", "over_budget", "done"]
        await scene.time_passes(MINUTE_MS)
        assert texts(await stage.say("hi again")) == ["Ahoy!"]
    assert [text for _, text in server.asked[-1]][-3:] == ["hi", "Ahoy!", "hi again"], (
        "what was not answered is not kept"
    )


async def test_tokens_are_those_that_the_endpoint_counts_and_a_new_day_has_new_ones(scene: MemoryScene) -> None:
    async with endpoint(events("Ahoy!", usage=USED)) as server:
        stage = Stage(
            scene, agent_of(server, Budget(tokens_per_day=79, reply=WAIT), Budget(tokens_per_day=10**6, per="agent"))
        )
        assert [texts(await stage.say("hi")) for _ in range(3)] == [["Ahoy!"], ["Ahoy!"], [WAIT]]
        await scene.time_passes(DAY_MS)
        assert texts(await stage.say("hi")) == ["Ahoy!"]


async def test_where_the_endpoint_counts_nothing_they_are_estimated(scene: MemoryScene) -> None:
    async with endpoint(events("Ahoy!")) as server:
        stage = Stage(scene, agent_of(server, Budget(tokens_per_day=1, reply=WAIT)))
        assert [texts(await stage.say("hi")) for _ in range(2)] == [["Ahoy!"], [WAIT]]


async def test_an_answer_that_is_stopped_or_breaks_off_is_paid_for_as_far_as_it_was_written() -> None:
    stopped, cut = Stopped(), Answer(body=events("Once", finish=False), is_cut=True)
    async with endpoint(stopped.answer()) as server:
        for answers in ([stopped.answer()], [cut, cut, cut, cut]):
            server.say(*answers)
            stage = stopped.stage = Stage(MemoryScene(), agent_of(server, Budget(tokens_per_day=1, reply=WAIT)))
            with waiting_for("the end of the answer", WITHIN_SECONDS):
                await stage.say("tell me")
            if len(answers) > 1:
                await stage.say_stop()
                await stage.waits_over(60)
            assert stage.outcomes == ["stopped"]
            assert texts(await stage.say("again")) == [WAIT]


async def test_messages_that_are_handled_together_are_one_job_and_count_once_for_who_wrote_first(
    scene: MemoryScene,
) -> None:
    async with endpoint(events("Ahoy!", usage=USED)) as server:
        agent = agent_of(server, Budget(messages_per_day=1, tokens_per_day=1000, reply=WAIT), when_busy="coalesce")
        stage = Stage(scene, agent)
        for who in ("ann", "ann", "ben"):
            await stage.accept({"type": "text", "text": "hi"}, who)
        assert texts(await stage.run()) == ["Ahoy!"], "one answer, for one call of the model"
        assert len(server.requests) == 1
        assert [scene.counted(f"s:{who}").messages for who in ("ann", "ben")] == [1, 0]
        assert [scene.counted(f"s:{who}").tokens for who in ("ann", "ben")] == [sum(USED), 0]


async def test_commands_that_are_built_in_and_answers_to_questions_are_never_beyond_one(scene: MemoryScene) -> None:
    async with endpoint(events("Ahoy!")) as server:
        stage = Stage(scene, agent_of(server, Budget(messages_per_day=1, reply=WAIT)))
        assert texts(await stage.say("/book")) == ["Your name?"]
        assert texts(await stage.say("Ann")) == ["Which day?"]
        assert texts(await stage.say("/reset")) == ["I have forgotten what was said here."]
        assert texts(await stage.say("/book")) == [WAIT]


async def test_whenever_a_worker_dies_each_message_is_counted_once_and_tokens_are_paid_once() -> None:
    point, points = 0, 1
    async with endpoint(events("Ahoy!", usage=USED)) as server:
        while point < points:
            scene = MemoryScene()
            stage = Stage(
                scene, agent_of(server, Budget(messages_per_day=2, tokens_per_day=1000, reply=WAIT)), dies_at=point
            )
            with waiting_for("the conversation, with a death", WITHIN_SECONDS):
                assert [texts(await stage.say(text)) for text in ("hi", "hi", "hi")] == [
                    ["Ahoy!"],
                    ["Ahoy!"],
                    [WAIT],
                ], point
            counted = scene.counted("s:ann")
            assert (counted.messages, counted.tokens) == (2, 2 * sum(USED)), point
            assert await stage.dead() == []
            scene.close()
            points, point = stage.points, point + STEP
