"""What an owner may say of budgets, and whom which message is counted for."""

import msgspec
import pytest

from bus.records.budgets import Limit
from tests.bus.builders import message_of
from workers import Agent, BadHandler, Budget
from workers.handling.budget import AGAINST_A_LOOP, Budgets

pytestmark = pytest.mark.pure

OF_ANN = message_of(1, sender="ann")
OF_AN_AGENT = msgspec.structs.replace(message_of(2, sender="robot"), sender_type="agent")


def limits(budgets: Budgets, message: object = OF_ANN) -> list[Limit]:
    return [limit for _, limit in budgets.limits_of(message)]  # type: ignore[arg-type]


def test_each_limit_of_each_budget_counts_for_whom_it_is() -> None:
    budgets = Budgets(
        [
            Budget(messages_per_minute=10, tokens_per_day=50),
            Budget(per="agent", messages_per_day=7),
            Budget(per="agent", of="people", tokens_per_day=9),
        ]
    )
    of_all = [Limit("s:ann", "messages_per_minute", 10), Limit("s:ann", "tokens_per_day", 50)]
    of_all += [Limit("all:everybody", "messages_per_day", 7), Limit("all:people", "tokens_per_day", 9)]
    assert limits(budgets) == of_all
    assert budgets.charged_for(OF_ANN) == ("all:people", "s:ann")
    assert budgets.charged_for(OF_AN_AGENT) == ("s:robot",)


def test_without_any_only_agents_have_a_ceiling_and_a_budget_of_theirs_takes_its_place() -> None:
    assert limits(Budgets(None)) == []
    assert limits(Budgets(None), OF_AN_AGENT) == [
        Limit("s:robot", "messages_per_minute", 20),
        Limit("s:robot", "messages_per_day", 1000),
    ]
    assert Budgets(None).charged_for(OF_AN_AGENT) == ()
    own = Budget(of="agents", messages_per_day=5)
    assert limits(Budgets(own), OF_AN_AGENT) == [Limit("s:robot", "messages_per_day", 5)]
    assert Budgets(Budget(messages_per_day=5)).all == (Budget(messages_per_day=5), AGAINST_A_LOOP)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "at least one of messages_per_minute="),
        ({"messages_per_minute": 0}, r"Budget\(messages_per_minute=…\) is a whole number from 1 to 1000, not 0"),
        ({"messages_per_minute": 1001}, "from 1 to 1000, not 1001"),
        ({"messages_per_day": True}, "not True"),
        ({"tokens_per_day": 1.5}, "not 1.5"),
        ({"tokens_per_day": 1, "per": "person"}, r'per=…\) is "sender" or "agent"'),
        ({"tokens_per_day": 1, "of": "strangers"}, 'of= is "everybody", "people" or "agents"'),
        ({"tokens_per_day": 1, "reply": ""}, "has 1 to 2000 characters, or is None"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(said: dict[str, object], why: str) -> None:
    with pytest.raises(BadHandler, match=why):
        Budget(**said)  # type: ignore[arg-type]


def test_an_agent_takes_one_or_several() -> None:
    one = Budget(messages_per_day=1)
    assert Agent(budget=one).budgets.all == Agent(budget=[one]).budgets.all
    with pytest.raises(BadHandler, match=r"Agent\(budget=…\) is a Budget, or up to 16 of them"):
        Agent(budget=[one] * 17)
    with pytest.raises(BadHandler, match="is a Budget"):
        Agent(budget="10 a minute")  # type: ignore[arg-type]
