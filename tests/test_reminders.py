"""The example of reminders, through relay, Redis, supervisor and workers, each of which is killed while a reminder is due: said once."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from sandbox.people import Person
from supervisor.cli.outside.queueing import EXIT_REFUSED
from tests.test_from_outside import send
from tests.waiting import waiting_for
from tests.world import World, world

SECONDS = 60.0
AGENT = "examples.reminder_agent:agent"

VICTIMS: dict[str, Callable[[World], int | None]] = {
    "worker": lambda w: w.worker_pids()[0],
    "supervisor": World.supervisor_pid,
    "redis": World.redis_pid,
}


async def heard(w: World, person: Person, count: int) -> list[str]:
    conversation = w.conversations[person]
    with waiting_for(f"{count} words to be heard", SECONDS):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= count)
    return person.transcript.heard(conversation)


def time_comes(w: World) -> int:
    """All timers are due now, as if the time had come; returns how many there are."""
    with Redis(unix_socket_path=str(w.redis_socket), protocol=2) as redis:
        alarms = cast("list[tuple[bytes, float]]", redis.zrange(w.keys.alarms, 0, -1, withscores=True))
        if alarms:
            redis.zadd(w.keys.alarms, dict.fromkeys((member for member, _ in alarms), 1))
    return len(alarms)


async def test_the_example_reminds_and_sends_its_digest_until_that_is_enough(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER=AGENT) as w:
        [ada] = w.people
        for text, answer, alarms, reminder in (
            ("Remind me in 5 minutes to drink tea", "I will.", 1, "⏰ drink tea"),
            ("/digest", "Each morning at eight.", 1, "Good morning!"),
            ("/enough", "No more digests.", 0, ""),
        ):
            before = len(ada.transcript.heard(w.conversations[ada]))
            await ada.say(w.conversations[ada], text)
            assert (await heard(w, ada, before + 1))[before:] == [answer]
            assert time_comes(w) == alarms
            if reminder:
                assert (await heard(w, ada, before + 2))[before + 1 :] == [reminder]
        assert "hashee_timer_fired_total" in w.page("/metrics")
        await a_shell_reminds_once_for_a_key(w, ada)


async def a_shell_reminds_once_for_a_key(w: World, ada: Person) -> None:
    words = list(ada.transcript.heard(w.conversations[ada]))
    say = ("--to", w.conversations[ada], "--reminder", "say")
    for outcome in ("queued", "already"):
        status, [receipt], error = await send(w, *say, "--key", "tea", "--data", '"have tea"')
        assert (status, receipt["outcome"], error) == (0, outcome, "")
    status, receipts, error = await send(w, *say, "--key", "tea", "--data", '"have coffee"')
    assert (status, receipts) == (EXIT_REFUSED, [])
    assert "tea" in error
    assert "coffee" not in error
    status, _, _ = await send(w, *say, "--data", '"go to bed"')  # stands behind whatever the second one had said
    assert status == 0
    assert await heard(w, ada, len(words) + 2) == [*words, "⏰ have tea", "⏰ go to bed"]
    status, receipts, error = await send(w, *say, "--data", f'{{"cups": {2**64}}}')
    assert (status, receipts, "over 64 bits" in error) == (2, [], True)


@pytest.mark.long
async def test_a_reminder_comes_once_whoever_is_killed_while_it_is_due(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER=AGENT, HASHEE_STRIKES="off") as w:
        [ada] = w.people
        expected = list[str]()
        for victim, pid_of in VICTIMS.items():
            await ada.say(w.conversations[ada], f"Remind me in 5 minutes to wake the {victim}")
            expected.append("I will.")
            assert await heard(w, ada, len(expected)) == expected
            assert time_comes(w) == 1
            await w.kill(pid_of(w))
            expected.append(f"⏰ wake the {victim}")
            assert await heard(w, ada, len(expected)) == expected
            await w.until_ready()
        assert time_comes(w) == 0
