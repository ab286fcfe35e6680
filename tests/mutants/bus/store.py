"""What is kept besides messages: grants and sealed values, slots; and the rotation of the key of the store."""

from __future__ import annotations

from tests.mutants.bus.places import GRANTS, RESEALED, ROTATION, SAVED, SLOTS, script
from tests.mutants.mutant import of

OF_THE_STORE = (
    *of(
        "bus/transport/lua.py", ("tests/bus/steps/test_half_scripts.py",),
        ("no_script_is_cut_in_its_middle", "if len(names) < 2 or names.isdisjoint(WRITES):", "if True:"),
    ),
    *of(
        "host/name_lookups.py", ("tests/host/test_name_lookups.py",),
        ("one_name_is_asked_for_once", "if lookup is None or trio.current_time() - lookup.began_at >= JOINED_SECONDS:", "if True:"),
        ("what_hangs_for_long_is_asked_anew", "if lookup is None or trio.current_time() - lookup.began_at >= JOINED_SECONDS:", "if lookup is None:"),
        ("no_name_is_remembered", "                del self._under_way[asked]\n", "                pass\n"),
    ),
    *of(
        "bus/transport/spare_tasks.py", ("tests/bus/transport/test_spare_tasks.py",),
        ("a_task_that_waits_is_used_again", "        if self._spare:\n", "        if False:\n"),
        ("so_many_tasks_wait", "if len(self._spare) >= MOST_SPARE:", "if False:"),
        ("work_has_the_context_of_its_maker", "self._context.run(self._nursery.start_soon, self._run, item)", "self._nursery.start_soon(self._run, item)"),
    ),
    *of(
        script("put_grant"), GRANTS,
        ("a_grant_is_of_the_row_that_was_read", "if not is_current(KEYS[1], ARGV[1]) then", "if false then"),
        ("a_grant_is_of_the_head_that_was_read", "if (redis.call('GET', KEYS[4]) or '') ~= ARGV[4] then", "if false then"),
    ),
    *of(
        script("slot_hold"), SLOTS,
        ("a_slot_is_its_holders", "elseif not holder and not yields and (not former or abandoned[former]) then", "elseif not yields and (not former or abandoned[former]) then"),
        ("a_slot_that_ran_out_waits_for_its_holder", "(not former or abandoned[former])", "true"),
        ("a_slot_that_was_lost_is_a_ghost", "if former then ghosts[#ghosts + 1] = { slot, former } end", ""),
        ("a_former_holder_takes_its_own", "  elseif former == ARGV[1] then\n    mine = slot\n", ""),
        ("one_slot_each", "held > 0 and held or mine > 0 and mine or free", "free > 0 and free or held > 0 and held or mine"),
        ("a_ghost_is_polled_for_so_long", "redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)", ""),
        ("a_ghost_is_polled_for_by_one", ", 'NX', 'PX', ARGV[5])", ", 'PX', ARGV[5])"),
        ("a_slot_is_renewed", "redis.call('PEXPIRE', KEYS[FIRST_LEASE + held], ARGV[3])", ""),
        ("the_deaf_do_not_poll", " and not me.deaf", ""),
        ("a_slot_outlives_nobody_when_redis_clock_goes_back", "local holder = holder_of(KEYS[i], ARGV[3])", "local holder = redis.call('GET', KEYS[i])"),
        ("nor_does_who_waits", "local waits = holder_of(KEYS[4], ARGV[3])", "local waits = redis.call('GET', KEYS[4])"),
        ("nor_does_who_polls", "  holder_of(KEYS[3], ARGV[5])\n", ""),
        ("who_gave_up_lets_another_first", "not holder and not yields and", "not holder and"),
        ("who_gave_up_and_is_alone_goes_on", "me.yields and waits and waits ~= ARGV[1]", "me.yields"),
        ("who_gave_up_displaces_no_standby", "if slot == 0 and not yields and redis", "if slot == 0 and redis"),
        ("a_standby_is_known", "redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[3])", ""),
    ),
    *of(
        script("slot_doubt"), SLOTS,
        ("who_was_heard_is_no_ghost", "if ARGV[2] ~= '0' then", "if true then"),
        ("a_doubt_is_polled_for_at_once", "redis.call('DEL', KEYS[2])", ""),
        ("a_full_redis_takes_a_doubt", "redis.call('ZREM', KEYS[1], ARGV[1]) --", "if ARGV[2] == '0' then redis.call('ZREM', KEYS[1], ARGV[1]) end --"),
    ),
    *of(
        script("slot_free"), SLOTS,
        ("a_slot_is_freed_by_its_holder", "if holder ~= ARGV[1] then return 0 end", ""),
        ("a_slot_that_was_not_closed_leaves_a_ghost", "if ARGV[3] ~= '0' then", "if false then"),
    ),
    *of(
        script("reseal_entry"), ROTATION,
        ("reseal_entry_is_the_conversations", "redis.call('HSET', KEYS[2], ARGV[5], entry)", "local _"),
    ),
    *of(
        script("reseal_reply"), ROTATION,
        ("reseal_reply_under_way_too", "if entry and entry ~= 'sent' then", "if false then"),
    ),
    *of(
        script("put_sealed"), ("tests/bus/steps/test_vault.py",),
        ("a_value_is_of_the_version_that_was_read", "if not is_current(KEYS[1], ARGV[1]) then", "if false then"),
    ),
    *of(
        script("slot_free"), SLOTS,
        ("a_slot_that_was_closed_leaves_no_ghost", "if ARGV[3] ~= '0' then", "if true then"),
        ("a_lease_that_ran_out_has_a_record", "holder = record and cjson.decode(record).holder", ""),
    ),
    *of(
        script("reseal_entry"), RESEALED,
        ("reseal_entry_that_was_read", "if not matches then return 0 end", ""),
    ),
    *of(
        script("reseal_field"), RESEALED,
        ("reseal_field_that_was_read", "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("reseal_string"), RESEALED,
        ("reseal_string_that_was_read", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then", "if false then"),
    ),
    *of(
        script("reseal_item"), RESEALED,
        ("reseal_item_that_was_read", "if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("reseal_member"), RESEALED,
        ("reseal_member_that_is_there", "if not seq then return 0 end", "seq = seq or 0"),
    ),
    *of(
        script("reseal_reply"), RESEALED,
        ("reseal_reply_that_was_read", "if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then", "if false then"),
    ),
    *of(
        script("reseal_swap"), RESEALED,
        ("reseal_swap_of_the_same_newest", "newest[1] ~= ARGV[2] or", ""),
        ("reseal_swap_of_as_many", "if redis.call('XLEN', KEYS[2]) ~= tonumber(ARGV[1]) then return 0 end", ""),
        ("reseal_swap_of_all", "or redis.call('XLEN', KEYS[1]) ~= tonumber(ARGV[1]) then", "then"),
    ),
    *of(
        script("save_conversation"), SAVED,
        ("what_a_thread_has_noted_is_saved", "if emitted[i + 1] ~= '1' then", "if false then"),
        ("what_a_thread_has_noted_is_saved_once", "if not is_of_journal(emitted[i]) then names", "if true then names"),
        ("a_record_is_read_with_its_score", "without_what_was_read(records, place <= 2 and 2 or 1)", "without_what_was_read(records, 1)"),
        ("without_an_entry_none_is_looked_for", "if not entry or not string.find", "if not string.find"),
        ("an_entry_that_is_gone_is_none", "return found and found[2] or {}", "return found[2]"),
        ("a_superseded_job_is_saved_as_one", "entry and redis.call('SISMEMBER', INTERRUPTED, entry) or 0", "0"),
        ("without_a_job_none_is_superseded", "entry and redis.call('SISMEMBER', INTERRUPTED, entry) or 0", "redis.call('SISMEMBER', INTERRUPTED, entry)"),
    ),
)  # fmt: skip
