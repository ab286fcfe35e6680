"""What `hashee-agent worker` is told, a worker away from its supervisor."""

from collections.abc import Mapping
from dataclasses import dataclass

from bus.settings import shared
from bus.settings.files_place import files_place_of
from bus.settings.llm import llm_settings_of
from bus.settings.reader import SettingsReader
from bus.settings.shared import BUS_KEY, agent_id_of
from bus.settings.spool_place import spool_place_of
from bus.telemetry.settings import telemetry_of
from supervisor.settings import parsers
from supervisor.settings.keeper import LogSettings, log_settings_of
from supervisor.settings.secrets import Secret


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
            handler=shared.handler_of(reader) or shared.default_handler(environ),
            concurrency=shared.concurrency_of(reader),
            log=log_settings_of(reader),
        )
        (
            telemetry_of(reader),
            llm_settings_of(reader),
            files_place_of(reader),
            spool_place_of(reader, settings.agent_id),
        )  # all are read by `python -m workers`
        reader.finish()
        return settings
