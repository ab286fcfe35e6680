"""A message that no job said, through the real command line: it reaches the person, once for a key, while the agent runs and before it starts."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from sandbox.people import Person
from supervisor.cli.ending import EXIT_OUTPUT
from supervisor.cli.outside.queueing import EXIT_REFUSED, EXIT_TRY_AGAIN
from tests.commands import Done, run_command
from tests.world import World, agent, world
from workers import BlockingOutside, Info, NotSent, Outside

CARD = "[info] a card"
PROGRAM = (sys.executable, "-m", "supervisor")


async def command(w: World, *words: str, text: bytes = b"") -> Done:
    return await trio.to_thread.run_sync(partial(run_command, *words, environ=w.environment, stdin=text))


async def send(w: World, *words: str, text: bytes = b"") -> tuple[int, list[dict[str, str]], str]:
    """Its exit status, receipts and errors."""
    done = await command(w, "send", "--json", *words, text=text)
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, receipts, done.stderr


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
        await what_stdout_does_not_take_is_queued_once_and_said_on_stderr(w, ada)
        status, receipts, _ = await send(w, *both, "--markdown", "--wait", "60", "-", text=b"*all* is well\n")
        assert status == 0
        assert {one["conversation_id"] for one in receipts} == set(w.conversations.values())
        await w.all_answered(
            {ada: ["echo: hello", "Deployed", "Into the void", "*all* is well"], ben: ["echo: hello", "*all* is well"]}
        )
        await the_owners_own_program_needs_no_key(w, w.conversations[ben])
        assert (await command(w, "stop")).returncode == 0
        with pytest.raises(NotSent, match="hashee-agent up"):
            BlockingOutside(w.environment).send(w.conversations[ben], "nobody hears this")
        await without_an_agent_it_waits_for_its_start(w, w.conversations[ben])
        async with agent(w):
            await w.all_answered(
                {ben: ["echo: hello", "*all* is well", "by trio", "by asyncio", CARD, "while you were away"]}
            )


@pytest.mark.long
async def test_what_a_shell_and_a_program_show_grows_is_taken_back_and_is_once_for_a_key(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        [ada] = w.people
        to = w.conversations[ada]
        await ada.say(to, "hello")
        await w.all_answered({ada: ["echo: hello"]})
        await a_command_says_that_it_types(w, ada)
        await what_comes_in_grows_and_is_sent_whole(w, ada)
        await w.all_answered({ada: ["echo: hello", "Building… ready"]})
        await a_message_is_reacted_to_and_what_was_said_is_taken_back(w, ada)
        await a_program_does_the_same(w, ada)
        heard = ada.transcript.heard(to)
        assert heard == ["echo: hello", "Building… ready", "wrong", "half and half"]


async def a_command_says_that_it_types(w: World, ada: Person) -> None:
    to = w.conversations[ada]
    typed = ada.counts["typing"]
    done = await command(w, "typing", "--to", to, "--seconds", "0")
    assert done.returncode == 0, done.stderr
    await ada.transcript.until(lambda: ada.counts["typing"] > typed and to not in ada.typing)


async def what_comes_in_grows_and_is_sent_whole(w: World, ada: Person) -> None:
    to = w.conversations[ada]
    words = ("stream", "--json", "--to", to, "--key", "build-1", "--wait", "60")
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*PROGRAM, *words], env=w.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        nursery.start_soon(process.wait)
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all("Building…".encode())
        await ada.transcript.until(lambda: to in ada.growing and ada.growing[to].text == "Building…")
        await process.stdin.send_all(b" ready\n")
        await process.stdin.aclose()
        receipt = json.loads(b"".join([piece async for piece in process.stdout]))
    assert (process.returncode, receipt["outcome"]) == (0, "queued")
    aborted = ada.counts["streams_aborted"]
    streams = ada.counts["streams"]
    again = await command(w, *words, text="Building… ready".encode())
    assert (again.returncode, json.loads(again.stdout)["outcome"]) == (0, "already")
    assert (ada.counts["streams"], ada.counts["streams_aborted"]) == (streams, aborted), "and nothing was shown"


async def a_message_is_reacted_to_and_what_was_said_is_taken_back(w: World, ada: Person) -> None:
    to = w.conversations[ada]
    stories = json.loads((await command(w, "trace", "--json", to)).stdout)
    hers = next(one["message_id"] for one in stories if one["steps"][0]["step"] == "received")
    done = await command(w, "react", "--to", to, "--message", hers, "--wait", "60", "👍")
    assert done.returncode == 0, done.stderr
    await ada.transcript.until(lambda: ada.reactions.get(hers) == "👍")
    status, [sent], _ = await send(w, "--to", to, "--wait", "60", "wrong")
    assert status == 0
    done = await command(w, "recall", "--to", to, "--key", "take-back", "--wait", "60", sent["id"])
    assert done.returncode == 0, done.stderr
    await ada.transcript.until(lambda: ada.recalled == ["wrong"])
    unknown = await command(w, "recall", "--to", to, "nothing")
    assert (unknown.returncode, "chat.reply()" in unknown.stderr) == (EXIT_REFUSED, True)


async def a_program_does_the_same(w: World, ada: Person) -> None:
    to = w.conversations[ada]
    where = {"HASHEE_STATE_DIR": w.environment["HASHEE_STATE_DIR"], "HASHEE_AGENT_ID": w.environment["HASHEE_AGENT_ID"]}
    async with Outside(where) as it:
        async with it.typing(to):
            await ada.transcript.until(lambda: to in ada.typing)
        await ada.transcript.until(lambda: to not in ada.typing)
        async with it.stream(to, key="halves") as stream:
            await stream.write("half")
            await ada.transcript.until(lambda: to in ada.growing and ada.growing[to].text == "half")
            await stream.write(" and half")
        assert stream.receipt is not None
        await w.all_answered({ada: ["echo: hello", "Building… ready", "wrong", "half and half"]})
        with suppress(ZeroDivisionError):
            async with it.stream(to) as broken:
                await broken.write("never sent")
                await ada.transcript.until(lambda: to in ada.growing and ada.growing[to].text == "never sent")
                raise ZeroDivisionError
        await ada.transcript.until(lambda: to not in ada.growing)
        await it.recall(to, stream.receipt)
        await ada.transcript.until(lambda: ada.recalled == ["wrong", "half and half"])
        with pytest.raises(NotSent, match="one emoji"):
            await it.react(to, "id", "no emoji")
    with pytest.raises(NotSent) as refused, BlockingOutside(where) as blocking, blocking.stream("nowhere") as nowhere:
        nowhere.write("text")
    assert refused.value.reason == "unknown_conversation"


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
    story = (await command(w, "trace", first["id"])).stdout
    assert [name for name in ("from outside", "encrypted", "acknowledged") if name not in story] == []


async def what_stdout_does_not_take_is_queued_once_and_said_on_stderr(w: World, ada: Person) -> None:
    words = (*PROGRAM, "send", "--to", w.conversations[ada], "--wait", "60", "Into the void")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = await trio.run_process(words, env=w.environment, stdout=full, capture_stderr=True, check=False)
    finally:
        os.close(full)
    assert done.returncode == EXIT_OUTPUT
    assert f"holds: {w.conversations[ada]}  queued  outside:" in done.stderr.decode()
    await w.all_answered({ada: ["echo: hello", "Deployed", "Into the void"]})


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
