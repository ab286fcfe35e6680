"""Cards through real processes: shown, answered, changed by later jobs; and each revision once, whoever is killed on the way."""

from pathlib import Path

from tests.waiting import waiting_for
from tests.world import World, world

WAIT_SECONDS = 30.0


async def reaches(w: World, revision: int) -> None:
    [ada] = w.people
    with waiting_for(f"the card's revision {revision}", WAIT_SECONDS):
        await ada.transcript.until(lambda: any(one.revision >= revision for one in ada.cards.values()))


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
