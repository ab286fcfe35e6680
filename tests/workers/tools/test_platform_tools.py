"""`chat.call_tool`: a tool of the platform, which a person's app runs. It is a wait as that of `ask`."""

from datetime import timedelta
from typing import Any

import pytest

from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.stage import Heard, Stage
from workers import Agent, BadCard, BlockingChat, Chat, ToolDenied, ToolError, ToolTimeout
from workers.kept.words import Words
from workers.testing import conversation

WITHIN_SECONDS = 30


def calendar() -> Agent:
    agent = Agent()

    @agent.on_command("free")
    async def free(chat: Chat, args: str) -> None:
        await chat.reply("I look.")
        try:
            slots = await chat.call_tool("free_slots", {"day": args}, scope="calendar.read")
        except ToolTimeout:
            await chat.reply("Your app does not answer.")
        except ToolDenied as denied:
            await chat.reply(f"You do not want it: {denied.why}.")
        except ToolError:
            await chat.reply("That has failed.")
        else:
            await chat.reply(f"Free at {', '.join(slots)}.")

    return agent


async def answer(stage: Stage, card: Heard, who: str = "ann", subtype: str = "tool_response", **said: Any) -> list[str]:
    payload = {"call_id": card.card_id, **said}
    artifact = {"subtype": subtype, "ref_artifact": card.card_id, "payload": payload}
    return [one.text for one in await stage.send({"type": "artifact", "artifact": artifact}, who)]


async def test_the_app_is_told_what_to_run_and_its_result_comes_back() -> None:
    scene = MemoryScene()
    stage = Stage(scene, calendar())
    with waiting_for("the conversation", WITHIN_SECONDS):
        _, card = await stage.say("/free monday")
        assert card.card == {
            "call_id": card.card_id,
            "tool_name": "free_slots",
            "arguments": {"day": "monday"},
            "permission_scope": "calendar.read",
            "timeout_ms": 10_000,
        }
        assert await answer(stage, card, "ben", status="ok", result=["8:00"]) == [Words().not_asked]
        assert await answer(stage, card, subtype="response", status="ok", result=["8:00"]) == [Words().other_question]
        assert await answer(stage, card, status="ok", result=["9:00", "11:30"]) == ["Free at 9:00, 11:30."]
        assert await answer(stage, card, status="ok", result=[]) == [Words().not_open]
    scene.close()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"status": "denied", "reason": "user_timeout"}, "You do not want it: user_timeout."),
        ({"status": "denied"}, "You do not want it: denied."),
        ({"status": "error", "reason": "a secret"}, "That has failed."),
        ({"status": 3}, "That has failed."),
    ],
)
async def test_what_is_denied_or_has_failed_is_told_to_the_handler(said: dict[str, object], heard: str) -> None:
    chat = conversation(calendar())
    _, card = await chat.say("/free monday")
    assert [one.text for one in await chat.answer(card.card_id, said)] == [heard]


async def test_an_app_that_does_not_answer_is_waited_for_no_longer_than_said() -> None:
    scene = MemoryScene()
    stage = Stage(scene, calendar())
    with waiting_for("the conversation", WITHIN_SECONDS):
        _, card = await stage.say("/free monday")
        assert [one.text for one in await stage.overdue(card.card_id)] == ["Your app does not answer."]
        _, card = await stage.say("/free monday")
        assert [one.text for one in await stage.say("/cancel")] == ["You do not want it: cancelled."]
    scene.close()


async def test_whenever_a_worker_dies_people_hear_the_same() -> None:
    point, points = 0, 1
    while point < points:
        scene = MemoryScene()
        stage = Stage(scene, calendar(), dies_at=point)
        with waiting_for("the conversation, with a death", WITHIN_SECONDS):
            _, card = await stage.say("/free monday")
            assert await answer(stage, card, status="ok", result=["9:00"]) == ["Free at 9:00."], point
            assert await stage.dead() == []
        scene.close()
        points, point = stage.points, point + 1


async def test_what_nobody_catches_ends_the_handler_quietly_and_a_sync_one_calls_too() -> None:
    agent = Agent()

    @agent.on_message()
    def look(chat: BlockingChat) -> None:
        chat.reply(str(chat.call_tool("look", scope="camera", timeout=timedelta(seconds=1))))

    chat = conversation(agent)
    [card] = await chat.say("look")
    assert card.card["timeout_ms"] == 1000
    assert [one.text for one in await chat.answer(card.card_id, {"status": "ok", "result": "a cat"})] == ["a cat"]
    [card] = await chat.say("look")
    assert await chat.answer(card.card_id, {"status": "denied"}) == []


@pytest.mark.parametrize(
    ("name", "arguments", "scope"), [("Look", {}, "a"), ("look", {"at": float}, "a"), ("look", {}, "a scope")]
)
async def test_what_cannot_be_called_is_refused(name: str, arguments: dict[str, object], scope: str) -> None:
    agent = Agent()

    @agent.on_message()
    async def look(chat: Chat) -> None:
        await chat.call_tool(name, arguments, scope=scope)

    with pytest.raises(BadCard):
        await conversation(agent).say("look")
