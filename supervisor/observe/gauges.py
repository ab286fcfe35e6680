"""The gauges of Redis' contents and of the processes: supervisor/run/survey.py measures them every two seconds, a scrape shows them.

Every supervisor shows the same values for the whole agent (the first part of the table): use max() over them, not sum(). Events are
counted where they happen, by supervisor/observe/metrics.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Values = Mapping[str, float]
"""The values by the value of the one label; under "" if the gauge has none."""


@dataclass(frozen=True)
class Gauge:
    name: str
    text: str
    label: str = ""


JOBS_QUEUED = Gauge("hashee_jobs_queued", "Jobs of the whole agent that no worker has taken")
JOBS_WAITING = Gauge("hashee_jobs_waiting", "Jobs of the whole agent behind a running one of their conversation")
JOBS_RUNNING = Gauge("hashee_jobs_running", "Jobs of the whole agent that workers have taken")
JOBS_DUE = Gauge("hashee_jobs_due", "Failed jobs of the whole agent that run again later")
OLDEST_UNTAKEN = Gauge("hashee_jobs_oldest_untaken_seconds", "Age of the oldest job that no worker has taken")
OLDEST_BUSY = Gauge("hashee_conversations_oldest_busy_seconds", "Since when the longest busy conversation is busy")
REPLIES_UNSENT = Gauge("hashee_replies_unsent", "Replies of the whole agent that are not encrypted yet")
REPLIES_UNACKNOWLEDGED = Gauge("hashee_outbox", "Sent replies of the whole agent that the relay has not acknowledged")
OUTBOX_OLDEST = Gauge("hashee_outbox_oldest_seconds", "Age of the oldest reply that the relay has not acknowledged")
DEAD_LETTERS = Gauge("hashee_dead_letters", "Dead letters that wait for a decision")
QUARANTINE = Gauge("hashee_quarantine", "Messages in quarantine, by the reason why they could not be read", "reason")
KEPT_BYTES = Gauge(
    "hashee_kept_bytes",
    "Bytes in Redis of what has a budget; unsigned is a part of quarantine, notes are estimated",
    "kind",
)
HELD_NOTES = Gauge("hashee_held_notes", "Notes of messages that wait at the relay; one may stand for many of a sender")
HELD_SENDERS = Gauge(
    "hashee_held_senders", "Senders with too much waiting, or not known yet, whose messages wait at the relay"
)
TIMERS = Gauge("hashee_timers", "Timers of the whole agent: reminders and deadlines that are to come")
TIMERS_OVERDUE = Gauge("hashee_timers_overdue_seconds", "For how long the next timer has been due and is no job yet")
SLOTS_HELD = Gauge("hashee_slots_held", "Connections to the relay that supervisors of the agent hold")
WORKERS_ELSEWHERE = Gauge("hashee_workers_elsewhere", "Living workers that belong to no or another supervisor")
REDIS_MEMORY = Gauge("hashee_redis_memory_bytes", "Memory that Redis uses")
REDIS_LIMIT = Gauge("hashee_redis_memory_limit_bytes", "maxmemory of Redis, 0 for none")
REDIS_EVICTED = Gauge("hashee_redis_evicted_keys", "Keys that Redis has thrown away since its start; must be 0")
REDIS_FIT = Gauge("hashee_redis_fit", "1 while Redis is set as it must be: eviction off, persistence on", "setting")
REDIS_CLOCK = Gauge(
    "hashee_redis_clock_ahead_seconds",
    "How far Redis' clock is ahead of this supervisor's, or of that of a worker elsewhere, the furthest apart",
    "of",
)
RELAY_CLOCK = Gauge(
    "hashee_relay_clock_ahead_seconds",
    "How far the relay's clock is certainly ahead of this host's, by the date of the last connection; 0 while both may agree",
)
LAST_BACKUP = Gauge(
    "hashee_last_backup_timestamp_seconds",
    "When the last backup of this store was made, Unix time by Redis' clock; 0 where none is known, or one that is dated ahead of that clock",
)
BACKUP_MAX_AGE = Gauge(
    "hashee_backup_max_age_seconds",
    "How old the last backup may become (HASHEE_BACKUP_MAX_AGE_HOURS); 0 for any age",
)
SLOT = Gauge("hashee_slot", "Number of the slot that this supervisor holds, 0 without one")
STANDBY = Gauge("hashee_standby", "1 while this supervisor waits for a slot, ready")
PROCESS_MEMORY = Gauge("hashee_memory_bytes", "Resident memory of this host's processes, by role", "process")
LOOP_LAG = Gauge("hashee_loop_lag_seconds", "How late the supervisor's event loop woke last")
BUILD = Gauge("hashee_build", "1, with the version that runs", "version")
STARTED = Gauge("hashee_start_time_seconds", "When this supervisor started, Unix time")

ALL_GAUGES = (
    *(JOBS_QUEUED, JOBS_WAITING, JOBS_RUNNING, JOBS_DUE, OLDEST_UNTAKEN, OLDEST_BUSY),
    *(REPLIES_UNSENT, REPLIES_UNACKNOWLEDGED, OUTBOX_OLDEST, DEAD_LETTERS, QUARANTINE),
    *(KEPT_BYTES, HELD_NOTES, HELD_SENDERS, TIMERS, TIMERS_OVERDUE),
    *(SLOTS_HELD, WORKERS_ELSEWHERE, REDIS_MEMORY, REDIS_LIMIT, REDIS_EVICTED, REDIS_FIT, REDIS_CLOCK),
    *(LAST_BACKUP, BACKUP_MAX_AGE),
    *(SLOT, STANDBY, PROCESS_MEMORY, LOOP_LAG, BUILD, STARTED, RELAY_CLOCK),
)


class Gauges(Collector):
    """Shows the latest measurement as a whole; the scraping thread only reads it."""

    def __init__(self) -> None:
        self._latest: Mapping[Gauge, Values] = {}

    def show(self, measured: Mapping[Gauge, Values]) -> None:
        """Replaces the former measurement; a gauge that is missing in it is not shown, since its old value would be wrong."""
        self._latest = measured

    def describe(self) -> Iterator[GaugeMetricFamily]:
        for gauge in ALL_GAUGES:
            yield _family(gauge)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        latest = self._latest
        for gauge in ALL_GAUGES:
            family = _family(gauge)
            for label, value in latest.get(gauge, {}).items():
                family.add_metric([label] if gauge.label else [], value)
            yield family


def _family(gauge: Gauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.name, gauge.text, labels=[gauge.label] if gauge.label else [])
