"""What the supervisor is told: everything, the private keys too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings import shared
from bus.settings.files_place import FilesPlace, files_place_of
from bus.settings.llm import llm_settings_of
from bus.settings.places import runtime_dir_of, state_dir_of
from bus.settings.reader import SettingsReader, number, one_of, whole_number
from bus.settings.shared import agent_id_of
from bus.settings.spool_place import SpoolPlace, spool_place_of
from bus.telemetry.settings import NowhereToSend, TelemetrySettings, telemetry_of
from supervisor.settings import parsers
from supervisor.settings.backup_age import backup_max_age_seconds_of
from supervisor.settings.bounds import Bounds
from supervisor.settings.files import upload_hosts_of
from supervisor.settings.keeper import LogSettings, log_settings_of
from supervisor.settings.key_settings import find_private_keys
from supervisor.settings.manifest import Manifest, manifest_in
from supervisor.settings.places import memory_places_of
from supervisor.settings.reachable import Reachable
from supervisor.settings.recycle_limits import RecycleLimits
from supervisor.settings.secrets import Secret
from supervisor.settings.table import (
    AGENT_TOKEN,
    BASE_URL,
    CONNECTION_MODE,
    DRAIN_SECONDS,
    FIRST_SYNC_SECONDS,
    HTTP_HOST,
    HTTP_PORT,
    KEY_CHANGE,
    MANIFEST,
    MAX_CONNECTIONS,
    MCP_CONVERSATIONS,
    MEMORY,
    MOST_WAITING,
    REDIS_MEMORY,
    REDIS_TRUST,
    RELOAD,
    SEND_RATE,
    STORE_KEY,
    STRIKES,
    WORKER_MAX_AGE_SECONDS,
    WORKER_MAX_JOBS,
    WORKER_MEMORY,
    WORKERS,
)
from supervisor.settings.way import Way, find_way


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
    shows_errors: bool
    most_waiting: int
    counts_strikes: bool
    redis_url: Secret[str] | None
    redis_trust: frozenset[str]
    memory_bytes: int | None
    redis_memory_bytes: int | None
    store_key: Secret[bytes] | None
    files: FilesPlace | None
    spool: SpoolPlace
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
    mcp_conversations: Reachable
    manifest: Manifest | None
    backup_max_age_seconds: float
    log: LogSettings
    telemetry: TelemetrySettings | NowhereToSend | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "SupervisorSettings":
        """Raises SettingsError: also when Redis is a given one and there is no store key (PROTOCOL §5.11)."""
        reader = SettingsReader(environ)
        agent_id = agent_id_of(reader)
        redis_url = parsers.given_redis_url(reader)
        base_url = reader.required(BASE_URL, parsers.base_url, "")
        private_keys = find_private_keys(reader, agent_id)
        settings = cls(
            agent_id=agent_id,
            agent_token=reader.required(AGENT_TOKEN, parsers.agent_token, Secret("")),
            x25519_private=private_keys.x25519_private,
            ed25519_seed=private_keys.ed25519_seed,
            base_url=base_url,
            way=find_way(reader, base_url),
            handler=shared.handler_of(reader) or shared.default_handler(environ),
            workers=reader.required(WORKERS, parsers.bounds, Bounds(1, 1)),
            recycle=_recycle_limits(reader),
            reload_on_change=reader.required(RELOAD, whole_number(0, 1), 0) == 1,
            concurrency=shared.concurrency_of(reader),
            job_seconds=shared.job_seconds_of(reader),
            shows_errors=shared.shows_errors_of(reader),
            most_waiting=reader.required(MOST_WAITING, whole_number(1, 10_000_000), 1),
            counts_strikes=reader.required(STRIKES, one_of(("on", "off")), "on") == "on",
            redis_url=redis_url,
            redis_trust=reader.optional(REDIS_TRUST, parsers.redis_trust) or frozenset(),
            memory_bytes=reader.optional(MEMORY, parsers.mebibytes(64)),
            redis_memory_bytes=reader.optional(REDIS_MEMORY, parsers.mebibytes(24)),
            store_key=reader.optional(STORE_KEY, parsers.secret_bytes),
            files=files_place_of(reader),
            spool=spool_place_of(reader, agent_id),
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
            mcp_conversations=reader.optional(MCP_CONVERSATIONS, Reachable.parse) or Reachable(),
            manifest=reader.optional(MANIFEST, manifest_in),
            backup_max_age_seconds=backup_max_age_seconds_of(reader),
            log=log_settings_of(reader),
            telemetry=telemetry_of(reader),
        )
        shared.retry_seconds_of(reader), shared.retries_timeouts_of(reader)  # both are read by the workers
        llm_settings_of(reader)  # likewise
        upload_hosts_of(reader)  # by the file gate, which the keeper starts later
        reader.required(CONNECTION_MODE, one_of(("websocket",)), "")
        if redis_url is not None and not reader.is_given(STORE_KEY):
            reader.refuse(STORE_KEY, missing=True)
        reader.finish()
        return settings


def _recycle_limits(reader: SettingsReader) -> RecycleLimits:
    soft, hard = reader.required(WORKER_MEMORY, parsers.memory_bytes, (0, 0))
    return RecycleLimits(
        jobs=reader.required(WORKER_MAX_JOBS, whole_number(0, 1_000_000_000), 0),
        age_seconds=reader.required(WORKER_MAX_AGE_SECONDS, number(0, 31_536_000), 0.0),
        soft_bytes=soft,
        hard_bytes=hard,
    )
