"""What is due when, and becomes a job once each time."""

from __future__ import annotations

from tests.mutants.bus.places import script
from tests.mutants.mutant import of

DAILY = ("tests/bus/records/test_daily.py",)
MOVER = ("tests/supervisor/recovery/test_timer_mover.py",)

OF_TIMERS = (
    *of(
        "bus/records/daily.py", DAILY,
        ("daily_once_a_local_date", "        if last is not None and day <= last:", "        if False:"),
        ("daily_only_what_is_to_come", "if due is not None and due > moment_ms:", "if due is not None:"),
        ("daily_after_a_gap", "if there.astimezone(zone).replace(tzinfo=None) == local:", "if True:"),
        ("daily_in_a_zone_that_is_there", "        if not zoneinfo.available_timezones():", "        if False:"),
        ("daily_on_a_date_that_is_there", "    while local.date() == day:", "    while True:"),
    ),
    *of(
        "bus/records/timers.py", MOVER,
        ("a_timer_of_a_later_version_is_left", "        if schema > TIMER_SCHEMA:", "        if False:"),
        ("a_daily_timer_is_due_again", "        if self.daily is None:\n            return None\n        due_ms", "        if True:\n            return None\n        due_ms"),
    ),
    *of(
        "bus/records/timers.py", ("tests/workers/talk/test_reminders.py", "tests/bus/steps/test_rules_timers.py"),
        ("a_timer_of_once_names_who_set_it", "self.set_by if is_once else self.due_ms", "self.due_ms"),
        ("a_timer_that_is_fired_again_says_the_same", "return (self.message_ms or self.due_ms) if is_said else now_ms", "return now_ms"),
        ("a_timer_of_one_person_says_the_same_however_late", "self.conversation_type not in (\"\", GROUP) or now_ms", "now_ms"),
        ("a_timer_that_is_late_says_it_now", "self.conversation_type not in (\"\", GROUP) or now_ms - self.due_ms <= LATELY_MS", "True"),
    ),
    *of(
        "workers/talk/reminding.py", ("tests/workers/talk/test_reminders.py",),
        ("a_datetime_after_a_gap", "round(first_that_exists(at).timestamp() * 1000)", "round(at.timestamp() * 1000)"),
        ("what_is_due_soon_has_the_messages_time", "job.message_ms if due_ms - job.accepted_ms <= SOON_MS else 0", "0"),
        ("what_is_due_late_has_its_own_time", "job.message_ms if due_ms - job.accepted_ms <= SOON_MS else 0", "job.message_ms"),
    ),
    *of(
        script("fire"), MOVER,
        ("a_timer_is_fired_as_it_stands", "if record ~= ARGV[3] then return 'changed' end", ""),
        ("a_timer_is_not_early", "if not due or tonumber(due) > now_ms() then return 'early' end", ""),
        ("a_fired_timer_waits_for_room", "if redis.call('ZCARD', PLACED) >= tonumber(ARGV[9]) or not has_room(payer_of(ARGV[5]), tonumber(ARGV[10])) then return 'full' end", ""),
        ("a_fired_timer_is_over", "if ARGV[7] == '' then\n  drop_timer(TIMERS, ALARMS, ARGV[2])", "if ARGV[7] == '' then"),
    ),
    *of(
        script("set_timer"), MOVER,
        ("a_declared_timer_is_set_where_it_was_read", "if (redis.call('HGET', KEYS[OWN], ARGV[2]) or '') ~= ARGV[3] then return 0 end", ""),
    ),
    *of(
        "bus/records/timers.py", MOVER,
        ("what_was_missed_runs_once", "max(0, now_ms - self.due_ms) // self.every_ms", "0"),
    ),
    *of(
        script("_library"), ("tests/bus/steps/test_rules_timers.py",),
        ("a_job_sets_its_timers", "timer = function(id, due_ms, record) put_timer(timers, alarms, id, due_ms, record) end", "timer = function() end"),
        ("a_job_drops_timers", "drop_timer = function(id) drop_timer(timers, alarms, id) end", "drop_timer = function() end"),
    ),
    *of(
        script("forget_timer"), MOVER,
        ("a_timer_that_was_set_anew_is_kept", "if (redis.call('HGET', KEYS[OWN], ARGV[2]) or '') ~= ARGV[3] then return 0 end", ""),
    ),
)  # fmt: skip
