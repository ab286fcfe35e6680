"""The example that asks, through relay, Redis, supervisor and workers: each question once, whoever is killed while it is open.

Strikes are off where workers are killed, as in tests/test_kills.py.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from sandbox.group_people import make_group_person
from sandbox.people import Person, connected
from tests.test_from_outside import command
from tests.test_group_conversation import agent_of, both_hear, ids, to_agent
from tests.test_kills import kill_every_worker, kill_redis, kill_supervisor
from tests.waiting import waiting_for
from tests.world import World, world

SECONDS = 60.0
AGENT = "examples.booking_agent:agent"
MISFIT = "Please answer with a date, such as 2026-12-31."

Between = Callable[[World], Awaitable[None]]


async def heard(w: World, person: Person, *words: str) -> None:
    """Exactly these words are what the person has heard so far."""
    conversation = w.conversations[person]
    with waiting_for(f"word {len(words)} to be heard", SECONDS):
        await person.transcript.until(lambda: len(person.transcript.heard(conversation)) >= len(words))
    assert person.transcript.heard(conversation) == list(words)


async def books(w: World, between: Sequence[Between]) -> None:
    """One booking from its command to its end; one of `between` happens while each of the four questions is open."""
    [ada] = w.people
    conversation = w.conversations[ada]
    words = list[str]()
    question, again, approval, end = between
    for text, answer, happens in (
        ("/book", "Your name?", question),
        ("Ann", "Which day?", again),
        ("tomorrow", MISFIT, approval),
    ):
        await ada.say(conversation, text)
        words.append(answer)
        await heard(w, ada, *words)
        await happens(w)
    await ada.say(conversation, "2026-12-01")
    with waiting_for("the approval", SECONDS):
        await ada.transcript.until(lambda: len(ada.cards) == 1)
    [card] = ada.cards.values()
    words.append(ada.transcript.heard(conversation)[-1])
    assert "Ann on 2026-12-01?" in words[-1]
    await end(w)
    await ada.decide(conversation, card.card_id, approve=True)
    words.append("Booked.")
    await heard(w, ada, *words)
    await ada.say(conversation, "/book")  # what stands behind it was said by nobody twice
    await heard(w, ada, *words, "Your name?")
    assert not ada.unreadable


async def nothing(_w: World) -> None:
    pass


async def reload(w: World) -> None:
    assert (await command(w, "reload")).returncode == 0


async def test_a_booking_is_asked_for_step_by_step_also_over_a_reload(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER=AGENT, HASHEE_WORKERS="1") as w:
        await books(w, (nothing, reload, nothing, nothing))


@pytest.mark.long
async def test_a_booking_goes_on_whoever_is_killed_while_a_question_is_open(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER=AGENT, HASHEE_STRIKES="off") as w:
        await books(w, (kill_every_worker, kill_supervisor, kill_redis, kill_every_worker))


@pytest.mark.long
async def test_in_a_group_who_is_asked_answers_without_a_mention_and_others_talk_on(tmp_path: Path) -> None:
    async with world(tmp_path, people=(), HASHEE_HANDLER=AGENT, HASHEE_STRIKES="off") as w:
        ada, ben = [await make_group_person(w.relay_url, name) for name in ("Ada", "Ben")]
        async with connected(ada, ben):
            group = await ada.make_group(agent_of(w), ben)
            await ada.rotate_key(group, ids(w, ada, ben))
            await ada.say(group.conversation_id, to_agent(w, "/book"))
            await both_hear(group, "Your name?", ada, ben)
            await ben.say(group.conversation_id, "I have no idea")
            await ada.say(group.conversation_id, "Ann")
            await both_hear(group, "Which day?", ada, ben)
            await kill_every_worker(w)
            await ada.say(group.conversation_id, "2026-12-01")
            with waiting_for("the approval", SECONDS):
                await ada.transcript.until(lambda: len(ada.cards) == 1)
            [card] = ada.cards.values()
            assert card.payload["body"] == "Ann on 2026-12-01?"
            await ada.decide(group.conversation_id, card.card_id, approve=True)
            await both_hear(group, "Booked.", ada, ben)
            assert MISFIT not in ben.transcript.heard(group.conversation_id)
            await w.until(lambda: 'frame_dropped_total{reason="not_mentioned"} 1.0' in w.page("/metrics"))
