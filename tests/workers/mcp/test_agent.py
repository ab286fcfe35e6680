"""A model calls the tools of an MCP server, by the worker's real runner: what the owner allows runs, and for the rest a person is asked."""

import sys
from pathlib import Path

import pytest

from tests.bus.scenes import MemoryScene
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import endpoint, events
from tests.workers.stage import Stage
from tests.workers.tools.scenes import agent_at, call, told
from workers import MCP, Agent, CannotStart
from workers.testing import conversation

pytest.importorskip("mcp", reason="the extra mcp is not installed")

HOSTILE = str(Path(__file__).parent / "hostile.py")
SECONDS = 60.0


async def test_what_is_allowed_runs_and_a_person_is_asked_about_the_rest(tmp_path: Path) -> None:
    async with endpoint() as server:
        env = {"STARTS": str(tmp_path / "starts")}
        agent = agent_at(server, mcp=[MCP(sys.executable, HOSTILE, "well", name="it", env=env, allow={"search"})])
        stage = Stage(MemoryScene(), agent)
        server.say(call("it_search"), events("I have found it."), call("it_delete"), events("It is gone."))
        with waiting_for("the conversation", SECONDS):
            assert [one.text for one in await stage.say("find it") if one.text] == ["I have found it."]
            assert told(server) == ["found"]
            offered = [tool["function"] for tool in server.requests[0]["tools"]]
            assert [(tool["name"], tool["description"]) for tool in offered] == [
                ("it_search", "[it] search"),
                ("it_delete", "[it] delete"),
            ]
            [card] = [one for one in await stage.say("delete it") if one.text]
            assert "delete" in f"{card.artifact} {card.card}"
            assert "it (" in f"{card.artifact} {card.card}", "whose tool it is"
            assert [one.text for one in await stage.press(card, approve=True) if one.text] == ["It is gone."]
        stage.scene.close()


async def test_calls_are_counted_by_server_and_how_they_ended(tmp_path: Path) -> None:
    async with endpoint(call("it_search"), events("Found.")) as server:
        env = {"STARTS": str(tmp_path / "starts")}
        chat = conversation(
            agent_at(server, mcp=[MCP(sys.executable, HOSTILE, "well", name="it", env=env, allow={"search"})])
        )
        with waiting_for("the answer", SECONDS):
            await chat.say("find it")
    seen = [one.labels for one in chat.observations if one.metric == "business_mcp_calls"]
    assert seen == [{"server": "it", "outcome": "done"}]


async def test_a_second_server_that_cannot_start_is_named_though_the_first_one_is_there(tmp_path: Path) -> None:
    env = {"STARTS": str(tmp_path / "starts")}
    async with endpoint() as server:
        agent: Agent = agent_at(server, mcp=[MCP(sys.executable, HOSTILE, "well", env=env), MCP("no-such-program")])
        with pytest.raises(CannotStart, match="no-such-program"):
            async with agent.lifespan():
                pass
