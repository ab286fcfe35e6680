"""The fault table: every loop of the product over something outside of it, and the tests that put each fault that can meet it in its way.

test_table.py compares it with what scan.py finds. A new loop fails there until it has a row here: say of what kind it is, and which
tests hold it. `HERE` is for loops over our own tasks, clock, signals and children, with the reason why nothing outside can spoil them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Fault(enum.Enum):
    """What can be wrong with what a loop is over."""

    REDIS_AWAY = "gone, loading, read-only"
    REDIS_REFUSED = "a changed password, NOPERM, a wrong type"
    REDIS_FULL = "out of memory, cannot persist"
    REDIS_SLOW = "stalled with an open connection"
    RELAY_REFUSED = "4xx"
    RELAY_LIMITED = "429"
    RELAY_FAILED = "5xx"
    RELAY_GONE = "refused, reset, no answer, slow"
    RELAY_MALFORMED = "no JSON, another shape, huge"
    MORE_THAN_A_PAGE = "more than one page, more than COUNT"
    OTHER_VERSION = "a tag or field of another release"
    TOO_LONG = "a line of any length"
    CUT = "half a message, then nothing"
    ENDED = "the other end is gone"
    RECEIVER_GONE = "refused, reset, no answer in time"
    RECEIVER_REFUSES = "4xx, 429, 5xx"
    RECEIVER_MALFORMED = "no HTTP"
    GATE_REFUSED = "a refusal for good: of the gate, or of the relay behind it"
    GATE_LIMITED = "one too many"
    GATE_FAILED = "the relay behind it is away, slow, or fails"
    GATE_GONE = "no gate, a reset, a cut, no answer in time"
    GATE_MALFORMED = "no HTTP, no JSON, another shape, huge"


class Kind(enum.Enum):
    """Over what a loop is; its value: which faults can meet it."""

    REDIS = frozenset({Fault.REDIS_AWAY, Fault.REDIS_REFUSED, Fault.REDIS_FULL, Fault.REDIS_SLOW})
    RELAY = frozenset(
        {Fault.RELAY_REFUSED, Fault.RELAY_LIMITED, Fault.RELAY_FAILED, Fault.RELAY_GONE, Fault.RELAY_MALFORMED}
    )
    PAGES = frozenset({Fault.MORE_THAN_A_PAGE})
    LINE = frozenset({Fault.OTHER_VERSION, Fault.TOO_LONG, Fault.CUT, Fault.ENDED})
    RECEIVER = frozenset({Fault.RECEIVER_GONE, Fault.RECEIVER_REFUSES, Fault.RECEIVER_MALFORMED})
    GATE = frozenset({Fault.GATE_REFUSED, Fault.GATE_LIMITED, Fault.GATE_FAILED, Fault.GATE_GONE, Fault.GATE_MALFORMED})
    STEP = frozenset[Fault]()
    """Within an operation that raises to its caller, a loop of another kind; it has its end in itself."""
    HERE = frozenset({None})


@dataclass(frozen=True)
class Row:
    """`tests`: `path::name` of those that inject the faults of these kinds; `why`: for STEP and HERE."""

    kinds: tuple[Kind, ...]
    tests: Mapping[Fault, tuple[str, ...]]
    why: str = ""


def held(*groups: tuple[Kind, Mapping[Fault, str] | str]) -> Row:
    """Each kind with one test for all of its faults, or with one for each."""
    tests: dict[Fault, tuple[str, ...]] = {}
    for kind, by in groups:
        for fault in kind.value:
            assert isinstance(fault, Fault)
            tests[fault] = (by,) if isinstance(by, str) else tuple(by[fault].split())
    return Row(tuple(kind for kind, _ in groups), tests)


def step(why: str) -> Row:
    return Row((Kind.STEP,), {}, why)


def here(why: str) -> Row:
    return Row((Kind.HERE,), {}, why)


ALL_LOOPS = "tests/faults/test_redis_loops.py::test_no_loop_over_redis_ends_and_each_goes_on"
RELAY_LOOPS = "tests/faults/test_redis_loops.py::test_no_loop_over_the_relay_ends_and_each_goes_on"
SAVED_PAGES = "tests/supervisor/backup/test_snapshot.py::test_a_store_of_more_than_a_page_is_saved_to_its_end"
WAITING = (
    "tests/bus/transport/test_refusals.py::test_what_waits_in_redis_survives_says_once_and_goes_on_within_two_seconds"
)
TAKING = "tests/workers/process/test_redis_faults.py::test_a_worker_takes_jobs_again_within_two_seconds_and_says_once_what_was_wrong"
NOTING = "tests/workers/kept/test_steps.py::test_a_step_is_noted_however_long_redis_is_away"
GIVING_BACK = (
    "tests/workers/kept/test_steps.py::test_rule_15_a_full_redis_has_the_job_given_back_which_says_nothing_more"
)
TELLING = "tests/workers/process/test_redis_faults.py::test_what_a_job_has_to_say_waits_until_redis_takes_it"
WORKER_LINES = "tests/supervisor/pool/test_worker_lines.py"
KEEPER_LINES = "tests/supervisor/control/test_lines_of_other_releases.py"
MOVER = "tests/supervisor/recovery/test_timer_mover.py"
PAGES = "tests/bus/steps/test_more_than_a_page.py"

in_redis = held((Kind.REDIS, ALL_LOOPS))
waits_in_redis = held((Kind.REDIS, WAITING))

EXCHANGE = "tests/supervisor/files/test_exchange.py"
files_client = held(
    (
        Kind.LINE,
        {
            Fault.OTHER_VERSION: "tests/supervisor/files/test_gate.py::test_the_gate_is_no_deputy_for_other_routes",
            Fault.TOO_LONG: f"{EXCHANGE}::test_what_is_no_request_is_refused_and_hung_up_on",
            Fault.CUT: f"{EXCHANGE}::test_a_body_that_is_cut_is_shorter_than_it_said",
            Fault.ENDED: f"{EXCHANGE}::test_who_says_nothing_or_half_a_head_or_half_a_body_is_hung_up_on",
        },
    )
)

ROWS: dict[str, Row] = {
    # Over Redis, until cancelled
    "bus/telemetry/shipping.py:Shipper._run": held(
        (
            Kind.RECEIVER,
            "tests/telemetry/test_shipping.py::test_whatever_the_receiver_does_the_thread_goes_on_and_sends_again",
        )
    ),
    "bus/transport/leases.py:LeaseKeeper._run": waits_in_redis,
    "bus/transport/readers.py:RedisStreamReader.read": held(
        (Kind.REDIS, WAITING),
        (Kind.PAGES, f"{PAGES}::test_jobs_that_were_read_and_not_received_come_again_whatever_the_free_slots_are"),
    ),
    "bus/transport/readers.py:LiveSubscriber._run": waits_in_redis,
    "bus/transport/readers.py:LiveSubscriber._hear": waits_in_redis,
    "supervisor/files/exchange.py:Connection.serve": files_client,
    "supervisor/files/exchange.py:Connection.next_event": files_client,
    "supervisor/files/exchange.py:Connection.next_of_body": files_client,
    "supervisor/outbound/delivery.py:Delivery._resend": in_redis,
    "supervisor/outbound/delivery.py:Delivery._leave_in_doubt": held(
        (
            Kind.REDIS,
            "tests/supervisor/outbound/test_delivery.py::test_what_is_in_doubt_is_left_to_others_also_if_redis_fails_at_first",
        )
    ),
    "supervisor/outbound/taking.py:Taking._take": waits_in_redis,
    "supervisor/inbound/held.py:HeldFetcher.run": in_redis,
    "supervisor/inbound/events.py:Events.run": held(
        (
            Kind.REDIS,
            "tests/supervisor/inbound/test_events.py::test_whatever_redis_says_to_an_event_the_next_one_goes_on",
        )
    ),
    "supervisor/inbound/overflow.py:Overflow.run": in_redis,
    "supervisor/inbound/overflow.py:Overflow._relieve": in_redis,
    "supervisor/recovery/reclaimer.py:Reclaimer.run": held(
        (Kind.REDIS, ALL_LOOPS), (Kind.PAGES, f"{PAGES}::test_all_entries_of_a_dead_consumer_are_found_and_released")
    ),
    "supervisor/recovery/redis_watch.py:RedisWatch._look": in_redis,
    "supervisor/recovery/timer_mover.py:TimerMover.run": in_redis,
    "supervisor/recovery/timer_mover.py:TimerMover.look": held(
        (Kind.PAGES, f"{MOVER}::test_all_that_is_due_is_fired_also_behind_what_cannot_be")
    ),
    "supervisor/recovery/redis_watch.py:RedisWatch._knock": held(
        (
            Kind.REDIS,
            "tests/supervisor/recovery/test_redis_watch.py::test_what_redis_refuses_is_red_by_its_reason_until_it_is_mended",
        )
    ),
    "supervisor/inbound/quarantine_retrier.py:QuarantineRetrier._hear": in_redis,
    "supervisor/inbound/quarantine_retrier.py:QuarantineRetrier._until_marked": in_redis,
    "supervisor/inbound/quarantine_retrier.py:QuarantineRetrier._obey": in_redis,
    "supervisor/relay/slots.py:ConnectionSlot.run": in_redis,
    "supervisor/recovery/time_guard.py:TimeGuard.run": in_redis,
    "workers/process/runner.py:Runner._take": held((Kind.REDIS, TAKING)),
    "workers/process/runner.py:Runner._be_seen": in_redis,
    "workers/kept/outlet.py:until_redis_answers": held((Kind.REDIS, TELLING)),
    "workers/kept/thread.py:ThreadRun._unless_full": held((Kind.REDIS, NOTING), (Kind.REDIS, GIVING_BACK)),
    # Over the relay
    "supervisor/inbound/catchup.py:Catchup.run": held((Kind.REDIS, ALL_LOOPS), (Kind.RELAY, RELAY_LOOPS)),
    "supervisor/inbound/catchup.py:Catchup._wait_for_turn": held(
        (
            Kind.REDIS,
            "tests/supervisor/run/test_shared_work.py::"
            "test_who_waits_for_another_that_reads_is_deaf_only_when_that_one_comes_no_further",
        )
    ),
    "supervisor/inbound/catchup.py:Catchup._pages": held(
        (
            Kind.PAGES,
            "tests/supervisor/inbound/test_catchup.py::test_everything_after_the_cursor_is_taken_in_page_by_page",
        )
    ),
    "supervisor/peers/prekeys.py:OwnPrekeys.keep": held((Kind.REDIS, ALL_LOOPS), (Kind.RELAY, RELAY_LOOPS)),
    "supervisor/peers/relations.py:Relations._read": held((Kind.REDIS, ALL_LOOPS), (Kind.RELAY, RELAY_LOOPS)),
    # Lines between processes
    "workers/process/control_link.py:ControlLink._read": held(
        (Kind.LINE, f"{WORKER_LINES}::test_a_worker_obeys_a_newer_supervisor_through_all_that_it_does_not_know")
    ),
    "supervisor/pool/process.py:WorkerProcess._receive": held(
        (
            Kind.LINE,
            {
                Fault.OTHER_VERSION: f"{WORKER_LINES}::test_a_newer_worker_takes_jobs_under_an_older_supervisor",
                Fault.TOO_LONG: f"{WORKER_LINES}::test_a_newer_worker_takes_jobs_under_an_older_supervisor",
                Fault.CUT: f"{WORKER_LINES}::test_a_worker_that_stops_within_a_line_is_ended_by_its_silence",
                Fault.ENDED: "tests/supervisor/pool/test_worker_process.py::test_a_handler_that_ends_the_process_is_an_abnormal_death_with_its_job",
            },
        )
    ),
    "supervisor/control/keeper_link.py:_listen": held(
        (
            Kind.LINE,
            {
                Fault.OTHER_VERSION: f"{KEEPER_LINES}::test_a_supervisor_obeys_a_newer_keeper_through_all_that_it_does_not_know",
                Fault.TOO_LONG: f"{KEEPER_LINES}::test_a_supervisor_obeys_a_newer_keeper_through_all_that_it_does_not_know",
                Fault.CUT: "tests/supervisor/control/test_keeper_link.py::test_a_drain_is_heard_even_if_it_comes_in_pieces",
                Fault.ENDED: "tests/supervisor/control/test_keeper_link.py::test_the_end_of_the_line_means_that_the_keeper_is_gone",
            },
        )
    ),
    "supervisor/keeper/supervisor_process.py:SupervisorProcess._listen": held(
        (
            Kind.LINE,
            {
                Fault.OTHER_VERSION: f"{KEEPER_LINES}::test_a_keeper_hears_a_newer_supervisor_through_all_that_it_does_not_know",
                Fault.TOO_LONG: f"{KEEPER_LINES}::test_a_keeper_hears_a_newer_supervisor_through_all_that_it_does_not_know",
                Fault.CUT: f"{KEEPER_LINES}::test_a_supervisor_that_stops_within_a_line_is_ended_by_its_silence_and_by_nothing_else",
                Fault.ENDED: "tests/supervisor/control/test_control_socket.py::test_a_supervisor_that_dies_over_a_question_is_an_answer_and_status_goes_on",
            },
        )
    ),
    "supervisor/control/control_socket.py:_serve": held(
        (Kind.LINE, f"{KEEPER_LINES}::test_the_control_socket_answers_each_line_that_it_cannot_read_and_goes_on")
    ),
    # Asked for by the page
    "bus/transport/client.py:members_until": held((Kind.PAGES, f"{PAGES}::test_all_sends_that_are_due_are_sent_again")),
    "bus/steps/recovery.py:Recovery.pending": held(
        (Kind.PAGES, f"{PAGES}::test_all_entries_of_a_dead_consumer_are_found_and_released")
    ),
    "bus/steps/recovery.py:Recovery._for_each": held(
        (Kind.PAGES, f"{PAGES}::test_all_failed_jobs_whose_time_has_come_start_at_once")
    ),
    "bus/steps/letters.py:DeadLetters.all": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_dead_letters_and_ledger_are_walked_to_their_end")
    ),
    "bus/views/trace.py:Ledger._events": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_dead_letters_and_ledger_are_walked_to_their_end")
    ),
    "bus/views/trace.py:Ledger.ended": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_what_has_ended_is_found_behind_more_than_a_page")
    ),
    "bus/views/conversations.py:Conversations.all": held(
        (
            Kind.PAGES,
            "tests/faults/test_walks.py::test_more_than_a_page_of_conversations_are_all_read_and_the_latest_come_first",
        )
    ),
    "bus/views/conversations.py:Conversations._latest_in_ledger": held(
        (
            Kind.PAGES,
            "tests/faults/test_walks.py::test_more_than_a_page_of_conversations_are_all_read_and_the_latest_come_first",
        )
    ),
    "bus/views/trace.py:Ledger._latest": held(
        (
            Kind.PAGES,
            "tests/faults/test_walks.py::test_what_was_acknowledged_is_found_on_a_later_page_and_not_from_before",
        )
    ),
    "bus/steps/thread_steps.py:ThreadSteps.message_id_of": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_a_question_that_is_quoted_is_found_on_a_later_page")
    ),
    "bus/steps/thread_steps.py:ThreadSteps.may_come_back": held(
        (
            Kind.PAGES,
            "tests/bus/steps/test_rules_threads.py::"
            "test_rule_2_of_threads_an_answer_may_come_back_while_it_is_a_dead_letter_or_waits_to_run_again",
        )
    ),
    "bus/views/overview.py:Overview.kinds": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_a_store_of_more_than_a_page_is_counted")
    ),
    "bus/transport/client.py:keys_like": held(
        (Kind.PAGES, "tests/faults/test_walks.py::test_a_store_of_more_than_a_page_is_sealed_anew_to_its_end"),
        (Kind.PAGES, SAVED_PAGES),
    ),
    "bus/whole/snapshot.py:Snapshot._list": held((Kind.PAGES, SAVED_PAGES)),
    "bus/whole/snapshot.py:Snapshot._stream": held((Kind.PAGES, SAVED_PAGES)),
    "bus/whole/snapshot.py:Snapshot._list_from_the_end": held(
        (
            Kind.PAGES,
            "tests/supervisor/backup/test_snapshot.py::test_a_conversation_in_which_very_much_waits_is_read_in_parts",
        )
    ),
    "bus/whole/snapshot.py:Snapshot._sorted_from_the_end": held(
        (
            Kind.PAGES,
            "tests/supervisor/backup/test_snapshot.py::test_a_conversation_in_which_very_much_waits_is_read_in_parts",
        )
    ),
}

# Within an operation that raises to its caller, or has its own end and its own tests
STEPS: dict[str, tuple[str, ...]] = {
    "one transfer of a file: a fault ends it by its reason, and bytes and pauses are bounded (tests/supervisor/files)": (
        "supervisor/files/exchange.py:Exchange.body",
        "supervisor/files/exchange.py:Connection._linger",
        "supervisor/files/gate.py:Gate._get",
        "supervisor/files/relay_files.py:_named",
        "supervisor/files/relay_files.py:past_the_client",
    ),
    "raises RedisFailed to who asked; each turn is a command of its own, and the bound of what is looked at is said there": (
        "bus/views/backlog.py:Backlog.quarantine",
        "bus/views/backlog.py:Backlog._unacknowledged_seconds",
        "bus/steps/recovery.py:Recovery.kept_waiting",
    ),
    "raises RedisFailed to its caller, a loop of this table or a command of the operator; it ends with what it walks": (
        "bus/steps/letters.py:Quarantine.rows",
        "supervisor/doctor/leaks_redis.py:_keys",
        "supervisor/doctor/leaks_redis.py:_scan",
        "bus/steps/letters.py:Quarantine.waiting_for",
        "bus/steps/letters.py:Quarantine.list_waiting",
        "bus/steps/letters.py:Quarantine.want",
        "bus/steps/recovery.py:Recovery.make_groups",
        "bus/steps/recovery.py:Recovery.clock_went_back",
        "bus/steps/recovery.py:Recovery.forget_idle_consumers",
        "bus/views/trace.py:Ledger._about",
        "bus/views/conversations.py:Conversations.latest",
        "bus/steps/outside.py:OutsideMessages.send",
        "bus/steps/outside.py:OutsideMessages.let_out",
        "bus/steps/outside.py:OutsideMessages._waiting",
        "supervisor/cli/conversations.py:_show",
        "supervisor/cli/outside/queueing.py:_wait",
        "supervisor/inbound/quarantine_retrier.py:QuarantineRetrier._mark_what_may_be_mended",
        "supervisor/cli/dead.py:_chosen",
        "supervisor/cli/dead.py:_selected",
        "supervisor/cli/dead.py:_retry",
        "supervisor/cli/grants.py:_decide_owner",
        "supervisor/peers/grant_ledger.py:GrantLedger._entries_and_head",
    ),
    "a walk of a rotation; a failure ends the command, and its next run completes it (tests/supervisor/cli/keys/test_rotate_store.py)": (
        "bus/whole/reseal.py:Resealer._walk",
        "bus/whole/reseal.py:_Walk._mailbox",
        "bus/whole/reseal.py:_Walk._history",
        "bus/whole/reseal.py:_Walk._list",
        "bus/whole/reseal.py:_Walk._out_box",
        "bus/whole/reseal.py:_Walk._grant_log",
        "bus/whole/reseal.py:_Walk.stream",
        "bus/whole/reseal.py:_Walk.dead_letters",
        "bus/whole/reseal.py:_Walk._entries",
    ),
    "a backup is read or made; what fails is raised, ends the command, and leaves no file (tests/supervisor/backup)": (
        "bus/whole/snapshot.py:Snapshot.kinds",
        "bus/whole/snapshot.py:Snapshot.everything",
        "bus/whole/snapshot.py:Snapshot._hashes",
        "bus/whole/snapshot.py:Snapshot._outside",
        "bus/whole/snapshot.py:Snapshot._scan",
        "bus/whole/snapshot.py:Snapshot._quarantined",
        "bus/whole/snapshot.py:Snapshot._conversations",
        "bus/whole/snapshot.py:Snapshot._timers",
        "bus/whole/snapshot.py:Snapshot._in_parts",
        "supervisor/backup/envelope.py:_exactly",
        "supervisor/backup/envelope.py:_line",
        "supervisor/backup/making.py:Making._bytes",
    ),
    "a restore into a place that nobody has open: what fails is raised, ends the command, and leaves the old store or a decided step to finish "
    "(tests/supervisor/backup/test_restoring.py, test_restore_command.py)": (
        "bus/whole/restore_switch.py:RestoreSwitch._drop",
        "bus/whole/restore_switch.py:RestoreSwitch._move",
        "bus/whole/restoring.py:Restoring._far_id",
        "bus/whole/restoring.py:Restoring._pages",
        "bus/whole/restoring.py:Restoring._waiting",
    ),
    "one reply that waits for the rate, which Redis counts: RedisFailed ends its turn, and it is tried again (tests/supervisor/outbound/test_rate_line.py)": (
        "supervisor/outbound/rate_line.py:RateLine.commit",
    ),
    "compare and set: a further turn means that another supervisor has moved it; RedisFailed is raised to the loop that asked": (
        "supervisor/peers/groups.py:Groups._keep",
        "supervisor/peers/members.py:decide_member",
        "supervisor/peers/members.py:Members._put",
        "supervisor/peers/owners.py:Owners._note",
        "supervisor/peers/owners.py:Owners._note_devices",
        "supervisor/outbound/committing.py:Committing.commit",
        "supervisor/peers/prekeys.py:OwnPrekeys._until_wanted",
        "supervisor/peers/sessions.py:Sessions.never_send_on_again",
        "supervisor/cli/keys/rotation.py:_ask_for_prekey",
    ),
    "one exchange on a connection of ours: it has a time limit, closes the connection and raises RedisUnavailable (tests/bus/transport/test_client.py)": (
        "bus/transport/client.py:RedisClient._answer_to",
        "bus/transport/client.py:RedisClient._drive",
        "bus/transport/client.py:RedisClient._follow_asked",
        "bus/transport/asked_node.py:AskedNode.exchange",
        "bus/transport/link.py:Link._watch",
        "bus/transport/link.py:Link._send",
        "bus/transport/link.py:Link._receive",
    ),
    "the reader's entries until one is a job; what the reader raises goes to the runner": (
        "bus/steps/jobs.py:JobStore.take",
    ),
    "at most 5 s for a message; every RestFailed is waited out or raised (tests/supervisor/peers/test_owners.py, test_group_keys.py)": (
        "supervisor/relay/asking.py:asked",
    ),
    "pieces of one answer of the relay, bounded in bytes and time; what fails is a RestFailed (tests/supervisor/relay/test_rest_bounds.py, test_rest_hostile.py)": (
        "supervisor/relay/bodies.py:pieces",
        "supervisor/relay/bodies.py:whole",
        "supervisor/relay/bodies.py:raw_pieces",
        "supervisor/relay/rest.py:Rest.poll",
        "supervisor/relay/rest.py:Rest.relations",
        "supervisor/relay/rest.py:_entries",
    ),
    "pages of the relay from one cursor on; it ends at a page without progress and raises RestFailed to the retrier": (
        "supervisor/inbound/refetch.py:Refetch.find",
        "supervisor/inbound/refetch.py:Refetch.pages",
        "supervisor/inbound/held.py:HeldFetcher._fetch",
    ),
    "one private server at its start or one command to it, with the caller's time limit": (
        "host/embedded.py:command",
        "host/embedded.py:wait_ready",
    ),
    "a rotation's wait for the private server: what fails ends the command": (
        "supervisor/store/access.py:who_is_connected",
        "supervisor/store/access.py:rewrite_and_sync",
    ),
    "one reply, until it is sent, given up or lost; every RedisFailed is a further turn (tests/supervisor/outbound/test_outbound.py)": (
        "supervisor/outbound/taking.py:Taking._see_through",
    ),
    "one acknowledgement, until it is noted; every RedisFailed is a further turn or the resend's (tests/supervisor/outbound/test_delivery.py)": (
        "supervisor/outbound/delivery.py:Delivery._settle",
        "bus/steps/outbox.py:Outbox.leave_to_others",
    ),
    "what a handler has said, in its order, and its end, by until_redis_answers": (
        "workers/talk/sending.py:Sending._send_card",
        "workers/kept/store.py:StoreRun.change",
        "workers/talk/sending.py:Sending.emit_to",
        "workers/talk/sending.py:Sending.flush",
        "workers/talk/sending.py:Sending.update_card",
        "workers/process/runner.py:Runner._finish",
    ),
    "best effort, within the job: what Redis does not take is shown no more or later": (
        "workers/talk/chat.py:Chat._keep_typing",
        "workers/talk/typing.py:keep_typing",
        "workers/talk/progress.py:ProgressBar._look_for_stop",
        "workers/talk/stream.py:_Show.run",
    ),
    "an MCP server's connection, whatever it does: what ends it is named in the log, and it is made again; what it sends is read within bounds (tests/workers/mcp/test_connection.py, tests/test_mcp_client.py)": (
        "workers/mcp/connection.py:Connection.run",
        "workers/mcp/connection.py:Connection._connected",
        "workers/mcp/connection.py:Connection._keep_listed",
        "workers/mcp/connection.py:Connection._hand_over_soon",
        "workers/mcp/stdio.py:_hear",
        "workers/mcp/stdio.py:_say",
        "workers/mcp/http.py:_Counted.__aiter__",
        "workers/mcp/http.py:_Paced.__aiter__",
    ),
    "a language model's stream within the handler that asked; it has limits of its own (tests/workers/llm/test_endpoint.py)": (
        "workers/llm/endpoint.py:ModelEndpoint._read",
        "workers/llm/endpoint.py:_pass_on",
        "workers/llm/model.py:_pieces",
    ),
    "the rounds of a model's answer, each a turn that is noted; they have their number (tests/workers/tools/test_functions.py)": (
        "workers/llm/model.py:LLM.reply",
        "workers/llm/model.py:LLM.complete",
        "workers/llm/model.py:LLM.stream.ask",
    ),
    "before there is any part: waits for Redis, whatever it answers (RedisFailed), and says so (tests/supervisor/run/test_starting.py)": (
        "supervisor/run/app.py:_wait_for_redis",
        "supervisor/run/app.py:open_store",
        "supervisor/run/parts.py:Parts.open",
        "workers/process/worker.py:Worker._open_store",
        "supervisor/relay/slots.py:ConnectionSlot._nobody_is_connected",
    ),
    "one connection to the relay; its faults are in tests/supervisor/relay/test_connection.py, test_connection_ends.py, test_heartbeat.py and test_wire_guard.py": (
        "supervisor/relay/connection.py:Connection._keep",
        "supervisor/relay/connection.py:Connection._authenticate",
        "supervisor/relay/connection.py:Connection._read_until_lost",
        "supervisor/relay/connection.py:Connection._leave_when_stuck",
        "supervisor/relay/heartbeat.py:RelayHeartbeat.run",
        "supervisor/relay/heartbeat.py:RelayHeartbeat._until_silent",
        "supervisor/relay/heartbeat.py:RelayHeartbeat._answers",
        "supervisor/relay/connection.py:Connection._answer_pings",
        "supervisor/relay/guarded_stream.py:GuardedStream.receive_some",
        "supervisor/relay/websocket.py:WebSocket._closing_handshake",
    ),
    "the line of a command, or of an owner's program: whatever is no answer is NoAnswer, which says why (tests/supervisor/control/test_control_socket.py, tests/workers/test_outside.py)": (
        "bus/control/client.py:ControlLine._next_line",
    ),
    "asks the agent for a program by MCP: one that is away, or takes nothing in, is asked again within its time, and refusals are told (tests/supervisor/cli/test_mcp.py, tests/test_mcp_server.py)": (
        "supervisor/cli/mcp/agent_line.py:AgentLine.ask",
        "supervisor/cli/mcp/server.py:Tools._answer",
    ),
    "a command that shows something as long as it is told to: Redis that is away ends it with a word, and what it shows ends by itself (tests/test_from_outside.py)": (
        "supervisor/cli/outside/typing.py:_type",
        "supervisor/cli/outside/stream.py:_Shown.read_all",
    ),
    "answers somebody who watches a status, until they hang up": ("supervisor/control/control_socket.py:_repeat",),
    "of one drain, bounded by its time; RedisFailed is looked over (tests/supervisor, tests/test_kills.py)": (
        "supervisor/run/drain.py:_say_what_it_waits_for",
        "supervisor/run/drain.py:_wait_until_sent",
    ),
    "groups' rotations: a failure puts it back or leaves it to the next message (tests/supervisor/peers/test_group_keys.py)": (
        "supervisor/peers/groups.py:Groups._hear_of_rotations",
        "supervisor/peers/groups.py:Groups._ask_again",
    ),
    "once after a start; whatever the relay answers it is asked again, unless it refuses (tests/supervisor/run/test_announcing.py)": (
        "supervisor/run/announcing.py:announce",
    ),
    "relations as frames tell of them: RedisFailed has the whole list read again": (
        "supervisor/peers/relations.py:Relations._keep",
    ),
    "a proxy's answer to CONNECT, bounded in bytes and by the caller's time limit; it raises TunnelFailed (tests/supervisor)": (
        "supervisor/relay/tunnel.py:_ask",
    ),
    "looks every few minutes; a RestFailed or RedisFailed is looked over (tests/supervisor/peers/test_twins.py)": (
        "supervisor/peers/twins.py:TwinWatch.run",
    ),
    "measures once every few seconds; RedisFailed is looked over": ("supervisor/run/survey.py:Survey.run",),
    "one call of the file gate, or one file: a cut, a silence and whatever is no answer are a GateFailed (tests/workers/files/test_gate.py)": (
        "workers/files/gate.py:_Exchange.send",
        "workers/files/gate.py:_Exchange.hear",
        "workers/files/gate.py:_Exchange.body",
        "workers/files/gate.py:_Exchange.next",
        "workers/files/memory.py:MemoryGate.put",
    ),
    "the pieces of one file, of the loops over the gate; each ends with its file or its error (tests/workers/files)": (
        "workers/files/inbound.py:InboundFile.bytes",
        "workers/handling/blocking.py:_each",
        "workers/files/inbound.py:InboundFile.save",
        "workers/files/inbound.py:Texts.__anext__",
        "workers/files/reading.py:Opening.next",
        "workers/files/upload.py:_Opened.__anext__",
        "workers/files/upload.py:_seal_into",
        "workers/files/spool.py:SpooledPieces.__anext__",
    ),
    "what comes over the live channel; what is not readable is passed over (tests/supervisor/outbound/test_streams.py)": (
        "supervisor/outbound/streams.py:Streams.run",
    ),
}

# Over nothing outside
INSIDE: dict[str, tuple[str, ...]] = {
    "our own tasks and events": (
        "host/log_stream.py:LogQueue._run",
        "host/log_stream.py:LogQueue._start",
        "workers/talk/sending.py:SendSoon.run",
        "workers/process/slots.py:Slots._take",
        "workers/kept/thread.py:ThreadRun.until_steps_are_noted",
        "workers/kept/thread.py:ThreadRun.until_a_step_may_begin",
        "supervisor/relay/connection.py:Connection.wait_connected",
        "supervisor/inbound/lanes.py:Lanes._run_lane",
        "bus/transport/spare_tasks.py:SpareTasks._run",
        "supervisor/pool/pool.py:Pool.wait_until_ready",
        "supervisor/relay/slots.py:ConnectionSlot.take",
        "supervisor/relay/slots.py:ConnectionSlot.wait_standby",
        "supervisor/relay/slots.py:ConnectionSlot.lost",
        "supervisor/run/supervisor_control.py:SupervisorControl.answer_keeper",
    ),
    "our own clock and what this process knows": (
        "workers/process/overrun.py:OverrunWatch._look",
        "workers/process/long_runs.py:LongRuns.watch",
        "workers/process/worker.py:Worker._watch_threads",
        "workers/process/worker.py:Worker._leave_when_alone",
        "workers/process/runner.py:Runner._over_time",
        "supervisor/run/bulletin.py:Bulletin.run",
        "supervisor/run/starting.py:Starting._pulse",
        "supervisor/observe/health.py:Health.run",
        "supervisor/run/status.py:StatusDesk.run",
        "supervisor/keeper/keeper.py:Keeper._say_alive",
        "supervisor/files/process.py:Serving.until_idle",
        "supervisor/files/gate.py:Gate.until_quiet",
        "supervisor/keeper/supervisor_process.py:SupervisorProcess._watch",
        "supervisor/pool/process.py:WorkerProcess._watch",
    ),
    "an owner's test: all of it stands in the memory of this process (tests/workers/testing)": (
        "workers/testing/harness.py:Harness.advance",
        "workers/testing/house.py:House.hand_out",
        "workers/testing/lives.py:Life.take",
        "workers/testing/lives.py:Life.until_stop_is_pressed",
        "workers/testing/surviving.py:survives",
    ),
    "signals to this process": (
        "workers/process/worker.py:Worker._hear_signals",
        "supervisor/run/app.py:_Run._hear_stop_signal",
        "supervisor/run/app.py:_Run._obey_signals",
        "supervisor/run/starting.py:Starting._hear_a_stop",
        "supervisor/run/app.py:_leave_at_the_second_signal",
        "supervisor/keeper/keeper.py:Keeper._obey_signals",
        "supervisor/files/process.py:_cancel_on_signal",
    ),
    "children of this process, by the kernel's word": (
        "host/strays.py:reap_soon",
        "supervisor/run/app.py:_Run._reap_orphans",
        "supervisor/cli/as_init.py:run_as_init",
        "host/children.py:Children.reap_strangers_on_signal",
        "host/children.py:Children._reap_strangers",
        "supervisor/pool/pool.py:Pool._tend",
        "supervisor/pool/pool.py:Pool._staff",
        "supervisor/keeper/supervision.py:Supervision._keep_one",
        "supervisor/keeper/supervision.py:Supervision._run_current",
        "supervisor/keeper/redis_server.py:PrivateRedis.keep",
        "supervisor/keeper/files_gate.py:FilesGate.run",
    ),
    "files of this host: what fails is said and tried again (tests/host/test_embedded.py, tests/supervisor/pool/test_replacing.py)": (
        "host/embedded.py:rewrite_daily",
        "host/embedded.py:FileSync._run",
        "supervisor/keeper/redis_server.py:PrivateRedis.watch_files",
        "supervisor/files/process.py:_keep_counts",
        "supervisor/pool/reloading.py:Reloading.watch_files",
        "supervisor/keeper/state_directory.py:take_lock",
    ),
    "what a worker writes to its descriptor 2, any bytes, the last lines kept": (
        "supervisor/pool/last_words.py:StderrTail.read",
    ),
    "sends heartbeats to the supervisor; the end of the pipe ends the process": (
        "workers/process/control_link.py:ControlLink._write",
    ),
}

FILES = "tests/workers/files/test_reading.py"
ANSWERS_OF_A_GATE = "tests/workers/files/test_gate.py::test_an_answer_that_is_none_is_a_failure_that_may_pass"
BY_A_GATE = {
    Fault.GATE_REFUSED: f"{FILES}::test_what_does_not_get_better_is_not_tried_again",
    Fault.GATE_LIMITED: f"{FILES}::test_it_waits_as_long_as_the_relay_says",
    Fault.GATE_FAILED: f"{FILES}::test_a_gate_that_does_not_come_back_is_given_up_after_a_while",
    Fault.GATE_GONE: f"{FILES}::test_a_gate_that_dies_meanwhile_costs_one_retry",
    Fault.GATE_MALFORMED: ANSWERS_OF_A_GATE,
}
ROWS |= {
    "workers/files/reading.py:Fetch._read": held((Kind.GATE, BY_A_GATE)),
    "workers/files/upload.py:_patiently": held(
        (
            Kind.GATE,
            {
                Fault.GATE_REFUSED: "tests/workers/files/test_upload.py::test_one_that_is_forgotten_each_time_is_given_up",
                Fault.GATE_LIMITED: BY_A_GATE[Fault.GATE_LIMITED],
                Fault.GATE_FAILED: "tests/workers/files/test_upload.py::test_a_relay_that_is_away_has_the_job_come_again_and_go_on",
                Fault.GATE_GONE: "tests/workers/files/test_upload.py::test_a_gate_that_dies_costs_one_retry",
                Fault.GATE_MALFORMED: ANSWERS_OF_A_GATE,
            },
        )
    ),
}
ROWS |= {name: step(why) for why, names in STEPS.items() for name in names}
ROWS |= {name: here(why) for why, names in INSIDE.items() for name in names}
