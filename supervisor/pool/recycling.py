"""Tells when a worker that works is to be replaced: after so many jobs, so long, or so much memory. Pure.

Each worker's limits are drawn up to a fifth lower, so that those started together do not go together.
"""

import enum
import random
from collections.abc import Callable

from bus.records.control import Heartbeat
from supervisor.settings.recycle_limits import RecycleLimits

SPREAD = 0.2
"""By how much of itself a worker's limit may be lower than the owner's: workers of one start end minutes apart, not at once."""


class Worn(enum.Enum):
    """Why a worker is replaced, for log and metrics."""

    JOBS = "recycled_jobs"
    AGE = "recycled_age"
    MEMORY = "recycled_memory"


def drawn_limits(limits: RecycleLimits, uniform: Callable[[float, float], float] = random.uniform) -> RecycleLimits:
    """Returns the limits for one worker, up to a fifth lower. The hard limit is the owner's word and stays."""
    part = uniform(1 - SPREAD, 1.0)
    return RecycleLimits(
        jobs=max(1, round(limits.jobs * part)) if limits.jobs else 0,
        age_seconds=limits.age_seconds * part,
        soft_bytes=int(limits.soft_bytes * part),
        hard_bytes=limits.hard_bytes,
        rest_seconds=limits.rest_seconds,
    )


def worn_out(limits: RecycleLimits, beat: Heartbeat, age_seconds: float) -> Worn | None:
    """Returns why a worker of this age, by its last heartbeat, is to be replaced; None while it is not."""
    if age_seconds < limits.rest_seconds:
        return None
    if limits.soft_bytes and beat.rss_bytes > limits.soft_bytes:
        return Worn.MEMORY
    if limits.jobs and beat.jobs_done + beat.jobs_failed >= limits.jobs:
        return Worn.JOBS
    if limits.age_seconds and age_seconds >= limits.age_seconds:
        return Worn.AGE
    return None


def is_too_large(limits: RecycleLimits, beat: Heartbeat) -> bool:
    """Returns whether a worker holds more memory than the hard limit, so that it is killed."""
    return bool(limits.hard_bytes) and beat.rss_bytes > limits.hard_bytes
