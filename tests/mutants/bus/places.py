"""Where the scripts stand, and which tests look at what: quick and telling ones first."""

from __future__ import annotations

JOBS = ("tests/bus/test_rules_jobs.py", "tests/bus/test_rules_repeats.py", "tests/bus/test_rules.py")
INTAKE = ("tests/bus/test_rules_inbound.py", "tests/bus/test_rules_repeats.py", "tests/bus/test_rules.py")
BYTES = ("tests/bus/test_rules_bounds.py", *INTAKE, "tests/supervisor/test_held.py")
SENDING = (
    "tests/bus/test_rules_outbound.py",
    "tests/bus/test_rules_repeats.py",
    "tests/bus/test_rules_time.py",
    "tests/bus/test_generation.py",
)
TIME = ("tests/bus/test_rules_time.py", "tests/bus/test_generation.py")
OF_REDIS = ("tests/bus/test_rules_of_redis.py", "tests/bus/test_audit.py")
BOUNDS = ("tests/bus/test_rules_bounds.py", "tests/bus/test_rules_inbound.py", "tests/bus/test_rules_repeats.py")
IDS = (
    "tests/bus/test_rules_inbound.py",
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_time.py",
    "tests/bus/test_rules_of_redis.py",
)
PARKING = (
    "tests/bus/test_rules_inbound.py",
    "tests/bus/test_rules_jobs.py",
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_of_redis.py",
)
SLOTS = ("tests/slots/test_slots_in_redis.py", "tests/slots/test_slots.py")
ROTATION = ("tests/keys/test_rotate_store.py",)
GRANTS = ("tests/bus/test_vault.py",)
LETTERS = (
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_of_redis.py",
    "tests/letters/test_listing.py",
    "tests/bus/test_rules_inbound.py",
)
QUARANTINE = ("tests/bus/test_rules_quarantine.py",)
FORMER = ("tests/bus/test_former_versions.py",)
RESEALED = ("tests/bus/test_reseal_scripts.py",)
SAVED = ("tests/backup/test_scripts.py", "tests/backup/test_snapshot.py", "tests/backup/test_restoring.py")


def script(name: str) -> str:
    return f"bus/scripts/{name}.lua"
