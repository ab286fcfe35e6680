"""Reads a worker's settings once at its start: from the command line (under a supervisor) or the environment (alone).

Secrets come by an inherited descriptor or the environment, never by the command line, which everybody on the host can read; the Redis
URL is an option only for tests and local use.
"""

import argparse
import os
import secrets
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field

from bus.records.sealing import KEY_BYTES, BusKey
from bus.settings import shared
from bus.settings.files_place import FilesPlace, files_place_of
from bus.settings.reader import SettingsError, SettingsReader
from bus.settings.shared import BUS_KEY, CONCURRENCY, HANDLER, OWN_REDIS, REDIS_URL
from bus.settings.spool_place import SpoolPlace, spool_place_of
from bus.telemetry.settings import NowhereToSend, TelemetrySettings, telemetry_of


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that a worker process needs. `control_fd`, `parent_pid` and `number` (its place in the pool) are None without a supervisor,
    `files` (where the file gate is) where there is none.
    """

    agent_id: str
    redis_url: str = field(repr=False)
    has_own_redis: bool = False
    bus_key: BusKey
    handler: str
    concurrency: int
    retry_after_seconds: tuple[float, ...]
    job_seconds: float
    retries_timeouts: bool
    shows_errors: bool = False
    log_level: str
    log_format: str
    consumer: str
    control_fd: int | None = None
    parent_pid: int | None = None
    number: int | None = None
    report_files: bool = False
    telemetry: TelemetrySettings | NowhereToSend | None = None
    files: FilesPlace | None = None
    spool: SpoolPlace


def read_settings(options: argparse.Namespace, environ: MutableMapping[str, str]) -> WorkerSettings:
    """Reads them, and removes our secrets from `environ`, so that the owner's child processes do not get them. Raises SettingsError."""
    given = {HANDLER: options.handler, CONCURRENCY: options.concurrency, REDIS_URL: options.redis}
    reader = SettingsReader({**environ, **{setting.name: text for setting, text in given.items() if text is not None}})
    raw_key = shared.bus_key_of(reader) if options.bus_key_fd is None else _inherited_key(options.bus_key_fd)
    settings = WorkerSettings(
        agent_id=shared.agent_id_of(reader),
        redis_url=shared.redis_url_of(reader),
        has_own_redis=OWN_REDIS in environ,
        bus_key=BusKey(raw_key),
        handler=shared.handler_of(reader) or shared.default_handler(environ),
        concurrency=shared.concurrency_of(reader),
        retry_after_seconds=shared.retry_seconds_of(reader),
        job_seconds=shared.job_seconds_of(reader),
        retries_timeouts=shared.retries_timeouts_of(reader),
        shows_errors=shared.shows_errors_of(reader),
        log_level=shared.log_level_of(reader),
        log_format=shared.log_format_of(reader),
        consumer=options.consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        control_fd=options.control_fd,
        parent_pid=options.parent_pid,
        number=options.number,
        report_files=options.report_files,
        telemetry=telemetry_of(reader),
        files=files_place_of(reader),
        spool=spool_place_of(reader, shared.agent_id_of(reader)),
    )
    reader.finish()
    environ.pop(BUS_KEY.name, None)
    environ.pop(REDIS_URL.name, None)
    environ.pop(OWN_REDIS, None)
    return settings


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; argparse ends the process with exit code 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m workers", description="Runs an agent's handlers.", allow_abbrev=False
    )
    parser.add_argument(
        "--handler", metavar="MODULE:ATTRIBUTE", help="the agent (else HASHEE_HANDLER, else a built-in)"
    )
    parser.add_argument("--concurrency", metavar="N", help="jobs at once (else HASHEE_CONCURRENCY, else 64)")
    parser.add_argument("--redis", metavar="URL", help="else HASHEE_REDIS_URL[_FILE]")
    parser.add_argument("--consumer", metavar="NAME", help="unique per process start (else made up)")
    parser.add_argument(
        "--bus-key-fd", type=int, metavar="FD", help="32 raw bytes (else HASHEE_BUS_KEY[_FILE], base64)"
    )
    parser.add_argument("--control-fd", type=int, metavar="FD", help="the pipe to the supervisor")
    parser.add_argument("--log-fd", type=int, metavar="FD", help="where the log goes (else to stderr)")
    parser.add_argument("--number", type=int, metavar="N", help="its place in the supervisor's pool")
    parser.add_argument("--report-files", action="store_true", help="tell which files the handler came from")
    parser.add_argument("--parent-pid", type=int, metavar="PID", help="die with this parent")
    return parser.parse_args(arguments)


def _inherited_key(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        raw = pipe.read(KEY_BYTES + 1)
    if len(raw) != KEY_BYTES:
        raise SettingsError("--bus-key-fd", f"{KEY_BYTES} raw bytes, then the end")
    return raw
