"""Tests arrange what they need by what a part offers, not by its private attributes: those may change with any commit."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

TESTS = Path(__file__).parent
OWN = {"self", "cls", "super()"}
STILL: dict[str, set[str]] = {
    "crypto/test_files.py": {"_aad"},
    "faults/test_redis_loops.py": {"_wanted"},
    "supervisor/backup/test_restored_counters.py": {"_in_step"},
    "supervisor/backup/test_restored_prekeys.py": {"_agent", "_on_kept"},
    "supervisor/backup/test_restoring.py": {"_before", "_load"},
    "supervisor/backup/test_snapshot.py": {"_in_parts"},
    "supervisor/cli/letters/test_for_real.py": {"_state"},
    "supervisor/outbound/test_delivery.py": {"_resend_one"},
    "supervisor/outbound/test_outbound_devices.py": {"_decoded"},
    "supervisor/outbound/test_pins.py": {"_remember"},
    "supervisor/outbound/test_sending_races.py": {"_decoded"},
    "supervisor/outbound/test_streams.py": {"_by_conversation", "_early", "_expected", "_pass_over"},
    "supervisor/peers/test_sessions.py": {"_decoded", "_lock", "_locks"},
    "supervisor/peers/test_twins.py": {"_client", "_shown"},
    "supervisor/recovery/test_continuity.py": {"_looked_seconds"},
    "supervisor/recovery/test_time_guard.py": {"_records"},
    "supervisor/relay/test_answers.py": {"_members"},
    "supervisor/relay/test_connection_patience.py": {"_turnstile"},
    "supervisor/relay/test_related.py": {"_early"},
    "supervisor/relay/test_rest.py": {"_client"},
    "supervisor/run/test_versions.py": {"_decoded"},
    "test_protocol_page.py": {"_AttachmentEntry", "_Growing", "_KnownFromRelay"},
    "traps/test_slow_fsync.py": {"_packaged_binaries"},
    "trials/deploy/metrics_page.py": {"_labelnames"},
}
"""What tests still reach into, by file. This list only becomes shorter: nothing is added to it."""


def private_names(source: str) -> set[str]:
    """Returns the private attributes that a file reaches for on anything but itself; `os._exit` is a public function."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) not in OWN
        and ast.unparse(node) != "os._exit"
    }


def test_no_test_reaches_into_a_private_attribute_of_a_part() -> None:
    found = {
        str(path.relative_to(TESTS)): names
        for path in sorted(TESTS.rglob("*.py"))
        if (names := private_names(path.read_text(encoding="utf-8")))
    }
    assert found == STILL


def test_a_private_attribute_of_another_is_found_and_ones_own_is_not() -> None:
    assert private_names("core.outbound._reader.read\nself._own\nsuper()._own()\nos._exit(1)\nx.__class__") == {
        "_reader"
    }
