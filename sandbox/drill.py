"""`backup drill`: an agent that came out of a backup talks, here and with nobody real: a relay of this machine, an echo, a newcomer.

What waits in the backup goes its way too, to this relay alone, which knows none of its conversations; the owner's handler never runs.
"""

import os
import sys
import time
from pathlib import Path

import trio

from crypto.errors import Unreadable
from sandbox.api import ApiRefused
from sandbox.children import ChildFailed
from sandbox.people import NO_CONNECTION, connected, make_person
from sandbox.stage import stage

LOAD_SECONDS = 300.0  # of a large store
ANSWER_SECONDS = 60.0
EXIT_FAILED = 1
WORDS = ("Are you there?", "And now in the same session?")


def run_drill(folder: Path, agent_id: str) -> int:
    """Holds the conversation and says how it went; the exit code."""
    try:
        return trio.run(_converse, folder, agent_id)
    except trio.TooSlowError:
        print("failed: the restored agent was ready, and did not answer", file=sys.stderr)
    except (ChildFailed, ApiRefused, Unreadable, *NO_CONNECTION) as error:
        print(f"failed: {error}", file=sys.stderr)
    return EXIT_FAILED


async def _converse(folder: Path, agent_id: str) -> int:
    settings = {
        "HASHEE_X25519_PRIVATE_BASE64": "",
        "HASHEE_ED25519_PRIVATE_BASE64": "",
        "HASHEE_KEYSTORE": str(folder / "keystore.json"),
        "HASHEE_HANDLER": "workers.builtin.echo:agent",
        "HASHEE_SEND_RATE": "0",
    }
    started = time.monotonic()
    async with stage(folder, settings=settings, agent_id=agent_id, ready_seconds=LOAD_SECONDS) as house:
        print(f"ready {time.monotonic() - started:.1f} s after its start", flush=True)
        person = await make_person(house.relay_url, "Newcomer")
        conversation = await person.meet(agent_id)
        async with connected(person):
            for number, text in enumerate(WORDS, start=1):
                asked = time.monotonic()
                await person.say(conversation, text)
                with trio.fail_after(ANSWER_SECONDS):
                    await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= number)  # noqa: B023
                heard = person.transcript.heard(conversation)[number - 1]
                if heard != f"echo: {text}":
                    print("failed: the answer was to something else", file=sys.stderr)
                    return EXIT_FAILED
                print(f"a newcomer's message was answered after {time.monotonic() - asked:.1f} s", flush=True)
    return os.EX_OK
