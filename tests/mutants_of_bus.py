"""The guards of the scripts of bus/, each taken away once; run by tests/mutants.py."""

from __future__ import annotations

from tests.mutant import Mutant

JOBS = ("tests/bus/test_rules_jobs.py", "tests/bus/test_rules_repeats.py")
INTAKE = ("tests/bus/test_rules_inbound.py", "tests/bus/test_rules_repeats.py", "tests/bus/test_rules.py")
SENDING = (
    "tests/bus/test_rules_outbound.py",
    "tests/bus/test_rules_repeats.py",
    "tests/bus/test_rules_time.py",
    "tests/bus/test_generation.py",
)
MINE = "if not lease_is_mine(JOBS, JOBS_GROUP, ARGV[2], ARGV[3]) then"

# What a script checks before it writes; the operations' conformance tests on the server of the product have to notice.
MUTANTS_OF_BUS = (
    Mutant(
        "renew_only_what_is_held",
        "bus/scripts/renew.lua",
        "if lease_is_mine(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then",
        "if true then",
        (*JOBS, "tests/bus/test_rules_of_redis.py"),
    ),
    Mutant("finish_is_fenced", "bus/scripts/finish.lua", MINE, "if false then", JOBS),
    Mutant(
        "finish_says_a_place_once",
        "bus/scripts/finish.lua",
        "if not (has_emitted and redis.call('HEXISTS', EMITTED, ARGV[i]) == 1) then",
        "if true then",
        JOBS,
    ),
    Mutant("fail_is_fenced", "bus/scripts/fail.lua", MINE, "if false then", JOBS),
    Mutant(
        "fail_is_bounded_by_deliveries", "bus/scripts/fail.lua", "or tonumber(job.d) >= tonumber(ARGV[7])", "", JOBS
    ),
    Mutant("emit_is_fenced", "bus/scripts/emit.lua", MINE, "if false then", JOBS),
    Mutant(
        "emit_says_a_place_once",
        "bus/scripts/emit.lua",
        "if redis.call('HEXISTS', EMITTED, ARGV[4]) == 1 then return 'already' end",
        "",
        JOBS,
    ),
    Mutant("hand_back_is_fenced", "bus/scripts/hand_back.lua", MINE, "if false then", JOBS),
    Mutant(
        "hand_back_is_bounded_by_deliveries",
        "bus/scripts/hand_back.lua",
        "if ARGV[5] == '1' and tonumber(job.d) >= tonumber(ARGV[6]) then",
        "if false then",
        JOBS,
    ),
    Mutant(
        "reclaim_leaves_what_is_renewed", "bus/scripts/reclaim.lua", "or pending[1][3] < tonumber(ARGV[5])", "", JOBS
    ),
    Mutant("reclaim_ends_poison", "bus/scripts/reclaim.lua", "if strikes >= 2 then", "if false then", JOBS),
    Mutant(
        "reclaim_is_bounded_by_deliveries",
        "bus/scripts/reclaim.lua",
        "elseif tonumber(job.d) >= tonumber(ARGV[6]) then",
        "elseif false then",
        JOBS,
    ),
    Mutant("start_is_fenced", "bus/scripts/start.lua", MINE, "if false then", JOBS),
    Mutant("due_waits_for_its_time", "bus/scripts/due.lua", "or tonumber(score) > now_ms()", "", JOBS),
    Mutant(
        "accept_knows_duplicates",
        "bus/scripts/accept.lua",
        "if id_is_known(known, ARGV[2]) then",
        "if false then",
        INTAKE,
    ),
    Mutant(
        "accept_compares_the_session",
        "bus/scripts/accept.lua",
        "if ARGV[7] ~= '' and not is_current(SESSION, ARGV[6]) then",
        "if false then",
        INTAKE,
    ),
    Mutant(
        "accept_uses_a_prekey_once",
        "bus/scripts/accept.lua",
        "if ARGV[9] ~= '' and redis.call('HEXISTS', PREKEYS, ARGV[9]) == 0 then",
        "if false then",
        INTAKE,
    ),
    Mutant(
        "accept_pins_kind_and_person",
        "bus/scripts/accept.lua",
        "if kind and (kind ~= ARGV[10] or person ~= ARGV[11]) then",
        "if false then",
        INTAKE,
    ),
    Mutant(
        "accept_takes_pushes_in_sequence",
        "bus/scripts/accept.lua",
        "if ARGV[4] == 'push' and seq > next then",
        "if false then",
        INTAKE,
    ),
    Mutant(
        "advance_cursor_compares",
        "bus/scripts/advance_cursor.lua",
        "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then",
        "if false then",
        INTAKE,
    ),
    Mutant("commit_knows_its_repeat", "bus/scripts/commit.lua", "if sent[1] == ARGV[5] then", "if false then", SENDING),
    Mutant("commit_is_of_the_head", "bus/scripts/commit.lua", "if reply ~= ARGV[2] then", "if false then", SENDING),
    Mutant("commit_is_fenced", "bus/scripts/commit.lua", "if not is_mine then", "if false then", SENDING),
    Mutant(
        "commit_finds_a_redis_that_went_back",
        "bus/scripts/commit.lua",
        "if tonumber(count or 0) < tonumber(ARGV[12]) then",
        "if false then",
        SENDING,
    ),
    Mutant("commit_is_of_the_epoch", "bus/scripts/commit.lua", "if epoch ~= ARGV[11] then", "if false then", SENDING),
    Mutant(
        "commit_compares_the_owner",
        "bus/scripts/commit.lua",
        "if ARGV[14] ~= '' and not is_current(OWNER, ARGV[14]) then",
        "if false then",
        (*SENDING, "tests/supervisor/test_recipients.py"),
    ),
    Mutant(
        "commit_compares_the_sessions",
        "bus/scripts/commit.lua",
        "if not is_current(KEYS[i], ARGV[VERSIONS + (i - SESSIONS) * 2]) then",
        "if false then",
        SENDING,
    ),
    Mutant("commit_keeps_the_rate", "bus/scripts/commit.lua", "if tokens < 1 then", "if false then", SENDING),
    Mutant(
        "confirm_is_of_what_was_sent", "bus/scripts/confirm.lua", "if sent[1] ~= ARGV[2] then", "if false then", SENDING
    ),
    Mutant(
        "end_stream_is_told_by_one",
        "bus/scripts/end_stream.lua",
        "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then",
        "if false then",
        SENDING,
    ),
    Mutant(
        "hold_office_leaves_it_to_its_holder",
        "bus/scripts/hold_office.lua",
        "if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then",
        "if false then",
        (*JOBS, "tests/supervisor/test_reclaimer.py"),
    ),
)
CONTROL_OF_BUS = Mutant(
    "control_of_bus", "bus/scripts/renew.lua", "return { lost", "return { lost", (*JOBS, *INTAKE, *SENDING)
)
