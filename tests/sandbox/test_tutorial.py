"""The screens of docs/tutorial.md are what is shown."""

import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.console import Console, ConsoleOptions
from sandbox.script_lines import steps_in
from sandbox.start_a_project import STARTER, start_project, what_next
from workers import Agent

pytestmark = pytest.mark.pure

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
SCREENS = dict(re.findall(r"^```text (\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def agent_of(template: str, monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = ModuleType("tutorial")
    monkeypatch.setitem(sys.modules, "tutorial", made)
    exec((STARTER / template / "agent.py.txt").read_text(encoding="utf-8"), vars(made))  # noqa: S102 - our own
    agent = made.agent
    assert isinstance(agent, Agent)
    return agent


@pytest.mark.parametrize("template", ["chat", "form"])
async def test_a_chat_is_as_it_is_shown(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [line.partition(": ")[2] for line in SCREENS[template].splitlines() if re.match("(ann|ben): ", line)]
    out = io.StringIO()
    console = Console(agent_of(template, monkeypatch), ConsoleOptions("agent:agent"), steps_in(said), out)
    await console.run()
    assert out.getvalue() == SCREENS[template]
    assert not console.has_failed


async def test_the_script_is_what_the_agent_says(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_in(SCREENS["script"].splitlines())
    console = Console(agent_of("chat", monkeypatch), ConsoleOptions("agent:agent"), steps, io.StringIO())
    await console.run()
    assert not console.has_failed


async def test_a_program_reads_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    command, _, expected = SCREENS["json"].partition("\n")
    assert command == "$ echo hello | hashee-agent console --json"
    out = io.StringIO()
    await Console(
        agent_of("chat", monkeypatch), ConsoleOptions("agent:agent", as_json=True), steps_in(["hello"]), out
    ).run()
    assert out.getvalue() == expected


def test_init_writes_and_says_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = start_project(Path("mybot"), "chat")
    assert f"$ hashee-agent init mybot\n{what_next(Path('mybot'), files, 'chat')}\n" in PAGE
    code = (tmp_path / "mybot" / "agent.py").read_text(encoding="utf-8")
    assert code.partition("\n\n")[2] in PAGE
