"""What the scripts have in common: ids and seqs, mailboxes, what is counted, places, the out-box."""

from __future__ import annotations

from tests.mutants.bus.places import CARDS, FORMER, IDS, JOBS, KEPT, PARKING, PLACED, SENDING, THREADS, script
from tests.mutants.mutant import of

OF_THE_LIBRARY = (
    *of(
        script("_library"), CARDS,
        ("cards_are_bounded", "if redis.call('HLEN', cards) < trim_at then return end", "if true then return end"),
        ("the_oldest_cards_go_first", "table.sort(ids)", ""),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_audit.py",),
        ("a_placed_job_waits_behind_parked_ones", "for _, box in ipairs({ MAILBOX, PARKED }) do", "for _, box in ipairs({ MAILBOX }) do"),
    ),
    *of(
        script("_library"), PLACED,
        ("a_placed_job_waits_behind_messages", "if message[2] and tonumber(message[2]) < tonumber(first[2]) then return false end", ""),
        ("placed_jobs_keep_their_order", "math.max(before, tonumber(last[2] or 0)) + PLACED_STEP", "before + PLACED_STEP"),
        ("a_placed_job_is_interrupted_by_nothing", "start_new_job(AFTER_ALL, first[1],", "start_new_job(1, first[1],"),
        ("a_placed_job_at_rest_is_interrupted_by_nothing", "return start_new_job(AFTER_ALL, record, kept)", "return start_new_job(1, record, kept)"),
        ("a_placed_job_waits_for_the_one_under_way", "if is_idle() then begin_work() end\n  if not entry then", "if is_idle() then begin_work() end\n  if true then"),
    ),
    *of(
        script("_library"), IDS,
        ("ids_are_aligned", "if at % ID_BYTES == 1 then return true end", "if true then return true end"),
        ("ids_are_trimmed", "if length < IDS_TRIM_AT then return field, ulid_ms end", "if true then return field, ulid_ms end"),
        ("next_never_falls", "if seq >= next then redis.call('HSET', CONVERSATION, 'next', next_after(seq)) end", "redis.call('HSET', CONVERSATION, 'next', next_after(seq))"),
    ),
    *of(
        script("_library"), PARKING,
        ("parked_moves_up", "for i = 1, #moved, 2 do redis.call('ZADD', MAILBOX, moved[i + 1], moved[i]) end", ""),
        ("parked_counts_as_waiting_when_it_moves_up", "redis.call('INCRBY', WAITING, #moved / 2)", ""),
        ("the_latest_is_parked", "redis.call('ZPOPMAX', MAILBOX)", "redis.call('ZPOPMIN', MAILBOX)"),
        ("the_mailbox_is_in_order", "redis.call('ZADD', MAILBOX, seq, record)", "redis.call('ZADD', MAILBOX, -seq, record)"),
        ("a_later_message_interrupts", "if entry ~= 'due' then return interrupt(entry) end", "if entry ~= 'due' then return end"),
        ("an_earlier_message_does_not_interrupt", " or seq < tonumber(redis.call('HGET', CONVERSATION, 'seq') or 0) then return end", " then return end"),
        ("the_rest_interrupts_too", "and has_who_interrupts() then interrupt(started) end", "and false then interrupt(started) end"),
    ),
    *of(
        script("_library"), JOBS,
        ("places_end_with_their_job", "redis.call('DEL', EMITTED, TOGETHER)", ""),
        ("a_job_ended_is_superseded_no_more", "redis.call('SREM', INTERRUPTED, entry)", ""),
        ("freezing_ends_with_its_job", "'entry', 'seq', 'began', 'frozen', 'load', 'stop')", "'entry', 'seq', 'began', 'load', 'stop')"),
        ("a_dead_letter_keeps_its_places", "fields.a, fields.d, table.concat(places, ' '),", "fields.a, fields.d, '',"),
        ("what_was_handled_together_is_buried_too", "do bury(record, reason, 1, 1) end\nend\n\n-- -> the record of the job", "do local _ = record end\nend\n\n-- -> the record of the job"),
        ("an_apology_is_said", "if is_owed then say(apology) end", ""),
        ("an_apology_is_said_once", "redis.call('HSETNX', EMITTED, '!apology', 1) == 1", "redis.call('HSETNX', EMITTED, '!apology', 1) >= 0"),
        ("at_rest_is_noted", "if not has_reply then rest() end\n    return", "return"),
    ),
    *of(
        script("_library"), THREADS,
        ("a_dead_letter_keeps_its_journal", "table.concat(places, ' '), '', joined(values))", "table.concat(places, ' '), '', '')"),
        ("a_journal_is_no_place", "if not is_of_journal(emitted[i]) then places", "if true then places"),
        ("what_comes_back_has_its_journal", "if values then recall_values(values) end", ""),
        ("what_comes_back_is_counted", "  count_journal(bytes)\nend", "end"),
        ("a_journal_is_counted_once", "string.gsub(load, '%d+ journal\\n', '')", "load"),
        ("a_wait_says_so_to_later_jobs", "    redis.call('HINCRBY', CONVERSATION, 'kept', 1)\n    redis.call('HINCRBY', CONVERSATION, 'asks', 1)", "    redis.call('HINCRBY', CONVERSATION, 'asks', 1)"),
        ("what_may_be_an_answer_is_of_a_later_schema", "redis.call('HEXISTS', CONVERSATION, 'asks') == 0 or", "true or"),
        ("what_is_no_answer_any_more_is_of_the_first_schema", "redis.call('HINCRBY', CONVERSATION, 'asks', -1) <= 0", "redis.call('HINCRBY', CONVERSATION, 'asks', -1) < 0"),
        ("a_wait_that_is_stored_again_counts_once", "if redis.call('HSET', waits, id, record) == 1 then", "if redis.call('HSET', waits, id, record) < 9 then"),
        ("a_wait_that_is_gone_says_nothing", "    count_wait(-1, before)\n    keep_less()\n", "    count_wait(-1, before)\n"),
        ("a_wait_goes_once", "if redis.call('HDEL', waits, id) == 1 then\n    count", "redis.call('HDEL', waits, id)\n  if true then\n    count"),
        ("all_waits_have_a_bound", "+ more.bytes > 67108864 then", "< 0 then"),
        ("a_wait_that_is_gone_makes_room", "    count_wait(-1, before)\n    keep", "    keep"),
        ("a_wait_that_is_stored_again_takes_no_more_room", "if before > 0 then count_wait(-1, before) end", ""),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_rules_bounds.py", "tests/supervisor/inbound/test_held.py"),
        ("a_sender_has_a_quarter_of_the_room", "return tonumber(mine or 0) < (most - (all or 0)) / 4", "return true"),
        ("a_conversation_has_a_quarter_of_the_way_out", "return not most or", "return true or"),
        ("what_ended_is_taken_off", "  if load then take_off_running(load) end\n", ""),
        ("our_own_words_are_said_once", "if has_reply and redis.call('HEXISTS', CONVERSATION, field) == 1 then return false end", ""),
        ("a_reply_that_waits_is_counted", "if has_reply or length > 1 then put_on('out', size_of(record)) end", ""),
        ("a_reply_that_waits_no_more_is_taken_off", "    take_off('out', size_of(head))\n", ""),
    ),
    *of(
        script("_library"), (*JOBS, *SENDING),
        ("one_reply_at_a_time", "if not has_reply then start_next_reply(length == 1 and record or nil) end", "start_next_reply(length == 1 and record or nil)"),
        ("an_ack_is_known_no_more", "redis.call('HDEL', ACKS, client_message_id)\nend", "end"),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_id_memory.py",),
        ("dropped_times_are_not_of_the_future", "local dropped = math.min(math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)), now_ms())", "local dropped = math.max(tonumber(times[1] or 0), tonumber(times[2] or 0))"),
        ("dropped_times_only_rise", "math.max(tonumber(times[1] or 0), tonumber(times[2] or 0)), now_ms()", "tonumber(times[2] or 0), now_ms()"),
        ("a_block_keeps_its_latest_time", "if before > now then ulid_ms = latest end", ""),
        ("expired_ids_leave_their_times", "for i = 2, 4 do dropped = math.max(dropped, tonumber(times[i] or 0)) end", ""),
        ("expired_times_are_not_of_the_future", "math.min(dropped_ms(known), now_ms())", "dropped_ms(known)"),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_rules_outbound.py",),
        ("our_own_seqs_are_stepped_over", "while redis.call('ZSCORE', TAKEN, next) do next = next + 1 end", ""),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_rules_inbound.py",),
        ("parked_only_as_far_as_there_is_room", "redis.call('ZPOPMIN', PARKED, room)", "redis.call('ZPOPMIN', PARKED, 1000)"),
        ("none_overtakes_what_is_parked", "if parked[2] and tonumber(parked[2]) < seq then", "if false then"),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_rules_jobs.py",),
        ("what_waits_for_its_second_run_is_superseded", "redis.call('ZREM', DUE, CONVERSATION_ID) -- what", "-- what"),
    ),
    *of(
        script("_library"), KEPT,
        ("a_history_has_so_many_exchanges", "length > 100 or", ""),
        ("a_history_has_an_age", "\n      or exchanged_ms(redis.call('LINDEX', history, '0')) < now - 2592000000) do", ") do"),
        ("a_history_has_so_many_bytes", "mine > 262144 or", ""),
        ("a_history_has_a_share", "or (most and mine > (most - total) / 4)", ""),
        ("two_exchanges_stay", "while length > 2 and (length > 100", "while length > 0 and (length > 100"),
        ("what_has_expired_counts_no_more", "if length == 1 then redis.call('HDEL', CONVERSATION, 'history') end", ""),
        ("a_day_that_is_over_counts_no_more", "elseif tonumber(days[i]) < first then", "elseif false then"),
        ("the_store_is_written_where_it_is_what_was_read", "if version ~= '*' and version ~= string.sub(before or '', 1, 256) then", "if false then"),
        ("a_store_has_so_many_keys", "math.max(keys - 1, 0) + more.keys > 10000 or", ""),
        ("a_store_has_so_many_bytes", "or bytes + more.bytes > 4194304 then", "then"),
        ("what_is_taken_away_makes_room", "- (before and size_of(before) or 0)\n  if record == '' then return nil end", "\n  if record == '' then return nil end"),
        ("a_forgotten_history_counts_no_more", "while redis.call('EXISTS', history) == 1 do count_exchange(histories, redis.call('LPOP', history), -1) end", "redis.call('DEL', history)"),
    ),
    *of(
        script("_library"), FORMER,
        ("what_was_not_counted_is_not_taken_off", "if bytes > here then bytes = here end", ""),
    ),
)  # fmt: skip
