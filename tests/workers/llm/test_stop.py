"""What /stop does to an answer that is being written: it ends, what was shown stays and says so, and no death of a worker changes that."""

import pytest
import trio

from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import Answer, FakeEndpoint, endpoint, events, refusal
from tests.workers.stage import Heard, Stage
from workers import LLM, Agent, BlockingLLM, Chat
from workers.kept.words import Words

WITHIN_SECONDS = 60
STOPPED_AFTER = "Once upon\n\n[Stopped.]"


def texts(heard: list[Heard]) -> list[str]:
    return [one.text for one in heard if one.text]


def agent_of(server: FakeEndpoint) -> Agent:
    agent = Agent(llm=LLM("Be brief.", base_url=server.base_url, model="small"))

    @agent.on_message("text", when="quietly.*")
    async def quietly(llm: LLM) -> None:
        await llm.complete("Something that nobody sees.")

    @agent.on_message("text", when="blocking.*")
    def blocking(llm: BlockingLLM) -> None:
        llm.reply()

    @agent.on_command("book")
    async def book(chat: Chat, llm: LLM) -> None:
        await chat.ask("Your name?")
        await llm.reply("Tell a story.")

    @agent.on_message("text")
    async def answer(llm: LLM) -> None:
        await llm.reply()

    return agent


class Stopped:
    """An endpoint's answer in whose middle somebody says /stop, once; it never ends by itself."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.times = 0

    def answer(self) -> Answer:
        body = events("Once upon", finish=False)
        return Answer(body=body, then="silence", pace=(len(body), self._say))

    async def _say(self) -> None:
        assert self.stage is not None
        self.times += 1
        if self.times == 1:
            await trio.sleep(0.01)  # what was sent is read
            await self.stage.say_stop()


@pytest.mark.parametrize("how", ["tell me", "blocking"])
async def test_what_was_shown_stays_and_says_that_it_was_stopped_and_the_model_is_told_so(how: str) -> None:
    stopped = Stopped()
    async with endpoint(stopped.answer(), events("Ahoy!")) as server:
        stage = stopped.stage = Stage(MemoryScene(), agent_of(server))
        with waiting_for("the end of the answer", WITHIN_SECONDS):
            heard = await stage.say(how)
        assert [(one.reply.kind, one.text) for one in heard] == [("stream_start", ""), ("stream_done", STOPPED_AFTER)]
        assert stage.outcomes == ["stopped"]
        assert texts(await stage.say("go on")) == ["Ahoy!"]
    assert server.asked[-1][1:] == [("user", how), ("assistant", STOPPED_AFTER), ("user", "go on")]


async def test_where_nothing_was_shown_a_word_says_it() -> None:
    stopped = Stopped()
    async with endpoint(stopped.answer(), events("Ahoy!")) as server:
        stage = stopped.stage = Stage(MemoryScene(), agent_of(server))
        with waiting_for("the end of the answer", WITHIN_SECONDS):
            assert texts(await stage.say("quietly")) == ["Stopped."]
        assert texts(await stage.say("hello")) == ["Ahoy!"]
    assert server.asked[-1][1:] == [("user", "quietly"), ("assistant", "Stopped."), ("user", "hello")]


async def test_where_nothing_runs_it_is_answered_politely() -> None:
    async with endpoint(events("Ahoy!")) as server:
        stage = Stage(MemoryScene(), agent_of(server))
        await stage.say_stop()
        assert texts(await stage.run()) == [Words().nothing_to_stop]
        assert server.requests == []


async def test_a_message_that_waits_for_a_busy_endpoint_waits_no_longer() -> None:
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: 300")) as server:
        stage = Stage(MemoryScene(), agent_of(server))
        assert texts(await stage.say("hello")) == [Words().busy]
        await stage.say_stop()
        assert texts(await stage.waits_over(0)) == ["Stopped."]
        assert (len(server.requests), await stage.dead(), stage.outcomes) == (1, [], ["stopped"])


async def test_a_thread_that_goes_on_with_an_answer_is_stopped_and_its_question_is_closed() -> None:
    stopped = Stopped()
    async with endpoint(stopped.answer()) as server:
        stage = stopped.stage = Stage(MemoryScene(), agent_of(server))
        assert texts(await stage.say("/book")) == ["Your name?"]
        with waiting_for("the end of the answer", WITHIN_SECONDS):
            assert texts(await stage.say("Ann")) == [STOPPED_AFTER]
        assert stage.outcomes == ["waiting", "stopped"]
        server.say(events("Ahoy!"))
        assert texts(await stage.say("hello")) == ["Ahoy!"], "it is no answer any more"


@pytest.mark.parametrize("said", [["tell me"], ["/book", "Ann"]])
async def test_whenever_a_worker_dies_it_is_stopped_once_and_nothing_is_lost(said: list[str]) -> None:
    point, points, ends = 0, 1, set[str]()
    while point < points:
        stopped = Stopped()
        async with endpoint(stopped.answer()) as server:
            scene = MemoryScene()
            stage = stopped.stage = Stage(scene, agent_of(server), dies_at=point)
            with waiting_for("the end of the answer", WITHIN_SECONDS):
                heard = [text for one in said for text in texts(await stage.say(one))]
            assert heard[:-1] == ["Your name?"][: len(said) - 1], point
            assert stage.outcomes[-1] == "stopped", point
            ends.add(heard[-1])
            assert len(server.requests) <= 2
            assert await stage.dead() == []
            assert await scene.leftovers() == []
            scene.close()
        points, point = stage.points, point + 1
    assert ends <= {STOPPED_AFTER, "Stopped."}
    assert STOPPED_AFTER in ends
