"""The snippets of docs/llm.md run as they stand, over a socket, with the conversation below them."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.waiting import waiting_for
from tests.workers.llm.endpoint import endpoint, events
from tests.workers.tools.scenes import calls
from workers import Agent
from workers.testing import Said, conversation

ROOT = Path(__file__).parents[3]
SNIPPET = re.compile(r"^```python\n(.*?)^```\n^```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
TOOL = re.compile(r"(\w+)\((\{.*\})\)")
CARD = "[approval] "
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
        chat, cards = conversation(agent), list[Said]()
        for exchange in re.split(r"^(?=>)", talk, flags=re.MULTILINE)[1:]:
            said, *lines = exchange.splitlines()
            heard = [line[2:] for line in lines if line.startswith("< ")]
            written = [line[2:] for line in lines if line.startswith("~ ")]
            if written and TOOL.fullmatch(written[-1]):
                written += [text for text in heard if not text.startswith(CARD)]
            server.say(*(written_by(text) for text in written or heard))
            with waiting_for(f"the answer to {said}", WITHIN_SECONDS):
                if said.startswith(">> "):
                    hashed = cards[-1].card["question_hash"]
                    replies = await chat.answer(cards[-1].card_id, {"decision": said[3:], "question_hash": hashed})
                else:
                    replies = await chat.say(said[2:])
            cards += [reply for reply in replies if reply.card_id]
            assert [text_of(reply) for reply in replies] == heard


def written_by(text: str) -> bytes:
    """What the model sends that writes this."""
    made = TOOL.fullmatch(text)
    return events(text) if made is None else calls((made[1], made[2]))


def text_of(said: Said) -> str:
    return f"{CARD}{said.card['body']}" if said.card_id else said.text
