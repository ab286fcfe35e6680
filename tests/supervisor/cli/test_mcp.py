"""`hashee-agent mcp`: an agent that is away is asked again, and what it refuses is said; without the package it names what to install."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio

from bus.control.client import Control, Unanswered, Why
from bus.control.messages import ControlAnswer, Request
from bus.records.outside import OutsideAnswer
from supervisor.cli.mcp.agent_line import AgentLine, Refused
from supervisor.control.answers import raw

server = pytest.importorskip("supervisor.cli.mcp.server", reason="the extra mcp is not installed")

pytestmark = pytest.mark.pure

AWAY = Unanswered(Why.NO_AGENT, "no agent runs on /state")
ENDED = ControlAnswer(ok=False, error="the supervisor ended before it answered")
FULL = ControlAnswer(ok=False, error="too much waits", result=raw({"reason": "full"}))
RECEIPT = ControlAnswer(ok=True, result=raw({"conversation_id": "c", "id": "asked:1", "outcome": "queued"}))
NOTHING_YET = ControlAnswer(ok=True, result=raw({"answer": None}))
GIVEN = ControlAnswer(ok=True, result=raw({"answer": OutsideAnswer("c", "answered", approved=True, by="ann")}))
ROOT = Path(__file__).parents[3]


class Socket:
    """The agent's control socket, which answers in this order, and with the last one for ever. `asked`: what it was asked."""

    def __init__(self, *answers: ControlAnswer | Unanswered) -> None:
        self._answers = list(answers)
        self.asked: list[Request] = []

    @contextmanager
    def connected(self) -> Iterator["Socket"]:
        yield self

    def ask(self, request: Request, *, patience_seconds: float) -> ControlAnswer:
        assert patience_seconds > 0
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Unanswered):
            raise answer
        return answer

    @property
    def keys(self) -> list[str]:
        return [msgspec.json.decode(request.message).get("key", "") for request in self.asked]


async def call(socket: Socket, tool: str, **arguments: object) -> tuple[dict[str, object], list[float]]:
    """What a tool tells, and for how long its program was told to wait."""
    told: list[float] = []

    async def progress(waited: float, _: float) -> None:
        told.append(waited)
        await trio.lowlevel.checkpoint()

    tools = server.Tools(AgentLine(cast("Control", socket)))
    found: dict[str, object] = await tools.call(tool, arguments, server.Caller("coder", progress))
    return found, told


async def test_a_supervisor_that_dies_with_the_request_is_asked_again_under_the_same_key(autojump_clock: Any) -> None:
    socket = Socket(ENDED, AWAY, FULL, RECEIPT)
    told, _ = await call(socket, "send_message", conversation_id="c", text="hi")
    assert told == {"outcome": "queued", "id": "asked:1"}
    assert len(socket.keys) == 4
    assert len(set(socket.keys)) == 1
    assert socket.keys[0].startswith("mcp-")


async def test_an_agent_that_stays_away_is_said_to_be_away(autojump_clock: Any) -> None:
    with pytest.raises(Refused, match="no agent runs"):
        await call(Socket(AWAY), "list_conversations")
    assert trio.current_time() < 60


async def test_who_is_waited_for_may_be_away_meanwhile_and_the_program_hears_that_it_waits(autojump_clock: Any) -> None:
    waits: list[ControlAnswer | Unanswered] = [NOTHING_YET, AWAY, ENDED] * 10
    socket = Socket(RECEIPT, *waits, GIVEN)
    told, waited = await call(socket, "ask_person", conversation_id="c", question="Go on?", kind="approval", key="k")
    assert told == {"status": "answered", "approved": True, "by": "ann"}
    assert len(waited) >= 2
    assert waited == sorted(waited)
    question = msgspec.json.decode(socket.asked[0].message)
    assert (question["key"], question["asker"], question["is_approval"]) == ("k", "coder", True)


async def test_a_question_whose_end_nobody_tells_ends_the_call_after_its_time(autojump_clock: Any) -> None:
    began = trio.current_time()
    told, _ = await call(
        Socket(RECEIPT, NOTHING_YET), "ask_person", conversation_id="c", question="?", time_limit_seconds=5
    )
    assert told["status"] == "no_answer"
    assert trio.current_time() - began < 5 + server.GRACE_SECONDS + 5


async def test_a_refusal_is_not_repeated(autojump_clock: Any) -> None:
    socket = Socket(ControlAnswer(ok=False, error="HASHEE_MCP_CONVERSATIONS …", result=raw({"reason": "not_allowed"})))
    with pytest.raises(Refused, match="HASHEE_MCP_CONVERSATIONS"):
        await call(socket, "ask_person", conversation_id="c", question="?")
    assert len(socket.asked) == 1


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("send_message", {"conversation_id": "c"}),
        ("send_message", {"conversation_id": "c", "text": "x", "to": "y"}),
        ("ask_person", {"conversation_id": "c", "question": "?", "kind": "order"}),
        ("ask_person", {"conversation_id": "c", "question": "?", "time_limit_seconds": 0}),
        ("list_conversations", {"all": True}),
    ],
)
async def test_arguments_that_do_not_fit_reach_no_agent(tool: str, arguments: dict[str, object]) -> None:
    socket = Socket(RECEIPT)
    with pytest.raises(msgspec.ValidationError):
        await call(socket, tool, **arguments)
    assert socket.asked == []


async def test_each_tool_says_what_it_takes() -> None:
    assert {tool.name: set(tool.input_schema["required"]) for tool in server.TOOLS} == {
        "send_message": {"conversation_id", "text"},
        "ask_person": {"conversation_id", "question"},
        "list_conversations": set(),
    }
    for tool in server.TOOLS:
        assert (tool.input_schema["type"], tool.input_schema["additionalProperties"]) == ("object", False)
        assert tool.description


def test_without_the_package_the_command_names_what_to_install() -> None:
    hidden = (
        "import sys; sys.modules['mcp'] = None; from supervisor.__main__ import main; sys.argv[1:] = ['mcp']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden],
        cwd=ROOT,
        env={"HASHEE_AGENT_ID": "01906abc-0000-7000-8000-000000000001", "HOME": "/nowhere"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'hashee-agent[mcp]'" in done.stderr
