"""What a handler knows of its job, besides the message: names and counts, and a way to observe a duration.

Values only; nothing here sends anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from bus.records.control import Observation
from bus.records.records import InboundMessage

Observe: TypeAlias = Callable[[Observation], None]


def observe_nothing(_observation: Observation) -> None:
    """For a worker that has no supervisor to tell."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The run of a job that a handler is in.

    `idempotency_key` is the same in every run of the job and in no other job: give it to the services that the handler
    calls, so that a second run does not order twice. `attempt` counts from 1, `emitted` names the places an earlier run sent.
    `messages`: the one that the handler is given last, after those that are handled together with it (`when_busy="coalesce"`);
    the same in every run.
    """

    idempotency_key: str
    attempt: int
    deliveries: int = 1
    emitted: frozenset[str] = frozenset()
    messages: tuple[InboundMessage, ...] = field(default=(), repr=False)
    _observe: Observe = field(default=observe_nothing, repr=False)

    def observe(self, metric: str, value: float, **labels: str) -> None:
        """Add `value` to one of the supervisor's histograms; one that it does not know is counted and dropped there."""
        self._observe(Observation(metric=metric, labels=labels, value=value))
