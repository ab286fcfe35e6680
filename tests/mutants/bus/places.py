"""Where the scripts stand, and which tests look at what: quick and telling ones first."""

from __future__ import annotations

from pathlib import Path

JOBS = ("tests/bus/steps/test_rules_jobs.py", "tests/bus/steps/test_rules_repeats.py", "tests/bus/steps/test_rules.py")
CARDS = ("tests/bus/steps/test_cards.py",)
BUDGETS = ("tests/bus/steps/test_rules_budgets.py",)
STOP = ("tests/bus/steps/test_rules_stop.py",)
PLACED = ("tests/bus/steps/test_rules_placed.py",)
INTAKE = (
    "tests/bus/steps/test_rules_inbound.py",
    "tests/bus/steps/test_rules_repeats.py",
    "tests/bus/steps/test_rules.py",
)
KEPT = ("tests/bus/steps/test_rules_kept.py",)
BYTES = ("tests/bus/steps/test_rules_bounds.py", *INTAKE, "tests/supervisor/inbound/test_held.py")
SENDING = (
    "tests/bus/steps/test_rules_outbound.py",
    "tests/bus/steps/test_rules_repeats.py",
    "tests/bus/steps/test_rules_time.py",
    "tests/bus/steps/test_write_count.py",
)
OUTSIDE = ("tests/bus/steps/test_rules_outside.py",)
TIME = ("tests/bus/steps/test_rules_time.py", "tests/bus/steps/test_write_count.py")
OF_REDIS = ("tests/bus/steps/test_rules_of_redis.py", "tests/bus/steps/test_audit.py")
BOUNDS = (
    "tests/bus/steps/test_rules_bounds.py",
    "tests/bus/steps/test_rules_inbound.py",
    "tests/bus/steps/test_rules_repeats.py",
)
IDS = (
    "tests/bus/steps/test_rules_inbound.py",
    "tests/bus/steps/test_rules_bounds.py",
    "tests/bus/steps/test_rules_time.py",
    "tests/bus/steps/test_rules_of_redis.py",
)
PARKING = (
    "tests/bus/steps/test_rules_inbound.py",
    "tests/bus/steps/test_rules_jobs.py",
    "tests/bus/steps/test_rules_bounds.py",
    "tests/bus/steps/test_rules_of_redis.py",
)
THREADS = ("tests/bus/steps/test_rules_threads.py",)
SLOTS = ("tests/bus/steps/test_slots_in_redis.py", "tests/supervisor/relay/test_slots.py")
ROTATION = ("tests/supervisor/cli/keys/test_rotate_store.py",)
GRANTS = ("tests/bus/steps/test_vault.py",)
LETTERS = (
    "tests/bus/steps/test_rules_bounds.py",
    "tests/bus/steps/test_rules_of_redis.py",
    "tests/supervisor/cli/letters/test_listing.py",
    "tests/bus/steps/test_rules_inbound.py",
)
QUARANTINE = ("tests/bus/steps/test_rules_quarantine.py",)
FORMER = ("tests/bus/steps/test_former_versions.py",)
RESEALED = ("tests/bus/whole/test_reseal_scripts.py",)
SAVED = (
    "tests/supervisor/backup/test_scripts.py",
    "tests/supervisor/backup/test_snapshot.py",
    "tests/supervisor/backup/test_restoring.py",
)


SCRIPTS = {path.stem: path for path in Path("bus/scripts").rglob("*.lua")}


def script(name: str) -> str:
    return str(SCRIPTS[name])
