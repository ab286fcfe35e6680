"""What a tool says and notes while it runs, beside what its handler and other tools do meanwhile: under names of its own.

What runs within a call may run in one run of the thread and be found in the journal by the next: so it takes no name or place that
somebody else would have then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from bus.steps.thread_steps import Effect


@dataclass(eq=False)
class Within:
    """A call that runs. `name`: its name in the journal; `effects`: what it leaves for the job's end."""

    name: str
    effects: list[Effect] = field(default_factory=list)
    places: int = 0

    def next_place(self) -> str:
        """Returns the next place of what is said within it, for what has no key."""
        self.places += 1
        return f"{self.name}:{self.places - 1}"


_PRESENT: ContextVar[Within | None] = ContextVar("within", default=None)


def within() -> Within | None:
    """Returns the call in which the present task or thread runs; None outside of any."""
    return _PRESENT.get()


@contextmanager
def running_within(name: str) -> Iterator[Within]:
    """Has what is started in the block run within a call."""
    call = Within(name)
    before = _PRESENT.set(call)
    try:
        yield call
    finally:
        _PRESENT.reset(before)
