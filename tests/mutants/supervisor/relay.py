"""The relay: what it may say, how it is asked, and how long it is waited for."""

from __future__ import annotations

from tests.mutants.mutant import of
from tests.mutants.supervisor.places import module, tests

RELAY = (
    *of(
        module("relay/patience"), tests("supervisor/relay/test_patience"),
        ("a_turn_of_our_own_does_not_count", "scope.deadline += patience.left_seconds", "waited = 0.0"),
        ("turns_are_bounded", "        patience.left_seconds -= waited\n", ""),
    ),
    *of(
        module("inbound/catchup"), tests("supervisor/inbound/test_catchup_progress", "supervisor/inbound/test_catchup_hostile", "supervisor/inbound/test_catchup"),
        ("the_cursors_own_message_is_the_present", "len(page.frames) == 1 and page.last_id == cursor", "False"),
    ),
    *of(
        module("inbound/catchup"), tests("supervisor/inbound/test_catchup_progress"),
        ("a_page_that_leads_nowhere_ends_it", "if cursor in asked or page.last_id in (cursor, *asked):", "if False:"),
        ("where_was_asked_is_nowhere", "in (cursor, *asked)", "in (cursor,)"),
        ("a_cursor_that_comes_back_is_nowhere", "if cursor in asked or ", "if "),
        ("another_ends_its_pages_elsewhere", "                asked.add(cursor)\n", "                asked.update((cursor, page.last_id))\n"),
        ("an_unknown_cursor_falls_back", "if error.status not in UNKNOWN_CURSOR:", "if True:"),
        ("only_an_unknown_cursor_falls_back", "if error.status not in UNKNOWN_CURSOR:", "if False:"),
        ("a_cursor_is_an_id", "if cursor is None or not is_id(cursor):", "if cursor is None:"),
        ("the_pause_grows", "pause = min(2 * pause, MOST_RETRY_SECONDS)", "pass"),
        ("the_pause_is_bounded", "pause = min(2 * pause, MOST_RETRY_SECONDS)", "pause = 2 * pause"),
        ("the_pause_begins_anew", "                pause = holding_pause = self._pauses.poll_retry\n                continue", "                continue"),
        ("a_new_connection_ends_the_pause", "await self._connected.wait()", "await trio.sleep_forever()"),
        ("deaf_is_not_ready", "is_ok = now - self._moved_at < DEAF_AFTER_SECONDS", "is_ok = True"),
    ),
    *of(
        module("inbound/catchup"), tests("supervisor/run/test_shared_work"),
        ("one_reads_pages_at_a_time", "while not await self._lease.hold(TURN_MS):", "while False:"),
        ("another_that_gets_on_is_no_deafness", "                seen, self._moved_at = cursor, trio.current_time()\n", "                seen = cursor\n"),
        ("who_waits_and_sees_nothing_come_is_deaf", "            if cursor != seen:\n                seen,", "            if True:\n                seen,"),
        ("the_turn_is_given_up", "await self._lease.leave()", "pass"),
    ),
    *of(
        module("inbound/quarantine_retrier"), tests("supervisor/run/test_shared_work"),
        ("one_tries_at_a_time", "return await self._lease.hold()", "return True"),
    ),
    *of(
        module("inbound/quarantine_retrier"), ("tests/supervisor/inbound/test_quarantine_retrier.py",),
        ("new_messages_come_before_the_quarantine", "            await caught_up()\n", "            pass\n"),
        ("a_start_waits_a_minute_at_most", "with trio.move_on_after(START_SECONDS):", "if True:"),
    ),
    *of(
        module("inbound/held"), tests("supervisor/run/test_shared_work"),
        ("one_fetches_at_a_time", "if together and await self._lease.hold():", "if together:"),
    ),
    *of(
        module("inbound/catchup"), tests("supervisor/inbound/test_catchup_hostile"),
        ("only_taken_in_moves_the_cursor", "if not await self._take_in(page):", "if not await self._take_in(page) and False:"),
        ("before_the_first_start_is_skipped", "elif _created_ms(frame) < skip_before_ms:", "elif False:"),
        ("later_ones_wait_for_one_that_failed", "                taken.append(False)\n                return\n", "                taken.append(False)\n"),
    ),
    *of(
        module("inbound/catchup"), tests("supervisor/inbound/test_catchup"),
        ("pushed_meanwhile_is_the_present", "if page.last_id in pushed:", "if False:"),
        ("the_relay_says_how_long", "trio.move_on_after(max(pause, at_least))", "trio.move_on_after(pause)"),
        ("no_time_is_as_good_as_new", "        return math.inf\n", "        return 0.0\n"),
    ),
    *of(
        module("relay/connection"), tests("supervisor/relay/test_connection_ends"),
        ("the_backoff_grows", "min(failures, len(BACKOFF_SECONDS)) - 1", "0"),
        ("a_slot_is_given_up_after_failures", "(self.refusal is not None or failures > FAILURES_WITH_SLOT)", "False"),
        ("a_slot_is_kept_for_some_failures", "failures > FAILURES_WITH_SLOT)", "True)"),
        ("a_standby_gets_the_slot_of_a_deaf_one", "(self._was_deaf and self._slot.standby_waits)", "False"),
        ("a_deaf_one_keeps_its_slot_for_nobody", "(self._was_deaf and self._slot.standby_waits)", "self._was_deaf"),
        ("a_dead_connection_is_a_ghost", "        self._move(Move.DOUBT)\n        self._was_deaf = True\n", "        self._was_deaf = True\n"),
        ("who_takes_nothing_is_left", "nursery.start_soon(self._leave_when_stuck, socket)", "pass"),
        ("who_takes_something_is_kept", "                self._sending_since = math.inf\n", "                pass\n"),
        ("without_a_slot_it_leaves", "nursery.start_soon(self._leave_without_slot, socket)", "pass"),
    ),
    *of(
        module("relay/connection_states"), tests("supervisor/relay/test_connection_states"),
        ("in_doubt_nothing_is_begun", "State.DOUBTED: Holds(shown=\"connected\", is_connected=True, may_send=True)", "State.DOUBTED: Holds(shown=\"connected\", is_connected=True, may_send=True, is_trusted=True)"),
        ("a_closing_one_sends_nothing", "State.DRAINING: Holds(shown=\"connected\", is_connected=True)", "State.DRAINING: Holds(shown=\"connected\", is_connected=True, may_send=True)"),
        ("closed_for_good", "Move.LOSE: Transition(State.CLOSED, Told.DISCONNECTED)", "Move.LOSE: Transition(State.DISCONNECTED, Told.DISCONNECTED)"),
        ("a_lost_one_is_not_heard_again", "Move.TRUST: Transition(State.DISCONNECTED)", "Move.TRUST: Transition(State.DISCONNECTED, Told.HEARD)"),
        ("what_cannot_happen_is_an_error", "        raise ImpossibleMove(state, move)\n", "        return Transition(state)\n"),
    ),
    *of(
        module("relay/heartbeat"), tests("supervisor/relay/test_heartbeat"),
        ("silence_is_asked", "        return is_heard\n", "        return True\n"),
        ("company_is_asked_sooner", "if not self._has_company():\n", "if True:\n"),
        ("alone_is_asked_later", "if not self._has_company():\n", "if False:\n"),
        ("acknowledgements_are_evidence", "unanswered + UNANSWERED_SECONDS", "math.inf"),
        ("evidence_is_of_now", "self._unanswered_since if self._sent_at > heard else math.inf", "self._unanswered_since"),
        ("doubt_ends_with_an_answer", "            self._doubt(False)\n", "            pass\n"),
        ("a_ping_has_its_time", "return max(gone_at, asked_at + PING_ANSWER_SECONDS)", "return gone_at"),
        ("what_is_under_way_goes_before", "PING_ANSWER_SECONDS + under_way", "PING_ANSWER_SECONDS"),
        ("no_later_than_alone", "min(gone_at, asked_at + PING_ANSWER_SECONDS + under_way)", "asked_at + PING_ANSWER_SECONDS + under_way"),
    ),
    *of(
        module("relay/connection"), tests("supervisor/relay/test_connection_patience"),
        ("brief_ones_count", "brief = 0 if is_steady else brief + 1", "brief = 0"),
        ("a_steady_one_forgives", "brief = 0 if is_steady else brief + 1", "brief = brief + 1"),
    ),
    *of(
        module("relay/connection"), tests("supervisor/relay/test_connection"),
        ("the_limit_is_tried_soon", "return LIMIT_RETRY_SECONDS if self.refusal == \"connection_limit\" else REFUSED_RETRY_SECONDS", "return REFUSED_RETRY_SECONDS"),
        ("a_refusal_has_its_own_pause", "if self.state is State.REFUSED:", "if False:"),
        ("auth_has_its_time", "with trio.fail_after(AUTH_SECONDS):", "with trio.fail_after(10**9):"),
    ),
    *of(
        module("relay/turnstile"), tests("supervisor/relay/test_turnstile"),
        ("the_lowest_rank_first", "mine = (rank, next(self._numbers), trio.Event())", "mine = (0, next(self._numbers), trio.Event())"),
        ("who_was_cancelled_passes_on", "                self._pass_on()  # the", "                pass  # the"),
        ("one_at_a_time", "            self._is_taken = True\n", ""),
    ),
    *of(
        module("relay/wire_guard"), tests("supervisor/relay/test_wire_guard"),
        ("the_upgrade_is_bounded", "if self._upgrade_bytes > UPGRADE_BYTES:", "if False:"),
        ("a_message_is_bounded", "if self._message_bytes > self._most_message_bytes:", "if False:"),
        ("fragments_are_bounded", "if self._fragments > FREE_FRAGMENTS + self._message_bytes // FRAGMENT_BYTES:", "if False:"),
        ("control_frames_are_bounded", "if self._controls < 0:", "if False:"),
        ("control_frames_are_refilled", "(now - self._controls_at) * CONTROL_FRAMES_PER_SECOND", "0"),
        ("a_refill_is_bounded", "min(refilled, CONTROL_FRAMES) - 1", "refilled - 1"),
        ("a_dribble_is_not_hearing", "if not self._left or self._progress >= PROGRESS_BYTES:", "if True:"),
        ("what_is_unread_is_counted", "self.unread_bytes += self._message_bytes", "pass"),
    ),
    *of(
        module("relay/rest"), tests("supervisor/relay/test_answers", "supervisor/relay/test_rest_bounds", "supervisor/relay/test_rest_hostile", "supervisor/relay/test_rest"),
        ("prekeys_told_are_bounded", "min(max(left, 0), MOST_PREKEYS_TOLD)", "max(left, 0)"),
    ),
    *of(
        module("relay/rest"), tests("supervisor/relay/test_answers"),
        ("prekeys_told_are_not_negative", "min(max(left, 0), MOST_PREKEYS_TOLD)", "min(left, MOST_PREKEYS_TOLD)"),
        ("devices_without_an_id_are_left_out", "for entry in listed if id_in(entry, \"device_id\")]", "for entry in listed]"),
    ),
    *of(
        module("relay/rest"), tests("supervisor/relay/test_rest_bounds"),
        ("a_page_is_bounded", "if taken_bytes >= self.page_bytes or len(frames) >= limit:", "if len(frames) >= limit:"),
        ("a_page_has_so_many", "if taken_bytes >= self.page_bytes or len(frames) >= limit:", "if taken_bytes >= self.page_bytes:"),
        ("after_a_large_page_fewer_are_asked_for", "max(1, len(frames)) if taken_bytes >= self.page_bytes else", ""),
    ),
    *of(
        module("relay/rest"), tests("supervisor/relay/test_rest_hostile"),
        ("devices_are_bounded", "[entry async for entry in entries][:MOST_DEVICES]", "[entry async for entry in entries]"),
        ("retry_after_is_bounded", "float(min(value, MOST_RETRY_AFTER_SECONDS))", "float(value)"),
        ("retry_after_is_a_number", "or value != value or value <= 0", "or value <= 0"),
        ("an_answer_has_its_time", "with trio.fail_after(self._timeout_seconds) as within:", "with trio.fail_after(10**9) as within:"),
        ("a_list_that_does_not_end_is_none", "if not listing.is_whole:", "if False:"),
    ),
    *of(
        module("relay/rest"), tests("supervisor/outbound/test_outbound_devices"),
        ("a_proxys_page_is_no_refusal", "and self.code != NOT_JSON", ""),
    ),
    *of(
        module("relay/rest"), tests("supervisor/relay/test_rest"),
        ("too_many_requests_is_not_final", "and self.status not in (408, 429)", ""),
    ),
    *of(
        module("relay/bodies"), tests("supervisor/relay/test_rest_bounds", "supervisor/relay/test_rest_hostile", "supervisor/relay/test_rest"),
        ("bodies_are_bounded", "if max(came, given) > most_bytes:", "if False:"),
        ("bodies_are_bounded_as_they_come", "if max(came, given) > most_bytes:", "if given > most_bytes:"),
    ),
    *of(
        module("relay/bodies"), tests("supervisor/relay/test_rest_bounds"),
        ("an_encoding_that_was_not_asked_for", "if named not in ([\"gzip\"], [\"x-gzip\"]):", "if False:"),
    ),
    *of(
        module("relay/related"), tests("supervisor/relay/test_related"),
        ("keys_are_bounded", "key if key is not None and len(key) <= MOST_KEY_CHARACTERS else None", "key"),
        ("scopes_are_bounded", "relation.scopes[:MOST_SCOPES]", "relation.scopes"),
        ("a_scope_is_bounded", "scope[:MOST_SCOPE_CHARACTERS]", "scope"),
    ),
    *of(
        module("settings/way"), tests("supervisor/settings/test_way"),
        ("loopback_goes_directly", "if is_loopback(host):", "if False:"),
        ("exempt_goes_directly", "if is_exempt(host, port, next(filter(None, map(reader.environ.get, NO_PROXY)), \"\")):", "if False:"),
        ("exempt_with_its_port", "if int(found[2]) != port:", "if False:"),
        ("exempt_below_a_name", "or host.endswith(f\".{name}\")", ""),
        ("the_setting_wins", "if isinstance(given, Proxy) or reader.is_given(PROXY):", "if False:"),
    ),
)  # fmt: skip
