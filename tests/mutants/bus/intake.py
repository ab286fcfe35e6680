"""What is taken in, noted, kept in quarantine, and brought back from there."""

from __future__ import annotations

from tests.mutants.bus.places import BOUNDS, BYTES, IDS, INTAKE, JOBS, LETTERS, script
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
        ("accept_bounds_a_sender_in_bytes", "if (entry or #ARGV[12] > UNCOUNTED_BYTES) and not has_room(", "if false and not has_room("),
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
        script("revive"), (*JOBS, "tests/bus/test_rules_outbound.py"),
        ("revive_waits_for_the_present_reply", "if ARGV[3] == 'sent' and redis.call('HEXISTS', CONVERSATION, 'reply') == 1 then", "if false then"),
        ("revive_remembers_what_was_emitted", "if (letter.p or '') ~= '' and", "if false and"),
    ),
)  # fmt: skip
