"""Counting: each way in which a conversation can go wrong is counted under its own name, and only there."""

import pytest

from sandbox.score import Score, echo_of, score

pytestmark = pytest.mark.pure

SENT = ["a", "b", "c"]


def of(received: list[str], sent: list[str] = SENT) -> Score:
    return score([(sent, received)])


def test_everything_answered_once_and_in_order_is_perfect() -> None:
    result = of(["echo: a", "echo: b", "echo: c"])
    assert result == Score(sent=3, answered=3)
    assert result.is_perfect


def test_a_missing_answer_is_lost() -> None:
    assert of(["echo: a", "echo: c"]) == Score(sent=3, answered=2, lost=1)


def test_a_second_answer_is_a_duplicate_wherever_it_comes() -> None:
    assert of(["echo: a", "echo: b", "echo: a", "echo: c"]) == Score(sent=3, answered=3, duplicated=1)


def test_an_answer_after_a_later_ones_is_reordered() -> None:
    assert of(["echo: b", "echo: a", "echo: c"]) == Score(sent=3, answered=3, reordered=1)
    assert of(["echo: c", "echo: a", "echo: b"]) == Score(sent=3, answered=3, reordered=2)


def test_an_answer_to_nothing_is_unexpected() -> None:
    result = of(["echo: a", "sorry", "echo: b", "echo: c"])
    assert result == Score(sent=3, answered=3, unexpected=1)
    assert not result.is_perfect


def test_the_same_text_sent_twice_is_answered_twice() -> None:
    assert of(["echo: x", "echo: x"], ["x", "x"]) == Score(sent=2, answered=2)
    assert of(["echo: x"], ["x", "x"]) == Score(sent=2, answered=1, lost=1)
    assert of(["echo: x"] * 3, ["x", "x"]) == Score(sent=2, answered=2, duplicated=1)


def test_conversations_are_counted_each_for_itself() -> None:
    assert score([(["a"], ["echo: a"]), (["a"], [])]) == Score(sent=2, answered=1, lost=1)


def test_a_streamed_answer_is_the_echo_of_what_follows_the_command() -> None:
    assert echo_of("/stream one two") == "echo: one two"
    assert of(["echo: one two"], ["/stream one two"]).is_perfect
