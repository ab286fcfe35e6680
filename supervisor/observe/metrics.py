"""The metrics of one supervisor, in a registry of their own. Label values are from small, closed sets and never personal.

The six names of the platform's deployment page come first. Label values are bounded here, since what the relay sends is not.
"""

import time
from collections.abc import Iterable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from host.log_stream import lines_lost
from supervisor.observe.gauges import Gauges
from supervisor.observe.health import Check

CONVERSATION_TYPES = frozenset({"h2a", "group", "h2h"})
PAYLOAD_TYPES = frozenset({"text", "image", "video", "audio", "file", "artifact", "system"})
SEND_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000)
LLM_BUCKETS_MS = (100, 250, 500, 1000, 2500, 5000, 10000, 20000, 30000, 60000, 120000, 300000)
LLM_FIRST_TOKEN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
LATENESS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
LLM_TOKEN_KINDS = frozenset({"prompt", "completion"})
MOST_MODELS = 20
MOST_TOOLS = 50
"""Whose names are label values: a server may have any number of tools, and the rest are `other`."""
MOST_SERVERS = 50
CONNECTIONS_ENDED = frozenset({"connected", "lost", "failed"})
CALLS_ENDED = frozenset({"done", "error", "refused", "unanswered", "unknown"})
APPROVALS_ENDED = frozenset({"asked", "granted", "refused", "unanswered"})
BUDGETS_PER = frozenset({"sender", "agent"})
BUDGET_LIMITS = frozenset({"messages_per_minute", "messages_per_day", "tokens_per_day"})
LLM_METRICS = frozenset({"business_llm_duration_ms", "business_llm_first_token_seconds", "business_llm_tokens"})
DIRECTIONS = frozenset({"in", "out"})
FILE_FAILURES = frozenset(
    {
        *(
            "file_broken_changed",
            "file_broken_size",
            "file_broken_payload",
            "file_gone",
            "file_too_large",
            "file_not_text",
        ),
        *("file_daily_limit", "file_refused", "files_off", "files_unreachable", "spool_full", "spool_unusable"),
        *("file_not_saved", "bad_file", "spool_spoiled"),
    }
)
"""What workers say of files that failed (workers/files/files.py)."""
OTHER = "other"


