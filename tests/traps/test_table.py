"""Which test holds which trap that others fell into. A trap without a line here is not held; a line without its test fails."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

TESTS = Path(__file__).parents[1]

TABLE = {
    # Redis and redis-py
    "a silent retry runs an XADD twice": "traps/test_redis_traps.py::test_a_connection_cut_after_an_xadd_ran_is_not_run_a_second_time",
    "a connection pool that refuses after a hundred failures": "bus/transport/test_wire.py::test_a_connection_comes_back_however_often_it_could_not_be_made",
    "a reader blocked in XREADGROUP does not wake": "traps/test_redis_traps.py::test_a_blocked_reader_wakes_at_close_within_a_second",
    "a cancelled read swallows the next entry": "bus/transport/test_client.py::test_what_a_cancelled_read_had_asked_for_goes_to_the_next",
    "XACK alone frees no memory, XDEL alone leaks": "traps/test_redis_traps.py::test_entries_are_deleted_when_done_and_memory_is_flat_after_5000_messages",
    "NOGROUP, alive but not consuming after a reconnect": "traps/test_redis_traps.py::test_a_reader_is_not_deaf_after_any_of_ten_restarts",
    "a group lost on a living connection": "supervisor/recovery/test_upkeep_hostile.py::test_a_group_that_is_lost_on_a_living_connection_is_made_again",
    "a master that became a replica is written to for ever": "supervisor/recovery/test_time_guard.py::test_a_master_that_became_a_replica_is_left_for_the_new_one",
    "a retry storm when Redis returns": "traps/test_redis_traps.py::test_after_redis_returned_the_retries_of_many_do_not_come_all_at_once",
    "a slow job runs twice because it is slow": "bus/steps/test_rules_jobs.py::test_rule_7_a_renewed_lease_is_kept_and_a_silent_one_is_reclaimed",
    "a dead worker's job waits for the worst case": "supervisor/recovery/test_reclaimer.py::test_a_worker_that_the_pool_saw_die_is_acted_on_without_the_reclaimers_lease",
    "poison crash-loops for ever": "bus/steps/test_rules_jobs.py::test_rule_8_what_kills_its_worker_twice_is_poison",
    "poison takes its neighbours along": "test_policies.py::test_rule_8_what_kills_its_worker_twice_is_poison_and_its_neighbours_are_answered",
    "a zombie worker finishes late": "bus/steps/test_rules_jobs.py::test_rule_6_a_fenced_worker_changes_nothing",
    "a stopped worker takes its job back by XCLAIM": "bus/steps/test_rules_jobs.py::test_rule_6_a_stopped_worker_that_wakes_does_not_take_its_job_back",
    "a warm stop runs finished work again": "workers/process/test_leaving.py::test_a_drain_finishes_what_runs_and_takes_nothing_more",
    "one consumer group keeps no order per key": "test_kills.py::test_a_burst_is_answered_in_order_while_everything_is_killed_in_turn",
    "everysec loses acknowledged writes at a SIGKILL": "traps/test_slow_fsync.py::test_slow_fsync_and_a_sigkill_lose_nothing_that_was_acknowledged",
    "a full Redis never drains": "traps/test_redis_at_its_limits.py::test_rule_16_a_full_redis_drains_takes_nothing_in_and_goes_on_by_itself",
    "MISCONF": "traps/test_redis_at_its_limits.py::test_rule_16_a_redis_that_cannot_persist_is_waited_for",
    "DELCONSUMER deletes what is pending": "bus/steps/test_rules_of_redis.py::test_rule_18_a_consumer_is_forgotten_only_where_nothing_is_pending",
    "a script that fails half-way keeps its first writes": "bus/steps/test_rules_of_redis.py::test_rule_18_a_script_that_cannot_go_on_has_written_nothing",
    # trio-websocket
    "a queue of one message leaves pings unanswered": "supervisor/relay/test_websocket.py::test_pings_are_answered_while_hundreds_of_messages_wait_unread",
    "a ping while closing escapes as Cancelled": "supervisor/relay/test_websocket.py::test_a_ping_that_comes_while_closing_neither_escapes_nor_hides_the_peers_close_frame",
    "a frame over 1 MiB closes with 1009": "supervisor/relay/test_websocket.py::test_a_message_of_two_mebibytes_passes",
    "no keepalive of its own": "supervisor/relay/test_connection.py::test_after_10_s_of_silence_it_pings_and_an_answer_keeps_the_connection",
    # Agents and encryption
    "the cursor is saved too early": "supervisor/inbound/test_catchup.py::test_a_page_with_a_message_that_could_not_be_taken_in_is_asked_again",
    "an acknowledgement before the commit": "supervisor/outbound/test_outbound.py::test_a_reply_is_in_the_outbox_before_it_is_sent_and_its_person_can_read_it",
    "a resend is encrypted again": "supervisor/outbound/test_delivery.py::test_a_resend_after_the_time_is_the_same_bytes",
    "what comes in a deploy is lost": "supervisor/keeper/test_upgrade.py::test_usr2_starts_a_new_generation_and_the_old_one_retires",
    "the first sync is skipped": "supervisor/inbound/test_catchup.py::test_the_first_sync_skips_what_is_too_old_and_answers_the_rest",
    "answered twice after a restart": "test_kills.py::test_all_are_answered_once_and_in_order_when_it_is_killed",
    "reconnected but deaf": "supervisor/relay/test_connection_ends.py::test_a_deaf_connection_is_given_up_5_s_after_the_ping",
    "reconnects without jitter": "supervisor/relay/test_connection_ends.py::test_the_pauses_double_to_30_s_with_full_jitter_and_auth_ok_resets_them",
    "plaintext in logs": "supervisor/inbound/test_inbound.py::test_no_log_line_and_no_sealed_value_holds_what_was_said",
    "a store that does not open is deleted": "supervisor/peers/test_sessions.py::test_a_record_that_does_not_open_at_its_place_is_as_good_as_lost",
    "state changes before authentication": "supervisor/inbound/test_inbound.py::test_a_tampered_envelope_is_quarantined_and_does_not_block_the_genuine_one",
    "yesterday's ratchet is restored": "supervisor/recovery/test_time_guard.py::test_rule_17_a_redis_that_went_back_is_never_sent_with_an_old_session",
    "a lost session hidden by later writes": "supervisor/recovery/test_time_guard.py::test_workers_that_count_beyond_what_was_seen_hide_nothing",
    "two processes on one store": "supervisor/keeper/test_keeper.py::test_a_second_keeper_on_one_state_directory_says_so",
    # 24 hours in small
    "memory grows with what was answered": "trials/soak/test_soak.py::test_nothing_grows_with_messages_that_were_answered",
}


@pytest.mark.parametrize("trap", TABLE)
def test_the_trap_has_its_test(trap: str) -> None:
    path, _, name = TABLE[trap].partition("::")
    assert re.search(rf"^(async )?def {re.escape(name)}\(", (TESTS / path).read_text(encoding="utf-8"), re.MULTILINE), (
        TABLE[trap]
    )
