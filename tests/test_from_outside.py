"""A message that no job said, through the real command line: it reaches the person, once for a key, while the agent runs and before it starts."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from supervisor.cli.send import EXIT_REFUSED, EXIT_TRY_AGAIN
from tests.world import World, agent, world
from workers import BlockingOutside, Info, NotSent, Outside

CARD = "[info] a card"
PROGRAM = (sys.executable, "-m", "supervisor")


async def command(w: World, *words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [*PROGRAM, *words], env=w.environment, stdin=text, capture_stdout=True, capture_stderr=True, check=False
    )


async def send(w: World, *words: str, text: bytes = b"") -> tuple[int, list[dict[str, str]], str]:
    """Its exit status, receipts and errors."""
    done = await command(w, "send", "--json", *words, text=text)
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, receipts, done.stderr.decode()


async def test_what_is_sent_from_a_shell_arrives_once_for_a_key_and_waits_for_an_agent_that_starts(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, people=("Ada", "Ben")) as w:
        ada, ben = w.people
        for person in w.people:
            await person.say(w.conversations[person], "hello")
        await w.all_answered({ada: ["echo: hello"], ben: ["echo: hello"]})
        await conversations_are_listed_with_whose_they_are(w)
        await a_key_counts_once(w, w.conversations[ada])
        both = ("--to", w.conversations[ada], "--to", w.conversations[ben])
        status, receipts, _ = await send(w, *both, "--markdown", "--wait", "60", "-", text=b"*all* is well\n")
        assert status == 0
        assert {one["conversation_id"] for one in receipts} == set(w.conversations.values())
        await w.all_answered({ada: ["echo: hello", "Deployed", "*all* is well"], ben: ["echo: hello", "*all* is well"]})
        await the_owners_own_program_needs_no_key(w, w.conversations[ben])
        assert (await command(w, "stop")).returncode == 0
        with pytest.raises(NotSent, match="hashee-agent up"):
            BlockingOutside(w.environment).send(w.conversations[ben], "nobody hears this")
        await without_an_agent_it_waits_for_its_start(w, w.conversations[ben])
        async with agent(w):
            await w.all_answered(
                {ben: ["echo: hello", "*all* is well", "by trio", "by asyncio", CARD, "while you were away"]}
            )


async def conversations_are_listed_with_whose_they_are(w: World) -> None:
    rows = [json.loads(line) for line in (await command(w, "conversations", "--json")).stdout.splitlines()]
    expected = {(person.account.user_id, w.conversations[person], "h2a") for person in w.people}
    assert {(row["person"], row["conversation_id"], row["kind"]) for row in rows} == expected
    assert all(row["heard_ms"] for row in rows)


async def a_key_counts_once(w: World, to: str) -> None:
    status, [first], _ = await send(w, "--to", to, "--key", "deploy-42", "--wait", "60", "Deployed")
    assert (status, first["outcome"]) == (0, "queued")
    status, [again], _ = await send(w, "--to", to, "--key", "deploy-42", "--wait", "60", "Deployed")
    assert (status, again["outcome"], again["id"]) == (0, "already", first["id"])
    status, receipts, error = await send(w, "--to", to, "--key", "deploy-42", "Broken")
    assert (status, receipts) == (EXIT_REFUSED, [])
    assert "deploy-42" in error
    assert "Broken" not in error
    story = (await command(w, "trace", first["id"])).stdout.decode()
    assert [name for name in ("from outside", "encrypted", "acknowledged") if name not in story] == []


async def the_owners_own_program_needs_no_key(w: World, to: str) -> None:
    """As the agent's user it asks the running agent, whatever event loop it has."""
    where = {"HASHEE_STATE_DIR": w.environment["HASHEE_STATE_DIR"], "HASHEE_AGENT_ID": w.environment["HASHEE_AGENT_ID"]}

    async def say(text: str) -> str:
        async with Outside(where) as it:
            return (await it.send(to, text, key=text.replace(" ", "-"))).outcome

    assert [await say("by trio"), await say("by trio")] == ["queued", "already"]
    assert await trio.to_thread.run_sync(lambda: asyncio.run(say("by asyncio"))) in ("queued", "waits")
    with pytest.raises(NotSent) as refused, BlockingOutside(where) as it:
        it.send(to, "something else", key="by-trio")
    assert refused.value.reason == "key_used"
    with BlockingOutside(where) as it:
        assert it.send(to, Info("a card"), key="card").card_id
        assert it.send(to, Info("a card"), key="card").card_id == ""
    with pytest.raises(NotSent, match="JSON"), BlockingOutside(where) as it:
        it.remind(to, "deploy", object())


async def without_an_agent_it_waits_for_its_start(w: World, to: str) -> None:
    status, [receipt], error = await send(w, "--to", to, "--wait", "0", "while you were away")
    assert (status, receipt["outcome"]) == (EXIT_TRY_AGAIN, "queued")
    assert "hashee-agent trace" in error
