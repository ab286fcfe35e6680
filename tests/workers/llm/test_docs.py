"""The snippets of docs/llm.md run as they stand, over a socket, with the conversation below them."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.waiting import waiting_for
from tests.workers.llm.endpoint import endpoint, events
from workers import Agent
from workers.testing import conversation

ROOT = Path(__file__).parents[3]
SNIPPET = re.compile(r"^```python\n(.*?)^```\n^```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
WITHIN_SECONDS = 20


def snippets() -> list[tuple[str, str, str]]:
    """Each with the heading that it stands under, and its conversation."""
    text = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")
    assert text.count("```python") == len(SNIPPET.findall(text)), "a snippet without its conversation"
    parts = text.split("\n## ")[1:]
    return [(part.splitlines()[0], code, talk) for part in parts for code, talk in SNIPPET.findall(part)]


@pytest.mark.parametrize(("heading", "code", "talk"), snippets(), ids=lambda value: value[:30].splitlines()[0])
async def test_a_snippet_runs_and_says_what_the_page_says(
    heading: str, code: str, talk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    exec(compile(code, heading, "exec"), vars(module))  # noqa: S102 - the page's own code
    agent = module.agent
    assert isinstance(agent, Agent)
    async with endpoint(b"") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        chat = conversation(agent)
        for exchange in re.split(r"^> ", talk, flags=re.MULTILINE)[1:]:
            said, *lines = exchange.splitlines()
            heard = [line[2:] for line in lines if line.startswith("< ")]
            written = [line[2:] for line in lines if line.startswith("~ ")]
            server.say(*(events(text) for text in written or heard))
            with waiting_for(f"the answer to {said}", WITHIN_SECONDS):
                assert [reply.text for reply in await chat.say(said)] == heard
