"""Reads what all checks need: each setting by itself, so that a wrong one hides no other, and the agent's status."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bus.settings.files_place import FILES_URL, NONE, FilesPlace, files_place_of
from bus.settings.places import runtime_dir_of, state_dir_of
from bus.settings.reader import SettingsError, SettingsReader, number
from bus.settings.shared import REDIS_URL, agent_id_of, shows_errors_of
from bus.settings.spool_place import SpoolPlace, spool_place_of
from supervisor.backup.settings import BackupSettings, recipients
from supervisor.settings import parsers
from supervisor.settings.backup_age import BACKUP_RECIPIENTS, backup_max_age_seconds_of
from supervisor.settings.bounds import Bounds
from supervisor.settings.key_settings import keystore_path
from supervisor.settings.secrets import Secret
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.table import (
    AGENT_TOKEN,
    BASE_URL,
    DRAIN_SECONDS,
    MEMORY,
    REDIS_MEMORY,
    REDIS_TRUST,
    STORE_KEY,
    WORKERS,
)
from supervisor.settings.way import Way, find_way

Json = Mapping[str, Any]  # the agent's answer, in which another version may leave out or add something
Value = TypeVar("Value")
NO_TRUST: frozenset[str] = frozenset()
NO_WORKERS = Bounds(0, 0)


@dataclass(frozen=True)
class Case:
    """The settings (None if not set or wrong; `has_files`: HASHEE_FILES_URL is not `none`) and `status`, which is that of `hashee-agent status --json`, None without an agent."""

    environ: Mapping[str, str]
    settings_problems: tuple[str, ...]
    shows_errors: bool
    agent_id: str | None
    token: Secret[str] | None
    base_url: str | None
    way: Way | None
    state_dir: Path | None
    runtime_dir: Path
    redis_is_private: bool
    redis_url: Secret[str] | None
    redis_trust: frozenset[str]
    store_key_is_given: bool
    keystore: Path | None
    drain_seconds: float
    backup_max_age_seconds: float
    backup_recipients: tuple[str, ...]
    least_workers: int
    memory_bytes: int | None
    redis_memory_bytes: int | None
    has_files: bool
    files: FilesPlace | None
    spool: SpoolPlace | None
    status: Json | None = None
    status_problem: str = ""
    answer_seconds: float = 6.0
    """For so long the relay or Redis is waited for: less than a look may take (rounds.py)."""

    search_answer_seconds: float = 10.0
    """The same where all of Redis is searched, which no look bounds."""

    @property
    def supervisor(self) -> Json | None:
        """Returns the running supervisor's part of the status."""
        return None if self.status is None else self.status.get("supervisor")

    @property
    def own_gate(self) -> Json | None:
        """Returns what the keeper says of its own file gate; None where it has none, or no keeper answers."""
        keeper = None if self.status is None else self.status.get("keeper")
        return keeper.get("files") if keeper else None

    @property
    def supervisor_pid(self) -> int | None:
        """Returns the pid of the supervisor that answered."""
        return None if self.supervisor is None else self.supervisor.get("pid")


def read_case(environ: Mapping[str, str], problems: tuple[str, ...] = ()) -> Case:
    """Reads the settings; faults are put into `settings_problems` after `problems`, and nothing is raised."""

    def one(read: Callable[[SettingsReader], Value]) -> Value | None:
        reader = SettingsReader(environ)
        try:
            value = read(reader)
            reader.finish()
        except SettingsError:
            return None  # the whole reading below says so
        return value

    for whole in (SupervisorSettings.from_environ, BackupSettings.from_environ):
        try:
            whole(environ)
        except SettingsError as problem:
            problems = (*problems, str(problem))
    base_url = one(lambda reader: reader.required(BASE_URL, parsers.base_url, ""))
    agent_id = one(agent_id_of)
    return Case(
        environ=environ,
        settings_problems=problems,
        shows_errors=one(shows_errors_of) or False,
        agent_id=agent_id,
        token=one(lambda reader: reader.optional(AGENT_TOKEN, parsers.agent_token)),
        base_url=base_url,
        way=None if base_url is None else one(lambda reader: find_way(reader, base_url)),
        state_dir=one(lambda reader: state_dir_of(reader, agent_id_of(reader))),
        runtime_dir=runtime_dir_of(environ),
        redis_is_private=not SettingsReader(environ).is_given(REDIS_URL),
        redis_url=one(parsers.given_redis_url),
        redis_trust=one(lambda reader: reader.required(REDIS_TRUST, parsers.redis_trust, NO_TRUST)) or NO_TRUST,
        store_key_is_given=SettingsReader(environ).is_given(STORE_KEY),
        keystore=None if agent_id is None else keystore_path(SettingsReader(environ), agent_id),
        drain_seconds=one(lambda reader: reader.required(DRAIN_SECONDS, number(0, 3600), 0.0)) or 0.0,
        backup_max_age_seconds=one(backup_max_age_seconds_of) or 0.0,
        backup_recipients=one(lambda reader: reader.optional(BACKUP_RECIPIENTS, recipients) or ()) or (),
        least_workers=(one(lambda reader: reader.required(WORKERS, parsers.bounds, NO_WORKERS)) or NO_WORKERS).least,
        memory_bytes=one(lambda reader: reader.optional(MEMORY, parsers.mebibytes(64))),
        redis_memory_bytes=one(lambda reader: reader.optional(REDIS_MEMORY, parsers.mebibytes(24))),
        has_files=environ.get(FILES_URL.name, "").strip() != NONE,
        files=one(files_place_of),
        spool=None if agent_id is None else one(lambda reader: spool_place_of(reader, agent_id)),
    )
