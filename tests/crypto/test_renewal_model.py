"""Under the rules of PROTOCOL §5.4 no conversation stays deaf and no ratchet forks; without one of them, some do."""

from __future__ import annotations

import pytest

from tests.crypto.renewal_model import RULES, converse

SEEDS = 60
ENOUGH_SEEDS = 600  # the first conversation that fails ends the search


@pytest.mark.pure
def test_no_conversation_stays_deaf_and_no_ratchet_forks() -> None:
    outcomes = {seed: converse(seed) for seed in range(SEEDS)}
    assert [seed for seed, outcome in outcomes.items() if outcome.is_deaf] == []
    assert [seed for seed, outcome in outcomes.items() if outcome.forks] == []


@pytest.mark.parametrize(
    ("rule", "begin"),
    [("fresh_bundle", 187), ("fresh_ids", 530), ("lost", 196), ("refused_started", 111), ("repeats", 9)],
)
def test_without_a_rule_some_conversation_stays_deaf(rule: str, begin: int) -> None:
    """`begin`: the seed with which the search begins, since a conversation was found there before."""
    seeds = [*range(begin, ENOUGH_SEEDS), *range(begin)]
    assert any(converse(seed, RULES - {rule}).is_deaf for seed in seeds)


def test_a_ratchet_forks_where_who_came_back_older_sends_on_its_old_sessions() -> None:
    assert any(converse(seed, RULES - {"restored_is_silent"}).forks for seed in range(ENOUGH_SEEDS))
