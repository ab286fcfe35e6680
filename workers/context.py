"""What a handler gets to know of its job besides the message: names and counts, and a way to measure something."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from bus.records.control import Observation
from bus.records.records import InboundMessage

Observe: TypeAlias = Callable[[Observation], None]


def observe_nothing(_observation: Observation) -> None:
    """Drops the observation; for a worker without a supervisor."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The present run of a job.

    `idempotency_key` is the same in every run of the job and in no other job: pass it to the services that the handler calls, so that
    a second run does not order twice. `attempt` counts from 1, `emitted` has the places that an earlier run has sent.
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
        """Adds `value` to one of the supervisor's histograms; the supervisor counts and drops an unknown one."""
        self._observe(Observation(metric=metric, labels=labels, value=value))
