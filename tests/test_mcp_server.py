"""`hashee-agent mcp`, driven by the official client: what a program on this host may say and ask, and that no answer is lost on its way back."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sandbox.people import Person
from tests.test_from_outside import command
from tests.test_kills import kill_every_worker, kill_supervisor
from tests.waiting import waiting_for
from tests.world import World, agent, world

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")

SECONDS = 60.0
ROOT = Path(__file__).parents[1]
SETTING = "HASHEE_MCP_CONVERSATIONS"


@asynccontextmanager
async def program(w: World, **settings: str) -> AsyncIterator[Any]:
    """A program on the agent's host that has started `hashee-agent mcp`; of the agent it knows its id and its state directory alone."""
    named = ("HASHEE_AGENT_ID", "HASHEE_STATE_DIR", "XDG_RUNTIME_DIR", "TMPDIR")
    needed = {name: w.environment[name] for name in named if name in w.environment}
    server = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "supervisor", "mcp"], env={**needed, **settings}, cwd=ROOT
    )
    async with mcp.Client(server, client_info=mcp.types.Implementation(name="coder", version="1")) as client:
        yield client


async def told(client: Any, tool: str, **arguments: object) -> dict[str, Any]:
    """What a tool has told, which was no error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found: dict[str, Any] = json.loads(result.content[0].text)
    assert found == result.structured_content
    return found


async def refusal(client: Any, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


async def card_of(person: Person, body: str) -> str:
    """The id of the card with this body, once it is shown."""
    with waiting_for(f"the card {body!r}", SECONDS):
        await person.transcript.until(lambda: any(card.payload["body"] == body for card in person.cards.values()))
    return next(card.card_id for card in person.cards.values() if card.payload["body"] == body)


async def until_asked(w: World, person: Person, words: str) -> None:
    def is_asked() -> bool:
        return any(words in one for one in person.transcript.heard(w.conversations[person]))

    with waiting_for(words, SECONDS):
        await person.transcript.until(is_asked)


@pytest.mark.long
async def test_a_program_says_and_asks_where_it_may_and_nowhere_else(tmp_path: Path) -> None:
    async with world(tmp_path, people=("Ada", "Ben")) as w:
        ada, ben = w.people
        hers, his = w.conversations[ada], w.conversations[ben]
        for person in w.people:
            await person.say(w.conversations[person], "hello")
        await w.all_answered({ada: ["echo: hello"], ben: ["echo: hello"]})
        async with program(w, HASHEE_MCP_CONVERSATIONS="all") as client:  # its own word counts for nothing
            assert {tool.name for tool in (await client.list_tools()).tools} == {
                "send_message",
                "ask_person",
                "list_conversations",
            }
            assert SETTING in await refusal(client, "list_conversations")
            assert SETTING in await refusal(client, "send_message", conversation_id=hers, text="hi")
            assert SETTING in await refusal(client, "ask_person", conversation_id=hers, question="May I?")
        assert (await command(w, "stop")).returncode == 0
        w.environment[SETTING] = hers
        async with agent(w):
            await w.until_ready()
            async with program(w) as client:
                listed = await told(client, "list_conversations")
                assert [(one["conversation_id"], one["kind"], one["person"]) for one in listed["conversations"]] == [
                    (hers, "h2a", ada.account.user_id)
                ]
                assert SETTING in await refusal(client, "send_message", conversation_id=his, text="hi")
                assert SETTING in await refusal(client, "ask_person", conversation_id=his, question="May I?")
                for outcome in ("queued", "already"):
                    sent = await told(client, "send_message", conversation_id=hers, text="Deployed", key="deploy-42")
                    assert sent["outcome"] == outcome
                other = await refusal(client, "send_message", conversation_id=hers, text="Undone", key="deploy-42")
                assert "take another key" in other
                assert "text" in await refusal(client, "send_message", conversation_id=hers)
                await an_approval_and_a_text_are_asked_at_once(w, client, ada)
                await nobody_answers(client, hers)
        assert ben.transcript.heard(his) == ["echo: hello"]
        assert not ada.unreadable


async def an_approval_and_a_text_are_asked_at_once(w: World, client: Any, ada: Person) -> None:
    hers, found = w.conversations[ada], dict[str, dict[str, Any]]()

    async def ask(name: str, **arguments: object) -> None:
        found[name] = await told(client, "ask_person", conversation_id=hers, **arguments)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask("drop", question="Drop the table?", kind="approval", details="`DROP TABLE x`"))
        nursery.start_soon(lambda: ask("where", question="Where to?"))
        card = await card_of(ada, "Drop the table?")
        await until_asked(w, ada, "Where to?")
        assert ada.cards[card].title == "A program asks: coder"
        await ada.say(hers, "to the staging host")
        await ada.decide(hers, card, approve=False)
    assert found["drop"] == {"status": "answered", "approved": False, "by": ada.account.user_id}
    assert found["where"] == {"status": "answered", "text": "to the staging host", "by": ada.account.user_id}


async def nobody_answers(client: Any, hers: str) -> None:
    answer = await told(
        client, "ask_person", conversation_id=hers, question="Anybody?", kind="approval", time_limit_seconds=1
    )
    assert answer == {"status": "no_answer", "reason": "timeout"}


@pytest.mark.long
async def test_no_answer_is_lost_whoever_dies_while_a_question_is_open(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_STRIKES="off", HASHEE_MCP_CONVERSATIONS="all") as w:
        [ada] = w.people
        hers = w.conversations[ada]
        await ada.say(hers, "hello")
        await w.all_answered({ada: ["echo: hello"]})
        asks = {"conversation_id": hers, "question": "Go on?", "kind": "approval", "key": "go-on"}
        async with program(w) as client, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.call_tool("ask_person", asks))
            card = await card_of(ada, "Go on?")
            nursery.cancel_scope.cancel()  # the program goes away, and its server with it
        await kill_every_worker(w)
        found = list[dict[str, Any]]()

        async def ask_again(client: Any) -> None:
            found.append(await told(client, "ask_person", **asks))

        async with program(w) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_again, client)
                await kill_supervisor(w)
                await ada.decide(hers, card, approve=True)
            await ask_again(client)
        answer = {"status": "answered", "approved": True, "by": ada.account.user_id}
        assert found == [answer, answer]
        assert len(ada.cards) == 1, "and she was asked once"
