"""The rooms of the product, from the top down: a room imports only rooms that stand below it. docs/design.md shows them.

What a room may not import although it stands below is in `NEVER`; an import inside a function is in `DEFERRED` with its reason.
"""

from __future__ import annotations

from typing import Final

ROOMS: Final = (
    "supervisor.cli",
    "supervisor.doctor",
    "supervisor.backup",
    "supervisor.store",
    "supervisor.run",
    "supervisor.inbound",
    "supervisor.outbound",
    "supervisor.peers",
    "supervisor.recovery",
    "supervisor.files",
    "sandbox",
    "supervisor.relay",
    "supervisor.pool",
    "supervisor.keeper",
    "supervisor.observe",
    "supervisor.control",
    "supervisor.settings",
    "workers.testing",
    "workers",
    "workers.process",
    "workers.handling",
    "workers.mcp",
    "workers.llm",
    "workers.tools",
    "workers.talk",
    "workers.files",
    "workers.kept",
    "workers.errors",
    "bus.whole",
    "bus.views",
    "bus.memory",
    "bus.steps",
    "bus.transport",
    "bus.telemetry",
    "bus.control",
    "bus.files",
    "bus.settings",
    "bus.records",
    "crypto",
    "host",
)
"""The rule of each is the first line of its `__init__.py`; `workers.errors` is a single file, and its rule that file's first line."""

KEYS: Final = (
    "crypto",
    "supervisor.settings.key_settings",
    "supervisor.settings.keystore_files",
    "supervisor.settings.supervisor",
)
"""What holds a private key, or reads one."""

KEY_TYPES: Final = ("supervisor.settings.secrets", "bus.records.sealing")
"""What a key is wrapped in. The readers of settings know it, and the keeper reads settings: it may reach these, and imports none itself."""

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
    "supervisor.keeper": (*KEYS, *KEY_TYPES, "supervisor.pool", "bus.records.records", "bus.steps"),
    "supervisor.files": (*KEYS, "supervisor.peers", "bus.records", "bus.steps", "bus.transport"),
    "supervisor.pool": MESSAGES,
    "workers": ("supervisor", "crypto"),
    "bus": ("crypto",),
    "sandbox": ("supervisor.settings", "supervisor.observe", "supervisor.pool", "supervisor.keeper"),
}

MAY: Final[dict[tuple[str, str], str]] = {
    (
        "workers.files",
        "crypto.files",
    ): "a file is sealed and opened where it is made and read: its key is in the payload, which the worker has anyway, "
    "and no byte of it goes through Redis or the supervisor. It knows no identity and no session.",
}
"""What a room may import although `NEVER` has it, each with its reason: that one module, from that one room."""

RECORDS_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "supervisor.pool": ("bus.records.control", "bus.records.sealing"),
    "supervisor.keeper": (),
}
"""What these rooms may import of bus/records/, where nearly every file is about messages; a new file is about them until it is named here."""

DEFERRED: Final[dict[tuple[str, str], str]] = {
    ("sandbox.__main__", "host.parent_death"): "each subcommand of the sandbox loads what it needs alone",
    ("sandbox.__main__", "sandbox.chaos_proxy"): "as above",
    ("sandbox.__main__", "sandbox.console"): "as above",
    ("sandbox.__main__", "sandbox.start_a_project"): "as above",
    ("sandbox.__main__", "sandbox.demo"): "as above",
    ("sandbox.__main__", "sandbox.drill"): "as above",
    ("sandbox.__main__", "sandbox.relay.serve"): "as above",
    ("sandbox.__main__", "sandbox.say"): "as above",
    ("supervisor.cli.mcp.mcp", "supervisor.cli.mcp.server"): "loads mcp, which is an extra",
    ("supervisor.observe.tracing", "bus.telemetry.encoding"): "loads OpenTelemetry, which is an extra",
    ("supervisor.observe.tracing", "supervisor.observe.otlp_metrics"): "loads OpenTelemetry, which is an extra",
    ("workers.mcp.server", "workers.mcp.connection"): "loads mcp, which is an extra",
    ("workers.process.open_tracing", "workers.process.live_tracing"): "loads OpenTelemetry, which is an extra",
}
"""Imports that are not at the top of their file, each with its reason."""
