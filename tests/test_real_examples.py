"""Each example through relay, Redis, supervisor and workers: what its people hear. `make effects` kills a process at each of its effects."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from bus.transport.client import open_redis
from tests.shop import shop
from tests.trials.effects.talks import EXAMPLES, QUICK_ONES, Example
from tests.trials.effects.walk import stage
from tests.waiting import waiting_for
from tests.workers.llm.endpoint import endpoint, events
from tests.world import World, world

FOLDER = Path(__file__).parents[1] / "examples"
SECONDS = 60.0
MIB = 1024 * 1024
LONG_NOTE = 2000


@pytest.mark.long
@pytest.mark.parametrize("example", [*EXAMPLES, *QUICK_ONES], ids=lambda example: example.name)
async def test_people_hear_what_the_example_says(tmp_path: Path, example: Example) -> None:
    with shop() as (url, _):
        async with stage(tmp_path, example, SHOP_URL=url) as one:
            seen = await one.talk()
    assert seen.heard == list(example.hears)
    assert seen.faults == []


@pytest.mark.long
async def test_the_first_agent_and_programs_beside_it_that_tell_and_ask(tmp_path: Path) -> None:
    """News from cron, twice, and a coding agent that is allowed something and then not."""
    handler = {"HASHEE_HANDLER": "first_agent:agent", "PYTHONPATH": str(FOLDER), "HASHEE_MCP_CONVERSATIONS": "all"}
    async with world(tmp_path, **handler) as w:
        [ada] = w.people
        hers = w.conversations[ada]
        await ada.say(hers, "hello")
        await w.all_answered({ada: ["You said: hello"]})
        news = ["It rains.", "-n is an option, and no news"]
        for _ in range(2):
            done = await beside(w, ["sh", str(FOLDER / "news.sh"), hers], said="\n\n".join(news))
            assert done.returncode == 0, done.stderr
        await w.all_answered({ada: ["You said: hello", *news]})
        pytest.importorskip("mcp", reason="the extra mcp is not installed")
        made, not_made = tmp_path / "made", tmp_path / "not made"
        for path, is_allowed in ((made, True), (not_made, False)):
            code = [sys.executable, str(FOLDER / "coding_agent.py"), hers, "touch", str(path)]
            ended = list[subprocess.CompletedProcess[str]]()
            cards = len(ada.cards)
            with waiting_for("the program to ask, and to end", SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep, ended, w, code)
                    await ada.transcript.until(lambda cards=cards: len(ada.cards) > cards)  # type: ignore[misc]
                    card = list(ada.cards.values())[-1]
                    assert card.title == "A program asks: coding agent"
                    assert path.name in str(card.payload["details"])
                    await ada.decide(hers, card.card_id, approve=is_allowed)
            assert (ended[0].returncode == 0, path.exists()) == (is_allowed, is_allowed), ended[0].stderr
        assert "The answer was no." in ended[0].stderr


@pytest.mark.long
async def test_a_file_is_summarised_and_the_summary_is_a_file(tmp_path: Path) -> None:
    async with endpoint(events("Nothing new.")) as model:
        handler = {"HASHEE_HANDLER": "examples.summary_agent:agent", "OPENAI_BASE_URL": model.base_url}
        async with world(tmp_path, HASHEE_LLM_MODEL="small", **handler) as w:
            [ada] = w.people
            hers = w.conversations[ada]
            await ada.send_file(hers, b"nothing new under the sun", name="chronicle.txt")
            with waiting_for("the summary", SECONDS, lambda: ada.transcript.heard(hers)):
                await ada.transcript.until(lambda: len(ada.files) == 1)
            assert await ada.read_file(ada.files[0]) == b"Nothing new."
            assert ada.transcript.heard(hers)[-1] == "[file] summary.md, 12 bytes"


@pytest.mark.long
async def test_20_mb_are_summarised_though_the_worker_dies_late_and_the_journal_has_the_answers_alone(
    tmp_path: Path,
) -> None:
    """Answers as long as the journal takes of so many: the file itself would be twenty times too large for it."""
    dies_at, pieces = 380, 400
    of = MIB * 20 // pieces
    text = "".join(f"line {number}: nothing new under the sun\n" for number in range(600_000))[: of * pieces]
    notes = [note_of(text[at : at + of]) for at in range(0, len(text), of)]
    died = trio.Event()
    async with endpoint() as model:
        handler = {"HASHEE_HANDLER": "examples.summary_agent:agent", "OPENAI_BASE_URL": model.base_url}
        async with world(tmp_path, HASHEE_LLM_MODEL="small", HASHEE_WORKERS="1", **handler) as w:

            def answer(request: dict[str, Any]) -> bytes:
                if len(model.requests) == dies_at:
                    [pid] = w.worker_pids()
                    os.kill(pid, signal.SIGKILL)
                    died.set()
                return events(note_of(request["messages"][-1]["content"].partition("\n")[2]))

            model.decide = answer
            [ada] = w.people
            hers = w.conversations[ada]
            await ada.send_file(hers, text.encode(), name="chronicle.txt")
            with waiting_for("the worker's death", SECONDS, lambda: len(model.requests)):
                await died.wait()
            noted = await journal_of(w, hers)
            assert len([name for name in noted if name.startswith("=llm#")]) == dies_at - 1
            assert dies_at * LONG_NOTE < sum(map(len, noted.values())) < MIB
            with waiting_for("the summary", SECONDS, lambda: (len(model.requests), ada.transcript.heard(hers))):
                await ada.transcript.until(lambda: len(ada.files) == 1)
            assert (await ada.read_file(ada.files[0])).decode().splitlines() == notes
            assert len(model.requests) == pieces + 1, "what was answered is not asked again"
            with waiting_for("the journal to go", SECONDS):
                while await journal_of(w, hers):
                    await trio.sleep(0.05)


def note_of(piece: str) -> str:
    """What the model that stands in says of a piece of the file."""
    return hashlib.sha256(piece.encode()).hexdigest().ljust(LONG_NOTE, ".")


async def journal_of(w: World, conversation_id: str) -> dict[str, bytes]:
    """What Redis holds of the running thread of a conversation, by name."""
    async with open_redis(f"unix://{w.redis_socket}") as client:
        found = await client.command("HGETALL", w.keys.emitted(conversation_id))
    words = cast("list[bytes]", found)
    return {name.decode(): value for name, value in zip(words[::2], words[1::2], strict=True)}


async def keep(ended: list[subprocess.CompletedProcess[str]], w: World, command: Sequence[str]) -> None:
    ended.append(await beside(w, command))


async def beside(w: World, command: Sequence[str], said: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a program on the agent's host, which knows which agent it is and where `hashee-agent` stands."""
    named = ("HASHEE_AGENT_ID", "HASHEE_STATE_DIR", "XDG_RUNTIME_DIR", "TMPDIR")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {"PATH": path, **{name: w.environment[name] for name in named if name in w.environment}}
    run = partial(
        subprocess.run,
        command,
        input=said,
        env=environ,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    return await trio.to_thread.run_sync(run)
