"""Modules that decide something and have no mutant, each group with the reason. A folder stands for all that is in it."""

from __future__ import annotations

from typing import Final

EXEMPT: Final[dict[str, tuple[str, ...]]] = {
    "it carries bytes and decides nothing about a message; real sockets, a real Redis and the fault table hold it": (
        *("bus/transport/client.py", "bus/transport/at_once.py", "bus/transport/link.py", "bus/transport/wire.py", "host/lines.py", "host/log_stream.py", "bus/transport/readers.py"),
        *("bus/telemetry/receiver.py", "bus/telemetry/encoding.py"),
        *("bus/transport/route.py", "host/socket_place.py", "bus/transport/leases.py", "bus/transport/asked_node.py", "bus/transport/backoff.py", "bus/transport/trouble.py", "bus/transport/refusals.py"),
        *("supervisor/relay/websocket.py", "supervisor/relay/guarded_stream.py", "supervisor/relay/tunnel.py", "supervisor/observe/http.py"),
        *("host/bounded_listener.py",),
        *("supervisor/keeper/notify.py", "supervisor/control/keeper_link.py"),
        *("supervisor/control/control_socket.py", "supervisor/recovery/redis_trouble.py"),
    ),
    "the typed half of scripts: what is checked before something is written stands in these, and is switched off there": (
        *("bus/steps/store.py", "bus/steps/letters.py", "bus/steps/vault.py", "bus/steps/slots.py", "bus/steps/jobs.py", "bus/steps/job_steps.py", "bus/steps/timers.py"),
        *("bus/steps/policies.py", "bus/steps/outside.py", "bus/scripts/whole/reseal_copy.lua"),
        *("bus/records/keys.py",),
        *("bus/whole/reseal.py", "bus/steps/seal.py"),
    ),
    "the bus in memory: what tests/bus says of the scripts it says of this too, whose own guards are switched off": (
        *("bus/memory/outbound.py", "bus/memory/outside.py", "bus/memory/placing.py", "bus/memory/recovery.py"),
    ),
    "it starts, watches and ends processes: real ones hold it, which take too long to be run once for each guard": (
        *("host/embedded.py", "host/parent_death.py", "host/process_end.py", "host/strays.py", "host/stacks.py", "host/forks.py"),
        *("host/tuning.py", "host/lean_imports.py", "supervisor/__main__.py", "supervisor/run/app.py"),
        *("supervisor/run/core.py", "supervisor/run/parts.py", "supervisor/run/drain.py", "supervisor/keeper/supervisor_process.py", "supervisor/keeper/supervision.py"),
        *("supervisor/files/process.py", "supervisor/keeper/files_gate.py"),
        *("supervisor/keeper/keeper.py", "host/children.py", "supervisor/keeper/answering.py"),
        *("supervisor/pool/pool.py", "supervisor/pool/pool_settings.py", "supervisor/pool/places.py", "supervisor/pool/process.py"),
        *("supervisor/keeper/redis_server.py", "supervisor/pool/reloading.py", "supervisor/run/operator.py"),
        *("supervisor/run/supervisor_control.py", "supervisor/pool/last_words.py"),
        *("supervisor/pool/worker_order.py", "supervisor/pool/workforce.py", "host/instance.py", "supervisor/run/starting.py"),
    ),
    "it reads what an owner wrote or finds what the machine has: tables of cases hold it, one for each branch": (
        *("bus/settings/reader.py", "bus/settings/shared.py", "bus/settings/llm.py", "bus/settings/redis_url.py", "bus/settings/url_parts.py", "bus/settings/files_place.py", "supervisor/settings/files.py", "host/entrance.py"),
        *("host/reasons.py", "supervisor/settings/supervisor.py", "supervisor/settings/worker.py", "bus/settings/places.py", "supervisor/settings/env_files.py"),
        *("supervisor/settings/manifest.py", "supervisor/settings/misspelt.py"),
        *("supervisor/settings/parsers.py", "supervisor/settings/key_settings.py", "host/code_place.py"),
        *("supervisor/keeper/state_directory.py", "bus/settings/state_place.py", "host/private_files.py", "host/whole_file.py", "host/append_only.py", "bus/scripts/vault/owner_rows.lua", "bus/scripts/outside/read_conversations.lua"),
        *("supervisor/settings/keystore_files.py", "supervisor/settings/secrets.py", "supervisor/store/access.py"),
        *("supervisor/store/rotation.py", "bus/settings/redis_tls.py", "supervisor/backup/settings.py", "supervisor/settings/backup_age.py"),
        *("bus/telemetry/settings.py", "bus/settings/spool_place.py", "host/own_folder.py", "supervisor/settings/process_limits.py"),
    ),
    "it shows what is there and changes nothing of it": (
        *("bus/views/backlog.py", "bus/views/conversations.py", "bus/views/overview.py", "bus/views/trace.py", "supervisor/cli/", "supervisor/run/status.py"),
        *("supervisor/files/counts.py",),
        *("supervisor/observe/metrics.py", "supervisor/observe/gauges.py", "supervisor/run/survey.py", "supervisor/run/all_workers.py", "supervisor/observe/logs.py"),
        *("supervisor/run/bulletin.py", "supervisor/observe/remedies.py", "supervisor/inbound/evidence.py"),
        *("supervisor/doctor/", "bus/transport/clock.py", "supervisor/backup/counts.py"),
        *("supervisor/observe/tracing.py", "supervisor/observe/otlp_metrics.py"),
    ),
    "it takes bytes apart that others made: generated and broken ones hold it, each byte turned and each length cut": (
        *("bus/records/records.py", "bus/records/journal.py", "bus/records/sealing.py", "supervisor/relay/frames.py", "supervisor/relay/answers.py", "supervisor/relay/listing.py"),
        "supervisor/relay/ids.py",
    ),
}  # fmt: skip
