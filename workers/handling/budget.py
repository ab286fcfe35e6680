"""What an owner lets people, or agents, use: so many messages, so many tokens of the language model. Values; the counts lie in Redis.

A message that is beyond a budget reaches no handler, and asks no model. Answers to questions and cards, reminders and events are never beyond one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from bus.records.budgets import Limit, LimitKind, of_sender
from bus.records.records import AGENT_SENDER, InboundMessage
from workers.errors import BadHandler

Per: TypeAlias = Literal["sender", "agent"]
Whose: TypeAlias = Literal["everybody", "people", "agents"]

PLEASE_WAIT: Final = "You have written a lot, more than I can answer just now. Please write again later."
MOST_A_MINUTE: Final = 1000
MOST_A_DAY: Final = 10**12
MOST_BUDGETS: Final = 16
MOST_REPLY_CHARACTERS: Final = 2000
LIMITS: Final[tuple[LimitKind, ...]] = get_args(LimitKind)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most so much, of each sender, or with `per="agent"` of all that write to this agent together.

    `messages_per_minute`: within any 60 s. `messages_per_day`, `tokens_per_day`: since midnight (UTC); tokens are those that the model read and wrote.
    `of`: only what people, or agents, write counts. `reply`: what a person hears that is beyond it, at most once a minute; None for nothing. An agent
    hears nothing, or it would answer that. Raises BadHandler.
    """

    per: Per = "sender"
    of: Whose = "everybody"
    messages_per_minute: int | None = None
    messages_per_day: int | None = None
    tokens_per_day: int | None = None
    reply: str | None = PLEASE_WAIT

    def __post_init__(self) -> None:
        """Checks it."""
        if self.per not in get_args(Per) or self.of not in get_args(Whose):
            raise BadHandler('Budget(per=…) is "sender" or "agent", of= is "everybody", "people" or "agents"')
        if all(getattr(self, kind) is None for kind in LIMITS):
            raise BadHandler(f"a Budget has at least one of {', '.join(f'{kind}=' for kind in LIMITS)}")
        for kind in LIMITS:
            number, most = getattr(self, kind), MOST_A_MINUTE if kind == "messages_per_minute" else MOST_A_DAY
            if number is not None and (type(number) is not int or not 1 <= number <= most):
                raise BadHandler(f"Budget({kind}=…) is a whole number from 1 to {most}, not {number!r}")
        if self.reply is not None and not 1 <= len(self.reply.strip()) <= len(self.reply) <= MOST_REPLY_CHARACTERS:
            raise BadHandler(f"Budget(reply=…) has 1 to {MOST_REPLY_CHARACTERS} characters, or is None")

    def counts(self, message: InboundMessage) -> bool:
        """Returns whether it is about who has sent a message."""
        return self.of == "everybody" or (self.of == "agents") == (message.sender_type == AGENT_SENDER)

    def subject(self, message: InboundMessage) -> str:
        """Returns what is counted for it."""
        return of_sender(message.sender_id) if self.per == "sender" else f"all:{self.of}"


AGAINST_A_LOOP: Final = Budget(of="agents", messages_per_minute=20, messages_per_day=1000, reply=None)
"""Of each agent that writes to this one, unless the owner has a budget of agents: two that answer each other come to an end."""


class Budgets:
    """All of an agent."""

    def __init__(self, given: Budget | Sequence[Budget] | None) -> None:
        """Raises BadHandler."""
        own = (given,) if isinstance(given, Budget) else tuple(given or ())
        if len(own) > MOST_BUDGETS or not all(isinstance(one, Budget) for one in own):
            raise BadHandler(f"Agent(budget=…) is a Budget, or up to {MOST_BUDGETS} of them in a list")
        self.all = own if any(one.of == "agents" for one in own) else (*own, AGAINST_A_LOOP)

    def limits_of(self, message: InboundMessage) -> list[tuple[Budget, Limit]]:
        """Returns the limits within which a message has to be, each with its budget."""
        return [
            (budget, Limit(budget.subject(message), kind, most))
            for budget in self.all
            if budget.counts(message)
            for kind in LIMITS
            if (most := getattr(budget, kind)) is not None
        ]

    def charged_for(self, message: InboundMessage) -> tuple[str, ...]:
        """Returns who pays for the tokens that it takes to answer a message; nobody where nobody counts them."""
        subjects = {one.subject(message) for one in self.all if one.tokens_per_day is not None and one.counts(message)}
        return tuple(sorted(subjects))
