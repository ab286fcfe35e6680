"""What is taken in: for whom it is, what it says, how much of it, what may wait and what is tried again."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

INTAKE = (
    *of(
        module("inbound/events"), tests("supervisor/inbound/test_events"),
        ("an_event_that_nobody_asks_for_is_no_job", "if event.name not in await self._wanted_now():", "if False:"),
        ("events_that_wait_are_bounded", "if len(self._waiting) >= MOST_WAITING:", "if False:"),
        ("what_redis_refuses_of_one_event_costs_that_one", "self._drop(self._waiting.popleft().event, \"event_refused\")", "await trio.sleep(AGAIN_SECONDS)"),
    ),
    *of(
        module("peers/addressing"), tests("supervisor/peers/test_addressing"),
        ("a_group_wants_its_version", "if (envelope.v == V1_1) != (kind == GROUP):", "if False:"),
        ("the_pinned_kind_wins", "snapshot.kind or told or", "told or snapshot.kind or"),
        ("another_person_than_the_pinned_one", "if snapshot.kind is not None and snapshot.person != envelope.sender_id:", "if False:"),
        ("another_kind_than_the_pinned_one", "if snapshot.kind is not None and told not in (None, snapshot.kind):", "if False:"),
        ("addressed_to_the_person", "        check_recipient(envelope, agent_id)\n", ""),
        ("addressed_to_the_group", "if envelope.to == agent_id:", "if False:"),
        ("addressed_to_this_group", "envelope.to if snapshot.person is None else snapshot.person", "envelope.to"),
    ),
    *of(
        module("relay/payloads"), tests("supervisor/relay/test_payloads", "supervisor/outbound/test_hops"),
        ("hops_are_no_truth_values", "if isinstance(value, bool) or not isinstance(value, int | float):", "if not isinstance(value, int | float):"),
        ("hops_are_not_negative", "max(value, 0)", "value"),
        ("hops_are_bounded", "int(min(max(value, 0), MOST_HOPS))", "int(max(value, 0))"),
        ("the_former_name_of_text", "if \"text\" not in renamed and", "if"),
        ("only_known_kinds", "return kind if kind in (\"h2a\", \"group\", \"h2h\") else \"h2a\"", "return kind or \"h2a\""),
        ("mentions_are_words", "if isinstance(item, str)", "if True"),
        ("mention_all_is_said", "payload.get(\"mention_all\") is True", "bool(payload.get(\"mention_all\"))"),
    ),
    *of(
        module("inbound/inbound"), ("tests/telemetry/test_log_lines.py",),
        ("a_log_line_names_the_span_of_its_message", "current_span.set(span)  # of", "pass  # of"),
    ),
    *of(
        module("inbound/reading"), tests("supervisor/inbound/test_inbound"),
        ("our_own_are_known", "if frame.sender_id == self._agent_id:", "if False:"),
    ),
    *of(
        module("inbound/readings"), tests("supervisor/inbound/test_inbound"),
        ("old_is_below_next", "incoming.frame.conversation_seq < snapshot.next_seq", "True"),
        ("system_is_for_no_handler", "message.payload.get(\"type\") != \"system\" and message", "message"),
    ),
    *of(
        module("inbound/reading_persons"), tests("supervisor/inbound/test_inbound"),
        ("a_persons_signature_is_verified", "        verify_signature(envelope, owner.pinned)\n", ""),
        ("no_relation_no_grant", "raise Unreadable(Reason.NO_GRANT, \"no relation with this sender\")", "raise Unreadable(Reason.NO_SESSION, \"\")"),
        ("the_content_that_came_in_vain_moves_the_session", "moved = msgspec.structs.replace(arrival, session=write, used", "moved = msgspec.structs.replace(arrival, used"),
    ),
    *of(
        module("inbound/reading_persons"), tests("supervisor/inbound/test_reading"),
        ("known_while_in_quarantine_does_not_count", " and not incoming.is_known:\n            return Known()\n        if await", ":\n            return Known()\n        if await"),
        ("old_only_for_these_reasons", " and error.reason in RENEGOTIABLE", ""),
        ("forged_is_not_old", " and not isinstance(error, ForgedContent):\n                return Old", ":\n                return Old"),
        ("forged_content_offers_nothing", "        if not isinstance(error, ForgedContent):\n            renewal", "        if True:\n            renewal"),
        ("a_ping_is_answered", "elif system_event(opened.payload) == PING:", "elif False:"),
        ("a_lost_session_is_sent_on_no_more", "if system_event(opened.payload) == RENEWED:", "if False:"),
    ),
    *of(
        module("inbound/incoming"), tests("supervisor/inbound/test_held"),
        ("what_has_waited_waits_no_more", "return self.source in (Source.PUSH, Source.POLL)", "return True"),
    ),
    *of(
        module("inbound/forgotten"), tests("supervisor/inbound/test_forgotten"),
        ("what_the_relay_counts_is_heard", "if snapshot.missing <= 0 or source is not Source.POLL:", "if True:"),
        ("a_push_may_have_overtaken_others", "if snapshot.missing <= 0 or source is not Source.POLL:", "if snapshot.missing <= 0:"),
        ("after_a_return_it_is_known", "if time.monotonic() - self._write_count.raised_seconds < AFTER_A_RETURN_SECONDS:", "if False:"),
        ("all_devices_are_meant", "for device in owner.grant.devices\n", "for device in owner.grant.devices[:1]\n"),
    ),
    *of(
        module("inbound/reading_persons"), tests("supervisor/inbound/test_inbound_hostile"),
        ("the_unlisted_device_is_refused", "if admission is not Admission.LISTED:", "if False:"),
    ),
    *of(
        module("inbound/reading_persons"), tests("supervisor/inbound/test_held"),
        ("later_ones_wait_behind_others_of_their_sender", "        if snapshot.sender_waits and incoming.may_wait:\n            return Waits(arrival)\n        wait_seconds", "        wait_seconds"),
        ("who_is_not_told_waits_at_the_relay", "return until_told(incoming, unread) if admission is Admission.UNTOLD else unread", "return unread"),
        ("whose_relation_is_not_told_waits_there", "            return without_the_relay(incoming, Unreadable(Reason.NO_GRANT,", "            return Unread(incoming.arrival(), Unreadable(Reason.NO_GRANT,"),
    ),
    *of(
        module("inbound/inbound"), tests("supervisor/inbound/test_held"),
        ("who_is_not_told_holds_nobody_up_where_too_much_waits", "if outcome is not Intake.NOT_NOW or reading.otherwise is None:", "if True:"),
    ),
    *of(
        module("inbound/readings"), tests("supervisor/inbound/test_held"),
        ("what_was_kept_is_not_old", "return incoming.may_wait and incoming.frame", "return incoming.frame"),
    ),
    *of(
        module("inbound/reading_groups"), tests("supervisor/inbound/test_held"),
        ("a_stale_one_is_refused", "check_not_stale(envelope, await self._healed(envelope, snapshot))", "pass"),
    ),
    *of(
        module("inbound/reading_groups"), tests("supervisor/peers/test_group_bounds"),
        ("times_of_the_future_are_healed", "if snapshot.dropped_ms <= now_ms() + CLOCKS_APART_MS:", "if True:"),
    ),
    *of(
        module("inbound/reading_groups"), tests("supervisor/outbound/test_group_replies"),
        ("group_answers_are_dated_by_us", "msgspec.structs.replace(member, message_ms=now_ms())", "member"),
    ),
    *of(
        module("inbound/inbound"), tests("supervisor/inbound/test_reading"),
        ("what_may_be_an_answer_finds_room", "if outcome in (Intake.FULL, Intake.HELD) and (question", "if False and (question"),
    ),
    *of(
        module("relay/payloads"), tests("supervisor/inbound/test_stops"),
        ("a_stop_is_the_action_cancel", " and inside.get(\"action\") == \"cancel\"", ""),
    ),
    *of(
        module("inbound/reading_groups"), tests("supervisor/peers/test_mentions"),
        ("what_a_group_says_to_others_goes_to_no_handler", "if is_for_a_handler(message) and not is_overheard:", "if is_for_a_handler(message):"),
        ("answers_to_questions_need_no_mention", "if is_overheard and await self._may_answer(message):", "if False:"),
        ("answers_to_cards_need_no_mention", " or is_answer_to_card(message.payload):", ":"),
        ("whoever_wants_all_of_a_group_hears_it", "return not await self._policies.hears_all_in_groups()", "return True"),
        ("a_handler_reads_a_text_without_its_mention", "message = without_mention(message, self._agent_id)", "pass"),
    ),
    *of(
        "bus/steps/questions.py", tests("supervisor/peers/test_mentions"),
        ("an_open_question_is_answered_by_whom_it_asks", "return person in question.who", "return True"),
    ),
    *of(
        module("inbound/readings"), tests("supervisor/outbound/test_hops"),
        ("the_third_hop_goes_to_no_handler", " and message.hop_count < LAST_HOP", ""),
    ),
    *of(
        module("inbound/inbound"), tests("supervisor/inbound/test_inbound"),
        ("a_full_lane_is_polled_for", "self._metrics.frames_dropped.labels(\"lane_full\").inc()\n            self._polls.missed()", "self._metrics.frames_dropped.labels(\"lane_full\").inc()"),
        ("conflicts_are_bounded", "MOST_CONFLICTS = 20", "MOST_CONFLICTS = 10**9"),
        ("a_second_of_one_id_has_a_name", "if outcome is Intake.TAKEN:", "if False:"),
    ),
    *of(
        module("inbound/inbound"), tests("supervisor/inbound/test_reading"),
        ("nothing_is_taken_in_while_paused", "return self._is_paused or (", "return ("),
        ("pushes_wait_for_the_cursor", "(is_push and self.unpolled.must_wait(incoming.frame.conversation_id))", "False"),
        ("moved_meanwhile_is_tried_again", "return snapshot.session_version != arrival.session_version", "return False"),
        ("what_nobody_can_read_is_not_kept_whole", "encoded if error.reason.value in MENDABLE_REASONS else b\"\"", "encoded"),
        ("a_refusal_is_said", "outcome = await self._refuse(incoming, read)", "pass"),
    ),
    *of(
        module("inbound/unpolled"), tests("supervisor/inbound/test_unpolled"),
        ("pushes_wait_beyond_so_many", "and self._counted[conversation_id] >= self._most_unpolled", "and False"),
        ("pushes_do_not_wait_for_a_poll_that_fails", "return self._cursor_moves and", "return"),
        ("a_poll_is_asked_for_in_time", "if self._counted[conversation_id] % self._poll_after == 0:", "if False:"),
        ("what_is_counted_is_bounded", "if len(self._counted) >= self._most_counted and conversation_id not in self._counted:", "if False:"),
    ),
    *of(
        module("inbound/inbound"), tests("supervisor/inbound/test_held"),
        ("what_waits_may_be_told_to", "if outcome is Intake.HELD and incoming.may_wait:", "if outcome is Intake.HELD:"),
    ),
    *of(
        module("inbound/lanes"), tests("supervisor/inbound/test_inbound"),
        ("lanes_are_bounded_in_items", "(queue is None or len(queue) < self._lane_length) and", ""),
    ),
    *of(
        module("inbound/lanes"), tests("supervisor/inbound/test_intake_bounds", "supervisor/inbound/test_inbound", "supervisor/inbound/test_shares"),
        ("lanes_are_bounded_in_bytes", "and self._shares.admits(size, *takers)", ""),
    ),
    *of(
        module("inbound/lanes"), tests("supervisor/inbound/test_lanes"),
        ("a_lane_itself_weighs", "size += LANE_BYTES if queue is None else 0", ""),
        ("what_is_done_is_given_back", "                self._shares.give_back(size, *takers)\n", ""),
    ),
    *of(
        module("inbound/shares"), tests("supervisor/inbound/test_shares", "supervisor/inbound/test_intake_bounds"),
        ("a_share_of_what_is_free", "(self._total_bytes - self.taken_bytes) // SHARE", "self._total_bytes - self.taken_bytes"),
        ("of_each_taker", "return all(", "return any("),
    ),
    *of(
        module("inbound/shares"), tests("supervisor/inbound/test_shares"),
        ("more_than_all_goes_alone", "size = min(size, self._total_bytes)", ""),
        ("first_come_first_served", "if not self._waiting and size <= self._free_bytes:", "if size <= self._free_bytes:"),
        ("cancelled_gives_its_turn_back", "                self.give_back(size)  # the", "                pass  # the"),
        ("cancelled_lets_others_in", "                self._waiting.remove(mine)\n                self._let_in()", "                self._waiting.remove(mine)"),
        ("a_place_is_taken_once", "        if self._taken is None:\n", "        if True:\n"),
    ),
    *of(
        module("peers/retry_triggers"), tests("supervisor/peers/test_retry_triggers", "supervisor/inbound/test_what_is_retried"),
        ("what_is_heard_too_fast_is_looked_for", "            self._has_missed = True\n", "            pass\n"),
        ("changed_keys_mend_signatures", "Reason.NO_SCOPE, Reason.BAD_SIGNATURE)", "Reason.NO_SCOPE)"),
        ("a_session_mends_prekeys", "(Reason.NO_SESSION, Reason.UNKNOWN_PREKEY)", "(Reason.NO_SESSION,)"),
        ("a_session_mends_its_own", "(session_thing(owner_id, session), owner_id)", "(owner_id,)"),
        ("older_versions_wait_by_owner", "(session_thing(owner_id, session), owner_id)", "(session_thing(owner_id, session),)"),
        ("a_group_key_mends_its_group", "RetryTrigger(GROUP_REASONS, (group_id, \"\"))", "RetryTrigger(GROUP_REASONS, (\"\",))"),
    ),
    *of(
        module("outbound/recipients"), tests("supervisor/outbound/test_pins"),
        ("pins_are_of_their_epoch", "known[0] == epoch and", ""),
        ("pins_are_read_again", "and trio.current_time() - known[1] < PIN_SECONDS", ""),
        ("pins_are_bounded", "if len(self._known) > self._most:", "if False:"),
    ),
)  # fmt: skip
