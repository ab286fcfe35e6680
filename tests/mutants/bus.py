"""The guards of bus/: what each script checks before it writes, and what the typed half decides by itself."""

from __future__ import annotations

from tests.mutants.mutant import Part, of

JOBS = ("tests/bus/test_rules_jobs.py", "tests/bus/test_rules_repeats.py", "tests/bus/test_rules.py")
INTAKE = ("tests/bus/test_rules_inbound.py", "tests/bus/test_rules_repeats.py", "tests/bus/test_rules.py")
BYTES = ("tests/bus/test_rules_bounds.py", *INTAKE, "tests/supervisor/test_held.py")
SENDING = (
    "tests/bus/test_rules_outbound.py",
    "tests/bus/test_rules_repeats.py",
    "tests/bus/test_rules_time.py",
    "tests/bus/test_generation.py",
)
TIME = ("tests/bus/test_rules_time.py", "tests/bus/test_generation.py")
OF_REDIS = ("tests/bus/test_rules_of_redis.py", "tests/bus/test_audit.py")
BOUNDS = ("tests/bus/test_rules_bounds.py", "tests/bus/test_rules_inbound.py", "tests/bus/test_rules_repeats.py")
IDS = (
    "tests/bus/test_rules_inbound.py",
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_time.py",
    "tests/bus/test_rules_of_redis.py",
)
PARKING = (
    "tests/bus/test_rules_inbound.py",
    "tests/bus/test_rules_jobs.py",
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_of_redis.py",
)
SLOTS = ("tests/slots/test_slots_in_redis.py", "tests/slots/test_slots.py")
ROTATION = ("tests/keys/test_rotate_store.py",)
GRANTS = ("tests/bus/test_rules_repeats.py", "tests/supervisor/test_owners.py", "tests/keys/test_grants.py")
LETTERS = (
    "tests/bus/test_rules_bounds.py",
    "tests/bus/test_rules_of_redis.py",
    "tests/letters/test_listing.py",
    "tests/bus/test_rules_inbound.py",
)

MINE = "if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then"
REPLY_MINE = "if not lease_is_mine(REPLIES, REPLIES_GROUP, ARGV[2], ARGV[3]) then"


def script(name: str) -> str:
    return f"bus/scripts/{name}.lua"


