"""The examples run as they stand."""

import importlib.util
import re
from pathlib import Path

import pytest
import trio.testing

from tests.workers.llm.endpoint import endpoint, events
from tests.workers.tools.scenes import call
from workers import Agent, JournalFull
from workers.testing import conversation

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> Agent:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    agent = module.agent
    assert isinstance(agent, Agent)
    return agent


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_gallery_names_each_example_with_a_sentence_and_each_is_short_and_run_through_real_processes() -> None:
    rows = re.findall(
        r"^\| \[(\S+)\]\((\S+)\) \| ([A-Z][^|]+\.) \|$", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.M
    )
    files = {path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert sorted(name for name, *_ in rows) == sorted(path.name for path in files)
    assert all(name == link for name, link, _ in rows)
    tests = [
        EXAMPLES.parent / "tests" / name
        for name in ("test_real_examples.py", "test_mcp_client.py", "trials/effects/talks.py")
    ]
    run = "".join(path.read_text(encoding="utf-8") for path in tests)
    in_memory = (Path(__file__).parent / "testing" / "test_examples.py").read_text(encoding="utf-8")
    for path in files:
        assert re.search(rf"\b{path.stem}\b", run), f"{path.name} is run through no real processes"
        assert not path.stem.endswith("_agent") or path.stem == "coding_agent" or f'load("{path.stem}")' in in_memory
        code = [
            line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line.strip()[0] != "#"
        ]
        assert 5 <= len(code) <= 40, f"{path.name} has {len(code)} lines"


async def test_the_first_agent_says_it_back() -> None:
    [reply] = await conversation(load("first_agent")).say("hello")
    assert reply.text == "You said: hello"


async def test_the_pirate_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint(events("Ahoy!"), events("Ye said hello.")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        chat = conversation(load("pirate_agent"))
        for said, heard in (("hello", "Ahoy!"), ("what did I say?", "Ye said hello.")):
            assert [reply.text for reply in await chat.say(said)] == [heard]
    assert [text for _, text in server.asked[-1]] == ["You are a pirate.", "hello", "Ahoy!", "what did I say?"]


async def test_the_one_with_tools_asks_before_it_deletes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.tmp").touch()
    (tmp_path / "b.txt").touch()
    async with endpoint(
        call("weather", city="Rome"), events("Sunny."), call("delete_files", pattern="*.tmp")
    ) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
        chat = conversation(load("tools_agent"))
        assert [reply.text for reply in await chat.say("Weather?")] == ["Sunny."]
        [card] = await chat.say("Delete them")
        assert names_in(tmp_path) == ["a.tmp", "b.txt"]
        server.say(events("Gone."))
        decision = {"decision": "approved", "question_hash": card.card["question_hash"]}
        assert [reply.text for reply in await chat.answer(card.card_id, decision)] == ["Gone."]
    assert names_in(tmp_path) == ["b.txt"]


def test_the_budget_is_each_person_s() -> None:
    [budget, of_agents] = load("budget_agent").budgets.all
    assert (budget.per, budget.messages_per_minute, budget.tokens_per_day) == ("sender", 10, 50_000)
    assert of_agents.of == "agents"


async def test_reminders_are_promised() -> None:
    chat = conversation(load("reminder_agent"))
    [reply] = await chat.say("Remind me in 5 minutes to drink tea")
    assert reply.text == "I will."
    [reply] = await chat.say("/digest")
    assert reply.text == "Each morning at eight."


async def test_what_is_asked_in_a_group_is_quoted() -> None:
    [reply] = await conversation(load("group_agent")).say("when do we meet?")
    assert reply.text == "You asked: when do we meet?"
    assert "reply_to" in reply.payload


async def test_the_story_is_streamed(autojump_clock: trio.testing.MockClock) -> None:
    [reply] = await conversation(load("story_agent")).say("keys")
    assert reply.text.startswith("About keys: Once upon a time")
    assert len(reply.deltas) >= 3


async def test_the_shop_refuses_what_is_no_text_and_needs_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)
    chat = conversation(load("shop_agent"))
    [reply] = await chat.send({"type": "image", "attachment_id": "x"})
    assert "image" in reply.text
    with pytest.raises(KeyError):
        await chat.say("bread")


async def test_a_vote_is_counted_once_for_each_person_on_the_card_that_is_open() -> None:
    chat = conversation(load("lunch_agent"), sender_id="ann")
    [card] = await chat.say("/vote")
    assert card.card["options"] == {"soup": 0, "stew": 0}
    [update] = await chat.answer(card.card_id, {"option": "stew"})
    assert (update.card_id, update.revision, update.card["options"]) == (card.card_id, 1, {"soup": 0, "stew": 1})
    assert await chat.answer(card.card_id, {"option": "soup"}) == []
    assert chat.state.votes == {"ann": "stew"}
    [again] = await chat.say("/vote")
    assert again.card_id != card.card_id
    assert await chat.answer(card.card_id, {"option": "soup"}) == [], "of the vote before"


async def test_a_booking_is_asked_for_in_steps_and_approved() -> None:
    chat = conversation(load("booking_agent"))
    for booking in range(2):
        said = [(await chat.say(text))[-1].text for text in ("/book", "Ann", "tomorrow")]
        assert said == ["Your name?", "Which day?", "Please answer with a date, such as 2026-12-31."]
        [card] = await chat.say("2026-12-01")
        assert card.card["body"] == "Ann on 2026-12-01?"
        decision = {"decision": ("approved", "rejected")[booking], "question_hash": card.card["question_hash"]}
        assert [one.text for one in await chat.answer(card.card_id, decision)] == [["Booked."], []][booking]


async def test_what_was_said_before_is_what_the_model_is_given() -> None:
    chat = conversation(load("memory_agent"))
    assert [said.text for said in await chat.say("one")] == ["1. I have read 1 turns, from 'one' to 'one'."]
    assert [said.text for said in await chat.say("two")] == ["2. I have read 3 turns, from 'one' to 'two'."]
    assert await chat.run_again() == []
    await chat.say("/forget")
    assert [said.text for said in await chat.say("three")] == ["1. I have read 1 turns, from 'three' to 'three'."]


@pytest.mark.long
async def test_a_file_of_20_mb_is_summarised_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"line {number}: nothing new under the sun\n" for number in range(500_000))[: 20 * 1024 * 1024]
    pieces = -(-len(text) // (len(text) // 400))
    async with endpoint(*(events(f"note {number}") for number in range(pieces))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        chat = conversation(load("summary_agent"))
        replies = await chat.send_file(text.encode(), name="../chronicle.txt")
    assert replies[0].card["status"] == "starting"
    assert chat.content_of(replies[-1]).decode().splitlines() == [f"note {number}" for number in range(pieces)]
    asked = [content.partition("\n")[2] for turn in server.asked for role, content in turn if role == "user"]
    assert "".join(asked) == text
    again = await chat.run_again()
    assert {one.card_id for one in again} <= {replies[0].card_id}, "progress is shown anew, and nothing else"


async def test_answers_that_are_too_long_for_the_journal_end_it_with_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with endpoint(events("x" * 200_000)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(JournalFull, match=r"step 'llm'.* of a model ask for fewer or shorter answers"):
            await conversation(load("summary_agent")).send_file(b"x" * 280_000, name="long.txt")
    assert len(server.requests) == 6, "five of them fit into 1 MiB"
