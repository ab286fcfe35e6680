"""When a worker that works is to be replaced: after so many jobs, so long, or so much memory. Pure.

Each worker's limits are drawn up to a fifth lower, so that those started together do not go together.
"""

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

from bus.records.control import Heartbeat

SPREAD = 0.2


class Worn(enum.Enum):
    """Why a worker is replaced, for log and metrics."""

    JOBS = "recycled_jobs"
    AGE = "recycled_age"
    MEMORY = "recycled_memory"


@dataclass(frozen=True, kw_only=True)
class RecycleLimits:
    """0 is no limit. Over `soft_bytes` a worker drains, over `hard_bytes` it is killed. Memory is what it holds now, not its peak.

    None is replaced within `rest_seconds` of its start: one that is too large from the beginning would be replaced for ever.
    """

    jobs: int = 0
    age_seconds: float = 0.0
    soft_bytes: int = 0
    hard_bytes: int = 0
    rest_seconds: float = 30.0

    def drawn(self, uniform: Callable[[float, float], float] = random.uniform) -> "RecycleLimits":
        """For one worker. The hard limit is the owner's word and stays."""
        part = uniform(1 - SPREAD, 1.0)
        return RecycleLimits(
            jobs=max(1, round(self.jobs * part)) if self.jobs else 0,
            age_seconds=self.age_seconds * part,
            soft_bytes=int(self.soft_bytes * part),
            hard_bytes=self.hard_bytes,
            rest_seconds=self.rest_seconds,
        )

    def worn(self, beat: Heartbeat, age_seconds: float) -> Worn | None:
        """Whether it is to be replaced."""
        if age_seconds < self.rest_seconds:
            return None
        if self.soft_bytes and beat.rss_bytes > self.soft_bytes:
            return Worn.MEMORY
        if self.jobs and beat.jobs_done + beat.jobs_failed >= self.jobs:
            return Worn.JOBS
        if self.age_seconds and age_seconds >= self.age_seconds:
            return Worn.AGE
        return None

    def is_too_large(self, beat: Heartbeat) -> bool:
        return bool(self.hard_bytes) and beat.rss_bytes > self.hard_bytes
