"""A worker dies before and after each thing that it does on the bus: the same words, and no turn is asked for twice once it was noted."""

import pytest

from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import FakeEndpoint, endpoint, events, refusal
from tests.workers.stage import Heard, Stage
from workers import LLM, Agent, Chat, Words
from workers.llm.turn import TOLD_AFTER_SECONDS

WITHIN_SECONDS = 60
STEP = 3
"""Of the points at which a worker dies: before and after things by turns."""


def texts(heard: list[Heard]) -> list[str]:
    """What people read in the end: a stream begins without words."""
    return [one.text for one in heard if one.text]


def agent_of(server: FakeEndpoint, words: Words | None = None) -> Agent:
    agent = Agent(llm=LLM("Be brief.", base_url=server.base_url, model="small"), words=words)

    @agent.on_message("text")
    async def answer(chat: Chat, llm: LLM) -> None:
        await chat.reply("One moment.")
        await llm.reply()
        await chat.reply(await llm.complete("And a title."))

    return agent


async def test_whenever_a_worker_dies_people_get_the_same_and_a_turn_that_was_noted_is_not_asked_for_again() -> None:
    point, points, again = 0, 1, 0
    async with endpoint(events("Ahoy!")) as server:
        while point < points:
            server.requests.clear()
            scene = MemoryScene()
            stage = Stage(scene, agent_of(server), dies_at=point)
            with waiting_for("the conversation, with a death", WITHIN_SECONDS):
                assert texts(await stage.say("hi")) == ["One moment.", "Ahoy!", "Ahoy!"], point
            turns = [asked[-1][1] for asked in server.asked]
            assert turns == sorted(turns, key=["hi", "And a title."].index), "the first was noted before the second"
            assert 2 <= len(turns) <= 3, "a death costs the turn that is being written, and no other"
            again += len(turns) - 2
            assert await stage.dead() == []
            assert await scene.leftovers() == []
            scene.close()
            points, point = stage.points, point + STEP
    assert again < points / STEP / 2


async def test_a_busy_endpoint_has_the_message_again_and_uses_nothing_up() -> None:
    async with endpoint(
        *[refusal("429 Slow Down", None, "Retry-After: 1")] * 21, events("Ahoy!"), events("A title")
    ) as server:
        scene = MemoryScene()
        stage = Stage(scene, agent_of(server, Words(busy=None)))
        with waiting_for("the endpoint to be ready", WITHIN_SECONDS):
            heard = texts(await stage.say("hi"))
            while len(server.requests) < 23:
                await scene.time_passes(60_000)
                heard += texts(await stage.run())
        assert heard == ["One moment.", "Ahoy!", "A title"]
        assert await stage.dead() == []
        scene.close()


async def test_another_agent_hears_nothing_of_a_busy_endpoint_or_it_would_answer_that() -> None:
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: 300")) as server:
        scene = MemoryScene()
        for kind, heard in (("agent", ["One moment."]), ("human", ["One moment.", Words().busy])):
            stage = Stage(scene, agent_of(server))
            await stage.accept({"type": "text", "text": "hi"}, kind, sender_type=kind)
            assert texts(await stage.run()) == heard
            scene.close()
            scene = MemoryScene()


@pytest.mark.parametrize("words", ["Geduld.", None])
async def test_who_waits_for_long_for_a_busy_endpoint_is_told_so_once_and_the_model_does_not_hear_of_it(
    words: str | None,
) -> None:
    async with endpoint(refusal("429 Slow Down", None, "Retry-After: 0")) as server:
        scene = MemoryScene()
        stage, heard = Stage(scene, agent_of(server, Words(busy=words))), list[tuple[int, str]]()
        with waiting_for("the endpoint to be ready", WITHIN_SECONDS):
            said = texts(await stage.say("hi"))
            for second in range(1, 201):
                await scene.time_passes(1_000)
                heard += [(second, text) for text in texts(await stage.run())]
            assert [text for _, text in heard] == ([words] if words else [])
            assert all(1 < second <= TOLD_AFTER_SECONDS + 1 for second, _ in heard)
            server.say(events("Ahoy!"))
            while len(said) < 3:
                await scene.time_passes(30_000)
                said += texts(await stage.run())
            assert said == ["One moment.", "Ahoy!", "Ahoy!"]
            await stage.say("and now?")
        assert "Geduld" not in str(server.requests)
        assert await stage.dead() == []
        scene.close()
