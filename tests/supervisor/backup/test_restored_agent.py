"""A whole agent over the loss of its host: saved while it talks, lost, brought back from a backup that is older than the last messages."""

import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.commands import run_command
from tests.test_rollback import has_an_offer
from tests.trials.drills.forks import forks
from tests.waiting import waiting_for
from tests.world import DRAIN_SECONDS, World, agent, world

ANSWER_SECONDS = 30.0


@pytest.mark.long
async def test_a_lost_host_comes_back_older_and_nobody_stays_deaf_nor_hears_anything_twice(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("many words", encoding="utf-8")
    given = str(tmp_path / "passphrase")
    async with world(tmp_path, people=("Ada", "Ben", "Cem"), HASHEE_BACKUP_PASSPHRASE_FILE=given) as w:
        for person in w.people:
            await person.say(w.conversations[person], "before")
        await w.all_answered({person: ["echo: before"] for person in w.people})
        made = await command(w, "backup", str(tmp_path / "agent.backup"))
        fingerprint = made.split("signed by ")[1].split(";")[0]
        for person in w.people:
            await person.say(w.conversations[person], "since")
        await w.all_answered({person: ["echo: before", "echo: since"] for person in w.people})
        assert w.up is not None
        await w.up.end(signal.SIGKILL, DRAIN_SECONDS)
        shutil.rmtree(w.state_dir)
        [ada, *_] = w.people
        await ada.say(w.conversations[ada], "meanwhile")
        await the_drill_goes_well(w, tmp_path, fingerprint)
        told = await command(w, "restore", str(tmp_path / "agent.backup"), "--fingerprint", fingerprint)
        assert "3 people" in told
        (w.state_dir / "restoring").mkdir()  # as one that was killed before its step has left it
        async with agent(w):
            await w.until_ready()
            assert "an interrupted restore had not been decided" in w.log()
            # What is sealed before the offer has come, in a session of which the agent has lost a key, stands in quarantine.
            for person in w.people:
                await w.until(partial(has_an_offer, person), ANSWER_SECONDS)
            for number in range(2):
                for person in w.people:
                    await person.say(w.conversations[person], f"after {number}")
                for person in w.people:
                    with waiting_for(f"the echo of number {number} to be heard once", ANSWER_SECONDS):
                        await person.transcript.until(lambda: heard(w, person)[f"echo: after {number}"] == 1)  # noqa: B023
            assert {text: count for person in w.people for text, count in heard(w, person).items() if count > 1} == {}
            assert forks(envelope for person in w.people for envelope in person.envelopes) == []
            await says_what_it_keeps(w)


async def the_drill_goes_well(w: World, directory: Path, fingerprint: str) -> None:
    """Without any other state, with a relay of its own; and nothing of it is left."""
    (directory / "s").mkdir()
    arguments = (str(directory / "agent.backup"), "--fingerprint", fingerprint, "--scratch", str(directory / "s"))
    told = await command(w, "backup", "drill", *arguments, seconds=60)
    assert told.count("a newcomer's message was answered") == 2
    assert "the drill went well" in told
    assert list((directory / "s").iterdir()) == []
    assert not w.state_dir.exists()


async def says_what_it_keeps(w: World) -> None:
    """The store is whole: the ledger of grants holds, and nothing is in the dead letters."""
    assert "hashee_grant_ledger_holds 1.0" in w.page("/metrics")
    assert await command(w, "dead", "list") == "there are no dead letters\n"


def heard(w: World, person: object) -> Counter[str]:
    """What the agent has said to somebody, and how often."""
    [one] = [known for known in w.people if known is person]
    return Counter(one.transcript.heard(w.conversations[one]))


async def command(w: World, *arguments: str, seconds: float = 30) -> str:
    """What a command says."""
    with waiting_for(f"{arguments} to end", seconds):
        done = await trio.to_thread.run_sync(partial(run_command, *arguments, environ=w.environment))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