class Metrics:
    """All metrics of a supervisor."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.gauges = Gauges()
        registry.register(self.gauges)
        self.connection_status = Gauge(
            "hashee_connection_status", "1 while the relay connection is authenticated, else 0", registry=registry
        )
        self._add_messages(registry)
        self.decrypt_failure = Counter(
            "hashee_decrypt_failure", "Messages that could not be read", ["reason"], registry=registry
        )
        self._add_models(registry)
        self._add_files(registry)
        self.job_attempts = Counter(
            "hashee_job_attempt",
            "Runs of a handler that ended, by outcome: done, failed",
            ["outcome"],
            registry=registry,
        )
        self.send_rate_waits = Counter(
            "hashee_send_rate_wait", "Sends that waited, since the agent had sent as much as it may", registry=registry
        )
        self.duplicates = Counter("hashee_message_duplicate", "Messages that were known already", registry=registry)
        self.late = Counter(
            "hashee_message_late", "Messages taken in after a later one of their conversation", registry=registry
        )
        self.refused = Counter(
            "hashee_message_refused", "Messages answered with a refusal, since too many waited", registry=registry
        )
        self.requeued = Counter(
            "hashee_message_requeued", "Messages that came out of quarantine", ["reason"], registry=registry
        )
        self.audited = Counter(
            "hashee_conversation_restarted", "Conversations that were busy with nothing under way", registry=registry
        )
        self._count_what_redis_lost(registry)
        self.frames_dropped = Counter("hashee_frame_dropped", "Frames passed over", ["reason"], registry=registry)
        self.log_lines_lost = Gauge(
            "hashee_log_lines_lost",
            "Lines of this supervisor's log that its reader was gone or too slow for, since its start",
            registry=registry,
        )
        self.log_lines_lost.set_function(lines_lost)
        self.spans_lost = Gauge(
            "hashee_trace_spans_lost",
            "Spans of this supervisor that OpenTelemetry's receiver never took, since its start",
            registry=registry,
        )
        self.reconnects = Counter("hashee_reconnect", "Relay connections that ended", registry=registry)
        self.resent = Counter("hashee_message_resent", "Sends repeated with the same bytes", registry=registry)
        self.reclaimed = Counter(
            "hashee_lease_reclaimed", "Jobs and replies taken from a dead or silent holder", ["kind"], registry=registry
        )
        self.dead_letters = Counter("hashee_dead_letter", "Jobs and replies given up", ["kind"], registry=registry)
        self._timers_fired = Counter(
            "hashee_timer_fired", "Timers that became a job, by kind: reminder, deadline", ["kind"], registry=registry
        )
        self._timer_lateness = Histogram(
            "hashee_timer_lateness_seconds",
            "How late timers became a job",
            buckets=LATENESS_BUCKETS,
            registry=registry,
        )
        self._show_what_holds(registry)
        self._count_what_is_bounded(registry)
        self.renegotiations = Counter(
            "hashee_session_renewed", "Sessions started because the sender's was out of step", registry=registry
        )
        self.group_keys_refused = Counter(
            "hashee_group_key_refused",
            "Keys of groups that were fetched and not accepted",
            ["reason"],
            registry=registry,
        )
        self.devices_left_out = Counter(
            "hashee_device_left_out", "Devices without a usable key at a send", registry=registry
        )
        self.worker_ends = Counter(
            "hashee_worker_end", "Worker processes that ended, by reason", ["reason"], registry=registry
        )
        self.worker_restarts = Counter(
            "hashee_worker_restart", "Workers started in place of another, by reason", ["reason"], registry=registry
        )
        self.workers_wanted = Gauge("hashee_workers_wanted", "Worker processes that there should be", registry=registry)
        self.worker_slots = Gauge(
            "hashee_worker_slots", "Jobs that the ready workers can run at a time", registry=registry
        )
        self.worker_crash_loop = Gauge(
            "hashee_worker_crash_loop", "1 while workers die faster than starting them again helps", registry=registry
        )
        self._worker_memory = Gauge(
            "hashee_worker_memory_bytes", "Resident memory of a worker, by its place", ["worker"], registry=registry
        )
        self._worker_lag = Gauge(
            "hashee_worker_loop_lag_seconds",
            "Lag of a worker's event loop, by its place",
            ["worker"],
            registry=registry,
        )
        self._workers: set[str] = set()
        self.worker_deaths = Counter(
            "hashee_worker_death", "Worker processes that ended by themselves", registry=registry
        )
        self.workers_ready = Gauge("hashee_workers_ready", "Worker processes that take jobs", registry=registry)
        self.redis_round_trip = Gauge(
            "hashee_redis_round_trip_seconds", "Duration of the last Redis command", registry=registry
        )
        self.grant_ledger_holds = Gauge(
            "hashee_grant_ledger_holds",
            "1 while the chain of the grant ledger verified at start, else 0",
            registry=registry,
        )
        self.old = Counter(
            "hashee_message_old",
            "Messages below what their conversation has come to that can no longer be read; noted, not kept",
            registry=registry,
        )
        self.one_time_prekeys_left = Gauge(
            "hashee_one_time_prekeys_left", "One-time prekeys that the relay can still hand out", registry=registry
        )
        self.twin = Gauge(
            "hashee_twin",
            "1 while another agent with this identity and another store publishes its keys at the relay, else 0",
            registry=registry,
        )
        self._models: set[str] = set()
        self.received = self.sent = 0

    def _add_models(self, registry: CollectorRegistry) -> None:
        self._llm_duration = Histogram(
            "business_llm_duration_ms",
            "Duration of a language model's answer, in milliseconds",
            ["model"],
            buckets=LLM_BUCKETS_MS,
            registry=registry,
        )
        self._llm_first_token = Histogram(
            "business_llm_first_token_seconds",
            "From a question to a language model to the first piece of its answer",
            ["model"],
            buckets=LLM_FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._llm_tokens = Counter(
            "business_llm_tokens",
            "Tokens that a language model read (prompt) and wrote (completion)",
            ["model", "kind"],
            registry=registry,
        )
        self._tool_calls = Counter(
            "business_tool_calls",
            "Tools that a language model called, by how it ended: done, error, refused or unanswered (by a person), unknown",
            ["tool", "outcome"],
            registry=registry,
        )
        self._approvals = Counter(
            "business_approvals",
            "What people were asked before a tool runs, and said: asked, granted, refused, unanswered",
            ["outcome"],
            registry=registry,
        )
        self._tools: set[str] = set()
        self._mcp_up = Gauge(
            "business_mcp_up",
            "1 while an MCP server is connected, else 0, as the worker saw it that connected or lost it last",
            ["server"],
            registry=registry,
        )
        self._mcp_connections = Counter(
            "business_mcp_connections",
            "Connections of workers to an MCP server, by what became of them: connected, lost, failed before it was one",
            ["server", "outcome"],
            registry=registry,
        )
        self._mcp_calls = Counter(
            "business_mcp_calls",
            "Calls that reached an MCP server or were on their way, by how they ended: done, error, unknown",
            ["server", "outcome"],
            registry=registry,
        )
        self._servers: set[str] = set()

    def _add_files(self, registry: CollectorRegistry) -> None:
        self._file_bytes = Counter(
            "hashee_worker_file_bytes",
            "Bytes of files that handlers read (in) and sent (out), without what sealing adds",
            ["direction"],
            registry=registry,
        )
        self._files = Counter(
            "hashee_worker_files",
            "Files that handlers read to their end (in), or sent (out)",
            ["direction"],
            registry=registry,
        )
        self._file_failures = Counter(
            "hashee_worker_file_failures",
            "Files that handlers could not read (in) or send (out), by reason",
            ["direction", "reason"],
            registry=registry,
        )

    def _add_messages(self, registry: CollectorRegistry) -> None:
        """Adds the metrics that each message changes."""
        self._inbound = Counter(
            "hashee_message_inbound", "Messages taken in", ["conv_type", "payload_type"], registry=registry
        )
        self._outbound = Counter(
            "hashee_message_outbound",
            "Messages that the relay has acknowledged",
            ["conv_type", "payload_type"],
            registry=registry,
        )
        self._send_duration = Histogram(
            "hashee_send_duration_ms",
            "From a handler's reply to the relay's acknowledgement, in milliseconds",
            ["conv_type"],
            buckets=SEND_BUCKETS_MS,
            registry=registry,
        )
        # Children are kept here by their few labels: looking them up in the library costs as much as a command to Redis.
        self._inbound_of = cache(self._inbound.labels)
        self._outbound_of = cache(self._outbound.labels)
        self._send_duration_of = cache(self._send_duration.labels)

    def _show_what_holds(self, registry: CollectorRegistry) -> None:
        self.caught_up = Gauge(
            "hashee_caught_up_timestamp_seconds",
            "When the last poll of the relay came to the present, or the start of the process before that",
            registry=registry,
        )
        self.caught_up.set(time.time())
        self._check_ok = Gauge(
            "hashee_check_ok",
            "1 while this check of readiness holds, else 0; /readyz says why not",
            ["check"],
            registry=registry,
        )

    def _count_what_redis_lost(self, registry: CollectorRegistry) -> None:
        self.went_back = Counter(
            "hashee_redis_went_back", "How often Redis was found to hold an older state", registry=registry
        )
        self.unproven = Counter(
            "hashee_redis_unproven",
            "How often nothing proved that Redis had lost nothing, so that sessions were started anew",
            registry=registry,
        )
        self.forgotten_sends = Counter(
            "hashee_forgotten_sends",
            "How often the relay counted more messages of ours in a conversation than are known here, so that its sessions were started anew",
            registry=registry,
        )

    def _count_what_is_bounded(self, registry: CollectorRegistry) -> None:
        self._budget_refusals = Counter(
            "business_budget_refusals",
            "Messages that were beyond a budget, reached no handler and asked no model",
            ["per", "limit"],
            registry=registry,
        )
        self.held = Counter(
            "hashee_message_held",
            "Messages that were told to wait at the relay, since their sender has too much waiting, or is not known yet",
            registry=registry,
        )
        self.fetched = Counter(
            "hashee_message_fetched", "Messages that have waited at the relay and were fetched", registry=registry
        )
        self.overflowed = Counter(
            "hashee_overflowed",
            "Dead letters and quarantined messages that were given up, the oldest first, since there were too many",
            ["kind"],
            registry=registry,
        )

    def inbound(self, conversation_type: str, payload_type: str) -> None:
        """Counts a message that was taken in."""
        self.received += 1
        self._inbound_of(_bounded(conversation_type, CONVERSATION_TYPES), _payload(payload_type)).inc()

    def outbound(self, conversation_type: str, payload_type: str, duration_ms: float) -> None:
        """Counts a message that the relay has acknowledged."""
        self.sent += 1
        kind = _bounded(conversation_type, CONVERSATION_TYPES)
        self._outbound_of(kind, _payload(payload_type)).inc()
        self._send_duration_of(kind).observe(duration_ms)

    def timer_fired(self, kind: str, late_seconds: float) -> None:
        """Counts a timer that became a job."""
        self._timers_fired.labels(kind).inc()
        self._timer_lateness.observe(late_seconds)

    def show_checks(self, checks: Iterable[Check]) -> None:
        """Shows the checks of readiness."""
        for check in checks:
            self._check_ok.labels(check.name).set(check.ok)

    def workers(self, vitals: Sequence[tuple[int, int, float]]) -> None:
        """Shows place, memory in bytes and lag in seconds of each worker; at most 256 places."""
        seen = {str(place) for place, _memory, _lag in vitals}
        for gone in self._workers - seen:
            self._worker_memory.remove(gone)
            self._worker_lag.remove(gone)
        for place, memory, lag in vitals:
            self._worker_memory.labels(str(place)).set(memory)
            self._worker_lag.labels(str(place)).set(lag)
        self._workers = seen

    def observe(self, metric: str, labels: dict[str, str], value: float) -> None:
        """Takes a worker's observation; ignores an unknown metric, since workers may be of a newer release."""
        model = self._model(labels.get("model", OTHER)) if metric in LLM_METRICS else OTHER
        match metric:
            case "business_llm_duration_ms":
                self._llm_duration.labels(model).observe(value)
            case "business_llm_first_token_seconds":
                self._llm_first_token.labels(model).observe(value)
            case "business_llm_tokens":
                self._llm_tokens.labels(model, _bounded(labels.get("kind", OTHER), LLM_TOKEN_KINDS)).inc(
                    max(0.0, value)
                )
            case "business_budget_refusals":
                per, limit = (labels.get(name, OTHER) for name in ("per", "limit"))
                self._budget_refusals.labels(_bounded(per, BUDGETS_PER), _bounded(limit, BUDGET_LIMITS)).inc()
            case "business_tool_calls":
                outcome = _bounded(labels.get("outcome", OTHER), CALLS_ENDED)
                self._tool_calls.labels(self._tool(labels.get("tool", "")), outcome).inc()
            case "business_mcp_connections" | "business_mcp_calls":
                self._observe_server(metric, labels)
            case "business_approvals":
                self._approvals.labels(_bounded(labels.get("outcome", OTHER), APPROVALS_ENDED)).inc()
            case "worker_file_bytes":
                self._file_bytes.labels(_bounded(labels.get("direction", OTHER), DIRECTIONS)).inc(max(0.0, value))
            case "worker_files":
                self._files.labels(_bounded(labels.get("direction", OTHER), DIRECTIONS)).inc(max(0.0, value))
            case "worker_file_failures":
                direction = _bounded(labels.get("direction", OTHER), DIRECTIONS)
                reason = _bounded(labels.get("reason", OTHER), FILE_FAILURES)
                self._file_failures.labels(direction, reason).inc(max(0.0, value))

    def _observe_server(self, metric: str, labels: dict[str, str]) -> None:
        server, outcome = _one_of(self._servers, labels.get("server", ""), MOST_SERVERS), labels.get("outcome", OTHER)
        if metric == "business_mcp_calls":
            self._mcp_calls.labels(server, _bounded(outcome, CALLS_ENDED)).inc()
            return
        self._mcp_connections.labels(server, _bounded(outcome, CONNECTIONS_ENDED)).inc()
        self._mcp_up.labels(server).set(outcome == "connected")

    def _tool(self, name: str) -> str:
        return _one_of(self._tools, name, MOST_TOOLS)

    def _model(self, name: str) -> str:
        return _one_of(self._models, name, MOST_MODELS)


def _one_of(known: set[str], name: str, most: int) -> str:
    """Returns a name that is a label value, of so many at most; the others are one."""
    if not name or (name not in known and len(known) >= most):
        return OTHER
    known.add(name)
    return name


def _bounded(value: str, known: frozenset[str]) -> str:
    return value if value in known else OTHER


def _payload(payload_type: str) -> str:
    return _bounded(payload_type, PAYLOAD_TYPES)