OF_JOBS = (
    *of(
        script("start"), JOBS,
        ("start_is_fenced", MINE, "if false then"),
        ("start_leaves_what_is_superseded", "if redis.call('SISMEMBER', INTERRUPTED, ARGV[2]) == 1 then", "if false then"),
        ("what_is_handled_together_is_frozen", "redis.call('HSETNX', CONVERSATION, 'frozen', 1) == 1 and", ""),
        ("together_only_where_it_is_wanted", "and ARGV[5] == '1' then", "then"),
        ("start_goes_on_from_what_was_emitted", "recall_places(ARGV[4]) --", "--"),
    ),
    *of(
        script("start"), INTAKE,
        ("together_leaves_the_mailbox_room", "  unpark()\n", ""),
        ("together_counts_no_longer_as_waiting", "redis.call('DECRBY', WAITING, #waiting / 2)", ""),
    ),
    *of(
        script("emit"), JOBS,
        ("emit_is_fenced", MINE, "if false then"),
        ("emit_says_a_place_once", "if redis.call('HEXISTS', EMITTED, ARGV[4]) == 1 then return 'already' end", ""),
        ("emit_remembers_its_place", "redis.call('HSET', EMITTED, ARGV[4], 1)", ""),
    ),
    *of(
        script("emit"), ("tests/bus/test_rules_bounds.py", "tests/supervisor/test_held.py"),
        ("emit_waits_for_room", "if has_reply and not may_say() then", "if false then"),
    ),
    *of(
        script("finish"), JOBS,
        ("finish_is_fenced", MINE, "if false then"),
        ("finish_says_a_place_once", "if not (has_emitted and redis.call('HEXISTS', EMITTED, ARGV[i]) == 1) then", "if true then"),
        ("finish_knows_what_a_dead_letter_had_said", "if places then recall_places(ARGV[4]) end", ""),
    ),
    *of(
        script("finish"), ("tests/bus/test_rules_bounds.py", "tests/supervisor/test_held.py"),
        ("finish_waits_for_room", "if has_reply and #ARGV >= REPLIES_FROM and not may_say() then", "if false then"),
    ),
    *of(
        script("fail"), JOBS,
        ("fail_is_fenced", MINE, "if false then"),
        ("fail_is_bounded_by_deliveries", "or tonumber(job.d) >= tonumber(ARGV[7])", ""),
        ("fail_is_superseded_by_a_later_message", "if redis.call('SISMEMBER', INTERRUPTED, ARGV[2]) == 1 then", "if false then"),
        ("fail_counts_the_attempt", "job.a + 1", "job.a"),
        ("fail_counts_the_delivery", "job.d + 1", "job.d"),
    ),
    *of(
        script("due"), JOBS,
        ("due_waits_for_its_time", "or tonumber(score) > now_ms()", ""),
        ("due_is_started_by_one", "redis.call('HDEL', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s', 'retry_j')", ""),
    ),
    *of(
        script("hand_back"), JOBS,
        ("hand_back_is_fenced", MINE, "if false then"),
        ("hand_back_is_bounded_by_deliveries", "if ARGV[5] == '1' and tonumber(job.d) >= tonumber(ARGV[6]) then", "if false then"),
        ("hand_back_counts_what_had_begun", "job.d + ARGV[5]", "job.d"),
        ("hand_back_keeps_the_strikes", "job.s or 0", "0"),
        ("hand_back_remembers_its_past", ", job.k)", ")"),
    ),
    # Not: whose the entry is. Nobody claims an entry for another consumer, so that it has one from its first delivery to its end.
    *of(
        script("reclaim"), JOBS,
        ("reclaim_leaves_what_is_renewed", "or pending[1][3] < tonumber(ARGV[5])", ""),
        ("reclaim_counts_a_strike", "strikes = strikes + 1", ""),
        ("reclaim_ends_poison", "if strikes >= 2 then", "if false then"),
        ("reclaim_is_bounded_by_deliveries", "elseif tonumber(job.d) >= tonumber(ARGV[6]) then", "elseif false then"),
    ),
    *of(
        script("renew"), ("tests/bus/test_rules_of_redis.py", *JOBS),
        ("renew_only_what_is_held", "if lease_is_mine(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then", "if true then"),
        ("renew_tells_what_is_superseded", "if redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 1 then", "if false then"),
    ),
    *of(
        script("hold_office"), ("tests/supervisor/test_reclaimer.py", "tests/bus/test_rules_of_redis.py"),
        ("office_of_one_supervisor", "if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then", "if false then"),
        ("office_of_the_dead_is_free", "and holder ~= ARGV[3] then", "then"),
    ),
    *of(
        script("forget_consumers"), OF_REDIS,
        ("consumers_with_pending_entries_stay", "consumer.pending == 0 and", ""),
        ("consumers_that_were_heard_stay", "and consumer.idle >= tonumber(ARGV[2])", ""),
    ),
    *of(
        script("audit"), OF_REDIS,
        ("audit_starts_what_was_lost", "if lost or (entry == 'due'", "if (entry == 'due'"),
        ("audit_leaves_what_is_there", "entry ~= 'due' and not fields_of(JOBS, entry)", "entry ~= 'due'"),
    ),
)  # fmt: skip

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
    ),
    *of(
        script("hold"), BYTES,
        ("hold_knows_duplicates", "if id_is_known(redis.call('GET', IDS), ARGV[2]) then", "if false then"),
    ),
    *of(
        script("unhold"), BYTES,
        ("unhold_counts_once", "if redis.call('HDEL', KEYS[OWN], ARGV[2]) == 0 then return 0 end", "redis.call('HDEL', KEYS[OWN], ARGV[2])"),
        ("unhold_frees_its_conversation", "count_off_note(ARGV[3])\n", ""),
    ),
    *of(
        script("advance_cursor"), INTAKE,
        ("cursor_moves_from_where_it_was_read", "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then", "if false then"),
    ),
    *of(
        script("quarantine"), BOUNDS,
        ("quarantine_knows_what_was_taken_in", "if ARGV[2] ~= '' and id_is_known(known, ARGV[2]) then", "if false then"),
        ("quarantine_keeps_another_of_the_same_name", "if digest and digest ~= ARGV[20] then", "if false then"),
    ),
    *of(
        script("requeue"), INTAKE,
        ("requeue_of_what_is_there", "if not signed then return { 'gone' } end", ""),
    ),
    *of(
        script("note_old"), IDS,
        ("old_is_noted_once", "or redis.call('ZSCORE', KEYS[1], member)", ""),
        ("old_is_not_what_is_in_quarantine", "redis.call('EXISTS', KEYS[2]) == 1 or", ""),
    ),
    *of(
        script("release"), LETTERS,
        ("release_frees_what_it_kept", "  release_kept(KEYS[7], KEYS[2])\n", ""),
    ),
)  # fmt: skip

OF_SENDING = (
    *of(
        script("commit"), SENDING,
        ("commit_knows_its_repeat", "if sent[1] == ARGV[5] then", "if false then"),
        # Not: that there is a reply at all; without one the next check says the same.
        ("commit_is_of_the_head", "if reply ~= ARGV[2] then", "if false then"),
        ("commit_is_fenced", "if not is_mine then", "if false then"),
        ("commit_finds_a_redis_that_went_back", "if tonumber(count or 0) < tonumber(ARGV[12]) then", "if false then"),
        ("commit_is_of_the_epoch", "if epoch ~= ARGV[11] then", "if false then"),
        ("commit_compares_the_sessions", "if not is_current(KEYS[i], ARGV[VERSIONS + (i - SESSIONS) * 2]) then", "if false then"),
        ("commit_keeps_the_rate", "if tokens < 1 then", "if false then"),
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
        script("post_before"), SENDING,
        ("before_is_fenced", REPLY_MINE, "if false then"),
    ),
    *of(
        script("resend"), SENDING,
        ("resend_when_it_is_due", "if tonumber(score) > now and not (ARGV[4] == '1' and sent[2] == ARGV[5]) then", "if false then"),
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
    ),
)  # fmt: skip

OF_THE_LIBRARY = (
)  # fmt: skip

OF_THE_STORE = (
)  # fmt: skip

TYPED = (
)  # fmt: skip

FOLDERS = ("crypto", "bus", "workers", "supervisor", "sandbox", "tests", "docs", "deploy", "bench", "examples")
BUS = Part(
    "bus", (*OF_JOBS, *OF_INTAKE, *OF_SENDING, *OF_THE_LIBRARY, *OF_THE_STORE, *TYPED), FOLDERS, ("-k", "not [memory")
)
