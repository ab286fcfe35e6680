"""What an operator does with a message that went wrong, on an agent that runs: real processes, real people, the real commands."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from bus.steps.policies import APOLOGY
from crypto.identity import IdentityKeys
from sandbox.people import Person, connected, make_person
from tests.commands import Done, run_command
from tests.waiting import said_of, waiting_for
from tests.world import World, world

WAIT_SECONDS = 60.0
HANDLER = "tests.supervisor.cli.letters.handlers:agent"


async def command(w: World, *arguments: str) -> Done:
    """`hashee-agent …` beside the agent of this world."""
    with waiting_for(f"{arguments} to end", WAIT_SECONDS):
        return await trio.to_thread.run_sync(partial(run_command, *arguments, environ=w.environment))


async def answer(w: World, *arguments: str) -> Any:
    return json.loads((await command(w, *arguments, "--json")).stdout)


async def until_answer(w: World, *arguments: str, count: int) -> Any:
    """Until a list has so many rows."""
    with waiting_for(f"{count} rows of {arguments}", WAIT_SECONDS):
        while len(rows := await answer(w, *arguments)) != count:
            await trio.sleep(0.1)
    return rows


async def until_heard(person: Person, conversation: str, texts: list[str]) -> None:
    with trio.move_on_after(WAIT_SECONDS):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= len(texts))
    assert person.transcript.heard(conversation) == texts


def steps_of(story: Any) -> list[str]:
    return [str(step["step"]) for step in story["steps"]]


def is_in_order(found: list[str], wanted: list[str]) -> bool:
    rest = iter(found)
    return all(name in rest for name in wanted)


async def test_a_message_whose_worker_was_killed_and_one_that_was_given_up_can_be_followed_and_mended(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    async with world(tmp_path, people=("Ada", "Ben"), HASHEE_HANDLER=HANDLER, HASHEE_RETRY_SECONDS="0.05") as w:
        ada, ben = w.people
        await ada.say(w.conversations[ada], "die")
        await ben.say(w.conversations[ben], f"fail {broken}")
        await until_heard(ada, w.conversations[ada], ["before", "after"])
        [letter] = await until_answer(w, "dead", "list", count=1)

        [story] = await answer(w, "trace", w.conversations[ada])
        assert is_in_order(
            steps_of(story),
            ["received", "decrypted", "queued", "started", "replied", "reclaimed", "started", "replied"],
        ), story
        for step in ("encrypted", "sent", "acknowledged", "done"):
            assert step in steps_of(story), story
        first, second = [step for step in story["steps"] if step["step"] == "started"]
        assert (first["delivery"], second["delivery"], first["attempt"], second["attempt"]) == ("1", "2", "1", "1")
        assert first["worker"] != second["worker"]
        assert steps_of(story).count("acknowledged") == 2
        offsets = [step["since_received_ms"] for step in story["steps"]]
        assert offsets == sorted(offsets)
        told = await command(w, "trace", story["message_id"])
        assert "taken from a worker that is gone" in told.stdout
        assert "before" not in told.stdout
        [acknowledged] = [step for step in story["steps"] if step["step"] == "acknowledged"][:1]
        [same] = await answer(w, "trace", acknowledged["message_id"])  # by the id of what answered it
        assert same["message_id"] == story["message_id"]

        assert (letter["kind"], letter["reason"]) == ("job", "handler_error")
        shown = await answer(w, "dead", "show", letter["id"])
        assert (shown["attempts"], sorted(shown["emitted_places"])) == (2, ["!apology", "0"])
        await until_heard(ben, w.conversations[ben], ["kept", APOLOGY])
        assert str(broken) not in str(shown)
        with_content = await command(w, "dead", "show", letter["id"], "--content")
        assert str(broken) in with_content.stdout
        assert "WARNING" in with_content.stderr
        broken.unlink()
        retried = await command(w, "dead", "retry", letter["id"])
        assert (retried.returncode, "a supervisor runs" in retried.stdout) == (0, True), retried
        await until_heard(ben, w.conversations[ben], ["kept", APOLOGY, "mended"])
        [story] = await answer(w, "trace", letter["message_id"])
        assert is_in_order(
            steps_of(story), ["queued", "started", "failed", "started", "dead", "revived", "started", "done"]
        ), story
        assert await answer(w, "dead", "list") == []


def with_other_keys(person: Person) -> Person:
    """The same person at the same device, after a reinstallation that lost the keys."""
    identity = IdentityKeys.generate(os.urandom)
    return Person(person.url, person.name, person.account, identity, person.device.device_id)


async def until_output(w: World, condition: Callable[[str], bool], *arguments: str) -> None:
    with waiting_for(f"the output of {arguments}: {said_of(condition)}", WAIT_SECONDS):
        while not condition((await command(w, *arguments)).stdout):
            await trio.sleep(0.1)


@pytest.mark.long
async def test_what_waited_for_a_decision_about_changed_keys_is_answered_once_and_in_order(tmp_path: Path) -> None:
    async with world(tmp_path, people=()) as w:
        agent_id = w.environment["HASHEE_AGENT_ID"]
        ada = await make_person(w.relay_url, "Ada")
        conversation = await ada.meet(agent_id)
        await until_output(w, lambda text: ada.account.user_id in text, "grants", "list")
        changed = with_other_keys(ada)
        await ada.close()
        await changed.register()
        changed.join(conversation, agent_id)
        async with connected(changed):
            await changed.say(conversation, "one")  # the relation is not read again yet
            [first] = await until_answer(w, "quarantine", "list", count=1)
            await w.api.fault("disconnect")
            await until_output(w, lambda text: "CHANGED" in text, "grants", "list")
            await changed.say(conversation, "two")
            rows = await until_answer(w, "quarantine", "list", count=2)
            assert [row["reason"] for row in rows] == ["bad_signature", "key_changed"]
            shown = await answer(w, "quarantine", "show", rows[1]["message_id"])
            assert "grants accept" in shown["remedy"]
            assert (shown["conversation_seq"], shown["decrypted"]) == (2, "no")
            accepted = await command(w, "grants", "accept", ada.account.user_id)
            assert "2 in quarantine are tried again" in accepted.stdout, accepted
            await until_heard(changed, conversation, ["echo: one", "echo: two"])
        assert await answer(w, "quarantine", "list") == []
        [story] = await answer(w, "trace", first["message_id"])
        assert is_in_order(steps_of(story), ["received", "quarantined", "requeued", "started", "acknowledged"]), story
