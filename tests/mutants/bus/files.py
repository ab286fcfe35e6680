"""The calls of the file gate: what proves one, and what is none."""

from __future__ import annotations

from tests.mutants.mutant import of

OF_FILES = (
    *of(
        "bus/files/proofs.py",
        ("tests/bus/files/test_proofs.py",),
        ("a_proof_of_another_key_is_none", "if not key.is_proof(call, time_ms, nonce, mac):", "if False:"),
        (
            "an_old_proof_is_stale",
            "if abs(behind_seconds) > CLOCKS_DIFFER_SECONDS:",
            "if behind_seconds < -CLOCKS_DIFFER_SECONDS:",
        ),
        (
            "a_proof_of_later_is_stale",
            "if abs(behind_seconds) > CLOCKS_DIFFER_SECONDS:",
            "if behind_seconds > CLOCKS_DIFFER_SECONDS:",
        ),
        ("a_proof_counts_once", "if nonce in self._seen:", "if False:"),
        ("nonces_have_a_bound", "if len(self._seen) >= self._most_nonces:", "if False:"),
        ("an_early_proof_is_remembered_twice_as_long", "<= 2 * CLOCKS_DIFFER_SECONDS", "<= CLOCKS_DIFFER_SECONDS"),
        ("a_proof_is_for_a_length", "str(call.content_length), ", ""),
        ("a_proof_is_for_what_is_bound", "str(call.content_length), call.bound)", "str(call.content_length))"),
    ),
    *of(
        "bus/files/calls.py",
        ("tests/bus/files/test_calls.py",),
        ("an_id_is_no_path", "[A-Za-z0-9_-]{1,128}", "[A-Za-z0-9_./-]{1,128}"),
        ("an_id_is_whole", "_ID.fullmatch(text)", "_ID.match(text)"),
        ("a_range_is_whole", "_RANGE.fullmatch(value)", "_RANGE.match(value)"),
    ),
    *of(
        "bus/files/refused_tls.py",
        ("tests/test_files_over_tls.py",),
        ("a_certificate_is_looked_at", "if isinstance(error, ssl.SSLCertVerificationError):", "if False:"),
        ("another_name_is_told_from_another_authority", "BY_CODE.get(error.verify_code, WHO_SIGNED)", "WHO_SIGNED"),
        ("a_gate_in_the_clear_is_told", "and error.reason in NO_TLS", "and False"),
    ),
)
