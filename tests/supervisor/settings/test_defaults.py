"""What each duration is where nobody has said otherwise: tests set small ones, so that a default that slips would not be seen."""

import dataclasses

import pytest

from bus.steps import slots
from bus.transport import leases
from supervisor.keeper.keeper import Timings
from supervisor.pool.pool_settings import PoolSettings
from supervisor.pool.worker_order import WorkerTimes
from supervisor.recovery import reclaimer
from workers.process import runner

pytestmark = pytest.mark.pure


def test_the_keepers_durations() -> None:
    assert dataclasses.asdict(Timings()) == {
        "drain_margin": 5.0,
        "redis_patience": 2.0,
        "redis_stop": 10.0,
        "files_stop": 1.0,
        "redis_stop_at_once": 2.0,
        "backoff_base": 0.5,
        "backoff_cap": 30.0,
        "healthy_after": 60.0,
        "upgrade": 60.0,
        "status": 5.0,
        "silence": 20.0,
        "sync_interval": 1.0,
    }


def test_the_workers_durations() -> None:
    times = WorkerTimes()
    assert (times.load_seconds, times.silence_seconds, times.job_seconds, times.grace_seconds) == (60, 10, 600, 10)
    assert (times.dump_seconds, times.terminate_seconds) == (1, 2)


def test_the_pools_durations() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(PoolSettings)}
    assert (defaults["backoff_first_seconds"], defaults["backoff_last_seconds"]) == (0.5, 30.0)
    assert (defaults["healthy_seconds"], defaults["drain_seconds"]) == (60.0, 25.0)


def test_the_durations_of_jobs_leases_and_slots() -> None:
    assert (leases.LEASE_SECONDS, leases.RENEW_SECONDS, slots.LEASE_SECONDS) == (15.0, 5.0, 5.0)
    assert (runner.JOB_SECONDS, runner.RETRY_AFTER_SECONDS) == (600.0, (1.0, 5.0, 30.0))
    assert (reclaimer.INTERVAL_SECONDS, reclaimer.RECLAIMER_LEASE_SECONDS) == (1.0, 5.0)
