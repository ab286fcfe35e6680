"""What goes out: committed, confirmed, sent again, given up; and the epoch that it is of."""

from __future__ import annotations

from tests.mutants.bus.places import SENDING, TIME, script
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
        ("commit_ends_a_stream_once", "if stream ~= '' then redis.call('HDEL', STREAMS, CONVERSATION_ID) end", ""),
    ),
    *of(
        script("commit"), ("tests/supervisor/test_recipients.py", "tests/supervisor/test_outbound.py"),
        ("commit_compares_the_owner", "if ARGV[14] ~= '' and not is_current(OWNER, ARGV[14]) then", "if false then"),
    ),
    *of(
        script("confirm"), SENDING,
        ("confirm_is_of_what_was_sent", "if sent[1] ~= ARGV[2] then", "if false then"),
        ("confirm_takes_its_seq", "  take_seq(seq, next)\n", ""),
        ("confirm_remembers_a_seq_ahead", "  redis.call('ZADD', TAKEN, seq, seq)\n", ""),
    ),
    *of(
        script("confirm"), ("tests/bus/test_rules_bounds.py", *SENDING),
        ("what_was_said_may_be_said_again", "is_said(place)", ""),
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
        ("resend_when_it_is_due", "if tonumber(score) > now and not (ARGV[4] == '1' and sent[2] == ARGV[5]) then", "if false then"),
        ("resend_at_once_only_what_the_dead_held", "and sent[2] == ARGV[5]", ""),
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
        script("raise_epoch"), TIME,
        ("epoch_is_raised_once", "if epoch <= tonumber(ARGV[1]) then", "if true then"),
        ("the_count_goes_beyond_what_was_seen", ", tonumber(ARGV[2])) + 1", ", 0) + 1"),
    ),
)  # fmt: skip
