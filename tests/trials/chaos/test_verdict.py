"""The chaos run's judge: what it must not overlook."""

import pytest

from tests.trials.chaos.harm import KINDS, planned_harm
from tests.trials.chaos.keeping import asked_again, forgotten, handling_of_step, steps
from tests.trials.chaos.script import expected_answers, handling_of, utterances
from tests.trials.chaos.verdict import judge

pytestmark = pytest.mark.pure

SAID = [f"seed.{number}" for number in range(40)]
HEARD = expected_answers(SAID)


def test_everything_heard_once_and_in_order_is_good() -> None:
    verdict = judge([(SAID, HEARD)])
    assert (verdict.sent, verdict.answered) == (40, 40)
    assert (verdict.lost, verdict.duplicated, verdict.reordered, verdict.unexpected) == (0, 0, 0, 0)


def test_a_lost_answer_is_counted_and_its_message_is_not_answered() -> None:
    verdict = judge([(SAID, HEARD[:5] + HEARD[6:])])
    assert (verdict.lost, verdict.answered) == (1, 39)


def test_an_answer_heard_twice_is_counted_wherever_it_comes_again() -> None:
    assert judge([(SAID, [*HEARD, HEARD[3]])]).duplicated == 1


def test_answers_in_another_order_are_counted() -> None:
    swapped = [*HEARD[:4], HEARD[5], HEARD[4], *HEARD[6:]]
    assert judge([(SAID, swapped)]).reordered == 1


def test_what_nobody_should_have_said_is_counted() -> None:
    assert judge([(SAID, [*HEARD, "seed.1#9"])]).unexpected == 1


def test_the_same_seed_makes_the_same_run_and_another_seed_another() -> None:
    def made(seed: int) -> object:
        return (
            utterances(messages=200, people=7, rate=10, seed=seed),
            planned_harm(kinds=KINDS, kills=30, seconds=60, seed=seed),
        )

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_a_run_has_answers_of_every_number_some_streamed_some_slow_and_some_that_fail_first() -> None:
    handlings = [handling_of(f"1.{number}") for number in range(2000)]
    assert {len(handling.answers) for handling in handlings} == {0, 1, 2, 3}
    assert any(answer.is_streamed for handling in handlings for answer in handling.answers)
    assert any(answer.pause_seconds > 15 for handling in handlings for answer in handling.answers)
    assert any(handling.fails_once for handling in handlings)


ROUNDS = [step for number in range(3) for step in steps(number)]
SAID_IN_ROUNDS = [step.says for step in ROUNDS]
HEARD_IN_ROUNDS = [text for step in ROUNDS for text in step.hears]


def test_rounds_that_were_gone_through_are_good() -> None:
    verdict = judge([(SAID_IN_ROUNDS, HEARD_IN_ROUNDS)], handling_of_step)
    assert (verdict.sent, verdict.answered) == (12, 12)
    assert (verdict.lost, verdict.duplicated, verdict.reordered, verdict.unexpected) == (0, 0, 0, 0)
    assert (asked_again(HEARD_IN_ROUNDS), forgotten(SAID_IN_ROUNDS, HEARD_IN_ROUNDS)) == (0, 0)


def test_a_question_that_is_shown_twice_is_counted() -> None:
    assert asked_again([*HEARD_IN_ROUNDS, HEARD_IN_ROUNDS[0], HEARD_IN_ROUNDS[2]]) == 1


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ("2 of them", "1 of them"),  # the state is an older one
        ("after 1", "after 0"),  # the history is
    ],
)
def test_a_number_that_is_an_older_one_is_forgotten(known: str, told: str) -> None:
    heard = [text.replace(known, told) for text in HEARD_IN_ROUNDS]
    assert (
        forgotten(SAID_IN_ROUNDS, heard)
        == sum(one != other for one, other in zip(heard, HEARD_IN_ROUNDS, strict=True))
        > 0
    )
