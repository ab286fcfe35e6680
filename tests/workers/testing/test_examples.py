"""The examples survive a kill at every point, and do what their first lines say, as an owner would test them."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.shop import shop
from tests.workers.test_examples import load, names_in
from workers.testing import Harness, HarnessChat, ScriptedLLM, call, survives

MORNING = datetime(2026, 11, 30, 5, 0, tzinfo=UTC)


async def test_a_booking_is_asked_for_in_steps(mock_clock: MockClock) -> None:
    async with Harness(load("booking_agent")) as chat:
        assert (await chat.say("/book")).text == "Your name?"
        assert (await chat.say("Ann")).text == "Which day?"
        await chat.restart()
        [card] = await chat.say("2026-12-01")
        assert card.card["body"] == "Ann on 2026-12-01?"
        assert (await chat.press(card, approve=True)).text == "Booked."
        assert await chat.advance(days=1) == []


async def test_a_booking_survives(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        await chat.say("/book")
        await chat.say("Ann")
        [card] = await chat.say("2026-12-01")
        await chat.press(card, approve=True)

    survived = await survives(load("booking_agent"), script)
    assert survived.kills >= 16, "before and after each of eight things that are written"
    assert survived.unknown == ()


async def test_the_pirate_remembers_and_survives(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        [said] = await chat.say("hello")
        assert said.text == "Ahoy, matey!"
        assert (await chat.say("what did I say?")).text == "Ye said hello."
        assert chat.llm is not None
        assert chat.llm.calls[-1].texts == ["You are a pirate.", "hello", "Ahoy, matey!", "what did I say?"]

    survived = await survives(load("pirate_agent"), script, llm=ScriptedLLM("Ahoy, matey!", "Ye said hello."))
    assert survived.kills >= 8


async def test_a_vote_is_counted_and_closed_though_everything_dies(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        [card] = await chat.say("/vote")
        await chat.press(card, option="stew")
        ben = chat.as_("ben")
        [update] = await ben.press(card, option="soup")
        assert update.card["options"] == {"soup": 1, "stew": 1}
        assert await ben.press(card, option="soup") == []
        assert chat.state.votes == {"ann": "stew", "ben": "soup"}
        closed = await ben.advance(minutes=30)
        assert closed[-1].card["closed"] is True
        assert chat.state.card == ""

    await survives(load("lunch_agent"), script, group=("ann", "ben"))


async def test_reminders_come_when_they_are_due(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        assert (await chat.say("Remind me in 5 minutes to drink tea")).text == "I will."
        assert await chat.advance(minutes=4) == []
        assert (await chat.advance(minutes=1)).text == "⏰ drink tea"
        await chat.say("/digest")
        assert (await chat.advance(hours=3)).texts == ["Good morning!"]
        assert (await chat.advance(days=2)).texts == ["Good morning!", "Good morning!"]
        await chat.say("/enough")
        assert await chat.advance(days=2) == []

    await survives(load("reminder_agent"), script, now=MORNING)


async def test_the_first_agent_says_it_back_whatever_dies(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        assert (await chat.say("hello")).text == "You said: hello"

    assert (await survives(load("first_agent"), script)).kills == 2, (
        "before and after its one reply, with which the job ends"
    )


async def test_in_a_group_it_answers_who_mentions_it_and_quotes(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        assert await chat.as_("ben").say("shall we?", mention=False) == []
        [reply] = await chat.say("when do we meet?")
        assert reply.text == "You asked: when do we meet?"
        assert "reply_to" in reply.payload

    await survives(load("group_agent"), script, group=("ann", "ben"))


async def test_a_story_is_streamed_and_takes_no_time(mock_clock: MockClock) -> None:
    async with Harness(load("story_agent")) as chat:
        [reply] = await chat.say("keys")
        assert len(reply.deltas) >= 3
        assert chat.typing[0] is True


async def test_a_story_survives(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        [reply] = await chat.say("keys")
        assert reply.text.startswith("About keys: Once upon a time")

    await survives(load("story_agent"), script)


async def test_who_has_used_up_the_day_is_told_so_and_the_model_is_not_asked(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        for number in range(10):
            assert (await chat.say("hello")).text == f"{number}"
        assert (await chat.say("hello")).text == "Please wait a little."
        assert (await chat.as_("ben").say("hello")).text == "10", "of each person"

    async with Harness(load("budget_agent"), llm=ScriptedLLM(*(str(number) for number in range(11)))) as chat:
        await script(chat)


async def test_an_order_is_placed_once_whatever_dies(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(chat: HarnessChat) -> None:
        assert (await chat.say("bread")).text == "Ordered, your number is 7."
        assert (await chat.send({"type": "image", "attachment_id": "x"})).text.startswith("I cannot read")

    with shop() as (url, orders):
        monkeypatch.setenv("SHOP_URL", url)

        def before() -> None:
            assert len(orders) <= 1
            orders.clear()

        await survives(load("shop_agent"), script, before=before)
        assert set(orders.values()) == {"bread"}


async def test_files_are_deleted_once_and_only_what_was_approved(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def script(chat: HarnessChat) -> None:
        assert (await chat.say("Weather?")).text == "Sunny."
        [card] = await chat.say("Delete them")
        assert '"pattern": "*.tmp"' in str(card.card["details"])
        assert (tmp_path / "a.tmp").exists()
        replies = await chat.press(card, approve=True)
        if not chat.outcome_is_unknown:
            assert replies.texts[-1] == "Gone."
            assert names_in(tmp_path) == ["b.txt"]

    def before() -> None:
        for name in ("a.tmp", "b.txt"):
            (tmp_path / name).touch()

    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    llm = ScriptedLLM(call("weather", city="Rome"), "Sunny.", call("delete_files", pattern="*.tmp"), "Gone.")
    survived = await survives(load("tools_agent"), script, llm=llm, before=before)
    assert 1 <= len(survived.unknown) <= 3, "killed while it deletes, it is not done again"


async def test_what_the_wiki_has_is_searched_and_a_deletion_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against a server of the official package; the time is real, since a socket waits for it."""
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    from tests.workers.mcp.serving import serving, until_noted  # noqa: PLC0415 - needs the extra

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("WIKI_URL", f"http://127.0.0.1:{port}/mcp")
    llm = ScriptedLLM(
        *(call("wiki_search_docs", words="trees"), "There are three."),
        *(call("wiki_delete_page", page="oak"), "It is gone."),
    )
    notes = tmp_path / "notes"
    async with serving(port, notes):
        await until_noted(notes, "started")
        async with Harness(load("wiki_agent"), llm=llm) as chat:
            assert (await chat.say("trees?")).text == "There are three."
            [card] = await chat.say("delete the oak")
            assert "delete" not in notes.read_text(encoding="utf-8")
            await chat.restart()
            assert (await chat.press(card, approve=True)).texts[-1] == "It is gone."
    assert notes.read_text(encoding="utf-8").count("delete") == 1


