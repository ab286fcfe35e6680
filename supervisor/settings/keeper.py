"""What the keeper is told. No secret is in it, and reading it opens no file that could hold one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings import shared
from bus.settings.files_place import FILES_URL
from bus.settings.places import runtime_dir_of, state_dir_of
from bus.settings.reader import SettingsReader, number, one_of, whole_number
from bus.settings.shared import REDIS_URL, agent_id_of
from supervisor.settings import parsers
from supervisor.settings.table import DRAIN_SECONDS, FSYNC, HTTP_HOST, HTTP_PORT, MEMORY, REDIS_MEMORY


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
    has_own_files: bool
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
            has_own_files=not reader.is_given(FILES_URL),
            fsync=reader.required(FSYNC, one_of(("second", "always")), ""),
            memory_bytes=reader.optional(MEMORY, parsers.mebibytes(64)),
            redis_memory_bytes=reader.optional(REDIS_MEMORY, parsers.mebibytes(24)),
            http_host=reader.required(HTTP_HOST, parsers.host, ""),
            http_port=reader.required(HTTP_PORT, whole_number(0, 65535), 0),
            drain_seconds=reader.required(DRAIN_SECONDS, number(0, 3600), 0.0),
            log=log_settings_of(reader),
        )
        reader.finish()
        return settings


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """For the commands that need nothing else. Raises SettingsError."""
    reader = SettingsReader(environ)
    settings = log_settings_of(reader)
    reader.finish()
    return settings


def http_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the status page listens. Raises SettingsError."""
    reader = SettingsReader(environ)
    address = (reader.required(HTTP_HOST, parsers.host, ""), reader.required(HTTP_PORT, whole_number(0, 65535), 0))
    reader.finish()
    return address


def log_settings_of(reader: SettingsReader) -> LogSettings:
    return LogSettings(
        level=shared.log_level_of(reader),
        format=shared.log_format_of(reader),
    )
