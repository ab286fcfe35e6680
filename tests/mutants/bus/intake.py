"""What is taken in, noted, kept in quarantine, and brought back from there."""

from __future__ import annotations

from tests.mutants.bus.places import BOUNDS, BYTES, FORMER, IDS, INTAKE, JOBS, LETTERS, QUARANTINE, script
from tests.mutants.mutant import of

OF_INTAKE = (
    *of(
        script("accept"), INTAKE,
        ("accept_knows_duplicates", "if id_is_known(known, ARGV[2]) then", "if false then"),
        ("accept_compares_the_session", "if ARGV[7] ~= '' and not is_current(SESSION, ARGV[6]) then", "if false then"),
        ("accept_uses_a_prekey_once", "if ARGV[9] ~= '' and redis.call('HEXISTS', PREKEYS, ARGV[9]) == 0 then", "if false then"),
        ("accept_erases_the_prekey", "redis.call('HDEL', PREKEYS, ARGV[9])", "local _"),
        ("accept_pins_the_kind", "kind ~= ARGV[10] or", ""),
        ("accept_pins_the_person", "or person ~= ARGV[11]", ""),
        ("accept_takes_pushes_in_sequence", "if ARGV[4] == 'push' and seq > next then", "if false then"),
        ("accept_lets_polls_jump", "if ARGV[4] == 'push' and seq > next then", "if seq > next then"),
        ("accept_bounds_what_waits_in_all", ">= tonumber(ARGV[17]) then", "< 0 then"),
        ("accept_bounds_a_mailbox", "is_full = entry and room_in_mailbox() <= 0", "is_full = false"),
        ("accept_parks_where_it_is_wanted", " and policy('full') ~= 'park'", ""),
        ("accept_moves_next", "if seq >= next then put('next', next_after(seq)) end", ""),
    ),
    *of(
        script("accept"), BYTES,
        ("accept_bounds_a_sender_in_bytes", "if (entry or #job > UNCOUNTED_BYTES) and not has_room(", "if false and not has_room("),
        ("accept_lets_nothing_overtake", "if held and not has_waited and", "if false and"),
        ("accept_asks_whose_wait", "and redis.call('HEXISTS', HELD, 's:' .. ARGV[19]) == 1 then", "then"),
        ("accept_refuses_once", "if has_waited or (reply and redis.call('HEXISTS', CONVERSATION, 'own:!refused') == 1) then", "if has_waited then"),
        ("what_has_waited_is_not_refused", "if has_waited or (reply", "if (reply"),
    ),
    *of(
        script("hold"), BYTES,
        ("hold_knows_duplicates", "if id_is_known(redis.call('GET', IDS), ARGV[2]) then", "if false then"),
        ("hold_notes_once", " or redis.call('HEXISTS', NOTES, ARGV[7]) == 1 then", " then"),
        ("hold_only_behind_others", "if ARGV[8] == '0' and not waits then", "if false then"),
        ("hold_is_bounded", "if not is_behind and total >= most then return { 'hold' } end", ""),
        ("hold_counts_as_taken", "take_seq(seq, next)", ""),
    ),
    *of(
        script("unhold"), BYTES,
        ("unhold_counts_once", "if redis.call('HDEL', KEYS[OWN], ARGV[2]) == 0 then return 0 end", "redis.call('HDEL', KEYS[OWN], ARGV[2])"),
        ("unhold_frees_its_conversation", "count_off_note(ARGV[3])\n", ""),
        ("unhold_tells_what_the_relay_lost", "if ARGV[4] == '1' then", "if false then"),
    ),
    *of(
        script("look"), INTAKE,
        ("look_knows_duplicates", "id_is_known(known, ARGV[2]) and 1 or 0", "0"),
        ("look_counts_what_is_missing", "if pins[3] and seq > next then", "if false then"),
        ("look_counts_what_is_ours", " - redis.call('ZCOUNT', TAKEN, next, seq - 1)", ""),
        ("look_counts_the_send_that_waits", " - redis.call('HEXISTS', SENT, 'cmid')\n", "\n"),
    ),
    *of(
        script("advance_cursor"), INTAKE,
        ("cursor_moves_from_where_it_was_read", "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then", "if false then"),
    ),
    *of(
        script("quarantine"), BOUNDS,
        ("quarantine_knows_what_was_taken_in", "if ARGV[2] ~= '' and id_is_known(known, ARGV[2]) then", "if false then"),
        ("quarantine_keeps_another_of_the_same_name", "if digest and digest ~= ARGV[20] then", "if false then"),
        ("quarantine_keeps_once", "if signed and (ARGV[2] == '' or signed == '1' or verified == '1') then", "if false then"),
        ("quarantine_counts_as_taken", "take_seq(seq, next)", ""),
        ("quarantine_is_bounded_in_bytes", "total + bytes <= tonumber(ARGV[23])", "true"),
        ("unsigned_have_a_bound_of_their_own", "held + bytes <= tonumber(ARGV[24])", "true"),
        ("a_sender_has_a_quarter_of_what_is_free", "held < (tonumber(ARGV[23]) - total) / 4", "true"),
        ("nobody_pays_for_what_is_not_signed", "ARGV[2] == '' and 'unsigned' or 's:' .. ARGV[17]", "'s:' .. ARGV[17]"),
        ("what_is_not_whole_keeps_the_cursor", "(bytes == 0 or ARGV[14] == '') and redis.call('GET', CURSOR) or ''", "''"),
    ),
    *of(
        script("requeue"), INTAKE,
        ("requeue_of_what_is_there", "if not signed then return { 'gone' } end", ""),
        ("requeue_knows_duplicates", "signed == '0' and id_is_known(ids, ARGV[2])", "false"),
        ("requeue_remembers_the_id", "if signed == '0' then\n", "if false then\n"),
    ),
    *of(
        script("note_old"), IDS,
        ("old_is_noted_once", "or redis.call('ZSCORE', KEYS[1], member)", ""),
        ("old_is_not_what_is_in_quarantine", "redis.call('EXISTS', KEYS[2]) == 1 or", ""),
    ),
    *of(
        script("release"), LETTERS,
        ("release_frees_what_it_kept", "  release_kept(KEYS[7], KEYS[2])\n", ""),
        ("release_waits_for_nothing_more", "waits_no_longer(KEYS[6], KEYS[2], ARGV[1])", ""),
    ),
    *of(
        script("revive"), (*JOBS, "tests/bus/steps/test_rules_outbound.py"),
        ("revive_waits_for_the_present_reply", "if ARGV[3] == 'sent' and redis.call('HEXISTS', CONVERSATION, 'reply') == 1 then", "if false then"),
        ("revive_remembers_what_was_emitted", "if ((letter.p or '') ~= '' or letter.j) and", "if false and"),
    ),
    *of(
        script("accept"), ("tests/bus/steps/test_rules_outbound.py",),
        ("accept_marks_a_conversation_at_work", "if not (entry or reply) and (job ~= '' or ARGV[13] ~= '') then begin_work() end", ""),
    ),
    *of(
        script("heal_times"), FORMER,
        ("times_of_the_future_become_now", "if tonumber(redis.call('HGET', CONVERSATION, field) or 0) > now then", "if false then"),
    ),
    *of(
        script("hold"), QUARANTINE,
        ("hold_takes_pushes_in_sequence", "if ARGV[4] == 'push' and seq > next then", "if false then"),
    ),
    *of(
        script("hold"), ("tests/bus/steps/test_rules_bounds.py",),
        ("an_open_ended_note_begins_with_the_latest", "if seq >= next and", "if"),
        ("a_sender_has_a_share_of_the_notes", "tonumber(waits or 0) >= (most - total) / 4", "false"),
        ("what_an_open_ended_note_stands_for_is_noted", "(is_behind and seq <= open.last) or", ""),
        ("an_open_ended_note_counts", "open.count + 1", "open.count"),
        ("what_came_before_an_open_ended_note_is_none_of_its_own", "open and seq >= open.first", "open"),
    ),
    *of(
        script("unhold_open"), ("tests/bus/steps/test_rules_bounds.py",),
        ("an_open_ended_note_moves_only_on", "if not open or seq < open.first then", "if not open then"),
        ("an_open_ended_note_is_not_gone_while_more_comes", "if ARGV[4] == '' and seq < open.last then return 0 end", ""),
        ("what_was_seen_is_counted_off", "if ARGV[4] ~= '' then open.count = open.count - 1 end", ""),
        ("an_open_ended_note_moves_its_cursor", "open.first, open.cursor = seq + 1, ARGV[4]", "open.first = seq + 1"),
        ("an_open_ended_note_is_counted_off", "count_off_note(ARGV[2])\n", ""),
        ("what_was_seen_is_no_dead_letter", "if open.count <= 0 then return 1 end", ""),
        ("what_nobody_saw_is_a_dead_letter", "if open.count <= 0 then return 1 end", "if true then return 1 end"),
    ),
    *of(
        script("quarantine"), QUARANTINE,
        ("verified_replaces_unverified", "if signed and (ARGV[2] == '' or signed == '1' or verified == '1') then", "if signed then"),
        ("quarantine_compares_the_session", "if ARGV[2] ~= '' and not is_current(SESSION, ARGV[6]) then", "if false then"),
        ("quarantine_takes_pushes_in_sequence", "if ARGV[4] == 'push' and seq > next then", "if false then"),
        ("quarantine_pins_only_the_signed", "if ARGV[2] ~= '' and ARGV[10] ~= '' then", "if ARGV[10] ~= '' then"),
        ("a_replaced_copy_is_counted_no_more", "  release_kept(KEPT, MESSAGE)\n", ""),
    ),
    *of(
        script("requeue"), QUARANTINE,
        ("requeue_compares_the_session", "if ARGV[6] ~= '' and not is_current(SESSION, ARGV[5]) then", "if false then"),
        ("requeue_uses_a_prekey_once", "if ARGV[8] ~= '' and redis.call('HEXISTS', PREKEYS, ARGV[8]) == 0 then", "if false then"),
        ("requeue_meets_the_pins", "if pins[1] and (pins[1] ~= ARGV[9] or pins[2] ~= ARGV[10]) then", "if false then"),
        ("requeue_frees_what_it_kept", "release_kept(KEPT, MESSAGE)", ""),
        ("requeue_pins", "redis.call('HSETNX', CONVERSATION, 'person', ARGV[10])", ""),
    ),
    *of(
        script("requeue"), FORMER,
        ("requeue_of_older_versions_is_no_duplicate", "signed == '0' and id_is_known(ids, ARGV[2])", "id_is_known(ids, ARGV[2])"),
    ),
    *of(
        script("note_old"), QUARANTINE,
        ("old_notes_are_bounded", "redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[6]))", ""),
    ),
    *of(
        script("list_waiting"), FORMER,
        ("what_is_gone_waits_for_nothing", "  if why then\n", "  why = why or ''\n  if true then\n"),
    ),
    *of(
        script("charge_kept"), FORMER,
        ("charged_once", "if kept or redis", "if redis"),
        ("what_is_gone_is_not_charged", "if kept or redis.call('EXISTS', MESSAGE) == 0 then", "if kept then"),
        ("charged_to_who_signed_it", "is_signed and 's:' .. (from or '') or 'unsigned'", "'unsigned'"),
        ("a_former_signature_counts", "signed == '1' or verified == '1'", "signed == '1'"),
        ("what_can_never_be_read_is_cut", "ARGV[4] == '1' and total", "total"),
        ("charged_within_the_whole_budget", "and total + bytes <= tonumber(ARGV[2])", ""),
        ("charged_within_a_senders_share", "theirs < (tonumber(ARGV[2]) - total) / 4", "true"),
        ("unsigned_is_charged_within_its_own", "theirs + bytes <= tonumber(ARGV[3])", "true"),
        ("what_is_cut_is_gone", "redis.call('HDEL', MESSAGE, 'frame', 'copy', 'plaintext')", "local _"),
        ("what_is_charged_is_counted", "redis.call('HINCRBY', KEPT, 'total', bytes)", ""),
    ),
    *of(
        script("release"), QUARANTINE,
        ("release_tells_only_what_was_there", "if gone == 1 then", "if true then"),
    ),
    *of(
        script("revive"), QUARANTINE,
        ("revive_once", "if not letter then return 'gone' end", "letter = letter or { r = '', why = '' }"),
    ),
)  # fmt: skip