async def test_what_was_said_before_is_kept_until_it_is_forgotten(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        await chat.say("one")
        assert (await chat.say("two")).text == "2. I have read 3 turns, from 'one' to 'two'."
        assert [turn.text for turn in await chat.history()][::2] == ["one", "two"]
        await chat.say("/forget")
        assert (await chat.say("three")).text == "1. I have read 1 turns, from 'three' to 'three'."

    await survives(load("memory_agent"), script)


async def test_what_comes_from_outside_is_said(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        assert (await chat.remind("deploy", {"version": "42"})).text == "Version 42 is out."

    await survives(load("deploy_agent"), script)


async def test_an_export_is_stopped_by_its_button_and_begun_once(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = set[str]()

    async def start(_api: object, key: str) -> str:
        started.add(key)
        return key

    async def percent(_api: object, _ticket: str) -> int:
        return 40

    async def script(chat: HarnessChat) -> None:
        [card, *_] = await chat.say("/export", seconds=5)
        assert card.card["actions"] == [{"id": "cancel", "label": "Stop"}]
        replies = await chat.press(card, "Stop")
        assert replies[-1].text == "Stopped."
        assert len(started) == 1

    agent = load("export_agent")
    api = agent.handlers[0].registration.function.__globals__["Api"]
    monkeypatch.setattr(api, "start", start)
    monkeypatch.setattr(api, "percent", percent)
    monkeypatch.setenv("EXPORT_URL", "http://127.0.0.1:1")
    await survives(agent, script, before=started.clear)


async def test_a_file_is_summarised_and_the_summary_is_a_file_whatever_dies(mock_clock: MockClock) -> None:
    async def script(chat: HarnessChat) -> None:
        replies = await chat.send_file(b"nothing new under the sun", name="chronicle.txt")
        assert replies[-1].files[0]["filename"] == "summary.md"
        assert chat.content_of(replies[-1]) == b"nothing new"

    await survives(load("summary_agent"), script, llm=ScriptedLLM("nothing new"))
