"""The rooms of the product, from the top down: a room imports only rooms that stand below it. docs/design.md shows this table.

What a room may not import although it stands below is in `NEVER`; an import inside a function is in `DEFERRED` with its reason.
"""

from __future__ import annotations

from typing import Final

ROOMS: Final[dict[str, str]] = {
    "supervisor.cli": "an operator's words; nothing is decided here",
    "supervisor.doctor": "what could be wrong with an installation, each thing looked at by itself",
    "supervisor.backup": "an agent's whole state in one file, and back",
    "supervisor.store": "how a command reaches the store, and changes its secret",
    "supervisor.run": "puts one supervisor together and takes it apart",
    "supervisor.inbound": "frame → job, or quarantine",
    "supervisor.outbound": "reply → acknowledgement",
    "supervisor.peers": "who somebody is, and under which keys",
    "supervisor.recovery": "what happened to Redis and to time meanwhile",
    "sandbox": "a relay and people, for trying an agent without the platform",
    "supervisor.relay": "the wire and nothing else",
    "supervisor.pool": "keeps workers alive; knows no message",
    "supervisor.keeper": "the process that knows no key",
    "supervisor.observe": "what can be seen from outside",
    "supervisor.control": "the two small protocols between processes",
    "supervisor.settings": "every setting, once",
    "workers": "runs the owner's code; the API that it is written against",
    "bus.whole": "the whole store at once: re-sealed, saved, restored",
    "bus.views": "what stands in Redis, in numbers and lines",
    "bus.steps": "each step of a message as one typed operation over one script",
    "bus.transport": "commands and streams to and from Redis",
    "bus.telemetry": "traces and metrics on their way out of a process",
    "bus.settings": "how a setting is found and checked, and those that supervisor and worker share",
    "bus.records": "what lies in Redis: keys, records, sealing",
    "crypto": "the six layers; values in, values out",
    "host": "the machine: processes, files, sockets, memory",
}

KEYS: Final = (
    "crypto",
    "supervisor.settings.key_settings",
    "supervisor.settings.keystore_files",
    "supervisor.settings.supervisor",
)
"""What holds a private key, or reads one."""

MESSAGES: Final = (
    "crypto",
    "supervisor.relay",
    "supervisor.peers",
    "supervisor.inbound",
    "supervisor.outbound",
    "bus.records.records",
    "bus.steps",
)
"""What knows of messages."""

NEVER: Final[dict[str, tuple[str, ...]]] = {
    "supervisor.inbound": ("supervisor.outbound",),
    "supervisor.outbound": ("supervisor.inbound",),
    "supervisor.keeper": (*KEYS, "supervisor.pool", "bus.records.records", "bus.steps"),
    "supervisor.pool": MESSAGES,
    "workers": ("supervisor", "crypto"),
    "bus": ("crypto",),
    "sandbox": ("supervisor.settings", "supervisor.observe", "supervisor.pool", "supervisor.keeper"),
}

DEFERRED: Final[dict[tuple[str, str], str]] = {
    ("sandbox.__main__", "host.parent_death"): "each subcommand of the sandbox loads what it needs alone",
    ("sandbox.__main__", "sandbox.chaos_proxy"): "as above",
    ("sandbox.__main__", "sandbox.demo"): "as above",
    ("sandbox.__main__", "sandbox.drill"): "as above",
    ("sandbox.__main__", "sandbox.relay.serve"): "as above",
    ("sandbox.__main__", "sandbox.say"): "as above",
    ("supervisor.observe.tracing", "bus.telemetry.encoding"): "loads OpenTelemetry, which is an extra",
    ("supervisor.observe.tracing", "supervisor.observe.otlp_metrics"): "loads OpenTelemetry, which is an extra",
    ("workers.open_tracing", "workers.live_tracing"): "loads OpenTelemetry, which is an extra",
}
"""Imports that are not at the top of their file, each with its reason."""
