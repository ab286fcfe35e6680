"""Every setting of the program, as one typed frozen value per process, read once from a mapping.

The keeper's value holds no secret and reading it opens no file that could hold one. The supervisor's holds
all. Which names there are, what each should look like and what it is without being set stands in the table
below (those that workers read too: bus/settings/shared.py) and nowhere else; docs/settings.md is compared with it by a test. Look-up: bus/settings/reader.py.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings import shared
from bus.settings.reader import Setting, SettingsError, SettingsReader, number, one_of, whole_number
from bus.settings.redis_tls import REDIS_CA, REDIS_CERT, REDIS_KEY
from bus.settings.shared import (
    AGENT_ID,
    BUS_KEY,
    CONCURRENCY,
    HANDLER,
    JOB_SECONDS,
    LOG_FORMAT,
    LOG_LEVEL,
    REDIS_URL,
    RETRY_SECONDS,
    RETRY_TIMEOUTS,
    agent_id_of,
)
from bus.telemetry.settings import ALL as TELEMETRY_SETTINGS
from bus.telemetry.settings import NotSent, TelemetrySettings, telemetry_of
from host.socket_place import SHORT_DIR
from supervisor.pool.autoscale import Bounds
from supervisor.pool.recycling import RecycleLimits
from supervisor.settings import parsers
from supervisor.settings.backup_age import BACKUP_MAX_AGE_HOURS, BACKUP_RECIPIENTS, backup_max_age_seconds_of
from supervisor.settings.secrets import Secret
from supervisor.settings.state_place import state_place
from supervisor.settings.way import PROXY, Way, find_way

__all__ = [
    "AGENT_ID",
    "ALL_SETTINGS",
    "BUS_KEY",
    "REDIS_URL",
    "KeeperSettings",
    "LoneWorkerSettings",
    "SettingsError",
    "SupervisorSettings",
    "agent_id_of",
]

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only a folder in it that nobody else can enter
ECHO_HANDLER = "workers.builtin.echo:agent"
LLM_HANDLER = "workers.builtin.llm:agent"

AGENT_TOKEN = Setting("HASHEE_AGENT_TOKEN", "the agent's token, hsk_ and 40 letters or digits", secret=True)
X25519_PRIVATE = Setting("HASHEE_X25519_PRIVATE_BASE64", "base64 of the 32 raw bytes of the key", secret=True)
ED25519_PRIVATE = Setting(
    "HASHEE_ED25519_PRIVATE_BASE64",
    "base64 of the 32 bytes of the seed, or of 64 bytes seed and public key",
    secret=True,
)
KEYSTORE = Setting("HASHEE_KEYSTORE", "the absolute path of a keystore.json of this agent")
STORE_KEY = Setting(
    "HASHEE_STORE_KEY", "base64 of 32 random bytes, the same for every process of the agent", secret=True
)
REDIS_TRUST = Setting("HASHEE_REDIS_TRUST", "eviction, persistence, or both with a comma", default="")
BASE_URL = Setting("HASHEE_BASE_URL", "https://host (http:// only on loopback)", default="https://api.hashee.ai")
CONNECTION_MODE = Setting("HASHEE_CONNECTION_MODE", "websocket", default="websocket")
WORKERS = Setting("HASHEE_WORKERS", "N or MIN:MAX, from 0 to 256 (0 = they run elsewhere)", default="2")
WORKER_MAX_JOBS = Setting("HASHEE_WORKER_MAX_JOBS", "a whole number from 0 to 1000000000 (0 = no limit)", default="0")
WORKER_MAX_AGE_SECONDS = Setting("HASHEE_WORKER_MAX_AGE_SECONDS", "seconds, 0 to 31536000 (0 = no limit)", default="0")
WORKER_MEMORY = Setting("HASHEE_WORKER_MEMORY", "SOFT or SOFT:HARD in MiB, 0 to 1048576 (0 = no limit)", default="0")
RELOAD = Setting("HASHEE_RELOAD", "0 or 1", default="0")
MOST_WAITING = Setting("HASHEE_MOST_WAITING", "a whole number from 1 to 10000000", default="10000")
STRIKES = Setting("HASHEE_STRIKES", "on or off", default="on")
BACKUP_PASSPHRASE_FILE = Setting("HASHEE_BACKUP_PASSPHRASE_FILE", "the absolute path of a file with the passphrase")
BACKUP_IDENTITY_FILE = Setting("HASHEE_BACKUP_IDENTITY_FILE", "the absolute path of a file with an age identity")
STATE_DIR = Setting("HASHEE_STATE_DIR", "the absolute path of a directory of this agent alone")
HTTP_HOST = Setting("HASHEE_HTTP_HOST", "an IP address or host name to listen on", default="127.0.0.1")
HTTP_PORT = Setting("HASHEE_HTTP_PORT", "a free port, 0 to 65535 (0 = any)", default="9090", aliases=("PORT",))
SEND_RATE = Setting("HASHEE_SEND_RATE", "messages per second, 0 to 1000 (0 = no limit)", default="5")
MAX_CONNECTIONS = Setting("HASHEE_MAX_CONNECTIONS", "a whole number from 1 to 3", default="3")
DRAIN_SECONDS = Setting("HASHEE_DRAIN_SECONDS", "seconds, 0 to 3600", default="25")
KEY_CHANGE = Setting("HASHEE_KEY_CHANGE", "hold, accept or refuse", default="hold")
FSYNC = Setting("HASHEE_FSYNC", "second or always", default="second")
MEMORY = Setting("HASHEE_MEMORY", "MiB, a whole number from 64 to 1048576")
REDIS_MEMORY = Setting("HASHEE_REDIS_MEMORY", "MiB, a whole number from 24 to 1048576")
FIRST_SYNC_SECONDS = Setting("HASHEE_FIRST_SYNC_SECONDS", "seconds, 0 to 31536000", default="86400")
ALL_SETTINGS = (
    AGENT_ID,
    AGENT_TOKEN,
    X25519_PRIVATE,
    ED25519_PRIVATE,
    KEYSTORE,
    BASE_URL,
    PROXY,
    CONNECTION_MODE,
    HANDLER,
    WORKERS,
    WORKER_MAX_JOBS,
    WORKER_MAX_AGE_SECONDS,
    WORKER_MEMORY,
    RELOAD,
    CONCURRENCY,
    JOB_SECONDS,
    RETRY_SECONDS,
    RETRY_TIMEOUTS,
    MOST_WAITING,
    STRIKES,
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    REDIS_TRUST,
    STORE_KEY,
    BUS_KEY,
    BACKUP_PASSPHRASE_FILE,
    BACKUP_RECIPIENTS,
    BACKUP_IDENTITY_FILE,
    BACKUP_MAX_AGE_HOURS,
    STATE_DIR,
    FSYNC,
    MEMORY,
    REDIS_MEMORY,
    HTTP_HOST,
    HTTP_PORT,
    SEND_RATE,
    MAX_CONNECTIONS,
    DRAIN_SECONDS,
    FIRST_SYNC_SECONDS,
    KEY_CHANGE,
    LOG_LEVEL,
    LOG_FORMAT,
    *TELEMETRY_SETTINGS,
)


@dataclass(frozen=True)
class LogSettings:
    level: str
    format: str


@dataclass(frozen=True)
class KeeperSettings:
    """What `up` needs before anything runs. No secret is in it, and none was read for it."""

    agent_id: str
    state_dir: Path
    runtime_dir: Path
    redis_is_private: bool
    fsync: str
    memory_bytes: int | None
    redis_memory_bytes: int | None
    http_host: str
    http_port: int
    drain_seconds: float
    log: LogSettings

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "KeeperSettings":
        """Raises SettingsError."""
        reader = SettingsReader(environ)
        agent_id = agent_id_of(reader)
        settings = cls(
            agent_id=agent_id,
            state_dir=state_dir_of(reader, agent_id),
            runtime_dir=runtime_dir_of(environ),
            redis_is_private=not reader.is_given(REDIS_URL),
            fsync=reader.required(FSYNC, one_of(("second", "always")), ""),
            memory_bytes=reader.optional(MEMORY, parsers.mebibytes(64)),
            redis_memory_bytes=reader.optional(REDIS_MEMORY, parsers.mebibytes(24)),
            http_host=reader.required(HTTP_HOST, parsers.host, ""),
            http_port=reader.required(HTTP_PORT, whole_number(0, 65535), 0),
            drain_seconds=reader.required(DRAIN_SECONDS, number(0, 3600), 0.0),
            log=_log_settings(reader),
        )
        reader.finish()
        return settings


@dataclass(frozen=True)
class SupervisorSettings:
    """Everything. `redis_url` and `store_key` are None when the keeper's private Redis is used."""

    agent_id: str
    agent_token: Secret[str]
    x25519_private: Secret[bytes]
    ed25519_seed: Secret[bytes]
    base_url: str
    way: Way
    handler: str
    workers: Bounds
    recycle: RecycleLimits
    reload_on_change: bool
    concurrency: int
    job_seconds: float
    most_waiting: int
    counts_strikes: bool
    redis_url: Secret[str] | None
    redis_trust: frozenset[str]
    memory_bytes: int | None
    redis_memory_bytes: int | None
    store_key: Secret[bytes] | None
    state_dir: Path
    runtime_dir: Path
    memory_places: tuple[Path, ...]
    http_host: str
    http_port: int
    send_rate_per_second: float
    max_connections: int
    drain_seconds: float
    first_sync_seconds: int
    key_change: str
    backup_max_age_seconds: float
    log: LogSettings
    telemetry: TelemetrySettings | NotSent | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "SupervisorSettings":
        """Raises SettingsError: also when Redis is a given one and there is no store key (PROTOCOL §5.11)."""
        reader = SettingsReader(environ)
        agent_id = agent_id_of(reader)
        redis_url = parsers.given_redis_url(reader)
        base_url = reader.required(BASE_URL, parsers.base_url, "")
        # The keeper imports this file and loads nothing that knows keys.
        from supervisor.settings.key_settings import find_private_keys  # noqa: PLC0415

        private_keys = find_private_keys(reader, agent_id)
        settings = cls(
            agent_id=agent_id,
            agent_token=reader.required(AGENT_TOKEN, parsers.agent_token, Secret("")),
            x25519_private=private_keys.x25519_private,
            ed25519_seed=private_keys.ed25519_seed,
            base_url=base_url,
            way=find_way(reader, base_url),
            handler=shared.handler_of(reader) or default_handler(environ),
            workers=reader.required(WORKERS, parsers.bounds, Bounds(1, 1)),
            recycle=_recycle_limits(reader),
            reload_on_change=reader.required(RELOAD, whole_number(0, 1), 0) == 1,
            concurrency=shared.concurrency_of(reader),
            job_seconds=shared.job_seconds_of(reader),
            most_waiting=reader.required(MOST_WAITING, whole_number(1, 10_000_000), 1),
            counts_strikes=reader.required(STRIKES, one_of(("on", "off")), "on") == "on",
            redis_url=redis_url,
            redis_trust=reader.optional(REDIS_TRUST, parsers.redis_trust) or frozenset(),
            memory_bytes=reader.optional(MEMORY, parsers.mebibytes(64)),
            redis_memory_bytes=reader.optional(REDIS_MEMORY, parsers.mebibytes(24)),
            store_key=reader.optional(STORE_KEY, parsers.secret_bytes),
            state_dir=state_dir_of(reader, agent_id),
            runtime_dir=runtime_dir_of(environ),
            memory_places=memory_places_of(environ),
            http_host=reader.required(HTTP_HOST, parsers.host, ""),
            http_port=reader.required(HTTP_PORT, whole_number(0, 65535), 0),
            send_rate_per_second=reader.required(SEND_RATE, number(0, 1000), 0.0),
            max_connections=reader.required(MAX_CONNECTIONS, whole_number(1, 3), 1),
            drain_seconds=reader.required(DRAIN_SECONDS, number(0, 3600), 0.0),
            first_sync_seconds=reader.required(FIRST_SYNC_SECONDS, whole_number(0, 31_536_000), 0),
            key_change=reader.required(KEY_CHANGE, one_of(("hold", "accept", "refuse")), ""),
            backup_max_age_seconds=backup_max_age_seconds_of(reader),
            log=_log_settings(reader),
            telemetry=telemetry_of(reader),
        )
        shared.retry_seconds_of(reader), shared.retries_timeouts_of(reader)  # both are read by the workers
        reader.required(CONNECTION_MODE, one_of(("websocket",)), "")
        if redis_url is not None and not reader.is_given(STORE_KEY):
            reader.refuse(STORE_KEY, missing=True)
        reader.finish()
        return settings


