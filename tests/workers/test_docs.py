"""The snippets of docs/handlers.md and README.md run as they stand, with the conversation below them."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.cards import Cards
from workers import Agent
from workers.testing import Conversation, Said, conversation

ROOT = Path(__file__).parents[2]
SNIPPET = re.compile(r"^```python\n(.*?)^```\n(?:^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
OF_README = "> hello\n< You said: hello\n"

pytestmark = pytest.mark.pure


def snippets() -> list[tuple[str, str, str]]:
    """Each with the heading that it stands under, and its conversation."""
    found = []
    for part in (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        found += [(part.splitlines()[0], code, talk) for code, talk in SNIPPET.findall(part)]
    [(code, _)] = SNIPPET.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return [*found, ("README", code, OF_README)]


def shown(said: Said, cards: Cards, chat: Conversation) -> str:
    """A card on one line; of a file its name and content, of a picture what it shows."""
    if said.payload["type"] == "file":
        return f"[{said.payload['filename']}] {chat.content_of(said).decode().strip()}"
    if said.payload["type"] == "image":
        return f"[image] {said.payload['alt']}"
    card = cards.read(said.payload)
    return said.text if card is None else card.text.replace("\n", " | ")


def answered(said: dict[str, object], chat: Conversation) -> dict[str, object]:
    """An answer to a card, in whose form `[name] content` is a file."""
    values = said.get("values")
    if not isinstance(values, dict):
        return said
    files = {name: re.fullmatch(r"\[(.*?)\] (.*)", str(value)) for name, value in values.items()}
    attached = {name: chat.attach(one[2].encode(), name=one[1]) for name, one in files.items() if one}
    return {**said, "values": {**values, **attached}}


@pytest.mark.parametrize(("heading", "code", "talk"), snippets(), ids=lambda value: value[:30].splitlines()[0])
async def test_a_snippet_runs_and_says_what_the_page_says(
    heading: str, code: str, talk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert talk, f"{heading}: a snippet without its conversation"
    module = ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    exec(compile(code, heading, "exec"), vars(module))  # noqa: S102 - the page's own code
    agent = module.agent
    assert isinstance(agent, Agent)
    heard, chat, cards, sent = list[str](), conversation(agent), Cards(), dict[str, str]()
    for line in talk.splitlines():
        if line.startswith((">> ", "> ")):
            assert heard == [], f"{heading}: said, and not on the page"
            if line.startswith(">> "):
                replies = await chat.answer(list(cards.shown)[-1], answered(json.loads(line[3:]), chat))
            elif file := re.fullmatch(r"> \[(.*?)\] (.*)", line):
                replies = await chat.send_file(file[2].encode(), name=file[1])
                sent[file[1]] = chat.message_id
            elif quoting := re.fullmatch(r"> \(quotes (.*?)\) (.*)", line):
                replies = await chat.say(quoting[2], quote=sent[quoting[1]])
            else:
                replies = await chat.say(line[2:])
            heard = [shown(said, cards, chat) for said in replies]
        else:
            assert heard, f"{heading}: {line} was not said"
            assert f"< {heard.pop(0)}" == line
    assert heard == []
