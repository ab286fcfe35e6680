"""What the handler's code declares for busy and full conversations, and what a death costs (DESIGN rules 8, 9, 11, 15): for real."""

from functools import partial
from pathlib import Path

from sandbox.people import Person
from tests.waiting import waiting_for
from tests.world import World, world

SECONDS = 60.0
HELD = "held"


async def say(w: World, person: Person, *texts: str) -> None:
    for text in texts:
        await person.say(w.conversations[person], text)


async def until_shown(w: World, person: Person) -> None:
    """The person sees a stream grow."""
    await w.until(lambda: any(one.text for one in person.growing.values()), SECONDS)


async def heard(w: World, person: Person, count: int) -> list[str]:
    conversation = w.conversations[person]
    with waiting_for(f"{count} answers to be heard", SECONDS):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= count)
    return person.transcript.heard(conversation)


async def test_rule_9_a_later_message_interrupts_the_running_one_and_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:interrupting") as w:
        [ada] = w.people
        await say(w, ada, "hold 300")
        await until_shown(w, ada)
        await say(w, ada, "never mind")
        assert await heard(w, ada, 1) == ["never mind"]
        await w.until(lambda: not ada.growing)  # what was shown of the first answer is taken back


async def test_rule_9_what_waits_is_answered_together(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:coalescing") as w:
        [ada] = w.people
        await say(w, ada, "hold 2")
        await until_shown(w, ada)
        await say(w, ada, "one", "two", "three")
        assert await heard(w, ada, 2) == [HELD, "one+two+three"]


async def test_rule_11_a_full_conversation_is_refused_politely_and_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:refusing") as w:
        [ada] = w.people
        await say(w, ada, "hold 2")
        await until_shown(w, ada)
        await say(w, ada, "waits", "is refused")
        assert sorted(await heard(w, ada, 3)) == sorted([HELD, "waits", "Too many, please wait."])
        await say(w, ada, "again")
        assert (await heard(w, ada, 4))[-1] == "again"


async def test_rule_11_what_is_parked_is_answered_in_order(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:parking") as w:
        [ada] = w.people
        await say(w, ada, "hold 2")
        await until_shown(w, ada)
        texts = [f"parked {number}" for number in range(5)]
        await say(w, ada, *texts)
        assert await heard(w, ada, 6) == [HELD, *texts]


async def test_rule_8_what_kills_its_worker_twice_is_poison_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    people = ("Ada", "Mallory")
    async with world(tmp_path, people=people, HASHEE_HANDLER="tests.handlers:apologising", HASHEE_WORKERS="1") as w:
        ada, mallory = w.people
        await say(w, ada, "hold 2")
        await until_shown(w, ada)
        await say(w, mallory, "die", "and then?")
        assert await heard(w, mallory, 2) == ["That was too much for me.", "and then?"]
        assert await heard(w, ada, 1) == [HELD]
        assert 'hashee_dead_letter_total{kind="job"} 1.0' in w.page("/metrics")


async def test_who_writes_while_a_failed_message_waits_for_its_next_try_sees_typing(tmp_path: Path) -> None:
    settings = {"HASHEE_HANDLER": "tests.handlers:failing", "HASHEE_RETRY_SECONDS": "3600", "HASHEE_WORKERS": "1"}
    async with world(tmp_path, **settings) as w:
        [ada] = w.people
        await say(w, ada, "fail", "are you there?")
        await w.until(lambda: w.conversations[ada] in ada.typing, SECONDS)
        assert await heard(w, ada, 0) == []


async def test_rule_15_a_stream_whose_worker_dies_is_ended_and_the_second_run_shows_another(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:refusing", HASHEE_WORKERS="1") as w:
        [ada] = w.people
        await say(w, ada, "hold 3")
        await until_shown(w, ada)
        [first] = ada.growing
        await w.kill(w.worker_pids()[0])
        await w.until(lambda: first not in ada.growing, SECONDS)
        await until_shown(w, ada)
        assert await heard(w, ada, 1) == [HELD]


async def test_rule_15_the_supervisor_that_comes_after_ends_the_stream_and_the_text_comes_whole(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:refusing") as w:
        [ada] = w.people
        await say(w, ada, "hold 4")
        await until_shown(w, ada)
        [first] = ada.growing
        await w.kill(w.supervisor_pid())
        await w.until(partial(_is_over, ada, first), SECONDS)
        assert await heard(w, ada, 1) == [HELD]


def _is_over(person: Person, stream_id: str) -> bool:
    return stream_id not in person.growing
