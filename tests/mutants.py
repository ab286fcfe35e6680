"""`python -m tests.mutants [NAME…]`: switches each guard of crypto/ and of the scripts of bus/ off in turn and shows that a test fails.

A mutant is one small change to one file, named after the guard that it removes and the line of the checklist
that asks for it. It is applied to a copy in a temporary directory; the tests of crypto run against that copy
until the first failure. A mutant that no test notices is a hole in the tests, and the exit code is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutant import Mutant
from tests.mutants_of_bus import CONTROL_OF_BUS, MUTANTS_OF_BUS

ROOT = Path(__file__).parent.parent
SECONDS_PER_MUTANT = 180
AT_ONCE = 2

# Quick and telling tests first: a run ends at its first failure.
TESTS = [
    "attacks",
    "sessions",
    "prekeys",
    "identity",
    "content",
    "msgpack",
    "records",
    "conversation",
    "streams",
    "groups",
    "grants",
    "files",
    "keystore",
    "wycheproof",
    "double_ratchet",
    "known_answers",
    "state_machine",
    "fuzz",
]


MUTANTS = (
    # 1: the signed prekey, and the pair as a pair.
    Mutant("prekey_signature_in_check", "prekeys", "if not pinned.has_signed(", "if False and not pinned.has_signed("),
    Mutant("prekey_signature_in_start", "sessions", "    check_bundle(bundle, bundle.identity)\n", ""),
    Mutant("bundle_pair_is_pinned", "prekeys", "if bundle.identity != pinned:", "if False:"),
    Mutant(
        "bundle_signing_key_is_pinned",
        "prekeys",
        "if bundle.identity != pinned:",
        "if bundle.identity.agreement_key != pinned.agreement_key:",
    ),
    Mutant("prekey_names_its_owner", "prekeys", "encode([owner_id, device_id,", "encode(['', device_id,"),
    Mutant("prekey_names_its_device", "prekeys", "encode([owner_id, device_id,", "encode([owner_id, '',"),
    Mutant("handshake_pair_is_pinned", "sessions", "not wrap.handshake.is_by(peer_pinned)", "False"),
    Mutant(
        "handshake_x25519_is_pinned",
        "handshake",
        "return self.identity_key == pinned.agreement_key and",
        "return",
    ),
    # 2: public keys and all-zero results.
    Mutant("x25519_length", "primitives", "    if len(key) != KEY_BYTES:\n        raise malformed(\"X25519", "    if False:\n        raise malformed(\"X25519"),
    Mutant("x25519_canonical", "primitives", "if top > 0x7F or (", "if False and ("),
    Mutant("x25519_top_bit", "primitives", "if top > 0x7F or (", "if ("),
    Mutant("x25519_all_zero", "primitives", "        raise malformed(\"X25519: the result is all zero\") from None", "        return bytes(32)"),
    Mutant("ed25519_canonical", "primitives", "if y >= _FIELD_PRIME:", "if False:"),
    Mutant("ed25519_small_order", "primitives", "if y in _SMALL_ORDER_Y:", "if False:"),
    Mutant("ratchet_key_is_checked", "ratchet", "    check_agreement_key(header.ratchet_key)\n", ""),
    # 3: domain separation and identities.
    Mutant("x3dh_domain", "handshake", "ikm=_DOMAIN + agreements", "ikm=agreements"),
    Mutant("identities_in_the_ad", "sessions", "associated_data(own, peer) if", "b'' if"),
    # 4: the header as received.
    Mutant("header_in_the_ad_sending", "sessions", "_associated_data(session, device, peer) + step.header +", "_associated_data(session, device, peer) +"),
    Mutant(
        "header_as_received",
        "sessions",
        "aad = _associated_data(session, device, peer_pinned) + wrap.header + content_id",
        "aad = _associated_data(session, device, peer_pinned) + encode_header(header) + content_id",
    ),
    # 5, 6: first messages.
    Mutant("one_time_prekey_is_reported", "sessions", "return Unwrapped(after, content_key, wrap.handshake.one_time_prekey_id)", "return Unwrapped(after, content_key, None)"),
    Mutant("one_time_prekey_must_exist", "sessions", "        if one_time is None:\n            raise Unreadable(Reason.UNKNOWN_PREKEY, \"the one-time prekey is gone\")\n", ""),
    Mutant("a_repeated_first_message_finds_its_session", "sessions", "session = record.find(wrap.session)", "session = None if wrap.handshake else record.find(wrap.session)"),
    Mutant("dropped_ids_are_remembered", "sessions", "if record.has_dropped(told_session):", "if False:"),
    Mutant("session_id_is_its_handshakes", "sessions", "if told_session != session_id(", "if False and told_session != session_id("),
    Mutant("100_new_sessions_a_day", "sessions", ">= MAX_ACCEPTED_PER_DAY", ">= 10**9"),
    Mutant("started_not_in_the_future", "sessions", "if handshake.started > now_ms + MAX_AHEAD_MS:", "if False:"),
    # 7, 8: the candidate state.
    Mutant("new_pair_on_the_next_send", "ratchet", "        their_public=header.ratchet_key,\n        previous", "        own_private=ratchet.own_private,\n        their_public=header.ratchet_key,\n        previous"),
    Mutant("content_tag_before_commit", "content", "        raise ForgedContent(Reason.BAD_CIPHERTEXT, \"the content's tag does not fit\") from None", "        return b'{}\\x80'"),
    Mutant("wrap_is_bound_to_its_content", "sessions", "ad + wrap.header + content_id, now_ms)", "ad + wrap.header, now_ms)"),
    # 9: gaps and bounds.
    Mutant("gap_is_checked", "ratchet", "if skipped > MAX_SKIPPED_PER_STEP:", "if False:"),
    Mutant("gap_counts_the_old_chain", "ratchet", "_check_gap(skipped_in_old + header.number)", "_check_gap(header.number)"),
    Mutant("2000_skipped_keys", "records", "record.skipped_count() - MAX_SKIPPED, ", "0, "),
    Mutant("100_chains", "records", "while _chain_count(record) > MAX_CHAINS:", "while False:"),
    Mutant("80_kib", "records", "-((MAX_RECORD_BYTES - _size(record)) // ENTRY_BYTES)", "0"),
    Mutant("oldest_keys_first", "records", "    return min(\n", "    return max(\n"),
    Mutant("skipped_keys_for_30_days", "skipped", "oldest_kept = today - KEPT_DAYS", "oldest_kept = 0"),
    Mutant("a_used_key_is_erased", "sessions", "replace_chain(skipped, index, skipped[index].without(place))", "skipped"),
    # 10: outcomes.
    Mutant("key_used", "ratchet", "        raise Unreadable(Reason.KEY_USED, \"the message key is gone\")", "        raise Unreadable(Reason.BAD_CIPHERTEXT, \"\")"),
    # 12, 13: epochs and the choice of a session.
    Mutant("older_epochs_are_not_sent_with", "records", "if self.epoch < epoch:", "if False:"),
    Mutant("the_greatest_session_is_sent_on", "sessions", "key=lambda one: one.order", "key=lambda one: one is session"),
    Mutant("started_rises", "sessions", "started = max(started, 1 + record.sessions[-1].started)", "pass"),
    Mutant("fresh_salt", "sessions", "salt = random(SALT_BYTES)", "salt = bytes(SALT_BYTES)"),
    Mutant("five_sessions", "sessions", "while len(kept) > MAX_SESSIONS:", "while False:"),
    # 14: one-way traffic.
    Mutant("900_unanswered", "records", "self.ratchet.send_count < MAX_UNANSWERED", "True"),
    Mutant("30_days_unanswered", "records", "<= MAX_UNANSWERED_SECONDS", "<= 10**12"),
    Mutant("ping_after_50", "sessions", "return count >= PING_AFTER and", "return False and"),
    # 15: secrets in sight.
    Mutant("ratchet_repr", "ratchet", "    def __repr__(self) -> str:\n        return f\"Ratchet(", "    def shown(self) -> str:\n        return f\"Ratchet("),
    Mutant("prekey_repr", "prekeys", "    def __repr__(self) -> str:\n        return f\"SignedPrekey(", "    def shown(self) -> str:\n        return f\"SignedPrekey("),
    Mutant("identity_repr", "identity", "_agreement_private: bytes = field(repr=False)", "_agreement_private: bytes = field()"),
    # 17: renegotiation.
    Mutant("renegotiate_for_these_reasons_only", "renewal", "if reason not in RENEGOTIABLE:", "if False:"),
    Mutant("offers_wait", "renewal", "if now < offers.last_seconds + offers.wait_seconds:", "if False:"),
    Mutant("an_open_offer_is_repeated", "renewal", "        return Renewal.REPEAT\n", "        pass\n"),
    Mutant("20_new_offers_a_day", "renewal", ">= MAX_NEW_OFFERS_PER_DAY", ">= 10**9"),
    Mutant("the_wait_is_doubled", "renewal", "min(2 * offers.wait_seconds, LONGEST_WAIT_SECONDS)", "offers.wait_seconds"),
    Mutant("the_wait_begins_anew_after_a_day", "renewal", "< DAY_SECONDS:", "< 10**9:"),
    Mutant("an_offer_of_our_future_counts_for_nothing", "renewal", "if 0 <= now - offers.last_seconds <", "if now - offers.last_seconds <"),
    Mutant("a_new_session_starts_after_a_refused_one", "sessions", "max(now_ms, 1 + record.refused_started)", "now_ms"),
    Mutant("an_offer_below_a_refused_one_is_replaced", "renewal", "and session.started > record.refused_started", ""),
    Mutant("a_lost_session_is_not_sent_on", "records", "return not self.is_lost and (", "return ("),
    Mutant("the_second_in_a_row_fetches", "renewal", "not is_fresh or record.offers.in_a_row > 0", "not is_fresh"),
    Mutant("an_old_prekey_is_fetched", "renewal", "<= PREKEY_FRESH_SECONDS", "<= 10**12"),
    # 18: what is signed is what counts.
    Mutant("forged_content_is_told_apart", "content", "raise ForgedContent(", "raise Unreadable("),
    Mutant("the_signature_is_verified", "envelope", "if not pinned.has_signed(", "if False and not pinned.has_signed("),
    Mutant("conversation_equals_the_frames", "envelope", "if envelope.conversation_id != expected.conversation_id:", "if False:"),
    Mutant("sender_equals_the_frames", "envelope", "if envelope.sender_id != expected.sender_id:", "if False:"),
    Mutant("device_equals_the_frames", "envelope", "if expected.sender_device is not None and", "if False and"),
    Mutant("addressed_to_us", "envelope", "if envelope.to != owner_id and", "if False and"),
    Mutant("own_envelopes_are_dropped", "envelope", "        raise Unreadable(Reason.NOT_FOR_US, \"our own envelope\")\n    if envelope.to", "        return\n    if envelope.to"),
    Mutant("no_v1", "envelope", "if version == V1 and not allow_v1:", "if False:"),
    Mutant("kinds_of_the_version", "envelope", "if type(wrap) not in allowed:", "if False:"),
    Mutant("one_wrap_each", "envelope", "if len(ours) + streams > 1:", "if False:"),
    Mutant("no_delta_outside_its_frame", "envelope", "    if streams:\n        raise", "    if False:\n        raise"),
    Mutant("replay_id_names_the_message", "envelope", "self.sender_device, self.client_message_id])\n        return sha256", "self.sender_device])\n        return sha256"),
    Mutant("group_key_maker_is_a_member", "groups", "if maker_id not in current.members:", "if False:"),
    Mutant("group_versions_rise", "groups", "if key.key_version <= current.key_version:", "if False:"),
    Mutant("group_sender_is_a_member", "groups", "if envelope.sender_id not in key.members:", "if False:"),
    Mutant("group_key_of_this_group", "groups", "if envelope.to != group_id:", "if False:"),
    Mutant("deltas_in_order", "streams", "if seq != self.next_seq:", "if False:"),
    Mutant("deltas_of_their_sender", "streams", "if said != (", "if False and said != ("),
    # Decoders.
    Mutant("duplicate_keys", "msgpack", "if len(result) != count:", "if False:"),
    Mutant("the_same_bytes_again", "msgpack", "return value if encode(value) == data else None", "return value"),
    Mutant("nesting", "msgpack", "if depth >= MAX_NESTING:", "if depth >= 400:"),
    Mutant("number_of_values", "msgpack", "if self.values > MAX_VALUES:", "if False:"),
    Mutant("trailing_bytes", "msgpack", "if reader.position != len(data):", "if False:"),
    Mutant("base64_spelling", "strict_base64", "if b2a_base64(data, newline=False) != raw:", "if False:"),
    Mutant("repeated_names", "content", "if len(built) != len(pairs):", "if False:"),
    Mutant("json_nesting", "content", "if depth > MAX_JSON_NESTING:", "if False:"),
    Mutant("json_values", "content", "> MAX_JSON_VALUES:", "> 10**9:"),
    Mutant("range_of_integers", "content", "if not MIN_INTEGER <= number <= MAX_INTEGER:", "if False:"),
    Mutant("escapes", "content", 'if b"\\\\u" in data and', "if False and"),
    Mutant("padding", "content", "if not stripped.endswith(_PAD):", "if False:"),
    # Files and ledger.
    Mutant("last_flag", "files", '(b"\\x01" if last else b"\\x00")', 'b"\\x00"'),
    Mutant("chunk_number", "files", "index.to_bytes(4", "(0).to_bytes(4"),
    Mutant("file_hash_and_size", "files", "if self._hash.hexdigest() != self._attachment.sha256 or", "if False and"),
    Mutant("file_conversation", "files", "encode([conversation_id, file_id,", "encode(['', file_id,"),
    Mutant("ledger_chain", "grants", "        previous = mac\n", ""),
    Mutant("ledger_head", "grants", "return None if equal(previous, head) else count", "return None"),
    Mutant("key_change_is_held", "grants", "if grant.held is not None:", "if False:"),
    Mutant("grant_is_active", "grants", "if grant is None or grant.status is not Status.ACTIVE:", "if grant is None:"),
)  # fmt: skip


CONTROL = Mutant("control", "errors", "class Reason(", "class Reason(")
"""Changes nothing: all tests must pass with it, or the kills mean nothing."""


def survived(mutant: Mutant) -> bool:
    """Whether all tests pass without this guard. Raises ValueError if the guard is not where it should be."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place)
        for folder in mutant.folders:
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / "__init__.py", copy / "tests")
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / mutant.path
        source = file.read_text(encoding="utf-8")
        if mutant.old not in source:
            raise ValueError(f"{mutant.name}: the guard is not in {mutant.path} as written here")
        changed = source.replace(mutant.old, mutant.new, 1)
        if mutant.name == "header_as_received":
            changed = changed.replace("    decode_header,\n", "    decode_header,\n    encode_header,\n", 1)
        if file.suffix == ".py":
            compile(changed, str(file), "exec")
        file.write_text(changed, encoding="utf-8")
        return _tests_pass(copy, mutant.tests or tuple(f"tests/crypto/test_{name}.py" for name in TESTS))


def _tests_pass(copy: Path, files: Sequence[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", "not memory", *files]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS_PER_MUTANT, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode not in (0, 1, 2):
        raise RuntimeError(ended.stdout.decode(errors="replace")[-2000:])
    return ended.returncode == 0


def main(names: Sequence[str]) -> int:
    """Run the named mutants, or all; the exit code."""
    chosen = [mutant for mutant in (*MUTANTS, *MUTANTS_OF_BUS) if not names or mutant.name in names]
    for control in (CONTROL, CONTROL_OF_BUS):
        if any(bool(mutant.tests) == bool(control.tests) for mutant in chosen) and not survived(control):
            print("the tests fail without any mutant", flush=True)
            return 1
    holes = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, lives in zip(chosen, pool.map(survived, chosen), strict=True):
            holes += lives
            print(f"{'SURVIVED' if lives else 'killed':9} {mutant.name}", flush=True)
    print(f"{len(chosen) - holes} of {len(chosen)} mutants killed")
    return 1 if holes or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
