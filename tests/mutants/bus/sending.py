"""What goes out: committed, confirmed, sent again, given up; and the epoch that it is of."""

from __future__ import annotations

from tests.mutants.bus.places import OUTSIDE, SENDING, TIME, script
from tests.mutants.mutant import of

REPLY_MINE = "if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then"

OF_SENDING = (
    *of(
        script("commit"), SENDING,
        ("commit_knows_its_repeat", "if sent[1] == ARGV[5] then", "if false then"),
        ("commit_is_of_the_head", "if reply ~= ARGV[2] then", "if false then"),
        ("commit_is_fenced", "if not is_mine then", "if false then"),
        ("commit_finds_a_redis_that_went_back", "if tonumber(count or 0) < tonumber(ARGV[12]) then", "if false then"),
        ("commit_is_of_the_epoch", "if epoch ~= ARGV[11] then", "if false then"),
        ("commit_compares_the_sessions", "if not is_current(KEYS[i], ARGV[VERSIONS + (i - SESSIONS) * 2]) then", "if false then"),
        ("commit_keeps_the_rate", "if tokens < 1 then", "if false then"),
        ("a_clock_set_back_is_a_full_bucket", "passed < 0 and burst or", ""),
        ("commit_takes_the_head", "redis.call('LTRIM', OUT_BOX, '1', '-1')", ""),
        ("commit_names_the_stream_before", "return { 'committed', write_count, stream, commits }\nend", "return { 'committed', write_count, '', commits }\nend"),
        ("commit_ends_a_stream_once", "if stream ~= '' then redis.call('HDEL', STREAMS, CONVERSATION_ID) end", ""),
    ),
    *of(
        script("commit"), ("tests/supervisor/outbound/test_recipients.py", "tests/supervisor/outbound/test_outbound.py"),
        ("commit_compares_the_owner", "if ARGV[14] ~= '' and not is_current(OWNER, ARGV[14]) then", "if false then"),
    ),
    *of(
        script("send"), OUTSIDE,
        ("a_key_counts_once", "    if said then return", "    if false then return"),
        ("a_key_is_of_what_was_said", "return (ARGV[5] == '' or said == ARGV[5]) and 'already' or 'key_used'", "return 'already'"),
        ("a_key_is_remembered", "  redis.call('HSET', KEYS[OWN + 2], ARGV[4], ARGV[5])\n", ""),
        ("a_key_is_forgotten", "  redis.call('EXPIRE', KEYS[OWN + 2], ARGV[8])\n", ""),
        ("it_goes_where_somebody_wrote", "if redis.call('HEXISTS', CONVERSATION, 'kind') == 0 then", "if false then"),
        ("keys_have_a_bound", "if has_key and most and", "if false and"),
        ("the_line_has_a_bound", "elseif most and tonumber(waits or 0)", "elseif false and tonumber(waits or 0)"),
        ("a_card_from_outside_is_kept", "if ARGV[13] ~= '' then keep_card(", "if false then keep_card("),
        ("jobs_from_outside_have_a_bound", "if redis.call('ZCARD', PLACED) >= tonumber(ARGV[11]) or", "if"),
        ("one_of_the_line_at_a_time", "is_next = ARGV[11] ~= '', not takes_turn or redis.call('EXISTS', LINE, TURN) == 0", "is_next = ARGV[11] ~= '', true"),
        ("an_act_waits_for_no_turn", "not takes_turn or redis.call(", "redis.call("),
        ("an_act_has_no_turn", "if takes_turn then redis.call('SET', TURN", "if true then redis.call('SET', TURN"),
        ("a_key_that_is_looked_at_is_not_used", "if has_key and ARGV[5] ~= '' then", "if has_key then"),
        ("what_left_the_line_is_not_in_it", "if redis.call('LREM', LINE, '1', ARGV[16]) == 0 then return 'changed' end", ""),
        ("what_is_taken_back_is_counted_off", "take_off_all('outside', size_of(ARGV[16]))", ""),
        ("it_has_the_turn", "redis.call('SET', TURN, ARGV[3], 'PX', ARGV[9])", ""),
        ("the_line_is_counted", "  redis.call('HINCRBY', LOAD, 'outside', size_of(ARGV[2]))\n", ""),
    ),
    *of(
        script("let_out"), OUTSIDE,
        ("who_has_the_turn_keeps_it", "if redis.call('EXISTS', TURN) == 1 then return 'taken' end", ""),
        ("who_leaves_the_line_is_counted_off", "take_off_all('outside', size_of(ARGV[2]))", ""),
        ("who_leaves_the_line_has_the_turn", "redis.call('SET', TURN, ARGV[3], 'PX', ARGV[4])", ""),
        ("the_first_leaves_the_line", "if redis.call('LINDEX', LINE, '0') ~= ARGV[2] then return 'changed' end", ""),
    ),
    *of(
        script("commit"), OUTSIDE,
        ("commit_ends_the_turn", "leave_turn(KEYS[LAST_SESSION + 1], job)", ""),
    ),
    *of(
        script("drop_reply"), OUTSIDE,
        ("drop_ends_the_turn", "leave_turn(KEYS[OWN], job)", ""),
    ),
    *of(
        "bus/scripts/_library.lua", OUTSIDE,
        ("a_turn_is_left_by_who_has_it", "if turn and redis.call('GET', turn) == id then", "if turn then"),
    ),
    *of(
        script("confirm"), SENDING,
        ("confirm_is_of_what_was_sent", "if sent[1] ~= ARGV[2] then", "if false then"),
        ("confirm_takes_its_seq", "  take_seq(seq, next)\n", ""),
        ("confirm_remembers_a_seq_ahead", "  redis.call('ZADD', TAKEN, seq, seq)\n", ""),
    ),
    *of(
        script("confirm"), ("tests/bus/steps/test_rules_bounds.py", *SENDING),
        ("what_was_said_may_be_said_again", "is_said(place)", ""),
    ),
    *of(
        script("acted"), ("tests/bus/steps/test_acts.py",),
        ("an_act_is_ended_once", "if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then return 'done_before' end\n", ""),
        ("an_act_is_ended_by_who_has_it", "if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then return 'done_before' end\n", ""),
        ("an_act_leaves_the_out_box", "redis.call('LTRIM', OUT_BOX, '1', '-1')\n", ""),
        ("what_stands_behind_an_act_is_sent", "end_reply(redis.call('HGET', CONVERSATION, 'entry'))", "redis.call('HDEL', CONVERSATION, 'reply')"),
    ),
    *of(
        script("drop_reply"), SENDING,
        ("drop_is_fenced", REPLY_MINE, "if false then"),
        ("drop_buries", "if record then bury(", "if false then bury("),
    ),
    *of(
        script("post_before"), SENDING,
        ("before_is_fenced", REPLY_MINE, "if false then"),
    ),
    *of(
        script("resend"), SENDING,
        ("resend_when_it_is_due", "if tonumber(score) > now and sent[2] ~= ARGV[4] then", "if false then"),
        ("resend_of_the_dead_at_once", "tonumber(score) > now and sent[2] ~= ARGV[4]", "tonumber(score) > now"),
        ("resend_at_once_only_what_the_dead_held", "and sent[2] ~= ARGV[4] then", "and ARGV[4] == '' then"),
        ("resend_has_a_next_time", "now + tonumber(ARGV[3])", "now"),
        ("resend_has_a_new_holder", "redis.call('HSET', KEYS[2], 'holder', ARGV[2])", ""),
    ),
    *of(
        script("postpone"), SENDING,
        ("postpone_what_was_sent_only", "if redis.call('HGET', KEYS[2], 'cmid') ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("end_stream"), SENDING,
        ("a_stream_is_ended_by_one", "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("prove_continuity"), TIME,
        ("epoch_is_raised_once", "if server ~= ARGV[5] or epoch <= tonumber(ARGV[1]) then", "if true then"),
        ("the_count_goes_beyond_what_was_seen", ", tonumber(ARGV[2])) + 1", ", 0) + 1"),
        ("a_lower_count_went_back", " or count < tonumber(ARGV[2])", ""),
        ("a_lower_epoch_went_back", " or epoch < tonumber(ARGV[1])", ""),
        ("continuity_by_commits_heard", " or commits < tonumber(ARGV[6])", ""),
        ("continuity_by_commits_witnessed", "if commits < tonumber(ARGV[7]) then found = 'older' end", ""),
        ("continuity_is_proven", "found = server and 'other' or 'unproven'", "found = 'same'"),
        ("what_was_witnessed_counts_after_a_raise", ", tonumber(ARGV[7]))", ")"),
    ),
    *of(
        script("commit"), ("tests/bus/steps/test_rules_outbound.py",),
        ("the_bucket_has_a_rim", "math.min(burst, tonumber(bucket[1] or burst) + passed * rate / 1000)", "tonumber(bucket[1] or burst) + passed * rate / 1000"),
        ("what_needs_no_ack_needs_no_token", "if rate > 0 and ARGV[6] ~= '' then", "if rate > 0 then"),
    ),
    *of(
        script("confirm"), ("tests/bus/steps/test_rules_outbound.py",),
        ("confirm_rests_only_without_a_job", "end_reply(entry)", "end_reply()"),
    ),
    *of(
        script("drop_reply"), ("tests/bus/steps/test_rules_outbound.py",),
        ("drop_the_head_only", "if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then", "if false then"),
        ("drop_what_was_sent_only", "if redis.call('HGET', SENT, 'cmid') ~= ARGV[4] then", "if false then"),
        ("drop_rests_only_without_a_job", "end_reply(redis.call('HGET', CONVERSATION, 'entry'))", "end_reply()"),
    ),
    *of(
        script("post"), ("tests/bus/steps/test_rules_outbound.py",),
        ("post_marks_a_conversation_at_work", "if is_idle() then begin_work() end", ""),
    ),
    *of(
        script("post_before"), ("tests/bus/steps/test_rules_outbound.py",),
        ("before_the_head_only", "if redis.call('HGET', CONVERSATION, 'reply') ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("prove_continuity"), ("tests/bus/steps/test_write_count.py",),
        ("epoch_is_raised_for_one_that_knows_none", "server ~= ARGV[5] or epoch <=", "epoch <="),
        ("epoch_goes_beyond_what_is_there", "math.max(epoch, tonumber(ARGV[1])) + 1", "tonumber(ARGV[1]) + 1"),
        ("epoch_replaces_the_signed_prekey", "redis.call('HSET', KEYS[4], 'rotate_through', redis.call('HINCRBY', KEYS[4], 'signed', ARGV[3]))", ""),
        ("epoch_leaps_over_one_time_prekeys", "redis.call('HINCRBY', KEYS[4], 'one_time', ARGV[4])", ""),
    ),
)  # fmt: skip
