"""The guards of crypto/, each named after what it prevents and grouped by the line of the checklist that asks for it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Part, of

# Quick and telling tests first: a run ends at its first failure.
TESTS = tuple(
    f"tests/crypto/test_{name}.py"
    for name in (
        "attacks",
        "sessions",
        "renewal",
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
        "renewal_model",
        "fuzz",
    )
)


def _of(file: str, *guards: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """The mutants of one file; its own tests notice soonest."""
    own = file.replace("crypto/", "tests/crypto/test_")
    return of(file, tuple(sorted(TESTS, key=lambda test: test != own)), *guards)


MUTANTS = (
    # 1: the signed prekey, and the pair as a pair.
    *_of("crypto/prekeys.py", ("prekey_signature_in_check", "if not pinned.has_signed(", "if False and not pinned.has_signed(")),
    *_of("crypto/sessions.py", ("prekey_signature_in_start", "    check_bundle(bundle, bundle.identity)\n", "")),
    *_of("crypto/prekeys.py", ("bundle_pair_is_pinned", "if bundle.identity != pinned:", "if False:")),
    *_of("crypto/prekeys.py", ("bundle_signing_key_is_pinned", "if bundle.identity != pinned:", "if bundle.identity.agreement_key != pinned.agreement_key:")),
    *_of("crypto/prekeys.py", ("prekey_names_its_owner", "encode([owner_id, device_id,", "encode(['', device_id,")),
    *_of("crypto/prekeys.py", ("prekey_names_its_device", "encode([owner_id, device_id,", "encode([owner_id, '',")),
    *_of("crypto/sessions.py", ("handshake_pair_is_pinned", "not wrap.handshake.is_by(peer_pinned)", "False")),
    *_of("crypto/handshake.py", ("handshake_x25519_is_pinned", "return self.identity_key == pinned.agreement_key and", "return")),
    # 2: public keys and all-zero results.
    *_of("crypto/primitives.py", ("x25519_length", "    if len(key) != KEY_BYTES:\n        raise malformed(\"X25519", "    if False:\n        raise malformed(\"X25519")),
    *_of("crypto/primitives.py", ("x25519_canonical", "if top > 0x7F or (", "if False and (")),
    *_of("crypto/primitives.py", ("x25519_top_bit", "if top > 0x7F or (", "if (")),
    *_of("crypto/primitives.py", ("x25519_all_zero", "        raise malformed(\"X25519: the result is all zero\") from None", "        return bytes(32)")),
    *_of("crypto/primitives.py", ("ed25519_canonical", "if y >= _FIELD_PRIME:", "if False:")),
    *_of("crypto/primitives.py", ("ed25519_small_order", "if y in _SMALL_ORDER_Y:", "if False:")),
    *_of("crypto/ratchet.py", ("ratchet_key_is_checked", "    check_agreement_key(header.ratchet_key)\n", "")),
    # 3: domain separation and identities.
    *_of("crypto/handshake.py", ("x3dh_domain", "ikm=_DOMAIN + agreements", "ikm=agreements")),
    *_of("crypto/sessions.py", ("identities_in_the_ad", "associated_data(own, peer) if", "b'' if")),
    # 4: the header as received.
    *_of("crypto/sessions.py", ("header_in_the_ad_sending", "_associated_data(session, device, peer) + step.header +", "_associated_data(session, device, peer) +")),
    *_of("crypto/sessions.py", ("header_as_received", "aad = _associated_data(session, device, peer_pinned) + wrap.header + content_id", "aad = _associated_data(session, device, peer_pinned) + __import__(\"crypto.ratchet\").ratchet.encode_header(header) + content_id")),
    # 5, 6: first messages.
    *_of("crypto/sessions.py", ("one_time_prekey_is_reported", "return Unwrapped(after, content_key, wrap.handshake.one_time_prekey_id)", "return Unwrapped(after, content_key, None)")),
    *_of("crypto/sessions.py", ("one_time_prekey_must_exist", "        if one_time is None:\n            raise Unreadable(Reason.UNKNOWN_PREKEY, \"the one-time prekey is gone\")\n", "")),
    *_of("crypto/sessions.py", ("a_repeated_first_message_finds_its_session", "session = record.find(wrap.session)", "session = None if wrap.handshake else record.find(wrap.session)")),
    *_of("crypto/sessions.py", ("dropped_ids_are_remembered", "if record.has_dropped(told_session):", "if False:")),
    *_of("crypto/sessions.py", ("session_id_is_its_handshakes", "if told_session != session_id(", "if False and told_session != session_id(")),
    *_of("crypto/sessions.py", ("100_new_sessions_a_day", ">= MAX_ACCEPTED_PER_DAY", ">= 10**9")),
    *_of("crypto/sessions.py", ("started_not_in_the_future", "if handshake.started > now_ms + MAX_AHEAD_MS:", "if False:")),
    *_of("crypto/records.py", ("a_handshake_that_nobody_takes", " and not self.is_ahead(current, now_ms)", "")),
    *_of("crypto/records.py", ("a_clock_that_is_behind_gives_nothing_up", "return session.started > shown + MAX_AHEAD_MS", "return True")),
    *_of("crypto/sessions.py", ("started_after_those_that_count", " if not record.is_ahead(one, now_ms))])", ")])")),
    *_of("crypto/prekeys.py", ("a_prekey_of_a_clock_that_was_ahead", "return not -CLOCK_AHEAD_MS <= now_ms", "return not now_ms")),
    *_of("crypto/prekeys.py", ("dated_ahead_is_as_old_as_the_next", "if prekey.created_ms <= now_ms + CLOCK_AHEAD_MS:", "if True:")),
    # 7, 8: the candidate state.
    *_of("crypto/ratchet.py", ("new_pair_on_the_next_send", "        their_public=header.ratchet_key,\n        previous", "        own_private=ratchet.own_private,\n        their_public=header.ratchet_key,\n        previous")),
    *_of("crypto/content.py", ("content_tag_before_commit", "        raise ForgedContent(Reason.BAD_CIPHERTEXT, \"the content's tag does not fit\") from None", "        return b'{}\\x80'")),
    *_of("crypto/sessions.py", ("wrap_is_bound_to_its_content", "ad + wrap.header + content_id, now_ms)", "ad + wrap.header, now_ms)")),
    # 9: gaps and bounds.
    *_of("crypto/ratchet.py", ("gap_is_checked", "if skipped > MAX_SKIPPED_PER_STEP:", "if False:")),
    *_of("crypto/ratchet.py", ("gap_counts_the_old_chain", "_check_gap(skipped_in_old + header.number)", "_check_gap(header.number)")),
    *_of("crypto/records.py", ("2000_skipped_keys", "record.skipped_count() - MAX_SKIPPED, ", "0, ")),
    *_of("crypto/records.py", ("100_chains", "while _chain_count(record) > MAX_CHAINS:", "while False:")),
    *_of("crypto/records.py", ("80_kib", "-((MAX_RECORD_BYTES - _size(record)) // ENTRY_BYTES)", "0")),
    *_of("crypto/records.py", ("oldest_keys_first", "    return min(\n", "    return max(\n")),
    *_of("crypto/skipped.py", ("skipped_keys_for_30_days", "oldest_kept = today - KEPT_DAYS", "oldest_kept = 0")),
    *_of("crypto/sessions.py", ("a_used_key_is_erased", "replace_chain(skipped, index, skipped[index].without(place))", "skipped")),
    # 10: outcomes.
    *_of("crypto/ratchet.py", ("key_used", "        raise Unreadable(Reason.KEY_USED, \"the message key is gone\")", "        raise Unreadable(Reason.BAD_CIPHERTEXT, \"\")")),
    # 12, 13: epochs and the choice of a session.
    *_of("crypto/records.py", ("older_epochs_are_not_sent_with", "if self.epoch < epoch:", "if False:")),
    *_of("crypto/sessions.py", ("the_greatest_session_is_sent_on", "key=lambda one: one.order", "key=lambda one: one is session")),
    *_of("crypto/sessions.py", ("started_rises", "    started = max([started, *(1 + one.started for one in record.sessions if not record.is_ahead(one, now_ms))])\n", "")),
    *_of("crypto/sessions.py", ("fresh_salt", "salt = random(SALT_BYTES)", "salt = bytes(SALT_BYTES)")),
    *_of(
        "crypto/sessions.py",
        ("so_many_sessions", "if len(alike) > most:", "if False:"),
        ("ours_are_counted_apart", "[one for one in kept if one.is_initiator is session.is_initiator]", "kept"),
    ),
    # 14: one-way traffic.
    *_of("crypto/records.py", ("900_unanswered", "self.ratchet.send_count < MAX_UNANSWERED", "True")),
    *_of("crypto/records.py", ("30_days_unanswered", "<= MAX_UNANSWERED_SECONDS", "<= 10**12")),
    *_of("crypto/sessions.py", ("ping_after_50", "return count >= PING_AFTER and", "return False and")),
    # 15: secrets in sight.
    *_of("crypto/ratchet.py", ("ratchet_repr", "    def __repr__(self) -> str:\n        return f\"Ratchet(", "    def shown(self) -> str:\n        return f\"Ratchet(")),
    *_of("crypto/prekeys.py", ("prekey_repr", "    def __repr__(self) -> str:\n        return f\"SignedPrekey(", "    def shown(self) -> str:\n        return f\"SignedPrekey(")),
    *_of("crypto/identity.py", ("identity_repr", "_agreement_private: bytes = field(repr=False)", "_agreement_private: bytes = field()")),
    # 17: renegotiation.
    *_of("crypto/renewal.py", ("renegotiate_for_these_reasons_only", "if reason not in RENEGOTIABLE:", "if False:")),
    *_of("crypto/renewal.py", ("offers_wait", "if now < offers.last_seconds + offers.wait_seconds:", "if False:")),
    *_of("crypto/renewal.py", ("an_open_offer_is_repeated", "        return Renewal.REPEAT\n", "        pass\n")),
    *_of("crypto/renewal.py", ("20_new_offers_a_day", ">= MAX_NEW_OFFERS_PER_DAY", ">= 10**9")),
    *_of("crypto/renewal.py", ("the_wait_is_doubled", "min(2 * offers.wait_seconds, LONGEST_WAIT_SECONDS)", "offers.wait_seconds")),
    *_of("crypto/renewal.py", ("the_wait_begins_anew_after_a_day", "< DAY_SECONDS:", "< 10**9:")),
    *_of("crypto/renewal.py", ("an_offer_of_our_future_counts_for_nothing", "if 0 <= now - offers.last_seconds <", "if now - offers.last_seconds <")),
    *_of("crypto/renewal.py", ("what_was_given_up_is_not_sent_on", "sessions = tuple([_lost(session) for session in record.sessions])\n    return msgspec.structs.replace(record, sessions", "sessions = record.sessions\n    return msgspec.structs.replace(record, sessions")),
    *_of("crypto/renewal.py", ("10_given_up_a_day", ">= MAX_GIVEN_UP_PER_DAY", ">= 10**9")),
    *_of("crypto/renewal.py", ("an_older_epoch_is_not_given_up_again", "current.epoch < epoch or offers", "offers")),
    *_of("crypto/sessions.py", ("a_new_session_starts_after_a_refused_one", "max(now_ms, 1 + record.refused_started)", "now_ms")),
    *_of("crypto/renewal.py", ("an_offer_below_a_refused_one_is_replaced", "and session.started > record.refused_started", "")),
    *_of("crypto/sessions.py", ("begun_before_a_loss_is_not_sent_on", "is_lost=prekeys.was_before_a_loss(handshake.signed_prekey_id)", "is_lost=False")),
    *_of("crypto/sessions.py", ("begun_after_a_loss_is_sent_on", "is_lost=prekeys.was_before_a_loss(handshake.signed_prekey_id)", "is_lost=True")),
    *_of("crypto/records.py", ("a_lost_session_is_not_sent_on", "return not self.is_lost and (", "return (")),
    *_of("crypto/renewal.py", ("the_second_in_a_row_fetches", "not is_fresh or record.offers.in_a_row > 0", "not is_fresh")),
    *_of("crypto/renewal.py", ("an_old_prekey_is_fetched", "<= PREKEY_FRESH_SECONDS", "<= 10**12")),
    # 18: what is signed is what counts.
    *_of("crypto/content.py", ("forged_content_is_told_apart", "raise ForgedContent(", "raise Unreadable(")),
    *_of("crypto/envelope.py", ("the_signature_is_verified", "if not pinned.has_signed(", "if False and not pinned.has_signed(")),
    *_of("crypto/envelope.py", ("conversation_equals_the_frames", "if envelope.conversation_id != expected.conversation_id:", "if False:")),
    *_of("crypto/envelope.py", ("sender_equals_the_frames", "if envelope.sender_id != expected.sender_id:", "if False:")),
    *_of("crypto/envelope.py", ("device_equals_the_frames", "if expected.sender_device is not None and", "if False and")),
    *_of("crypto/envelope.py", ("addressed_to_us", "if envelope.to != owner_id and", "if False and")),
    *_of("crypto/envelope.py", ("own_envelopes_are_dropped", "        raise Unreadable(Reason.NOT_FOR_US, \"our own envelope\")\n    if envelope.to", "        return\n    if envelope.to")),
    *_of("crypto/envelope.py", ("no_v1", "if version == V1 and not allow_v1:", "if False:")),
    *_of("crypto/envelope.py", ("kinds_of_the_version", "if type(wrap) not in allowed:", "if False:")),
    *_of("crypto/envelope.py", ("one_wrap_each", "if len(ours) + streams > 1:", "if False:")),
    *_of("crypto/envelope.py", ("no_delta_outside_its_frame", "    if streams:\n        raise", "    if False:\n        raise")),
    *_of("crypto/envelope.py", ("replay_id_names_the_message", "self.sender_device, self.client_message_id])\n        return sha256", "self.sender_device])\n        return sha256")),
    *_of("crypto/groups.py", ("group_key_maker_is_a_member", "if maker_id not in current.members:", "if False:")),
    *_of("crypto/groups.py", ("group_versions_rise", "if key.key_version <= current.key_version:", "if False:")),
    *_of("crypto/groups.py", ("group_sender_is_a_member", "if envelope.sender_id not in key.members:", "if False:")),
    *_of("crypto/groups.py", ("group_key_of_this_group", "if envelope.to != group_id:", "if False:")),
    *_of("crypto/streams.py", ("deltas_in_order", "if seq != self.next_seq:", "if False:")),
    *_of("crypto/streams.py", ("deltas_of_their_sender", "if said != (", "if False and said != (")),
    # Decoders.
    *_of("crypto/msgpack.py", ("duplicate_keys", "if len(result) != count:", "if False:")),
    *_of("crypto/msgpack.py", ("the_same_bytes_again", "return value if encode(value) == data else None", "return value")),
    *_of("crypto/msgpack.py", ("nesting", "if depth >= MAX_NESTING:", "if depth >= 400:")),
    *_of("crypto/msgpack.py", ("number_of_values", "if self.values > MAX_VALUES:", "if False:")),
    *_of("crypto/msgpack.py", ("trailing_bytes", "if reader.position != len(data):", "if False:")),
    *_of("crypto/strict_base64.py", ("base64_spelling", "if b2a_base64(data, newline=False) != raw:", "if False:")),
    *_of("crypto/content.py", ("repeated_names", "if len(built) != len(pairs):", "if False:")),
    *_of("crypto/content.py", ("json_nesting", "if depth > MAX_JSON_NESTING:", "if False:")),
    *_of("crypto/content.py", ("json_values", "> MAX_JSON_VALUES:", "> 10**9:")),
    *_of("crypto/content.py", ("range_of_integers", "if not MIN_INTEGER <= number <= MAX_INTEGER:", "if False:")),
    *_of("crypto/content.py", ("escapes", "if b\"\\\\u\" in data and", "if False and")),
    *_of("crypto/content.py", ("padding", "if not stripped.endswith(_PAD):", "if False:")),
    # Files and ledger.
    *_of("crypto/files.py", ("last_flag", "(b\"\\x01\" if last else b\"\\x00\")", "b\"\\x00\"")),
    *_of("crypto/files.py", ("chunk_number", "index.to_bytes(4", "(0).to_bytes(4")),
    *_of("crypto/files.py", ("file_hash_and_size", "if self._hash.hexdigest() != self._attachment.sha256 or", "if False and")),
    *_of("crypto/files.py", ("file_conversation", "encode([conversation_id, file_id,", "encode(['', file_id,")),
    *_of("crypto/files.py", ("file_size", " or self._size != self._attachment.size:", ":")),
    *_of("crypto/files.py", ("file_upload", "encode([conversation_id, file_id,", "encode([conversation_id, '',")),
    *_of("crypto/files.py", ("an_empty_chunk_stands_alone", "        if not chunk and self._index > 1:\n", "        if False:\n")),
    *_of("crypto/files.py", ("a_hash_is_hex", "is_hex = len(told.sha256) == 64 and not set(told.sha256) - set(\"0123456789abcdef\")", "is_hex = True")),
    *_of("crypto/files.py", ("a_file_has_a_size", "if not is_hex or not 0 <= told.size <= MAX_FILE_BYTES:", "if not is_hex:")),
    *_of("crypto/grants.py", ("ledger_chain", "        previous = mac\n", "")),
    *_of("crypto/grants.py", ("ledger_head", "return None if equal(previous, head) else count", "return None")),
    *_of("crypto/grants.py", ("key_change_is_held", "if grant.held is not None:", "if False:")),
    *_of("crypto/grants.py", ("grant_is_active", "if grant is None or grant.status is not Status.ACTIVE:", "if grant is None:")),
    # What counts of a record when its owner's keys are others.
    *_of("crypto/sessions.py", ("a_record_is_of_its_pair", "    if record.peer == pinned:\n", "    if record.peer is not None:\n")),
)  # fmt: skip

CRYPTO = Part("crypto", MUTANTS, ("crypto", "tests/crypto", "tests/trials/fuzz", "tests/vectors"))
