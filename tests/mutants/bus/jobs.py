"""What is done with a job: taken, answered in places, finished, failed, handed back, reclaimed, found lost."""

from __future__ import annotations

from tests.mutants.bus.places import CARDS, INTAKE, JOBS, KEPT, OF_REDIS, PLACED, THREADS, script
from tests.mutants.mutant import of

MINE = "if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then"

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
        ("together_counts_no_longer_as_waiting", "redis.call('DECRBY', WAITING, taken)", ""),
    ),
    *of(
        script("emit"), JOBS,
        ("emit_is_fenced", MINE, "if false then"),
        ("emit_says_a_place_once", "if redis.call('HEXISTS', EMITTED, ARGV[4]) == 1 then return 'already' end", ""),
        ("emit_remembers_its_place", "redis.call('HSET', EMITTED, ARGV[4], 1)", ""),
    ),
    *of(
        script("emit"), ("tests/bus/steps/test_rules_bounds.py", "tests/supervisor/inbound/test_held.py"),
        ("emit_waits_for_room", "if has_reply and not may_say() then", "if false then"),
    ),
    *of(
        script("settle"), CARDS,
        ("what_is_forgotten_has_no_cards", "redis.call('DEL', STATE, CARDS)", "redis.call('DEL', STATE)"),
    ),
    *of(
        script("_library"), CARDS,
        ("who_the_job_is_not_for_stops_nothing", "if not entry or part_of(record_under_way(entry), 8) ~= sender then", "if not entry then"),
        ("a_card_of_another_job_stops_nothing", "if one == card then return true end", "if true then return true end"),
    ),
    *of(
        script("accept"), CARDS,
        ("what_stops_a_job_is_none", "local job = is_stop and '' or ARGV[12]", "local job = ARGV[12]"),
        ("a_stop_is_flagged", "if is_stop then flag_stop(entry, ARGV[22]) end", ""),
    ),
    *of(
        script("accept"), ("tests/supervisor/inbound/test_stops.py",),
        ("a_stop_is_told_at_once", "if is_stop then flag_stop(entry, ARGV[22]) end", "if is_stop then redis.call('HSET', CONVERSATION, 'stop', ARGV[22]) end"),
    ),
    *of(
        script("_library"), THREADS,
        ("let_in_is_what_may_answer", "if redis.call('HEXISTS', waits, id) == 0 or", "if"),
        ("let_in_is_one_for_each_question", "or redis.call('HEXISTS', waits, 'let:' .. id) == 1 then", "then"),
        ("let_in_is_what_there_is_room_for", "+ size_of(record) <= most", "< 2 ^ 53"),
        ("a_question_of_this_name_lets_in_anew", ", 'bound:' .. id, 'let:' .. id)", ", 'bound:' .. id)"),
    ),
    *of(
        script("emit_to"), ("tests/bus/steps/test_emit_to.py",),
        ("elsewhere_is_fenced", MINE, "if false then"),
        ("elsewhere_says_a_place_once", "if redis.call('HEXISTS', PLACES, ARGV[4]) == 1 then return 'already' end", ""),
        ("elsewhere_remembers_its_place", "redis.call('HSET', PLACES, ARGV[4], ARGV[7] or 1)", ""),
        ("a_card_elsewhere_is_known_there", "if ARGV[7] then keep_card(CARDS, ARGV[7], new_card(ARGV[9], ARGV[4], ARGV[8])) end", ""),
        ("elsewhere_is_a_conversation_that_is_there", "if not kind then return 'unknown' end", ""),
        ("elsewhere_waits_for_room", "if reply and not may_say() then", "if false then"),
        ("elsewhere_is_at_work_then", "if not reply and not entry then begin_work() end", ""),
    ),
    *of(
        script("emit_card"), CARDS,
        ("a_card_is_fenced", MINE, "if false then"),
        ("a_card_is_shown_once", "if emitted then return { 'already', emitted } end", ""),
        ("a_card_remembers_its_place", "redis.call('HSET', EMITTED, ARGV[4], ARGV[7])", ""),
        ("an_update_of_an_unknown_card_is_refused", "if not card then return { 'unknown' } end", "card = card or '0'"),
        ("an_update_is_based_on_the_last_revision", "if revision ~= ARGV[9] then", "if false then"),
        ("a_card_has_at_most_a_hundred_updates", "if tonumber(revision) >= MOST_UPDATES then", "if false then"),
        ("an_update_counts", "string.format('%d', revision + 1)", "revision"),
        ("a_card_waits_for_room", "if has_reply and not may_say() then", "if false then"),
    ),
    *of(
        script("finish"), JOBS,
        ("finish_is_fenced", MINE, "if false then"),
        ("finish_says_a_place_once", "if not (has_emitted and redis.call('HEXISTS', EMITTED, ARGV[i]) == 1) then", "if true then"),
        ("finish_knows_what_a_dead_letter_had_said", "  recall_places(ARGV[4])\n", ""),
    ),
    *of(
        script("finish"), ("tests/bus/steps/test_rules_bounds.py", "tests/supervisor/inbound/test_held.py"),
        ("finish_waits_for_room", "if has_reply and #ARGV >= REPLIES_FROM and not may_say() then", "if false then"),
    ),
    *of(
        script("fail"), JOBS,
        ("fail_is_fenced", MINE, "if false then"),
        ("fail_is_bounded_by_deliveries", "or not has_waited and deliveries_that_count(job) >= tonumber(ARGV[7])", ""),
        ("fail_is_superseded_by_a_later_message", "if redis.call('SISMEMBER', INTERRUPTED, ARGV[2]) == 1 then", "if false then"),
        ("fail_counts_the_attempt", "(has_waited and 0 or 1)", "0"),
        ("what_has_waited_is_no_attempt", "(has_waited and 0 or 1)", "1"),
        ("what_has_waited_is_not_used_up", "if has_waited then redis.call('HINCRBY', CONVERSATION, 'waited', 1) end\n", ""),
        ("fail_counts_the_delivery", "job.d + 1", "job.d"),
        ("fail_keeps_the_strikes", "'retry_s', job.s or 0", "'retry_s', 0"),
        ("fail_waits_before_it_runs_again", "now_ms() + tonumber(ARGV[5])", "now_ms()"),
    ),
    *of(
        script("finish"), THREADS,
        ("finish_takes_off_what_a_dead_letter_had_noted", "load = nil --", "--"),
    ),
    *of(
        script("note"), THREADS,
        ("note_is_fenced", MINE, "if false then"),
        ("note_twice_is_the_same", "if before == ARGV[5] then return 'noted' end", ""),
        ("note_begins_once", "if before and ARGV[8] == '1' then return 'already' end", ""),
        ("note_takes_the_place_of_the_one_before", "- (before and size_of(before) or 0)", ""),
        ("a_journal_has_a_bound", "if had + more + tonumber(ARGV[6]) > tonumber(ARGV[7]) then return 'full' end", ""),
        ("a_journal_keeps_room_for_what_has_begun", "+ tonumber(ARGV[6]) >", ">"),
        ("a_journal_is_counted", "count_journal(more)\n", ""),
    ),
    *of(
        script("note"), KEPT,
        ("a_change_at_once_is_refused_as_another_is", "if why then return why end", ""),
        ("a_change_at_once_is_written_with_its_entry", "if ARGV[9] then put_in_store(KEYS[OWN], ARGV[9], ARGV[11]) end", ""),
        ("a_change_that_was_noted_is_not_made_twice", "if before and ARGV[8] == '1' then return 'already' end", ""),
    ),
    *of(
        script("start"), THREADS,
        ("a_command_has_no_company", "and stands_apart(job.r) == '' then", "then"),
        ("a_command_is_nobodys_company", "if stands_apart(record) ~= '' or", "if"),
        ("who_is_asked_is_nobodys_company", "or is_asked[part_of(record, 8)] then", "then"),
    ),
    *of(
        script("_library"), THREADS,
        ("an_answer_interrupts_nothing", "if stands_apart(record) == 'answer' or", "if"),
        ("an_answer_is_interrupted_by_nothing", "or stands_apart(record_under_way(entry)) == 'answer' then", "then"),
        ("an_answer_that_begins_is_interrupted_by_nothing", "'interrupt' and stands_apart(record) ~= 'answer' and", "'interrupt' and"),
        ("an_answer_that_waits_interrupts_nothing", "if stands_apart(record) ~= 'answer' then return true end", "if true then return true end"),
    ),
    *of(
        "bus/records/reply_ids.py", ("tests/supervisor/relay/test_payloads.py",),
        ("a_place_has_a_reply_of_its_own", "f\"{job_id}\\x00{place}\"", "f\"{job_id}\""),
    ),
    *of(
        "bus/records/presence.py", ("tests/bus/steps/test_versions_beside.py",),
        ("other_code_is_another_version", "(self.version, self.handler, self.code) !=", "(self.version, self.handler, other.code) !="),
    ),
    *of(
        script("bind_wait"), THREADS,
        ("bind_wait_is_fenced", MINE, "if false then"),
        ("bind_wait_of_an_open_one", "if redis.call('HEXISTS', waits, ARGV[5]) == 0 then return 'gone' end\n", ""),
        ("bind_wait_to_one_job", "if bound and bound ~= ARGV[4] then return 'taken' end\n", ""),
        ("what_answers_knows_it", "redis.call('HSET', EMITTED, '!bound', 1)\n", ""),
        ("what_answers_is_not_interrupted", "redis.call('SREM', INTERRUPTED, ARGV[2])\n", ""),
        ("what_answers_is_not_interrupted_later", "redis.call('HSET', CONVERSATION, 'seq', AFTER_ALL)\n", ""),
    ),
    *of(
        script("settle"), THREADS,
        ("settle_is_fenced", MINE, "if false then"),
        ("settle_says_a_place_once", "if redis.call('HEXISTS', EMITTED, ARGV[i]) == 0 then", "if true then"),
        ("forgotten_is_each_wait_once", "if not string.find(field, ':', 1, true) then drop_wait", "if true then drop_wait"),
        ("a_wait_that_goes_in_the_same_step_makes_room", "more_waits.bytes = more_waits.bytes - size_of_wait(WAITS, id)", ""),
        ("settle_knows_what_a_dead_letter_had_said", "  recall_places(ARGV[4])\n", ""),
    ),
    *of(
        script("settle"), KEPT,
        ("forgotten_is_the_state_too", "redis.call('DEL', STATE, CARDS)", "redis.call('DEL', CARDS)"),
        ("forgotten_are_the_waits_too", "then drop_wait(WAITS, field) end", "then end"),
    ),
    *of(
        script("settle"), ("tests/bus/steps/test_rules_bounds.py",),
        ("settle_waits_for_room", "if has_reply and ARGV[9] ~= '0' and not may_say() then", "if false then"),
    ),
    *of(
        script("due"), JOBS,
        ("due_waits_for_its_time", "or tonumber(score) > now_ms()", ""),
        ("due_is_started_by_one", "redis.call('HDEL', CONVERSATION, 'retry', 'retry_a', 'retry_d', 'retry_s', 'retry_j')", ""),
    ),
    *of(
        script("hand_back"), JOBS,
        ("hand_back_is_fenced", MINE, "if false then"),
        ("hand_back_is_bounded_by_deliveries", "if ARGV[5] == '1' and deliveries_that_count(job) >= tonumber(ARGV[6]) then", "if false then"),
        ("hand_back_counts_what_had_begun", "job.d + ARGV[5]", "job.d"),
        ("hand_back_keeps_the_strikes", "job.s or 0", "0"),
        ("hand_back_remembers_its_past", ", job.k)", ")"),
    ),
    *of(
        script("reclaim"), JOBS,
        ("reclaim_leaves_what_is_renewed", "or pending[1][3] < tonumber(ARGV[5])", ""),
        ("reclaim_counts_a_strike", "strikes = strikes + 1", ""),
        ("reclaim_strikes_only_what_had_begun", "if ARGV[7] == '1' and began then", "if ARGV[7] == '1' then"),
        ("reclaim_strikes_only_a_death", "if ARGV[7] == '1' and began then", "if began then"),
        ("reclaim_ends_poison", "if strikes >= 2 then", "if false then"),
        ("reclaim_forgives_the_first_strike", "if strikes >= 2 then", "if strikes >= 1 then"),
        ("reclaim_is_bounded_by_deliveries", "elseif deliveries_that_count(job) >= tonumber(ARGV[6]) then", "elseif false then"),
        ("reclaim_ends_what_took_too_long", "elseif ARGV[8] ~= '' then", "elseif false then"),
        ("reclaim_counts_the_delivery", "job.d + 1", "job.d"),
        ("reclaim_stays_superseded", "if redis.call('SREM', INTERRUPTED, ARGV[2]) == 1 then", "if false then"),
    ),
    *of(
        script("renew"), ("tests/bus/steps/test_rules_of_redis.py", *JOBS),
        ("renew_only_what_is_held", "if lease_is_mine(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then", "if true then"),
        ("renew_tells_what_is_superseded", "if redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 1 then", "if false then"),
    ),
    *of(
        script("hold_work_lease"), ("tests/supervisor/recovery/test_reclaimer.py", "tests/bus/steps/test_rules_of_redis.py"),
        ("work_lease_of_one_supervisor", "if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then", "if false then"),
        ("a_work_lease_outlives_nobody_when_redis_clock_goes_back", "holder_of(KEYS[1], ARGV[2])", "redis.call('GET', KEYS[1])"),
        ("work_lease_of_the_dead_is_free", "and holder ~= ARGV[3] then", "then"),
    ),
    *of(
        script("leave_work_lease"), ("tests/bus/steps/test_rules_jobs.py",),
        ("work_lease_is_left_by_its_holder", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", ""),
    ),
    *of(
        "bus/steps/work_lease.py", ("tests/supervisor/recovery/test_reclaimer.py", "tests/supervisor/run/test_shared_work.py"),
        ("the_work_lease_of_the_living_is_theirs", "if other is None or not self._knows_dead(other.decode()):", "if other is None:"),
        ("the_work_lease_of_the_dead_is_taken", "if other is None or not self._knows_dead(other.decode()):", "if True:"),
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
        ("audit_starts_a_retry_without_its_time", "elseif entry == 'due' and not redis.call('ZSCORE', DUE, CONVERSATION_ID) then", "elseif false then"),
        ("audit_buries_what_was_handled_together", "bury(record, 'lost', 1, 1)", ""),
        ("audit_sends_what_has_no_time", "if not redis.call('ZSCORE', OUTBOX, CONVERSATION_ID) then", "if false then"),
        ("audit_starts_a_lost_reply", "elseif reply and (reply == 'sent' or not fields_of(REPLIES, reply)) then", "elseif false then"),
    ),
    *of(
        script("hand_back"), JOBS,
        ("hand_back_stays_superseded", "if redis.call('SREM', INTERRUPTED, ARGV[2]) == 1 then", "if false then"),
    ),
    *of(
        script("reclaim_reply"), ("tests/bus/steps/test_rules_outbound.py",),
        ("reclaim_reply_leaves_what_is_renewed", "or pending[1][3] < tonumber(ARGV[4])", ""),
    ),
    *of(
        script("place_job"), PLACED,
        ("placed_once_by_its_id", "if redis.call('ZSCORE', PLACEMENTS, ARGV[2]) then return 'already' end", ""),
        ("placed_jobs_have_a_bound", "redis.call('ZCARD', PLACED) >= tonumber(ARGV[5]) or", ""),
        ("placed_jobs_take_a_share", "or not has_room(payer_of(ARGV[3]), tonumber(ARGV[6])) then", "then"),
        ("the_ids_of_placed_jobs_are_remembered", "redis.call('ZADD', PLACEMENTS, now_ms(), ARGV[2])", ""),
    ),
    *of(
        script("start"), PLACED,
        ("a_placed_job_has_no_company", "if seq ~= AFTER_ALL and", "if"),
        ("a_placed_job_ends_the_company_before_it", "has_placed and redis.call('ZRANGE', PLACED, 0, 0, 'WITHSCORES')[2] or '+inf'", "'+inf'"),
    ),
    *of(
        script("finish"), PLACED,
        ("finish_knows_what_is_placed", "start_next_job(ARGV[2], has_reply, load, has_placed)", "start_next_job(ARGV[2], has_reply, load, false)"),
    ),
    *of(
        script("revive"), PLACED,
        ("a_placed_job_comes_back_as_one", "if ARGV[3] == 'placed' then", "if false then"),
    ),
    *of(
        "bus/steps/placing.py", PLACED,
        ("a_placed_job_is_small", "if len(packed) > MOST_PLACED_BYTES:", "if False:"),
        ("a_message_is_not_placed", "if not record.kind:", "if False:"),
    ),
    *of(
        script("audit"), ("tests/bus/steps/test_audit.py",),
        ("audit_starts_a_placed_job_that_rests", "elseif not entry and has_placed then", "elseif false then"),
        ("audit_looks_after_placed_jobs_again", "if redis.call('EXISTS', PLACED) == 1 then", "if false then"),
        ("audit_starts_a_mailbox_without_a_job", "or (not entry and redis.call('ZCARD', MAILBOX) > 0)", ""),
        ("audit_starts_an_out_box_without_a_reply", "elseif not reply and redis.call('LLEN', OUT_BOX) > 0 then", "elseif false then"),
    ),
)  # fmt: skip
