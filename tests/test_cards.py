"""Cards through real processes: shown, answered, changed by later jobs; and each revision once, whoever is killed on the way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.people import Person
from tests.waiting import said_of, waiting_for
from tests.world import World, world

WAIT_SECONDS = 30.0


async def reaches(w: World, revision: int) -> None:
    [ada] = w.people
    with waiting_for(f"the card's revision {revision}", WAIT_SECONDS):
        await ada.transcript.until(lambda: any(one.revision >= revision for one in ada.cards.values()))


async def until(person: Person, condition: Callable[[], bool]) -> None:
    with waiting_for(said_of(condition), WAIT_SECONDS):
        await person.transcript.until(condition)


@pytest.mark.long
async def test_a_card_is_changed_by_later_jobs_in_order_whoever_dies(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:voting", HASHEE_WORKERS="1") as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        await ada.say(conversation, "Lunch?")
        await reaches(w, 0)
        [card] = ada.cards.values()
        assert ada.transcript.heard(conversation) == ["[vote_card] Vote\nquestion: Lunch?\nvotes: 0"]
        for turn, who in enumerate(("nobody", "worker", "supervisor")):
            votes, revision = 10 * (turn + 1), 2 * turn
            await ada.answer(conversation, card.card_id, {"votes": votes})
            await reaches(w, revision + 1)
            if who == "worker":
                [worker] = w.worker_pids()
                await w.kill(worker)
            elif who == "supervisor":
                await w.kill(w.supervisor_pid())
            await reaches(w, revision + 2)
            assert ada.cards[card.card_id].payload == {"ui": "vote_card", "votes": votes + 1}
        assert ada.counts["cards_shown"] == 7
        assert ada.counts["cards_passed_over"] == 0
        assert not ada.unreadable


async def test_what_was_said_is_taken_back_a_message_gets_an_emoji_and_another_conversation_hears_of_it(
    tmp_path: Path,
) -> None:
    settings = {"HASHEE_HANDLER": "tests.handlers:voting", "HASHEE_WORKERS": "1"}
    async with world(tmp_path, people=("Ada", "Ben"), **settings) as w:
        ada, ben = w.people
        await ada.say(w.conversations[ada], "oops")
        with waiting_for("the answer, the recall and the emoji", WAIT_SECONDS):
            await ada.transcript.until(
                lambda: (
                    ada.transcript.heard(w.conversations[ada]) == ["wrong", "right"]
                    and ada.recalled == ["wrong"]
                    and list(ada.reactions.values()) == ["👍"]
                )
            )
        assert not ada.unreadable
        await ben.say(w.conversations[ben], f"tell {w.conversations[ada]} hello")
        with waiting_for("what Ben has told Ada", WAIT_SECONDS):
            await ada.transcript.until(lambda: ada.transcript.heard(w.conversations[ada])[-1] == "hello")
        assert not ada.unreadable


async def test_stop_reaches_the_running_job_also_after_its_worker_was_killed(tmp_path: Path) -> None:
    async with world(tmp_path, HASHEE_HANDLER="tests.handlers:voting", HASHEE_WORKERS="1") as w:
        [ada] = w.people
        conversation = w.conversations[ada]
        for number, is_killed in enumerate((False, True), start=1):
            await ada.say(conversation, "export")
            await until(ada, lambda number=number: len(ada.cards) == number)  # type: ignore[misc]
            card_id = list(ada.cards)[-1]
            if is_killed:
                [worker] = w.worker_pids()
                await w.kill(worker)
            await ada.answer(conversation, card_id, {"action": "cancel"})
            await until(ada, lambda number=number: ada.transcript.heard(conversation).count("stopped") == number)  # type: ignore[misc]
            assert ada.cards[card_id].payload["status"] == "cancelled"
        assert not ada.unreadable
