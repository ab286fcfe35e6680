"""Tells readiness when the bounds for all senders together are reached, so that nothing is taken in.

Pure: supervisor/run/survey.py tells it what waits, readiness asks it. Each change is said once.
"""

import structlog

from bus.steps.store import InboundStore
from bus.views.overview import Counts
from supervisor.observe.health import Check

FULL_UNTIL = 0.9
"""Of a bound: so that what swings around it is one change and not hundreds."""

log = structlog.get_logger()


class Fullness:
    """One supervisor's view. A nearly full Redis is supervisor/recovery/redis_memory.py's."""

    def __init__(self, store: InboundStore) -> None:
        self._store = store
        self._reasons: dict[str, str] = {}

    def consider(self, counts: Counts) -> None:
        """What waits now."""
        jobs = counts.waiting + counts.queued + counts.running
        self._compare("jobs", jobs, self._store.most_waiting, "jobs wait for workers (HASHEE_MOST_WAITING)")
        self._compare("notes", counts.notes, self._store.budgets.most_held, "notes of what waits at the relay")

    def check(self) -> Check:
        """For readiness."""
        detail = "; ".join(self._reasons.values())
        return Check("intake", ok=not self._reasons, detail=detail or "each sender has room, or waits at the relay")

    def _compare(self, what: str, count: int, most: int, words: str) -> None:
        was_full = what in self._reasons
        if count >= most * (FULL_UNTIL if was_full else 1):
            self._reasons[what] = f"nothing is taken in: {count} of {most} {words}"
        elif was_full:
            del self._reasons[what]
        if (what in self._reasons) == was_full:
            return
        if was_full:
            log.info("intake: has room again", what=what, count=count, most=most)
        else:
            log.error("intake: nothing is taken in", what=what, count=count, most=most)