@dataclass(frozen=True)
class LoneWorkerSettings:
    """What `hashee-agent worker`, a worker away from its supervisor, needs."""

    agent_id: str
    redis_url: Secret[str]
    bus_key: Secret[bytes]
    handler: str
    concurrency: int
    log: LogSettings

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "LoneWorkerSettings":
        """Raises SettingsError."""
        reader = SettingsReader(environ)
        settings = cls(
            agent_id=agent_id_of(reader),
            redis_url=Secret(shared.redis_url_of(reader)),
            bus_key=reader.required(BUS_KEY, parsers.secret_bytes, Secret(b"")),
            handler=shared.handler_of(reader) or default_handler(environ),
            concurrency=shared.concurrency_of(reader),
            log=_log_settings(reader),
        )
        telemetry_of(reader)  # is read by `python -m workers`
        reader.finish()
        return settings


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """For the commands that need nothing else. Raises SettingsError."""
    reader = SettingsReader(environ)
    settings = _log_settings(reader)
    reader.finish()
    return settings


def control_directories(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """State and runtime directory, one of which holds the control socket. Raises SettingsError."""
    reader = SettingsReader(environ)
    directory = state_dir_of(reader, agent_id_of(reader))
    reader.finish()
    return directory, runtime_dir_of(environ)


def http_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the status page listens. Raises SettingsError."""
    reader = SettingsReader(environ)
    address = (reader.required(HTTP_HOST, parsers.host, ""), reader.required(HTTP_PORT, whole_number(0, 65535), 0))
    reader.finish()
    return address


def default_handler(environ: Mapping[str, str]) -> str:
    """The built-in handler of an owner who named none: `llm` where a model's endpoint is set, else `echo`."""
    if environ.get("OPENAI_BASE_URL") or environ.get("OPENAI_API_KEY"):
        return LLM_HANDLER
    return ECHO_HANDLER


def _recycle_limits(reader: SettingsReader) -> RecycleLimits:
    soft, hard = reader.required(WORKER_MEMORY, parsers.memory_bytes, (0, 0))
    return RecycleLimits(
        jobs=reader.required(WORKER_MAX_JOBS, whole_number(0, 1_000_000_000), 0),
        age_seconds=reader.required(WORKER_MAX_AGE_SECONDS, number(0, 31_536_000), 0.0),
        soft_bytes=soft,
        hard_bytes=hard,
    )


def _log_settings(reader: SettingsReader) -> LogSettings:
    return LogSettings(
        level=shared.log_level_of(reader),
        format=shared.log_format_of(reader),
    )


def state_dir_of(reader: SettingsReader, agent_id: str) -> Path:
    """HASHEE_STATE_DIR, else systemd's StateDirectory=, else the user's own state directory; in a lent one a folder of ours."""
    given = reader.optional(STATE_DIR, parsers.absolute_path)
    if given is None and (systemd := reader.environ.get("STATE_DIRECTORY")):
        given = Path(systemd.split(":", maxsplit=1)[0])
    if given is not None:
        return state_place(given)
    home = home_of(reader.environ)
    if home is None:
        if not reader.is_given(STATE_DIR):
            reader.refuse(STATE_DIR, missing=True)
        return Path(os.devnull)  # which no one sees, since `finish` raises
    return home / ".local" / "state" / "hashee-agent" / agent_id


def runtime_dir_of(environ: Mapping[str, str]) -> Path:
    """Where a socket goes whose path in the state directory would be too long; nothing is looked for there otherwise."""
    systemd = environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    given = (systemd, environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""))
    return next((Path(one) for one in given if Path(one).is_absolute()), SHORT_DIR)


def memory_places_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a file in memory may stand that has to be found again at the next start, whoever starts us; which of them are in memory shows later.

    systemd's RuntimeDirectory= first, which it keeps for us (RuntimeDirectoryPreserve=). /dev/shm before XDG_RUNTIME_DIR, which a login by
    another way does not have.
    """
    systemd = environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    named = (systemd, str(SHARED_MEMORY), environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), str(SHORT_DIR))
    return tuple(dict.fromkeys(Path(one) for one in named if Path(one).is_absolute()))


def home_of(environ: Mapping[str, str]) -> Path | None:
    """The user's home, by the environment or by their entry in the password file; None where neither says."""
    given = Path(environ.get("HOME", ""))
    if given.is_absolute():
        return given
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None
