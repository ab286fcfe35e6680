"""MCP servers through real processes: one that is killed in mid-call and started again, and those that are children of a worker, which end with it."""

import socket
from pathlib import Path

import pytest

from tests.test_asking import heard
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import FakeEndpoint, endpoint, events
from tests.workers.mcp.serving import serving, until_noted
from tests.workers.tools.scenes import call, told
from tests.world import World, world
from workers.tools.calls import UNKNOWN

pytest.importorskip("mcp", reason="the extra mcp is not installed")


SECONDS = 60.0


def servers(starts: Path) -> list[int]:
    return [int(pid) for pid in starts.read_text(encoding="utf-8").split()]


async def all_gone(w: World, pids: list[int]) -> None:
    def is_so() -> bool:
        return not any(is_alive(pid) for pid in pids)

    await w.until(is_so)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
async def test_a_server_that_stays_is_ended_with_its_worker_killed_or_stopped(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    handler = "tests.workers.mcp.handlers:agent"
    settings = {"HASHEE_HANDLER": handler, "HASHEE_WORKERS": "1", "HASHEE_STRIKES": "off", "STARTS": str(starts)}
    async with world(tmp_path, **settings) as w:
        [ada] = w.people
        await ada.say(w.conversations[ada], "find it")
        await w.all_answered({ada: ["found"]})
        before = servers(starts)
        [worker] = w.worker_pids()
        await w.kill(worker)
        await all_gone(w, before)
        await ada.say(w.conversations[ada], "again")
        await w.all_answered({ada: ["found", "found"]})
        after = servers(starts)
        assert len(after) == len(before) + 1
    await all_gone(w, after)


@pytest.mark.long
async def test_a_server_is_killed_in_mid_call_and_started_again_and_people_hear_of_it(tmp_path: Path) -> None:
    """The example that has the tools of a wiki, with a server of the official package."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    notes = tmp_path / "notes"
    where = {
        "WIKI_URL": f"http://127.0.0.1:{port}/mcp",
        "HASHEE_HANDLER": "examples.wiki_agent:agent",
        "HASHEE_WORKERS": "1",
    }
    async with endpoint() as model, serving(port, notes) as first:
        await until_noted(notes, "started")
        model.say(call("wiki_search_docs", words="trees"), events("There are three."))
        async with world(tmp_path, OPENAI_BASE_URL=model.base_url, **where) as w:
            [ada] = w.people
            conversation = w.conversations[ada]
            await ada.say(conversation, "What is there about trees?")
            await heard(w, ada, "There are three.")
            assert told(model) == ["3 pages about trees"]
            model.say(call("wiki_wait", seconds=60.0), events("Nobody knows."))
            await ada.say(conversation, "Wait.")
            with waiting_for("the approval", SECONDS):
                await ada.transcript.until(lambda: len(ada.cards) == 1)
            [card] = ada.cards.values()
            await ada.decide(conversation, card.card_id, approve=True)
            await until_noted(notes, "wait")
            first.kill()
            with waiting_for("the answer", SECONDS):
                await ada.transcript.until(lambda: "Nobody knows." in ada.transcript.heard(conversation))
            assert told(model)[-1] == UNKNOWN, "and it is not called again"
            async with serving(port, notes):
                await until_noted(notes, "started", 2)
                await found_again(w, model)


async def found_again(w: World, model: FakeEndpoint) -> None:
    """The tool is called until the worker has found the server again."""
    [ada] = w.people
    conversation = w.conversations[ada]
    with waiting_for("the server to be found again", SECONDS):
        for number in range(20):
            model.say(call("wiki_search_docs", words="more"), events(f"Answer {number}."))
            await ada.say(conversation, "And more?")
            answer = f"Answer {number}."
            await ada.transcript.until(lambda answer=answer: answer in ada.transcript.heard(conversation))  # type: ignore[misc]
            if told(model)[-1] == "3 pages about more":
                return
    raise AssertionError(told(model))
