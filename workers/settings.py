"""What a worker process is told, by its command line (from a supervisor) or its environment (alone). Read once, at the edge.

Secrets come by an inherited descriptor or the environment, never by the command line, which everybody on the host can read;
the Redis URL is there only for tests and local use.
"""

import argparse
import base64
import binascii
import os
import secrets
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus.redis_url import FORM, BadRedisUrl, parse_redis_url
from bus.sealing import KEY_BYTES, BusKey
from workers.builtin import default_handler
from workers.runner import JOB_SECONDS, RETRY_AFTER_SECONDS

DEFAULT_CONCURRENCY = 16
MOST_CONCURRENCY = 1024
MOST_RETRIES = 19
LONGEST_WAIT_SECONDS = 86_400


class SettingsError(Exception):
    """A setting that is missing or malformed: its name and what it should look like, never its value."""

    def __init__(self, name: str, expectation: str) -> None:
        super().__init__(f"{name}: {expectation}")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that a worker process needs. `control_fd` and `parent_pid` are None for one without a supervisor.

    `number`: its place in the supervisor's pool, None without one.
    """

    agent_id: str
    redis_url: str = field(repr=False)
    bus_key: BusKey
    handler: str
    concurrency: int = DEFAULT_CONCURRENCY
    retry_after_seconds: tuple[float, ...] = RETRY_AFTER_SECONDS
    job_seconds: float = JOB_SECONDS
    retries_timeouts: bool = False
    consumer: str
    control_fd: int | None = None
    parent_pid: int | None = None
    number: int | None = None
    report_files: bool = False


def read_settings(options: argparse.Namespace, environ: MutableMapping[str, str]) -> WorkerSettings:
    """Raises SettingsError. Takes our secrets out of `environ`, so that the owner's child processes do not get them."""
    redis_url = options.redis or _secret(environ, "HASHEE_REDIS_URL") or environ.get("REDIS_URL", "")
    if not redis_url:
        raise SettingsError("HASHEE_REDIS_URL", FORM)
    try:
        parse_redis_url(redis_url)
    except BadRedisUrl as problem:
        raise SettingsError("HASHEE_REDIS_URL", str(problem)) from None
    agent_id = environ.get("HASHEE_AGENT_ID", "")
    if not agent_id:
        raise SettingsError("HASHEE_AGENT_ID", "the agent's id, a UUID in lower case")
    key = _bus_key(options.bus_key_fd, environ)
    environ.pop("HASHEE_BUS_KEY", None)
    environ.pop("HASHEE_REDIS_URL", None)
    return WorkerSettings(
        agent_id=agent_id,
        redis_url=redis_url,
        bus_key=key,
        handler=options.handler or environ.get("HASHEE_HANDLER") or default_handler(environ),
        concurrency=_concurrency(options.concurrency, environ),
        retry_after_seconds=parse_waits(environ.get("HASHEE_RETRY_SECONDS", ""), RETRY_AFTER_SECONDS),
        job_seconds=parse_job_seconds(environ.get("HASHEE_JOB_SECONDS", ""), JOB_SECONDS),
        retries_timeouts=environ.get("HASHEE_RETRY_TIMEOUTS") == "on",
        consumer=options.consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        control_fd=options.control_fd,
        parent_pid=options.parent_pid,
        number=options.number,
        report_files=options.report_files,
    )


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; argparse ends the process with exit code 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m workers", description="Runs an agent's handlers.", allow_abbrev=False
    )
    parser.add_argument(
        "--handler", metavar="MODULE:ATTRIBUTE", help="the agent (else HASHEE_HANDLER, else a built-in)"
    )
    parser.add_argument("--concurrency", type=int, metavar="N", help="jobs at once (else HASHEE_CONCURRENCY, else 16)")
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


def parse_waits(text: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """HASHEE_RETRY_SECONDS: seconds with commas, `none` for no retry. Raises SettingsError."""
    if not text:
        return default
    if text == "none":
        return ()
    try:
        waits = tuple(float(part) for part in text.split(","))
    except ValueError:
        waits = (-1.0,)
    if len(waits) > MOST_RETRIES or not all(0 <= wait <= LONGEST_WAIT_SECONDS for wait in waits):
        raise SettingsError("HASHEE_RETRY_SECONDS", "up to 19 waits in seconds (to 86400) with commas, or none")
    return waits


def parse_job_seconds(text: str, default: float) -> float:
    """HASHEE_JOB_SECONDS. Raises SettingsError."""
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= LONGEST_WAIT_SECONDS:
        raise SettingsError("HASHEE_JOB_SECONDS", "seconds, 0.1 to 86400")
    return seconds


def _concurrency(given: int | None, environ: Mapping[str, str]) -> int:
    expectation = f"a whole number from 1 to {MOST_CONCURRENCY}"
    try:
        number = given if given is not None else int(environ.get("HASHEE_CONCURRENCY") or DEFAULT_CONCURRENCY)
    except ValueError:
        raise SettingsError("HASHEE_CONCURRENCY", expectation) from None
    if not 1 <= number <= MOST_CONCURRENCY:
        raise SettingsError("HASHEE_CONCURRENCY", expectation)
    return number


def _bus_key(descriptor: int | None, environ: Mapping[str, str]) -> BusKey:
    if descriptor is not None:
        with os.fdopen(descriptor, "rb") as pipe:
            raw = pipe.read(KEY_BYTES + 1)
        if len(raw) != KEY_BYTES:
            raise SettingsError("--bus-key-fd", f"{KEY_BYTES} raw bytes, then the end")
        return BusKey(raw)
    expectation = "base64 of the 32-byte bus key of this agent"
    try:
        raw = base64.b64decode(_secret(environ, "HASHEE_BUS_KEY") or "", validate=True)
    except binascii.Error:
        raise SettingsError("HASHEE_BUS_KEY", expectation) from None
    if len(raw) != KEY_BYTES:
        raise SettingsError("HASHEE_BUS_KEY", expectation)
    return BusKey(raw)


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    """The variable, else the file that NAME_FILE names, else systemd's credential of that name."""
    if value := environ.get(name):
        return value
    candidates = [Path(environ[f"{name}_FILE"])] if environ.get(f"{name}_FILE") else []
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        candidates += [Path(directory) / name, Path(directory) / name.lower()]
    for path in candidates:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return None
